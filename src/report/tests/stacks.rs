//! Stacks that were backed up, failed or stayed down.

use insta::assert_snapshot;

use super::*;
use crate::config::Capture;
use crate::outcome::{CaptureOutcome, ChannelOutcome, ChannelStatus};

#[test]
fn a_successful_run_lists_archives_coverage_retention_and_phases() {
    let mut run = run(three());
    let immich = &mut run.stacks[0];
    immich.coverage.extend([
        mount(MountKind::Volume, "immich_database", None),
        mount(
            MountKind::Bind,
            "/mnt/photos",
            Some("outside the stack's directory: add it to includeBinds to have it archived"),
        ),
    ]);
    immich.capture = Some(CaptureOutcome {
        method: Capture::Precopy,
        reason: None,
        down_bytes: GIB / 8,
        pass_count: 2,
        shared_bytes: 9 * GIB,
        refused_count: 2,
    });
    if let Some(archive) = &mut immich.archive {
        archive.socket_count = 1;
        archive.excluded_count = 12;
    }
    run.pruned = vec![
        pruned(
            "immich",
            &[("20261025_030000", 10 * GIB), ("20261024_030000", 9 * GIB)],
        ),
        pruned("paperless", &[]),
    ];
    run.log = vec![
        "03:00:00 INFO  run: backup started stacks=3".to_owned(),
        "03:00:12 INFO  stack: services stopped stack=immich services=server,database \
         duration_ms=10377"
            .to_owned(),
    ];
    assert_snapshot!(run_subject(&run, "docker-backup"), @"[docker-backup] SUCCESS on nas: 3 stacks backed up, 12.0 GiB");
    assert_snapshot!(run_text(&run, None), @"
    SUCCESS: 3 stacks backed up, 12.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    STACKS
      stack        status   archive    down
      immich       ok      11.0 GiB  48.3 s
      paperless    ok       1.0 GiB  48.3 s
      vaultwarden  ok       3.4 MiB  48.3 s

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  10.8 GiB in 118111 members, 1 socket left out, 12 excluded
                  directory /srv/stacks/immich
                  volume immich_database
         1.0 GiB  paperless/paperless_20261123_030000.tar
                  1003.5 MiB in 10737 members
                  directory /srv/stacks/paperless
         3.4 MiB  vaultwarden/vaultwarden_20261123_030000.tar
                  3.3 MiB in 35 members
                  directory /srv/stacks/vaultwarden
        12.0 GiB  in total

    NOT IN THE ARCHIVES
      immich: bind mount /mnt/photos (used by server:/data): outside the
        stack's directory: add it to includeBinds to have it archived

    RETENTION: 2 archives removed, 19.0 GiB freed, 56 kept
      immich: 28 kept, 2 removed
        10.0 GiB  immich/immich_20261025_030000.tar: older than 28 days
         9.0 GiB  immich/immich_20261024_030000.tar: older than 28 days
      paperless: 28 kept, 0 removed

    STORE /mnt/backup
      84 archives, 340.0 GiB
      file system: 1.2 TiB of 3.6 TiB used (33 %), 2.4 TiB available

    PHASES
      immich       plan 0.3 s, measure 1.2 s, stop 10.4 s,
                   quiet check 0.1 s, archive 3 min 5 s, start 20.1 s,
                   finish 4.0 s
                   copied while the stack was up, 128.0 MiB while it was
                     down, 9.0 GiB shared with the stack's files, 2 files
                     could not be shared
      paperless    plan 0.3 s, measure 1.2 s, stop 10.4 s,
                   quiet check 0.1 s, archive 3 min 5 s, start 20.1 s,
                   finish 4.0 s
      vaultwarden  plan 0.3 s, measure 1.2 s, stop 10.4 s,
                   quiet check 0.1 s, archive 3 min 5 s, start 20.1 s,
                   finish 4.0 s

    LOG
    03:00:00 INFO  run: backup started stacks=3
    03:00:12 INFO  stack: services stopped stack=immich
        services=server,database duration_ms=10377

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn failures_come_first_in_the_report() {
    let mut run = run(three());
    run.stacks[0] = failed(
        "immich",
        StackStatus::Failed,
        &[(
            Phase::Archive,
            "cannot write the archive /mnt/backup/immich/immich_20261123_030000.tar.partial: \
             No space left on device (os error 28)",
        )],
    );
    run.pruned = vec![PrunedStack {
        error: Some(
            "cannot remove the archive /mnt/backup/paperless/x.tar: Input/output error".to_owned(),
        ),
        ..pruned("paperless", &[])
    }];
    run.errors = vec!["cannot write metrics: Permission denied (os error 13)".to_owned()];
    assert_snapshot!(run_subject(&run, "docker-backup"), @"[docker-backup] FAILURE on nas: immich not backed up; paperless not pruned; 1 other error; 2 of 3 stacks backed up, 1.0 GiB");
    assert_snapshot!(run_text(&run, None), @"
    FAILURE: immich not backed up; paperless not pruned; 1 other error; 2 of
      3 stacks backed up, 1.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    FAILURES
      immich: archive: cannot write the archive
        /mnt/backup/immich/immich_20261123_030000.tar.partial: No space left
        on device (os error 28)
      paperless: prune: cannot remove the archive
        /mnt/backup/paperless/x.tar: Input/output error
      cannot write metrics: Permission denied (os error 13)

    TRY AGAIN, when the cause is gone
      docker-stack-backup run immich
      docker-stack-backup prune paperless

    STACKS
      stack        status  archive    down
      immich       FAILED        -  48.3 s
      paperless    ok      1.0 GiB  48.3 s
      vaultwarden  ok      3.4 MiB  48.3 s

    ARCHIVES in /mnt/backup
         1.0 GiB  paperless/paperless_20261123_030000.tar
                  1003.5 MiB in 10737 members
                  directory /srv/stacks/paperless
         3.4 MiB  vaultwarden/vaultwarden_20261123_030000.tar
                  3.3 MiB in 35 members
                  directory /srv/stacks/vaultwarden
         1.0 GiB  in total

    RETENTION: 0 archives removed, 0 B freed, 28 kept
      paperless: 28 kept, 0 removed, NOT FULLY PRUNED

    STORE /mnt/backup
      84 archives, 340.0 GiB
      file system: 1.2 TiB of 3.6 TiB used (33 %), 2.4 TiB available

    PHASES
      immich       plan 0.3 s, measure 1.2 s, stop 10.4 s,
                   quiet check 0.1 s, archive 3 min 5 s, start 20.1 s,
                   finish 4.0 s
      paperless    plan 0.3 s, measure 1.2 s, stop 10.4 s,
                   quiet check 0.1 s, archive 3 min 5 s, start 20.1 s,
                   finish 4.0 s
      vaultwarden  plan 0.3 s, measure 1.2 s, stop 10.4 s,
                   quiet check 0.1 s, archive 3 min 5 s, start 20.1 s,
                   finish 4.0 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn a_stack_that_is_down_is_the_first_failure() {
    let mut run = run(three());
    run.stacks[1] = StackOutcome {
        status: StackStatus::Down,
        failures: vec![Failure {
            phase: Phase::Start,
            message: "database is unhealthy after 120 s".to_owned(),
        }],
        ..ok("paperless", GIB)
    };
    run.stacks[2] = failed(
        "vaultwarden",
        StackStatus::Failed,
        &[(Phase::Plan, "cannot read the compose file: no such file")],
    );
    assert_snapshot!(run_subject(&run, "docker-backup"), @"[docker-backup] FAILURE on nas: paperless IS DOWN; vaultwarden not backed up; 2 of 3 stacks backed up, 12.0 GiB");
    assert_snapshot!(run_text(&run, None), @"
    FAILURE: paperless IS DOWN; vaultwarden not backed up; 2 of 3 stacks
      backed up, 12.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    FAILURES
      paperless IS DOWN (server, database); start it with
        `docker-stack-backup recover`
      paperless: start: database is unhealthy after 120 s
      vaultwarden: plan: cannot read the compose file: no such file

    TRY AGAIN, when the cause is gone
      docker-stack-backup run vaultwarden

    STACKS
      stack        status   archive      down
      immich       ok      11.0 GiB    48.3 s
      paperless    DOWN     1.0 GiB  > 48.3 s
      vaultwarden  FAILED         -    48.3 s

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  10.8 GiB in 118111 members
                  directory /srv/stacks/immich
         1.0 GiB  paperless/paperless_20261123_030000.tar
                  1003.5 MiB in 10737 members
                  directory /srv/stacks/paperless
        12.0 GiB  in total

    STORE /mnt/backup
      84 archives, 340.0 GiB
      file system: 1.2 TiB of 3.6 TiB used (33 %), 2.4 TiB available

    PHASES
      immich       plan 0.3 s, measure 1.2 s, stop 10.4 s,
                   quiet check 0.1 s, archive 3 min 5 s, start 20.1 s,
                   finish 4.0 s
      paperless    plan 0.3 s, measure 1.2 s, stop 10.4 s,
                   quiet check 0.1 s, archive 3 min 5 s, start 20.1 s,
                   finish 4.0 s
      vaultwarden  plan 0.3 s, measure 1.2 s, stop 10.4 s,
                   quiet check 0.1 s, archive 3 min 5 s, start 20.1 s,
                   finish 4.0 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn new_holes_come_right_after_the_stacks_and_ignored_ones_are_not_told() {
    let mut run = run(vec![ok("immich", GIB)]);
    let hole = |name: &str| mount(MountKind::Bind, name, Some("outside the stack's directory"));
    run.stacks[0].coverage.extend([
        MountCoverage {
            is_new: true,
            ..hole("/mnt/new")
        },
        hole("/mnt/old"),
        MountCoverage {
            ignored: true,
            ..hole("/mnt/ignored")
        },
    ]);
    assert!(!run.is_all_well(), "it is mailed even if only failures are");
    let text = run_text(&run, None);
    let at = |what: &str| {
        text.find(what)
            .unwrap_or_else(|| panic!("no {what}:\n{text}"))
    };
    let new = "NEW: NOT IN THE ARCHIVES\n  immich: NEW: bind mount /mnt/new (used by";
    assert!(
        at("STACKS") < at(new) && at(new) < at("ARCHIVES in"),
        "{text}"
    );
    assert!(
        at("ARCHIVES in") < at("\nNOT IN THE ARCHIVES\n  immich: bind mount /mnt/old"),
        "{text}"
    );
    assert!(!text.contains("/mnt/ignored"), "{text}");
    // The control.
    run.stacks[0].coverage.retain(|mount| !mount.is_new);
    assert!(run.is_all_well());
}

#[test]
fn a_mail_says_on_its_first_screen_what_failed_and_what_to_do() {
    let mut run = run(three());
    run.stacks[0] = failed(
        "immich",
        StackStatus::Failed,
        &[(Phase::Plan, "cannot read the compose file: no such file")],
    );
    run.log = vec!["03:00:00 INFO  run: backup started stacks=3".to_owned()];
    let text = mail_text(
        &run,
        &["LOST: 1 message was not delivered".to_owned()],
        false,
    );
    let (first, rest) = text.split_once("\nARCHIVES").unwrap();
    assert_snapshot!(first, @"
    FAILURE: immich not backed up; 2 of 3
      stacks backed up, 1.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12
      min 41 s

    LOST: 1 message was not delivered

    FAILURES
      immich: plan: cannot read the compose
        file: no such file

    TRY AGAIN, when the cause is gone
      docker-stack-backup run immich

    STACKS
      stack        status  archive    down
      immich       FAILED        -  48.3 s
      paperless    ok      1.0 GiB  48.3 s
      vaultwarden  ok      3.4 MiB  48.3 s
    ");
    assert!(!rest.contains("backup started"), "{rest}");
    // The control.
    let with_log = mail_text(&run, &[], true);
    assert!(with_log.contains("\nLOG\n03:00:00 INFO"), "{with_log}");
    assert_eq!(
        with_log.matches("paperless_20261123").count(),
        1,
        "one section has the archive"
    );
}

#[test]
fn a_channel_that_was_not_reached_is_a_failure_of_the_run() {
    let mut run = run(vec![ok("immich", GIB)]);
    run.channels = vec![ChannelOutcome {
        channel: "mail".to_owned(),
        status: ChannelStatus::Waiting,
        error: Some("the server said 451 later".to_owned()),
    }];
    assert_snapshot!(run_subject(&run, ""), @"FAILURE on nas: mail not reached; 1 stack backed up, 1.0 GiB");
    let text = run_text(&run, None);
    let line = "FAILURES\n  mail: not sent yet: the server said 451 later; it is kept, and sent\n    later\n";
    assert!(text.contains(line), "{text}");
    assert_eq!(run.exit_status(), crate::outcome::ExitStatus::Incomplete);
    // The control.
    run.channels[0].error = None;
    assert!(run_subject(&run, "").starts_with("SUCCESS on nas: "));
    assert_eq!(run.exit_status(), crate::outcome::ExitStatus::Ok);
}
