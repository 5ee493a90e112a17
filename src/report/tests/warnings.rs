//! Warnings, drills and unusual names.

use std::path::PathBuf;

use insta::assert_snapshot;

use super::*;
use crate::outcome::{DamagedArchive, ExitStatus, UnconfiguredProject};

#[test]
fn warnings_are_listed_and_counted_in_the_subject() {
    let mut run = run(vec![ok("immich", 11 * GIB), ok("paperless", GIB)]);
    run.store = None;
    run.stacks[0].warnings = vec![
        "2 files changed while they were read: /srv/stacks/immich/library/upload/a.jpg, \
         /srv/stacks/immich/library/upload/b.jpg"
            .to_owned(),
    ];
    run.stacks[1].warnings = vec!["nothing was running".to_owned()];
    run.stacks[1].downtime_ms = None;
    if let Some(archive) = &mut run.stacks[0].archive {
        archive.changed_count = 2;
    }
    assert_snapshot!(run_subject(&run, "docker-backup"), @"[docker-backup] SUCCESS (2 warnings) on nas: 2 stacks backed up, 12.0 GiB");
    assert_snapshot!(run_text(&run, None), @"
    SUCCESS (2 warnings): 2 stacks backed up, 12.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    WARNINGS
      immich: 2 files changed while they were read:
        /srv/stacks/immich/library/upload/a.jpg,
        /srv/stacks/immich/library/upload/b.jpg
      paperless: nothing was running

    STACKS
      stack      status   archive    down
      immich     ok      11.0 GiB  48.3 s
      paperless  ok       1.0 GiB       -

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  10.8 GiB in 118111 members, 2 files CHANGED WHILE READ
                  directory /srv/stacks/immich
         1.0 GiB  paperless/paperless_20261123_030000.tar
                  1003.5 MiB in 10737 members
                  directory /srv/stacks/paperless
        12.0 GiB  in total

    PHASES
      immich     plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet check 0.1 s,
                 archive 3 min 5 s, start 20.1 s, finish 4.0 s
      paperless  plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet check 0.1 s,
                 archive 3 min 5 s, start 20.1 s, finish 4.0 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn a_warning_that_makes_the_run_incomplete_is_said_in_the_subject() {
    let mut run = run(vec![ok("immich", GIB)]);
    run.fail_on_warning = true;
    assert_snapshot!(run_subject(&run, ""), @"SUCCESS on nas: 1 stack backed up, 1.0 GiB");
    run.unconfigured = Some(vec![UnconfiguredProject {
        project: "wiki".to_owned(),
        dir: "/opt/stacks/wiki".into(),
    }]);
    assert_eq!(run.exit_status(), ExitStatus::Incomplete);
    assert_snapshot!(run_subject(&run, ""), @"WARNING (1 warning) on nas: 1 stack backed up, 1.0 GiB");
    let text = run_text(&run, None).replace("\n    ", " ");
    let line = "wiki: it runs (from /opt/stacks/wiki), but is not backed up: add it to `stacks`, or to `ignoreProjects`";
    assert!(text.contains(line), "{text}");
    // The control: a warning alone is a success.
    run.fail_on_warning = false;
    assert_eq!(run.exit_status(), ExitStatus::Ok);
    assert_snapshot!(run_subject(&run, ""), @"SUCCESS (1 warning) on nas: 1 stack backed up, 1.0 GiB");
}

#[test]
fn the_last_drill_of_each_stack_is_listed() {
    let mut run = run(three());
    run.store = None;
    let names: Vec<String> = run.stacks.iter().map(|stack| stack.stack.clone()).collect();
    run.stacks[0].drilled = Some(drill(&names[0], &[]));
    run.stacks[1].drilled = Some(drill(&names[1], &["service db is unhealthy"]));
    run.stacks[1].damaged = vec![DamagedArchive {
        path: format!("/mnt/backup/{0}/{0}_20261102_030000.tar", names[1]).into(),
        time: time("01:40:00"),
        problems: vec!["a/b: its data is damaged".to_owned()],
    }];
    for stack in &mut run.stacks {
        stack.warnings = crate::store::health::warnings(stack, true, &time("03:00:00"));
        stack.coverage.clear();
        stack.phases.clear();
    }
    assert_snapshot!(run_text(&run, None), @"
    SUCCESS (2 warnings): 3 stacks backed up, 12.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    WARNINGS
      paperless: verify found paperless_20261102_030000.tar damaged on
        2026-11-23: a/b: its data is damaged
      paperless: the drill of paperless_20261101_030000.tar on 2026-11-23
        failed: service db is unhealthy

    STACKS
      stack        status   archive    down
      immich       ok      11.0 GiB  48.3 s
      paperless    ok       1.0 GiB  48.3 s
      vaultwarden  ok       3.4 MiB  48.3 s

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  10.8 GiB in 118111 members
         1.0 GiB  paperless/paperless_20261123_030000.tar
                  1003.5 MiB in 10737 members
         3.4 MiB  vaultwarden/vaultwarden_20261123_030000.tar
                  3.3 MiB in 35 members
        12.0 GiB  in total

    LAST DRILLS
      immich: 2026-11-23 01:30 healthy (immich/immich_20261101_030000.tar)
      paperless: 2026-11-23 01:30 FAILED
        (paperless/paperless_20261101_030000.tar)
      vaultwarden: never

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn names_are_escaped_and_long_ones_wrapped() {
    let long = "a-stack-with-quite-a-long-name-that-has-no-room";
    let mut run = run(vec![ok("b\u{fc}cher", GIB), ok(long, 5 * GIB)]);
    run.host = "h\u{f6}st\r\nBcc: x@example.org".to_owned();
    run.stacks[0].warnings = vec!["caf\u{e9}\n\u{1b}[31mred\ttab".to_owned()];
    if let Some(archive) = &mut run.stacks[1].archive {
        archive.path = PathBuf::from("/mnt/backup").join("deep/".repeat(30) + "a.tar");
    }
    assert_snapshot!(run_subject(&run, "b\u{fc}cher\r\nBcc: x@example.org"), @r"[b\u{fc}cher\r\nBcc: x@example.org] SUCCESS (1 warning) on h\u{f6}st\r\nBcc: x@example.org: 2 stacks backed up, 6.0 GiB");
    assert_snapshot!(run_text(&run, None), @r"
    SUCCESS (1 warning): 2 stacks backed up, 6.0 GiB
    h\u{f6}st\r\nBcc: x@example.org, 2026-11-23 03:00:00 +01:00, took 12 min
      41 s

    WARNINGS
      b\u{fc}cher: caf\u{e9}\n\u{1b}[31mred\ttab

    STACKS
      stack                                          status  archive    down
      b\u{fc}cher                                    ok      1.0 GiB  48.3 s
      a-stack-with-quite-a-long-name-that-has-no-room
                                                     ok      5.0 GiB  48.3 s

    ARCHIVES in /mnt/backup
         1.0 GiB  b\u{fc}cher/b\u{fc}cher_20261123_030000.tar
                  1003.5 MiB in 10737 members
                  directory /srv/stacks/b\u{fc}cher
         5.0 GiB  deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/dee
                  p/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/d
                  eep/deep/deep/deep/deep/deep/deep/a.tar
                  4.9 GiB in 53687 members
                  directory
                    /srv/stacks/a-stack-with-quite-a-long-name-that-has-no-r
                    oom
         6.0 GiB  in total

    STORE /mnt/backup
      84 archives, 340.0 GiB
      file system: 1.2 TiB of 3.6 TiB used (33 %), 2.4 TiB available

    PHASES
      b\u{fc}cher           plan 0.3 s, measure 1.2 s, stop 10.4 s,
                            quiet check 0.1 s, archive 3 min 5 s,
                            start 20.1 s, finish 4.0 s
      a-stack-with-quite-a-long-name-that-has-no-room  plan 0.3 s,
                            measure 1.2 s, stop 10.4 s, quiet check 0.1 s,
                            archive 3 min 5 s, start 20.1 s, finish 4.0 s

    docker-stack-backup 0.1.0
    ");
}
