//! Kills a guarded update before each system call by which its main thread replaces a file
//! or exchanges directories.

use crate::common::guarded::Guarded;
use crate::common::kill_points::{if_complete, kill_points};
use crate::common::{in_parallel, killed_before, output};

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn an_update_killed_before_any_rename_is_rolled_back_or_whole() {
    let cases = [
        ("rename", "", 0, 6),
        ("rename", "exit 1", 2, 8),
        ("renameat2", "exit 1", 2, 2),
    ];
    in_parallel(cases, |(syscall, more, status, at_least)| {
        let guarded = Guarded::new(&["one", "two"]);
        let mut points = 0;
        let mut version = "one".to_owned();
        for n in kill_points() {
            let other = if version == "one" { "two" } else { "one" };
            let command = guarded.update_to(other, more);
            let guard = guarded.place.program(&guarded.args(&[], &command));
            let ended = output(&mut killed_before(&guard, syscall, n));
            let point = format!("killed before {syscall} {n}, {more:?}");
            if ended.status != -1 {
                ended.expect_status(status);
                guarded.assert_whole("not killed");
                break;
            }
            points += 1;
            output(&mut guarded.place.program(&["recover"])).expect_status(0);
            version = guarded.assert_whole(&point);
        }
        eprintln!("{syscall}, {more:?}: {points} points");
        assert!(points >= if_complete(at_least), "{points}");
    });
}
