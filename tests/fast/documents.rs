//! What the documents show is true: links lead somewhere, configurations are
//! accepted, commands exist, and every field of the configuration is documented.
//!
//! Each check returns the faults of a text. Each is also given a text with planted
//! faults, so that it is seen to find them. Nix blocks are checked by
//! `scripts/render-module`, and systemd units in `units.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{CommandFactory as _, Parser as _};
use docker_stack_backup::cli::Cli;
use walkdir::WalkDir;

use crate::common::{Ended, PROGRAM, output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Documents that may name tests and source files.
const FOR_CONTRIBUTORS: [&str; 6] = [
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/archive-format.md",
    "docs/design.md",
    "docs/invariants.md",
    "docs/reliability.md",
];

struct Document {
    /// Relative to the root of the repository.
    name: String,
    text: String,
}

impl Document {
    fn read(path: &Path) -> Document {
        let name = path.strip_prefix(ROOT).unwrap();
        Document {
            name: name.to_str().unwrap().to_owned(),
            text: fs::read_to_string(path).unwrap(),
        }
    }

    fn planted(text: &str) -> Document {
        Document {
            name: "docs/planted.md".to_owned(),
            text: text.to_owned(),
        }
    }

    /// Returns the code blocks in one of these languages.
    fn blocks(&self, languages: &[&str]) -> Vec<&str> {
        let parts: Vec<&str> = self.text.split("```").collect();
        assert!(parts.len() % 2 == 1, "{}: a block has no end", self.name);
        let blocks = parts.into_iter().skip(1).step_by(2);
        blocks
            .filter_map(|block| block.split_once('\n'))
            .filter(|(language, _)| languages.contains(language))
            .map(|(_, text)| text)
            .collect()
    }

    fn without_blocks(&self) -> String {
        let prose = self.text.split("```").step_by(2);
        prose.collect::<Vec<_>>().join("\n")
    }

    /// Returns the code within sentences and tables.
    fn inline_code(&self) -> Vec<String> {
        let prose = self.without_blocks();
        let spans = prose
            .lines()
            .flat_map(|line| line.split('`').skip(1).step_by(2));
        spans.map(|span| span.replace("\\|", "|")).collect()
    }

    /// Returns the anchors that GitHub gives to headings.
    fn anchors(&self) -> BTreeSet<String> {
        let prose = self.without_blocks();
        let headings = prose.lines().filter(|line| line.starts_with('#'));
        let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
        let anchor = |heading: &str| {
            let text = heading.trim_start_matches('#').trim().to_lowercase();
            let text: String = text.chars().filter(kept).collect();
            text.replace(' ', "-")
        };
        headings.map(anchor).collect()
    }
}

fn files_with(extension: &str, directories: &[&str]) -> Vec<PathBuf> {
    let entries = directories
        .iter()
        .flat_map(|directory| fs::read_dir(Path::new(ROOT).join(directory)).unwrap());
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

fn documents() -> Vec<Document> {
    let paths = files_with("md", &["", "docs", "examples"]);
    paths.iter().map(|path| Document::read(path)).collect()
}

/// Fails with all faults that `check` finds in the documents.
#[track_caller]
fn assert_no_faults(check: impl Fn(&Document) -> Vec<String>) {
    let faults: Vec<String> = documents()
        .iter()
        .flat_map(|document| {
            let name = &document.name;
            let faults = check(document).into_iter();
            faults
                .map(|fault| format!("{name}: {fault}"))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Fails unless `check` finds exactly these words, one in each fault.
#[track_caller]
fn assert_finds(faults: &[String], words: &[&str]) {
    assert_eq!(faults.len(), words.len(), "{faults:?}");
    for (fault, word) in faults.iter().zip(words) {
        assert!(fault.contains(word), "{fault} has no {word}");
    }
}

fn link_faults(document: &Document) -> Vec<String> {
    let prose = document.without_blocks();
    let targets = prose.split("](").skip(1).filter_map(|rest| {
        let target = rest.split_once(')')?.0;
        (!target.contains("://")).then_some(target)
    });
    let is_broken = |target: &&str| {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let path = match file {
            "" => Path::new(ROOT).join(&document.name),
            _ => Path::new(ROOT)
                .join(&document.name)
                .with_file_name("")
                .join(file),
        };
        match (file, anchor) {
            (_, "") => !path.exists(),
            ("", _) => !document.anchors().contains(anchor),
            _ => {
                !path.is_file() || {
                    let path = path.canonicalize().unwrap();
                    !Document::read(&path).anchors().contains(anchor)
                }
            }
        }
    };
    let broken = targets.filter(is_broken);
    broken
        .map(|target| format!("nothing is at {target}"))
        .collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    assert_no_faults(link_faults);
    let planted = Document::planted(
        "# One two\n[a](faq.md) [b](nothing.md) [c](#one-two) [d](#three)\n\
         [e](../README.md#install) [f](../README.md#nowhere) [g](https://example.org/x)",
    );
    let found = ["nothing.md", "#three", "#nowhere"];
    assert_finds(&link_faults(&planted), &found);
}

/// Runs `check` on a configuration.
fn check(json: &str) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, json).unwrap();
    let mut check = Command::new(PROGRAM);
    check.arg("check").arg("--config").arg(path);
    output(&mut check)
}

fn configuration_faults(document: &Document) -> Vec<String> {
    let blocks = document.blocks(&["json"]).into_iter();
    let ended = blocks.map(check).filter(|ended| ended.status != 0);
    ended.map(|ended| ended.stderr).collect()
}

#[test]
fn every_json_block_is_a_configuration_that_the_program_accepts() {
    assert_no_faults(configuration_faults);
    let planted = Document::planted(
        "```json\n{}\n```\n```json\n{\"stacks\": [}\n```\n```json\n{\"stackz\": []}\n```\n",
    );
    assert_finds(&configuration_faults(&planted), &["line 1", "stackz"]);
}

#[test]
fn every_example_is_accepted_and_listed() {
    let list = Document::read(&Path::new(ROOT).join("examples/README.md"));
    let json = files_with("json", &["examples"]);
    for path in &json {
        let ended = check(&fs::read_to_string(path).unwrap());
        assert_eq!(ended.status, 0, "{}: {}", path.display(), ended.stderr);
    }
    for path in json.iter().chain(&files_with("nix", &["examples"])) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(list.text.contains(&format!("({name})")), "{name}");
    }
    // The control: a wrong field is refused.
    let first = fs::read_to_string(&json[0]).unwrap();
    let spoilt = first.replacen("\"stacks\"", "\"stack\"", 1);
    assert_eq!(check(&spoilt).status, 1);
}

/// Returns the commands in a block: all of it, or only the lines that begin with
/// `$` if it also shows output.
fn script(block: &str) -> String {
    let typed = block.lines().filter_map(|line| line.strip_prefix("$ "));
    match typed.collect::<Vec<_>>().join("\n") {
        typed if typed.is_empty() => block.to_owned(),
        typed => typed,
    }
}

fn scripts(document: &Document) -> Vec<String> {
    let blocks = document.blocks(&["console", "sh", "bash"]);
    blocks.into_iter().map(script).collect()
}

fn shell_faults(document: &Document) -> Vec<String> {
    let faults = scripts(document).into_iter().map(|script| {
        let mut bash = Command::new("bash");
        bash.args(["-n", "-c", &script]);
        output(&mut bash).stderr
    });
    faults.filter(|fault| !fault.is_empty()).collect()
}

#[test]
fn every_console_block_is_a_script_that_bash_can_parse() {
    assert_no_faults(shell_faults);
    let planted = Document::planted(
        "```console\nls\n```\n```console\nif true\n```\n```console\n$ ls\nif (\n$ ls )\n```\n",
    );
    assert_finds(&shell_faults(&planted), &["end of file", ")"]);
}

/// Splits a command into words, without comments and redirections.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#' | '>' | '<') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Returns the errors of the shown calls of the program that do not parse.
fn command_faults(document: &Document) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for script in scripts(document) {
        let script = script.replace("\\\n", " ");
        let parts = script.split(['\n', '|', ';', '&']);
        commands.extend(parts.map(|part| part.trim().to_owned()));
    }
    let inline = document.inline_code().into_iter();
    // The first line of a sums file looks like a call; it has a <placeholder>.
    commands.extend(inline.filter(|code| !code.contains('<')));
    let calls = commands.iter().map(|command| words(command));
    let calls = calls.filter(|words| words.len() > 1 && words[0] == "docker-stack-backup");
    let failed = calls.filter_map(|words| Cli::try_parse_from(words).err());
    let errors = failed.filter(clap::Error::use_stderr);
    errors.map(|error| error.to_string()).collect()
}

#[test]
fn every_call_of_the_program_that_is_shown_parses() {
    assert_no_faults(command_faults);
    let planted = Document::planted(
        "`docker-stack-backup list` `docker-stack-backup backup` `docker-stack-backup.timer`\n\
         ```console\ncat x |\n    docker-stack-backup restore --from - \\\n    web   # --nothing\n\
         docker-stack-backup drill web -- db psql -c 'a b'; docker-stack-backup run --fast\n\
         docker-stack-backup --version\n```\n",
    );
    assert_finds(&command_faults(&planted), &["--fast", "backup"]);
}

/// Returns the names in the first column of a section's tables, without arguments.
fn documented<'a>(document: &'a Document, section: &str) -> BTreeSet<&'a str> {
    let begin = format!("\n## {section}\n");
    let text = document.text.split_once(&begin).unwrap().1;
    let text = text.split_once("\n## ").map_or(text, |(text, _)| text);
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split(['`', ' ']).next())
        .collect()
}

