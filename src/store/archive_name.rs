//! Names of archives. The program treats a file in the store as an archive of
//! its own only if the file's name round-trips through [`ArchiveName`] (I6).

use std::ffi::OsStr;
use std::fmt;

use jiff::civil::{Date, DateTime, Time};

/// `<stack>_<YYYYMMDD>_<HHMMSS>.tar`, or `..._<HHMMSS>-2.tar` and so on if
/// another archive has that name.
///
/// The names of one stack are ordered by time, then by suffix: oldest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveName {
    /// Local civil time at which the backup began, in whole seconds.
    pub time: DateTime,
    /// At least 2; `None` for the first archive of that second.
    pub suffix: Option<u32>,
    pub stack: String,
}

impl ArchiveName {
    /// Returns the name without a suffix. Fractions of a second are dropped.
    pub fn new(stack: &str, time: DateTime) -> ArchiveName {
        let whole = Time::constant(time.hour(), time.minute(), time.second(), 0);
        ArchiveName {
            time: DateTime::from_parts(time.date(), whole),
            suffix: None,
            stack: stack.to_owned(),
        }
    }

    /// Parses a file name. Returns `None` unless it is exactly how this program
    /// writes the name of an archive of `stack`, with a real date and time.
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

    /// Returns the name to try when another archive has this one.
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

/// Parses `YYYYMMDD_HHMMSS`.
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

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    fn parse(stack: &str, name: &str) -> Option<ArchiveName> {
        ArchiveName::parse(stack, OsStr::new(name))
    }

    #[test]
    fn archive_names_round_trip() {
        let name = parse("immich", "immich_20261123_030405.tar").unwrap();
        assert_eq!(name.time, date(2026, 11, 23).at(3, 4, 5, 0));
        assert_eq!(name.suffix, None);
        for (stack, text) in [
            ("immich", "immich_20261123_030405-2.tar"),
            ("immich", "immich_20261123_030405-17.tar"),
            ("my_stack-1.x", "my_stack-1.x_20240229_235959.tar"),
            ("größe", "größe_20261123_000000.tar"),
            // This time does not exist in some time zones.
            ("a", "a_20260329_023000.tar"),
        ] {
            assert_eq!(parse(stack, text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_names_are_not_archive_names() {
        for text in [
            "a_20261123_030405.tar.partial",
            "a_20261123_030405.tar.gz",
            "a_20261123_030405",
            "a_20261123_030405-1.tar",
            "a_20261123_030405-0.tar",
            "a_20261123_030405-02.tar",
            "a_20261123_030405-+2.tar",
            "a_20261123_030405-.tar",
            "a_20261123_030405-2-3.tar",
            "a_20261123_030405-4294967296.tar",
            "a_20261123_030405 .tar",
            "a_20261123-030405.tar",
            "a_20261123_0304.tar",
            "a_2026112_0304050.tar",
            "a_20260230_030405.tar",
            "a_20261323_030405.tar",
            "a_20261123_240000.tar",
            "a_20261123_030460.tar",
            "a_+0261123_030405.tar",
            "a_2026112\u{661}_03040.tar",
            "A_20261123_030405.tar",
            "b_20261123_030405.tar",
            "a_b_20261123_030405.tar",
            "a20261123_030405.tar",
            "_20261123_030405.tar",
            "",
        ] {
            assert_eq!(parse("a", text), None, "{text}");
        }
        assert!(parse("a", "a_20261123_030405.tar").is_some());
        let bytes = OsStr::from_bytes(b"a_20261123_030405\xff.tar");
        assert_eq!(ArchiveName::parse("a", bytes), None);
    }

    #[test]
    fn archive_names_are_ordered_by_time_then_suffix() {
        let sorted = [
            "a_20251231_235959.tar",
            "a_20260101_000000.tar",
            "a_20260101_000000-2.tar",
            "a_20260101_000000-10.tar",
            "a_20260101_000001.tar",
        ];
        let mut names: Vec<ArchiveName> = sorted.iter().map(|n| parse("a", n).unwrap()).collect();
        names.reverse();
        names.sort();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(names, sorted);
    }

    proptest! {
        #[test]
        fn names_that_parse_round_trip(text in "a_[0-9]{8}_[0-9]{6}(-[0-9]{1,3})?\\.tar") {
            if let Some(name) = parse("a", &text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn every_time_has_a_name_that_parses(
            seconds in 0..4_000_000_000_i64,
            nanosecond in 0..1_000_000_000_i64,
            suffix in prop::option::of(2..5000_u32),
        ) {
            let time = DateTime::constant(1970, 1, 1, 0, 0, 0, 0)
                + jiff::SignedDuration::new(seconds, nanosecond as i32);
            let mut name = ArchiveName::new("a", time);
            name.suffix = suffix;
            prop_assert_eq!(parse("a", &name.to_string()), Some(name));
        }
    }
}
