//! What is known of an archive beyond what it says itself: when it was
//! verified and drilled, and what came of it. Lies beside the archive.

use anyhow::{Context, Result};
use jiff::ZonedDateTime;
use serde::{Deserialize, Serialize};

use crate::store::{ArchiveName, Beside, Store};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checks {
    pub verified: Option<Check>,
    pub drilled: Option<Check>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    pub time: ZonedDateTime,
    /// Empty when all is well.
    pub problems: Vec<String>,
}

impl Check {
    pub fn now(problems: &[String]) -> Check {
        Check {
            time: ZonedDateTime::now(),
            problems: problems.to_vec(),
        }
    }
}

impl Checks {
    pub fn of(store: &Store, archive: &ArchiveName) -> Result<Checks> {
        match store.read_beside(archive, Beside::Checks)? {
            Some(json) => {
                serde_json::from_slice(&json).context("understand the checks of an archive")
            }
            None => Ok(Checks::default()),
        }
    }

    pub fn write(&self, store: &Store, archive: &ArchiveName) -> Result<()> {
        let json = serde_json::to_vec_pretty(self)?;
        store.write_beside(archive, Beside::Checks, |out| out.write_all(&json))
    }

    pub fn is_damaged(&self) -> bool {
        self.verified
            .as_ref()
            .is_some_and(|check| !check.problems.is_empty())
    }
}
