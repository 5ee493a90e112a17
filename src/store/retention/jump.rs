//! Notices that time has jumped, before archives are removed for their age. Pure.
//!
//! Age is a safe reason to remove an archive only while backups are made and the
//! clock is right. If the clock is years ahead once, or a machine is switched on
//! after half a year, every archive is old at once, and `keepDays` would leave
//! only the newest.

use jiff::{SignedDuration, Timestamp};

use super::{Candidate, Decision};
use crate::config::Retention;
use crate::sys::time::OffsetTime;

/// A shorter time without a backup is no jump: holidays, or a repair.
const JUMP_MIN: SignedDuration = SignedDuration::from_hours(60 * 24);
/// A jump is longer than this many times the usual time between two backups.
const USUAL_FACTOR: i32 = 3;

/// A time without a backup so long that the clock may be wrong, and after which
/// `keepDays` would remove at least half of the good archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeJump {
    from: Timestamp,
    to: Timestamp,
    removed_count: usize,
    good_count: usize,
}

impl TimeJump {
    /// Returns why nothing is removed, and what to do.
    pub fn message(&self, stack: &str) -> String {
        let day = |time| OffsetTime::local(time).strftime("%F").to_string();
        format!(
            "nothing was removed: {} of {} good archives would go at once, because there is no \
             backup between {} and {}; check the clock (`date`), and if it is right, run \
             `docker-stack-backup prune --yes {stack}`",
            self.removed_count,
            self.good_count,
            day(self.from),
            day(self.to)
        )
    }
}

/// Returns the jump because of which the decisions must be confirmed.
///
/// It is the latest time without a backup, up to now, that is longer than 60
/// days and than three times the usual time between the backups before it. It
/// matters if at least half of the good archives would be removed and are from
/// before it. Rules that count archives remove one for each new one, however
/// much time has passed, so without `keepDays` there is nothing to confirm.
pub fn time_jump(
    archives: &[Candidate],
    decisions: &[Decision],
    policy: &Retention,
    now: Timestamp,
) -> Option<TimeJump> {
    policy.effective().keep_days.filter(|days| *days > 0)?;
    let good = || {
        let decided = archives.iter().zip(decisions);
        decided.filter(|(archive, _)| archive.counts(now))
    };
    let mut times: Vec<Timestamp> = good().map(|(archive, _)| archive.time).collect();
    times.push(now);
    times.sort_unstable();
    let pauses: Vec<SignedDuration> = times
        .windows(2)
        .map(|pair| pair[1].duration_since(pair[0]))
        .collect();
    let latest = pauses.iter().rposition(|pause| *pause > JUMP_MIN)?;
    if pauses[latest] <= median(&pauses[..latest]) * USUAL_FACTOR {
        return None;
    }
    let from = times[latest];
    let removed_count = good()
        .filter(|(archive, decision)| !decision.keep && archive.time <= from)
        .count();
    let good_count = good().count();
    (removed_count > 0 && removed_count * 2 >= good_count).then_some(TimeJump {
        from,
        to: times[latest + 1],
        removed_count,
        good_count,
    })
}

