//! What was handed over and what waits, in the state directory. What waits is written
//! before anything is tried, so a process that is killed leaves it to the next one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::store::StoredArchive;
use crate::sys::state_file::{self, State};
use crate::sys::time::OffsetTime;

/// The most archives of a stack that wait for one repository. The oldest is given up for a
/// new one.
const WAITING_MAX: usize = 30;

/// The state of all repositories, by their names in the configuration.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandoverState {
    format_version: u32,
    repositories: BTreeMap<String, RepositoryState>,
}

/// What is known of one repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryState {
    /// Where it is. Another place is another repository, which has nothing yet.
    pub repository: String,
    /// When it was last checked and found good.
    pub checked: Option<OffsetTime>,
    pub stacks: BTreeMap<String, HandedStack>,
}

/// What a repository has of one stack.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandedStack {
    /// When the newest archive was begun that is or was in the queue.
    pub queued_until: Option<OffsetTime>,
    /// The newest archive that was handed over.
    pub last: Option<HandedArchive>,
    /// Borg's parameters for the first archive. With others, everything is stored again.
    pub chunker: Option<String>,
    /// The oldest first.
    pub waiting: Vec<WaitingArchive>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandedArchive {
    pub archive: String,
    /// When it was begun.
    pub time: OffsetTime,
    /// When it had been handed over.
    pub handed_over: OffsetTime,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingArchive {
    /// Its file's name.
    pub archive: String,
    /// How often it was begun to be handed over.
    pub try_count: u32,
    /// Why it was not, the last time.
    pub error: Option<String>,
}

impl State for HandoverState {
    const NAME: &'static str = "the state of the handover";
    const FORMAT_VERSION: u32 = 1;
}

impl Default for HandoverState {
    fn default() -> HandoverState {
        HandoverState {
            format_version: HandoverState::FORMAT_VERSION,
            repositories: BTreeMap::new(),
        }
    }
}

impl HandoverState {
    /// Reads the state; it is empty if there is none.
    ///
    /// # Errors
    /// When the file cannot be read or parsed.
    pub fn read(state_dir: &Path) -> Result<HandoverState> {
        Ok(state_file::read(&path(state_dir))?.unwrap_or_default())
    }

    /// Saves the state. The lock must be held.
    ///
    /// # Errors
    /// When it is not certain that it is on stable storage.
    pub fn write(&self, state_dir: &Path) -> Result<()> {
        state_file::write(&path(state_dir), self)
    }

    /// Returns what is known of a repository; `None` if it was never used, or is another
    /// one now.
    pub fn of(&self, name: &str, repository: &str) -> Option<&RepositoryState> {
        let known = self.repositories.get(name);
        known.filter(|known| known.repository == repository)
    }

    /// Returns the same to be changed. One that is not known is added.
    pub fn of_mut(&mut self, name: &str, repository: &str) -> &mut RepositoryState {
        let known = self.repositories.entry(name.to_owned()).or_default();
        if known.repository != repository {
            *known = RepositoryState {
                repository: repository.to_owned(),
                ..RepositoryState::default()
            };
        }
        known
    }
}

impl HandedStack {
    /// Returns why the newest of the archives that wait was not handed over.
    pub fn error(&self) -> Option<&str> {
        self.waiting
            .iter()
            .rev()
            .find_map(|waiting| waiting.error.as_deref())
    }
}

impl RepositoryState {
    /// Returns how many archives wait.
    pub fn waiting_count(&self) -> u64 {
        let waiting = self.stacks.values().map(|stack| stack.waiting.len() as u64);
        waiting.sum()
    }
}

impl HandedStack {
    /// Adds the good archives that are newer than those that were queued before; of a stack
    /// that was never queued the newest one alone. Returns a warning for each archive that
    /// is given up. `archives` are those in the store, oldest first.
    pub fn queue(&mut self, archives: &[StoredArchive], now: &OffsetTime) -> Vec<String> {
        let mut warnings = self.give_up_lost(archives, now);
        let is_good = |archive: &&StoredArchive| archive.objection(now).is_none();
        let good: Vec<_> = archives.iter().filter(is_good).collect();
        let first = match &self.queued_until {
            Some(until) => good.iter().position(|archive| archive.time > *until),
            None => good.len().checked_sub(1),
        };
        for archive in &good[first.unwrap_or(good.len())..] {
            self.waiting.push(WaitingArchive {
                archive: archive.name.to_string(),
                try_count: 0,
                error: None,
            });
            self.queued_until = Some(archive.time.clone());
        }
        let surplus = self.waiting.len().saturating_sub(WAITING_MAX);
        let given_up = self.waiting.drain(..surplus);
        warnings.extend(given_up.map(|waiting| {
            format!(
                "{} is not handed over any more, because more than {WAITING_MAX} archives wait",
                waiting.archive
            )
        }));
        warnings
    }

    /// Removes what cannot be handed over any more.
    fn give_up_lost(&mut self, archives: &[StoredArchive], now: &OffsetTime) -> Vec<String> {
        let mut warnings = Vec::new();
        self.waiting.retain(|waiting| {
            let name = &waiting.archive;
            let found = archives
                .iter()
                .find(|archive| archive.name.to_string() == *name);
            let reason = match found.map(|archive| archive.objection(now)) {
                None => "was removed from the store before it was handed over".to_owned(),
                Some(Some(objection)) => format!("{objection}, so it is not handed over"),
                Some(None) => return true,
            };
            warnings.push(format!("{name} {reason}"));
            false
        });
        warnings
    }

    /// Notes that a try begins. Returns how many there were before.
    pub fn begin(&mut self, archive: &StoredArchive) -> u32 {
        self.find(archive).map_or(0, |waiting| {
            waiting.try_count += 1;
            waiting.try_count - 1
        })
    }

    /// Notes why a try failed.
    pub fn fail(&mut self, archive: &StoredArchive, error: &str) {
        if let Some(waiting) = self.find(archive) {
            waiting.error = Some(error.to_owned());
        }
    }

    /// Notes that an archive was handed over.
    pub fn succeed(&mut self, archive: &StoredArchive) {
        let name = archive.name.to_string();
        self.waiting.retain(|waiting| waiting.archive != name);
        if self
            .last
            .as_ref()
            .is_none_or(|last| last.time < archive.time)
        {
            self.last = Some(HandedArchive {
                archive: name,
                time: archive.time.clone(),
                handed_over: OffsetTime::now(),
            });
        }
    }

    fn find(&mut self, archive: &StoredArchive) -> Option<&mut WaitingArchive> {
        let name = archive.name.to_string();
        self.waiting
            .iter_mut()
            .find(|waiting| waiting.archive == name)
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_file::path(state_dir, "handover")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::store::ArchiveName;

    /// An archive of the first days of November.
    fn archive(day: usize) -> StoredArchive {
        let name = format!("web_202611{day:02}_030000.tar");
        StoredArchive {
            path: Path::new("/b/web").join(&name),
            name: ArchiveName::parse("web", OsStr::new(&name)).unwrap(),
            time: format!("2026-11-{day:02}T03:00:00Z").parse().unwrap(),
            made_of: None,
            archive_bytes: 1,
            complete: true,
            damaged: false,
        }
    }

    fn archives(days: impl IntoIterator<Item = usize>) -> Vec<StoredArchive> {
        days.into_iter().map(archive).collect()
    }

    fn waiting(stack: &HandedStack) -> Vec<&str> {
        let waiting = stack.waiting.iter();
        waiting.map(|waiting| &waiting.archive[10..12]).collect()
    }

    fn now() -> OffsetTime {
        "2026-11-30T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_newest_good_archive_is_queued_first_and_later_all_new_ones() {
        let mut stack = HandedStack::default();
        let mut stored = archives(1..=3);
        stored[2].damaged = true;
        assert_eq!(stack.queue(&stored, &now()), [""; 0]);
        assert_eq!(waiting(&stack), ["02"]);
        assert_eq!(stack.queue(&stored, &now()), [""; 0]);
        assert_eq!(waiting(&stack), ["02"], "it is queued once");
        stored.extend(archives(4..=5));
        stack.queue(&stored, &now());
        assert_eq!(waiting(&stack), ["02", "04", "05"]);
        stack.succeed(&stored[4]);
        stack.succeed(&stored[1]);
        assert_eq!(
            stack.last.as_ref().unwrap().archive,
            stored[4].name.to_string()
        );
        stack.queue(&stored, &now());
        assert_eq!(waiting(&stack), ["04"], "it does not come back");
        // One that is dated in the future is not good, and keeps none out.
        stored.push(archive(30));
        stack.queue(&stored, &now());
        assert_eq!(waiting(&stack), ["04"]);
    }

    #[test]
    fn what_was_removed_or_is_damaged_is_told_once() {
        let mut stack = HandedStack::default();
        stack.queue(&archives([1]), &now());
        stack.queue(&archives(1..=3), &now());
        let mut left = archives(2..=3);
        left[0].damaged = true;
        let warnings = stack.queue(&left, &now());
        assert_eq!(
            warnings,
            [
                "web_20261101_030000.tar was removed from the store before it was handed over",
                "web_20261102_030000.tar is damaged, so it is not handed over",
            ]
        );
        assert_eq!(waiting(&stack), ["03"]);
        assert_eq!(stack.queue(&left, &now()), [""; 0]);
    }

    #[test]
    fn the_queue_is_bounded_and_the_newest_stay() {
        let mut stack = HandedStack::default();
        stack.queue(&archives([1]), &now());
        let mut stored = archives(1..=29);
        for (i, archive) in stored.iter_mut().enumerate().skip(26) {
            // The last ones are copies of other days, so that there are more than fit.
            archive.time = format!("2026-11-29T0{}:00:00Z", i - 24).parse().unwrap();
        }
        for hour in 10..20 {
            let name = format!("web_20261129_{hour}0000.tar");
            stored.push(StoredArchive {
                name: ArchiveName::parse("web", OsStr::new(&name)).unwrap(),
                time: format!("2026-11-29T{hour}:00:00Z").parse().unwrap(),
                ..archive(29)
            });
        }
        let warnings = stack.queue(&stored, &now());
        assert_eq!(stack.waiting.len(), WAITING_MAX);
        assert_eq!(warnings.len(), stored.len() - WAITING_MAX);
        assert!(warnings[0].starts_with("web_20261101_030000.tar is not handed over any more"));
        let newest = &stack.waiting.last().unwrap().archive;
        assert_eq!(newest, "web_20261129_190000.tar");
    }

    #[test]
    fn another_place_is_another_repository() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = HandoverState::read(dir.path()).unwrap();
        let of_nas = state.of_mut("nas", "/mnt/a");
        of_nas.stacks.entry("web".to_owned()).or_default();
        state.write(dir.path()).unwrap();
        let mut state = HandoverState::read(dir.path()).unwrap();
        assert_eq!(state.of("nas", "/mnt/a").unwrap().stacks.len(), 1);
        assert!(state.of("nas", "/mnt/b").is_none());
        assert!(state.of_mut("nas", "/mnt/b").stacks.is_empty());
    }
}
