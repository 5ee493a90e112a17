//! What the integration tests share: a temporary place with a store and a
//! state directory, real stacks on a real Docker Engine, and a spy on PATH.

pub mod api;
pub mod disk;
pub mod engine;
pub mod guarded;
pub mod hooks;
pub mod kill_points;
pub mod ledger;
pub mod mixed;
pub mod podman;
pub mod scene;
pub mod schema;
pub mod shop;
pub mod smtp;
pub mod spy;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, ZonedDateTime};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use api::Api;
pub use spy::Spy;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_docker-stack-backup");

/// How a command ended and what it printed.
#[derive(Debug)]
pub struct Ended {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The JSON that was printed.
    #[track_caller]
    pub fn parsed(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in:\n{}\n{}", self.stdout, self.stderr))
    }

    /// What was printed with `--json`. It is as the schema says.
    #[track_caller]
    pub fn json(&self) -> Value {
        let value = self.parsed();
        schema::assert_known(&value);
        value
    }

    /// A list that was printed with `--json`.
    #[track_caller]
    pub fn items(&self, name: &str) -> Value {
        self.json()[name].take()
    }

    #[track_caller]
    pub fn expect_status(self, status: i32) -> Ended {
        assert_eq!(
            self.status, status,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }
}

#[track_caller]
pub fn output(command: &mut Command) -> Ended {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("{error}: {command:?} (scripts/test installs what the tests need)")
        });
    Ended {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a command that must succeed, and returns its stdout, trimmed.
#[track_caller]
pub fn succeed<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> String {
    let ended = output(Command::new(program).args(args)).expect_status(0);
    ended.stdout.trim().to_owned()
}

pub fn docker<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    succeed("docker", args)
}

/// `docker compose`, without the docker command in between, which takes longer to start
/// the plugin than the plugin then takes.
fn compose_plugin() -> Command {
    let plugin = docker_stack_backup::engine::compose_plugin();
    let mut command = Command::new(plugin.expect("the docker command knows Compose"));
    command.env("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", "docker");
    command.arg("compose");
    command
}

/// `strace OPTIONS` of a command. Without `-f` it traces the first thread alone, so a
/// run does everything in its own process.
/// Where processes may not be traced the test fails: such tests are in modules
/// named `needs_strace`, which `scripts/test` leaves out and counts as skipped.
#[track_caller]
pub fn strace(command: &Command, options: &[&str]) -> Command {
    let mut probe = Command::new("strace");
    let probe = output(probe.args(["-qq", "-o", "/dev/null", "true"]));
    assert_eq!(probe.status, 0, "cannot trace: {}", probe.stderr);
    let mut traced = Command::new("strace");
    traced.args(options).arg(command.get_program());
    traced.args(command.get_args());
    if command.get_args().any(|word| word == "run") {
        traced.arg("--unwatched");
    }
    let set = command.get_envs();
    traced.envs(set.filter_map(|(name, value)| Some((name, value?))));
    traced
}

