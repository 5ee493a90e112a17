//! Archives as an attacker writes them: invented members, and forged copies of
//! real archives.

use proptest::prelude::*;

use crate::archive::tar::pax::push_record;

/// A member as an attacker writes it.
#[derive(Clone, Debug)]
pub struct Evil {
    pub name: Vec<u8>,
    pub kind: u8,
    pub link: Vec<u8>,
    /// The size in the header, whatever the length of the data.
    pub size: u64,
    pub data: Vec<u8>,
    /// Type and body of the extended headers before it.
    pub extended: Vec<(u8, Vec<u8>)>,
}

pub fn evil(name: impl AsRef<[u8]>, kind: u8) -> Evil {
    Evil {
        name: name.as_ref().to_vec(),
        kind,
        link: Vec::new(),
        size: 0,
        data: Vec::new(),
        extended: Vec::new(),
    }
}

pub fn file(name: impl AsRef<[u8]>, data: &[u8]) -> Evil {
    Evil {
        size: data.len() as u64,
        data: data.to_vec(),
        ..evil(name, b'0')
    }
}

pub fn link(name: &str, kind: u8, target: &str) -> Evil {
    Evil {
        link: target.into(),
        ..evil(name, kind)
    }
}

pub fn pax(records: &[(&str, &str)], member: Evil) -> Evil {
    let mut body = Vec::new();
    for (keyword, value) in records {
        push_record(&mut body, keyword.as_bytes(), value.as_bytes());
    }
    Evil {
        extended: vec![(b'x', body)],
        ..member
    }
}

