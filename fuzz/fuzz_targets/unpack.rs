//! An archive that `verify` finds sound can be unpacked, and nothing is written outside
//! of the directory, whatever the bytes are.
#![no_main]

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use docker_stack_backup::archive::verify::verify;
use docker_stack_backup::restore::selection::Selection;
use docker_stack_backup::restore::{Archive, to_directory};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = place.path().join("archive.tar");
    fs::write(&path, bytes).unwrap();
    let (parent, cancel) = (place.path().join("parent"), AtomicBool::new(false));
    fs::create_dir(&parent).unwrap();
    fs::write(parent.join("beside"), "as it was").unwrap();
    let archive = Archive::open(&path).unwrap();
    let into = parent.join("into");
    let unpacked = to_directory(&archive, &into, &Selection::default(), false, &cancel);

    // `beside` and `into`; above them the archive and `parent`.
    for dir in [&parent, place.path()] {
        let names: Vec<_> = fs::read_dir(dir).unwrap().flatten().collect();
        assert!(names.len() <= 2, "{names:?}");
    }
    let beside = fs::read_to_string(parent.join("beside")).unwrap();
    assert_eq!(beside, "as it was");
    let verified = verify(PathBuf::from("archive"), &File::open(&path).unwrap(), None, &cancel);
    let verified = verified.unwrap();
    if verified.problems.is_empty() && verified.notes.is_empty() {
        // What needs privileges that the fuzzer lacks is refused, not wrong.
        if let Err(error) = unpacked {
            let error = format!("{error:#}");
            let is_of_system = ["Permission denied", "Operation not", "File name too long"];
            assert!(is_of_system.iter().any(|text| error.contains(text)), "{error}");
        }
    }
});