/// The command, killed by SIGKILL before its call `n` of `syscall`.
pub fn killed_before(command: &Command, syscall: &str, n: usize) -> Command {
    let trace = format!("trace={syscall}");
    let inject = format!("inject={syscall}:signal=SIGKILL:when={n}");
    strace(
        command,
        &["-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject],
    )
}

/// The command, with each call of `syscall` delayed in all its threads.
pub fn slowed(command: &Command, syscall: &str, microseconds: u32) -> Command {
    let trace = format!("trace={syscall}");
    let inject = format!("inject={syscall}:delay_enter={microseconds}");
    strace(
        command,
        &["-qq", "-o", "/dev/null", "-f", "-e", &trace, "-e", &inject],
    )
}

/// The name, without `.tar`, of an archive that was made so many days ago.
pub fn archive_stem(stack: &str, days_ago: i64) -> String {
    let time = ZonedDateTime::now().datetime() - SignedDuration::from_hours(24 * days_ago);
    format!("{stack}_{}", time.strftime("%Y%m%d_%H%M%S"))
}

/// Checks all items at the same time, since they mostly wait. A panic in one
/// fails the test.
pub fn in_parallel<T: Send>(items: impl IntoIterator<Item = T>, check: impl Fn(T) + Copy + Send) {
    std::thread::scope(|scope| {
        for item in items {
            scope.spawn(move || check(item));
        }
    });
}

/// How long a test waits for what must happen. A machine that runs many tests at
/// once is slow: a stop that takes a second alone has taken half a minute.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Waits until something holds, at most for [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        // Most of these look by a docker command, which takes as long.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A temporary directory with everything that a run needs.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        Place {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Makes a place, including its stacks, on `disk`.
    pub fn on(disk: &disk::Disk) -> Place {
        Place {
            dir: tempfile::tempdir_in(&disk.path).unwrap(),
        }
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Copies `tests/stacks/<kind>` under a unique name, without starting it.
    pub fn stack(&self, kind: &str) -> Stack {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("dsbtest-{kind}-{}-{count}", std::process::id());
        let dir = self.path("stacks").join(&name);
        fs::create_dir_all(self.path("stacks")).unwrap();
        let origin = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/stacks")
            .join(kind);
        succeed(
            "cp",
            [OsStr::new("-a"), origin.as_os_str(), dir.as_os_str()],
        );
        Stack {
            project: name.clone(),
            name,
            dir,
            host: None,
        }
    }

    /// Writes a configuration with the place's own directories; `more` is
    /// merged over it.
    pub fn config(&self, stacks: Value, more: Value) -> PathBuf {
        let mut config = serde_json::json!({
            "baseDir": self.path("stacks"),
            "backupDir": self.store(),
            "stateDir": self.state(),
            "logFile": self.path("log"),
            "stacks": stacks,
        });
        if config["stacks"].is_array() {
            // Other tests have projects on the same Engine.
            config["ignoreProjects"] = serde_json::json!(["*"]);
        }
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let path = self.path("config.json");
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// The program with this place's configuration.
    pub fn program(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .arg("--config")
            .arg(self.path("config.json"))
            .args(args);
        command
    }

    /// `run --json` of the configured stacks.
    #[track_caller]
    pub fn run(&self) -> Ended {
        output(&mut self.program(&["run", "--json"]))
    }

    /// Names of all files in a stack's directory of the store, sorted, without
    /// sidecars.
    pub fn stored(&self, stack: &str) -> Vec<String> {
        let mut names = names_in(&self.store().join(stack));
        names.retain(|name| !name.ends_with(".sums") && !name.ends_with(".checks.json"));
        names.sort();
        names
    }

    /// Puts the frozen archive into the store, with its sums, as that of a day of the
    /// stack `frozen`.
    pub fn add_frozen_archive(&self, day: &str) -> PathBuf {
        let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archives/format-1.tar");
        let dir = self.store().join("frozen");
        fs::create_dir_all(&dir).unwrap();
        let archive = dir.join(format!("frozen_{day}_000000.tar"));
        let [sums, copied] = [("sums-2", &frozen), ("sums", &archive)]
            .map(|(extension, archive)| archive.with_extension(extension));
        fs::copy(&frozen, &archive).unwrap();
        fs::copy(sums, copied).unwrap();
        archive
    }

    /// The one archive of a stack.
    #[track_caller]
    pub fn archive(&self, stack: &str) -> PathBuf {
        let names = self.stored(stack);
        assert_eq!(names.len(), 1, "{names:?}");
        assert!(names[0].ends_with(".tar"), "{names:?}");
        self.store().join(stack).join(&names[0])
    }

    /// Extracts an archive with GNU tar, as a person would by hand.
    #[track_caller]
    pub fn extract(&self, archive: &Path) -> PathBuf {
        let target = self.path("extracted");
        fs::create_dir_all(&target).unwrap();
        let options = ["--xattrs", "--xattrs-include=*", "--acls", "-pxf"].map(OsStr::new);
        let target_option = [archive.as_os_str(), OsStr::new("-C"), target.as_os_str()];
        succeed("tar", options.into_iter().chain(target_option));
        target
    }

    /// Staging directories and old trees of a restore, which are beside the
    /// trees that it replaces.
    pub fn beside(&self, trees: &[PathBuf]) -> Vec<PathBuf> {
        let dirs: BTreeSet<&Path> = trees.iter().filter_map(|tree| tree.parent()).collect();
        let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).into_iter());
        let paths = entries.flatten().map(|entry| entry.unwrap().path());
        let is_hidden = |path: &PathBuf| path.file_name().unwrap().as_encoded_bytes()[0] == b'.';
        paths.filter(is_hidden).collect()
    }

    /// Checks that no restore of these trees is under way or has left anything.
    #[track_caller]
    pub fn assert_no_restore(&self, trees: &[PathBuf], point: &str) {
        assert_eq!(self.beside(trees), Vec::<PathBuf>::new(), "{point}");
        for journal in ["restore", "journal"] {
            let mut entries = names_in(&self.state().join(journal));
            // A half-written entry (`.new`) does not count: nothing was done yet.
            entries.retain(|name| name.ends_with(".json"));
            assert_eq!(entries, [""; 0], "{point}");
        }
    }

    /// Names of journalled stacks.
    pub fn journalled(&self) -> Vec<String> {
        names_in(&self.path("state/journal"))
    }

    /// Sends SIGKILL to the program that holds the lock.
    pub fn kill_holder(&self) {
        // The file has the pid, then the command.
        let holder = fs::read_to_string(self.state().join("lock")).unwrap();
        let pid = holder.split_whitespace().next().unwrap();
        kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    }
}

