//! The recipes for hooks, with the very commands that stand in docs/hooks.md.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::scene::start_times;
use crate::common::{Place, output};

const PASSWORD: &str = "a password of MariaDB";

/// A page of docs/.
struct Documented(String);

impl Documented {
    fn page(name: &str) -> Documented {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("docs")
            .join(name);
        Documented(fs::read_to_string(path).unwrap())
    }

    /// Returns the first block of code in a section, of a language.
    fn block(&self, section: &str, language: &str) -> &str {
        let (_, text) = self.0.split_once(&format!("\n### {section}\n")).unwrap();
        let text = text.split("\n### ").next().unwrap();
        let (_, block) = text.split_once(&format!("```{language}\n")).unwrap();
        block.split_once("```").unwrap().0
    }

    /// Returns the hooks of the first stack in a block.
    fn hooks(block: &str) -> Vec<Value> {
        let config: Value = serde_json::from_str(block).unwrap();
        config["stacks"][0]["hooks"].as_array().unwrap().clone()
    }

    /// Returns the hooks of the first example of the page.
    fn first_hooks(&self) -> Vec<Value> {
        let (_, block) = self.0.split_once("```json\n").unwrap();
        Documented::hooks(block.split_once("```").unwrap().0)
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn the_recipes_for_hooks_do_what_the_page_says() {
    let page = Documented::page("hooks.md");
    let place = Place::new();
    let stack = place.stack("recipes");
    for dir in ["dumps", "app", "html"] {
        fs::create_dir(stack.dir.join(dir)).unwrap();
        // The commands run as users of their containers.
        let mode = fs::Permissions::from_mode(0o777);
        fs::set_permissions(stack.dir.join(dir), mode).unwrap();
    }
    stack.up();
    let postgres = |database: &str, sql: &str| {
        let psql = ["psql", "-U", "postgres", "-Atq", "-d", database, "-c", sql];
        stack.exec("db", &psql)
    };
    let mariadb = |sql: &str| {
        let password = format!("--password={PASSWORD}");
        let client = ["mariadb", "--user=root", &password, "--batch", "-N", "-e"];
        stack.exec("mariadb", &[&client[..], &[sql]].concat())
    };
    let sqlite = |file: &str, sql: &str| stack.exec("app", &["sqlite3", file, sql]);
    let table = "create table t (word text); insert into t values ('archived')";
    postgres("postgres", "create database app");
    postgres("app", table);
    mariadb(&format!("create database app; use app; {table}"));
    sqlite("/data/app.db", &format!("pragma journal_mode=wal; {table}"));
    stack.exec("cache", &["redis-cli", "set", "word", "archived"]);

    let secret = place.path("mariadb-root");
    fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
    let here = |text: &str| text.replace("/etc/secrets/mariadb-root", secret.to_str().unwrap());
    let sections = [
        "PostgreSQL",
        "MariaDB",
        "Redis",
        "SQLite",
        "A maintenance mode",
    ];
    let recipes = sections
        .iter()
        .flat_map(|section| Documented::hooks(&here(page.block(section, "json"))));
    let hooks: Vec<Value> = page.first_hooks().into_iter().chain(recipes).collect();
    place.config(json!([{"name": stack.name, "hooks": hooks}]), json!({}));
    let json = place.run().expect_status(0).json();
    let ran = stack.outcome(&json)["hooks"].as_array().unwrap().len();
    assert_eq!(ran, hooks.len() + 2, "two of them have an undo");

    // The archive has the services in maintenance, and here they are so no more.
    let archive = place.extract(&place.archive(&stack.name));
    let archived = archive.join(&stack.name);
    let mode = |dir: &Path| fs::read_to_string(dir.join("app/maintenance")).unwrap();
    assert_eq!(mode(&archived), "on\n");
    assert_eq!(mode(&stack.dir), "on\noff\n");
    assert!(archived.join("html/maintenance").exists());
    assert!(!stack.dir.join("html/maintenance").exists());

    // The dumps are those of the archive, and what is dumped is gone.
    for file in ["dumps/app.dump", "dumps/all.sql", "app/app-backup.db"] {
        fs::copy(archived.join(file), stack.dir.join(file)).unwrap();
    }
    postgres("app", "drop table t");
    mariadb("drop database app");
    for section in ["PostgreSQL", "MariaDB"] {
        let mut shell = Command::new("sh");
        let command = here(page.block(section, "console"));
        let shell = shell.args(["-c", &command]).current_dir(&stack.dir);
        output(shell.env("COMPOSE_PROJECT_NAME", &stack.project)).expect_status(0);
    }
    let select = "select word from t";
    assert_eq!(postgres("app", select), "archived");
    assert_eq!(mariadb(&format!("use app; {select}")), "archived");
    assert_eq!(sqlite("/data/app-backup.db", select), "archived");
    let volume = archive.join(format!("{0}.volumes/{0}_cache", stack.name));
    let snapshot = fs::read(volume.join("backup.rdb")).unwrap();
    assert!(snapshot.starts_with(b"REDIS"));
    assert!(snapshot.windows(8).any(|bytes| bytes == b"archived"));
    // The control: by itself, this one saves nothing.
    assert!(!volume.join("dump.rdb").exists());

    // A dump that fails fails the backup, and nothing is stopped.
    fs::write(&secret, "another\n").unwrap();
    let times = start_times(&stack);
    let json = place.run().expect_status(2).json();
    let said = stack.outcome(&json)["failures"].to_string();
    assert!(said.contains("Access denied"), "{said}");
    assert_eq!(start_times(&stack), times);
}
