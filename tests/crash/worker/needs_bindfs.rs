//! A file system that stops to answer in a stack's directory.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use super::{assert_gone_on, two_stacks};
use crate::common::scene::start_times;
use crate::common::{Background, Place, Stack, output, succeed, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A file system in the first stack's directory that can stop to answer.
struct Mount {
    server: Child,
    path: PathBuf,
}

impl Mount {
    fn in_stack(place: &Place, stack: &Stack) -> Mount {
        let (origin, path) = (place.path("origin"), stack.dir.join("media"));
        fs::create_dir_all(&origin).unwrap();
        fs::write(origin.join("film"), vec![1; 1 << 20]).unwrap();
        fs::create_dir(&path).unwrap();
        let mut bindfs = Command::new("bindfs");
        let server = bindfs.arg("-f").arg(&origin).arg(&path).spawn();
        let mount = Mount {
            server: server.expect("bindfs is installed"),
            path,
        };
        wait_until("the file system is mounted", || {
            mount.path.join("film").exists()
        });
        mount
    }

    fn pid(&self) -> i32 {
        self.server.id() as i32
    }

    /// A spy's hook that lets the mount hang when the first stack is stopped.
    fn hangs_at_stop(&self) -> String {
        format!("case \"$*\" in 'stop '*) kill -STOP {};; esac", self.pid())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        succeed("umount", ["--lazy", self.path.to_str().unwrap()]);
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_whose_mount_hangs_while_it_is_down_is_started_and_the_run_ends() {
    let (place, first, second) = two_stacks(json!({"capture": "offline", "downLimit": 10}));
    let mount = Mount::in_stack(&place, &first);
    let spy = place.spy(&mount.hangs_at_stop());
    let ended = output(spy.watch(&mut place.program(&["run", "--json"])));
    // The mount does not answer yet, and the run has ended all the same.
    let outcome = ended.expect_status(2).json();
    let failures = assert_gone_on(&place, [&first, &second], &outcome);
    assert!(failures.contains("nothing moved for 10 s"), "{failures}");
    assert!(failures.contains(first.dir.to_str().unwrap()), "{failures}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_signal_starts_a_stack_whose_mount_hangs_at_once() {
    let (place, first, _second) = two_stacks(json!({"capture": "offline"}));
    let mount = Mount::in_stack(&place, &first);
    let spy = place.spy(&mount.hangs_at_stop());
    let run = Background::spawn(spy.watch(&mut place.program(&["run", "--json"])));
    wait_until("the stack is down", || first.states() == ["app:exited"]);
    kill(Pid::from_raw(run.pid()), Signal::SIGTERM).unwrap();
    let outcome = run.end().expect_status(2).json();
    assert_eq!(outcome["interrupted"], "SIGTERM", "{outcome}");
    assert_eq!(outcome["stacks"][0]["status"], "failed", "{outcome}");
    assert_eq!(first.states(), ["app:running"], "{outcome}");
    assert_eq!(place.journalled(), [""; 0]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_whose_mount_hangs_before_the_stop_is_given_up_and_not_stopped() {
    let (place, first, second) = two_stacks(json!({"stallLimit": 10}));
    let mount = Mount::in_stack(&place, &first);
    kill(Pid::from_raw(mount.pid()), Signal::SIGSTOP).unwrap();
    let started = start_times(&first);
    let outcome = place.run().expect_status(2).json();
    let failures = assert_gone_on(&place, [&first, &second], &outcome);
    assert!(failures.contains("nothing moved for 10 s"), "{failures}");
    assert_eq!(start_times(&first), started);
    assert_eq!(outcome["stacks"][0]["downtimeMs"], Value::Null);
}
