//! The answers to the kernel's requests. The mount is read-only, so none of them
//! changes anything.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyXattr, Request,
};

use super::attributes::{file_type, of_directory, of_node};
use super::view::{Found, View};
use super::viewed::{ViewedArchive, ViewedMembers};
use crate::archive::tree::{NodeId, NodeKind, TreeNode};

/// How long the kernel may keep what it was told. Nothing changes while it is mounted.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// An inode number is never given to another file.
const GENERATION: Generation = Generation(0);
const BLOCK_BYTES: u32 = 512;
/// Most that one read may ask for.
const READ_BYTES_MAX: usize = 16 << 20;
/// Longest name in a directory that the kernel takes (`FUSE_NAME_MAX`).
const NAME_BYTES_MAX: usize = 1024;
/// `SEEK_DATA` and `SEEK_HOLE` of lseek(2), the only ones that the kernel asks about.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// A view, as a FUSE file system.
pub(super) struct ArchiveFileSystem(pub(super) View);

type Answer<T> = Result<T, Errno>;

/// A member of an archive.
struct FoundMember<'a> {
    archive: &'a ViewedArchive,
    members: &'a ViewedMembers,
    id: NodeId,
}

impl FoundMember<'_> {
    fn node(&self) -> &TreeNode {
        self.members.tree.node(self.id)
    }
}

impl ArchiveFileSystem {
    fn found(&self, inode: INodeNo) -> Answer<Found<'_>> {
        match self.0.find(inode.0) {
            Some(Found::Damaged) => Err(Errno::EIO),
            Some(found) => Ok(found),
            None => Err(Errno::ENOENT),
        }
    }

    fn member(&self, inode: INodeNo) -> Answer<FoundMember<'_>> {
        match self.found(inode)? {
            Found::Member {
                archive,
                members,
                id,
                ..
            } => Ok(FoundMember {
                archive,
                members,
                id,
            }),
            Found::Directory(_) => Err(Errno::EISDIR),
            Found::Damaged => Err(Errno::EIO),
        }
    }

    fn attributes(&self, inode: INodeNo) -> Answer<FileAttr> {
        if self.0.is_place(inode.0) {
            return Ok(of_directory(inode.0));
        }
        let member = self.member(inode)?;
        Ok(of_node(member.node(), inode.0, member.archive.changed()))
    }

    pub(super) fn look_up(&self, parent: INodeNo, name: &OsStr) -> Answer<FileAttr> {
        let child = match self.found(parent)? {
            Found::Directory(names) => {
                let place = name.to_str().and_then(|name| names.get(name));
                self.0.place_inode(*place.ok_or(Errno::ENOENT)?)
            }
            Found::Member {
                place, members, id, ..
            } => {
                let child = members.tree.child(id, name.as_bytes());
                self.0
                    .member_inode(place, members, child.ok_or(Errno::ENOENT)?)
            }
            Found::Damaged => return Err(Errno::EIO),
        };
        self.attributes(INodeNo(child))
    }

    /// Adds the entries from the `offset`th on, until `add` says that there is no more
    /// room. It gets the inode, the offset of the next entry, the type and the name.
    fn list(
        &self,
        inode: INodeNo,
        offset: u64,
        mut add: impl FnMut(u64, u64, FileType, &OsStr) -> bool,
    ) -> Answer<()> {
        let found = self.found(inode)?;
        for (at, name) in [(0, "."), (1, "..")] {
            let is_wanted = at >= offset;
            if is_wanted && add(inode.0, at + 1, FileType::Directory, OsStr::new(name)) {
                return Ok(());
            }
        }
        let skipped = usize::try_from(offset.saturating_sub(2)).map_err(|_| Errno::EINVAL)?;
        match found {
            Found::Directory(names) => {
                for (at, (name, place)) in names.iter().enumerate().skip(skipped) {
                    let inode = self.0.place_inode(*place);
                    if add(inode, at as u64 + 3, FileType::Directory, OsStr::new(name)) {
                        break;
                    }
                }
                Ok(())
            }
            Found::Member {
                place, members, id, ..
            } => {
                if !members.tree.is_directory(id) {
                    return Err(Errno::ENOTDIR);
                }
                let children = members.tree.children(id).iter().enumerate();
                for (at, (name, child)) in children.skip(skipped) {
                    // It would end the list as if nothing followed.
                    if name.len() > NAME_BYTES_MAX {
                        return Err(Errno::EIO);
                    }
                    let inode = self.0.member_inode(place, members, *child);
                    let kind = file_type(&members.tree.node(*child).kind);
                    if add(inode, at as u64 + 3, kind, OsStr::from_bytes(name)) {
                        break;
                    }
                }
                Ok(())
            }
            Found::Damaged => Err(Errno::EIO),
        }
    }

    fn read_data(&self, inode: INodeNo, offset: u64, bytes: u32) -> Answer<Vec<u8>> {
        let member = self.member(inode)?;
        let mut buffer = vec![0; (bytes as usize).min(READ_BYTES_MAX)];
        let read = member
            .archive
            .read_file(member.members, member.id, &mut buffer, offset);
        buffer.truncate(read.map_err(|_| Errno::EIO)?);
        Ok(buffer)
    }

    fn seek(&self, inode: INodeNo, offset: i64, whence: i32) -> Answer<i64> {
        let member = self.member(inode)?;
        let NodeKind::File(data) = &member.node().kind else {
            return Err(Errno::EINVAL);
        };
        let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        if from >= data.file_bytes {
            return Err(Errno::ENXIO);
        }
        let found = match whence {
            SEEK_DATA => data.next_data(from).ok_or(Errno::ENXIO)?,
            SEEK_HOLE => data.next_hole(from),
            _ => return Err(Errno::EINVAL),
        };
        i64::try_from(found).map_err(|_| Errno::EOVERFLOW)
    }

    fn extended_attribute(&self, inode: INodeNo, name: &OsStr) -> Answer<&[u8]> {
        if self.0.is_place(inode.0) {
            return Err(Errno::NO_XATTR);
        }
        let Found::Member { members, id, .. } = self.found(inode)? else {
            return Err(Errno::NO_XATTR);
        };
        let mut attributes = members.tree.node(id).attributes.iter();
        let found = attributes.find(|(key, _)| key == name.as_bytes());
        found.map(|(_, value)| &value[..]).ok_or(Errno::NO_XATTR)
    }

    /// The names of all extended attributes, each with a NUL behind it.
    fn attribute_names(&self, inode: INodeNo) -> Answer<Vec<u8>> {
        if self.0.is_place(inode.0) {
            return Ok(Vec::new());
        }
        let member = self.member(inode)?;
        let names = member.node().attributes.iter();
        Ok(names
            .flat_map(|(name, _)| [name, &b"\0"[..]].concat())
            .collect())
    }
}

