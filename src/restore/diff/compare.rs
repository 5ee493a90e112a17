//! Compares members with the files on the host, one after the other.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use super::content;
use super::metadata;
use super::present::{PresentFiles, shown};
use super::report::{Aspect, Change, Diff, Difference};
use crate::archive::member_path::{normalise, split};
use crate::archive::{Kind, Member, Reader};
use crate::restore::selection::Selection;
use crate::sys::format::display_path;

/// "No entry."
const NONE: u32 = u32::MAX;

pub(super) struct Comparison<'a> {
    present: PresentFiles<'a>,
    selection: &'a Selection,
    cancel: &'a AtomicBool,
    /// For each entry on the host, the entry with the same path as the member
    /// that holds its data in the archive. That is the entry itself unless the
    /// member is a hard link. `NONE` if the archive has no member for the entry.
    archive_first: Vec<u32>,
    /// What differs, by entry.
    aspects: HashMap<usize, Vec<Aspect>>,
    /// Members of directories, by entry. If a directory has several members, the
    /// last one counts.
    directories: HashMap<usize, Member>,
    /// Directories without a member, but with members in them.
    implied: HashSet<usize>,
    removed: Vec<Difference>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(
        present: PresentFiles<'a>,
        selection: &'a Selection,
        cancel: &'a AtomicBool,
    ) -> Comparison<'a> {
        Comparison {
            archive_first: vec![NONE; present.inventory.entries.len()],
            aspects: HashMap::new(),
            directories: HashMap::new(),
            // The directory that an archive was unpacked into need not be a
            // member.
            implied: present.find(b"").into_iter().collect(),
            removed: Vec::new(),
            present,
            selection,
            cancel,
        }
    }

    pub(super) fn members(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        while let Some(member) = reader.next_member()? {
            if self.cancel.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let name = member.name();
            self.member(member, reader)
                .with_context(|| format!("cannot compare {name}"))?;
        }
        Ok(())
    }

    fn member(&mut self, member: Member, reader: &mut Reader<'_>) -> Result<()> {
        let path = normalise(&member.path)?;
        if !self.present.covers(&path) || !self.selection.includes(&path) {
            return Ok(());
        }
        let target = self.hard_link_target(&member)?;
        let is_directory = member.kind == Kind::Directory;
        self.record_implied(&path);
        let Some(index) = self.present.find(&path) else {
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
            self.hard_link(index, &target);
            return Ok(());
        }
        if is_directory {
            self.directories.insert(index, member);
            return Ok(());
        }
        let mut aspects = metadata::differing(&self.present, &member, index);
        let is_comparable = member.kind == Kind::File
            && !aspects.iter().any(|a| a.what == "type" || a.what == "size");
        if is_comparable {
            let (source, rel) = self.present.source(index);
            if !content::is_same(&member, reader, source, &rel, self.cancel)? {
                aspects.push(Aspect::without_values("content"));
            }
        }
        self.add(index, aspects);
        Ok(())
    }

    /// Returns the normalised target of a hard link, `None` for other members.
    fn hard_link_target(&self, member: &Member) -> Result<Option<Vec<u8>>> {
        if member.kind != Kind::HardLink {
            return Ok(None);
        }
        let target = normalise(&member.link).context("the target of the hard link")?;
        if !self.selection.includes(&target) {
            bail!(
                "it is a hard link to {}, which is not selected: name that, too",
                display_path(&member.link)
            );
        }
        Ok(Some(target))
    }

    fn hard_link(&mut self, index: usize, target: &[u8]) {
        match self.present.find(target) {
            Some(target) => {
                self.archive_first[index] = match self.archive_first[target] {
                    NONE => target as u32,
                    first => first,
                }
            }
            None => self.add_link(index, Some(target), None),
        }
    }

    fn record_implied(&mut self, path: &[u8]) {
        let mut path = path;
        while path.contains(&b'/') {
            (path, _) = split(path);
            let found = self.present.find(path);
            // Once a directory is known, so are those above it.
            if found.is_some_and(|index| !self.implied.insert(index)) {
                return;
            }
        }
    }

    fn add(&mut self, index: usize, aspects: Vec<Aspect>) {
        if !aspects.is_empty() {
            self.aspects.entry(index).or_default().extend(aspects);
        }
    }

    fn add_link(&mut self, index: usize, archive: Option<&[u8]>, now: Option<&[u8]>) {
        let aspect = Aspect {
            what: "hard link".to_owned(),
            archive: archive.map(display_path),
            now: now.map(display_path),
        };
        self.add(index, vec![aspect]);
    }

    pub(super) fn finish(mut self, archive: String) -> Diff {
        for (index, member) in std::mem::take(&mut self.directories) {
            let aspects = metadata::differing(&self.present, &member, index);
            self.add(index, aspects);
        }
        self.compare_links();
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
                && (self.implied.contains(&index)
                    || !self.selection.includes(&self.present.path(index)))
            {
                continue;
            }
            differences.push(Difference {
                path: self.present.shown(index),
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

    /// Compares which names are links to the same file. It does not matter which
    /// of them has the data in the archive.
    fn compare_links(&mut self) {
        for index in 0..self.archive_first.len() {
            let archive_first = self.archive_first[index];
            if archive_first == NONE {
                continue;
            }
            let (was, is) = (archive_first as usize, self.present.first_link(index));
            if self.present.first_link(was) != is {
                let was = self.present.path(was);
                self.add_link(index, Some(&was), None);
            }
            let is_first = self.archive_first[is];
            if is != index && is_first != NONE && is_first != archive_first {
                let is = self.present.path(is);
                self.add_link(index, None, Some(&is));
            }
        }
    }
}
