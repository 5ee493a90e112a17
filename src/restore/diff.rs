//! What differs between an archive and what is there now. Changes nothing.
//!
//! What is there is listed by the very scan that archives are made from, so
//! that the two are told apart by nothing that an archive does not hold. Data
//! is compared byte by byte, with or without sums beside the archive.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use serde::Serialize;

use super::extract::stretches;
use super::selection::Selection;
use super::{Archive, normalise};
use crate::archive::{Kind, Member, Reader};
use crate::scan::{Exclude, Inventory, Node, Source, is_gone, scan};
use crate::sys::format::display_path;

const READ_BYTES: usize = 256 << 10;
/// "No entry."
const NONE: u32 = u32::MAX;

/// What a part of the archive is compared with.
pub struct HostTree {
    /// Member path of the part; empty for the whole archive.
    pub prefix: Vec<u8>,
    /// `None`: nothing is there.
    pub path: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    pub archive: String,
    /// Members that are there as the archive has them.
    pub same_count: u64,
    /// Sorted by path.
    pub differences: Vec<Difference>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Of the member, or of what would be one; a directory's with a slash.
    pub path: String,
    pub change: Change,
    /// What of a member is not as it was.
    pub aspects: Vec<Aspect>,
}

/// Since the archive was made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    Added,
    Removed,
    Changed,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Aspect {
    pub what: String,
    /// `None` where the value is not shown, or there is none.
    pub archive: Option<String>,
    pub now: Option<String>,
}

impl Aspect {
    fn new(what: &str, archive: impl Into<String>, now: impl Into<String>) -> Aspect {
        Aspect {
            what: what.to_owned(),
            archive: Some(archive.into()),
            now: Some(now.into()),
        }
    }
}

impl Diff {
    /// `+` is there now, `-` is only in the archive, `~` differs.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for difference in &self.differences {
            let sign = match difference.change {
                Change::Added => '+',
                Change::Removed => '-',
                Change::Changed => '~',
            };
            text.push_str(&format!("{sign} {}", difference.path));
            let aspects: Vec<String> = difference.aspects.iter().map(aspect_text).collect();
            if !aspects.is_empty() {
                text.push_str(&format!(": {}", aspects.join(", ")));
            }
            text.push('\n');
        }
        let count = |change| {
            let of = |difference: &&Difference| difference.change == change;
            self.differences.iter().filter(of).count()
        };
        text + &format!(
            "{} added, {} removed, {} changed, {} the same\n",
            count(Change::Added),
            count(Change::Removed),
            count(Change::Changed),
            self.same_count
        )
    }
}

fn aspect_text(aspect: &Aspect) -> String {
    match (&aspect.archive, &aspect.now) {
        (None, None) => aspect.what.clone(),
        (archive, now) => {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
            format!("{} {} -> {}", aspect.what, shown(archive), shown(now))
        }
    }
}

/// Compares what `only` includes. Sockets, which no archive holds, are left out.
///
/// # Errors
/// When the archive, or what is there, cannot be read.
pub fn diff(
    archive: &Archive,
    places: &[HostTree],
    only: &Selection,
    cancel: &AtomicBool,
) -> Result<Diff> {
    let now = Now::scan(places, cancel)?;
    let count = now.inventory.entries.len();
    let mut comparison = Comparison {
        archive_first: vec![NONE; count],
        aspects: HashMap::new(),
        directories: HashMap::new(),
        // The directory that was unpacked into need not be a member.
        implied: now.find(b"").into_iter().collect(),
        removed: Vec::new(),
        now,
        only,
        cancel,
    };
    let mut reader = archive.reader()?;
    comparison
        .members(&mut reader)
        .with_context(|| archive.name())?;
    let diff = comparison.finish(archive.name());
    only.check_all_found()?;
    Ok(diff)
}

/// What is there.
struct Now<'a> {
    places: &'a [HostTree],
    sources: Vec<Source>,
    /// Of each source the place it is.
    place_of: Vec<usize>,
    inventory: Inventory,
    by_path: HashMap<Vec<u8>, u32>,
}

