//! The policy for old archives.

use serde::{Deserialize, Serialize};

/// `keepDays` of a policy that sets no rule at all.
pub const DEFAULT_KEEP_DAYS: u32 = 28;

/// Rules on how long archives are kept. An archive stays if at least one rule
/// keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retention {
    /// Default: [`DEFAULT_KEEP_DAYS`], if no other rule is set.
    pub keep_days: Option<u32>,
    pub keep_last: Option<u32>,
    pub keep_daily: Option<u32>,
    pub keep_weekly: Option<u32>,
    pub keep_monthly: Option<u32>,
    pub keep_yearly: Option<u32>,
}

impl Retention {
    /// Returns the policy with its default filled in.
    pub fn effective(&self) -> Retention {
        if *self == Retention::default() {
            return Retention {
                keep_days: Some(DEFAULT_KEEP_DAYS),
                ..Retention::default()
            };
        }
        self.clone()
    }

    /// Whether every rule that is set is zero. Then only the newest good archive
    /// would be left.
    pub fn keeps_nothing(&self) -> bool {
        let policy = self.effective();
        let rules = [
            policy.keep_days,
            policy.keep_last,
            policy.keep_daily,
            policy.keep_weekly,
            policy.keep_monthly,
            policy.keep_yearly,
        ];
        rules.iter().all(|rule| rule.unwrap_or(0) == 0)
    }
}
