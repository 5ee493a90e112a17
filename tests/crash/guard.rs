//! Kills guarded updates. After `recover`, the stack is whole and up: as before, or, once
//! the update was confirmed, as it has left it.

use std::fs;

use crate::common::guarded::Guarded;
use crate::common::kill_points::{if_complete, kill_points};
use crate::common::scene::at_call;
use crate::common::{Background, output, succeed, wait_until};

/// The program gets SIGKILL at this call, and the call is not made.
const BEFORE_THE_CALL: &str = "kill -9 $PARENT; exit 1";

/// Counts of what was found right after the kills. They are the controls.
#[derive(Debug, Default)]
struct Seen {
    points: usize,
    mixed: usize,
    pending: usize,
}

/// Kills an update before its first call to Docker, the next before its second, and so on
/// until one completes. Each is one from the version that is there to the other.
fn kill_at_every_call(more: &str, status: i32) -> Seen {
    let guarded = Guarded::new(&["one", "two"]);
    let mut seen = Seen::default();
    let mut version = "one".to_owned();
    for n in kill_points() {
        let other = if version == "one" { "two" } else { "one" };
        let command = guarded.update_to(other, more);
        let spy = guarded.place.spy(&at_call(n, BEFORE_THE_CALL));
        spy.clear();
        let ended = output(spy.watch(&mut guarded.place.program(&guarded.args(&[], &command))));
        let point = format!("{more:?}, killed at call {n}: {:?}", spy.calls().last());
        if ended.status != -1 {
            let said = ended.expect_status(status).stderr;
            // The command has failed for the reason that is meant.
            let reason = "the command failed: exit status 9";
            assert!(status == 0 || said.contains(reason), "{said}");
            guarded.assert_whole("not killed");
            break;
        }
        seen.points += 1;
        seen.mixed += usize::from(guarded.generations().len() > 1);
        seen.pending += usize::from(!guarded.journalled().is_empty());
        output(&mut guarded.place.program(&["recover"])).expect_status(0);
        version = guarded.assert_whole(&point);
    }
    eprintln!("{more:?}: {seen:?}");
    seen
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_guarded_update_killed_at_any_docker_call_is_rolled_back_or_whole() {
    let seen = kill_at_every_call("", 0);
    assert!(seen.points >= if_complete(20).max(1), "{seen:?}");
    assert!(seen.pending >= if_complete(3), "{seen:?}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_roll_back_killed_at_any_docker_call_is_completed() {
    let seen = kill_at_every_call("exit 9", 2);
    assert!(seen.points >= if_complete(30).max(1), "{seen:?}");
    assert!(seen.mixed >= if_complete(5), "{seen:?}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn an_update_killed_while_its_command_runs_is_rolled_back_by_recover_or_kept() {
    let guarded = Guarded::new(&["one", "two"]);
    let name = &guarded.stack.name;
    let [done, pid] = ["updated", "pid"].map(|file| guarded.place.path(file).display().to_string());
    let command = guarded.update_to(
        "two",
        &format!("sleep 876543 & echo $! >{pid}; touch {done}; wait"),
    );
    let kill = || {
        let args = guarded.args(&[], &command);
        let mut guard = Background::spawn(&mut guarded.place.program(&args));
        wait_until("the command has updated the stack", || {
            fs::exists(&done).unwrap()
        });
        guard.0.kill().unwrap();
        guard.0.wait().unwrap();
        fs::remove_file(&done).unwrap();
        // The controls: it is half done, and its command goes on.
        assert_eq!(guarded.generations(), ["two"]);
        assert!(succeed("ps", ["-eo", "args"]).contains("sleep 876543"));
        assert!(guarded.held().contains("docker-stack-backup-guard"));
        let list = output(&mut guarded.place.program(&["list"])).expect_status(0);
        let told = format!("{name} MAY BE HALF UPDATED");
        assert!(list.stdout.contains(&told), "{}", list.stdout);
        let status = output(&mut guarded.place.program(&["status", "--json"])).expect_status(3);
        assert_eq!(status.json()["stacks"][0]["state"], "halfUpdated");
        let restore = output(&mut guarded.place.program(&["restore", name, "--yes"]));
        let restore = restore.expect_status(1).stderr;
        assert!(restore.contains("an update of"), "{restore}");
    };
    kill();
    let json = output(&mut guarded.place.program(&["recover", "--json"]));
    let json = json.expect_status(0).json();
    let warnings = json["recovered"][0]["warnings"].to_string();
    assert!(warnings.contains("was rolled back"), "{json}");
    assert_eq!(guarded.assert_whole("recovered"), "one");
    assert!(!succeed("ps", ["-eo", "args"]).contains("sleep 876543"));

    kill();
    succeed("kill", [fs::read_to_string(&pid).unwrap().trim()]);
    output(&mut guarded.place.program(&["recover", "--forget", name])).expect_status(0);
    assert_eq!(guarded.assert_whole("kept"), "two");
}