impl<'a> Now<'a> {
    fn scan(places: &'a [HostTree], cancel: &AtomicBool) -> Result<Now<'a>> {
        let mut now = Now {
            places,
            sources: Vec::new(),
            place_of: Vec::new(),
            inventory: Inventory::default(),
            by_path: HashMap::new(),
        };
        for (index, place) in places.iter().enumerate() {
            let Some(path) = &place.path else { continue };
            // The whole archive has no path to be a source by; this one is not
            // used.
            let prefix = match place.prefix.as_slice() {
                b"" => b"all",
                prefix => prefix,
            };
            now.sources.push(Source::open(prefix, path)?);
            now.place_of.push(index);
        }
        now.inventory = scan(&now.sources, &Exclude::new(&[])?, false, cancel)?;
        for index in 0..now.inventory.entries.len() {
            now.by_path.insert(now.path(index), index as u32);
        }
        Ok(now)
    }

    /// As a member, without a slash at its end.
    fn path(&self, index: usize) -> Vec<u8> {
        let mut rel = Vec::new();
        self.inventory.relative_path(index, &mut rel);
        let source = self.inventory.source_of(index);
        let prefix = &self.places[self.place_of[source]].prefix;
        let slash: &[u8] = match prefix.is_empty() || rel.is_empty() {
            true => b"",
            false => b"/",
        };
        [prefix, slash, &rel].concat()
    }

    fn shown(&self, index: usize) -> String {
        let is_directory = self.inventory.entries[index].node == Node::Directory;
        shown(&self.path(index), is_directory)
    }

    /// The first of all links to a file.
    fn first(&self, index: usize) -> usize {
        match self.inventory.entries[index].node {
            Node::HardLink { first } => first as usize,
            _ => index,
        }
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        self.by_path.get(path).map(|index| *index as usize)
    }

    fn covers(&self, path: &[u8]) -> bool {
        self.places.iter().any(|place| {
            let rest = path.strip_prefix(&place.prefix[..]);
            place.prefix.is_empty()
                || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        })
    }
}

fn shown(path: &[u8], is_directory: bool) -> String {
    match (path, is_directory) {
        (b"", _) => "./".to_owned(),
        (path, true) => display_path(path) + "/",
        (path, false) => display_path(path),
    }
}

struct Comparison<'a> {
    now: Now<'a>,
    only: &'a Selection,
    cancel: &'a AtomicBool,
    /// By what is there: the entry that is the same file in the archive, itself
    /// if it is no hard link there; `NONE` if it has no member.
    archive_first: Vec<u32>,
    aspects: HashMap<usize, Vec<Aspect>>,
    /// Members may come twice, the last one counts.
    directories: HashMap<usize, Member>,
    /// Directories that the archive has no member of, only of what is in them.
    implied: HashSet<usize>,
    removed: Vec<Difference>,
}

