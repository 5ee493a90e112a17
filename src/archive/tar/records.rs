//! The pax records that apply to a member, and the values in them.

use anyhow::{Context, Result, ensure};

use crate::archive::tar::header::SparseMap;
use crate::archive::tar::{acl, pax};
use crate::sys::format::display_path;

/// Keywords and values. Each keyword occurs once, except for the two that
/// sparse format 0.0 repeats.
#[derive(Clone, Debug, Default)]
pub(super) struct PaxRecords(Vec<(Vec<u8>, Vec<u8>)>);

impl PaxRecords {
    /// Adds the records of an extended header; later ones replace earlier ones.
    pub(super) fn update(&mut self, body: &[u8]) -> Result<()> {
        for record in pax::records(body) {
            let (keyword, value) = record.context("an extended header is damaged")?;
            let is_repeated = matches!(keyword, b"GNU.sparse.offset" | b"GNU.sparse.numbytes");
            if !is_repeated {
                self.0.retain(|(known, _)| known != keyword);
            }
            // An empty value cancels a global record (POSIX). Attributes may be
            // empty.
            if !value.is_empty() || keyword.starts_with(b"SCHILY.xattr.") {
                self.0.push((keyword.to_vec(), value.to_vec()));
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, keyword: &[u8]) -> Option<&[u8]> {
        let found = self.0.iter().find(|(known, _)| known == keyword);
        found.map(|(_, value)| &value[..])
    }

    /// The member's path. Of a sparse file, `path` is a substitute for readers
    /// that do not know the sparse formats.
    pub(super) fn path(&self) -> Option<&[u8]> {
        self.get(b"GNU.sparse.name").or_else(|| self.get(b"path"))
    }

    pub(super) fn number(&self, keyword: &[u8]) -> Result<Option<u64>> {
        let Some(value) = self.get(keyword) else {
            return Ok(None);
        };
        let number = decimal(value);
        let keyword = display_path(keyword);
        number
            .map(Some)
            .with_context(|| format!("its {keyword} is not a number"))
    }

    /// The modification time in seconds since 1970, and nanoseconds.
    pub(super) fn mtime(&self) -> Result<Option<(i64, u32)>> {
        let Some(text) = self.get(b"mtime") else {
            return Ok(None);
        };
        time(text).map(Some).context("its mtime is not a number")
    }

    /// Extended attributes by the kernel's names, ACLs included.
    pub(super) fn attributes(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut attributes = Vec::new();
        for (keyword, value) in &self.0 {
            let acl = match &keyword[..] {
                b"SCHILY.acl.access" => "system.posix_acl_access",
                b"SCHILY.acl.default" => "system.posix_acl_default",
                _ => {
                    if let Some(name) = keyword.strip_prefix(b"SCHILY.xattr.") {
                        let name = pax::attribute_name(name);
                        ensure!(
                            !name.contains(&0) && !name.is_empty(),
                            "the name of an extended attribute is empty or has a NUL byte"
                        );
                        attributes.push((name, value.clone()));
                    }
                    continue;
                }
            };
            let value = acl::to_binary(value).context("cannot parse its ACL")?;
            attributes.push((acl.as_bytes().to_vec(), value));
        }
        Ok(attributes)
    }

    /// The map of sparse formats 0.0 and 0.1, which is in the records (GNU tar
    /// manual, "PAX Format, Versions 0.0 and 0.1").
    pub(super) fn sparse_map(&self) -> Result<SparseMap> {
        let numbers: Option<Vec<u64>> = match self.get(b"GNU.sparse.map") {
            Some(map) => map.split(|byte| *byte == b',').map(decimal).collect(),
            None => {
                let is_part = |keyword: &[u8]| {
                    matches!(keyword, b"GNU.sparse.offset" | b"GNU.sparse.numbytes")
                };
                let parts = self.0.iter().filter(|(keyword, _)| is_part(keyword));
                parts.map(|(_, value)| decimal(value)).collect()
            }
        };
        let numbers = numbers.context("its sparse map is damaged")?;
        ensure!(numbers.len() % 2 == 0, "its sparse map is damaged");
        Ok(numbers
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect())
    }
}

/// Digits only: `str::parse` would also take a plus sign.
fn decimal(text: &[u8]) -> Option<u64> {
    let has_only_digits = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()
        .filter(|_| has_only_digits)?
        .parse()
        .ok()
}

/// Parses seconds since 1970 with a fraction, which is truncated to
/// nanoseconds. The nanoseconds count forward, also before 1970.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let s = i64::try_from(decimal(whole.as_bytes())?).ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let ns: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    Some(match (is_negative, ns) {
        (false, _) => (s, ns),
        (true, 0) => (-s, 0),
        (true, _) => (-s - 1, 1_000_000_000 - ns),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"7.1234567899"), Some((7, 123_456_789)));
        for wrong in [
            &b""[..],
            b"x",
            b"1.x",
            b".5",
            b"--1",
            b"1e3",
            b"99999999999999999999",
        ] {
            assert_eq!(time(wrong), None);
        }
    }
}
