//! The state of the backups as a page of HTML that needs nothing else: no script, no font,
//! no file of another host. Pure.

use std::fmt::Write as _;

use jiff::ToSpan as _;
use jiff::civil::{Date, Weekday};

use super::subject::{headline, tone};
use crate::history::{History, PastBackup, PastRun};
use crate::outcome::{LastDrill, RunOutcome, StackOutcome, StackStatus};
use crate::sys::format::{count, human_bytes, human_duration, without_commands};
use crate::sys::time::OffsetTime;

/// How many runs a chart shows, and how many weeks the calendar has.
const RUNS_SHOWN: usize = 60;
const WEEKS_SHOWN: i64 = 20;
const CHART_WIDTH: usize = 600;
const CHART_HEIGHT: usize = 90;

const STYLE: &str = include_str!("html.css");

/// What the page tells.
pub struct HtmlReport<'a> {
    pub host: &'a str,
    pub now: &'a OffsetTime,
    pub last: Option<&'a RunOutcome>,
    pub history: &'a History,
    pub stacks: Vec<HtmlStack<'a>>,
}

/// What the page tells of a stack.
pub struct HtmlStack<'a> {
    pub name: &'a str,
    pub drilled: Option<&'a LastDrill>,
    /// Its archives, the oldest first; or why they cannot be read.
    pub archives: Result<Vec<HtmlArchive>, String>,
}

/// An archive in the store.
pub struct HtmlArchive {
    pub time: OffsetTime,
    pub archive_bytes: u64,
    pub is_good: bool,
    /// Whether retention keeps it, and why, or why not.
    pub keep: bool,
    pub reasons: Vec<String>,
}

/// Returns the page.
pub fn html_page(report: &HtmlReport<'_>) -> String {
    let host = escaped(report.host);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>Backups on {host}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>Backups on {host}</h1>\n<p>As of {}</p>\n</header>\n<main>\n",
        report.now.strftime("%F %H:%M %:z")
    );
    last_run(&mut page, report);
    overview(&mut page, report);
    for stack in &report.stacks {
        section(&mut page, report, stack);
    }
    page += concat!(
        "</main>\n<footer>",
        env!("CARGO_PKG_NAME"),
        " ",
        env!("CARGO_PKG_VERSION"),
        "</footer>\n</body>\n</html>\n"
    );
    page
}

/// Adds formatted text. Writing to a `String` cannot fail.
macro_rules! add {
    ($page:expr, $($format:tt)*) => { let _ = write!($page, $($format)*); };
}

fn last_run(page: &mut String, report: &HtmlReport<'_>) {
    let Some(last) = report.last else {
        add!(page, "<p class=\"bad\">There was no run yet.</p>\n");
        return;
    };
    let class = tone(last);
    let started = last.started.strftime("%F %H:%M");
    let headline = escaped(&headline(last));
    add!(page, "<p class=\"{class}\">{started}: {headline}</p>\n");
    let warnings = last.warnings();
    if !warnings.is_empty() {
        add!(page, "<h2>Warnings</h2>\n<ul>\n");
        for (name, warning) in &warnings {
            add!(
                page,
                "<li><b>{}</b>: {}</li>\n",
                escaped(name),
                escaped(warning)
            );
        }
        add!(page, "</ul>\n");
    }
}

fn overview(page: &mut String, report: &HtmlReport<'_>) {
    add!(
        page,
        "<h2>Stacks</h2>\n<div class=\"wide\"><table>\n<tr><th>Stack</th><th>Last run</th>\
         <th>Last good</th><th>Size</th><th>Downtime</th><th>Drill</th></tr>\n"
    );
    for stack in &report.stacks {
        let past = report.history.of_stack(stack.name);
        let (class, result) = match past.last() {
            None => ("bad", "never"),
            Some((_, past)) => match past.status {
                StackStatus::Ok => ("good", "ok"),
                StackStatus::Failed => ("bad", "failed"),
                StackStatus::Down => ("bad", "down"),
                StackStatus::NotRun => ("bad", "not run"),
            },
        };
        let good = report.history.last_good.get(stack.name);
        let downtime = past.last().and_then(|(_, past)| past.downtime_ms);
        let (drill_class, drill) = drill_result(stack.drilled);
        add!(
            page,
            "<tr><td>{}</td><td class=\"{class}\">{result}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td class=\"{drill_class}\">{drill}</td></tr>\n",
            escaped(stack.name),
            good.map_or("never".to_owned(), |good| good
                .time
                .strftime("%F")
                .to_string()),
            good.map_or("-".to_owned(), |good| human_bytes(good.archive_bytes)),
            downtime.map_or("-".to_owned(), human_duration),
        );
    }
    add!(page, "</table></div>\n");
}

