//! Names of archives. A file belongs to the program only if its name
//! round-trips through [`ArchiveName`].

use std::ffi::OsStr;
use std::fmt;

use jiff::civil::{Date, DateTime, Time};

/// `<stack>_<YYYYMMDD>_<HHMMSS>.tar`, or `..._<HHMMSS>-2.tar` and so on when
/// that name is taken.
///
/// Ordered by time, then suffix: of one stack's names, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveName {
    /// Local civil time at which the backup began, in whole seconds.
    pub time: DateTime,
    /// 2 or more; `None` for the first archive of that second.
    pub suffix: Option<u32>,
    pub stack: String,
}

impl ArchiveName {
    /// The name without a suffix; fractions of a second are dropped.
    pub fn new(stack: &str, time: DateTime) -> ArchiveName {
        let whole = Time::constant(time.hour(), time.minute(), time.second(), 0);
        ArchiveName {
            time: DateTime::from_parts(time.date(), whole),
            suffix: None,
            stack: stack.to_owned(),
        }
    }

    /// The archive name of `stack` that is written exactly `file_name`, if it
    /// is one and names a real date and time.
    pub fn parse(stack: &str, file_name: &OsStr) -> Option<ArchiveName> {
        let text = file_name.to_str()?;
        let rest = text.strip_prefix(stack)?.strip_prefix('_')?;
        let rest = rest.strip_suffix(".tar")?;
        let (stamp, suffix) = match rest.split_once('-') {
            Some((stamp, suffix)) => (stamp, Some(suffix.parse().ok()?)),
            None => (rest, None),
        };
        let name = ArchiveName {
            time: parse_stamp(stamp)?,
            suffix,
            stack: stack.to_owned(),
        };
        let valid = suffix.is_none_or(|suffix| suffix >= 2) && name.to_string() == text;
        valid.then_some(name)
    }

    /// The name to try when this one is taken.
    pub(super) fn next(mut self) -> ArchiveName {
        self.suffix = Some(self.suffix.unwrap_or(1).saturating_add(1));
        self
    }
}

impl fmt::Display for ArchiveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.time;
        write!(f, "{}_", self.stack)?;
        write!(f, "{:04}{:02}{:02}_", t.year(), t.month(), t.day())?;
        write!(f, "{:02}{:02}{:02}", t.hour(), t.minute(), t.second())?;
        if let Some(suffix) = self.suffix {
            write!(f, "-{suffix}")?;
        }
        f.write_str(".tar")
    }
}

/// Reads `YYYYMMDD_HHMMSS`.
fn parse_stamp(stamp: &str) -> Option<DateTime> {
    let (date, time) = stamp.split_once('_')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if date.len() != 8 || time.len() != 6 || !digits(date) || !digits(time) {
        return None;
    }
    let part = |text: &str| text.parse::<i8>().ok();
    let year = date[..4].parse().ok()?;
    let date = Date::new(year, part(&date[4..6])?, part(&date[6..])?).ok()?;
    let time = Time::new(part(&time[..2])?, part(&time[2..4])?, part(&time[4..])?, 0).ok()?;
    Some(DateTime::from_parts(date, time))
}