pub fn header(name: &[u8], kind: u8, link: &[u8], size: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    if size < 1 << 33 {
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[136..147].copy_from_slice(b"14524770200");
    block[156] = kind;
    block[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
    block[257..265].copy_from_slice(b"ustar\x0000");
    set_checksum(&mut block);
    block
}

fn set_checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

pub fn write(members: &[Evil]) -> Vec<u8> {
    let mut archive = Vec::new();
    let pad = |archive: &mut Vec<u8>| archive.resize(archive.len().next_multiple_of(512), 0);
    for member in members {
        for (kind, body) in &member.extended {
            archive.extend(header(b"x", *kind, b"", body.len() as u64));
            archive.extend(body);
            pad(&mut archive);
        }
        archive.extend(header(&member.name, member.kind, &member.link, member.size));
        archive.extend(&member.data);
        pad(&mut archive);
    }
    archive.extend([0; 1024]);
    archive
}

/// Members of any kind, most of them nearly valid.
pub fn any_member() -> impl Strategy<Value = Evil> {
    let part = prop::sample::select(vec![
        "a", "b", "s", "..", ".", "", "outside", "precious", "c\n",
    ]);
    let path = prop::collection::vec(part, 0..5).prop_map(|parts| parts.join("/"));
    let kind = prop::sample::select(b"00000012222555671xgLKSVM3".to_vec());
    let record = (
        prop::sample::select(vec![
            "path",
            "linkpath",
            "size",
            "GNU.sparse.major",
            "GNU.sparse.minor",
            "GNU.sparse.realsize",
            "GNU.sparse.name",
            "GNU.sparse.size",
            "GNU.sparse.map",
            "mtime",
            "uid",
            "SCHILY.xattr.user.a",
            "comment",
        ]),
        prop::sample::select(vec![
            "",
            "0",
            "1",
            "7",
            "512",
            "../outside/precious",
            "s/precious",
            "a",
            "/tmp",
            "0,1",
            "-1.5",
            "99999999999999999999",
        ]),
    );
    let records = prop::collection::vec(record, 0..4);
    let data = prop::collection::vec(prop::sample::select(b"0125\nx\0".to_vec()), 0..600);
    (path.clone(), kind, path, records, data, 0..4u8).prop_map(
        |(name, kind, target, records, data, lie)| {
            let mut member = Evil {
                link: format!("{}{target}", if lie == 3 { "/" } else { "" }).into(),
                ..evil(name, kind)
            };
            if matches!(kind, b'0' | b'7' | b'x' | b'g' | b'L' | b'K' | b'S') {
                member.size = data.len() as u64 + u64::from(lie == 2) * 700;
                member.data = data;
            }
            if records.is_empty() {
                member
            } else {
                pax(&records, member)
            }
        },
    )
}

/// Archives that this and other programs wrote.
pub const REAL: [&[u8]; 4] = [
    include_bytes!("../../../tests/archives/format-1.tar"),
    include_bytes!("../../../tests/archives/gnu-old.tar"),
    include_bytes!("../../../tests/archives/gnu-posix.tar"),
    include_bytes!("../../../tests/archives/python.tar"),
];

fn is_header(block: &[u8]) -> bool {
    &block[257..262] == b"ustar"
}

/// A change to an archive, after which its checksums are corrected.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Sets a byte, in a header if the flag is set, otherwise in any block.
    Byte(prop::sample::Index, bool, usize, u8),
    Kind(prop::sample::Index, u8),
    Text(prop::sample::Index, usize, &'static str),
    Copy(prop::sample::Index, prop::sample::Index),
    Insert(prop::sample::Index, prop::sample::Index),
    Remove(prop::sample::Index),
    Cut(prop::sample::Index),
}

pub fn any_edit() -> impl Strategy<Value = Edit> {
    let at = any::<prop::sample::Index>;
    let texts = vec![
        "../outside/precious\0",
        "/tmp/x\0",
        "kinds\0",
        "77777777777\0",
        "00000000000\0",
        "00000001000\0",
    ];
    let text = prop::sample::select(texts);
    // Offsets of name, mode, size, time, link target, magic and prefix.
    let field = prop::sample::select(vec![0, 100, 124, 136, 157, 257, 345]);
    prop_oneof![
        4 => (at(), any::<bool>(), 0..512usize, any::<u8>())
            .prop_map(|(at, headers, offset, value)| Edit::Byte(at, headers, offset, value)),
        4 => (at(), prop::sample::select(b"01234567xgLKSVXM".to_vec()))
            .prop_map(|(at, kind)| Edit::Kind(at, kind)),
        4 => (at(), field, text).prop_map(|(at, field, text)| Edit::Text(at, field, text)),
        2 => (at(), at()).prop_map(|(from, to)| Edit::Copy(from, to)),
        2 => (at(), at()).prop_map(|(from, to)| Edit::Insert(from, to)),
        1 => at().prop_map(Edit::Remove),
        1 => at().prop_map(Edit::Cut),
    ]
}

pub fn edited(archive: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut blocks: Vec<Vec<u8>> = archive.chunks(512).map(<[u8]>::to_vec).collect();
    let headers = |blocks: &[Vec<u8>]| -> Vec<usize> {
        let all = blocks.iter().enumerate();
        let headers = all.filter(|(_, block)| is_header(block));
        headers.map(|(at, _)| at).collect()
    };
    for edit in edits {
        let headers = headers(&blocks);
        if headers.is_empty() {
            break;
        }
        let header = |at: &prop::sample::Index| headers[at.index(headers.len())];
        let block = |at: &prop::sample::Index| at.index(blocks.len());
        match edit {
            Edit::Byte(at, true, offset, value) => blocks[header(at)][*offset] = *value,
            Edit::Byte(at, false, offset, value) => {
                let at = block(at);
                blocks[at][*offset] = *value;
            }
            Edit::Kind(at, kind) => blocks[header(at)][156] = *kind,
            Edit::Text(at, field, text) => {
                blocks[header(at)][*field..field + text.len()].copy_from_slice(text.as_bytes());
            }
            Edit::Copy(from, to) => {
                let to = block(to);
                blocks[to] = blocks[header(from)].clone();
            }
            Edit::Insert(from, to) => {
                let (from, to) = (blocks[header(from)].clone(), block(to));
                blocks.insert(to, from);
            }
            Edit::Remove(at) => {
                blocks.remove(header(at));
            }
            Edit::Cut(at) => blocks.truncate(block(at).max(1)),
        }
    }
    for block in blocks.iter_mut().filter(|block| is_header(block)) {
        set_checksum(block);
    }
    blocks.concat()
}
