//! Who is told, and of what.

use super::condition::Occasion;
use super::*;
use crate::config::When;
use crate::outcome::{DrillOutcome, MountCoverage, MountKind, RecoveredStack, UnconfiguredProject};

/// Feeds a channel with runs, and returns whether it was told of each.
fn told(when: When, runs: &[RunOutcome]) -> Vec<bool> {
    let mut memory: Option<Memory> = None;
    let now = OffsetTime::now();
    let tell = |run: &RunOutcome| {
        let condition = Condition::of_run(run);
        let told = condition.occasion(when, 3, memory.as_ref(), &now).is_some();
        memory = Some(condition.remembered(memory.as_ref(), told, &now));
        told
    };
    runs.iter().map(tell).collect()
}

fn warned(texts: &[&str]) -> RunOutcome {
    let mut run = good();
    run.stacks[0].warnings = texts.iter().map(|text| (*text).to_owned()).collect();
    run
}

#[test]
fn a_channel_is_told_always_of_failures_or_of_changes() {
    let runs = [good(), bad(), bad(), good(), good(), warned(&["a"])];
    assert_eq!(told(When::Always, &runs), [true; 6]);
    let failures = [false, true, true, false, false, true];
    assert_eq!(told(When::Failure, &runs), failures);
    let changes = [false, true, false, true, false, true];
    assert_eq!(told(When::Change, &runs), changes);
}

#[test]
fn a_failure_of_another_stack_or_another_kind_is_a_change() {
    use StackStatus::{Down, Failed, Ok};
    let runs = [
        run(&[("web", Failed), ("db", Ok)]),
        run(&[("web", Failed), ("db", Failed)]),
        run(&[("web", Down), ("db", Failed)]),
        run(&[("web", Down), ("db", Failed)]),
        run(&[("web", Ok), ("db", Failed)]),
        run(&[("web", Ok), ("db", Failed)]),
    ];
    let changes = [true, true, true, false, true, false];
    assert_eq!(told(When::Change, &runs), changes);
}

#[test]
fn figures_are_no_change_and_a_new_warning_is_one() {
    let runs = [
        warned(&["the archive of 2026-11-23 has 12 files too many"]),
        warned(&["the archive of 2026-11-24 has 7 files too many"]),
        warned(&[
            "the archive of 2026-11-25 has 7 files too many",
            "it is slow",
        ]),
        warned(&["it is slow"]),
        good(),
        warned(&["it is slow"]),
    ];
    let changes = [true, false, true, false, false, true];
    assert_eq!(told(When::Change, &runs), changes);
}

#[test]
fn a_run_of_one_stack_says_nothing_about_the_others() {
    use StackStatus::{Failed, Ok};
    let runs = [
        run(&[("web", Failed), ("db", Ok)]),
        run(&[("db", Ok)]),
        run(&[("web", Failed), ("db", Ok)]),
        run(&[("web", Ok)]),
    ];
    assert_eq!(told(When::Change, &runs), [true, false, false, true]);
}

#[test]
fn a_project_without_a_stack_is_told_once_each_time_it_appears() {
    let whole = |projects: &[&str]| {
        let mut run = good();
        let found = projects.iter().map(|project| UnconfiguredProject {
            project: (*project).to_owned(),
            dir: "/srv".into(),
        });
        run.unconfigured = Some(found.collect());
        run
    };
    // A run of one stack does not look for projects.
    let runs = [
        whole(&["wiki"]),
        whole(&["wiki"]),
        good(),
        whole(&["wiki"]),
        whole(&["wiki", "blog"]),
        whole(&[]),
        whole(&["wiki"]),
    ];
    let changes = [true, false, false, false, true, false, true];
    assert_eq!(told(When::Change, &runs), changes);
    let failures = [true, true, false, true, true, false, true];
    assert_eq!(told(When::Failure, &runs), failures);
}

#[test]
fn what_happens_once_is_told_each_time() {
    let mut recovered = good();
    recovered.recovered = vec![RecoveredStack {
        stack: "web".to_owned(),
        services: Vec::new(),
        error: None,
        undone: Vec::new(),
        not_undone: Vec::new(),
        warnings: Vec::new(),
    }];
    let mut hole = good();
    hole.stacks[0].coverage = vec![MountCoverage {
        kind: MountKind::Volume,
        name: "v".to_owned(),
        used_by: Vec::new(),
        archived: false,
        reason: None,
        ignored: false,
        is_new: true,
    }];
    let runs = [recovered.clone(), recovered, hole.clone(), hole, good()];
    let expected = [true, true, true, true, false];
    assert_eq!(told(When::Change, &runs), expected);
    assert_eq!(told(When::Failure, &runs), expected);
}

