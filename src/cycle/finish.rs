//! What is left to do once the stack is up again, so that it adds nothing to the
//! downtime.

use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result};

use super::capture::{Captured, CapturedFiles};
use super::manifest::write_manifest;
use super::recorder::{OutcomeRecorder, add_warning};
use super::state::Cycle;
use crate::archive::{Sums, verify};
use crate::config::{HookPlace, Verify};
use crate::outcome::{ArchiveOutcome, Phase, StackOutcome, StackStatus};
use crate::stack::driver::{self, Started};
use crate::stack::journal::StopProgress;
use crate::store::checks::Checks;
use crate::store::{ArchiveName, Sidecar};
use crate::sys::format::human_bytes;
use crate::sys::threads::spawn_or_run;

impl Cycle<'_> {
    /// Takes back the effect of hooks, finishes the archive and, in parallel, closes the
    /// journal entry. Finishing may take an hour; a container that is stopped during that
    /// time was stopped by someone on purpose and must not be restarted.
    pub(super) fn finish(
        &self,
        recorder: &mut OutcomeRecorder,
        captured: Option<Captured>,
        started: Option<Started>,
    ) {
        // Even if not all has started: what it concerns may be up.
        self.undo_hooks(recorder);
        let span = tracing::Span::current();
        thread::scope(|scope| {
            let is_up = started.is_some();
            let closing = started.map(|started| {
                let span = span.clone();
                spawn_or_run(scope, move || {
                    let _entered = span.enter();
                    self.close_journal(&started)
                })
            });
            if is_up {
                self.run_hooks(recorder, HookPlace::AfterStart);
            }
            if let Some(captured) = captured {
                recorder.phase(Phase::Finish, |outcome| {
                    self.finish_archive(outcome, captured)
                });
            }
            if recorder.outcome.archive.is_some() {
                self.run_hooks(recorder, HookPlace::AfterArchive);
            }
            let Some(closing) = closing else { return };
            // The stack is up: this is no longer the time of its start.
            let closed = recorder.phase(Phase::Finish, |_| Ok(closing.join()));
            recorder.phase(Phase::Start, |outcome| {
                let closed = closed.context("the second look was not made")?;
                let (warnings, removed) =
                    closed.inspect_err(|_| outcome.status = StackStatus::Down)?;
                for warning in warnings {
                    add_warning(outcome, warning);
                }
                removed
            });
        });
    }

    /// Removes the journal entry, once the containers are seen to be up still; what is to be
    /// taken back stays in it. Returns warnings, and whether the journal could be written.
    ///
    /// # Errors
    /// When the stack is not as it was: it counts as down.
    fn close_journal(&self, started: &Started) -> Result<(Vec<String>, Result<()>)> {
        let entry = self
            .entry
            .entry()
            .context("the stack has no journal entry")?;
        let warnings = driver::confirm(&entry, started, self.context.signals)?;
        Ok((
            warnings,
            self.entry.set_step(self.context, StopProgress::Up),
        ))
    }

    /// Gives the archive its manifest, verifies it, and gives it its name.
    fn finish_archive(&self, outcome: &mut StackOutcome, captured: Captured) -> Result<()> {
        let Captured {
            files,
            mut manifest,
        } = captured;
        let (partial, layout, hashes) = match files {
            CapturedFiles::Whole {
                partial,
                layout,
                hashes,
            } => (partial, layout, *hashes),
            CapturedFiles::Draft { draft, update } => {
                let assembled =
                    self.with_precopy(&manifest, |precopy| precopy.assemble(*draft, *update))?;
                if let Some(capture) = &mut outcome.capture {
                    capture.shared_bytes = capture
                        .shared_bytes
                        .saturating_sub(assembled.unshared_bytes);
                }
                (assembled.partial, assembled.layout, assembled.hashes)
            }
        };
        manifest.archive_bytes = layout.archive_bytes();
        manifest.downtime_ms = outcome.downtime_ms;
        write_manifest(&layout, partial.file(), &mut manifest)
            .with_context(|| format!("cannot write {}", partial.path().display()))?;
        let cancel = self.context.signals.flag();
        let sums = verify::read_back(self.stack.verify, partial.file(), &hashes, cancel)
            .with_context(|| format!("cannot verify {}", partial.path().display()))?;
        let path = partial.finish()?;
        if self.stack.verify.is_hashed() && sums.is_none() {
            let warning = format!(
                "the run was interrupted before all of the archive was read back, so the archive \
                 has no sums file; check it with `docker-stack-backup verify {}`",
                self.stack.name
            );
            add_warning(outcome, warning);
        }
        if let Err(error) = self.write_sums(&path, sums) {
            // The archive is good without its sums.
            add_warning(outcome, format!("{error:#}"));
        }
        outcome.archive = Some(ArchiveOutcome {
            path: path.clone(),
            archive_bytes: layout.archive_bytes(),
            content_bytes: manifest.content_bytes,
            member_count: manifest.member_count,
            socket_count: manifest.socket_count,
            excluded_count: manifest.excluded_count,
            changed_count: manifest.changed_count,
            crash_consistent: self.is_paused(),
        });
        let size = human_bytes(layout.archive_bytes());
        tracing::info!(path = %path.display(), size, "archived");
        Ok(())
    }

    fn write_sums(&self, path: &Path, sums: Option<Sums>) -> Result<()> {
        let name = path.file_name().unwrap_or_default();
        match (sums, ArchiveName::parse(&self.stack.name, name)) {
            (Some(sums), Some(name)) => {
                let store = self.context.store;
                store.write_sidecar(&name, Sidecar::Sums, |out| sums.write(out))?;
                // What was read back is as it was rendered.
                let is_partial = self.stack.verify != Verify::Full;
                Checks::of_new(is_partial).write(store, &name)
            }
            _ => Ok(()),
        }
    }
}
