//! Writing the archive's data while the stack is down.

use anyhow::{Context as _, Result};

use super::precopy::StoredDraft;
use super::prepare::{Prepared, warn_offline};
use super::recorder::{OutcomeRecorder, add_failure, add_warning};
use super::state::Cycle;
use crate::archive::{self, Layout, Manifest, ReadOptions, RenderedHashes, Update, WriteSummary};
use crate::config::{Capture, OnBusy};
use crate::outcome::{CaptureOutcome, Phase, StackOutcome};
use crate::scan::Inventory;
use crate::store::Partial;
use crate::sys::format::human_bytes;
use crate::sys::progress;

/// A consistent copy of the data. It lacks its manifest and its name.
pub(super) struct Captured {
    pub(super) files: CapturedFiles,
    pub(super) manifest: Manifest,
}

pub(super) enum CapturedFiles {
    /// A draft, and what changed since; they still have to be assembled.
    Draft {
        draft: Box<StoredDraft>,
        update: Box<Update>,
    },
    /// An archive that was written at once.
    Whole {
        partial: Partial,
        layout: Layout,
        hashes: Box<RenderedHashes>,
    },
}

/// Files of a backup that failed. Removing them may take seconds, so it is done
/// when the stack is up again, unless the start needs the room.
pub(super) enum Leftover {
    Nothing,
    Draft(Box<StoredDraft>),
    Whole(Box<Partial>),
}

impl Leftover {
    pub(super) fn remove(self) {
        match self {
            Leftover::Nothing => {}
            Leftover::Draft(draft) => drop(draft),
            Leftover::Whole(partial) => drop(partial),
        }
    }
}

impl From<Prepared> for Leftover {
    fn from(prepared: Prepared) -> Leftover {
        match prepared {
            Prepared::Draft(draft) => Leftover::Draft(draft),
            Prepared::Offline { .. } => Leftover::Nothing,
        }
    }
}

impl From<CapturedFiles> for Leftover {
    fn from(files: CapturedFiles) -> Leftover {
        match files {
            CapturedFiles::Draft { draft, .. } => Leftover::Draft(draft),
            CapturedFiles::Whole { partial, .. } => Leftover::Whole(Box::new(partial)),
        }
    }
}