#[test]
fn a_failure_that_lasts_is_told_again_after_some_days() {
    let time = |day: u32, hour: u32| -> OffsetTime {
        format!("2026-11-{day:02}T{hour:02}:00:00+01:00")
            .parse()
            .unwrap()
    };
    let condition = Condition::of_run(&bad());
    let first = condition.remembered(None, true, &time(1, 3));
    // An attempt in between does not delay it.
    let second = condition.remembered(Some(&first), false, &time(2, 3));
    let occasion = |now: OffsetTime| condition.occasion(When::Change, 3, Some(&second), &now);
    assert_eq!(occasion(time(3, 3)), None);
    let since = time(1, 3);
    assert_eq!(
        occasion(time(4, 2)),
        Some(Occasion::Reminder {
            since: since.clone()
        })
    );
    // A clock that was ahead does not silence it.
    let past: OffsetTime = "2026-10-01T03:00:00+01:00".parse().unwrap();
    assert_eq!(occasion(past), Some(Occasion::Reminder { since }));
    // The control: nothing is left to remind of.
    let well = Condition::of_run(&good());
    let known = well.remembered(Some(&second), true, &time(4, 3));
    assert_eq!(
        well.occasion(When::Change, 3, Some(&known), &time(20, 3)),
        None
    );
}

#[test]
fn changes_are_known_across_runs_and_reminders_say_so() {
    let place = Place::new();
    let server = serve(ok);
    let channel = place.channel("ntfy", &url(&server), &json!({}));
    let plan = place.plan(&json!([channel]));
    assert_eq!(tell(&plan, &good()), []);
    assert_sent(&tell(&plan, &bad()));
    assert_eq!(tell(&plan, &bad()), []);
    // As if the first message had been sent four days ago.
    let path = place.state_dir().join("news.json");
    let mut told: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let four_days =
        OffsetTime::local(jiff::Timestamp::now() - jiff::SignedDuration::from_hours(96));
    told["channels"]["ntfy"]["run"]["told"] = json!(four_days);
    fs::write(&path, told.to_string()).unwrap();
    assert_sent(&tell(&plan, &bad()));
    assert_sent(&tell(&plan, &good()));
    assert_eq!(tell(&plan, &good()), []);
    let bodies: Vec<String> = server.requests.try_iter().map(|got| got.body).collect();
    assert_eq!(bodies.len(), 3);
    assert!(
        bodies[0].starts_with("FAILURES\n  web: plan: the disk is full\n"),
        "{}",
        bodies[0]
    );
    assert!(
        bodies[1].starts_with("REMINDER: the same fails since "),
        "{}",
        bodies[1]
    );
    assert_eq!(bodies[2], "STACKS\nweb: ok, -\n");
}

#[test]
fn what_was_told_is_not_forgotten_for_a_damaged_file_but_told_again() {
    let place = Place::new();
    let server = serve(ok);
    let channel = place.channel("ntfy", &url(&server), &json!({}));
    let plan = place.plan(&json!([channel]));
    assert_sent(&tell(&plan, &bad()));
    fs::write(place.state_dir().join("news.json"), "\0\0").unwrap();
    assert_sent(&tell(&plan, &bad()));
    assert_eq!(tell(&plan, &bad()), []);
}

#[test]
fn drills_are_remembered_apart_and_monitors_hear_nothing_of_them() {
    let place = Place::new();
    let server = serve(ok);
    let ntfy = place.channel("ntfy", &url(&server), &json!({}));
    let monitor = place.channel("healthchecks", &url(&server), &json!({}));
    let hook = place.channel("webhook", &url(&server), &json!({}));
    let plan = place.plan(&json!([ntfy, monitor, hook]));
    let started = OffsetTime::now();
    let drill = |problem: Option<&str>| {
        let mut drilled = DrillOutcome::failed("web", "/a".to_owned(), String::new());
        drilled.problems = problem.into_iter().map(str::to_owned).collect();
        let news = News::Drills {
            results: &[drilled],
            host: "nas",
            started: &started,
        };
        prepare(&plan, &news).send_with(&[])
    };
    assert_eq!(drill(None), []);
    assert_sent(&drill(Some("it is unhealthy")));
    assert_eq!(drill(Some("it is unhealthy")), []);
    let got: Vec<Got> = server.requests.try_iter().collect();
    assert_eq!(got.len(), 1);
    got[0].assert_header(
        "Title: DRILL FAILURE on nas: web not healthy; 0 of 1 stack came up healthy",
    );
    assert!(got[0].body.contains("it is unhealthy"), "{}", got[0].body);
    // The control: a run is told to all three.
    assert_eq!(tell(&plan, &bad()).len(), 3);
}
