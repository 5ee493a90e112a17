//! The results of the last verify and the last drill of an archive. They are
//! kept in a sidecar of the archive.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::archive_name::ArchiveName;
use super::directory::Store;
use super::sidecar::Sidecar;
use crate::sys::state_file::{self, State};
use crate::sys::time::{OffsetTime, zone_name};

/// The last check of each kind; `None` where there was none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checks {
    /// Absent in the files of older programs.
    #[serde(default = "format_version")]
    format_version: u32,
    pub verified: Option<Check>,
    pub drilled: Option<Check>,
}

impl State for Checks {
    const NAME: &'static str = "the checks";
    const FORMAT_VERSION: u32 = 1;
}

fn format_version() -> u32 {
    Checks::FORMAT_VERSION
}

impl Default for Checks {
    fn default() -> Checks {
        Checks {
            format_version: Checks::FORMAT_VERSION,
            verified: None,
            drilled: None,
        }
    }
}

/// One check of one archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    pub time: OffsetTime,
    /// Name of the time zone of the machine, if it is known.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// Empty if the check found nothing wrong.
    pub problems: Vec<String>,
    /// Whether only a part was read back from the disk: what was hashed on its way into the
    /// archive was not.
    #[serde(default, skip_serializing_if = "is_false")]
    pub partial: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Check {
    /// Returns a check that has just ended.
    pub fn now(problems: &[String]) -> Check {
        Check {
            time: OffsetTime::now(),
            time_zone: zone_name(),
            problems: problems.to_vec(),
            partial: false,
        }
    }
}

impl Checks {
    /// Returns the checks of a new archive that was read back when it was made.
    pub fn of_new(is_partial: bool) -> Checks {
        let check = Check {
            partial: is_partial,
            ..Check::now(&[])
        };
        Checks {
            verified: Some(check),
            ..Checks::default()
        }
    }

    /// Reads the checks of an archive.
    ///
    /// # Errors
    /// When the sidecar cannot be read or parsed.
    pub fn of(store: &Store, archive: &ArchiveName) -> Result<Checks> {
        match store.read_sidecar(archive, Sidecar::Checks)? {
            Some(json) => state_file::parse(&json)
                .with_context(|| format!("cannot parse the checks of the archive {archive}")),
            None => Ok(Checks::default()),
        }
    }

    /// Replaces the checks of an archive. The lock must be held.
    ///
    /// # Errors
    /// When the sidecar cannot be written.
    pub fn write(&self, store: &Store, archive: &ArchiveName) -> Result<()> {
        let json = state_file::render(self)?;
        store.write_sidecar(archive, Sidecar::Checks, |out| out.write_all(&json))
    }

    /// Returns whether the last verify found damage.
    pub fn is_damaged(&self) -> bool {
        self.verified
            .as_ref()
            .is_some_and(|check| !check.problems.is_empty())
    }
}
