//! When a container's health is checked, where the Engine does not do that by itself.

use std::time::Duration;

use jiff::Timestamp;

/// The least time between two health checks.
pub(super) const CHECK_PAUSE: Duration = Duration::from_millis(250);
/// The time between two checks of which each might make the container unhealthy, if its
/// own interval is longer.
const LAST_CHECK_PAUSE: Duration = Duration::from_secs(2);
/// How late a timer may be.
const TIMER_SLACK: Duration = Duration::from_secs(1);

/// How often health is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckPace {
    /// As often as is useful for a container that was healthy before and is about to be
    /// healthy again. It may count as unhealthy for a while, which does not matter.
    Soon,
    /// As often as it says itself: what counts as unhealthy has failed.
    OwnInterval,
}

/// When and how a container's health was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthChecks {
    /// End of the last check.
    pub last: Option<Timestamp>,
    pub interval: Duration,
    /// How many checks in a row have failed.
    pub failures: u32,
    /// How many failures in a row make it unhealthy.
    pub retries: u32,
}

impl HealthChecks {
    /// Whether a check is to be made now, in a container that was started then.
    pub(super) fn is_due(
        &self,
        pace: CheckPace,
        started: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        let (since, pause) = match pace {
            CheckPace::Soon if self.failures.saturating_add(1) < self.retries => {
                (self.last, CHECK_PAUSE)
            }
            CheckPace::Soon => (self.last, LAST_CHECK_PAUSE.min(self.interval)),
            CheckPace::OwnInterval => (self.last.max(started), self.interval + TIMER_SLACK),
        };
        since.is_none_or(|since| now.duration_since(since).unsigned_abs() >= pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_is_due_soon_or_at_the_containers_own_interval() {
        let started: Timestamp = "2026-11-24T03:00:00Z".parse().unwrap();
        let after = |ms: i64| started + jiff::SignedDuration::from_millis(ms);
        let checks = |failures, last| HealthChecks {
            last,
            interval: Duration::from_secs(30),
            failures,
            retries: 3,
        };
        let is_due = |pace, failures, last: Option<i64>, now| {
            checks(failures, last.map(after)).is_due(pace, Some(started), after(now))
        };
        use CheckPace::{OwnInterval, Soon};
        for (pace, failures, last, now, expected) in [
            (Soon, 0, None, 0, true),
            (Soon, 1, Some(1000), 1200, false),
            (Soon, 1, Some(1000), 1250, true),
            // One more failure makes it unhealthy.
            (Soon, 2, Some(1000), 2900, false),
            (Soon, 2, Some(1000), 3000, true),
            (OwnInterval, 0, None, 30_000, false),
            (OwnInterval, 0, None, 31_000, true),
            (OwnInterval, 0, Some(31_000), 61_000, false),
            (OwnInterval, 0, Some(31_000), 62_000, true),
            // The last check was before the last start.
            (OwnInterval, 0, Some(-90_000), 1000, false),
        ] {
            let case = format!("{pace:?} {failures} {last:?} {now}");
            assert_eq!(is_due(pace, failures, last, now), expected, "{case}");
        }
    }
}