/// Returns the fields that the program lists when it refuses the unknown field in
/// `json`.
fn known(json: &str) -> BTreeSet<String> {
    let message = check(json).stderr;
    let fields = message
        .split_once("expected one of")
        .unwrap_or_else(|| panic!("{message}"))
        .1;
    let names = fields.split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

/// Sections of docs/configuration.md, each with a configuration that has an unknown
/// field in that place.
const SECTIONS: [(&str, &str); 7] = [
    ("Top-level fields", r#"{"?": 0}"#),
    ("Options of a stack", r#"{"stacks": [{"?": 0}]}"#),
    ("Hooks", r#"{"stacks": [{"hooks": [{"?": 0}]}]}"#),
    ("Retention", r#"{"retention": {"?": 0}}"#),
    ("Mail", r#"{"email": {"?": 0}}"#),
    ("Other channels", r#"{"notify": [{"?": 0}]}"#),
    ("Handover", r#"{"handover": [{"?": 0}]}"#),
];

fn difference(documented: &BTreeSet<&str>, known: &BTreeSet<String>) -> Vec<String> {
    let missing = known
        .iter()
        .filter(|name| !documented.contains(name.as_str()))
        .map(|name| format!("{name} is not documented"));
    let unknown = documented
        .iter()
        .filter(|name| !known.contains(**name))
        .map(|name| format!("there is no {name}"));
    missing.chain(unknown).collect()
}

fn field_faults(configuration: &Document) -> Vec<String> {
    let sections = SECTIONS.into_iter();
    let mut faults: Vec<String> = sections
        .flat_map(|(section, json)| difference(&documented(configuration, section), &known(json)))
        .collect();
    let mut program = Cli::command();
    program.build();
    let options = program.get_arguments().filter_map(|option| {
        let name = option.get_long()?;
        (!["help", "version"].contains(&name)).then(|| format!("--{name}"))
    });
    let mut shown = documented(configuration, "The command line");
    shown.retain(|name| name.starts_with("--"));
    faults.extend(difference(&shown, &options.collect()));
    faults
}

#[test]
fn the_configuration_page_has_every_field_and_option_and_no_other() {
    let mut page = Document::read(&Path::new(ROOT).join("docs/configuration.md"));
    let faults = field_faults(&page);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for (field, planted) in [
        ("baseDir", "basDir"),
        ("unshared", "notShared"),
        ("keepLast", "keepFirst"),
        ("caFile", "certificate"),
        ("--quiet", "--silent"),
    ] {
        let row = format!("\n| `{field}");
        assert!(page.text.contains(&row), "{field}");
        page.text = page.text.replace(&row, &format!("\n| `{planted}"));
        let found = field_faults(&page);
        assert_finds(&found[found.len() - 2..], &[field, planted]);
        page.text = page
            .text
            .replace(&format!("\n| `{planted}"), &format!("\n| `{field}"));
    }
}

/// Code such as `"keepDays": 28` must name an existing field.
fn setting_faults(document: &Document, known: &BTreeSet<String>) -> Vec<String> {
    let spans = document.inline_code().into_iter();
    let keys = spans.filter_map(|span| {
        let (key, rest) = span.strip_prefix('"')?.split_once('"')?;
        rest.starts_with(':').then(|| key.to_owned())
    });
    keys.filter(|key| !known.contains(key)).collect()
}

#[test]
fn every_setting_that_a_text_names_exists() {
    let known: BTreeSet<String> = SECTIONS
        .into_iter()
        .flat_map(|(_, json)| known(json))
        .collect();
    assert_no_faults(|document| setting_faults(document, &known));
    let planted = Document::planted("set `\"onBusy\": \"warn\"`, or `\"onBuzy\": \"warn\"`");
    assert_finds(&setting_faults(&planted, &known), &["onBuzy"]);
}

/// Returns the names of all tests, and the directories of the source.
fn names_of_the_source() -> Vec<String> {
    let mut names = vec!["src/".to_owned(), "tests/".to_owned()];
    let entries = ["src", "tests"]
        .into_iter()
        .flat_map(|directory| WalkDir::new(Path::new(ROOT).join(directory)));
    let paths = entries.map(|entry| entry.unwrap().into_path());
    for path in paths.filter(|path| path.extension().is_some_and(|found| found == "rs")) {
        let text = fs::read_to_string(path).unwrap();
        let functions = text.split("#[test]").skip(1).filter_map(|rest| {
            let name = rest.split_once("fn ")?.1.split_once('(')?.0;
            // Short names could be ordinary words.
            (name.matches('_').count() >= 3).then(|| name.to_owned())
        });
        names.extend(functions);
    }
    names
}

fn source_faults(document: &Document, names: &[String]) -> Vec<String> {
    let is_named = |name: &&String| {
        let mut found = document.text.match_indices(name.as_str());
        // A path such as /usr/src/x does not count.
        found.any(|(at, _)| {
            let before = document.text[..at].chars().next_back();
            before.is_none_or(|c| c != '/' && !c.is_alphanumeric())
        })
    };
    names.iter().filter(is_named).cloned().collect()
}

#[test]
fn documents_for_users_name_no_test_and_no_source_file() {
    let names = names_of_the_source();
    assert_no_faults(|document| match FOR_CONTRIBUTORS {
        others if others.contains(&document.name.as_str()) => Vec::new(),
        _ => source_faults(document, &names),
    });
    let planted = Document::planted(
        "`src/main.rs`, `documents_for_users_name_no_test_and_no_source_file`, `web_data`, \
         `/usr/tests/x`",
    );
    let found = [
        "src/",
        "documents_for_users_name_no_test_and_no_source_file",
    ];
    assert_finds(&source_faults(&planted, &names), &found);
}

/// The settings of the script that docs/from-docker-backup-py.md speaks of.
const SCRIPT: &str = r#"#!/usr/bin/env python3
STACKS = ["a", "b"]
BASE_DIR = "/opt/stacks"
EXTRA_STACK_PATH = "/srv/extra"
BACKUP_DIR = "/var/backups/docker"
DAILY_RETENTION_DAYS = 28
LOG_FILE = "/var/log/docker-backup.log"
SMTP_SERVER = "mail.example.org"
SMTP_PORT = 587
SMTP_USER = "u"
SMTP_PASS = "secret"
SENDER_EMAIL = "a@example.org"
RECEIVER_EMAIL = "b@example.org"
SUBJECT_TAG = "docker"
open("/no/such/directory/of-the-script", "w")
"#;

#[test]
fn the_configuration_of_the_script_is_what_its_document_shows() {
    let page = Path::new(ROOT).join("docs/from-docker-backup-py.md");
    let page = Document::read(&page);
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("docker-backup.py");
    fs::write(&script, SCRIPT).unwrap();
    let import = |more: &[&str]| {
        let mut import = Command::new(PROGRAM);
        output(import.arg("import-script").arg(&script).args(more)).expect_status(0)
    };
    let json = import(&[]);
    let mut shown: serde_json::Value = serde_json::from_str(page.blocks(&["json"])[0]).unwrap();
    // The document leaves the name out.
    shown["stacks"][2]["name"] = "extra".into();
    assert_eq!(json.parsed(), shown);
    assert!(!json.stdout.contains("secret\"") && json.stderr.contains("SMTP_PASS"));
    let nix = import(&["--nix"]).stdout;
    let is_code = |line: &&str| !line.trim().starts_with('#');
    let code: Vec<&str> = nix.lines().filter(is_code).collect();
    let shown: Vec<&str> = page.blocks(&["nix"])[0].lines().collect();
    assert_eq!(code, shown);
    assert!(
        nix.contains("# the password (SMTP_PASS) is not taken over"),
        "{nix}"
    );
    // A file that is no such script is refused.
    fs::write(&script, "print('x')").unwrap();
    let mut other = Command::new(PROGRAM);
    output(other.arg("import-script").arg(&script)).expect_status(1);
}
