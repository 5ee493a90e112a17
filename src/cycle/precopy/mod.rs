//! Copying a stack's data while it is up, so that little is left to copy while
//! it is down.
//!
//! The order is: scan, sync, read. A store to a file after the sync, also through
//! a mapping, moves the file's ctime, and the next scan sees that. What was stored
//! before the sync is read after it.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::archive::{
    Draft, Layout, ReadOptions, RenderedHashes, ShareOptions, Update, WriteSummary,
};
use crate::scan::{self, Inventory, Source, TrackedDevices};
use crate::store::Partial;
use crate::sys::format::human_bytes;

/// A further pass is made only if more than this changed: less is read within a
/// fraction of a second.
pub const PASS_FROM_BYTES: u64 = 64 << 20;
/// The number of passes is limited, because a stack may write as fast as it is
/// copied.
const PASSES_MAX: u32 = 4;

/// Room that stays free in the store when what changed is written: the stack may
/// need it to start.
const RESERVED_FOR_START_BYTES: u64 = 8 << 20;

/// The data to copy, and how to copy it.
pub struct Precopy<'a> {
    pub sources: &'a [Source],
    pub scan: &'a dyn Fn() -> Result<Inventory>,
    pub layout: &'a dyn Fn(&Inventory) -> Result<Layout>,
    /// See [`ReadOptions::share`].
    pub share: Option<ShareOptions<'a>>,
    /// Whether what is copied while the stack is up is hashed. What is copied while
    /// it is down is not: that would add to the downtime.
    pub hash: bool,
    pub cancel: &'a AtomicBool,
    /// See [`PASS_FROM_BYTES`].
    pub pass_from_bytes: u64,
    /// See [`SETTLED_AFTER`](scan::SETTLED_AFTER).
    pub settled_after: Duration,
    /// Free bytes on the store's file system.
    pub available_bytes: &'a dyn Fn() -> Result<u64>,
}

/// A draft in the store.
pub struct StoredDraft {
    partial: Partial,
    /// Files without a name, beside the partial, that hold later passes.
    scratches: Vec<File>,
    draft: Draft,
    pub pass_count: u32,
    /// Bytes copied by the last pass.
    copied_bytes: u64,
    /// Bytes that the last pass skipped; they are copied once the stack is down.
    deferred_bytes: u64,
    /// Whether a pass has compared blocks.
    has_compared: bool,
    /// What the first pass found.
    pub summary: WriteSummary,
    /// Bytes in files that must be read while the stack is down, because their
    /// file system does not track every change.
    pub untracked_bytes: u64,
}

/// An archive that lacks only its manifest.
pub struct FinishedDraft {
    pub partial: Partial,
    pub layout: Layout,
    pub hashes: RenderedHashes,
    /// Bytes that were shared and have blocks of their own now.
    pub unshared_bytes: u64,
}

