//! Pax records: the syntax, written and read.

use std::io::Write;

/// Shortest record with this keyword: `12 comment=\n`.
const COMMENT_BYTES_MIN: usize = 12;

/// Appends the record `<length> <keyword>=<value>\n`. The length includes its
/// own digits (POSIX.1-2017 `pax`, "pax Extended Header").
pub(crate) fn push_record(records: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
    let length = record_bytes(keyword.len() + value.len() + 3);
    // Writing to a `Vec` cannot fail.
    let _ = write!(records, "{length} ");
    records.extend_from_slice(keyword);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The length of a record, given its length without the digits at its front.
fn record_bytes(rest: usize) -> usize {
    let digits = |number: usize| number.checked_ilog10().unwrap_or(0) as usize + 1;
    let length = rest + digits(rest);
    // Adding the digits may have made the number one digit longer.
    rest + digits(length)
}

/// Appends a `comment` record, which readers ignore. It is just long enough for
/// all records together to have `at_least` bytes.
pub(crate) fn push_comment(records: &mut Vec<u8>, at_least: usize) {
    let wanted = at_least
        .saturating_sub(records.len())
        .max(COMMENT_BYTES_MIN);
    // "<wanted> comment=" and "\n"
    let value = wanted - wanted.to_string().len() - 10;
    let _ = writeln!(records, "{wanted} comment={:value$}", "");
}

/// Appends a time: seconds since 1970, with as many decimals as needed. `ns`
/// counts forward from `s`, also when `s` is negative.
pub(crate) fn push_time(records: &mut Vec<u8>, keyword: &[u8], s: i64, ns: u32) {
    let (sign, s, ns) = match (s, ns) {
        (..0, 1..) => ("-", (s + 1).unsigned_abs(), 1_000_000_000 - ns),
        (..0, 0) => ("-", s.unsigned_abs(), 0),
        _ => ("", s.unsigned_abs(), ns),
    };
    // At most 20 digits, a sign, a point and 9 decimals.
    let mut buffer = [0; 32];
    let mut rest = &mut buffer[..];
    let _ = write!(rest, "{sign}{s}.{ns:09}");
    let value_bytes = 32 - rest.len();
    let mut value = &buffer[..value_bytes];
    while let Some(shorter) = value.strip_suffix(b"0") {
        value = shorter;
    }
    let value = value.strip_suffix(b".").unwrap_or(value);
    push_record(records, keyword, value);
}

/// The keyword for an extended attribute: `SCHILY.xattr.` and the name, in which
/// `%` and `=` are encoded as in GNU tar (`xattr_encode_keyword`).
pub(crate) fn attribute_keyword(name: &[u8]) -> Vec<u8> {
    let mut keyword = b"SCHILY.xattr.".to_vec();
    for byte in name {
        match byte {
            b'%' => keyword.extend_from_slice(b"%25"),
            b'=' => keyword.extend_from_slice(b"%3D"),
            _ => keyword.push(*byte),
        }
    }
    keyword
}

/// Decodes the name of an extended attribute from a keyword without its prefix;
/// see [`attribute_keyword`].
pub(crate) fn attribute_name(encoded: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((byte, next)) = rest.split_first() {
        (rest, _) = match rest {
            [b'%', b'2', b'5', after @ ..] => (after, name.push(b'%')),
            [b'%', b'3', b'D', after @ ..] => (after, name.push(b'=')),
            _ => (next, name.push(*byte)),
        };
    }
    name
}

/// The keywords and values in the body of a pax extended header. The last item
/// is `None` if the records are malformed.
///
/// Values may hold newlines, as those of attributes do; the `tar` crate's
/// `pax_extensions` splits records there.
pub fn records(mut body: &[u8]) -> impl Iterator<Item = Option<(&[u8], &[u8])>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let record = split_record(body);
        body = record.map_or(&[], |(_, _, rest)| rest);
        Some(record.map(|(keyword, value, _)| (keyword, value)))
    })
}

