//! Every kind of damage at every kind of place is found, and the damaged file is
//! named.

use std::os::unix::fs::FileExt;

use super::*;
use crate::archive::verify::{Verified, read_back, verify};
use crate::archive::{Input, Member, Reader, RenderedHashes, Sums};
use crate::config::Verify;

struct Archive {
    dir: tempfile::TempDir,
    good: Vec<u8>,
    sums: String,
    members: Vec<Member>,
}

fn text_of(sums: &Sums) -> String {
    let mut text = Vec::new();
    sums.write(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

impl Archive {
    fn new() -> Archive {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a"), vec![b'a'; 5000]).unwrap();
        fs::write(tree.join("large"), vec![b'l'; 200_000]).unwrap();
        // Its name needs a pax record.
        fs::write(tree.join("n".repeat(200)), "long").unwrap();
        fs::write(tree.join("z"), "last").unwrap();
        let path = dir.path().join("a.tar");
        let sources = sources(&tree);
        let inventory = scan_all(&sources);
        write_scanned(&sources, &inventory, &path);
        let good = fs::read(&path).unwrap();
        // As in a run, the manifest has the length of the archive.
        let layout = Layout::new(&inventory, &slot());
        let out = File::options().write(true).open(&path).unwrap();
        let manifest = format!(r#"{{"archiveBytes":{},"memberCount":5}}"#, good.len());
        write_manifest(&layout, &out, manifest.as_bytes()).unwrap();
        let file = File::open(&path).unwrap();
        let sums = text_of(&Sums::compute(&file, &GO_ON).unwrap());
        let mut reader = Reader::new(Input::File(&file)).unwrap();
        let mut members = Vec::new();
        while let Some(member) = reader.next_member().unwrap() {
            members.push(member);
        }
        let good = fs::read(&path).unwrap();
        Archive {
            dir,
            good,
            sums,
            members,
        }
    }

    fn member(&self, name: &str) -> &Member {
        let ends = |member: &&Member| member.path.ends_with(name.as_bytes());
        self.members.iter().find(ends).unwrap()
    }

    fn verify(&self, bytes: &[u8], sums: Option<&str>) -> Verified {
        let path = self.dir.path().join("damaged.tar");
        fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        verify(path, &file, sums.map(str::as_bytes), &GO_ON).unwrap()
    }
}

/// Asserts that a problem was found that contains `names`.
#[track_caller]
fn assert_found(verified: &Verified, names: &str, what: &str) {
    let problems = verified.problems.join("\n");
    assert!(
        !problems.is_empty() && problems.contains(names),
        "{what}: {verified:?}"
    );
}

/// A place at which the archive is damaged.
struct Place {
    what: &'static str,
    at: usize,
    /// Number and name of the member that it belongs to.
    member: usize,
    name: String,
}

impl Archive {
    fn places(&self) -> Vec<Place> {
        let long = "n".repeat(200);
        let large = self.member("large").data as usize;
        let a = self.member("/a");
        let (a_start, a_data) = (a.start as usize, a.data as usize);
        let long_start = self.member(&long).start as usize;
        let manifest = self.members[0].data as usize;
        [
            ("manifest's header", 10, "manifest.json"),
            ("manifest", manifest + 5, "manifest.json"),
            ("header", a_start + 10, "stack/a"),
            ("data", a_data + 10, "stack/a"),
            ("padding", a_data + 5001, "stack/a"),
            ("large data", large + 100_000, "stack/large"),
            ("pax header", long_start + 150, long.as_str()),
            ("pax record", long_start + 512 + 100, long.as_str()),
        ]
        .map(|(what, at, name)| Place {
            what,
            at,
            member: self.number(name),
            name: name.to_owned(),
        })
        .into()
    }

    fn number(&self, name: &str) -> usize {
        let ends = |member: &Member| member.path.ends_with(name.as_bytes());
        self.members.iter().position(ends).unwrap()
    }

    /// Unpacks a damaged archive with GNU tar. Returns the files that are intact.
    fn unpacked_by_tar(&self, bytes: &[u8]) -> Vec<String> {
        let out = tempfile::tempdir().unwrap();
        let damaged = self.dir.path().join("damaged.tar");
        fs::write(&damaged, bytes).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("--ignore-zeros")
            .arg("-xf")
            .arg(&damaged)
            .arg("-C")
            .arg(out.path());
        // tar names what it skips, and fails.
        let _ = tar.output().unwrap();
        self.files_in(out.path())
    }

    /// Unpacks a damaged archive with this program, which stops at a damaged
    /// header. Returns the files that are intact.
    fn unpacked(&self, bytes: &[u8]) -> Vec<String> {
        use crate::restore::{Archive, selection::Selection, to_directory};
        let out = tempfile::tempdir().unwrap();
        let damaged = self.dir.path().join("damaged.tar");
        fs::write(&damaged, bytes).unwrap();
        let archive = Archive::open(&damaged).unwrap();
        let _ = to_directory(&archive, out.path(), &Selection::default(), false, &GO_ON);
        self.files_in(out.path())
    }

    fn files_in(&self, out: &Path) -> Vec<String> {
        let names = ["a", "large", &"n".repeat(200), "z"].map(|name| format!("stack/{name}"));
        let original = |name: &str| self.dir.path().join(name.replacen("stack", "tree", 1));
        let is_good = |name: &String| {
            fs::read(out.join(name)).ok() == Some(fs::read(original(name)).unwrap())
        };
        names.into_iter().filter(is_good).collect()
    }
}

#[test]
fn damage_is_found_everywhere_and_intact_members_are_counted() {
    let archive = Archive::new();
    let good = archive.verify(&archive.good, Some(&archive.sums));
    assert!(good.problems.is_empty() && good.compared, "{good:?}");
    assert_eq!(good.member_count, 6);
    assert_eq!(archive.unpacked(&archive.good).len(), 4);
    for place in archive.places() {
        let (at, block) = (place.at, place.at / 512 * 512);
        let damage = |act: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = archive.good.clone();
            act(&mut bytes);
            bytes
        };
        let in_place = [
            ("flip", damage(&|bytes| bytes[at] ^= 1)),
            ("flip high", damage(&|bytes| bytes[at] ^= 0x80)),
            (
                "zeros",
                damage(&|bytes| bytes[at - at % 512..][..512].fill(0)),
            ),
        ];
        // These move everything that follows.
        let displaced = [
            ("cut", damage(&|bytes| bytes.truncate(at))),
            ("delete a byte", damage(&|bytes| drop(bytes.drain(at..=at)))),
            (
                "delete a block",
                damage(&|bytes| drop(bytes.drain(block..block + 512))),
            ),
            ("insert a byte", damage(&|bytes| bytes.insert(at, b'x'))),
            (
                "insert a block",
                damage(&|bytes| drop(bytes.splice(block..block, [b'x'; 512]))),
            ),
        ];
        let in_place = in_place.map(|(how, bytes)| (how, bytes, 5));
        let displaced = displaced.map(|(how, bytes)| (how, bytes, place.member));
        for (how, bytes, good_count) in in_place.into_iter().chain(displaced) {
            let what = format!("{how} in {}", place.what);
            if bytes == archive.good {
                // The padding was zeros before.
                continue;
            }
            let verified = archive.verify(&bytes, Some(&archive.sums));
            assert_found(&verified, &place.name, &what);
            let told = format!("{good_count} of 6 members are as they were written");
            assert!(verified.notes.contains(&told), "{what}: {verified:?}");
            // This program unpacks the files before the damage. GNU tar unpacks
            // all files that verify calls intact.
            let names = |members: &[Member]| -> Vec<String> {
                let files = members
                    .iter()
                    .filter(|m| m.kind == crate::archive::Kind::File);
                let names = files.map(Member::name);
                names.filter(|name| name.starts_with("stack/")).collect()
            };
            let unpacked = archive.unpacked(&bytes);
            for before in names(&archive.members[..place.member]) {
                assert!(unpacked.contains(&before), "{what}: {before}: {unpacked:?}");
            }
            if good_count == 5 {
                let unpacked = archive.unpacked_by_tar(&bytes);
                for after in names(&archive.members[place.member + 1..]) {
                    assert!(unpacked.contains(&after), "{what}: {after}: {unpacked:?}");
                }
            }
        }
    }
    let appended = [&archive.good[..], &[0; 512]].concat();
    let verified = archive.verify(&appended, Some(&archive.sums));
    assert_found(&verified, "bytes", "append");
    let appended = [&archive.good[..], b"more"].concat();
    let verified = archive.verify(&appended, Some(&archive.sums));
    assert_found(&verified, "follows the end", "append more");
    assert_eq!(archive.unpacked(&appended).len(), 4);
}

#[test]
fn without_sums_the_structure_is_checked() {
    let archive = Archive::new();
    let good = archive.verify(&archive.good, None);
    assert!(good.problems.is_empty() && !good.compared, "{good:?}");
    let at = archive.member("large");
    for (what, bytes) in [
        ("cut", archive.good[..at.data as usize + 10].to_vec()),
        ("appended", [&archive.good[..], b"more"].concat()),
        ("a member less", {
            let mut bytes = archive.good.clone();
            bytes.drain(at.start as usize..at.end() as usize);
            bytes
        }),
        ("header", {
            let mut bytes = archive.good.clone();
            bytes[at.data as usize - 500] ^= 1;
            bytes
        }),
    ] {
        let verified = archive.verify(&bytes, None);
        assert!(!verified.problems.is_empty(), "{what}");
        // A damaged archive gets no new sums.
        assert_eq!(verified.missing_sums, None, "{what}");
        if what == "cut" {
            let told = "the first 3 members can be unpacked";
            let notes = &verified.notes;
            assert!(notes.iter().any(|note| note.starts_with(told)), "{notes:?}");
        }
    }
    assert_eq!(text_of(&good.missing_sums.unwrap()), archive.sums);
    // The control: without sums, damaged data is not noticed.
    let mut flipped = archive.good.clone();
    flipped[at.data as usize + 10] ^= 1;
    assert!(archive.verify(&flipped, None).problems.is_empty());
}

#[test]
fn damaged_sums_do_not_make_the_archive_damaged() {
    let archive = Archive::new();
    let half = archive.sums.len() / 2;
    let flipped = archive.sums.replace("large", "small");
    let [mut deleted, mut inserted] = [archive.sums.clone(), archive.sums.clone()];
    deleted.remove(half);
    inserted.insert(half, '0');
    for sums in [
        "".to_owned(),
        "garbage".to_owned(),
        archive.sums[..half].to_owned(),
        flipped,
        deleted,
        inserted,
        archive.sums.clone() + "more",
    ] {
        let verified = archive.verify(&archive.good, Some(&sums));
        assert_eq!(verified.missing_sums, None);
        assert!(
            verified.problems.is_empty() && !verified.compared,
            "{verified:?}"
        );
        assert!(verified.notes[0].contains("cannot be used"), "{verified:?}");
    }
}

/// An archive with members of all lengths that matter to hashing, and the hashes
/// of what was rendered.
struct Rendered {
    dir: tempfile::TempDir,
    layout: Layout,
    hashes: RenderedHashes,
}

impl Rendered {
    fn new() -> Rendered {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let lengths = [
            0, 1, 512, 5000, 65_536, 524_288, 524_289, 1_048_576, 1_600_000, 4_200_000,
        ];
        for (number, length) in lengths.into_iter().enumerate() {
            let bytes: Vec<u8> = (0..length).map(|at| (at % (200 + number)) as u8).collect();
            fs::write(tree.join(format!("file-{length}")), bytes).unwrap();
        }
        let sources = sources(&tree);
        let inventory = scan_all(&sources);
        let layout = Layout::new(&inventory, &slot());
        let out = File::create(dir.path().join("a.tar")).unwrap();
        let reading = ReadOptions {
            hash: true,
            ..reading(&sources, &GO_ON)
        };
        let (_, hashes) = write_members(&layout, &inventory, reading, &out).unwrap();
        write_manifest(&layout, &out, b"{}").unwrap();
        Rendered {
            dir,
            layout,
            hashes,
        }
    }

    fn file(&self) -> File {
        let path = self.dir.path().join("a.tar");
        File::options().read(true).write(true).open(path).unwrap()
    }

    fn read_back(&self, verify: Verify) -> anyhow::Result<Option<Sums>> {
        read_back(verify, &self.file(), &self.hashes, &GO_ON)
    }

    /// Changes a byte, and changes it back when `act` is done.
    fn with_damage<T>(&self, at: u64, act: impl FnOnce() -> T) -> T {
        let flip = || {
            let mut byte = [0];
            self.file().read_exact_at(&mut byte, at).unwrap();
            self.file().write_all_at(&[byte[0] ^ 1], at).unwrap();
        };
        flip();
        let done = act();
        flip();
        done
    }
}

#[test]
fn hashes_of_what_was_rendered_are_those_of_what_is_read() {
    let rendered = Rendered::new();
    let written = rendered.read_back(Verify::Written).unwrap().unwrap();
    let full = rendered.read_back(Verify::Full).unwrap().unwrap();
    assert_eq!(written, full);
    let text = text_of(&full);
    for length in [1, 524_288, 524_289, 1_600_000, 4_200_000] {
        let name = format!("file-{length}");
        let bytes = fs::read(rendered.dir.path().join("tree").join(&name)).unwrap();
        let line = text.lines().find(|line| line.ends_with(&name)).unwrap();
        // What `b3sum` prints.
        assert!(
            line.starts_with(&blake3::hash(&bytes).to_hex()[..]),
            "{line}"
        );
    }
    // All hashes but the manifest's were taken on the way.
    for line in text.lines().filter(|line| line.contains("file-")) {
        let fields: Vec<&str> = line.split(' ').collect();
        let number = |field: usize| fields[field].parse::<u64>().unwrap();
        let (start, head_bytes, data_bytes) = (number(2), number(3), number(4));
        assert!(rendered.hashes.head(start, head_bytes).is_some(), "{line}");
        let data = rendered.hashes.data(start + head_bytes, data_bytes);
        assert_eq!(data.is_some(), data_bytes > 0, "{line}");
    }
    // So nothing is read but headers, and damaged data is not noticed.
    let file = rendered.layout.archive_bytes() - 100_000;
    let blind = rendered.with_damage(file, || rendered.read_back(Verify::Written));
    assert_eq!(blind.unwrap().unwrap(), full);
}

#[test]
fn hardly_any_small_file_is_divided_by_the_end_of_a_window() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..600 {
        let length = 1000 + number * 37 % 14_000;
        fs::write(dir.path().join(format!("{number}")), vec![1; length]).unwrap();
    }
    let sources = sources(dir.path());
    let inventory = scan_all(&sources);
    let layout = Layout::new(&inventory, &slot());
    let reading = ReadOptions {
        hash: true,
        ..reading(&sources, &GO_ON)
    };
    let out = tempfile::tempfile().unwrap();
    let (_, hashes) = write_members(&layout, &inventory, reading, &out).unwrap();
    write_manifest(&layout, &out, b"{}").unwrap();
    let mut reader = Reader::new(Input::File(&out)).unwrap();
    let mut hashed_count = 0;
    while let Some(member) = reader.next_member().unwrap() {
        hashed_count += u32::from(hashes.data(member.data, member.stored_bytes).is_some());
    }
    assert!(layout.archive_bytes() > 4 << 20);
    assert!(hashed_count >= 598, "{hashed_count}");
}

#[test]
fn a_full_read_back_names_what_is_not_as_it_was_rendered() {
    let rendered = Rendered::new();
    let text = text_of(&rendered.read_back(Verify::Full).unwrap().unwrap());
    let mut damaged_count = 0;
    for line in text.lines().filter(|line| line.contains("file-")) {
        let fields: Vec<&str> = line.split(' ').collect();
        let number = |field: usize| fields[field].parse::<u64>().unwrap();
        let (start, head_bytes, data_bytes) = (number(2), number(3), number(4));
        let data = start + head_bytes;
        let mut places = vec![];
        if data_bytes > 0 {
            places.extend([data, data + data_bytes - 1]);
        }
        if data_bytes % 512 > 0 {
            places.push(data + data_bytes);
        }
        for at in places {
            let error = rendered.with_damage(at, || rendered.read_back(Verify::Full));
            let error = format!("{:#}", error.unwrap_err());
            assert!(error.contains(fields[5]), "{at}: {error}");
            damaged_count += 1;
        }
        // A header is damaged as such.
        for verify in [Verify::Full, Verify::Written, Verify::Structure] {
            let damaged = rendered.with_damage(data - 4, || rendered.read_back(verify));
            assert!(damaged.is_err(), "{line}");
        }
    }
    assert_eq!(damaged_count, 22);
    // The control.
    rendered.read_back(Verify::Full).unwrap();
}

/// The sums of older programs, from those of this one.
fn in_format_1(archive: &[u8], sums: &str) -> String {
    use sha2::{Digest, Sha256};
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    let mut text = format!("docker-stack-backup sums 1 {}\n", archive.len());
    for line in sums.lines().skip(1).filter(|l| !l.starts_with("end ")) {
        let fields: Vec<&str> = line.splitn(6, ' ').collect();
        let number = |field: usize| fields[field].parse::<usize>().unwrap();
        let start = number(2);
        let data = start + number(3)..start + number(3) + number(4);
        let padding = data.end..data.end.next_multiple_of(512);
        let head = [&archive[start..data.start], &archive[padding]].concat();
        let head = hex(&Sha256::digest(head)[..8]);
        let hash = match data.is_empty() {
            true => "-".to_owned(),
            false => hex(&Sha256::digest(&archive[data])),
        };
        text += &format!("{hash} {head} {}\n", fields[2..].join(" "));
    }
    let end = hex(&Sha256::digest(text.as_bytes()));
    text + &format!("end {end}\n")
}

#[test]
fn sums_of_format_1_are_compared_too() {
    let rendered = Rendered::new();
    let path = rendered.dir.path().join("a.tar");
    let sums = text_of(&rendered.read_back(Verify::Full).unwrap().unwrap());
    let sums = in_format_1(&fs::read(&path).unwrap(), &sums);
    let verify = || {
        let verified = verify(
            path.clone(),
            &rendered.file(),
            Some(sums.as_bytes()),
            &GO_ON,
        );
        let verified = verified.unwrap();
        assert!(verified.compared, "{verified:?}");
        verified.problems
    };
    assert_eq!(verify(), [""; 0]);
    for line in sums.lines().filter(|line| line.contains("file-")) {
        let fields: Vec<&str> = line.split(' ').collect();
        let number = |field: usize| fields[field].parse::<u64>().unwrap();
        if number(4) > 0 {
            let last = number(2) + number(3) + number(4) - 1;
            let problems = rendered.with_damage(last, verify);
            assert_eq!(problems, [format!("{}: its data is damaged", fields[5])]);
        }
    }
}
