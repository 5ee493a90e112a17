//! The maps of sparse files: which parts of a file are stored in the archive.
//! GNU tar has four formats: one in the header ("old GNU"), and 0.0, 0.1 and
//! 1.0 by pax records (GNU tar manual, "Storing Sparse Files").

use anyhow::{Context, Result, bail, ensure};

use crate::archive::tar::BLOCK_BYTES;
use crate::archive::tar::header::{Header, SparseMap, sparse_extension};
use crate::archive::tar::input::BufferedInput;
use crate::archive::tar::records::PaxRecords;
use crate::scan::Extent;

/// More extents in one file are refused.
const EXTENT_COUNT_MAX: usize = 4 << 20;
const TOO_LONG: &str = "its sparse map is too long";

/// A sparse file as the archive stores it.
pub(super) struct SparseFile {
    /// Size of the file, holes included.
    pub(super) file_bytes: u64,
    /// Bytes of data in the archive.
    pub(super) stored_bytes: u64,
    pub(super) extents: Vec<Extent>,
}

/// Reads the map of a sparse file. `input` is where the member's headers end;
/// `size` is the size in them. `None` if the file is not sparse.
pub(super) fn read_sparse(
    input: &mut BufferedInput<'_>,
    header: &Header,
    records: &PaxRecords,
    size: u64,
) -> Result<Option<SparseFile>> {
    let map_start = input.position();
    let (map, file_bytes) = if header.kind() == b'S' {
        read_old_map(input, header)?
    } else if records.get(b"GNU.sparse.major").is_some() {
        let version = (
            records.number(b"GNU.sparse.major")?,
            records.number(b"GNU.sparse.minor")?,
        );
        ensure!(
            version == (Some(1), Some(0)),
            "its sparse format is not supported"
        );
        let file_bytes = records.number(b"GNU.sparse.realsize")?;
        (
            read_map(input, size)?,
            file_bytes.context("its GNU.sparse.realsize is missing")?,
        )
    } else if let Some(file_bytes) = records.number(b"GNU.sparse.size")? {
        (records.sparse_map()?, file_bytes)
    } else {
        return Ok(None);
    };
    // The size counts the map of format 1.0, but not the blocks that continue
    // the header of the old format.
    let stored_bytes = match header.kind() {
        b'S' => size,
        _ => size
            .checked_sub(input.position() - map_start)
            .context("its sparse map is longer than its data")?,
    };
    let extents = checked_extents(&map, file_bytes)?;
    let mapped_bytes = extents.last().map_or(0, |last| last.stored + last.bytes);
    ensure!(
        mapped_bytes == stored_bytes,
        "its sparse map describes {mapped_bytes} bytes, but {stored_bytes} are stored"
    );
    Ok(Some(SparseFile {
        file_bytes,
        stored_bytes,
        extents,
    }))
}

/// Reads the map of the old GNU format, and the file's size.
fn read_old_map(input: &mut BufferedInput<'_>, header: &Header) -> Result<(SparseMap, u64)> {
    let (mut map, mut continues, file_bytes) = header.old_sparse()?;
    while continues {
        ensure!(map.len() < EXTENT_COUNT_MAX, TOO_LONG);
        let mut block = [0; BLOCK_BYTES as usize];
        input.read_exact(&mut block)?;
        let (more, goes_on) = sparse_extension(&block)?;
        ensure!(!more.is_empty(), "its sparse map is damaged");
        map.extend(more);
        continues = goes_on;
    }
    Ok((map, file_bytes))
}

/// Reads the map of format 1.0, at the front of `data_bytes` of data.
fn read_map(input: &mut BufferedInput<'_>, data_bytes: u64) -> Result<SparseMap> {
    let mut blocks_left = data_bytes.div_ceil(BLOCK_BYTES);
    let mut block = [0; BLOCK_BYTES as usize];
    let mut used = block.len();
    let mut number = || -> Result<u64> {
        let mut value: Option<u64> = None;
        loop {
            if used == block.len() {
                ensure!(blocks_left > 0, "its sparse map is longer than its data");
                input.read_exact(&mut block)?;
                (blocks_left, used) = (blocks_left - 1, 0);
            }
            let byte = block[used];
            used += 1;
            value = match byte {
                b'0'..=b'9' => {
                    let next = value.unwrap_or(0).checked_mul(10);
                    Some(
                        next.and_then(|v| v.checked_add(u64::from(byte - b'0')))
                            .context("its sparse map is damaged")?,
                    )
                }
                b'\n' => return value.context("its sparse map is damaged"),
                _ => bail!("its sparse map is damaged"),
            };
        }
    };
    let count = number()?;
    ensure!(count <= EXTENT_COUNT_MAX as u64, TOO_LONG);
    let mut map = Vec::new();
    for _ in 0..count {
        map.push((number()?, number()?));
    }
    Ok(map)
}

/// The extents of a map, which must be ascending, disjoint and within the file.
fn checked_extents(map: &[(u64, u64)], file_bytes: u64) -> Result<Vec<Extent>> {
    let mut extents = Vec::with_capacity(map.len());
    let (mut end, mut stored) = (0, 0);
    for (offset, bytes) in map {
        let next_end = offset
            .checked_add(*bytes)
            .filter(|next| *next <= file_bytes);
        let Some(next_end) = next_end.filter(|_| *offset >= end) else {
            bail!("its sparse map has entries that overlap or exceed the file's size");
        };
        if *bytes > 0 {
            extents.push(Extent {
                offset: *offset,
                bytes: *bytes,
                stored,
            });
        }
        (end, stored) = (next_end, stored + bytes);
    }
    ensure!(
        file_bytes <= i64::MAX as u64,
        "its size {file_bytes} is out of range"
    );
    Ok(extents)
}
