//! The pax records that apply to a member, and the values in them.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::archive::tar::header::SparseMap;
use crate::archive::tar::{acl, pax};
use crate::sys::format::display_path;

/// The keywords of extended attributes begin with it.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";
/// More records for one member, and more global ones in sum, are refused. An
/// inventory holds [no more attributes](crate::scan::ATTRIBUTE_BYTES_MAX) of a file.
pub(super) const RECORD_BYTES_MAX: u64 = 16 << 20;

/// The records of the extended headers of one kind, or of one member. Each keyword
/// occurs once, except for the two that sparse format 0.0 repeats.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    values: Vec<(Vec<u8>, Vec<u8>)>,
    /// Position in `values` by keyword.
    by_keyword: HashMap<Vec<u8>, usize>,
    bytes: usize,
}

impl Records {
    /// Adds the records of an extended header; later ones replace earlier ones.
    ///
    /// # Errors
    /// When they are malformed, or too many with those that were added before.
    pub(super) fn update(&mut self, body: &[u8]) -> Result<()> {
        for record in pax::records(body) {
            let (keyword, value) = record.context("an extended header is damaged")?;
            self.bytes += keyword.len() + value.len();
            ensure!(
                self.bytes as u64 <= RECORD_BYTES_MAX,
                "the extended headers that apply to it have more than {RECORD_BYTES_MAX} bytes"
            );
            if is_repeated(keyword) {
                self.values.push((keyword.to_vec(), value.to_vec()));
                continue;
            }
            match self.by_keyword.get(keyword) {
                Some(&at) => {
                    let old = std::mem::replace(&mut self.values[at].1, value.to_vec());
                    self.bytes -= keyword.len() + old.len();
                }
                None => {
                    self.by_keyword.insert(keyword.to_vec(), self.values.len());
                    self.values.push((keyword.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    /// Bytes of all keywords and values.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    fn get(&self, keyword: &[u8]) -> Option<&[u8]> {
        self.by_keyword
            .get(keyword)
            .map(|&at| &self.values[at].1[..])
    }
}

fn is_repeated(keyword: &[u8]) -> bool {
    matches!(keyword, b"GNU.sparse.offset" | b"GNU.sparse.numbytes")
}

/// The records that apply to a member: those of global headers before it, and its
/// own, which override them.
pub(super) struct PaxRecords {
    globals: Arc<Records>,
    own: Records,
}

impl PaxRecords {
    pub(super) fn new(globals: &Arc<Records>, own: Records) -> PaxRecords {
        PaxRecords {
            globals: globals.clone(),
            own,
        }
    }

    /// The records that count: of those with one keyword, the last one. An empty
    /// value cancels a global record (POSIX), but attributes may be empty.
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let globals = self.globals.values.iter();
        let kept = globals.filter(|(keyword, _)| !self.own.by_keyword.contains_key(keyword));
        kept.chain(&self.own.values)
            .map(|(keyword, value)| (&keyword[..], &value[..]))
            .filter(|(keyword, value)| !value.is_empty() || keyword.starts_with(ATTRIBUTE))
    }

    pub(super) fn get(&self, keyword: &[u8]) -> Option<&[u8]> {
        let found = self.own.get(keyword).or_else(|| self.globals.get(keyword));
        found.filter(|value| !value.is_empty())
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
        for (keyword, value) in self.iter() {
            let acl = match keyword {
                b"SCHILY.acl.access" => "system.posix_acl_access",
                b"SCHILY.acl.default" => "system.posix_acl_default",
                _ => {
                    if let Some(name) = keyword.strip_prefix(ATTRIBUTE) {
                        let name = pax::attribute_name(name);
                        ensure!(
                            !name.contains(&0) && !name.is_empty(),
                            "the name of an extended attribute is empty or has a NUL byte"
                        );
                        attributes.push((name, value.to_vec()));
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
                let parts = self.iter().filter(|(keyword, _)| is_repeated(keyword));
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
    let seconds = decimal(whole.as_bytes())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let ns: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    if !is_negative {
        return Some((i64::try_from(seconds).ok()?, ns));
    }
    // The earliest time has no positive counterpart.
    let s = 0_i64.checked_sub_unsigned(seconds)?;
    Some(match ns {
        0 => (s, 0),
        _ => (s.checked_sub(1)?, 1_000_000_000 - ns),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(records: &[(&str, &str)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (keyword, value) in records {
            pax::push_record(&mut body, keyword.as_bytes(), value.as_bytes());
        }
        body
    }

    #[test]
    fn own_records_override_global_ones_and_empty_ones_cancel_them() {
        let mut globals = Records::default();
        let first = [("path", "g"), ("uid", "1"), ("SCHILY.xattr.user.a", "g")];
        globals.update(&body(&first)).unwrap();
        globals.update(&body(&[("uid", "2")])).unwrap();
        let globals = Arc::new(globals);
        let mut own = Records::default();
        let records = [
            ("path", ""),
            ("gid", "3"),
            ("gid", "4"),
            ("SCHILY.xattr.user.a", ""),
        ];
        own.update(&body(&records)).unwrap();
        let member = PaxRecords::new(&globals, own);
        assert_eq!(member.get(b"path"), None);
        assert_eq!(member.number(b"uid").unwrap(), Some(2));
        assert_eq!(member.number(b"gid").unwrap(), Some(4));
        let attribute = |value: &str| vec![(b"user.a".to_vec(), value.as_bytes().to_vec())];
        assert_eq!(member.attributes().unwrap(), attribute(""));
        // The control: the next member has only what is global.
        let next = PaxRecords::new(&globals, Records::default());
        assert_eq!(next.get(b"path"), Some(&b"g"[..]));
        assert_eq!(next.attributes().unwrap(), attribute("g"));
    }

    #[test]
    fn records_are_bounded_in_sum() {
        let value = "v".repeat(6 << 20);
        let mut records = Records::default();
        for keyword in ["a", "b"] {
            records.update(&body(&[(keyword, &value)])).unwrap();
        }
        let error = records.update(&body(&[("c", &value)])).unwrap_err();
        assert!(
            error.to_string().contains("more than 16777216 bytes"),
            "{error}"
        );
    }

    #[test]
    fn the_time_for_records_grows_with_their_number() {
        let began = std::time::Instant::now();
        let mut many = Vec::new();
        for i in 0..400_000 {
            many.extend_from_slice(format!("12 {i:06x}=v\n").as_bytes());
        }
        Records::default().update(&many).unwrap();
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        // File systems without limits of their own have it.
        assert_eq!(time(b"-9223372036854775808"), Some((i64::MIN, 0)));
        assert_eq!(time(b"-9223372036854775808.5"), None);
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
