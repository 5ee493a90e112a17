//! A stack's data becomes an archive: measured, copied while the stack is up,
//! completed while it is down, put together.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use jiff::ZonedDateTime;

use super::Cycle;
use super::record::{Record, fail, warn};
use crate::archive::verify;
use crate::archive::{
    self, Layout, Manifest, ManifestSlot, ReadOptions, ServiceImage, ShareOptions, Sums, Update,
    WriteSummary,
};
use crate::config::{Capture, OnBusy, Verify};
use crate::cycle::precopy::{Drafted, PASS_FROM_BYTES, Precopy};
use crate::engine::Container;
use crate::outcome::{ArchiveOutcome, CaptureOutcome, Phase, StackOutcome};
use crate::scan::{self, Inventory, SETTLED_AFTER};
use crate::stack::running;
use crate::store::{ArchiveName, Partial, Sidecar};
use crate::sys::format::human_bytes;
use crate::sys::paths;
use crate::sys::progress;

/// Room beyond the archive's own length that must be free: what may be added
/// to a stack between measuring and stopping it, and the file system's own.
pub(super) const SPARE_BYTES: u64 = 16 << 20;
/// Below both of these, reading everything takes no longer than a scan and a
/// sync more.
const LITTLE_BYTES: u64 = 16 << 20;
const LITTLE_MEMBERS: u64 = 1000;
/// See [`ShareOptions::deferred_from_bytes`]. Shorter files have few extents; longer ones
/// that changed within the hour are so few that all are shared in a moment.
const LATER_FROM_BYTES: u64 = 16 << 20;
/// Of the manifest, for what is known only when the archive is written.
const MANIFEST_SLACK_BYTES: usize = 8 << 10;

/// How the data is read, and what was written of it while the stack was down.
pub(super) enum Method {
    /// Still to be put together.
    Precopy(Box<Drafted>, Option<Box<Update>>),
    /// Why not otherwise, unless it was asked for.
    Offline(Option<String>, Option<(Partial, Layout)>),
}

/// An archive that has all but its manifest and its name.
pub(super) struct Written {
    pub(super) method: Method,
    pub(super) manifest: Manifest,
}