/// Names in a directory; none if it does not exist.
fn names_in(dir: &Path) -> Vec<String> {
    let listing = fs::read_dir(dir).into_iter().flatten();
    listing
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// A real Compose stack. Dropping it removes its containers, volumes and
/// networks.
pub struct Stack {
    pub name: String,
    pub project: String,
    pub dir: PathBuf,
    /// The Engine, if it is not the one that the tests share.
    pub host: Option<String>,
}

impl Stack {
    pub fn docker(&self) -> Command {
        self.on_its_engine(Command::new("docker"))
    }

    fn on_its_engine(&self, mut command: Command) -> Command {
        command.envs(self.host.iter().map(|host| ("DOCKER_HOST", host)));
        command
    }

    pub fn compose(&self, args: &[&str]) -> Command {
        let mut command = self.on_its_engine(compose_plugin());
        command.args(["--project-name", &self.project, "--progress", "quiet"]);
        command.args(args).current_dir(&self.dir);
        command
    }

    #[track_caller]
    pub fn up(&self) {
        self.up_with(&[]);
    }

    /// `up --wait`, with more options (before `up`).
    #[track_caller]
    pub fn up_with(&self, options: &[&str]) {
        let args = [options, &["up", "--detach", "--wait"]].concat();
        output(&mut self.compose(&args)).expect_status(0);
    }

    /// `up --wait` with another number of containers: `SERVICE=COUNT`.
    #[track_caller]
    pub fn scale(&self, scale: &str) {
        let args = ["up", "--detach", "--wait", "--scale", scale];
        output(&mut self.compose(&args)).expect_status(0);
    }

    fn api(&self) -> Api {
        Api::of(self.host.as_deref())
    }

    /// Runs a command in a service's container; returns its stdout, trimmed.
    #[track_caller]
    pub fn exec(&self, service: &str, command: &[&str]) -> String {
        let containers = self.container(service);
        let container = containers.lines().next().expect("the service's container");
        let (status, stdout, stderr) = self.api().exec(container, command);
        assert_eq!(status, 0, "{command:?}: {stdout}\n{stderr}");
        stdout.trim().to_owned()
    }

    /// `service:state` of all its containers, sorted.
    pub fn states(&self) -> Vec<String> {
        self.api().states(&self.project)
    }

    /// `service:running` of the containers that run.
    pub fn running(&self) -> Vec<String> {
        let mut states = self.states();
        states.retain(|state| state.ends_with(":running"));
        states
    }

    /// Inspects a volume, given its name in the compose file.
    #[track_caller]
    pub fn inspect_volume(&self, volume: &str, format: &str) -> String {
        let name = format!("{}_{volume}", self.project);
        let mut inspect = self.docker();
        let inspect = inspect.args(["volume", "inspect", "--format", format, &name]);
        output(inspect).expect_status(0).stdout.trim().to_owned()
    }

    #[track_caller]
    pub fn mountpoint(&self, volume: &str) -> PathBuf {
        self.inspect_volume(volume, "{{.Mountpoint}}").into()
    }

    /// Removes the containers, networks, volumes, and the directory.
    #[track_caller]
    pub fn remove(&self) {
        output(&mut self.compose(&["down", "--volumes", "--timeout", "1"])).expect_status(0);
        fs::remove_dir_all(&self.dir).unwrap();
    }

    /// Name and id of all its containers, sorted.
    pub fn ids(&self) -> Vec<String> {
        let containers = self.containers().into_iter();
        containers.map(|(name, id, _)| name + " " + &id).collect()
    }

    /// The ids of a service's containers, a line each.
    pub fn container(&self, service: &str) -> String {
        let containers = self.containers().into_iter();
        let of_service = containers.filter(|(.., of)| of == service);
        let ids: Vec<String> = of_service.map(|(_, id, _)| id).collect();
        ids.join("\n")
    }

    /// Name, id and service of its containers, but for those of `compose run`.
    fn containers(&self) -> Vec<(String, String, String)> {
        let label = format!("com.docker.compose.project={}", self.project);
        let mut listed = self.api().containers(&label);
        listed.retain(|container| container["Labels"]["com.docker.compose.oneoff"] != "True");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of_interest = |container: &Value| {
            let service = &container["Labels"]["com.docker.compose.service"];
            (
                text(&container["Names"][0]),
                text(&container["Id"]),
                text(service),
            )
        };
        let mut containers: Vec<_> = listed.iter().map(of_interest).collect();
        containers.sort();
        containers
    }

    pub fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.dir.join(relative)).unwrap_or_default()
    }

    /// The stack's entry in an outcome.
    #[track_caller]
    pub fn outcome<'j>(&self, run: &'j Value) -> &'j Value {
        let stacks = run["stacks"].as_array().unwrap();
        stacks
            .iter()
            .find(|stack| stack["stack"] == self.name.as_str())
            .expect("the stack's outcome")
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // They are found by label, since the test may have broken the compose file.
        let label = format!("com.docker.compose.project={}", self.project);
        self.api().remove_all(&label);
    }
}

