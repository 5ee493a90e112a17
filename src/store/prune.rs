//! Applies a retention policy to the archives of one stack (I6).

use anyhow::Result;
use jiff::civil::DateTime;

use crate::config::Retention;
use crate::outcome::{PrunedStack, RemovedArchive};
use crate::store::retention::{self, Candidate, Decision};
use crate::store::{Store, StoredArchive};

/// Every archive of a stack, oldest first, with what becomes of it.
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
            complete: archive.is_good(),
        })
        .collect();
    let decisions = retention::decide(&candidates, policy, now);
    Ok(archives.into_iter().zip(decisions).collect())
}

/// Removes what the policy does not keep; goes on after an archive that
/// cannot be removed. `now` is local time.
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
