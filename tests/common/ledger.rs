//! A stack with a database-like writer. At a clean stop the writer stores
//! checksums of its data, so a test can check any archive.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::disk::Disk;
use super::{Place, Stack, output, succeed, wait_until};

const MIB: usize = 1 << 20;

/// How much of the stack's data is old and how much has changed before a
/// backup.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Size of the file that is never written to.
    pub old_mib: usize,
    /// Size of the file whose mtime is updated all the time.
    pub young_mib: usize,
    /// Bytes by which each write changes the length of the log, which precedes
    /// both files in the archive. Negative if the log shrinks.
    pub grows: i64,
}

pub struct Ledger {
    pub stack: Stack,
    pub place: Place,
    states: Vec<String>,
    /// The archive of the first run, and its bytes.
    pub older: (PathBuf, Vec<u8>),
    /// Number of later archives that were checked and removed.
    pub good_count: usize,
    old: Vec<u8>,
    beyond_files_at_first_bytes: i64,
}

impl Ledger {
    /// Starts the stack in a place on `disk`, and archives it once.
    pub fn new(disk: &Disk, shape: Shape, options: Value) -> Ledger {
        let place = Place::on(disk);
        let stack = place.stack("ledger");
        let env = format!("GROWS={}\nTOUCHES=../young\n", shape.grows);
        fs::write(stack.dir.join(".env"), env).unwrap();
        for dir in ["ahead", "data"] {
            fs::create_dir(stack.dir.join(dir)).unwrap();
        }
        let old = pattern(shape.old_mib * MIB);
        fs::write(stack.dir.join("bulk"), &old).unwrap();
        fs::write(stack.dir.join("young"), pattern(shape.young_mib * MIB)).unwrap();
        fs::write(stack.dir.join("ahead/log"), pattern(4 * MIB)).unwrap();
        fs::write(stack.dir.join("data/pages"), pattern(2 * MIB)).unwrap();
        for segment in ["wal.0", "wal.1", "wal.2"] {
            fs::write(stack.dir.join("data").join(segment), pattern(100_000)).unwrap();
        }
        // Wait until the files are old enough to count as unchanging.
        std::thread::sleep(std::time::Duration::from_millis(2100));
        stack.up();
        let mut entry = options;
        entry["name"] = stack.name.clone().into();
        place.config(json!([entry]), json!({}));
        let mut ledger = Ledger {
            states: stack.states(),
            stack,
            place,
            older: (PathBuf::new(), Vec::new()),
            good_count: 0,
            old,
            beyond_files_at_first_bytes: 0,
        };
        ledger.place.run().expect_status(0);
        let older = ledger.archives().pop().unwrap();
        ledger.assert_good(&older, "the first run");
        ledger.older = (older.clone(), fs::read(older).unwrap());
        ledger.beyond_files_at_first_bytes = ledger.beyond_files_bytes();
        ledger
    }

    pub fn store(&self) -> PathBuf {
        self.place.store().join(&self.stack.name)
    }

    /// All files with the name of a finished archive, sorted.
    pub fn archives(&self) -> Vec<PathBuf> {
        let mut names = self.place.stored(&self.stack.name);
        names.retain(|name| name.ends_with(".tar"));
        names.iter().map(|name| self.store().join(name)).collect()
    }

    pub fn has_partial(&self) -> bool {
        let names = self.place.stored(&self.stack.name);
        names.iter().any(|name| name.ends_with(".partial"))
    }

    /// Extracts an archive, and checks that it holds the data of the writer's
    /// last clean stop and the unchanged old file.
    #[track_caller]
    pub fn assert_good(&self, archive: &PathBuf, point: &str) {
        let target = tempfile::tempdir().unwrap();
        let paths = [archive.to_str().unwrap(), target.path().to_str().unwrap()];
        succeed("tar", ["-xf", paths[0], "-C", paths[1]]);
        let tree = target.path().join(&self.stack.name);
        let mut check = Command::new("sha256sum");
        check.args(["--check", "--quiet", "~sums"]);
        let checked = output(check.current_dir(tree.join("data")));
        assert_eq!(checked.status, 0, "{point}: {archive:?}: {checked:?}");
        let bulk = fs::read(tree.join("bulk")).unwrap();
        assert!(bulk == self.old, "{point}: {archive:?}");
    }

    /// Checks everything that must hold after `recover` or after the next run.
    #[track_caller]
    pub fn assert_recovered(&mut self, point: &str) {
        assert_eq!(self.stack.states(), self.states, "{point}");
        let mut entries = self.place.journalled();
        entries.retain(|name| name.ends_with(".json"));
        assert_eq!(entries, [""; 0], "{point}");
        let names = self.place.stored(&self.stack.name);
        assert!(
            names.iter().all(|name| name.ends_with(".tar")),
            "{point}: {names:?}"
        );
        output(&mut self.place.program(&["verify"])).expect_status(0);
        // The older one was good, and must be the same to the byte.
        let newer = self.archives().into_iter();
        for archive in newer.filter(|archive| *archive != self.older.0) {
            self.assert_good(&archive, point);
            fs::remove_file(archive.with_extension("sums")).unwrap();
            fs::remove_file(archive).unwrap();
            self.good_count += 1;
        }
        assert!(
            fs::read(&self.older.0).unwrap() == self.older.1,
            "{point}: the older archive changed"
        );
        self.assert_no_room_is_lost(point);
    }

    /// Checks that no partial and no deleted but open file takes up space.
    #[track_caller]
    fn assert_no_room_is_lost(&self, point: &str) {
        wait_until(&format!("{point}: no space is lost"), || {
            self.beyond_files_bytes() < self.beyond_files_at_first_bytes + SPARE_BYTES
        });
    }

    /// Bytes used on the disk minus the bytes of its files. Negative if files
    /// share blocks.
    fn beyond_files_bytes(&self) -> i64 {
        let place = self.place.path("");
        let place = place.to_str().unwrap();
        succeed("sync", ["-f", place]);
        let numbers = succeed("stat", ["-f", "-c", "%b %f %S", place]);
        let numbers: Vec<i64> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
        let files = succeed("du", ["-s", "-B1", place]);
        let files: i64 = files.split('\t').next().unwrap().parse().unwrap();
        (numbers[0] - numbers[1]) * numbers[2] - files
    }
}

/// Allowance for blocks that are no longer shared because the writer wrote to
/// them.
const SPARE_BYTES: i64 = 12 << 20;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 4096 % 251) as u8 + 1).collect()
}