/// A child that is killed when the test ends before it.
pub struct Background(pub Child);

impl Background {
    pub fn spawn(command: &mut Command) -> Background {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Background(command.spawn().unwrap())
    }

    /// Freezes a run while it writes its partial in `dir`, of `complete` bytes.
    /// Counts blocks, because the end of the file may be written first.
    #[track_caller]
    pub fn freeze_while_archiving(&self, dir: &Path, complete: u64) {
        let written = || {
            let listing = fs::read_dir(dir).into_iter().flatten().flatten();
            let is_partial = |path: &Path| path.extension() == Some("partial".as_ref());
            let mut partials = listing.filter(|item| is_partial(&item.path()));
            let partial = partials.next().and_then(|item| item.metadata().ok());
            partial.map_or(0, |metadata| metadata.blocks() * 512)
        };
        let began = Instant::now();
        while written() == 0 {
            assert!(began.elapsed() < PATIENCE, "no archive is written");
            assert!(!self.has_ended(), "the run has ended");
            std::thread::sleep(Duration::from_micros(100));
        }
        self.signal_all(Signal::SIGSTOP);
        let written = written();
        assert!(written < complete, "it was complete already: {written}");
    }

    /// Lets a frozen run go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    /// Signals the run, and the worker that it watches.
    pub fn signal_all(&self, signal: Signal) {
        for pid in std::iter::once(self.pid()).chain(self.worker()) {
            kill(Pid::from_raw(pid), signal).unwrap();
        }
    }

    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Whether it has ended; it is not waited for.
    pub fn has_ended(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        status.is_ok_and(|status| status.contains(") Z "))
    }

    /// The pid of the run's worker, if it has one now.
    pub fn worker(&self) -> Option<i32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .find(|pid: &i32| {
                let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                words.split(|byte| *byte == 0).nth(1) == Some(b"worker")
            })
    }

    pub fn wait(mut self) -> i32 {
        self.0.wait().unwrap().code().unwrap_or(-1)
    }

    /// Waits for the end. The output must fit into a pipe's buffer.
    pub fn end(mut self) -> Ended {
        let status = self.0.wait().unwrap().code().unwrap_or(-1);
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let pipes = (self.0.stdout.take(), self.0.stderr.take());
        pipes.0.unwrap().read_to_string(&mut stdout).unwrap();
        pipes.1.unwrap().read_to_string(&mut stderr).unwrap();
        Ended {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
