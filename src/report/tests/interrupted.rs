//! Runs that were interrupted or killed, and stacks that were recovered.

use insta::assert_snapshot;

use super::*;
use crate::outcome::RecoveredStack;

#[test]
fn an_interrupted_run_names_the_stacks_it_did_not_attempt() {
    let mut run = run(vec![
        ok("immich", 11 * GIB),
        not_run("paperless"),
        not_run("vaultwarden"),
    ]);
    run.interrupted = Some("SIGTERM".to_owned());
    run.store = None;
    assert_snapshot!(run_subject(&run, "docker-backup"), @"[docker-backup] INTERRUPTED (SIGTERM) on nas: paperless, vaultwarden not attempted; 1 of 3 stacks backed up, 11.0 GiB");
    assert_snapshot!(run_text(&run, None), @"
    INTERRUPTED (SIGTERM): paperless, vaultwarden not attempted; 1 of 3
      stacks backed up, 11.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    FAILURES
      the run was interrupted: SIGTERM
      not attempted: paperless, vaultwarden

    TRY AGAIN, when the cause is gone
      docker-stack-backup run paperless vaultwarden

    STACKS
      stack        status    archive    down
      immich       ok       11.0 GiB  48.3 s
      paperless    not run         -       -
      vaultwarden  not run         -       -

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  10.8 GiB in 118111 members
                  directory /srv/stacks/immich

    PHASES
      immich  plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet check 0.1 s,
              archive 3 min 5 s, start 20.1 s, finish 4.0 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn an_unfinished_run_is_labelled_so() {
    let mut run = run(vec![ok("immich", 11 * GIB), not_run("paperless")]);
    run.finished = None;
    run.store = None;
    assert_snapshot!(run_subject(&run, "docker-backup"), @"[docker-backup] UNFINISHED on nas: paperless not attempted; 1 of 2 stacks backed up, 11.0 GiB");
    assert_snapshot!(run_text(&run, None), @"
    UNFINISHED: paperless not attempted; 1 of 2 stacks backed up, 11.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, not finished

    FAILURES
      not attempted: paperless

    TRY AGAIN, when the cause is gone
      docker-stack-backup run paperless

    STACKS
      stack      status    archive    down
      immich     ok       11.0 GiB  48.3 s
      paperless  not run         -       -

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  10.8 GiB in 118111 members
                  directory /srv/stacks/immich

    PHASES
      immich  plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet check 0.1 s,
              archive 3 min 5 s, start 20.1 s, finish 4.0 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn recovered_stacks_have_a_section_and_those_still_down_are_failures() {
    let mut run = run(vec![ok("immich", 11 * GIB)]);
    run.store = None;
    run.recovered = vec![RecoveredStack {
        stack: "immich".to_owned(),
        services: vec!["server".to_owned(), "database".to_owned()],
        error: None,
        ..RecoveredStack::default()
    }];
    assert_snapshot!(run_subject(&run, "docker-backup"), @"[docker-backup] SUCCESS (1 stack recovered) on nas: 1 stack backed up, 11.0 GiB");
    assert_snapshot!(run_text(&run, None), @"
    SUCCESS (1 stack recovered): 1 stack backed up, 11.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    RECOVERED (left stopped by an interrupted run, started again now)
      immich: server, database

    STACKS
      stack   status   archive    down
      immich  ok      11.0 GiB  48.3 s

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  10.8 GiB in 118111 members
                  directory /srv/stacks/immich

    PHASES
      immich  plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet check 0.1 s,
              archive 3 min 5 s, start 20.1 s, finish 4.0 s

    docker-stack-backup 0.1.0
    ");

    run.recovered.push(RecoveredStack {
        stack: "paperless".to_owned(),
        services: vec!["web".to_owned()],
        error: Some("cannot start server: image is gone".to_owned()),
        ..RecoveredStack::default()
    });
    assert_snapshot!(run_subject(&run, "docker-backup"), @"[docker-backup] FAILURE on nas: paperless IS DOWN; 1 stack backed up, 11.0 GiB");
    assert_snapshot!(run_text(&run, None), @"
    FAILURE: paperless IS DOWN; 1 stack backed up, 11.0 GiB
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    FAILURES
      paperless IS DOWN (web); start it with `docker-stack-backup recover`
      paperless: recover: cannot start server: image is gone

    RECOVERED (left stopped by an interrupted run, started again now)
      immich: server, database

    STACKS
      stack   status   archive    down
      immich  ok      11.0 GiB  48.3 s

    ARCHIVES in /mnt/backup
        11.0 GiB  immich/immich_20261123_030000.tar
                  10.8 GiB in 118111 members
                  directory /srv/stacks/immich

    PHASES
      immich  plan 0.3 s, measure 1.2 s, stop 10.4 s, quiet check 0.1 s,
              archive 3 min 5 s, start 20.1 s, finish 4.0 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn a_warning_about_a_recovered_stack_is_counted_and_health_has_a_line_of_its_own() {
    let mut run = run(vec![StackOutcome {
        healthy_ms: Some(60_320),
        ..ok("immich", GIB)
    }]);
    let text = run_text(&run, None);
    assert!(
        text.contains("\n          healthy 12.0 s after its downtime\n"),
        "{text}"
    );
    assert!(text.contains("  48.3 s\n"), "{text}");
    run.recovered = vec![RecoveredStack {
        stack: "web".to_owned(),
        services: vec!["app".to_owned()],
        error: None,
        warnings: vec!["web-app-1 was unhealthy before the stop; now it runs".to_owned()],
        ..RecoveredStack::default()
    }];
    let subject = run_subject(&run, "");
    assert!(
        subject.starts_with("SUCCESS (1 stack recovered, 1 warning) on nas: "),
        "{subject}"
    );
    let text = run_text(&run, None);
    assert!(
        text.contains("\nWARNINGS\n  web: web-app-1 was unhealthy"),
        "{text}"
    );
    // The control: without a wait, there is no line.
    run.stacks[0].healthy_ms = run.stacks[0].downtime_ms;
    assert!(!run_text(&run, None).contains("after its downtime"));
}
