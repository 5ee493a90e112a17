//! Real databases under write load. The archive holds all acknowledged writes,
//! in the state after an orderly shutdown.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::common::{Background, Place, docker, output, wait_until};
use serde_json::json;

const IMAGE: &str = "docker-stack-backup/debian:1";

/// A row that the database has acknowledged.
#[derive(Clone, Copy)]
struct Acknowledged {
    id: u64,
    /// 0 until the connection breaks for the first time.
    session: u64,
}

/// A client that writes rows 1, 2, 3, ... one by one, and connects again
/// whenever the database goes away.
struct Load {
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// `client` reads statements from its stdin and answers each by a line;
    /// `write` makes the statement for a row and the answer to expect.
    fn start(
        container: &str,
        client: &'static [&'static str],
        write: fn(u64) -> (String, String),
    ) -> Load {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (container, acknowledged, stop) =
                (container.to_owned(), acknowledged.clone(), stop.clone());
            move || {
                let (mut id, mut session) = (1, 0);
                while !stop.load(Ordering::Relaxed) {
                    let before = id;
                    let mut exec = Command::new("docker");
                    exec.args(["exec", "-i", &container]).args(client);
                    let exec = exec.stdin(Stdio::piped()).stdout(Stdio::piped());
                    let mut exec = Background(exec.stderr(Stdio::null()).spawn().unwrap());
                    let mut pipes = (
                        exec.0.stdin.take().unwrap(),
                        BufReader::new(exec.0.stdout.take().unwrap()),
                    );
                    while !stop.load(Ordering::Relaxed) && ask(&mut pipes, write(id)) {
                        let row = Acknowledged { id, session };
                        acknowledged.lock().unwrap().push(row);
                        id += 1;
                    }
                    session += u64::from(id > before);
                    thread::sleep(Duration::from_millis(50));
                }
            }
        });
        let thread = Some(thread);
        Load {
            acknowledged,
            stop,
            thread,
        }
    }

    fn ids(&self, of_session: impl Fn(u64) -> bool) -> Vec<u64> {
        let all = self.acknowledged.lock().unwrap();
        let rows = all.iter().filter(|row| of_session(row.session));
        rows.map(|row| row.id).collect()
    }

    #[track_caller]
    fn wait_for_rows(&self, of_session: impl Fn(u64) -> bool) {
        wait_until("the database acknowledges 50 rows", || {
            self.ids(&of_session).len() >= 50
        });
    }
}

