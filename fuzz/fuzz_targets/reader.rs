//! The reader of archives finds the same members in a file and in a stream, and the
//! same in two passes, whatever the bytes are. A tree is made of them, or refused.
#![no_main]

use std::fs::File;
use std::io::{Cursor, Write};
use std::sync::atomic::AtomicBool;

use docker_stack_backup::archive::tree::{ArchiveTree, NodeKind, SumsUse};
use docker_stack_backup::archive::{Input, Reader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let of_file = members(Input::File(&file(bytes)));
    let of_stream = members(Input::Stream(Box::new(Cursor::new(bytes.to_vec()))));
    assert_eq!(of_file, of_stream);
    tree(&file(bytes));
});

/// Makes a tree of the members, lists it, and reads the beginning of each file.
fn tree(file: &File) {
    let never = AtomicBool::new(false);
    let Ok(mut reader) = Reader::new(Input::File(file)) else {
        return;
    };
    let Ok(tree) = ArchiveTree::read(&mut reader, SumsUse::None, &never) else {
        return;
    };
    let listed = tree.list(ArchiveTree::ROOT, b"", usize::MAX, |_| Ok(()));
    listed.unwrap();
    let mut buffer = [0; 4096];
    for id in 0..tree.node_count() {
        if let NodeKind::File(data) = &tree.node(id as u32).kind {
            let _ = data.read_at(file, &mut buffer, 0);
            let _ = (data.next_data(0), data.next_hole(0));
        }
    }
}

/// Members until the first error: the path and how much data was read.
fn members(input: Input<'_>) -> Vec<(Vec<u8>, usize)> {
    let mut found = Vec::new();
    let Ok(mut reader) = Reader::new(input) else {
        return found;
    };
    let mut buffer = [0; 4096];
    while let Ok(Some(member)) = reader.next_member() {
        let mut bytes = 0;
        // A sparse file can be as large as it claims to be.
        while bytes < 1 << 20 {
            match reader.read_data(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(got) => bytes += got,
            }
        }
        found.push((member.path, bytes));
    }
    found
}

fn file(bytes: &[u8]) -> File {
    let fd = rustix::fs::memfd_create("archive", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(fd);
    file.write_all(bytes).unwrap();
    file
}
