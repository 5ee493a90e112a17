//! When something about a stack's archives is worth a warning although nothing failed.

use std::fmt;

use anyhow::{Result, bail, ensure};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// `sizeDrop` of a stack that does not set it.
pub const DEFAULT_SIZE_DROP: u32 = 50;

const HOURS_OF_UNITS: [(char, u32); 3] = [('h', 1), ('d', 24), ('w', 7 * 24)];

/// How old the newest good archive of a stack may become: `36h`, `2d`, `1w`. A day has
/// 24 hours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MaxAge {
    text: String,
    hours: u32,
}

impl MaxAge {
    pub fn duration(&self) -> SignedDuration {
        SignedDuration::from_hours(self.hours.into())
    }
}

impl fmt::Display for MaxAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<MaxAge> for String {
    fn from(age: MaxAge) -> String {
        age.text
    }
}

impl TryFrom<String> for MaxAge {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<MaxAge> {
        let parse = || {
            let mut chars = text.chars();
            let unit = chars.next_back()?;
            let (_, hours) = HOURS_OF_UNITS.iter().find(|(name, _)| *name == unit)?;
            let number = chars.as_str();
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            number
                .parse::<u32>()
                .ok()
                .filter(|_| is_number)?
                .checked_mul(*hours)
        };
        let Some(hours) = parse() else {
            bail!(
                "{text:?} is not an age: give a number of hours, days or weeks: `36h`, `2d`, `1w`"
            );
        };
        ensure!(hours > 0, "{text:?}: every archive is older than that");
        Ok(MaxAge { text, hours })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_a_number_of_hours_days_or_weeks() {
        let hours = |text: &str| MaxAge::try_from(text.to_owned()).map(|age| age.hours).ok();
        assert_eq!(hours("36h"), Some(36));
        assert_eq!(hours("2d"), Some(48));
        assert_eq!(hours("1w"), Some(168));
        for wrong in [
            "",
            "h",
            "2",
            "2 d",
            "+2d",
            "-2d",
            "2m",
            "0d",
            "4294967295w",
            "2é",
        ] {
            assert_eq!(hours(wrong), None, "{wrong}");
        }
    }
}
