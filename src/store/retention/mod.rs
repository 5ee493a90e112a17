//! Decides which archives of one stack are kept, and why. Pure: the archives,
//! the policy and the time are given.
//!
//! An archive is kept if at least one rule keeps it. The rules are restic's:
//! `keepLast` counts archives; `keepDaily`, `keepWeekly` and so on count the
//! days, weeks... that have an archive, so a missed day costs no archive. Days
//! and weeks are those of the local clock, from the archive's name. Age and order
//! are those of the instants: a day has 24 hours, and where clocks go back, the
//! archive that was made last is the newest.

mod jump;

use std::cmp::Reverse;
use std::collections::BTreeSet;

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};

use crate::config::Retention;
use crate::store::ArchiveName;

pub use jump::{TimeJump, time_jump};

/// An archive to decide on.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    pub name: &'a ArchiveName,
    /// When the backup began.
    pub time: Timestamp,
    /// Whether the archive is complete and not damaged, and of this stack. Only
    /// `keepDays` keeps others.
    pub is_good: bool,
    /// Whether the archive is of another stack, by its manifest.
    pub is_foreign: bool,
}

impl Candidate<'_> {
    /// Whether the archive counts for the rules.
    fn counts(&self, now: Timestamp) -> bool {
        self.is_good && self.time <= now
    }
}

/// Whether an archive is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub keep: bool,
    /// Every rule that keeps the archive, or why none does. Never empty.
    pub reasons: Vec<String>,
}

/// Returns a decision for each archive, in the order given. All archives must be
/// in the directory of the same stack.
///
/// In addition to the rules of the policy,
/// - the newest good archive is kept,
/// - an archive dated in the future is kept and counts for no rule, because a
///   clock that was wrong once must not push out good archives,
/// - an archive of another stack is kept and counts for no rule, because the
///   policy is not that stack's,
/// - nothing is removed while no archive is good, because an incomplete archive
///   is better than none.
pub fn decide(archives: &[Candidate], policy: &Retention, now: Timestamp) -> Vec<Decision> {
    let policy = policy.effective();
    let mut reasons = vec![Vec::new(); archives.len()];
    for (archive, reasons) in archives.iter().zip(&mut reasons) {
        if archive.is_foreign {
            reasons.push("of another stack".to_owned());
        } else if archive.time > now {
            reasons.push("dated in the future".to_owned());
        } else if let Some(days) = policy.keep_days
            && is_within(archive.time, days, now)
        {
            reasons.push(format!("within {}", days_text(days)));
        }
    }
    keep_by_count(archives, &policy, now, &mut reasons);
    if !archives.iter().any(|archive| archive.counts(now)) {
        for reasons in &mut reasons {
            reasons.push("no good archive".to_owned());
        }
    }
    archives
        .iter()
        .zip(reasons)
        .map(|(archive, reasons)| decision(archive, reasons, &policy))
        .collect()
}

/// Adds the reasons of the rules that count good archives.
fn keep_by_count(
    archives: &[Candidate],
    policy: &Retention,
    now: Timestamp,
    reasons: &mut [Vec<String>],
) {
    let mut good: Vec<usize> = (0..archives.len())
        .filter(|&index| archives[index].counts(now))
        .collect();
    good.sort_by_key(|&index| Reverse((archives[index].time, archives[index].name)));

    let last = policy.keep_last.unwrap_or(0);
    for &index in good.iter().take(last as usize) {
        reasons[index].push(format!("last {last}"));
    }
    for (label, count, period) in periods(policy) {
        let mut seen = BTreeSet::new();
        for &index in &good {
            if seen.len() == count as usize {
                break;
            }
            let period = period(archives[index].name.time);
            if seen.insert(period.clone()) {
                reasons[index].push(format!("{label} {period}"));
            }
        }
    }
    if let Some(&newest) = good.first() {
        reasons[newest].push("newest good archive".to_owned());
    }
}

type Period = fn(DateTime) -> String;

/// Returns the rules that keep one archive for each period: the rule's label,
/// the number of periods, and a function that names the period of a time.
fn periods(policy: &Retention) -> [(&'static str, u32, Period); 4] {
    [
        ("daily", policy.keep_daily.unwrap_or(0), |time| {
            time.date().to_string()
        }),
        ("weekly", policy.keep_weekly.unwrap_or(0), |time| {
            let week = time.date().iso_week_date();
            format!("{:04}-W{:02}", week.year(), week.week())
        }),
        ("monthly", policy.keep_monthly.unwrap_or(0), |time| {
            format!("{:04}-{:02}", time.year(), time.month())
        }),
        ("yearly", policy.keep_yearly.unwrap_or(0), |time| {
            format!("{:04}", time.year())
        }),
    ]
}

fn decision(archive: &Candidate, reasons: Vec<String>, policy: &Retention) -> Decision {
    let keep = !reasons.is_empty();
    let mut all = Vec::new();
    if !archive.is_good && !archive.is_foreign {
        all.push("incomplete or damaged".to_owned());
    }
    if keep {
        all.extend(reasons);
    } else {
        all.push(removal_reason(policy));
    }
    Decision { keep, reasons: all }
}

fn removal_reason(policy: &Retention) -> String {
    let only_days = Retention {
        keep_days: policy.keep_days,
        ..Retention::default()
    };
    match policy.keep_days {
        None | Some(0) => "no rule keeps it".to_owned(),
        Some(days) if *policy == only_days => format!("older than {}", days_text(days)),
        Some(days) => format!("older than {}, no other rule keeps it", days_text(days)),
    }
}

/// 0 days keep nothing, not even an archive of this second.
fn is_within(time: Timestamp, days: u32, now: Timestamp) -> bool {
    days > 0 && now.duration_since(time) <= SignedDuration::from_hours(24 * i64::from(days))
}

fn days_text(days: u32) -> String {
    match days {
        1 => "1 day".to_owned(),
        _ => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests;
