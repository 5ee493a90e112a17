//! One 512-byte header of a tar file. Its fields are parsed, and none is trusted.

use anyhow::{Result, bail, ensure};

use crate::archive::tar::BLOCK_BYTES;

/// Room for extents in a sparse header itself.
const SPARSE_IN_HEADER: usize = 4;
/// Room for extents in a block that continues a sparse header.
const SPARSE_IN_EXTENSION: usize = 21;

pub(super) type TarBlock = [u8; BLOCK_BYTES as usize];

/// Offset and length of each extent of a sparse file.
pub(super) type SparseMap = Vec<(u64, u64)>;

/// A member's header, or an extended header.
pub(super) struct Header(TarBlock);

impl Header {
    /// # Errors
    /// When the checksum is wrong: the block is damaged, or is not a header.
    pub(super) fn new(block: TarBlock) -> Result<Header> {
        // Some old programs added up signed bytes.
        let is_checksum = |byte: usize| (148..156).contains(&byte);
        let bytes = || block.iter().enumerate();
        let value = |(at, byte): (usize, &u8)| if is_checksum(at) { b' ' } else { *byte };
        let unsigned: i64 = bytes().map(value).map(i64::from).sum();
        let signed: i64 = bytes().map(value).map(|b| i64::from(b.cast_signed())).sum();
        match number(&block[148..156]) {
            Some(sum) if sum == unsigned || sum == signed => Ok(Header(block)),
            _ => bail!("the header's checksum is wrong"),
        }
    }

    /// The type flag: `0` for a regular file, `x` for an extended header.
    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    fn is_posix(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }

    fn is_gnu(&self) -> bool {
        &self.0[257..265] == b"ustar  \0"
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = text(&self.0[345..500]);
        if self.is_posix() && !prefix.is_empty() {
            return [prefix, b"/", name].concat();
        }
        name.to_vec()
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u32> {
        Ok(self.unsigned(100, 8, "mode")? as u32 & 0o7777)
    }

    pub(super) fn uid(&self) -> Result<u64> {
        self.unsigned(108, 8, "uid")
    }

    pub(super) fn gid(&self) -> Result<u64> {
        self.unsigned(116, 8, "gid")
    }

    pub(super) fn size(&self) -> Result<u64> {
        self.unsigned(124, 12, "size")
    }

    pub(super) fn mtime(&self) -> Result<i64> {
        self.signed(136, 12, "mtime")
    }

    pub(super) fn device(&self) -> Result<(u32, u32)> {
        if !self.is_posix() && !self.is_gnu() {
            return Ok((0, 0));
        }
        let part = |at, what| Ok::<_, anyhow::Error>(u32::try_from(self.unsigned(at, 8, what)?)?);
        Ok((part(329, "devmajor")?, part(337, "devminor")?))
    }

    /// Parses a header of type `S` (GNU tar manual, "Old GNU Format"): the map,
    /// whether it continues in extension blocks, and the file's size.
    pub(super) fn old_sparse(&self) -> Result<(SparseMap, bool, u64)> {
        ensure!(
            self.is_gnu(),
            "its header is sparse but not in the GNU format"
        );
        let size = self.unsigned(483, 12, "realsize")?;
        let extents = sparse_extents(&self.0[386..], SPARSE_IN_HEADER)?;
        Ok((extents, self.0[482] != 0, size))
    }

    fn signed(&self, at: usize, bytes: usize, what: &str) -> Result<i64> {
        match number(&self.0[at..at + bytes]) {
            Some(number) => Ok(number),
            None => bail!("its {what} is not a number"),
        }
    }

    fn unsigned(&self, at: usize, bytes: usize, what: &str) -> Result<u64> {
        match u64::try_from(self.signed(at, bytes, what)?) {
            Ok(number) => Ok(number),
            Err(_) => bail!("its {what} is negative"),
        }
    }
}

/// Parses a block that continues a sparse header: its part of the map, and
/// whether another block follows.
pub(super) fn sparse_extension(block: &TarBlock) -> Result<(SparseMap, bool)> {
    let extents = sparse_extents(block, SPARSE_IN_EXTENSION)?;
    Ok((extents, block[504] != 0))
}

/// Parses at most `count` entries; an empty one ends the list.
fn sparse_extents(fields: &[u8], count: usize) -> Result<SparseMap> {
    let mut extents = Vec::new();
    for entry in fields.chunks_exact(24).take(count) {
        if entry[0] == 0 && entry[12] == 0 {
            break;
        }
        let part = |field| number(field).and_then(|number| u64::try_from(number).ok());
        match (part(&entry[..12]), part(&entry[12..])) {
            (Some(offset), Some(bytes)) => extents.push((offset, bytes)),
            _ => bail!("its sparse map is damaged"),
        }
    }
    Ok(extents)
}

/// The part before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// Parses a number: octal digits between spaces or NULs, where an empty field is
/// 0; or base 256 in two's complement if the highest bit is set (GNU tar manual,
/// "Extensions").
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let is_negative = field[0] & 0x40 != 0;
        let mut value: i128 = if is_negative { -1 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            let byte = if at == 0 && !is_negative {
                byte & 0x7f
            } else {
                *byte
            };
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let field = text(field).trim_ascii();
    field.iter().try_fold(0_i64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\x02"), Some(258));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(number(b"77777777777"), Some(0o77_777_777_777));
        assert_eq!(
            number(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
            Some(i64::MAX)
        );
        for wrong in [
            &b"0000648\0"[..],
            b"-1\0\0\0\0\0\0",
            b"0x1\0\0\0\0\0",
            b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(number(wrong), None, "{wrong:?}");
        }
    }
}
