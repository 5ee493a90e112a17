//! A tree with everything that an archive must hold. Needs root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::tools::{need_root, run};
use super::*;

/// How much of the tree is made, for readers with limits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Full,
    /// Without the sparse files, names and times that need a pax record. busybox
    /// ignores those records.
    Plain,
}

pub fn name(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

pub const STRANGE_NAMES: [&[u8]; 9] = [
    b"caf\xe9 latin",
    "caf\u{e9} utf-8 \u{1F980}".as_bytes(),
    b"new\nline",
    b"trailing space ",
    b" leading space",
    b"back\\slash\\n",
    b"-dash",
    b"tab\tand\x01control\x7f",
    b"*?[]'\"",
];

/// Makes the tree at `root`, with distinct times everywhere.
pub fn build(root: &Path, scope: Scope) {
    need_root();
    fs::create_dir(root).unwrap();
    kinds(root);
    attributes(root);
    for (index, bytes) in STRANGE_NAMES.iter().enumerate() {
        fs::write(root.join(name(bytes)), format!("strange {index}")).unwrap();
    }
    symlink(name(b"caf\xe9\n*"), root.join("strange target")).unwrap();
    sizes(root);
    if scope == Scope::Full {
        names(root);
        sparse_files(root);
    }
    let mut count = 0;
    set_times(root, &mut count, scope);
}

fn kinds(root: &Path) {
    let dir = root.join("kinds");
    fs::create_dir_all(dir.join("empty directory")).unwrap();
    fs::write(dir.join("empty file"), "").unwrap();
    fs::write(dir.join("file"), "content").unwrap();
    fs::hard_link(dir.join("file"), dir.join("further link")).unwrap();
    fs::hard_link(dir.join("file"), root.join("link from afar")).unwrap();
    for target in ["file", "/etc/passwd", "../..//odd/./target/", "nowhere"] {
        let at = dir.join(format!("symlink to {}", target.replace('/', "_")));
        symlink(target, at).unwrap();
    }
    symlink("t".repeat(100), dir.join("symlink of 100")).unwrap();
    fs::hard_link(dir.join("symlink to file"), dir.join("linked symlink")).unwrap();
    let node = |name: &str, kind, device| {
        mknod(
            &dir.join(name),
            kind,
            Mode::from_bits_truncate(0o640),
            device,
        )
        .unwrap();
    };
    node("fifo", SFlag::S_IFIFO, 0);
    fs::hard_link(dir.join("fifo"), dir.join("linked fifo")).unwrap();
    node("char device", SFlag::S_IFCHR, makedev(1, 3));
    node("block device", SFlag::S_IFBLK, makedev(259, 200_000));
    drop(UnixListener::bind(dir.join("socket")).unwrap());
    for mode in [0o4755, 0o2755, 0o1777, 0o7777, 0o000, 0o600] {
        let file = dir.join(format!("mode {mode:o}"));
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }
    for mode in [0o3770, 0o1777, 0o500] {
        let directory = dir.join(format!("directory {mode:o}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("inside"), "x").unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
    }
    for id in [1, 2_097_151, 2_097_152, 4_000_000_000] {
        let file = dir.join(format!("owner {id}"));
        fs::write(&file, "x").unwrap();
        chown(&file, Some(id), Some(id - 1)).unwrap();
        let link = dir.join(format!("symlink of owner {id}"));
        symlink("x", &link).unwrap();
        lchown(&link, Some(id), Some(id + 1)).unwrap();
    }
}

fn attributes(root: &Path) {
    let dir = root.join("attributes");
    fs::create_dir(&dir).unwrap();
    let file = |name: &str| {
        let path = dir.join(name);
        fs::write(&path, name).unwrap();
        path
    };
    let path = file("extended");
    let binary: Vec<u8> = (0..=255).collect();
    xattr::set(&path, "user.binary", &binary).unwrap();
    xattr::set(&path, "user.empty", b"").unwrap();
    xattr::set(&path, "user.percent%3D", b"percent").unwrap();
    xattr::set(&path, "user.long", &vec![b'v'; 2000]).unwrap();
    xattr::set(&path, "trusted.overlay.opaque", b"y").unwrap();
    xattr::set(file("equals"), "user.a=b", b"equals").unwrap();
    let directory = dir.join("directory");
    fs::create_dir(&directory).unwrap();
    xattr::set(&directory, "user.on.directory", b"1").unwrap();
    let link = dir.join("symlink");
    symlink("extended", &link).unwrap();
    xattr::set(&link, "trusted.on.symlink", b"1").unwrap();
    let acl = |arguments: &[&str], path: &Path| {
        run(Command::new("setfacl").args(arguments).arg(path), "acl");
    };
    acl(&["-m", "u:1000:rw,g:3000000:r,m::r"], &file("acl"));
    acl(
        &["-m", "u:0:rwx,d:u:1001:rwx,d:g::r-x,d:o::---"],
        &directory,
    );
    let default_only = dir.join("default only");
    fs::create_dir(&default_only).unwrap();
    acl(&["-d", "-m", "u:7:r"], &default_only);
    fs::write(default_only.join("inherits"), "x").unwrap();
    let capable = file("capability");
    run(
        Command::new("setcap")
            .arg("cap_net_raw,cap_net_bind_service=ep")
            .arg(capable),
        "libcap2-bin",
    );
}

fn names(root: &Path) {
    let dir = root.join("names");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("n".repeat(255)), "255").unwrap();
    fs::write(dir.join("\u{fc}".repeat(120)), "UTF-8, long").unwrap();
    let latin = [b"\xfc".repeat(130), b"latin".to_vec()].concat();
    fs::write(dir.join(name(&latin)), "not UTF-8, long").unwrap();
    symlink(name(&latin), dir.join("symlink, long, not UTF-8")).unwrap();
    symlink("t".repeat(101), dir.join("symlink of 101")).unwrap();
    symlink("t/".repeat(500), dir.join("symlink of 1000")).unwrap();
    // Lengths around those of the name and prefix fields.
    for len in [97, 98, 99, 100, 101, 140, 155, 156, 157] {
        let directory = dir.join(format!("{len:d>len$}"));
        fs::create_dir(&directory).unwrap();
        for len in [1, 99, 100, 101] {
            fs::write(directory.join(format!("{len:f>len$}")), "x").unwrap();
        }
    }
    let deep = dir.join("deep/".to_owned() + &"directory/".repeat(60));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "deep").unwrap();
    fs::hard_link(deep.join("file"), dir.join("link to deep")).unwrap();
    fs::hard_link(dir.join("n".repeat(255)), deep.join("link to long")).unwrap();
}

pub fn sparse_files(root: &Path) {
    const GIB: u64 = 1 << 30;
    let dir = root.join("sparse");
    fs::create_dir(&dir).unwrap();
    let pattern = (1..=251).collect::<Vec<u8>>().repeat((1 << 20) / 251 + 1);
    let file = |name: &str, size: u64, data: &[(u64, usize)]| {
        let file = File::create(dir.join(name)).unwrap();
        file.set_len(size).unwrap();
        for (offset, len) in data {
            file.write_all_at(&pattern[..*len], *offset).unwrap();
        }
    };
    file("all hole", 1 << 20, &[]);
    file("hole at end", 1 << 20, &[(0, 5000)]);
    file("hole at start", (1 << 20) + 77, &[(1 << 20, 77)]);
    file(
        "hole in middle",
        1 << 20,
        &[(0, 70_000), ((1 << 20) - 70_000, 70_000)],
    );
    file(
        "aligned",
        4 << 20,
        &[(1 << 20, 1 << 20), (3 << 20, 1 << 20)],
    );
    file("small hole", 40_000, &[(0, 4096), (36_000, 4000)]);
    file("odd size", 300_001, &[(100_000, 1)]);
    file(
        "more than 8 GiB",
        9 * GIB + 5,
        &[(0, 100), (8 * GIB, 100_000), (9 * GIB, 5)],
    );
    let many: Vec<_> = (0..3000).map(|i| (i * 12_288, 4096)).collect();
    file("many extents", 3000 * 12_288, &many);
    let long = "long name of a sparse file ".repeat(7);
    file(&long, 1 << 20, &[(500_000, 10)]);
}

fn sizes(root: &Path) {
    let dir = root.join("sizes");
    fs::create_dir(&dir).unwrap();
    let sizes = [
        1,
        511,
        512,
        513,
        65_535,
        65_536,
        65_537,
        1 << 20,
        (3 << 20) + 1,
    ];
    // After so many numbers the bytes are the same again.
    let period: Vec<u8> = (0..7 * 256).map(|i| (i * 31 / 7) as u8).collect();
    let content = period.repeat((4 << 20) / period.len());
    for size in sizes {
        fs::write(dir.join(size.to_string()), &content[..size]).unwrap();
    }
}

/// Gives everything below `path` a time of its own: first the content of a
/// directory, then the directory.
fn set_times(path: &Path, count: &mut i64, scope: Scope) {
    if path.symlink_metadata().unwrap().is_dir() {
        let mut children: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|c| c.unwrap().path())
            .collect();
        children.sort();
        for child in children {
            set_times(&child, count, scope);
        }
    }
    *count += 1;
    let (tv_sec, tv_nsec) = match *count % 5 {
        2.. if scope == Scope::Plain => (1_700_000_000 + *count, 987_654_321),
        0 => (1_700_000_000 + *count, 0),
        1 => (1_700_000_000 + *count, 123_456_789),
        2 => (-*count, 500_000_000),
        3 => (-*count, 0),
        _ => (9_000_000_000 + *count, 1),
    };
    let time = Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
