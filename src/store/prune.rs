//! Applies a retention policy to the archives of one stack (I6).

use anyhow::Result;
use jiff::civil::DateTime;

use super::archives::StoredArchive;
use super::directory::Store;
use super::retention::{self, Candidate, Decision};
use crate::config::Retention;
use crate::outcome::{PrunedStack, RemovedArchive};

/// Returns every archive of a stack, oldest first, and whether the policy keeps
/// it.
///
/// # Errors
/// When the archives cannot be listed.
pub fn decisions(
    store: &Store,
    policy: &Retention,
    stack: &str,
    now: DateTime,
) -> Result<Vec<(StoredArchive, Decision)>> {
    let archives = store.list(stack)?;
    let candidates: Vec<Candidate<'_>> = archives
        .iter()
        .map(|archive| Candidate {
            name: &archive.name,
            is_good: archive.is_good(),
        })
        .collect();
    let decisions = retention::decide(&candidates, policy, now);
    Ok(archives.into_iter().zip(decisions).collect())
}

/// Removes the archives that the policy does not keep. An archive that cannot
/// be removed does not end it. `now` is local time.
pub fn prune(store: &Store, policy: &Retention, stack: &str, now: DateTime) -> PrunedStack {
    let mut pruned = PrunedStack {
        stack: stack.to_owned(),
        kept_count: 0,
        removed: Vec::new(),
        error: None,
    };
    let decisions = match decisions(store, policy, stack, now) {
        Ok(decisions) => decisions,
        Err(error) => {
            pruned.error = Some(format!("{error:#}"));
            return pruned;
        }
    };
    for (archive, decision) in decisions {
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
