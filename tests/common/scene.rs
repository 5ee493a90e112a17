//! A running stack, and checks for the time after an interrupted backup.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Ended, Place, Spy, Stack, docker, output, succeed};

/// A hook that runs `action` at the spy's call `n`; `$REAL` is the real docker.
pub fn at_call(n: usize, action: &str) -> String {
    format!("if [ $COUNT = {n} ]; then REAL=$(type -P -a docker | sed -n 2p); {action}; fi")
}

/// A running stack, and how it was before the first kill.
pub struct Scene {
    pub stack: Stack,
    pub place: Place,
    /// The containers that ran.
    pub states: Vec<String>,
    ids: Vec<String>,
    keeps_ids: bool,
    /// Whether the program uses the Engine's socket or only docker commands.
    pub uses_socket: bool,
}

impl Scene {
    pub fn new(method: &str, stop_seconds: u32) -> Scene {
        let place = Place::new();
        let stack = place.stack("ordered");
        fs::write(
            stack.dir.join(".env"),
            format!("STOP_SECONDS={stop_seconds}\n"),
        )
        .unwrap();
        // Large enough that the program makes a draft.
        fs::write(stack.dir.join("bulk"), vec![7; 17 << 20]).unwrap();
        stack.up();
        place.config(
            json!([{"name": stack.name, "stopMethod": method}]),
            json!({}),
        );
        Scene {
            states: running(&stack),
            ids: stack.ids(),
            keeps_ids: method != "down",
            uses_socket: true,
            stack,
            place,
        }
    }

    /// Runs the program under a spy; `None` when it was killed.
    pub fn attempt(&self, args: &[&str], hook: &str) -> (Option<Ended>, Spy) {
        let mut spy = self.place.spy(hook);
        if !self.uses_socket {
            spy = spy.without_socket();
        }
        spy.clear();
        let ended = output(spy.watch(&mut self.place.program(args)));
        (Some(ended).filter(|ended| ended.status != -1), spy)
    }

    /// Kills a run when all of its containers are stopped, before `start`.
    #[track_caller]
    pub fn leave_down(&self) {
        let hook =
            "case \"$*\" in *--dry-run*) ;; 'start '* | *' up '*) kill -9 $PARENT; exit 1;; esac";
        let (ended, _) = self.attempt(&["run"], hook);
        assert!(ended.is_none());
        assert_eq!(self.running(), [""; 0]);
    }

    pub fn partials(&self) -> Vec<String> {
        let mut names = self.place.stored(&self.stack.name);
        names.retain(|name| name.ends_with(".partial"));
        names
    }

    pub fn last_run(&self) -> Value {
        let json = fs::read(self.place.state().join("last-run.json")).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    /// Checks everything that must hold after `recover`.
    #[track_caller]
    pub fn assert_recovered(&self, point: &str) {
        assert_eq!(self.running(), self.states, "{point}");
        if self.keeps_ids {
            assert_eq!(self.stack.ids(), self.ids, "{point}");
        }
        self.assert_migrated_once(point);
        // A half-written entry (`.new`) does not count: nothing was stopped yet.
        let mut entries = self.place.journalled();
        entries.retain(|name| name.ends_with(".json"));
        assert_eq!(entries, [""; 0], "{point}");
        assert_eq!(self.partials(), [""; 0], "{point}");
        for name in self.place.stored(&self.stack.name) {
            assert!(name.ends_with(".tar"), "{point}: {name}");
            let archive = self.place.store().join(&self.stack.name).join(&name);
            let members = succeed("tar", ["-tf", archive.to_str().unwrap()]);
            let last = format!("{}/log/starts", self.stack.name);
            assert!(members.contains(&last), "{point}: {name}: {members}");
        }
    }

    #[track_caller]
    pub fn assert_migrated_once(&self, point: &str) {
        let starts = self.stack.read("log/starts");
        let migrations = starts.lines().filter(|line| *line == "migrate").count();
        assert_eq!(migrations, 1, "{point}: the one-shot service ran again");
    }

    /// Checks that no container stops or starts; a stop still under way in the
    /// Engine would show.
    #[track_caller]
    pub fn assert_stays_up(&self, duration: Duration, point: &str) {
        let began = Instant::now();
        let times = start_times(&self.stack);
        while began.elapsed() < duration {
            assert_eq!(self.running(), self.states, "{point}");
            std::thread::sleep(Duration::from_millis(250));
        }
        assert_eq!(start_times(&self.stack), times, "{point}: started again");
    }

    #[track_caller]
    pub fn assert_stays_down(&self, duration: Duration) {
        let began = Instant::now();
        while began.elapsed() < duration {
            assert_eq!(self.running(), [""; 0]);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// `service:running`, without services that have ended.
    pub fn running(&self) -> Vec<String> {
        running(&self.stack)
    }

    /// Numbers of the calls of a complete run that contain `command`.
    pub fn calls_of(&self, command: &str) -> Vec<usize> {
        let (ended, spy) = self.attempt(&["run"], "");
        ended.unwrap().expect_status(0);
        let calls = spy.calls();
        let found = calls.iter().enumerate();
        let found = found.filter(|(_, call)| call.contains(command));
        found.map(|(i, _)| i + 1).collect()
    }
}

fn running(stack: &Stack) -> Vec<String> {
    let mut states = stack.states();
    // A start may leave one that Compose created because others depend on it.
    states.retain(|state| !state.ends_with(":exited") && !state.ends_with(":created"));
    states
}

/// The time of the last start of each container.
pub fn start_times(stack: &Stack) -> Vec<String> {
    let ids = stack.ids();
    let ids = ids.iter().filter_map(|line| line.split(' ').nth(1));
    let args = ["inspect", "--format", "{{.Name}} {{.State.StartedAt}}"];
    let times = docker(args.into_iter().chain(ids));
    times.lines().map(str::to_owned).collect()
}