impl Cycle<'_> {
    /// Nothing is stopped for an archive that cannot be made.
    pub(super) fn measure(&self) -> Result<Inventory> {
        self.context.signals.check()?;
        self.context.store.check_stack_dir(&self.stack.name)?;
        let inventory = self.scan()?;
        let manifest = self.manifest();
        let layout = self.layout(&inventory, &manifest)?;
        let needed = layout.archive_bytes() + SPARE_BYTES;
        let available = self.context.store.available_bytes()?;
        if needed > available {
            bail!(
                "not enough room in {}: the archive needs {} ({needed} bytes), {} ({available} \
                 bytes) are free; nothing was stopped",
                self.context.store.path().display(),
                human_bytes(needed),
                human_bytes(available)
            );
        }
        self.refuse_writers()?;
        tracing::info!(
            content = human_bytes(inventory.content_bytes()),
            members = inventory.member_count(),
            available = human_bytes(available),
            "measured"
        );
        Ok(inventory)
    }

    /// Copies what can be copied while the stack is up. `None` if that failed;
    /// nothing was stopped then.
    pub(super) fn pre_copy(&self, record: &mut Record, inventory: Inventory) -> Option<Method> {
        if self.stack.capture == Capture::Offline || self.survey.running.is_empty() {
            return Some(Method::Offline(None, None));
        }
        if inventory.content_bytes() < LITTLE_BYTES && inventory.member_count() < LITTLE_MEMBERS {
            let reason = "so little data is read as fast while down".to_owned();
            return Some(Method::Offline(Some(reason), None));
        }
        record.phase(Phase::Precopy, |outcome| {
            self.context.signals.check()?;
            let now = ZonedDateTime::now().datetime();
            let partial = self.context.store.create_partial(&self.stack.name, now)?;
            if let Err(error) = partial.scratch() {
                return Ok(self.offline(outcome, format!("{error:#}")));
            }
            tracing::info!("copying while the stack is up");
            let manifest = self.manifest();
            let drafted = self.precopy(&manifest, |precopy| precopy.draft(inventory, partial))?;
            let Some(drafted) = drafted else {
                let reason = "no file system of this stack tells of every change";
                return Ok(self.offline(outcome, reason.to_owned()));
            };
            if drafted.untrusted_bytes > 0 {
                let bytes = human_bytes(drafted.untrusted_bytes);
                warn(outcome, format!("{bytes} are on a file system that does not tell of every change: read while down"));
            }
            Ok(Method::Precopy(Box::new(drafted), None))
        })
    }

    fn offline(&self, outcome: &mut StackOutcome, reason: String) -> Method {
        let warning = format!(
            "all data is read while the stack is down: {reason}; set `capture` to `offline` if that is meant to be"
        );
        warn(outcome, warning);
        Method::Offline(Some(reason), None)
    }

    fn precopy<T>(
        &self,
        manifest: &Manifest,
        act: impl FnOnce(&Precopy<'_>) -> Result<T>,
    ) -> Result<T> {
        act(&Precopy {
            sources: &self.sources,
            scan: &|| self.scan(),
            layout: &|inventory| self.layout(inventory, manifest),
            share: self.share(),
            cancel: self.context.signals.flag(),
            pass_from_bytes: PASS_FROM_BYTES,
            settled_after: SETTLED_AFTER,
            available_bytes: &|| self.context.store.available_bytes(),
        })
    }

    fn share(&self) -> Option<ShareOptions<'_>> {
        self.stack.share.then_some(ShareOptions {
            unshared: &self.stack.unshared,
            deferred_from_bytes: LATER_FROM_BYTES,
        })
    }

    /// With the stack down. Whatever comes of it, what was written is left in
    /// `method`: removing it can wait until the stack is up.
    pub(super) fn write(
        &self,
        outcome: &mut StackOutcome,
        inventory: &Inventory,
        method: &mut Method,
    ) -> Result<Manifest> {
        self.context.signals.check()?;
        let mut manifest = Manifest {
            content_bytes: inventory.content_bytes(),
            member_count: inventory.member_count(),
            socket_count: inventory.socket_count(),
            excluded_count: inventory.excluded_count(),
            ..self.manifest()
        };
        if let Method::Precopy(drafted, written) = method {
            let update = |precopy: &Precopy<'_>| precopy.update(drafted, inventory);
            if let Some(update) = self.precopy(&manifest, update)? {
                let drafted_summary = &drafted.summary;
                let summary = update.summary().clone();
                outcome.capture = Some(CaptureOutcome {
                    method: Capture::Precopy,
                    reason: None,
                    down_bytes: update.delta_bytes() - summary.shared_bytes,
                    pass_count: drafted.pass_count,
                    shared_bytes: drafted_summary.shared_bytes + summary.shared_bytes,
                    refused_count: drafted_summary.refused_count + summary.refused_count,
                });
                self.judge_changed(outcome, &mut manifest, summary);
                *written = Some(Box::new(update));
                return Ok(manifest);
            }
            let reason = "no room for what changed beside the draft";
            // The draft goes, which makes the room.
            *method = self.offline(outcome, reason.to_owned());
        }
        let layout = self.layout(inventory, &manifest)?;
        let now = ZonedDateTime::now().datetime();
        let partial = self.context.store.create_partial(&self.stack.name, now)?;
        tracing::info!(archive = human_bytes(layout.archive_bytes()), "archiving");
        progress::begin_archive(layout.archive_bytes(), inventory.member_count());
        let reading = ReadOptions {
            sources: &self.sources,
            cancel: self.context.signals.flag(),
            is_live: false,
            share: self.share(),
        };
        let written = archive::write_members(&layout, inventory, reading, partial.file())
            .with_context(|| format!("write archive {}", partial.path().display()));
        let archive_bytes = layout.archive_bytes();
        let reason = match method {
            Method::Offline(reason, _) => reason.take(),
            Method::Precopy(..) => None,
        };
        *method = Method::Offline(None, Some((partial, layout)));
        let summary = written?;
        outcome.capture = Some(CaptureOutcome {
            method: Capture::Offline,
            reason,
            down_bytes: archive_bytes - summary.shared_bytes,
            pass_count: 0,
            shared_bytes: summary.shared_bytes,
            refused_count: summary.refused_count,
        });
        manifest.capture = Capture::Offline;
        self.judge_changed(outcome, &mut manifest, summary);
        Ok(manifest)
    }

    /// Says which files changed although nothing should have written to them.
    fn judge_changed(
        &self,
        outcome: &mut StackOutcome,
        manifest: &mut Manifest,
        summary: WriteSummary,
    ) {
        if summary.changed_count > 0 {
            let message = format!(
                "{} files changed while they were archived, their members are padded or cut: {}",
                summary.changed_count,
                summary.changed.join(", ")
            );
            match self.stack.on_busy {
                OnBusy::Warn => warn(outcome, message),
                // The archive is kept: most of it is good. But it is not called
                // so, and no older one is pruned for it.
                OnBusy::Fail => fail(outcome, Phase::Archive, message),
            }
        }
        manifest.changed_count = summary.changed_count;
        manifest.changed = summary.changed;
    }

    /// The stack is up again: what is left does not add to its downtime.
    pub(super) fn finish(&self, outcome: &mut StackOutcome, written: Written) -> Result<()> {
        let Written {
            method,
            mut manifest,
        } = written;
        let (partial, layout) = match method {
            Method::Offline(_, Some(whole)) => whole,
            Method::Precopy(drafted, Some(update)) => {
                let finish = |precopy: &Precopy<'_>| precopy.finish(*drafted, *update);
                let finished = self.precopy(&manifest, finish)?;
                if let Some(capture) = &mut outcome.capture {
                    capture.shared_bytes =
                        capture.shared_bytes.saturating_sub(finished.unshared_bytes);
                }
                (finished.partial, finished.layout)
            }
            Method::Offline(..) | Method::Precopy(..) => bail!("nothing was written"),
        };
        manifest.archive_bytes = layout.archive_bytes();
        manifest.downtime_ms = outcome.downtime_ms;
        let context = || format!("write archive {}", partial.path().display());
        write_manifest(&layout, partial.file(), &mut manifest).with_context(context)?;
        let cancel = self.context.signals.flag();
        let sums = verify::read_back(self.stack.verify, partial.file(), cancel)
            .with_context(|| format!("verify {}", partial.path().display()))?;
        let path = partial.finish()?;
        if self.stack.verify == Verify::Full && sums.is_none() {
            let warning = format!(
                "interrupted before all of the archive was read back, so no sums lie beside it: \
                 check it with `docker-stack-backup verify {}`",
                self.stack.name
            );
            warn(outcome, warning);
        }
        if let Err(error) = self.write_sums(&path, sums) {
            // The archive is good without them.
            warn(outcome, format!("{error:#}"));
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
        tracing::info!(path = %path.display(), size = human_bytes(layout.archive_bytes()), "archived");
        Ok(())
    }

    fn write_sums(&self, path: &Path, sums: Option<Sums>) -> Result<()> {
        let name = path.file_name().unwrap_or_default();
        match (sums, ArchiveName::parse(&self.stack.name, name)) {
            (Some(sums), Some(name)) => {
                self.context
                    .store
                    .write_sidecar(&name, Sidecar::Sums, |out| sums.write(out))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn scan(&self) -> Result<Inventory> {
        let cancel = self.context.signals.flag();
        scan::scan(
            &self.sources,
            &self.stack.exclude,
            self.stack.exclude_caches,
            cancel,
        )
    }

    fn layout(&self, inventory: &Inventory, manifest: &Manifest) -> Result<Layout> {
        let reserve = serde_json::to_vec_pretty(manifest)?.len() + MANIFEST_SLACK_BYTES;
        let reserved_bytes = *self.manifest_bytes.get_or_init(|| reserve as u64);
        let slot = ManifestSlot {
            name: format!("{}.manifest.json", self.stack.name),
            reserved_bytes,
            mtime_s: manifest.captured.timestamp().as_second(),
        };
        Ok(Layout::new(inventory, &slot))
    }

    /// Room was left for it before the copy.
    pub(super) fn check_manifest_fits(&self) -> Result<()> {
        let needed = serde_json::to_vec_pretty(&self.manifest())?.len() + MANIFEST_SLACK_BYTES / 2;
        match self.manifest_bytes.get() {
            Some(reserved) if needed as u64 > *reserved => {
                bail!("the compose file grew much meanwhile; nothing was stopped")
            }
            _ => Ok(()),
        }
    }

    /// With what is known before the archive is written.
    fn manifest(&self) -> Manifest {
        let survey = &self.survey;
        let image = |container: &Container| ServiceImage {
            service: container.service.clone(),
            reference: container.image_reference.clone(),
            id: container.image_id.clone(),
            digests: survey
                .images
                .iter()
                .find(|image| image.id == container.image_id)
                .map(|image| image.repo_digests.clone())
                .unwrap_or_default(),
        };
        let mut images: Vec<ServiceImage> = survey.containers.iter().map(image).collect();
        images.sort();
        images.dedup();
        let by_prefix = |at: &dyn Fn(&Path) -> PathBuf| -> BTreeMap<String, String> {
            let trees = survey.trees.iter();
            trees
                .map(|tree| (tree.prefix.clone(), at(&tree.path).display().to_string()))
                .collect()
        };
        let trees = by_prefix(&Path::to_owned);
        let mut real_trees = by_prefix(&paths::without_symlinks);
        real_trees.retain(|prefix, path| trees[prefix] != *path);
        Manifest {
            format_version: archive::FORMAT_VERSION,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            stack: self.stack.name.clone(),
            project: survey.project.clone(),
            host: self.context.host.to_owned(),
            trees,
            real_trees,
            capture: self.stack.capture,
            stop_method: survey.stop_method,
            files: self.stack.compose.relative(&self.stack.compose.files),
            env_files: self.stack.compose.relative(&self.stack.compose.env_files),
            captured: ZonedDateTime::now(),
            downtime_ms: None,
            running: survey.services(),
            replicas: running::replicas(&survey.running),
            images,
            volumes: survey.volumes.clone(),
            coverage: survey.coverage.clone(),
            archive_bytes: 0,
            content_bytes: 0,
            member_count: 0,
            socket_count: 0,
            excluded_count: 0,
            changed_count: 0,
            changed: Vec::new(),
            compose: survey
                .config
                .as_ref()
                .map(|config| config.json.clone())
                .unwrap_or_default(),
            is_stand_in: false,
        }
    }
}

fn write_manifest(layout: &Layout, file: &File, manifest: &mut Manifest) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(manifest)?;
    if json.len() as u64 > layout.manifest_bytes_max() {
        // Very long names: their number stays.
        manifest.changed.clear();
        json = serde_json::to_vec_pretty(manifest)?;
    }
    archive::write_manifest(layout, file, &json)
}