/// Answers a request for an extended attribute, or for its size.
fn reply_attribute(answer: Answer<&[u8]>, size: u32, reply: ReplyXattr) {
    match answer {
        Err(error) => reply.error(error),
        Ok(value) if size == 0 => match u32::try_from(value.len()) {
            Ok(bytes) => reply.size(bytes),
            Err(_) => reply.error(Errno::E2BIG),
        },
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(value),
    }
}

impl Filesystem for ArchiveFileSystem {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.look_up(parent, name) {
            Ok(attributes) => reply.entry(&TTL, &attributes, GENERATION),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        match self.member(inode) {
            Ok(member) => match &member.node().kind {
                NodeKind::Symlink(target) => reply.data(target),
                _ => reply.error(Errno::EINVAL),
            },
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.member(inode) {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_data(inode, offset, size) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.found(inode) {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.list(inode, offset, |inode, next, kind, name| {
            reply.add(INodeNo(inode), next, kind, name)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(
            0,
            0,
            0,
            0,
            0,
            BLOCK_BYTES,
            NAME_BYTES_MAX as u32,
            BLOCK_BYTES,
        );
    }

    fn getxattr(&self, _: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_attribute(self.extended_attribute(inode, name), size, reply);
    }

    fn listxattr(&self, _: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.attribute_names(inode);
        reply_attribute(names.as_deref().map_err(|error| *error), size, reply);
    }

    fn lseek(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.seek(inode, offset, whence) {
            Ok(offset) => reply.offset(offset),
            Err(error) => reply.error(error),
        }
    }
}
