use std::path::PathBuf;

use insta::assert_snapshot;
use jiff::ZonedDateTime;
use proptest::prelude::*;

use super::format::WIDTH;
use super::*;
use crate::outcome::{
    ArchiveOutcome, Coverage, DamagedArchive, FORMAT_VERSION, Failure, LastDrill, MountKind, Phase,
    PhaseTime, PrunedStack, Recovered, RemovedArchive, RunOutcome, StackOutcome, StackStatus,
    StoreUsage,
};

const GIB: u64 = 1 << 30;

fn time(text: &str) -> ZonedDateTime {
    format!("2026-11-23T{text}+01:00[+01:00]").parse().unwrap()
}

fn run(stacks: Vec<StackOutcome>) -> RunOutcome {
    RunOutcome {
        format_version: FORMAT_VERSION,
        program_version: "0.1.0".to_owned(),
        host: "nas".to_owned(),
        backup_dir: "/mnt/backup".into(),
        started: time("03:00:00"),
        finished: Some(time("03:12:41")),
        interrupted: None,
        recovered: Vec::new(),
        stacks,
        pruned: Vec::new(),
        store: Some(StoreUsage {
            archive_count: 84,
            archive_bytes: 340 * GIB,
            file_system_total_bytes: 3725 * GIB,
            file_system_available_bytes: 2500 * GIB,
        }),
        errors: Vec::new(),
        log: Vec::new(),
    }
}

fn ok(stack: &str, archive_bytes: u64) -> StackOutcome {
    let path = format!("/mnt/backup/{stack}/{stack}_20261123_030000.tar");
    let phase = |(phase, duration_ms)| PhaseTime { phase, duration_ms };
    StackOutcome {
        stack: stack.to_owned(),
        project: Some(stack.to_owned()),
        status: StackStatus::Ok,
        failures: Vec::new(),
        warnings: Vec::new(),
        services: vec!["server".to_owned(), "database".to_owned()],
        archive: Some(ArchiveOutcome {
            path: path.into(),
            archive_bytes,
            content_bytes: archive_bytes - archive_bytes / 50,
            member_count: archive_bytes / 100_000,
            socket_count: 0,
            excluded_count: 0,
            changed_count: 0,
            crash_consistent: false,
        }),
        downtime_ms: Some(48_320),
        capture: None,
        phases: [
            (Phase::Plan, 312),
            (Phase::Measure, 1_204),
            (Phase::Stop, 10_377),
            (Phase::Quiet, 88),
            (Phase::Archive, 185_000),
            (Phase::Start, 20_102),
            (Phase::Finish, 3_960),
        ]
        .map(phase)
        .to_vec(),
        coverage: vec![mount(
            MountKind::Directory,
            &format!("/srv/stacks/{stack}"),
            None,
        )],
        drilled: None,
        damaged: Vec::new(),
    }
}

fn drill(stack: &str, problems: &[&str]) -> LastDrill {
    LastDrill {
        archive: format!("/mnt/backup/{stack}/{stack}_20261101_030000.tar").into(),
        time: time("01:30:00"),
        problems: problems.iter().map(|text| (*text).to_owned()).collect(),
    }
}

fn failed(stack: &str, status: StackStatus, failures: &[(Phase, &str)]) -> StackOutcome {
    let failure = |(phase, message): &(Phase, &str)| Failure {
        phase: *phase,
        message: (*message).to_owned(),
    };
    StackOutcome {
        status,
        failures: failures.iter().map(failure).collect(),
        archive: None,
        ..ok(stack, 0)
    }
}

fn not_run(stack: &str) -> StackOutcome {
    StackOutcome {
        downtime_ms: None,
        capture: None,
        phases: Vec::new(),
        coverage: Vec::new(),
        ..failed(stack, StackStatus::NotRun, &[])
    }
}

/// Archived unless there is a reason.
fn mount(kind: MountKind, name: &str, reason: Option<&str>) -> Coverage {
    Coverage {
        kind,
        name: name.to_owned(),
        used_by: vec!["server:/data".to_owned()],
        archived: reason.is_none(),
        reason: reason.map(str::to_owned),
    }
}

