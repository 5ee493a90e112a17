//! Properties of every report.

use proptest::prelude::*;

use super::*;
use crate::config::HookPlace;
use crate::outcome::{HookOutcome, RecoveredStack};
use crate::report::page::{PHONE_WIDTH, WIDTH};

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
                let hook = |(i, text): (usize, &String)| HookOutcome {
                    when: HookPlace::BeforeStop,
                    is_undo: i % 2 == 1,
                    command: text.clone(),
                    duration_ms: 7,
                    error: (i % 2 == 0).then(|| text.clone()),
                    output: vec![text.clone()],
                };
                let hooks = warnings.iter().enumerate().map(hook).collect();
                StackOutcome {
                    hooks,
                    not_undone: warnings.clone(),
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
                    healthy_ms: downtime_ms.map(|ms| ms.saturating_mul(2)),
                    capture: None,
                    phases: times.into_iter().map(time).collect(),
                    coverage: mounts
                        .into_iter()
                        .map(|(name, archived, reason)| MountCoverage {
                            kind: MountKind::Bind,
                            used_by: vec![name.clone()],
                            name,
                            archived,
                            reason,
                            ignored: false,
                            is_new: !archived,
                        })
                        .collect(),
                    drilled,
                    damaged: Vec::new(),
                    newest_good: None,
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
                recovered: vec![RecoveredStack {
                    stack: name.clone(),
                    services: texts.clone(),
                    error: error.clone(),
                    warnings: Vec::new(),
                    undone: texts.clone(),
                    not_undone: texts.clone(),
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

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect()
}

/// Returns what the body of a page says, without blanks, and the names of its elements.
/// Each must be closed in its order.
fn read_html(html: &str) -> (String, Vec<String>) {
    let (_, body) = html.split_once("<body>").unwrap();
    let (body, _) = body.split_once("</body>").unwrap();
    let (mut said, mut tags, mut open) = (String::new(), Vec::new(), Vec::new());
    for (i, piece) in body.split('<').enumerate() {
        let mut text = piece;
        if i > 0 {
            let tag;
            (tag, text) = piece.split_once('>').unwrap();
            let name = tag.trim_start_matches('/').split(' ').next().unwrap();
            match tag.starts_with('/') {
                true => assert_eq!(open.pop().as_deref(), Some(name)),
                false => open.push(name.to_owned()),
            }
            tags.push(name.to_owned());
        }
        said += &squeeze(text);
    }
    assert!(open.is_empty(), "{open:?}");
    for (entity, character) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ] {
        said = said.replace(entity, character);
    }
    (said, tags)
}

proptest! {
    #[test]
    fn every_report_is_ascii_of_at_most_72_columns(run in any_run()) {
        let text = run_text(&run, None);
        for line in text.lines() {
            prop_assert!(line.len() <= WIDTH, "{:?}", line);
            prop_assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{:?}", line);
            prop_assert!(!line.ends_with(' '), "{:?}", line);
        }
        prop_assert!(text.ends_with('\n'));
    }

    #[test]
    fn the_first_screen_of_every_mail_has_at_most_40_columns(run in any_run(), notice in any_text()) {
        let text = mail_text(&run, &[notice], true);
        let later = [
            "HOOKS", "ARCHIVES in", "NOT IN THE", "LAST DRILLS", "RETENTION:", "STORE", "PHASES", "LOG",
            env!("CARGO_PKG_NAME"),
        ];
        let begins = later.iter().filter_map(|title| text.find(&format!("\n\n{title}")));
        let first = begins.min().unwrap();
        for line in text[..first].lines() {
            prop_assert!(line.len() <= PHONE_WIDTH, "{:?}", line);
        }
        for line in text.lines() {
            prop_assert!(line.len() <= WIDTH, "{:?}", line);
        }
        prop_assert!(brief_text(&run, &[]).len() < 4096);
    }

    #[test]
    fn the_html_of_every_mail_says_what_its_text_says(run in any_run(), notice in any_text()) {
        let notices = [notice];
        for with_log in [false, true] {
            let html = mail_html(&run, &notices, with_log);
            prop_assert!(html.is_ascii());
            let (said, tags) = read_html(&html);
            prop_assert_eq!(said, squeeze(&mail_text(&run, &notices, with_log)));
            let known = ["h1", "h2", "p", "b", "table", "tr", "th", "td"];
            for tag in tags {
                prop_assert!(known.contains(&&*tag), "{}", tag);
            }
        }
    }

    #[test]
    fn every_subject_is_one_line_of_ascii(run in any_run(), tag in any_text()) {
        let subject = run_subject(&run, &tag);
        prop_assert!(subject.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        prop_assert!((8..=150).contains(&subject.len()));
    }

    #[test]
    fn every_failure_is_in_the_report_in_full(message in "[a-z/]{1,30}( [a-z/]{1,90}){0,20}") {
        let stack = failed("a", StackStatus::Failed, &[(Phase::Stop, &message)]);
        prop_assert!(squeeze(&run_text(&run(vec![stack]), None)).contains(&squeeze(&message)));
    }
}
