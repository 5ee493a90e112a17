//! Everything that is known about a tree, for a comparison with another one.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, symlink};

use rustix::fs::SeekFrom;

use super::tree;
use super::*;

/// The aspects of each path below the root of a tree, and their values.
pub type Facts = BTreeMap<Vec<u8>, BTreeMap<&'static str, String>>;

pub fn facts(root: &Path) -> Facts {
    let mut facts = Facts::new();
    let mut first_links = HashMap::new();
    let walk = walkdir::WalkDir::new(root).sort_by_file_name();
    for found in walk {
        let found = found.unwrap();
        let path = found.path();
        let meta = path.symlink_metadata().unwrap();
        if meta.file_type().is_socket() {
            continue;
        }
        let rel = path
            .strip_prefix(root)
            .unwrap()
            .as_os_str()
            .as_bytes()
            .to_vec();
        let mut aspects = BTreeMap::new();
        aspects.insert("kind", format!("{:o}", meta.mode() & 0o170_000));
        aspects.insert("mode", format!("{:o}", meta.mode() & 0o7777));
        let owner = if meta.is_symlink() {
            "symlink owner"
        } else {
            "owner"
        };
        aspects.insert(owner, format!("{}:{}", meta.uid(), meta.gid()));
        let mtime = match meta.file_type() {
            kind if meta.mtime() < 0 && meta.mtime_nsec() != 0 => {
                if kind.is_symlink() {
                    "symlink fraction before 1970"
                } else {
                    "fraction before 1970"
                }
            }
            kind if kind.is_symlink() => "symlink mtime",
            kind if kind.is_dir() => "directory mtime",
            _ => "mtime",
        };
        aspects.insert(mtime, meta.mtime().to_string());
        aspects.insert("mtime ns", meta.mtime_nsec().to_string());
        aspects.insert("device", meta.rdev().to_string());
        if !meta.is_dir() {
            let key = (meta.dev(), meta.ino());
            let first = first_links.entry(key).or_insert_with(|| rel.clone());
            aspects.insert("first link", String::from_utf8_lossy(first).into_owned());
        }
        if meta.is_symlink() {
            aspects.insert("target", format!("{:?}", fs::read_link(path).unwrap()));
        }
        if meta.is_file() {
            aspects.insert("size", meta.len().to_string());
            let (content, holes) = content(path, meta.len());
            aspects.insert("content", format!("{content:x}"));
            if let Some(holes) = holes {
                aspects.insert("holes", holes);
            }
        }
        for (name, value) in attributes(path) {
            let aspect = match name.as_str() {
                "system.posix_acl_access" => "acl",
                "system.posix_acl_default" => "default acl",
                "security.capability" => "capability",
                // XFS lists ACLs a second time under this name.
                name if name.starts_with("trusted.SGI_ACL_") => continue,
                name if name.contains(['=', '%']) => "attribute with = or %",
                name if name.starts_with("trusted.") => "trusted attributes",
                _ => "attributes",
            };
            let known: &mut String = aspects.entry(aspect).or_default();
            known.push_str(&format!("{name}={value:?} "));
        }
        facts.insert(rel, aspects);
    }
    facts
}

fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = xattr::list(path).unwrap();
    names
        .map(|name| {
            let value = xattr::get(path, &name).unwrap().unwrap();
            (name.into_string().unwrap(), value)
        })
        .collect()
}

/// A hash of all blocks that are not zero, and the extents of the data if the
/// holes are large enough to be archived.
fn content(path: &Path, size: u64) -> (u64, Option<String>) {
    const BLOCK: u64 = 4096;
    let file = File::open(path).unwrap();
    let mut hasher = DefaultHasher::new();
    let mut block = [0; BLOCK as usize];
    let mut extents = Vec::new();
    let mut position = 0;
    let mut hole_bytes = size;
    while let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(position)) {
        let hole = rustix::fs::seek(&file, SeekFrom::Hole(data)).unwrap();
        extents.push((data, hole));
        hole_bytes -= hole - data;
        position = data / BLOCK * BLOCK;
        while position < hole {
            let len = (size - position).min(BLOCK) as usize;
            file.read_exact_at(&mut block[..len], position).unwrap();
            if block[..len].iter().any(|byte| *byte != 0) {
                (position, &block[..len]).hash(&mut hasher);
            }
            position += BLOCK;
        }
        position = hole;
    }
    (
        hasher.finish(),
        (hole_bytes >= 65_536).then(|| format!("{extents:?}")),
    )
}

