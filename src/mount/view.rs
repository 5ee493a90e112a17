//! The directories that are mounted: those of the view itself, and those of archives.

use std::collections::{BTreeMap, HashMap};

use super::inodes::{ROOT, Slot};
use super::viewed::{ViewedArchive, ViewedMembers};
use crate::archive::tree::{ArchiveTree, NodeId};

/// Number of a place in its view; the first one is the root.
pub(super) type PlaceId = usize;

/// Directories that hold archives, by name.
#[derive(Debug)]
pub struct View {
    places: Vec<Place>,
    slots: Vec<Slot>,
    by_slot: HashMap<Slot, PlaceId>,
}

#[derive(Debug)]
pub(super) enum Place {
    Directory(BTreeMap<String, PlaceId>),
    Archive(Box<ViewedArchive>),
}

/// What an inode number leads to.
#[derive(Clone, Copy)]
pub(super) enum Found<'a> {
    /// A directory of the view itself.
    Directory(&'a BTreeMap<String, PlaceId>),
    Member {
        place: PlaceId,
        archive: &'a ViewedArchive,
        members: &'a ViewedMembers,
        id: NodeId,
    },
    /// The archive cannot be read.
    Damaged,
}

impl View {
    /// A view of one archive. Inode numbers are those of the stack in other views.
    pub fn of_archive(archive: ViewedArchive, stack: &str) -> View {
        let mut view = View {
            places: Vec::new(),
            slots: Vec::new(),
            by_slot: HashMap::new(),
        };
        view.add(Place::Archive(Box::new(archive)), stack);
        view
    }

    /// A view of a directory for each stack.
    pub fn of_stacks() -> View {
        let mut view = View {
            places: Vec::new(),
            slots: Vec::new(),
            by_slot: HashMap::new(),
        };
        view.add(Place::Directory(BTreeMap::new()), "");
        view
    }

    /// Shows an archive as the directory `stack`.
    pub fn add_latest(&mut self, stack: &str, archive: ViewedArchive) {
        let place = self.add(Place::Archive(Box::new(archive)), stack);
        self.name(0, stack, place);
    }

    /// Shows an archive as the directory `name` in the directory `stack`.
    pub fn add_one_of_all(&mut self, stack: &str, name: &str, archive: ViewedArchive) {
        let known = match &self.places[0] {
            Place::Directory(names) => names.get(stack).copied(),
            Place::Archive(_) => None,
        };
        let directory = known.unwrap_or_else(|| {
            let place = self.add(Place::Directory(BTreeMap::new()), stack);
            self.name(0, stack, place);
            place
        });
        let key = format!("{stack}/{name}");
        let place = self.add(Place::Archive(Box::new(archive)), &key);
        self.name(directory, name, place);
    }

    fn add(&mut self, place: Place, key: &str) -> PlaceId {
        let slot = Slot::choose(key, |slot| self.by_slot.contains_key(&slot));
        let id = self.places.len();
        self.by_slot.insert(slot, id);
        self.slots.push(slot);
        self.places.push(place);
        id
    }

    fn name(&mut self, directory: PlaceId, name: &str, place: PlaceId) {
        if let Place::Directory(names) = &mut self.places[directory] {
            names.insert(name.to_owned(), place);
        }
    }

    /// Returns what an inode number leads to; `None` if there is no such inode.
    pub(super) fn find(&self, inode: u64) -> Option<Found<'_>> {
        if inode == ROOT {
            return Some(self.at(0, ArchiveTree::ROOT));
        }
        let place = *self.by_slot.get(&Slot::of(inode))?;
        if Slot::is_directory(inode) {
            return Some(self.at(place, ArchiveTree::ROOT));
        }
        let Place::Archive(archive) = &self.places[place] else {
            return None;
        };
        let Some(members) = archive.members() else {
            return Some(Found::Damaged);
        };
        Some(self.at(place, members.inodes.node(inode)?))
    }

    pub(super) fn at(&self, place: PlaceId, id: NodeId) -> Found<'_> {
        match &self.places[place] {
            Place::Directory(names) => Found::Directory(names),
            Place::Archive(archive) => match archive.members() {
                Some(members) => Found::Member {
                    place,
                    archive,
                    members,
                    id,
                },
                None => Found::Damaged,
            },
        }
    }

    /// Whether an inode is a directory of the view or the root of an archive, which are
    /// there before any header is read.
    pub(super) fn is_place(&self, inode: u64) -> bool {
        inode == ROOT || (Slot::is_directory(inode) && self.by_slot.contains_key(&Slot::of(inode)))
    }

    /// Returns the inode number of a directory of the view, or of an archive's root.
    pub(super) fn place_inode(&self, place: PlaceId) -> u64 {
        match place {
            0 => ROOT,
            place => self.slots[place].directory(),
        }
    }

    pub(super) fn member_inode(&self, place: PlaceId, members: &ViewedMembers, id: NodeId) -> u64 {
        match id {
            ArchiveTree::ROOT => self.place_inode(place),
            id => self.slots[place].member(&members.inodes, id),
        }
    }
}
