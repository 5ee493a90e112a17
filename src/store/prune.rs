//! Applies a retention policy to the archives of one stack (I6).

use anyhow::Result;

use super::archives::StoredArchive;
use super::directory::Store;
use super::retention::{self, Candidate, Decision, TimeJump};
use crate::config::Retention;
use crate::outcome::{PrunedStack, RemovedArchive};
use crate::sys::time::OffsetTime;

/// What pruning would do with the archives of one stack.
pub struct Pruning {
    /// Every archive, oldest first, and whether the policy keeps it.
    pub decisions: Vec<(StoredArchive, Decision)>,
    /// Why the decisions must be confirmed, if they must.
    pub jump: Option<TimeJump>,
}

impl Pruning {
    /// Applies the policy to the archives of a stack. Changes nothing.
    ///
    /// # Errors
    /// When the archives cannot be listed.
    pub fn of(store: &Store, policy: &Retention, stack: &str, now: &OffsetTime) -> Result<Pruning> {
        let archives = store.list(stack)?;
        let candidates: Vec<Candidate<'_>> = archives
            .iter()
            .map(|archive| Candidate {
                name: &archive.name,
                time: archive.time.timestamp(),
                is_good: archive.is_good(),
                is_foreign: archive.other_stack().is_some(),
            })
            .collect();
        let now = now.timestamp();
        let decisions = retention::decide(&candidates, policy, now);
        let jump = retention::time_jump(&candidates, &decisions, policy, now);
        Ok(Pruning {
            decisions: archives.into_iter().zip(decisions).collect(),
            jump,
        })
    }
}

/// Removes the archives that the policy does not keep. An archive that cannot
/// be removed does not end it. Nothing is removed if time jumped, unless
/// `is_confirmed` says that an admin has looked at the clock.
pub fn prune(
    store: &Store,
    policy: &Retention,
    stack: &str,
    now: &OffsetTime,
    is_confirmed: bool,
) -> PrunedStack {
    let mut pruned = PrunedStack {
        stack: stack.to_owned(),
        kept_count: 0,
        removed: Vec::new(),
        error: None,
    };
    let pruning = match Pruning::of(store, policy, stack, now) {
        Ok(pruning) => pruning,
        Err(error) => {
            pruned.error = Some(format!("{error:#}"));
            return pruned;
        }
    };
    if let Some(jump) = pruning.jump.filter(|_| !is_confirmed) {
        pruned.kept_count = pruning.decisions.len() as u64;
        pruned.error = Some(jump.message(stack));
        return pruned;
    }
    for (archive, decision) in pruning.decisions {
        if decision.keep {
            pruned.kept_count += 1;
            continue;
        }
        match store.remove(&archive) {
            Ok(archive_bytes) => {
                let reason = decision.reasons.join(", ");
                tracing::info!(path = %archive.path.display(), reason, "removed");
                pruned.removed.push(RemovedArchive {
                    path: archive.path,
                    archive_bytes,
                    reason,
                });
            }
            Err(error) => pruned.error = Some(format!("{error:#}")),
        }
    }
    pruned
}