/// The aspects in which two trees differ, except for the `ignored` ones.
pub fn differences(a: &Facts, b: &Facts, ignored: &[&str]) -> Vec<String> {
    let mut differences = Vec::new();
    let paths: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    for path in paths {
        let shown = String::from_utf8_lossy(path);
        match (a.get(path), b.get(path)) {
            (Some(a), Some(b)) => {
                let aspects: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
                for aspect in aspects {
                    if a.get(aspect) != b.get(aspect) && !ignored.contains(aspect) {
                        let (a, b) = (a.get(aspect), b.get(aspect));
                        differences.push(format!("{shown:?}: {aspect}: {a:?} {b:?}"));
                    }
                }
            }
            (a, _) => differences.push(format!(
                "{shown:?}: only in {}",
                if a.is_some() { "first" } else { "second" }
            )),
        }
    }
    differences
}

/// The aspects named in a list of differences.
fn aspects(differences: &[String]) -> Vec<&str> {
    let mut aspects: Vec<_> = differences
        .iter()
        .map(|line| line.split(": ").nth(1).unwrap())
        .collect();
    aspects.sort_unstable();
    aspects.dedup();
    aspects
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn the_comparison_sees_every_kind_of_difference() {
    tools::need_root();
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("original");
    fs::create_dir(&original).unwrap();
    tree::sparse_files(&original);
    fs::write(original.join("file"), "content").unwrap();
    fs::hard_link(original.join("file"), original.join("link")).unwrap();
    symlink("file", original.join("symlink")).unwrap();
    let copy = dir.path().join("copy");
    let sh = |script: &str| {
        tools::run(
            Command::new("sh")
                .arg("-ec")
                .arg(script)
                .current_dir(dir.path()),
            "coreutils",
        );
    };
    let cases: [(&str, &[&str]); 21] = [
        ("true", &[]),
        (
            "touch -d '1969-01-01 00:00:00.5' copy/file",
            &["fraction before 1970", "mtime", "mtime ns"],
        ),
        (
            "touch -m -d '2001-02-03 04:05:06.7' copy/sparse",
            &["directory mtime", "mtime ns"],
        ),
        ("chown -h 7:8 copy/symlink", &["symlink owner"]),
        ("rm copy/symlink", &["only in first"]),
        (
            "mkdir copy/new; touch -r original copy",
            &["only in second"],
        ),
        ("chmod 4711 copy/file", &["mode"]),
        ("chown 7:8 copy/file", &["owner"]),
        (
            "touch -m -d '2001-02-03 04:05:06.7' copy/file",
            &["mtime", "mtime ns"],
        ),
        (
            "touch -h -m -d '2001-02-03 04:05:06.7' copy/symlink",
            &["mtime ns", "symlink mtime"],
        ),
        (
            "printf Content > copy/file; touch -r original/file copy/file",
            &["content"],
        ),
        (
            "printf more >> copy/file; touch -r original/file copy/file",
            &["content", "size"],
        ),
        (
            "ln -sfn other copy/symlink; touch -hr original/symlink copy/symlink; touch -r original copy",
            &["target"],
        ),
        (
            "cp -p copy/link copy/l; mv copy/l copy/link; touch -r original copy",
            &["first link"],
        ),
        (
            "rm copy/symlink; mkfifo copy/symlink; chmod 777 copy/symlink; touch -r original copy",
            &[
                "kind",
                "mtime",
                "mtime ns",
                "owner",
                "symlink mtime",
                "symlink owner",
                "target",
            ],
        ),
        ("setfattr -n user.a -v 1 copy/file", &["attributes"]),
        (
            "setfattr -n trusted.a -v 1 copy/file; setfattr -n user.a=b copy/file",
            &["attribute with = or %", "trusted attributes"],
        ),
        ("setfacl -m u:5:r copy/file", &["acl"]),
        ("setfacl -d -m u:5:r copy", &["default acl"]),
        ("setcap cap_chown=ep copy/file", &["capability"]),
        (
            "cp -p --reflink=never --sparse=never 'copy/sparse/hole at end' x; cp -p --reflink=never --sparse=never x 'copy/sparse/hole at end'",
            &["holes"],
        ),
    ];
    let facts_of_original = facts(&original);
    for (script, expected) in cases {
        sh("rm -rf copy x; cp -a original copy");
        sh(script);
        let found = differences(&facts_of_original, &facts(&copy), &[]);
        // A change in a directory also changes the time of the directory.
        let found: Vec<_> = found
            .into_iter()
            .filter(|line| {
                !line.starts_with("\"\": mtime") && !line.starts_with("\"\": directory mtime")
            })
            .collect();
        assert_eq!(aspects(&found), expected, "{script}: {found:#?}");
    }
    // Two devices with different numbers.
    let device = |minor: u32| {
        let at = dir.path().join(format!("device {minor}"));
        fs::create_dir(&at).unwrap();
        sh(&format!(
            "mknod 'device {minor}/null' c 1 {minor}; touch -r original 'device {minor}/null' 'device {minor}'"
        ));
        facts(&at)
    };
    assert_eq!(
        aspects(&differences(&device(3), &device(5), &[])),
        ["device"]
    );
}