fn drill_result(drilled: Option<&LastDrill>) -> (&'static str, String) {
    let Some(drill) = drilled else {
        return ("", "never".to_owned());
    };
    let day = drill.time.strftime("%F");
    match (&drill.skipped, drill.problems.is_empty()) {
        (Some(_), _) => ("", format!("skipped {day}")),
        (None, true) => ("good", format!("healthy {day}")),
        (None, false) => ("bad", format!("failed {day}")),
    }
}

fn section(page: &mut String, report: &HtmlReport<'_>, stack: &HtmlStack<'_>) {
    add!(page, "<section>\n<h2>{}</h2>\n", escaped(stack.name));
    let past = report.history.of_stack(stack.name);
    let shown = &past[past.len().saturating_sub(RUNS_SHOWN)..];
    chart(page, "Size", shown, human_bytes, |past| past.archive_bytes);
    chart(page, "Downtime", shown, human_duration, |past| {
        past.downtime_ms
    });
    match &stack.archives {
        Ok(archives) => calendar(page, report.now, archives),
        Err(error) => {
            add!(
                page,
                "<p class=\"bad\">The archives cannot be read: {}</p>\n",
                escaped(error)
            );
        }
    }
    drill(page, stack.drilled);
    if let Some(outcome) = report.last.and_then(|last| last.stack(stack.name)) {
        coverage(page, outcome);
    }
    add!(page, "</section>\n");
}

/// Draws a bar for each run. A run without a value has a mark at the bottom.
fn chart(
    page: &mut String,
    title: &str,
    past: &[(&PastRun, &PastBackup)],
    format: fn(u64) -> String,
    value: impl Fn(&PastBackup) -> Option<u64>,
) {
    let most = past.iter().filter_map(|(_, past)| value(past)).max();
    let (Some(most), [(first, _), .., (last, _)]) = (most, past) else {
        return;
    };
    let step = CHART_WIDTH as f64 / past.len() as f64;
    add!(
        page,
        "<figure>\n<figcaption>{title} <small>up to {}</small></figcaption>\n\
         <svg viewBox=\"0 0 {CHART_WIDTH} {CHART_HEIGHT}\" role=\"img\" \
         aria-label=\"{title} of {} runs, at most {}\" preserveAspectRatio=\"none\">\n",
        format(most),
        past.len(),
        format(most),
    );
    for (i, (run, past)) in past.iter().enumerate() {
        let share = value(past).map(|value| value as f64 / most.max(1) as f64);
        let height = share.map_or(3.0, |share| (share * CHART_HEIGHT as f64).max(1.0));
        let class = match (past.status, share) {
            (StackStatus::Ok, Some(_)) => "bar",
            _ => "fault",
        };
        let text = value(past).map_or("none".to_owned(), format);
        add!(
            page,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\">\
             <title>{}: {text}</title></rect>\n",
            i as f64 * step,
            CHART_HEIGHT as f64 - height,
            step * 0.8,
            run.started.strftime("%F %H:%M"),
        );
    }
    add!(
        page,
        "</svg>\n<div class=\"ends\"><span>{}</span><span>{}</span></div>\n</figure>\n",
        first.started.strftime("%F"),
        last.started.strftime("%F")
    );
}

