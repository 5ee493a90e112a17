//! Whole archives: written from real trees, and read by common tar
//! implementations.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use super::{Layout, ManifestSlot, identify, read_manifest, write_manifest, write_members};
use super::{ReadOptions, WriteSummary};
use crate::scan::{Exclude, Inventory, Source, scan};

mod damage;
mod differs;
pub(crate) mod facts;
mod foreign;
pub(crate) mod forge;
mod hostile;
mod layout;
mod looking;
mod manifest;
mod moves;
mod order;
mod races;
mod readers;
mod restored;
mod tools;
pub(crate) mod tree;

pub(crate) static GO_ON: AtomicBool = AtomicBool::new(false);

const MANIFEST: &[u8] = br#"{"formatVersion":1}"#;

fn slot() -> ManifestSlot {
    ManifestSlot {
        name: "stack.manifest.json".to_owned(),
        reserved_bytes: 6000,
        mtime_s: 1_700_000_000,
    }
}

fn sources(tree: &Path) -> Vec<Source> {
    vec![Source::open("stack", tree).unwrap()]
}

fn reading<'a>(sources: &'a [Source], cancel: &'a AtomicBool) -> ReadOptions<'a> {
    ReadOptions {
        sources,
        cancel,
        is_live: false,
        share: None,
        hash: false,
    }
}

fn scan_all(sources: &[Source]) -> Inventory {
    scan(sources, &Exclude::new(&[]).unwrap(), false, &GO_ON).unwrap()
}

/// Writes an archive of the scanned `sources` to `path`.
fn write_scanned(sources: &[Source], inventory: &Inventory, path: &Path) -> WriteSummary {
    let layout = Layout::new(inventory, &slot());
    let out = File::create(path).unwrap();
    let (summary, _) = write_members(&layout, inventory, reading(sources, &GO_ON), &out).unwrap();
    write_manifest(&layout, &out, MANIFEST).unwrap();
    assert_eq!(out.metadata().unwrap().len(), layout.archive_bytes());
    summary
}

/// Archives `tree` as `stack` to `path`.
pub(crate) fn archive(tree: &Path, path: &Path) -> Inventory {
    let sources = sources(tree);
    let inventory = scan_all(&sources);
    let summary = write_scanned(&sources, &inventory, path);
    assert_eq!(summary, WriteSummary::default());
    inventory
}