impl Comparison<'_> {
    fn members(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        while let Some(member) = reader.next_member()? {
            if self.cancel.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let name = member.name();
            self.member(member, reader)
                .with_context(|| format!("compare {name}"))?;
        }
        Ok(())
    }

    fn member(&mut self, member: Member, reader: &mut Reader<'_>) -> Result<()> {
        let path = normalise(&member.path)?;
        if !self.now.covers(&path) || !self.only.includes(&path) {
            return Ok(());
        }
        let target = match member.kind {
            Kind::HardLink => {
                let target = normalise(&member.link).context("the file it is a link to")?;
                if !self.only.includes(&target) {
                    bail!(
                        "it is a hard link to {}, which is not among what is compared: name that, too",
                        display_path(&member.link)
                    );
                }
                Some(target)
            }
            _ => None,
        };
        let is_directory = member.kind == Kind::Directory;
        self.note_implied(&path);
        let Some(index) = self.now.find(&path) else {
            self.removed.push(Difference {
                path: shown(&path, is_directory),
                change: Change::Removed,
                aspects: Vec::new(),
            });
            return Ok(());
        };
        let was_seen = self.archive_first[index] != NONE;
        if was_seen && !(is_directory && self.directories.contains_key(&index)) {
            bail!("the archive has it twice");
        }
        self.archive_first[index] = index as u32;
        if let Some(target) = target {
            match self.now.find(&target) {
                Some(target) => {
                    self.archive_first[index] = match self.archive_first[target] {
                        NONE => target as u32,
                        first => first,
                    }
                }
                None => self.linked(index, Some(&target), None),
            }
            return Ok(());
        }
        if is_directory {
            self.directories.insert(index, member);
            return Ok(());
        }
        let mut aspects = self.metadata(&member, index);
        let is_comparable = member.kind == Kind::File
            && !aspects.iter().any(|a| a.what == "type" || a.what == "size");
        if is_comparable && !self.has_same_data(&member, index, reader)? {
            aspects.push(Aspect {
                what: "content".to_owned(),
                archive: None,
                now: None,
            });
        }
        self.add(index, aspects);
        Ok(())
    }

    fn note_implied(&mut self, path: &[u8]) {
        let mut path = path;
        while let Some(slash) = path.iter().rposition(|byte| *byte == b'/') {
            path = &path[..slash];
            if self
                .now
                .find(path)
                .is_some_and(|index| !self.implied.insert(index))
            {
                return;
            }
        }
    }

    fn add(&mut self, index: usize, aspects: Vec<Aspect>) {
        if !aspects.is_empty() {
            self.aspects.entry(index).or_default().extend(aspects);
        }
    }

    fn linked(&mut self, index: usize, archive: Option<&[u8]>, now: Option<&[u8]>) {
        let aspect = Aspect {
            what: "hard link".to_owned(),
            archive: archive.map(display_path),
            now: now.map(display_path),
        };
        self.add(index, vec![aspect]);
    }

    /// All but the data, and whether it is a link to another.
    fn metadata(&self, member: &Member, index: usize) -> Vec<Aspect> {
        let inventory = &self.now.inventory;
        let entry = &inventory.entries[self.now.first(index)];
        let (kind, device) = kind_of(entry.node);
        if member.kind != kind {
            return vec![Aspect::new("type", kind_name(member.kind), kind_name(kind))];
        }
        let mut aspects = Vec::new();
        let mut compare = |what: &str, archive: String, now: String| {
            if archive != now {
                aspects.push(Aspect::new(what, archive, now));
            }
        };
        if let Node::File { bytes, .. } = entry.node {
            compare("size", member.file_bytes.to_string(), bytes.to_string());
        }
        if kind == Kind::Symlink {
            let target = inventory.symlink_target(entry.node);
            compare("target", display_path(&member.link), display_path(target));
        } else {
            let mode = |mode: u32| format!("{mode:04o}");
            compare("mode", mode(member.mode & 0o7777), mode(entry.mode.into()));
        }
        if let Some((major, minor)) = device {
            let (was_major, was_minor) = member.device;
            compare(
                "device",
                format!("{was_major}:{was_minor}"),
                format!("{major}:{minor}"),
            );
        }
        compare(
            "owner",
            format!("{}:{}", member.uid, member.gid),
            format!("{}:{}", entry.uid, entry.gid),
        );
        // Archives of other programs may have whole seconds only.
        let now_ns = match member.mtime_ns {
            0 => 0,
            _ => entry.mtime_ns,
        };
        compare(
            "mtime",
            time(member.mtime_s, member.mtime_ns),
            time(entry.mtime_s, now_ns),
        );
        let was: HashMap<&[u8], &[u8]> = member
            .attributes
            .iter()
            .map(|(name, value)| (&name[..], &value[..]))
            .collect();
        let is: HashMap<&[u8], &[u8]> = inventory.attributes(entry).collect();
        let names = was.keys().chain(is.keys());
        let mut names: Vec<&[u8]> = names
            .filter(|name| was.get(**name) != is.get(**name))
            .copied()
            .collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let what = format!("attribute {}", display_path(name));
            let word = |has: bool| if has { "set" } else { "none" };
            aspects.push(match (was.get(name), is.get(name)) {
                (Some(_), Some(_)) => Aspect {
                    what,
                    archive: None,
                    now: None,
                },
                (was, is) => Aspect::new(&what, word(was.is_some()), word(is.is_some())),
            });
        }
        aspects
    }

    /// What is gone, or shorter, since it was looked at is not the same.
    fn has_same_data(
        &self,
        member: &Member,
        index: usize,
        reader: &mut Reader<'_>,
    ) -> Result<bool> {
        let mut rel = Vec::new();
        self.now.inventory.relative_path(index, &mut rel);
        let source = &self.now.sources[self.now.inventory.source_of(index)];
        let context = || format!("read {}", source.display(&rel));
        let file = match source.open_regular(&rel) {
            Err(error) if is_gone(error) => return Ok(false),
            file => file.with_context(context)?,
        };
        let mut buffers = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
        let mut position = 0;
        for extent in stretches(member) {
            if !is_zero(&file, position, extent.offset, &mut buffers.0, self.cancel)
                .with_context(context)?
            {
                return Ok(false);
            }
            let mut done = 0;
            while done < extent.bytes {
                if self.cancel.load(Ordering::Relaxed) {
                    bail!("interrupted");
                }
                let wanted = (extent.bytes - done).min(READ_BYTES as u64) as usize;
                let got = reader.read_data(&mut buffers.0[..wanted])?;
                let is = &mut buffers.1[..got];
                let read = read_at(&file, is, extent.offset + done).with_context(context)?;
                if read < got || buffers.0[..got] != *is {
                    return Ok(false);
                }
                done += got as u64;
            }
            position = extent.offset + extent.bytes;
        }
        let end = member.file_bytes;
        is_zero(&file, position, end, &mut buffers.0, self.cancel).with_context(context)
    }

    fn finish(mut self, archive: String) -> Diff {
        for (index, member) in std::mem::take(&mut self.directories) {
            let aspects = self.metadata(&member, index);
            self.add(index, aspects);
        }
        self.links();
        let mut same_count = 0;
        let mut differences = std::mem::take(&mut self.removed);
        for index in 0..self.archive_first.len() {
            let has_member = self.archive_first[index] != NONE;
            let aspects = self.aspects.remove(&index).unwrap_or_default();
            let change = match (has_member, aspects.is_empty()) {
                (true, true) => {
                    same_count += 1;
                    continue;
                }
                (true, false) => Change::Changed,
                (false, _) => Change::Added,
            };
            if change == Change::Added
                && (self.implied.contains(&index) || !self.only.includes(&self.now.path(index)))
            {
                continue;
            }
            differences.push(Difference {
                path: self.now.shown(index),
                change,
                aspects,
            });
        }
        differences.sort_by(|a, b| a.path.cmp(&b.path));
        Diff {
            archive,
            same_count,
            differences,
        }
    }

    /// Which names were one file, and which are. Which of them the archive has
    /// the data under does not matter.
    fn links(&mut self) {
        for index in 0..self.archive_first.len() {
            let was = self.archive_first[index];
            if was == NONE {
                continue;
            }
            let (was, is) = (was as usize, self.now.first(index));
            if self.now.first(was) != is {
                let was = self.now.path(was);
                self.linked(index, Some(&was), None);
            }
            let is_first = self.archive_first[is];
            if is != index && is_first != NONE && is_first != was as u32 {
                let is = self.now.path(is);
                self.linked(index, None, Some(&is));
            }
        }
    }
}