fn split_record(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = body.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&body[..space]).ok()?.parse().ok()?;
    let (record, rest) = body.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(keyword: &[u8], value: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        push_record(&mut records, keyword, value);
        records
    }

    fn stated_length(record: &[u8]) -> usize {
        let digits = record.split(|byte| *byte == b' ').next().unwrap();
        std::str::from_utf8(digits).unwrap().parse().unwrap()
    }

    #[test]
    fn a_record_counts_its_own_digits() {
        assert_eq!(record(b"path", b"x"), b"9 path=x\n");
        assert_eq!(record(b"path", b"xy"), b"11 path=xy\n");
        assert_eq!(record(b"path", b"xyz"), b"12 path=xyz\n");
        // 99 and 100 cannot both be reached by one more byte of value: with
        // three digits the record has at least 101 bytes.
        let lengths: Vec<usize> = (80..100)
            .map(|len| record(b"path", &vec![b'x'; len]).len())
            .collect();
        assert!(lengths.contains(&99) && !lengths.contains(&100) && lengths.contains(&101));
        let long = record(b"path", &vec![b'x'; 999 - 4 - 6]);
        assert_eq!((long.len(), stated_length(&long)), (999, 999));
        let longer = record(b"path", &vec![b'x'; 1000 - 4 - 6]);
        assert_eq!((longer.len(), stated_length(&longer)), (1001, 1001));
    }

    proptest! {
        #[test]
        fn a_record_is_as_long_as_it_says(keyword in "[a-zA-Z.]{1,30}", len in 0..120_000_usize) {
            let record = record(keyword.as_bytes(), &vec![b'v'; len]);
            prop_assert_eq!(stated_length(&record), record.len());
        }

        #[test]
        fn records_are_read_back(
            written in prop::collection::vec(
                ("[a-zA-Z.% ]{1,30}", prop::collection::vec(any::<u8>(), 0..1100)),
                0..10,
            ),
        ) {
            let mut body = Vec::new();
            for (keyword, value) in &written {
                push_record(&mut body, keyword.as_bytes(), value);
            }
            let read: Option<Vec<_>> = records(&body).collect();
            let written: Vec<_> = written
                .iter()
                .map(|(keyword, value)| (keyword.as_bytes(), &value[..]))
                .collect();
            prop_assert_eq!(read, Some(written));
            if !body.is_empty() {
                prop_assert_eq!(records(&body[..body.len() - 1]).last(), Some(None));
            }
        }

        #[test]
        fn a_comment_fills_up_to_the_byte(before in 0..2000_usize, more in 0..2000_usize) {
            let mut records = vec![b'r'; before];
            push_comment(&mut records, before + more);
            let comment = &records[before..];
            prop_assert_eq!(comment.len(), more.max(COMMENT_BYTES_MIN));
            prop_assert_eq!(stated_length(comment), comment.len());
            prop_assert!(comment.ends_with(b"\n"));
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        assert_eq!(records(b"").next(), None);
        for body in [
            "7 a=bc\n",
            "8 a=b\n",
            "6 abc\n",
            "6",
            "x a=b\n",
            "0 a=b\n",
            "99999999999999999999 a=b\n",
        ] {
            let last = records(body.as_bytes()).last();
            assert_eq!(last == Some(None), body != "7 a=bc\n", "{body:?}");
        }
    }

    #[test]
    fn times_before_1970_are_negative_decimals() {
        let time = |s, ns| {
            let mut records = Vec::new();
            push_time(&mut records, b"mtime", s, ns);
            let text = String::from_utf8(records).unwrap();
            text.split_once('=').unwrap().1.trim_end().to_owned()
        };
        assert_eq!(time(5, 0), "5");
        assert_eq!(time(5, 120_000_000), "5.12");
        assert_eq!(time(5, 1), "5.000000001");
        assert_eq!(time(-1, 0), "-1");
        assert_eq!(time(-1, 500_000_000), "-0.5");
        assert_eq!(time(-2, 999_999_999), "-1.000000001");
        assert_eq!(time(i64::MIN, 0), i64::MIN.to_string());
    }

    #[test]
    fn attribute_names_are_encoded_as_gnu_tar_does() {
        assert_eq!(
            attribute_keyword(b"user.a=b%c d"),
            b"SCHILY.xattr.user.a%3Db%25c d"
        );
    }
}