impl Cycle<'_> {
    /// Proves that nothing writes to the data, captures it, and proves it again.
    /// The files are kept outside of the phases, so that even a panic leaves them
    /// in the [`Leftover`].
    pub(super) fn capture(
        &self,
        recorder: &mut OutcomeRecorder,
        prepared: Prepared,
    ) -> Result<Captured, Leftover> {
        let quiet = recorder.phase(Phase::Quiet, |outcome| self.prove_quiet(outcome));
        let Some((inventory, at_rest)) = quiet else {
            return Err(prepared.into());
        };
        let captured = match prepared {
            Prepared::Draft(draft) => self.complete_draft(recorder, &inventory, draft)?,
            Prepared::Offline { reason } => self.write_whole(recorder, &inventory, reason)?,
        };
        let quiet = recorder.phase(Phase::Quiet, |outcome| {
            self.prove_quiet_since(outcome, &at_rest)
        });
        match quiet {
            Some(()) => Ok(captured),
            None => Err(captured.files.into()),
        }
    }

    /// Adds to the draft what changed since. Without room for that, the draft is
    /// given up and all data is read.
    fn complete_draft(
        &self,
        recorder: &mut OutcomeRecorder,
        inventory: &Inventory,
        mut draft: Box<StoredDraft>,
    ) -> Result<Captured, Leftover> {
        let updated = recorder.phase(Phase::Archive, |outcome| {
            self.update(outcome, inventory, &mut draft)
        });
        match updated {
            Some(Some((update, manifest))) => Ok(Captured {
                files: CapturedFiles::Draft { draft, update },
                manifest,
            }),
            Some(None) => {
                let reason = recorder.phase(Phase::Archive, |outcome| {
                    let reason = "there is no room for the changed data beside the draft";
                    let reason = warn_offline(outcome, reason.to_owned());
                    // This makes the room.
                    drop(draft);
                    Ok(reason)
                });
                self.write_whole(recorder, inventory, reason.flatten())
            }
            None => Err(Leftover::Draft(draft)),
        }
    }

    /// Copies what the draft lacks. `None` if there is no room for it.
    fn update(
        &self,
        outcome: &mut StackOutcome,
        inventory: &Inventory,
        draft: &mut StoredDraft,
    ) -> Result<Option<(Box<Update>, Manifest)>> {
        self.context.signals.check()?;
        let mut manifest = self.manifest_of(inventory);
        let update = self.with_precopy(&manifest, |precopy| precopy.update(draft, inventory))?;
        let Some(update) = update else {
            return Ok(None);
        };
        let summary = update.summary().clone();
        outcome.capture = Some(CaptureOutcome {
            method: Capture::Precopy,
            reason: None,
            down_bytes: update.delta_bytes() - summary.shared_bytes,
            pass_count: draft.pass_count,
            shared_bytes: draft.summary.shared_bytes + summary.shared_bytes,
            refused_count: draft.summary.refused_count + summary.refused_count,
        });
        self.report_changed(outcome, &mut manifest, summary);
        Ok(Some((Box::new(update), manifest)))
    }

    /// Writes the archive without a draft. `reason` says why there is none.
    fn write_whole(
        &self,
        recorder: &mut OutcomeRecorder,
        inventory: &Inventory,
        reason: Option<String>,
    ) -> Result<Captured, Leftover> {
        let begun = recorder.phase(Phase::Archive, |_| {
            self.context.signals.check()?;
            let manifest = self.manifest_of(inventory);
            let layout = self.layout(inventory, &manifest)?;
            Ok((manifest, layout, self.create_partial()?))
        });
        let Some((mut manifest, layout, partial)) = begun else {
            return Err(Leftover::Nothing);
        };
        let written = recorder.phase(Phase::Archive, |outcome| {
            tracing::info!(archive = human_bytes(layout.archive_bytes()), "archiving");
            progress::begin_archive(layout.archive_bytes(), inventory.member_count());
            let reading = ReadOptions {
                sources: &self.sources,
                cancel: self.context.signals.flag(),
                is_live: false,
                share: self.sharing(),
                // Hashing would add to the downtime, if there is one.
                hash: self.stack.verify.is_hashed() && self.survey.is_down(),
            };
            let (summary, hashes) =
                archive::write_members(&layout, inventory, reading, partial.file())
                    .with_context(|| format!("cannot write {}", partial.path().display()))?;
            outcome.capture = Some(CaptureOutcome {
                method: Capture::Offline,
                reason,
                down_bytes: layout.archive_bytes() - summary.shared_bytes,
                pass_count: 0,
                shared_bytes: summary.shared_bytes,
                refused_count: summary.refused_count,
            });
            manifest.capture = Capture::Offline;
            self.report_changed(outcome, &mut manifest, summary);
            Ok(Box::new(hashes))
        });
        match written {
            Some(hashes) => Ok(Captured {
                files: CapturedFiles::Whole {
                    partial,
                    layout,
                    hashes,
                },
                manifest,
            }),
            None => Err(Leftover::Whole(Box::new(partial))),
        }
    }

    /// Reports files that changed although nothing should have written to them.
    fn report_changed(
        &self,
        outcome: &mut StackOutcome,
        manifest: &mut Manifest,
        summary: WriteSummary,
    ) {
        if summary.changed_count > 0 {
            let message = format!(
                "{} files changed while they were archived; their members are cut or padded with \
                 zeros: {}",
                summary.changed_count,
                summary.changed.join(", ")
            );
            match self.stack.on_busy {
                OnBusy::Warn => add_warning(outcome, message),
                // The archive is kept, because most of it is good. But the backup
                // counts as failed, so no older archive is pruned for it.
                OnBusy::Fail => add_failure(outcome, Phase::Archive, message),
            }
        }
        manifest.changed_count = summary.changed_count;
        manifest.changed = summary.changed;
    }
}
