//! Copying a stack's data while it is up, so that little is left to copy while
//! it is down.
//!
//! Scan, sync, read: in this order. A file that is stored to after the sync,
//! also through a mapping, gets a new ctime, and the next scan sees that. What
//! is stored before the sync is read after it.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::archive::{Draft, Layout, ReadOptions, ShareOptions, Update, WriteSummary};
use crate::scan::{self, Inventory, Source, Trust};
use crate::store::Partial;
use crate::sys::format::human_bytes;

/// A further pass is made only for more than this: less is read in a fraction
/// of a second.
pub const PASS_FROM_BYTES: u64 = 64 << 20;
/// Passes at most; a stack may write as fast as it is copied.
const PASSES_MAX: u32 = 4;

/// What stays free when what changed is written, for the stack's own start.
const SPARE_BYTES: u64 = 8 << 20;

/// How to copy, and what.
pub struct Precopy<'a> {
    pub sources: &'a [Source],
    pub scan: &'a dyn Fn() -> Result<Inventory>,
    pub layout: &'a dyn Fn(&Inventory) -> Result<Layout>,
    /// See [`ReadOptions::share`].
    pub share: Option<ShareOptions<'a>>,
    pub cancel: &'a AtomicBool,
    /// See [`PASS_FROM_BYTES`] and [`SETTLED_AFTER`](scan::SETTLED_AFTER).
    pub pass_from_bytes: u64,
    pub settled_after: Duration,
    /// Of the store's file system.
    pub available_bytes: &'a dyn Fn() -> Result<u64>,
}

/// A draft in the store.
pub struct Drafted {
    pub partial: Partial,
    /// Files without a name, beside the partial, with what is newer.
    scratches: Vec<File>,
    draft: Draft,
    pub pass_count: u32,
    /// By the last pass.
    pub copied_bytes: u64,
    /// By the last pass, until the stack is down.
    deferred_bytes: u64,
    /// Whether a pass has compared blocks.
    has_compared: bool,
    pub summary: WriteSummary,
    /// Bytes in files that have to be read while the stack is down, since
    /// their file system does not tell of every change.
    pub untrusted_bytes: u64,
}

/// An archive that lacks its manifest.
pub struct Finished {
    pub partial: Partial,
    pub layout: Layout,
    /// What it had shared and does not any more.
    pub unshared_bytes: u64,
}

