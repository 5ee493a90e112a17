//! What can be done with a repository, whichever program works on it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::program::RepositoryProgram;
use super::{borg, restic};
use crate::config::{OffsiteRepository, RepositoryKind, Retention};
use crate::store::StoredArchive;
use crate::sys::signals::Signals;

/// A repository that may be worked on until a deadline.
pub struct Repository<'a>(RepositoryProgram<'a>);

impl<'a> Repository<'a> {
    /// Reads the secrets. Nothing may take longer than `limit`, all in all.
    ///
    /// # Errors
    /// When a secret cannot be read.
    pub fn new(
        config: &'a OffsiteRepository,
        state_dir: &Path,
        limit: Duration,
        signals: &'a Signals,
    ) -> Result<Repository<'a>> {
        RepositoryProgram::new(config, state_dir, limit, signals).map(Repository)
    }

    /// Whether no time is left.
    pub fn is_late(&self) -> bool {
        self.0.is_late()
    }

    /// Opens the repository, and removes the locks that killed programs left.
    ///
    /// # Errors
    /// When the program fails.
    pub fn unlock(&self) -> Result<()> {
        match self.0.config.kind {
            // Borg takes over the lock of a process of this machine that has ended.
            RepositoryKind::Borg => Ok(()),
            RepositoryKind::Restic => restic::unlock(&self.0),
        }
    }

    /// Opens the repository, and changes nothing.
    ///
    /// # Errors
    /// When it cannot be reached or opened.
    pub fn probe(&self) -> Result<()> {
        match self.0.config.kind {
            RepositoryKind::Borg => borg::probe(&self.0),
            RepositoryKind::Restic => restic::probe(&self.0),
        }
    }

    /// Returns the parameters of the chunker for an archive, which are `known` if they were
    /// chosen before. `None` where there is no choice.
    pub fn chunker(&self, archive: &StoredArchive, known: Option<String>) -> Option<String> {
        match self.0.config.kind {
            RepositoryKind::Borg => {
                known.or_else(|| Some(borg::choose_chunker(archive).to_owned()))
            }
            RepositoryKind::Restic => None,
        }
    }

    /// Stores an archive. `is_retry` says that an earlier try did not end well: what it may
    /// have left is replaced.
    ///
    /// # Errors
    /// When it is not certain that all of the archive is in the repository.
    pub fn store(
        &self,
        archive: &StoredArchive,
        chunker: Option<&str>,
        is_retry: bool,
    ) -> Result<()> {
        match self.0.config.kind {
            RepositoryKind::Borg => borg::store(&self.0, archive, chunker, is_retry),
            RepositoryKind::Restic => restic::store(&self.0, archive, is_retry),
        }
    }

    /// Removes old archives of a stack from the repository.
    ///
    /// # Errors
    /// When the program fails.
    pub fn prune(&self, stack: &str, policy: &Retention) -> Result<()> {
        let rules = keep_options(&policy.effective());
        match self.0.config.kind {
            RepositoryKind::Borg => borg::prune(&self.0, stack, rules),
            RepositoryKind::Restic => restic::prune(&self.0, stack, rules),
        }
    }

    /// Gives back the room of what was removed.
    ///
    /// # Errors
    /// When the program fails.
    pub fn compact(&self) -> Result<()> {
        match self.0.config.kind {
            RepositoryKind::Borg => borg::compact(&self.0),
            RepositoryKind::Restic => restic::compact(&self.0),
        }
    }

    /// Checks the repository.
    ///
    /// # Errors
    /// When it is damaged, or the program fails.
    pub fn check(&self) -> Result<()> {
        match self.0.config.kind {
            RepositoryKind::Borg => borg::check(&self.0),
            RepositoryKind::Restic => restic::check(&self.0),
        }
    }
}

/// Returns the options for rules of retention. Borg and restic have the same.
fn keep_options(policy: &Retention) -> Vec<String> {
    let rules = [
        ("--keep-within", policy.keep_days, "d"),
        ("--keep-last", policy.keep_last, ""),
        ("--keep-daily", policy.keep_daily, ""),
        ("--keep-weekly", policy.keep_weekly, ""),
        ("--keep-monthly", policy.keep_monthly, ""),
        ("--keep-yearly", policy.keep_yearly, ""),
    ];
    let set = rules.into_iter().filter_map(|(option, count, unit)| {
        let count = count.filter(|count| *count > 0)?;
        Some(format!("{option}={count}{unit}"))
    });
    set.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_retention_are_options_of_both_programs() {
        let policy = Retention {
            keep_days: Some(28),
            keep_daily: Some(0),
            keep_weekly: Some(4),
            ..Retention::default()
        };
        let expected = ["--keep-within=28d", "--keep-weekly=4"];
        assert_eq!(keep_options(&policy), expected);
        // No rule at all means the default.
        let default = keep_options(&Retention::default().effective());
        assert_eq!(default, ["--keep-within=28d"]);
    }
}