/// Zero if there are no durations.
fn median(durations: &[SignedDuration]) -> SignedDuration {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let middle = sorted.get(sorted.len() / 2);
    middle.copied().unwrap_or(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use jiff::civil::{Date, date};
    use jiff::tz::Offset;

    use super::*;
    use crate::store::ArchiveName;
    use crate::store::retention::decide;

    fn at(day: Date) -> Timestamp {
        Offset::UTC.to_timestamp(day.at(3, 0, 0, 0)).unwrap()
    }

    fn keep(days: Option<u32>, last: Option<u32>) -> Retention {
        Retention {
            keep_days: days,
            keep_last: last,
            ..Retention::default()
        }
    }

    /// A store in which each run prunes, unless time jumped.
    #[derive(Default)]
    struct Runs {
        days: Vec<Date>,
        held: Vec<Date>,
    }

    impl Runs {
        fn run(&mut self, policy: &Retention, day: Date) {
            self.days.push(day);
            let names: Vec<ArchiveName> = self
                .days
                .iter()
                .map(|day| ArchiveName::new("a", day.at(3, 0, 0, 0)))
                .collect();
            let archives: Vec<Candidate> = names
                .iter()
                .zip(&self.days)
                .map(|(name, day)| Candidate {
                    name,
                    time: at(*day),
                    is_good: true,
                    is_foreign: false,
                })
                .collect();
            let now = at(day);
            let decisions = decide(&archives, policy, now);
            if time_jump(&archives, &decisions, policy, now).is_some() {
                self.held.push(day);
                return;
            }
            let mut decisions = decisions.iter();
            self.days.retain(|_| decisions.next().unwrap().keep);
        }

        fn nightly(&mut self, policy: &Retention, first: Date, count: usize) {
            for day in first.series(jiff::Span::new().days(1)).take(count) {
                self.run(policy, day);
            }
        }
    }

    const START: Date = date(2026, 1, 1);
    const NEVER: [Date; 0] = [];

    #[test]
    fn nothing_is_removed_after_the_clock_went_years_ahead() {
        for days in [3, 28, 400] {
            let policy = keep(Some(days), None);
            let mut runs = Runs::default();
            runs.nightly(&policy, START, 500);
            let before = runs.days.len();
            let wrong = [date(2032, 7, 1), date(2032, 7, 2)];
            for day in wrong {
                runs.run(&policy, day);
            }
            assert_eq!(runs.held, wrong, "{days}");
            assert_eq!(runs.days.len(), before + 2);
        }
        // The only archive is not removed, either.
        let mut runs = Runs::default();
        runs.run(&keep(Some(3), None), START);
        runs.run(&keep(Some(3), None), date(2032, 7, 1));
        assert_eq!(runs.days.len(), 2);
    }

    #[test]
    fn ordinary_use_is_never_asked() {
        // Nightly, with a month off, with a policy that was made shorter.
        for (days, last) in [(Some(3), None), (None, None), (Some(28), Some(5))] {
            let policy = keep(days, last);
            let mut runs = Runs::default();
            runs.nightly(&policy, START, 100);
            runs.nightly(&policy, date(2026, 5, 12), 10);
            runs.nightly(&keep(Some(1), None), date(2026, 5, 22), 3);
            assert_eq!(runs.held, NEVER, "{policy:?}");
            assert_eq!(runs.days.len(), 2, "{policy:?}");
        }
        // By number only, after any time.
        for last in [1, 2, 5] {
            let policy = keep(None, Some(last));
            let mut runs = Runs::default();
            runs.nightly(&policy, START, 10);
            runs.run(&policy, date(2032, 7, 1));
            assert_eq!(runs.held, NEVER);
            assert_eq!(runs.days.len(), last as usize);
        }
    }

    #[test]
    fn rare_backups_are_not_asked_about_if_the_policy_suits_them() {
        let quarterly = |policy: &Retention| {
            let mut runs = Runs::default();
            for year in 2026..2031 {
                for month in [1, 4, 7, 10] {
                    runs.run(policy, date(year, month, 1));
                }
            }
            runs
        };
        for policy in [
            keep(Some(400), None),
            keep(None, Some(3)),
            keep(Some(28), Some(3)),
        ] {
            assert_eq!(quarterly(&policy).held, NEVER, "{policy:?}");
        }
        // Of two archives, `keepDays` alone would remove the older one each time.
        let runs = quarterly(&keep(Some(28), None));
        assert_eq!(runs.held.len(), 10);
        assert!(runs.days.len() <= 2);
    }

    #[test]
    fn after_a_long_pause_pruning_goes_on_once_most_archives_are_new() {
        let policy = keep(Some(28), None);
        let mut runs = Runs::default();
        runs.nightly(&policy, START, 60);
        let before = runs.days.len();
        runs.nightly(&policy, date(2026, 9, 1), before + 5);
        assert_eq!(runs.held.len(), before);
        assert!(runs.days[0] >= date(2026, 9, 1), "{:?}", runs.days[0]);
    }

    #[test]
    fn the_message_names_the_command() {
        let jump = TimeJump {
            from: at(START),
            to: at(date(2032, 7, 1)),
            removed_count: 28,
            good_count: 29,
        };
        let message = jump.message("web");
        for part in ["28 of 29", "2026-01-01", "2032-07-01", "prune --yes web"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
