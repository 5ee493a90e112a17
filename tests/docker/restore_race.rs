//! Restores while something exchanges what is unpacked for symlinks all the time,
//! as a container can that has the directory above mounted.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::common::{Place, output};
use rustix::fs::{CWD, FileType, Mode, RenameFlags};
use serde_json::json;

const COUNT: usize = 1500;

fn name(number: usize) -> String {
    format!("p{number:06}")
}

/// Exchanges FIFOs in `dir` for symlinks in `links` while `run` runs. Returns how
/// many were exchanged.
fn swapping(dir: &Path, links: &Path, run: impl FnOnce()) -> u64 {
    let (ends, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                for number in 0..COUNT {
                    let (fifo, link) = (dir.join(name(number)), links.join(name(number)));
                    let exchange = RenameFlags::EXCHANGE;
                    if rustix::fs::renameat_with(CWD, &fifo, CWD, &link, exchange).is_ok() {
                        swaps.fetch_add(1, Ordering::Relaxed);
                    } else {
                        // Nothing is there yet: begin with the first again.
                        break;
                    }
                }
            }
        });
        run();
        ends.store(true, Ordering::Relaxed);
    });
    swaps.into_inner()
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn symlinks_that_are_exchanged_all_the_time_change_nothing_outside() {
    let place = Place::new();
    let stack = place.stack("paused");
    let fifos = stack.dir.join("fifos");
    fs::create_dir(&fifos).unwrap();
    for number in 0..COUNT {
        let path = fifos.join(name(number));
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o666)).unwrap();
    }
    stack.up();
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
    let victim = place.path("victim");
    fs::write(&victim, "secret").unwrap();
    rustix::fs::chmod(&victim, Mode::from_raw_mode(0o600)).unwrap();
    let before = fs::metadata(&victim).unwrap();
    let out = place.path("out");
    let staging = place
        .path("stacks")
        .join(format!(".{}.restore", stack.name));
    let drilled = place
        .state()
        .join("drill")
        .join(&stack.name)
        .join("unpacked");
    let to = ["restore", &stack.name, "--to", out.to_str().unwrap()];
    let in_place = ["restore", &stack.name, "--yes"];
    let keep_old = ["restore", &stack.name, "--yes", "--keep-old"];
    let drill = ["drill", &stack.name];
    let ways: [(&[&str], PathBuf); 4] = [
        (&to, out.join(&stack.name)),
        (&in_place, staging.clone()),
        (&keep_old, staging),
        (&drill, drilled.join(&stack.name)),
    ];
    for (args, unpacked) in ways {
        let links = place.path("links");
        let _ = fs::remove_dir_all(&links);
        fs::create_dir(&links).unwrap();
        for number in 0..COUNT {
            symlink(&victim, links.join(name(number))).unwrap();
        }
        let mut program: Command = place.program(args);
        let swaps = swapping(&unpacked.join("fifos"), &links, || {
            // It may succeed or be refused.
            let ended = output(&mut program);
            assert!(
                [0, 1, 2].contains(&ended.status),
                "{args:?}: {}",
                ended.stderr
            );
        });
        // The control: there were symlinks in the way.
        assert!(swaps > 0, "{args:?}");
        let now = fs::metadata(&victim).unwrap();
        let seen = |metadata: &fs::Metadata| {
            (
                metadata.mode(),
                metadata.uid(),
                metadata.mtime(),
                metadata.mtime_nsec(),
            )
        };
        assert_eq!(seen(&now), seen(&before), "{args:?}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "secret");
        assert_eq!(stack.states(), ["app:running"], "{args:?}");
        // The next way starts from a whole stack.
        output(&mut place.program(&["recover"])).expect_status(0);
    }
}