/// Draws a square for each day of the last weeks: whether it has an archive, and what
/// retention does with it next.
fn calendar(page: &mut String, now: &OffsetTime, archives: &[HtmlArchive]) {
    let bytes = archives.iter().map(|archive| archive.archive_bytes);
    let size = human_bytes(bytes.fold(0, u64::saturating_add));
    let removed = archives.iter().filter(|archive| !archive.keep).count();
    add!(
        page,
        "<h3>Archives</h3>\n<p>{}, {size}; the next pruning removes {removed}.</p>\n",
        count(archives.len() as u64, "archive")
    );
    let today = now.date();
    let since_monday = i64::from(today.weekday().since(Weekday::Monday));
    let days_shown = (WEEKS_SHOWN - 1) * 7 + since_monday;
    let Ok(first) = today.checked_sub(days_shown.days()) else {
        return;
    };
    let older = archives
        .iter()
        .filter(|archive| archive.time.date() < first);
    let older = older.count();
    add!(page, "<div class=\"calendar\">\n");
    for offset in 0..=days_shown {
        let Ok(day) = first.checked_add(offset.days()) else {
            break;
        };
        let of_day: Vec<&HtmlArchive> = archives
            .iter()
            .filter(|archive| archive.time.date() == day)
            .collect();
        add!(page, "{}", square(day, &of_day));
    }
    add!(
        page,
        "</div>\n<p class=\"legend\"><span><i class=\"kept\"></i> kept</span> \
         <span><i class=\"goes\"></i> removed by the next pruning</span> \
         <span><i class=\"broken\"></i> damaged or incomplete</span></p>\n"
    );
    if older > 0 {
        add!(
            page,
            "<p>{} from before {first}.</p>\n",
            count(older as u64, "archive")
        );
    }
}

fn square(day: Date, archives: &[&HtmlArchive]) -> String {
    let class = match archives {
        [] => return format!("<i title=\"{day}: none\"></i>\n"),
        all if all.iter().any(|archive| !archive.is_good) => "broken",
        all if all.iter().any(|archive| archive.keep) => "kept",
        _ => "goes",
    };
    let texts = archives.iter().map(|archive| {
        let time = archive.time.strftime("%H:%M");
        let size = human_bytes(archive.archive_bytes);
        format!("{time} {size} ({})", archive.reasons.join(", "))
    });
    let text = texts.collect::<Vec<_>>().join("; ");
    format!(
        "<i class=\"{class}\" title=\"{day}: {}\"></i>\n",
        escaped(&text)
    )
}

fn drill(page: &mut String, drilled: Option<&LastDrill>) {
    let (class, result) = drill_result(drilled);
    add!(
        page,
        "<h3>Last drill</h3>\n<p class=\"{class}\">{result}</p>\n"
    );
    let Some(drill) = drilled else { return };
    for problem in &drill.problems {
        add!(page, "<p>{}</p>\n", escaped(problem));
    }
    if let Some(skipped) = &drill.skipped_later {
        let day = skipped.time.strftime("%F");
        add!(page, "<p>Skipped {day}: {}</p>\n", escaped(&skipped.reason));
    }
}

fn coverage(page: &mut String, outcome: &StackOutcome) {
    if outcome.coverage.is_empty() {
        return;
    }
    add!(page, "<h3>Coverage</h3>\n<ul>\n");
    let shown = outcome.coverage.iter();
    for mount in shown.filter(|mount| mount.archived || mount.is_hole()) {
        let (class, text) = match mount.archived {
            true => ("", mount.label()),
            false => ("bad", format!("not in the archive: {}", mount.hole())),
        };
        add!(page, "<li class=\"{class}\">{}</li>\n", escaped(&text));
    }
    add!(page, "</ul>\n");
}

