//! The report of drills, as a mail.

use super::page::{Page, WIDTH};
use super::subject::{MAX_NAMES, on_host, subject_line};
use crate::outcome::DrillOutcome;
use crate::sys::format::{ascii, count, human_duration, list_names};
use crate::sys::time::OffsetTime;

/// Returns the subject of the mail, such as
/// `[tag] DRILL SUCCESS on nas: 3 stacks came up healthy`,
/// `[tag] DRILL FAILURE on nas: web not healthy; 2 of 3 stacks came up healthy`,
/// `[tag] DRILL INTERRUPTED (SIGTERM) on nas: db, web not drilled; 1 of 3 stacks came up healthy`.
pub fn drills_subject(drills: &[DrillOutcome], host: &str, tag: &str) -> String {
    subject_line(tag, headline(drills, &on_host(host)))
}

fn headline(drills: &[DrillOutcome], on_host: &str) -> String {
    let names = |is_wanted: fn(&DrillOutcome) -> bool| -> Vec<String> {
        let wanted = drills.iter().filter(|drilled| is_wanted(drilled));
        wanted.map(|drilled| ascii(&drilled.stack)).collect()
    };
    let failed = names(|drilled| !drilled.problems.is_empty());
    let not_drilled = names(|drilled| drilled.interrupted.is_some());
    let skipped = names(|drilled| drilled.skipped.is_some());
    let drilled_count = drills.len() - skipped.len();
    let total = count(drilled_count as u64, "stack");
    let mut clauses = Vec::new();
    for (names, what) in [(&failed, "not healthy"), (&not_drilled, "not drilled")] {
        if !names.is_empty() {
            clauses.push(format!("{} {what}", list_names(names, MAX_NAMES)));
        }
    }
    clauses.push(match drilled_count - failed.len() - not_drilled.len() {
        0 if drilled_count == 0 => "nothing to drill".to_owned(),
        healthy if healthy == drilled_count => format!("{total} came up healthy"),
        healthy => format!("{healthy} of {total} came up healthy"),
    });
    if !skipped.is_empty() {
        clauses.push(format!("{} skipped", list_names(&skipped, MAX_NAMES)));
    }
    let signal = drills
        .iter()
        .find_map(|drilled| drilled.interrupted.as_ref());
    let label = match (failed.is_empty(), signal) {
        (false, _) => "FAILURE".to_owned(),
        (true, Some(signal)) => format!("INTERRUPTED ({signal})"),
        (true, None) => "SUCCESS".to_owned(),
    };
    format!("DRILL {label}{on_host}: {}", clauses.join("; "))
}

/// Returns the report: printable ASCII and newlines, at most 72 columns.
pub fn drills_text(
    drills: &[DrillOutcome],
    host: &str,
    started: &OffsetTime,
    notices: &[String],
) -> String {
    page(drills, host, started, notices).finish()
}

/// Returns the same as HTML.
pub fn drills_html(
    drills: &[DrillOutcome],
    host: &str,
    started: &OffsetTime,
    notices: &[String],
) -> String {
    page(drills, host, started, notices).finish_html()
}

fn page(drills: &[DrillOutcome], host: &str, started: &OffsetTime, notices: &[String]) -> Page {
    let mut page = Page::new(WIDTH);
    let is_good =
        |drilled: &DrillOutcome| drilled.problems.is_empty() && drilled.interrupted.is_none();
    let class = if drills.iter().all(is_good) {
        "good"
    } else {
        "bad"
    };
    page.headline(&headline(drills, ""), class);
    let started = started.strftime("%Y-%m-%d %H:%M:%S %:z");
    page.line("", &format!("{host}, {started}"));
    page.notices(notices);
    results(&mut page, drills);
    page.footer(concat!(
        env!("CARGO_PKG_NAME"),
        " ",
        env!("CARGO_PKG_VERSION")
    ));
    page
}

/// Returns the text of a notification, whose title is the headline.
pub fn drills_brief(drills: &[DrillOutcome], notices: &[String]) -> String {
    let mut page = Page::new(usize::from(u16::MAX));
    page.notices(notices);
    results(&mut page, drills);
    page.brief()
}