impl Precopy<'_> {
    /// Copies everything once, and then what changed meanwhile, as long as each
    /// pass leaves much less than the one before. `None` if no file system of the
    /// sources tracks every change.
    pub fn draft(&self, inventory: Inventory, partial: Partial) -> Result<Option<StoredDraft>> {
        let tracked = self.sync(&inventory)?;
        if !tracked.is_any() {
            return Ok(None);
        }
        let untracked_bytes = inventory.content_bytes() - tracked.content_bytes(&inventory);
        let layout = (self.layout)(&inventory)?;
        let archive_bytes = layout.archive_bytes();
        let reading = self.reading(true);
        let (draft, written) = Draft::write(
            layout,
            &inventory,
            reading,
            (&tracked, self.settled_after),
            partial.file(),
        )
        .with_context(|| cannot_write(&partial))?;
        drop(inventory);
        let mut stored = StoredDraft {
            partial,
            scratches: Vec::new(),
            draft,
            pass_count: 1,
            copied_bytes: archive_bytes - written.deferred_bytes,
            deferred_bytes: written.deferred_bytes,
            has_compared: false,
            summary: written.summary,
            untracked_bytes,
        };
        while stored.pass_count < PASSES_MAX && self.pass(&mut stored)? {}
        Ok(Some(stored))
    }

    /// Brings the draft up to date. False, with nothing done, if that is not
    /// worthwhile.
    fn pass(&self, stored: &mut StoredDraft) -> Result<bool> {
        let inventory = (self.scan)()?;
        let layout = (self.layout)(&inventory)?;
        let update = stored.draft.compare(layout, &inventory);
        // A pass leaves out again what the last pass left out.
        let fresh_bytes = update.delta_bytes().saturating_sub(stored.deferred_bytes);
        // Only the first comparison of blocks shows how much less than
        // `fresh_bytes` has to be written.
        let is_comparable = update.is_comparable();
        let is_less =
            fresh_bytes < stored.copied_bytes / 2 || is_comparable && !stored.has_compared;
        let is_worthwhile = fresh_bytes > self.pass_from_bytes && is_less;
        // The running stack may need room on that file system too.
        if !is_worthwhile || fresh_bytes > (self.available_bytes)()? / 2 {
            return Ok(false);
        }
        tracing::info!(changed = human_bytes(fresh_bytes), "copying what changed");
        let tracked = self.sync(&inventory)?;
        let update = self.write(stored, update, &inventory, true)?;
        stored.has_compared |= is_comparable;
        stored.deferred_bytes = update.deferred_bytes();
        stored.copied_bytes = update.delta_bytes() - update.deferred_bytes();
        stored.draft.advance(update, &inventory, &tracked);
        stored.pass_count += 1;
        Ok(true)
    }

    /// Copies what the draft lacks; the stack must be down. `None` if there is no
    /// room for it beside the draft.
    pub fn update(
        &self,
        stored: &mut StoredDraft,
        inventory: &Inventory,
    ) -> Result<Option<Update>> {
        let update = stored.draft.compare((self.layout)(inventory)?, inventory);
        if update.delta_bytes() + RESERVED_FOR_START_BYTES > (self.available_bytes)()? {
            return Ok(None);
        }
        self.write(stored, update, inventory, false).map(Some)
    }

    fn write(
        &self,
        stored: &mut StoredDraft,
        mut update: Update,
        inventory: &Inventory,
        is_live: bool,
    ) -> Result<Update> {
        if update.out() == stored.files().len() {
            stored.scratches.push(stored.partial.scratch()?);
        }
        let out = stored.files()[update.out()];
        update
            .write(&stored.draft, inventory, self.reading(is_live), out)
            .with_context(|| cannot_write(&stored.partial))?;
        Ok(update)
    }

    /// Makes the draft and its update one archive. The stack may be up: it is not
    /// read any more.
    pub fn assemble(&self, stored: StoredDraft, mut update: Update) -> Result<FinishedDraft> {
        let available_bytes = (self.available_bytes)()?;
        let applied = update
            .assemble(&stored.files(), available_bytes, self.cancel)
            .with_context(|| format!("cannot assemble {}", stored.partial.path().display()))?;
        tracing::info!(
            copied = human_bytes(applied.copied_bytes),
            "draft brought up to date"
        );
        let StoredDraft {
            mut partial,
            mut scratches,
            draft,
            ..
        } = stored;
        if let Some(scratch) = applied.file.checked_sub(1) {
            partial.replace(scratches.swap_remove(scratch))?;
        }
        // The other files would keep blocks shared.
        drop(scratches);
        // The running stack may need room too.
        let unshared_bytes = match update.contended_bytes() < (self.available_bytes)()? / 2 {
            true => update
                .unshare(partial.file(), self.cancel)
                .with_context(|| cannot_write(&partial))?,
            false => {
                tracing::info!("blocks stay shared, since little room is left");
                0
            }
        };
        if unshared_bytes > 0 {
            let unshared = human_bytes(unshared_bytes);
            tracing::info!(unshared, "files in use have blocks of their own again");
        }
        Ok(FinishedDraft {
            partial,
            hashes: draft.into_hashes(&mut update),
            layout: update.into_layout(),
            unshared_bytes,
        })
    }

    fn sync(&self, inventory: &Inventory) -> Result<TrackedDevices> {
        scan::sync(self.sources, inventory).context("cannot sync the stack's file systems")
    }

    fn reading(&self, is_live: bool) -> ReadOptions<'_> {
        ReadOptions {
            sources: self.sources,
            cancel: self.cancel,
            is_live,
            share: self.share,
            hash: self.hash && is_live,
        }
    }
}

impl StoredDraft {
    /// Its files in the order in which the draft numbers them.
    fn files(&self) -> Vec<&File> {
        let scratches = self.scratches.iter();
        std::iter::once(self.partial.file())
            .chain(scratches)
            .collect()
    }
}

fn cannot_write(partial: &Partial) -> String {
    format!("cannot write {}", partial.path().display())
}