/// Makes text of what others have named: it ends no element and no attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in without_commands(text).chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::tests::example_run;

    fn archive(time: &str, keep: bool, is_good: bool) -> HtmlArchive {
        HtmlArchive {
            time: time.parse().unwrap(),
            archive_bytes: 2048,
            is_good,
            keep,
            reasons: vec!["within <28> days".to_owned()],
        }
    }

    fn page_of(name: &str, archives: Result<Vec<HtmlArchive>, String>) -> String {
        let now = "2026-11-24T12:00:00+01:00".parse().unwrap();
        let mut last = example_run("2026-11-24T03:15:00+01:00", StackStatus::Failed);
        last.stacks[0]
            .warnings
            .push("\"><script>alert(1)</script>".to_owned());
        let history: History = serde_json::from_value(serde_json::json!({
            "formatVersion": 1, "lastGood": {},
            "runs": (1..=3).map(|day| serde_json::json!({
                "started": format!("2026-11-0{day}T03:00:00Z"),
                "stacks": [{"stack": name, "status": if day == 2 { "failed" } else { "ok" },
                    "downtimeMs": day * 1000, "archiveBytes": (day != 2).then_some(day * 1024),
                    "downBytes": null, "failure": null}],
            })).collect::<Vec<_>>(),
        }))
        .unwrap();
        let stacks = vec![HtmlStack {
            name,
            drilled: None,
            archives,
        }];
        html_page(&HtmlReport {
            host: "nas",
            now: &now,
            last: Some(&last),
            history: &history,
            stacks,
        })
    }

    /// Checks that all elements are closed in their order, and loads nothing.
    fn assert_sound(page: &str) {
        let mut open: Vec<String> = Vec::new();
        let body = page.split_once("</style>").unwrap().1;
        for tag in body
            .split('<')
            .skip(1)
            .map(|rest| rest.split_once('>').unwrap().0)
        {
            let name = tag
                .trim_start_matches('/')
                .split_whitespace()
                .next()
                .unwrap();
            match tag.starts_with('/') {
                true => {
                    let opened = open.pop();
                    // What was opened before the style is not looked at.
                    let outer = ["head", "html"].contains(&name);
                    assert!(
                        outer || opened.as_deref() == Some(name),
                        "{name}: {opened:?}"
                    );
                }
                false => open.push(name.to_owned()),
            }
        }
        for loading in ["<script", " src=", "href=", "url(", "@import", "onload="] {
            assert!(!page.contains(loading), "{loading}");
        }
    }

    #[test]
    fn a_page_shows_runs_archives_and_what_retention_does() {
        let archives = vec![
            archive("2026-05-01T03:00:00+01:00", true, true),
            archive("2026-11-22T03:00:00+01:00", false, true),
            archive("2026-11-23T03:00:00+01:00", true, true),
            archive("2026-11-24T03:00:00+01:00", true, false),
        ];
        let page = page_of("web", Ok(archives));
        assert_sound(&page);
        for part in [
            "4 archives, 8.0 KiB; the next pruning removes 1.",
            "1 archive from before 2026-07-13.",
            "<i class=\"goes\" title=\"2026-11-22: 03:00 2.0 KiB (within &lt;28&gt; days)\"></i>",
            "<i class=\"kept\" title=\"2026-11-23:",
            "<i class=\"broken\" title=\"2026-11-24:",
            "<title>2026-11-03 03:00: 3.0 KiB</title>",
            "<title>2026-11-02 03:00: none</title>",
            "<title>2026-11-02 03:00: 2.0 s</title>",
            "<td class=\"good\">ok</td>",
        ] {
            assert!(page.contains(part), "no {part} in {page}");
        }
        assert_eq!(
            page.matches("class=\"fault\"").count(),
            2,
            "of a run that failed"
        );
        // The last column of the calendar ends with today.
        assert_eq!(page.matches("title=\"2026-11-25").count(), 0);
    }

    #[test]
    fn what_others_have_named_is_text() {
        let page = page_of("<b>&\"'", Err("<i>\u{202e}x".to_owned()));
        assert_sound(&page);
        assert!(!page.contains("<script>"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
        assert!(
            page.contains("<h2>&lt;b&gt;&amp;&quot;&#39;</h2>"),
            "{page}"
        );
        assert!(page.contains("&lt;i&gt;\\u{202e}x"), "{page}");
    }
}
