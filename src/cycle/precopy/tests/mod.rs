//! A tree is written to in every possible way while it is copied. The archive must
//! equal one that is made of the same tree while nobody writes to it.

mod disk;
mod limits;
mod mutations;
mod property;
mod slow_writes;
mod writers;

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::civil::datetime;

use super::{PASS_FROM_BYTES, Precopy, StoredDraft};
use crate::archive::verify::read_back;
use crate::archive::{
    Layout, ManifestSlot, ReadOptions, ShareOptions, Update, write_manifest, write_members,
};
use crate::config::Verify;
use crate::scan::{self, Exclude, Inventory, Source};
use crate::store::Store;

static NOT_CANCELLED: AtomicBool = AtomicBool::new(false);

/// The manifest's place in the layouts of these tests. It stays empty.
const MANIFEST_BYTES: usize = 8192;

/// How a tree is copied.
#[derive(Clone, Copy)]
struct Terms {
    /// Blocks are shared if this is set; see [`ShareOptions::deferred_from_bytes`].
    deferred_from_bytes: Option<u64>,
    settled_after: Duration,
    pass_from_bytes: u64,
    /// Length of a file that no writer changes. Without it, a slow machine makes no
    /// second pass, because more than half of the tree changes during the first.
    unchanged_bytes: usize,
}

/// For file systems that stamp by the kernel's clock, which ticks every 1 to 10 ms.
const TICKS: Terms = Terms {
    deferred_from_bytes: None,
    settled_after: Duration::from_millis(25),
    pass_from_bytes: PASS_FROM_BYTES,
    unchanged_bytes: 16 << 20,
};

/// For file systems that stamp in whole seconds. The tree is small, so that it is
/// written, scanned and copied within a second.
const SECONDS: Terms = Terms {
    settled_after: Duration::from_millis(1100),
    unchanged_bytes: 0,
    ..TICKS
};

fn layout(inventory: &Inventory) -> anyhow::Result<Layout> {
    let slot = ManifestSlot {
        name: "stack.manifest.json".to_owned(),
        reserved_bytes: 6000,
        mtime_s: 0,
    };
    Ok(Layout::new(inventory, &slot))
}

/// A tree, and a store for its archive.
struct Setting {
    sources: [Source; 1],
    exclude: Exclude,
    store: Store,
}

impl Setting {
    /// Makes the store in `place`.
    fn new(tree: &Path, place: &Path) -> Setting {
        let store = place.join("store");
        fs::create_dir(&store).unwrap();
        Setting {
            sources: [Source::open("stack", tree).unwrap()],
            exclude: Exclude::new(&[]).unwrap(),
            store: Store::open(&store).unwrap(),
        }
    }

    fn scan(&self) -> anyhow::Result<Inventory> {
        scan::scan(&self.sources, &self.exclude, false, &NOT_CANCELLED)
    }

    fn precopy<T>(&self, terms: Terms, act: impl FnOnce(&Precopy<'_>) -> T) -> T {
        act(&Precopy {
            sources: &self.sources,
            scan: &|| self.scan(),
            layout: &layout,
            share: terms
                .deferred_from_bytes
                .map(|deferred_from_bytes| ShareOptions {
                    unshared: &self.exclude,
                    deferred_from_bytes,
                }),
            hash: true,
            cancel: &NOT_CANCELLED,
            pass_from_bytes: terms.pass_from_bytes,
            settled_after: terms.settled_after,
            available_bytes: &|| self.store.available_bytes(),
        })
    }

    fn draft(&self, precopy: &Precopy<'_>) -> Option<StoredDraft> {
        let partial = self
            .store
            .create_partial("stack", datetime(2026, 1, 2, 3, 4, 5, 0));
        precopy
            .draft(self.scan().unwrap(), partial.unwrap())
            .unwrap()
    }

    /// Returns the archive of `inventory`, made without a draft at `path`.
    fn archive_offline(&self, inventory: &Inventory, path: &Path) -> Vec<u8> {
        let reading = ReadOptions {
            sources: &self.sources,
            cancel: &NOT_CANCELLED,
            is_live: false,
            share: None,
            hash: false,
        };
        let layout = layout(inventory).unwrap();
        let out = File::create(path).unwrap();
        let (summary, _) = write_members(&layout, inventory, reading, &out).unwrap();
        assert_eq!(summary.changed_count, 0);
        fs::read(path).unwrap()
    }
}

/// What a draft and its update become.
struct Assembled {
    bytes: Vec<u8>,
    /// The error of comparing it with the hashes of what was rendered.
    misread: Option<String>,
}

fn assemble(precopy: &Precopy<'_>, draft: StoredDraft, update: Update) -> Assembled {
    let finished = precopy.assemble(draft, update).unwrap();
    let file = finished.partial.file();
    write_manifest(&finished.layout, file, b"{}").unwrap();
    let read = read_back(Verify::Full, file, &finished.hashes, precopy.cancel);
    Assembled {
        bytes: fs::read(finished.partial.path()).unwrap(),
        misread: read.err().map(|error| format!("{error:#}")),
    }
}

/// Compares everything but the manifest, and what was hashed on the way. Fails
/// with a description of the first difference.
fn compare(assembled: &Assembled, expected: &[u8]) -> Result<(), String> {
    let archive = &assembled.bytes;
    if archive[MANIFEST_BYTES..] == expected[MANIFEST_BYTES..] {
        return assembled.misread.clone().map_or(Ok(()), Err);
    }
    let differs = |(a, b): &(&u8, &u8)| a != b;
    let mut both = archive[MANIFEST_BYTES..]
        .iter()
        .zip(&expected[MANIFEST_BYTES..]);
    if let Some(at) = both.position(|pair| differs(&pair)) {
        let at = MANIFEST_BYTES + at;
        let member = member_at(expected, at as u64);
        let count = archive.iter().zip(expected).filter(differs).count();
        return Err(format!(
            "byte {at} and {count} in all are wrong, first in {member}"
        ));
    }
    Err(format!(
        "the archive has {} bytes instead of {}",
        archive.len(),
        expected.len()
    ))
}

/// Names the member that holds a byte, and the byte's place in its data.
fn member_at(archive: &[u8], at: u64) -> String {
    let mut members = tar::Archive::new(&archive[MANIFEST_BYTES..]);
    let mut found = "the end".to_owned();
    for member in members.entries().unwrap() {
        let member = member.unwrap();
        let start = MANIFEST_BYTES as u64 + member.raw_file_position();
        if start + member.size() > at {
            let path = String::from_utf8_lossy(&member.path_bytes()).into_owned();
            found = format!(
                "{path} of {} bytes at {}",
                member.size(),
                at as i64 - start as i64
            );
            break;
        }
    }
    found
}