/// Writes a row, and returns whether it was acknowledged.
fn ask(
    (stdin, stdout): &mut (ChildStdin, BufReader<ChildStdout>),
    (statement, answer): (String, String),
) -> bool {
    let mut line = String::new();
    writeln!(stdin, "{statement}").is_ok()
        && stdout.read_line(&mut line).is_ok()
        && line.trim() == answer
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A throw-away server on a data directory, without a network.
struct Server(String);

impl Server {
    fn start(data: &Path, target: &str, command: &[&str]) -> Server {
        let mount = format!("{}:{target}", data.display());
        let run = ["run", "--detach", "--init", "--network", "none"];
        let run = run.into_iter().chain(["--volume", &mount, IMAGE]);
        Server(docker(run.chain(command.iter().copied())))
    }

    fn exec(&self, command: &[&str]) -> crate::common::Ended {
        output(Command::new("docker").args(["exec", &self.0]).args(command))
    }

    fn log(&self) -> String {
        let ended = output(Command::new("docker").args(["logs", &self.0]));
        ended.stdout + &ended.stderr
    }

    fn runs(&self) -> bool {
        docker(["inspect", "--format", "{{.State.Running}}", &self.0]) == "true"
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = output(Command::new("docker").args(["rm", "--force", "--volumes", &self.0]));
    }
}

const PSQL: &[&str] = &["psql", "-U", "postgres", "-Atq"];

fn insert(id: u64) -> (String, String) {
    // A row is written again if it was committed but the answer was lost.
    let conflict = "on conflict (id) do update set id = excluded.id returning id";
    let statement = format!("insert into load values ({id}) {conflict};");
    (statement, id.to_string())
}

fn start_postgres(data: &Path) -> Server {
    let server = Server::start(data, "/var/lib/postgresql/data", &["postgres-server"]);
    wait_until("PostgreSQL answers, or has ended", || {
        server.exec(&["pg_isready", "-q", "-U", "postgres"]).status == 0 || !server.runs()
    });
    server
}

const WAS_SHUT_DOWN: &str = "database system was shut down at";
const RECOVERS: &str = "was not properly shut down; automatic recovery in progress";

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn postgres_under_load_is_archived_after_a_clean_shutdown() {
    let place = Place::new();
    let stack = place.stack("postgres");
    stack.up();
    let create = "create table load (id bigint primary key)";
    stack.exec("db", &[PSQL, &["-c", create]].concat());
    let load = Load::start(&stack.container("db"), PSQL, insert);
    load.wait_for_rows(|session| session == 0);

    // The control: a copy of the running server's files needs a recovery.
    let live_copy = place.path("live-copy");
    let mut copy = Command::new("cp");
    output(copy.arg("-a").arg(stack.dir.join("data")).arg(&live_copy));
    let copied = start_postgres(&live_copy);
    let log = copied.log();
    assert!(log.contains(RECOVERS) || !copied.runs(), "{log}");
    assert!(!log.contains(WAS_SHUT_DOWN), "{log}");

    place.config(json!([stack.name]), json!({}));
    let json = place.run().expect_status(0).json();
    assert!(stack.outcome(&json)["downtimeMs"].as_u64().is_some());
    // The stack is up, and writes go on.
    load.wait_for_rows(|session| session > 0);

    let extracted = place.extract(&place.archive(&stack.name));
    let server = start_postgres(&extracted.join(&stack.name).join("data"));
    let log = server.log();
    assert!(log.contains(WAS_SHUT_DOWN), "{log}");
    assert!(!log.contains(RECOVERS), "{log}");
    let select = [PSQL, &["-c", "select id from load order by id"]].concat();
    let rows = server.exec(&select).expect_status(0).stdout;
    let rows: Vec<u64> = rows.lines().map(|id| id.parse().unwrap()).collect();
    assert!(rows.iter().copied().eq(1..=rows.len() as u64), "{rows:?}");
    let acknowledged = load.ids(|session| session == 0);
    let last = *acknowledged.last().unwrap();
    // The archive may hold one more row, which was committed but its answer was
    // lost.
    let count = rows.len() as u64;
    assert!((last..=last + 1).contains(&count), "{last} and {count}");
}

fn set(id: u64) -> (String, String) {
    (format!("SET row:{id} {id}"), "OK".to_owned())
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn redis_keeps_every_acknowledged_write() {
    let place = Place::new();
    let stack = place.stack("redis");
    stack.up();
    let load = Load::start(&stack.container("cache"), &["redis-cli"], set);
    load.wait_for_rows(|session| session == 0);
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
    load.wait_for_rows(|session| session > 0);

    let extracted = place.extract(&place.archive(&stack.name));
    let volume = extracted.join(format!("{0}.volumes/{0}_data", stack.name));
    let redis = ["redis-server", "--dir", "/data", "--appendonly", "yes"];
    let server = Server::start(&volume, "/data", &redis);
    wait_until("Redis answers", || {
        server.exec(&["redis-cli", "ping"]).stdout.trim() == "PONG"
    });
    let keys = server.exec(&["redis-cli", "--scan"]).expect_status(0);
    let has = |id: &u64| keys.stdout.lines().any(|key| key == format!("row:{id}"));
    let acknowledged = load.ids(|session| session == 0);
    let lost: Vec<&u64> = acknowledged.iter().filter(|id| !has(id)).collect();
    assert!(lost.is_empty(), "{lost:?} of {acknowledged:?}");
    // The control: what was written after the backup is not in it.
    assert!(!has(load.ids(|session| session > 0).last().unwrap()));
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn the_root_directories_of_volume_and_stack_keep_mode_and_owner() {
    let place = Place::new();
    let stack = place.stack("redis");
    stack.up();
    stack.exec("cache", &["chown", "1234:5678", "/data"]);
    stack.exec("cache", &["chmod", "2751", "/data"]);
    fs::set_permissions(&stack.dir, fs::Permissions::from_mode(0o1710)).unwrap();
    chown(&stack.dir, Some(4321), Some(8765)).unwrap();
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
    let extracted = place.extract(&place.archive(&stack.name));
    let of = |path: &str| {
        let metadata = fs::metadata(extracted.join(path)).unwrap();
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
    };
    let volume = of(&format!("{0}.volumes/{0}_data", stack.name));
    assert_eq!(volume, (0o2751, 1234, 5678));
    assert_eq!(of(&stack.name), (0o1710, 4321, 8765));
}