fn pruned(stack: &str, removed_archives: &[(&str, u64)]) -> PrunedStack {
    let removed = |(stamp, archive_bytes): &(&str, u64)| RemovedArchive {
        path: format!("/mnt/backup/{stack}/{stack}_{stamp}.tar").into(),
        archive_bytes: *archive_bytes,
        reason: "older than 28 days".to_owned(),
    };
    PrunedStack {
        stack: stack.to_owned(),
        kept_count: 28,
        removed: removed_archives.iter().map(removed).collect(),
        error: None,
    }
}

fn three() -> Vec<StackOutcome> {
    vec![
        ok("immich", 11 * GIB),
        ok("paperless", GIB),
        ok("vaultwarden", GIB / 300),
    ]
}

#[test]
fn all_is_well() {
    let mut run = run(three());
    let immich = &mut run.stacks[0];
    immich.coverage.extend([
        mount(MountKind::Volume, "immich_database", None),
        mount(
            MountKind::Bind,
            "/mnt/photos",
            Some("bind outside the stack's directory, not named in extraPaths"),
        ),
    ]);
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
        "03:00:00 INFO  run: backup begins stack_count=3".to_owned(),
        "03:00:12 INFO  stack: services stopped stack=immich services=server,database \
         duration_ms=10377"
            .to_owned(),
    ];
    assert_snapshot!(subject(&run, "docker-backup"), @"[docker-backup] SUCCESS: 3 stacks backed up, 12.0 GiB");
    assert_snapshot!(text(&run), @"
    SUCCESS: 3 stacks backed up, 12.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    STACKS
      stack        status   archive     content  downtime    duration
      immich       ok      11.0 GiB    10.8 GiB    48.3 s  3 min 41 s
      paperless    ok       1.0 GiB  1003.5 MiB    48.3 s  3 min 41 s
      vaultwarden  ok       3.4 MiB     3.3 MiB    48.3 s  3 min 41 s

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  118111 members, 1 socket left out, 12 excluded
         1.0 GiB  paperless/paperless_20261123_030000.tar
                  10737 members
         3.4 MiB  vaultwarden/vaultwarden_20261123_030000.tar
                  35 members
        12.0 GiB  in total

    NOT IN THE ARCHIVES
      immich: bind /mnt/photos (used by server:/data): bind outside the
        stack's directory, not named in extraPaths

    IN THE ARCHIVES
      immich: directory /srv/stacks/immich, volume immich_database
      paperless: directory /srv/stacks/paperless
      vaultwarden: directory /srv/stacks/vaultwarden

    RETENTION: 2 archives removed, 19.0 GiB freed, 56 kept
      immich: 28 kept, 2 removed
        10.0 GiB  immich/immich_20261025_030000.tar: older than 28 days
         9.0 GiB  immich/immich_20261024_030000.tar: older than 28 days
      paperless: 28 kept, 0 removed

    STORE /mnt/backup
      84 archives, 340.0 GiB
      file system: 1.2 TiB of 3.6 TiB used (33 %), 2.4 TiB available

    PHASES
      immich       plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
                   archive 3 min 5 s, start 20.1 s, finish 4.0 s
      paperless    plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
                   archive 3 min 5 s, start 20.1 s, finish 4.0 s
      vaultwarden  plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
                   archive 3 min 5 s, start 20.1 s, finish 4.0 s

    LOG
    03:00:00 INFO  run: backup begins stack_count=3
    03:00:12 INFO  stack: services stopped stack=immich
        services=server,database duration_ms=10377

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn one_stack_failed() {
    let mut run = run(three());
    run.stacks[0] = failed(
        "immich",
        StackStatus::Failed,
        &[(
            Phase::Archive,
            "write archive /mnt/backup/immich/immich_20261123_030000.tar.partial: \
             No space left on device (os error 28)",
        )],
    );
    run.pruned = vec![PrunedStack {
        error: Some("remove archive /mnt/backup/paperless/x.tar: Input/output error".to_owned()),
        ..pruned("paperless", &[])
    }];
    run.errors = vec!["write metrics: Permission denied (os error 13)".to_owned()];
    assert_snapshot!(subject(&run, "docker-backup"), @"[docker-backup] FAILURE: immich not backed up; paperless not pruned; 1 other error; 2 of 3 stacks backed up, 1.0 GiB");
    assert_snapshot!(text(&run), @"
    FAILURE: immich not backed up; paperless not pruned; 1 other error; 2 of
      3 stacks backed up, 1.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    FAILURES
      immich: archive: write archive
        /mnt/backup/immich/immich_20261123_030000.tar.partial: No space left
        on device (os error 28)
      paperless: prune: remove archive /mnt/backup/paperless/x.tar:
        Input/output error
      write metrics: Permission denied (os error 13)

    STACKS
      stack        status  archive     content  downtime    duration
      immich       FAILED        -           -    48.3 s  3 min 41 s
      paperless    ok      1.0 GiB  1003.5 MiB    48.3 s  3 min 41 s
      vaultwarden  ok      3.4 MiB     3.3 MiB    48.3 s  3 min 41 s

    ARCHIVES in /mnt/backup
         1.0 GiB  paperless/paperless_20261123_030000.tar
                  10737 members
         3.4 MiB  vaultwarden/vaultwarden_20261123_030000.tar
                  35 members
         1.0 GiB  in total

    IN THE ARCHIVES
      paperless: directory /srv/stacks/paperless
      vaultwarden: directory /srv/stacks/vaultwarden

    RETENTION: 0 archives removed, 0 B freed, 28 kept
      paperless: 28 kept, 0 removed, NOT PRUNED FULLY

    STORE /mnt/backup
      84 archives, 340.0 GiB
      file system: 1.2 TiB of 3.6 TiB used (33 %), 2.4 TiB available

    PHASES
      immich       plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
                   archive 3 min 5 s, start 20.1 s, finish 4.0 s
      paperless    plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
                   archive 3 min 5 s, start 20.1 s, finish 4.0 s
      vaultwarden  plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
                   archive 3 min 5 s, start 20.1 s, finish 4.0 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn one_stack_is_down() {
    let mut run = run(three());
    run.stacks[1] = StackOutcome {
        status: StackStatus::Down,
        failures: vec![Failure {
            phase: Phase::Start,
            message: "wait for services: database is unhealthy after 120 s".to_owned(),
        }],
        ..ok("paperless", GIB)
    };
    run.stacks[2] = failed(
        "vaultwarden",
        StackStatus::Failed,
        &[(Phase::Plan, "read compose file: no such file")],
    );
    assert_snapshot!(subject(&run, "docker-backup"), @"[docker-backup] FAILURE: paperless IS DOWN; vaultwarden not backed up; 2 of 3 stacks backed up, 12.0 GiB");
    assert_snapshot!(text(&run), @"
    FAILURE: paperless IS DOWN; vaultwarden not backed up; 2 of 3 stacks
      backed up, 12.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    FAILURES
      paperless IS DOWN (server, database); start it with
        `docker-stack-backup recover`
      paperless: start: wait for services: database is unhealthy after 120 s
      vaultwarden: plan: read compose file: no such file

    STACKS
      stack        status   archive     content  downtime    duration
      immich       ok      11.0 GiB    10.8 GiB    48.3 s  3 min 41 s
      paperless    DOWN     1.0 GiB  1003.5 MiB    48.3 s  3 min 41 s
      vaultwarden  FAILED         -           -    48.3 s  3 min 41 s

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  118111 members
         1.0 GiB  paperless/paperless_20261123_030000.tar
                  10737 members
        12.0 GiB  in total

    IN THE ARCHIVES
      immich: directory /srv/stacks/immich
      paperless: directory /srv/stacks/paperless

    STORE /mnt/backup
      84 archives, 340.0 GiB
      file system: 1.2 TiB of 3.6 TiB used (33 %), 2.4 TiB available

    PHASES
      immich       plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
                   archive 3 min 5 s, start 20.1 s, finish 4.0 s
      paperless    plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
                   archive 3 min 5 s, start 20.1 s, finish 4.0 s
      vaultwarden  plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
                   archive 3 min 5 s, start 20.1 s, finish 4.0 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn the_run_was_interrupted() {
    let mut run = run(vec![
        ok("immich", 11 * GIB),
        not_run("paperless"),
        not_run("vaultwarden"),
    ]);
    run.interrupted = Some("SIGTERM".to_owned());
    run.store = None;
    assert_snapshot!(subject(&run, "docker-backup"), @"[docker-backup] INTERRUPTED (SIGTERM): paperless, vaultwarden not attempted; 1 of 3 stacks backed up, 11.0 GiB");
    assert_snapshot!(text(&run), @"
    INTERRUPTED (SIGTERM): paperless, vaultwarden not attempted; 1 of 3
      stacks backed up, 11.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    FAILURES
      interrupted: SIGTERM
      not attempted: paperless, vaultwarden

    STACKS
      stack        status    archive   content  downtime    duration
      immich       ok       11.0 GiB  10.8 GiB    48.3 s  3 min 41 s
      paperless    not run         -         -         -           -
      vaultwarden  not run         -         -         -           -

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  118111 members
        11.0 GiB  in total

    IN THE ARCHIVES
      immich: directory /srv/stacks/immich

    PHASES
      immich  plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
              archive 3 min 5 s, start 20.1 s, finish 4.0 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn the_run_is_unfinished() {
    let mut run = run(vec![ok("immich", 11 * GIB), not_run("paperless")]);
    run.finished = None;
    run.store = None;
    assert_snapshot!(subject(&run, "docker-backup"), @"[docker-backup] UNFINISHED: paperless not attempted; 1 of 2 stacks backed up, 11.0 GiB");
    assert_snapshot!(text(&run), @"
    UNFINISHED: paperless not attempted; 1 of 2 stacks backed up, 11.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, not finished

    FAILURES
      not attempted: paperless

    STACKS
      stack      status    archive   content  downtime    duration
      immich     ok       11.0 GiB  10.8 GiB    48.3 s  3 min 41 s
      paperless  not run         -         -         -           -

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  118111 members
        11.0 GiB  in total

    IN THE ARCHIVES
      immich: directory /srv/stacks/immich

    PHASES
      immich  plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
              archive 3 min 5 s, start 20.1 s, finish 4.0 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn stacks_were_recovered() {
    let mut run = run(vec![ok("immich", 11 * GIB)]);
    run.store = None;
    run.recovered = vec![Recovered {
        stack: "immich".to_owned(),
        services: vec!["server".to_owned(), "database".to_owned()],
        error: None,
    }];
    assert_snapshot!(subject(&run, "docker-backup"), @"[docker-backup] SUCCESS (1 stack recovered): 1 stack backed up, 11.0 GiB");
    assert_snapshot!(text(&run), @"
    SUCCESS (1 stack recovered): 1 stack backed up, 11.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    RECOVERED (left stopped by an interrupted run, started again now)
      immich: server, database

    STACKS
      stack   status   archive   content  downtime    duration
      immich  ok      11.0 GiB  10.8 GiB    48.3 s  3 min 41 s

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  118111 members
        11.0 GiB  in total

    IN THE ARCHIVES
      immich: directory /srv/stacks/immich

    PHASES
      immich  plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
              archive 3 min 5 s, start 20.1 s, finish 4.0 s

    docker-stack-backup 0.1.0
    ");

    run.recovered.push(Recovered {
        stack: "paperless".to_owned(),
        services: vec!["web".to_owned()],
        error: Some("start services: image is gone".to_owned()),
    });
    assert_snapshot!(subject(&run, "docker-backup"), @"[docker-backup] FAILURE: paperless IS DOWN; 1 stack backed up, 11.0 GiB");
    assert_snapshot!(text(&run), @"
    FAILURE: paperless IS DOWN; 1 stack backed up, 11.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    FAILURES
      paperless IS DOWN (web); start it with `docker-stack-backup recover`
      paperless: recover: start services: image is gone

    RECOVERED (left stopped by an interrupted run, started again now)
      immich: server, database

    STACKS
      stack   status   archive   content  downtime    duration
      immich  ok      11.0 GiB  10.8 GiB    48.3 s  3 min 41 s

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  118111 members
        11.0 GiB  in total

    IN THE ARCHIVES
      immich: directory /srv/stacks/immich

    PHASES
      immich  plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
              archive 3 min 5 s, start 20.1 s, finish 4.0 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn there_are_warnings() {
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
    assert_snapshot!(subject(&run, "docker-backup"), @"[docker-backup] SUCCESS (2 warnings): 2 stacks backed up, 12.0 GiB");
    assert_snapshot!(text(&run), @"
    SUCCESS (2 warnings): 2 stacks backed up, 12.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    WARNINGS
      immich: 2 files changed while they were read:
        /srv/stacks/immich/library/upload/a.jpg,
        /srv/stacks/immich/library/upload/b.jpg
      paperless: nothing was running

    STACKS
      stack      status   archive     content  downtime    duration
      immich     ok      11.0 GiB    10.8 GiB    48.3 s  3 min 41 s
      paperless  ok       1.0 GiB  1003.5 MiB         -  3 min 41 s

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  118111 members, 2 files CHANGED WHILE READ
         1.0 GiB  paperless/paperless_20261123_030000.tar
                  10737 members
        12.0 GiB  in total

    IN THE ARCHIVES
      immich: directory /srv/stacks/immich
      paperless: directory /srv/stacks/paperless

    PHASES
      immich     plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
                 archive 3 min 5 s, start 20.1 s, finish 4.0 s
      paperless  plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet 0.1 s,
                 archive 3 min 5 s, start 20.1 s, finish 4.0 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn stacks_were_drilled() {
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
        stack.warnings = crate::standing::warnings(stack, &time("03:00:00"));
        stack.coverage.clear();
        stack.phases.clear();
    }
    assert_snapshot!(text(&run), @"
    SUCCESS (2 warnings): 3 stacks backed up, 12.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    WARNINGS
      paperless: paperless_20261102_030000.tar is damaged, verify found on
        2026-11-23: a/b: its data is damaged
      paperless: the drill of paperless_20261101_030000.tar on 2026-11-23
        failed: service db is unhealthy

    STACKS
      stack        status   archive     content  downtime  duration
      immich       ok      11.0 GiB    10.8 GiB    48.3 s         -
      paperless    ok       1.0 GiB  1003.5 MiB    48.3 s         -
      vaultwarden  ok       3.4 MiB     3.3 MiB    48.3 s         -

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  118111 members
         1.0 GiB  paperless/paperless_20261123_030000.tar
                  10737 members
         3.4 MiB  vaultwarden/vaultwarden_20261123_030000.tar
                  35 members
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
fn names_are_not_ascii_or_long() {
    let long = "a-stack-with-quite-a-long-name-that-has-no-room";
    let mut run = run(vec![ok("b\u{fc}cher", GIB), ok(long, 5 * GIB)]);
    run.host = "h\u{f6}st\r\nBcc: x@example.org".to_owned();
    run.stacks[0].warnings = vec!["caf\u{e9}\n\u{1b}[31mred\ttab".to_owned()];
    if let Some(archive) = &mut run.stacks[1].archive {
        archive.path = PathBuf::from("/mnt/backup").join("deep/".repeat(30) + "a.tar");
    }
    assert_snapshot!(subject(&run, "b\u{fc}cher\r\nBcc: x@example.org"), @r"[b\u{fc}cher\r\nBcc: x@example.org] SUCCESS (1 warning): 2 stacks backed up, 6.0 GiB");
    assert_snapshot!(text(&run), @r"
    SUCCESS (1 warning): 2 stacks backed up, 6.0 GiB
    h\u{f6}st\r\nBcc: x@example.org, 2026-11-23 03:00:00 +01:00, took 12 min
      41 s

    WARNINGS
      b\u{fc}cher: caf\u{e9}\n\u{1b}[31mred\ttab

    STACKS
      stack                status  archive     content  downtime    duration
      b\u{fc}cher          ok      1.0 GiB  1003.5 MiB    48.3 s  3 min 41 s
      a-stack-with-quite-a-long-name-that-has-no-room
                           ok      5.0 GiB     4.9 GiB    48.3 s  3 min 41 s

    ARCHIVES in /mnt/backup
         1.0 GiB  b\u{fc}cher/b\u{fc}cher_20261123_030000.tar
                  10737 members
         5.0 GiB  deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/dee
                  p/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/d
                  eep/deep/deep/deep/deep/deep/deep/a.tar
                  53687 members
         6.0 GiB  in total

    IN THE ARCHIVES
      b\u{fc}cher: directory /srv/stacks/b\u{fc}cher
      a-stack-with-quite-a-long-name-that-has-no-room: directory
        /srv/stacks/a-stack-with-quite-a-long-name-that-has-no-room

    STORE /mnt/backup
      84 archives, 340.0 GiB
      file system: 1.2 TiB of 3.6 TiB used (33 %), 2.4 TiB available

    PHASES
      b\u{fc}cher           plan 0.3 s, measure 1.2 s, stop 10.4 s,
                            quiet 0.1 s, archive 3 min 5 s, start 20.1 s,
                            finish 4.0 s
      a-stack-with-quite-a-long-name-that-has-no-room  plan 0.3 s,
                            measure 1.2 s, stop 10.4 s, quiet 0.1 s,
                            archive 3 min 5 s, start 20.1 s, finish 4.0 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn there_was_nothing_to_do() {
    let mut run = run(Vec::new());
    run.store = None;
    assert_snapshot!(subject(&run, ""), @"SUCCESS: no stacks to back up");
    assert_snapshot!(text(&run), @"
    SUCCESS: no stacks to back up
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn the_subject_stays_one_short_line() {
    let names = ["one", "two", "three", "four", "five"];
    let fail = |name: &&str| failed(name, StackStatus::Failed, &[]);
    let mut run = run(names.iter().map(fail).collect());
    assert_snapshot!(subject(&run, "x"), @"[x] FAILURE: one, two, three and 2 more not backed up; none of 5 stacks backed up");
    for stack in &mut run.stacks {
        stack.stack = stack.stack.repeat(40);
    }
    assert_eq!(subject(&run, &"tag".repeat(50)).len(), 150);
}

#[test]
fn the_label_and_the_exit_status_agree() {
    use crate::outcome::ExitStatus;
    for (status, archive, label) in [
        (StackStatus::Ok, true, "SUCCESS"),
        (StackStatus::Failed, false, "FAILURE"),
        (StackStatus::Failed, true, "FAILURE"),
        (StackStatus::Down, true, "FAILURE"),
        (StackStatus::NotRun, false, "FAILURE"),
    ] {
        let mut stack = ok("a", GIB);
        stack.status = status;
        if !archive {
            stack.archive = None;
        }
        let run = run(vec![stack]);
        assert!(subject(&run, "").starts_with(label), "{status:?}");
        assert_eq!(run.exit_status() == ExitStatus::Ok, label == "SUCCESS");
    }
}

#[test]
fn sizes_are_human() {
    let table = [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (1_048_524, "1023.9 KiB"),
        (12 * GIB + GIB / 3, "12.3 GiB"),
        (u64::MAX, "16.0 EiB"),
    ];
    for (bytes, text) in table {
        assert_eq!(human_bytes(bytes), text);
    }
}

#[test]
fn durations_are_human() {
    let table = [
        (0, "0.0 s"),
        (49, "0.0 s"),
        (4_249, "4.2 s"),
        (59_949, "59.9 s"),
        (59_950, "1 min 0 s"),
        (185_000, "3 min 5 s"),
        (3_599_499, "59 min 59 s"),
        (3_599_500, "1 h 0 min"),
        (86_369_999, "23 h 59 min"),
        (86_370_000, "1 d 0 h"),
        (100 * 3_600_000, "4 d 4 h"),
    ];
    for (duration_ms, text) in table {
        assert_eq!(human_duration(duration_ms), text);
    }
}

#[test]
fn json_is_read_back() {
    let run = run(three());
    let json = serde_json::to_string(&run).unwrap();
    let back: RunOutcome = serde_json::from_str(&json).unwrap();
    assert_eq!(text(&back), text(&run));
    assert!(json.contains("\"archiveBytes\""));
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z ]{0,200}", "\\PC{0,60}", any::<String>()]
}

fn any_stack() -> impl Strategy<Value = StackOutcome> {
    let status = prop::sample::select(vec![
        StackStatus::Ok,
        StackStatus::Failed,
        StackStatus::Down,
        StackStatus::NotRun,
    ]);
    let texts = || prop::collection::vec(any_text(), 0..3);
    let archive = prop::option::of((any_text(), any::<[u64; 6]>()));
    let times = prop::collection::vec(any::<u64>(), 0..3);
    let mounts = prop::collection::vec(
        (any_text(), any::<bool>(), prop::option::of(any_text())),
        0..3,
    );
    (
        any_text(),
        status,
        texts(),
        texts(),
        archive,
        prop::option::of(any::<u64>()),
        times,
        mounts,
    )
        .prop_map(
            |(stack, status, failures, warnings, archive, downtime_ms, times, mounts)| {
                let failure = |message| Failure {
                    phase: Phase::Quiet,
                    message,
                };
                let time = |duration_ms| PhaseTime {
                    phase: Phase::Measure,
                    duration_ms,
                };
                let problems: Vec<&str> = warnings.iter().map(String::as_str).collect();
                let drilled = downtime_ms.map(|_| drill(&stack, &problems));
                StackOutcome {
                    stack,
                    project: None,
                    status,
                    failures: failures.into_iter().map(failure).collect(),
                    services: warnings.clone(),
                    warnings,
                    archive: archive.map(|(path, n)| ArchiveOutcome {
                        path: path.into(),
                        archive_bytes: n[0],
                        content_bytes: n[1],
                        member_count: n[2],
                        socket_count: n[3],
                        excluded_count: n[4],
                        changed_count: n[5],
                        crash_consistent: n[5] % 2 == 1,
                    }),
                    downtime_ms,
                    capture: None,
                    phases: times.into_iter().map(time).collect(),
                    coverage: mounts
                        .into_iter()
                        .map(|(name, archived, reason)| Coverage {
                            kind: MountKind::Bind,
                            used_by: vec![name.clone()],
                            name,
                            archived,
                            reason,
                        })
                        .collect(),
                    drilled,
                    damaged: Vec::new(),
                }
            },
        )
}

fn any_run() -> impl Strategy<Value = RunOutcome> {
    let stacks = prop::collection::vec(any_stack(), 0..4);
    let usage = prop::option::of(any::<[u64; 4]>());
    let removed = prop::collection::vec((any_text(), any::<u64>()), 0..3);
    let texts = prop::collection::vec(any_text(), 0..4);
    let text = || prop::option::of(any_text());
    (
        stacks,
        any_text(),
        any::<bool>(),
        text(),
        text(),
        usage,
        removed,
        texts,
    )
        .prop_map(
            |(stacks, name, finished, interrupted, error, usage, removed, texts)| RunOutcome {
                host: name.clone(),
                backup_dir: name.clone().into(),
                program_version: name.clone(),
                finished: finished.then(|| time("04:00:00")),
                interrupted,
                recovered: vec![Recovered {
                    stack: name.clone(),
                    services: texts.clone(),
                    error: error.clone(),
                }],
                pruned: vec![PrunedStack {
                    stack: name,
                    kept_count: u64::MAX,
                    removed: removed
                        .into_iter()
                        .map(|(text, archive_bytes)| RemovedArchive {
                            path: text.clone().into(),
                            archive_bytes,
                            reason: text,
                        })
                        .collect(),
                    error,
                }],
                store: usage.map(|n| StoreUsage {
                    archive_count: n[0],
                    archive_bytes: n[1],
                    file_system_total_bytes: n[2],
                    file_system_available_bytes: n[3],
                }),
                errors: texts.clone(),
                log: texts,
                ..run(stacks)
            },
        )
}

proptest! {
    #[test]
    fn any_outcome_renders_as_narrow_ascii(run in any_run()) {
        let text = text(&run);
        for line in text.lines() {
            prop_assert!(line.len() <= WIDTH, "{:?}", line);
            prop_assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{:?}", line);
            prop_assert!(!line.ends_with(' '), "{:?}", line);
        }
        prop_assert!(text.ends_with('\n'));
    }

    #[test]
    fn any_outcome_has_a_subject_of_one_line(run in any_run(), tag in any_text()) {
        let subject = subject(&run, &tag);
        prop_assert!(subject.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        prop_assert!((8..=150).contains(&subject.len()));
    }

    /// Nothing of a message is lost by escaping and wrapping.
    #[test]
    fn every_failure_is_told_in_full(message in "[a-z/]{1,30}( [a-z/]{1,90}){0,20}") {
        let stack = failed("a", StackStatus::Failed, &[(Phase::Stop, &message)]);
        let squeeze = |text: &str| text.split_whitespace().collect::<String>();
        prop_assert!(squeeze(&text(&run(vec![stack]))).contains(&squeeze(&message)));
    }
}
