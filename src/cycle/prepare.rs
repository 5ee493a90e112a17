//! Copying as much as possible before the stop.

use anyhow::Result;

use super::precopy::{PASS_FROM_BYTES, Precopy, StoredDraft};
use super::recorder::{OutcomeRecorder, add_warning};
use super::state::Cycle;
use crate::archive::{Manifest, ShareOptions};
use crate::config::Capture;
use crate::outcome::{Phase, StackOutcome};
use crate::scan::{Inventory, SETTLED_AFTER};
use crate::store::Partial;
use crate::sys::format::human_bytes;
use crate::sys::time::OffsetTime;

/// A stack with less data and fewer members than these is not copied before the
/// stop: one more scan and a sync would take as long.
const LITTLE_BYTES: u64 = 16 << 20;
const LITTLE_MEMBERS: u64 = 1000;
/// See [`ShareOptions::deferred_from_bytes`]. Smaller files have few extents. Larger files
/// that changed within the hour are so few that sharing them takes no time.
const DEFERRED_FROM_BYTES: u64 = 16 << 20;

/// What is ready when the stack is stopped.
pub(super) enum Prepared {
    Draft(Box<StoredDraft>),
    /// Nothing: all data is read while the stack is down.
    Offline {
        /// Why; `None` if the configuration asks for it or nothing runs.
        reason: Option<String>,
    },
}

impl Cycle<'_> {
    /// Copies the data while the stack is up, if that is worthwhile. `None` if
    /// the copy failed.
    pub(super) fn prepare(
        &self,
        recorder: &mut OutcomeRecorder,
        inventory: Inventory,
    ) -> Option<Prepared> {
        if self.stack.capture == Capture::Offline || self.survey.is_down() {
            return Some(Prepared::Offline { reason: None });
        }
        if inventory.content_bytes() < LITTLE_BYTES && inventory.member_count() < LITTLE_MEMBERS {
            let reason = "there is so little data that reading it while down takes no longer";
            return Some(Prepared::Offline {
                reason: Some(reason.to_owned()),
            });
        }
        recorder.phase(Phase::Precopy, |outcome| self.pre_copy(outcome, inventory))
    }

    fn pre_copy(&self, outcome: &mut StackOutcome, inventory: Inventory) -> Result<Prepared> {
        self.context.signals.check()?;
        let partial = self.create_partial()?;
        if let Err(error) = partial.scratch() {
            let reason = warn_offline(outcome, format!("{error:#}"));
            return Ok(Prepared::Offline { reason });
        }
        tracing::info!("copying while the stack is up");
        let manifest = self.manifest();
        let draft = self.with_precopy(&manifest, |precopy| precopy.draft(inventory, partial))?;
        let Some(draft) = draft else {
            let reason = "no file system of this stack tracks every change";
            let reason = warn_offline(outcome, reason.to_owned());
            return Ok(Prepared::Offline { reason });
        };
        if draft.untracked_bytes > 0 {
            let bytes = human_bytes(draft.untracked_bytes);
            let warning = format!(
                "{bytes} are on file systems that do not track every change, so they are read \
                 while the stack is down"
            );
            add_warning(outcome, warning);
        }
        Ok(Prepared::Draft(Box::new(draft)))
    }

    pub(super) fn create_partial(&self) -> Result<Partial> {
        let now = OffsetTime::now().datetime();
        self.context.store.create_partial(&self.stack.name, now)
    }

    pub(super) fn with_precopy<T>(
        &self,
        manifest: &Manifest,
        act: impl FnOnce(&Precopy<'_>) -> Result<T>,
    ) -> Result<T> {
        act(&Precopy {
            sources: &self.sources,
            scan: &|| self.scan(),
            layout: &|inventory| self.layout(inventory, manifest),
            share: self.sharing(),
            hash: self.stack.verify.is_hashed(),
            cancel: self.context.signals.flag(),
            pass_from_bytes: PASS_FROM_BYTES,
            settled_after: SETTLED_AFTER,
            available_bytes: &|| self.context.store.available_bytes(),
        })
    }

    pub(super) fn sharing(&self) -> Option<ShareOptions<'_>> {
        self.stack.share.then_some(ShareOptions {
            unshared: &self.stack.unshared,
            deferred_from_bytes: DEFERRED_FROM_BYTES,
        })
    }
}

/// Warns that all data is read while the stack is down, which nobody asked for.
/// Returns the reason.
pub(super) fn warn_offline(outcome: &mut StackOutcome, reason: String) -> Option<String> {
    let warning = format!(
        "all data is read while the stack is down: {reason}; set `capture` to `offline` if that \
         is intended"
    );
    add_warning(outcome, warning);
    Some(reason)
}
