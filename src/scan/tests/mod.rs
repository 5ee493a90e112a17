//! Tests of scans, and what they share.

mod attributes;
mod inventory;
mod patterns;
mod source;

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::{Exclude, Inventory, Source, scan};
use crate::sys::format::display_path;

fn tree(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    dir
}

fn scan_with(sources: &[Source], patterns: &[&str], exclude_caches: bool) -> Inventory {
    let patterns: Vec<String> = patterns
        .iter()
        .map(|pattern| (*pattern).to_owned())
        .collect();
    let exclude = Exclude::new(&patterns).unwrap();
    scan(sources, &exclude, exclude_caches, &AtomicBool::new(false)).unwrap()
}

fn paths(inventory: &Inventory) -> Vec<String> {
    let mut path = Vec::new();
    (0..inventory.entries.len())
        .map(|index| {
            inventory.member_path(index, &mut path);
            display_path(&path)
        })
        .collect()
}

fn scan_paths(dir: &Path, patterns: &[&str], exclude_caches: bool) -> (Vec<String>, u64) {
    let inventory = scan_with(&[Source::open("s", dir).unwrap()], patterns, exclude_caches);
    (paths(&inventory), inventory.excluded_count())
}