fn results(page: &mut Page, drills: &[DrillOutcome]) {
    page.section("DRILLS");
    for drilled in drills {
        let result = match (&drilled.interrupted, &drilled.skipped) {
            (Some(signal), _) => format!("not drilled, interrupted by {signal}"),
            (None, Some(reason)) => format!("skipped, {reason}"),
            (None, None) if drilled.is_healthy() => {
                format!("healthy in {}", human_duration(drilled.duration_ms))
            }
            (None, None) => "FAILED".to_owned(),
        };
        page.line("  ", &format!("{}: {result}", drilled.stack));
        for problem in &drilled.problems {
            page.line("    ", problem);
        }
        if !drilled.archive.is_empty() {
            page.line("    ", &format!("archive: {}", drilled.archive));
        }
        if !drilled.services.is_empty() {
            page.line(
                "    ",
                &format!("services: {}", drilled.services.join(", ")),
            );
        }
        for note in &drilled.notes {
            page.line("    ", &format!("note: {note}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn drilled(stack: &str, problems: &[&str]) -> DrillOutcome {
        DrillOutcome {
            stack: stack.to_owned(),
            archive: format!("/mnt/backup/{stack}/{stack}_20261101_030000.tar"),
            services: vec!["app".to_owned(), "db".to_owned()],
            duration_ms: 12_345,
            problems: problems.iter().map(|text| (*text).to_owned()).collect(),
            interrupted: None,
            skipped: None,
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_mail_about_drills_names_the_failed_stacks_first() {
        let mut all = vec![drilled("immich", &[])];
        assert_snapshot!(drills_subject(&all, "", "nas"), @"[nas] DRILL SUCCESS: 1 stack came up healthy");
        all[0].notes = vec!["service app: not privileged".to_owned()];
        all.push(drilled(
            "w\u{e9}b",
            &["service db is unhealthy after 180 s"],
        ));
        all.push(DrillOutcome::failed(
            "new",
            String::new(),
            "there is no archive of a stack new".to_owned(),
        ));
        assert_snapshot!(drills_subject(&all, "nas", ""), @r"DRILL FAILURE on nas: w\u{e9}b, new not healthy; 1 of 3 stacks came up healthy");
        let started = "2026-11-23T03:00:00+01:00".parse().unwrap();
        assert_snapshot!(drills_text(&all, "nas", &started, &[]), @r"
        DRILL FAILURE: w\u{e9}b, new not healthy; 1 of 3 stacks came up healthy
        nas, 2026-11-23 03:00:00 +01:00

        DRILLS
          immich: healthy in 12.3 s
            archive: /mnt/backup/immich/immich_20261101_030000.tar
            services: app, db
            note: service app: not privileged
          w\u{e9}b: FAILED
            service db is unhealthy after 180 s
            archive: /mnt/backup/w\u{e9}b/w\u{e9}b_20261101_030000.tar
            services: app, db
          new: FAILED
            there is no archive of a stack new

        docker-stack-backup 0.1.0
        ");
    }

    #[test]
    fn a_mail_about_interrupted_drills_names_the_stacks_that_were_not_drilled() {
        let mut all = vec![
            drilled("immich", &[]),
            DrillOutcome::interrupted("web", "SIGTERM"),
            DrillOutcome::interrupted("new", "SIGTERM"),
        ];
        assert_snapshot!(drills_subject(&all, "nas", ""), @"DRILL INTERRUPTED (SIGTERM) on nas: web, new not drilled; 1 of 3 stacks came up healthy");
        all[0].problems = vec!["service db is unhealthy after 180 s".to_owned()];
        assert_snapshot!(drills_subject(&all, "nas", "[x]"), @"[x] DRILL FAILURE on nas: immich not healthy; web, new not drilled; 0 of 3 stacks came up healthy");
        let started = "2026-11-23T03:00:00+01:00".parse().unwrap();
        assert_snapshot!(drills_text(&all[1..], "nas", &started, &[]), @r"
        DRILL INTERRUPTED (SIGTERM): web, new not drilled; 0 of 2 stacks came up
          healthy
        nas, 2026-11-23 03:00:00 +01:00

        DRILLS
          web: not drilled, interrupted by SIGTERM
          new: not drilled, interrupted by SIGTERM

        docker-stack-backup 0.1.0
        ");
    }
}
