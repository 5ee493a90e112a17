//! Instants with the offset of the local clock, in files that every machine can
//! read.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use anyhow::{Context, Error, Result};
use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ZonedDateTime};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An instant, and the offset from UTC that the local clock had then.
///
/// It is written as RFC 3339 has it: `2026-11-23T03:00:00+01:00`. The name of
/// the time zone is a separate field of the file, because a time that names a
/// zone can only be read where the time-zone database has that zone. A rescue
/// system may have no database at all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OffsetTime(ZonedDateTime);

impl OffsetTime {
    pub fn now() -> OffsetTime {
        OffsetTime::local(Timestamp::now())
    }

    /// Returns the instant with the offset that this machine's zone has then.
    pub fn local(instant: Timestamp) -> OffsetTime {
        OffsetTime::new(instant, TimeZone::system().to_offset(instant))
    }

    pub fn new(instant: Timestamp, offset: Offset) -> OffsetTime {
        OffsetTime(instant.to_zoned_datetime(TimeZone::fixed(offset)))
    }

    /// Interprets what a clock showed at the given offset. `None` if that is
    /// beyond the supported times, thousands of years from now.
    pub fn from_civil(civil: DateTime, offset: Offset) -> Option<OffsetTime> {
        let instant = offset.to_timestamp(civil).ok()?;
        Some(OffsetTime::new(instant, offset))
    }

    /// Interprets what this machine's clock shows. Of the two hours that have the
    /// same name when clocks go back, it is the first. `None` as above.
    pub fn from_local_civil(civil: DateTime) -> Option<OffsetTime> {
        let time = civil.to_zoned_datetime(TimeZone::system()).ok()?;
        Some(OffsetTime::new(time.timestamp(), time.offset()))
    }
}

/// Returns the name of this machine's time zone, such as `Europe/Berlin`. `None`
/// if it has none, or it is not known.
pub fn zone_name() -> Option<String> {
    TimeZone::system().iana_name().map(str::to_owned)
}

impl Deref for OffsetTime {
    type Target = ZonedDateTime;

    fn deref(&self) -> &ZonedDateTime {
        &self.0
    }
}

impl fmt::Display for OffsetTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.timestamp().display_with_offset(self.offset()).fmt(f)
    }
}

impl FromStr for OffsetTime {
    type Err = Error;

    /// Reads RFC 3339. A name of a zone in brackets, which earlier versions
    /// added, is ignored: the offset says all that is needed.
    fn from_str(text: &str) -> Result<OffsetTime> {
        let context = || format!("{text:?} is not a time with an offset from UTC");
        let time = text.split_once('[').map_or(text, |(time, _)| time);
        let pieces = DateTimeParser::new()
            .parse_pieces(time)
            .with_context(context)?;
        let offset = pieces.to_numeric_offset().with_context(context)?;
        let civil = pieces.date().to_datetime(pieces.time().unwrap_or_default());
        OffsetTime::from_civil(civil, offset).with_context(context)
    }
}

impl Serialize for OffsetTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OffsetTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OffsetTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|error| de::Error::custom(format!("{error:#}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_rfc_3339_and_read_back() {
        for text in [
            "2026-11-23T03:00:00+01:00",
            "2026-11-23T03:00:00.123456789-09:30",
            "1970-01-01T00:00:00+00:00",
        ] {
            let time: OffsetTime = text.parse().unwrap();
            assert_eq!(time.to_string(), text);
            let json = serde_json::to_string(&time).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<OffsetTime>(&json).unwrap(), time);
        }
        let utc: OffsetTime = "2026-11-23T03:00:00Z".parse().unwrap();
        assert_eq!(utc.to_string(), "2026-11-23T03:00:00+00:00");
    }

    #[test]
    fn a_time_of_an_earlier_version_is_read_by_its_offset_even_if_its_zone_is_unknown() {
        for zone in ["Europe/Berlin", "No/Such_Zone", "+01:00", "!u-ca=iso8601"] {
            let text = format!("2026-10-25T02:10:00+01:00[{zone}]");
            let time: OffsetTime = text.parse().unwrap();
            assert_eq!(time.to_string(), "2026-10-25T02:10:00+01:00", "{zone}");
        }
        // The control: such a time cannot be read by the zone's name.
        let by_name: Result<ZonedDateTime, _> = "2026-10-25T02:10:00+01:00[No/Such_Zone]".parse();
        by_name.unwrap_err();
    }

    #[test]
    fn a_time_without_an_offset_is_refused() {
        for text in ["2026-11-23T03:00:00", "2026-11-23", "", "soon", "[UTC]"] {
            assert!(text.parse::<OffsetTime>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_ordered_by_their_instants() {
        let time = |text: &str| text.parse::<OffsetTime>().unwrap();
        let summer = time("2026-10-25T02:50:00+02:00");
        let winter = time("2026-10-25T02:10:00+01:00");
        assert!(summer < winter);
        assert!(summer.datetime() > winter.datetime());
    }
}