fn kind_of(node: Node) -> (Kind, Option<(u32, u32)>) {
    match node {
        Node::Directory => (Kind::Directory, None),
        Node::File { .. } => (Kind::File, None),
        Node::HardLink { .. } => (Kind::HardLink, None),
        Node::Symlink { .. } => (Kind::Symlink, None),
        Node::Fifo => (Kind::Fifo, None),
        Node::CharDevice { major, minor } => (Kind::CharDevice, Some((major, minor))),
        Node::BlockDevice { major, minor } => (Kind::BlockDevice, Some((major, minor))),
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::HardLink => "hard link",
        Kind::Symlink => "symlink",
        Kind::Fifo => "FIFO",
        Kind::CharDevice => "character device",
        Kind::BlockDevice => "block device",
    }
}

fn time(seconds: i64, nanoseconds: u32) -> String {
    // Nanoseconds are less than a billion; a year that no calendar has is not
    // worth an error.
    match Timestamp::new(seconds, nanoseconds as i32) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{seconds}.{nanoseconds:09}"),
    }
}

/// How much there was to read, up to the whole buffer.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// Whether a file holds nothing but zeros from `start` to `end`; holes are not
/// read.
fn is_zero(
    file: &File,
    start: u64,
    end: u64,
    buffer: &mut [u8],
    cancel: &AtomicBool,
) -> Result<bool> {
    let mut position = start;
    while position < end {
        if cancel.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        position = match rustix::fs::seek(file, SeekFrom::Data(position)) {
            Ok(data) => data,
            // Nothing but a hole follows.
            Err(Errno::NXIO) => return Ok(true),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => position,
            Err(error) => return Err(error.into()),
        };
        if position >= end {
            break;
        }
        let part = (end - position).min(buffer.len() as u64) as usize;
        let got = read_at(file, &mut buffer[..part], position)?;
        if got < part || buffer[..part].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        position += part as u64;
    }
    Ok(true)
}
