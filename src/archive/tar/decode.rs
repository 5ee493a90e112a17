//! One 512-byte header of a tar file: what its fields say, nothing trusted.

use anyhow::{Result, bail, ensure};

use crate::archive::tar::BLOCK_BYTES;

/// As many extents as a sparse header itself has room for.
const SPARSE_IN_HEADER: usize = 4;
/// And as one that continues it.
const SPARSE_IN_EXTENSION: usize = 21;

pub(crate) type Block = [u8; BLOCK_BYTES as usize];

/// The header of a member, or of what belongs to the next one.
pub(crate) struct Header<'a>(&'a Block);

/// Offset and length of each extent of a sparse file.
pub(crate) type Pairs = Vec<(u64, u64)>;

impl<'a> Header<'a> {
    /// # Errors
    /// When the checksum is wrong: the block is no header, or damaged.
    pub(crate) fn new(block: &'a Block) -> Result<Header<'a>> {
        // Some old programs summed signed bytes.
        let is_sum = |byte: usize| (148..156).contains(&byte);
        let bytes = || block.iter().enumerate();
        let value = |(at, byte): (usize, &u8)| if is_sum(at) { b' ' } else { *byte };
        let unsigned: i64 = bytes().map(value).map(i64::from).sum();
        let signed: i64 = bytes().map(value).map(|b| i64::from(b.cast_signed())).sum();
        match number(&block[148..156]) {
            Some(sum) if sum == unsigned || sum == signed => Ok(Header(block)),
            _ => bail!("its header's checksum is wrong"),
        }
    }

    pub(crate) fn kind(&self) -> u8 {
        self.0[156]
    }

    fn is_posix(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }

    fn is_gnu(&self) -> bool {
        &self.0[257..265] == b"ustar  \0"
    }

    pub(crate) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = text(&self.0[345..500]);
        if self.is_posix() && !prefix.is_empty() {
            return [prefix, b"/", name].concat();
        }
        name.to_vec()
    }

    pub(crate) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(crate) fn mode(&self) -> Result<u32> {
        Ok(self.unsigned(100, 8, "mode")? as u32 & 0o7777)
    }

    pub(crate) fn uid(&self) -> Result<u64> {
        self.unsigned(108, 8, "uid")
    }

    pub(crate) fn gid(&self) -> Result<u64> {
        self.unsigned(116, 8, "gid")
    }

    pub(crate) fn size(&self) -> Result<u64> {
        self.unsigned(124, 12, "size")
    }

    pub(crate) fn mtime(&self) -> Result<i64> {
        self.signed(136, 12, "mtime")
    }

    pub(crate) fn device(&self) -> Result<(u32, u32)> {
        if !self.is_posix() && !self.is_gnu() {
            return Ok((0, 0));
        }
        let part = |at, what| Ok::<_, anyhow::Error>(u32::try_from(self.unsigned(at, 8, what)?)?);
        Ok((part(329, "devmajor")?, part(337, "devminor")?))
    }

    /// Of type `S` (GNU tar manual, "Old GNU Format"): offset and length of
    /// each extent, whether more follow in extension blocks, and the file's
    /// size.
    pub(crate) fn old_sparse(&self) -> Result<(Pairs, bool, u64)> {
        ensure!(self.is_gnu(), "a sparse member without GNU tar's mark");
        let size = self.unsigned(483, 12, "realsize")?;
        let extents = sparse_extents(&self.0[386..], SPARSE_IN_HEADER)?;
        Ok((extents, self.0[482] != 0, size))
    }

    fn signed(&self, at: usize, bytes: usize, what: &str) -> Result<i64> {
        match number(&self.0[at..at + bytes]) {
            Some(number) => Ok(number),
            None => bail!("its {what} is no number"),
        }
    }

    fn unsigned(&self, at: usize, bytes: usize, what: &str) -> Result<u64> {
        match u64::try_from(self.signed(at, bytes, what)?) {
            Ok(number) => Ok(number),
            Err(_) => bail!("its {what} is negative"),
        }
    }
}

/// The extents in a block that continues a sparse header, and whether yet
/// another follows.
pub(crate) fn sparse_extension(block: &Block) -> Result<(Pairs, bool)> {
    let extents = sparse_extents(block, SPARSE_IN_EXTENSION)?;
    Ok((extents, block[504] != 0))
}

/// An entry of all zeros ends the list early.
fn sparse_extents(fields: &[u8], count: usize) -> Result<Pairs> {
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

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// Octal digits between spaces or NULs, empty being 0; or base 256 with the
/// highest bit set, in two's complement (GNU tar manual, "Extensions").
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
