//! The reader of archives finds the same members in a file and in a stream, and the
//! same in two passes, whatever the bytes are.
#![no_main]

use std::fs::File;
use std::io::{Cursor, Write};

use docker_stack_backup::archive::{Input, Reader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let of_file = members(Input::File(&file(bytes)));
    let of_stream = members(Input::Stream(Box::new(Cursor::new(bytes.to_vec()))));
    assert_eq!(of_file, of_stream);
});

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
