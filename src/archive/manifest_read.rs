use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

use crate::archive::tar::BLOCK_BYTES;

/// What a manifest's name ends with, after the name of the stack.
const MANIFEST_SUFFIX: &[u8] = b".manifest.json";

/// No manifest is as long; more in a header is damage.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The manifest's JSON, without the padding. `None` if the archive's first
/// member is no manifest: GNU tar or the script that this program replaces
/// wrote it.
///
/// Fails if the file is no tar file, cannot be read, or ends within the
/// manifest. Does not move the file's position.
pub fn read_manifest(file: &File) -> Result<Option<Vec<u8>>> {
    manifest_of(ReadAt { file, position: 0 })
}

/// The same of a stream, and all that was read of it: a reader needs that, too.
pub fn read_manifest_of_stream(stream: impl Read) -> Result<(Option<Vec<u8>>, Vec<u8>)> {
    let mut kept = Kept {
        stream,
        read: Vec::new(),
    };
    let manifest = manifest_of(&mut kept)?;
    Ok((manifest, kept.read))
}

fn manifest_of(archive: impl Read) -> Result<Option<Vec<u8>>> {
    let mut archive = tar::Archive::new(archive.take(MANIFEST_BYTES_MAX));
    let mut members = archive.entries().context("read manifest")?;
    let Some(first) = members.next() else {
        return Ok(None);
    };
    let mut first = first.context("read first header")?;
    let name = first.path_bytes();
    let is_manifest = first.header().entry_type().is_file()
        && name.ends_with(MANIFEST_SUFFIX)
        && !name.contains(&b'/');
    if !is_manifest {
        return Ok(None);
    }
    let mut json = Vec::new();
    let bytes = first.size();
    first.read_to_end(&mut json).context("read manifest")?;
    ensure!(json.len() as u64 == bytes, "archive ends in its manifest");
    json.truncate(json.trim_ascii_end().len());
    Ok(Some(json))
}

/// Whether the archive has its end: a whole number of blocks of which the last
/// two are zeros, and as many bytes as its manifest says. Without a manifest a
/// cut after a kilobyte of zeros in a member is not seen.
pub fn is_complete(file: &File) -> io::Result<bool> {
    let bytes = file.metadata()?.len();
    const END_BYTES: u64 = 2 * BLOCK_BYTES;
    if bytes % BLOCK_BYTES != 0 || bytes < END_BYTES {
        return Ok(false);
    }
    let mut end = [1; END_BYTES as usize];
    file.read_exact_at(&mut end, bytes - END_BYTES)?;
    Ok(end.iter().all(|byte| *byte == 0) && has_recorded_length(file, bytes))
}

fn has_recorded_length(file: &File, bytes: u64) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Recorded {
        archive_bytes: Option<u64>,
    }
    match read_manifest(file) {
        Ok(None) => true,
        Ok(Some(json)) => serde_json::from_slice(&json)
            .is_ok_and(|recorded: Recorded| recorded.archive_bytes.is_none_or(|b| b == bytes)),
        Err(_) => false,
    }
}

/// Reads a file from its start without moving its position.
struct ReadAt<'a> {
    file: &'a File,
    position: u64,
}

impl Read for ReadAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(buffer, self.position)?;
        self.position += got as u64;
        Ok(got)
    }
}

/// Keeps what is read.
struct Kept<R> {
    stream: R,
    read: Vec<u8>,
}

impl<R: Read> Read for Kept<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.stream.read(buffer)?;
        self.read.extend_from_slice(&buffer[..got]);
        Ok(got)
    }
}