impl Precopy<'_> {
    /// Copies everything once, and what changes meanwhile again for as long as
    /// that leaves less and less. `None` if none of the data is on a file
    /// system that tells of every change.
    pub fn draft(&self, inventory: Inventory, partial: Partial) -> Result<Option<Drafted>> {
        let trust = self.sync(&inventory)?;
        if !trust.is_of_any() {
            return Ok(None);
        }
        let untrusted_bytes = inventory.content_bytes() - trust.trusted_bytes(&inventory);
        let layout = (self.layout)(&inventory)?;
        let archive_bytes = layout.archive_bytes();
        let reading = self.reading(true);
        let (draft, written) = Draft::write(
            layout,
            &inventory,
            reading,
            (&trust, self.settled_after),
            partial.file(),
        )
        .with_context(|| format!("write draft {}", partial.path().display()))?;
        drop(inventory);
        let mut drafted = Drafted {
            partial,
            scratches: Vec::new(),
            draft,
            pass_count: 1,
            copied_bytes: archive_bytes - written.deferred_bytes,
            deferred_bytes: written.deferred_bytes,
            has_compared: false,
            summary: written.summary,
            untrusted_bytes,
        };
        while drafted.pass_count < PASSES_MAX && self.pass(&mut drafted)? {}
        Ok(Some(drafted))
    }

    /// Brings the draft up to date. False if it was not worth it.
    fn pass(&self, drafted: &mut Drafted) -> Result<bool> {
        let inventory = (self.scan)()?;
        let layout = (self.layout)(&inventory)?;
        let update = drafted.draft.compare(layout, &inventory);
        // What was left out will be once more.
        let delta_bytes = update.delta_bytes().saturating_sub(drafted.deferred_bytes);
        // How much less than that is to be written only the first time shows.
        let is_comparable = update.is_comparable();
        let is_less =
            delta_bytes < drafted.copied_bytes / 2 || is_comparable && !drafted.has_compared;
        let is_worthwhile = delta_bytes > self.pass_from_bytes && is_less;
        // The running stack may need room there, too.
        if !is_worthwhile || delta_bytes > (self.available_bytes)()? / 2 {
            return Ok(false);
        }
        tracing::info!(changed = human_bytes(delta_bytes), "copying what changed");
        let trust = self.sync(&inventory)?;
        let update = self.write(drafted, update, &inventory, true)?;
        drafted.has_compared |= is_comparable;
        drafted.deferred_bytes = update.deferred_bytes();
        drafted.copied_bytes = update.delta_bytes() - update.deferred_bytes();
        drafted.draft.advance(update, &inventory, &trust);
        drafted.pass_count += 1;
        Ok(true)
    }

    /// With the stack down: what the draft has not is copied. `None` if there
    /// is no room for it beside the draft.
    pub fn update(&self, drafted: &mut Drafted, inventory: &Inventory) -> Result<Option<Update>> {
        let update = drafted.draft.compare((self.layout)(inventory)?, inventory);
        if update.delta_bytes() + SPARE_BYTES > (self.available_bytes)()? {
            return Ok(None);
        }
        self.write(drafted, update, inventory, false).map(Some)
    }

    fn write(
        &self,
        drafted: &mut Drafted,
        mut update: Update,
        inventory: &Inventory,
        is_live: bool,
    ) -> Result<Update> {
        if update.out() == drafted.files().len() {
            drafted.scratches.push(drafted.partial.scratch()?);
        }
        let out = drafted.files()[update.out()];
        update
            .write(&drafted.draft, inventory, self.reading(is_live), out)
            .with_context(|| format!("write draft {}", drafted.partial.path().display()))?;
        Ok(update)
    }

    /// With the stack up again: the draft becomes the archive.
    pub fn finish(&self, drafted: Drafted, update: Update) -> Result<Finished> {
        let room_bytes = (self.available_bytes)()?;
        let applied = update
            .assemble(&drafted.files(), room_bytes, self.cancel)
            .with_context(|| format!("put together {}", drafted.partial.path().display()))?;
        tracing::info!(
            copied = human_bytes(applied.copied_bytes),
            "draft brought up to date"
        );
        let Drafted {
            mut partial,
            mut scratches,
            ..
        } = drafted;
        if let Some(scratch) = applied.file.checked_sub(1) {
            partial.replace(scratches.swap_remove(scratch))?;
        }
        // They would keep blocks shared.
        drop(scratches);
        // The stack needs room, too.
        let unshared_bytes = match update.contended_bytes() < (self.available_bytes)()? / 2 {
            true => update
                .unshare(partial.file(), self.cancel)
                .with_context(|| format!("write {}", partial.path().display()))?,
            false => {
                tracing::info!("blocks stay shared, since little room is left");
                0
            }
        };
        if unshared_bytes > 0 {
            let unshared = human_bytes(unshared_bytes);
            tracing::info!(unshared, "blocks of its own for what is being written to");
        }
        Ok(Finished {
            partial,
            layout: update.into_layout(),
            unshared_bytes,
        })
    }

    fn sync(&self, inventory: &Inventory) -> Result<Trust> {
        scan::sync(self.sources, inventory).context("sync the stack's file systems")
    }

    fn reading(&self, is_live: bool) -> ReadOptions<'_> {
        ReadOptions {
            sources: self.sources,
            cancel: self.cancel,
            is_live,
            share: self.share,
        }
    }
}

impl Drafted {
    /// As the draft counts them.
    fn files(&self) -> Vec<&File> {
        let scratches = self.scratches.iter();
        std::iter::once(self.partial.file())
            .chain(scratches)
            .collect()
    }
}
