//! Runs with hooks that are killed before each system call that changes the journal.

use crate::common::hooks::{flag_hook, with_hooks};
use crate::common::kill_points::{if_complete, kill_points};
use crate::common::scene::Scene;
use crate::common::{killed_before, output, strace};

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_with_hooks_killed_before_any_sync_rename_or_removal_is_undone() {
    let scene = Scene::new("stop", 0);
    with_hooks(
        &scene,
        ["beforeCopy", "beforeStop", "afterStart"]
            .map(flag_hook)
            .into(),
    );
    let flag = scene.stack.dir.join("data/flag");
    let (mut points, mut flags) = (0, 0);
    for syscall in ["fsync", "rename", "unlink"] {
        for n in kill_points() {
            let point = format!("killed before {syscall} {n}");
            let run = scene.place.program(&["run"]);
            let ended = output(&mut killed_before(&run, syscall, n));
            if ended.status != -1 {
                ended.expect_status(0);
                break;
            }
            points += 1;
            flags += usize::from(flag.exists());
            output(&mut scene.place.program(&["recover"])).expect_status(0);
            assert!(!flag.exists(), "{point}: in maintenance mode");
            scene.assert_recovered(&point);
        }
    }
    eprintln!("{points} points, {flags} of them in maintenance mode");
    assert!(points >= if_complete(20), "{points}");
    assert!(flags >= if_complete(8), "{flags}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_hook_does_not_run_if_its_undo_cannot_be_journalled() {
    let scene = Scene::new("stop", 0);
    with_hooks(&scene, vec![flag_hook("beforeCopy")]);
    scene.place.run().expect_status(0);
    let journal = scene.place.state().join("journal").display().to_string();
    let inject = "inject=fsync:error=EIO:when=1";
    let trace = ["-e", "trace=fsync", "-e", inject, "-o", "/dev/null"];
    let options = [&["-f", "-qq", "-P", &journal][..], &trace].concat();
    // Whether it ran is seen by the time of its directory.
    let data = scene.stack.dir.join("data");
    let modified = || std::fs::metadata(&data).unwrap().modified().unwrap();
    let before = modified();
    let json = output(&mut strace(
        &scene.place.program(&["run", "--json"]),
        &options,
    ));
    let json = json.expect_status(2).json();
    let said = scene.stack.outcome(&json)["failures"].to_string();
    assert!(said.contains("write the journal"), "{said}");
    assert_eq!(modified(), before);
    scene.assert_recovered("no journal, no hook");
    // The control: a hook that runs is seen.
    scene.place.run().expect_status(0);
    assert_ne!(modified(), before);
}
