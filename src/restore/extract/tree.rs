//! Creates directories, symlinks, nodes and hard links, and hands files over to
//! the writer threads.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;

use super::content::copy_from_reader;
use super::files::{Batch, FileWriter, NewFile, duplicate};
use super::metadata::{self, Privilege};
use super::options::{Destination, ExtractOptions, ExtractSummary};
use crate::archive::member_path::{normalise, split, within};
use crate::archive::{ImpliedDirectories, Kind, Member, Reader};
use crate::scan::open_beneath;
use crate::sys::format::display_path;

/// Data up to this size is read by the thread that reads the headers, and
/// handed over with the file.
const INLINE_BYTES: u64 = 128 << 10;

struct Directory {
    destination: usize,
    path: Vec<u8>,
    /// `None` if the archive has no member for it, but for something in it.
    member: Option<Member>,
    /// Device and inode of what was created; `None` for the target itself.
    identity: Option<(u64, u64)>,
}

struct Link {
    destination: usize,
    path: Vec<u8>,
    target_destination: usize,
    target: Vec<u8>,
    member: Member,
}

pub struct TreeBuilder<'a> {
    destinations: &'a [Destination],
    options: &'a ExtractOptions<'a>,
    writer: &'a FileWriter<'a>,
    batch: Batch,
    /// `None` when all files are handed over. The threads end then.
    sender: Option<SyncSender<Batch>>,
    directories: Vec<Directory>,
    /// Position in `directories` by destination and path.
    by_path: HashMap<(usize, Vec<u8>), usize>,
    /// The directory that the last member is in, kept open for the next one.
    last_parent: Option<(usize, Vec<u8>, Arc<OwnedFd>)>,
    links: Vec<Link>,
    implied: ImpliedDirectories,
    /// Where the last member begins in the archive.
    position: u64,
    summary: ExtractSummary,
}

impl<'a> TreeBuilder<'a> {
    pub fn new(
        destinations: &'a [Destination],
        options: &'a ExtractOptions<'a>,
        writer: &'a FileWriter<'a>,
        sender: SyncSender<Batch>,
    ) -> TreeBuilder<'a> {
        TreeBuilder {
            destinations,
            options,
            writer,
            batch: Batch::default(),
            sender: Some(sender),
            directories: Vec::new(),
            by_path: HashMap::new(),
            last_parent: None,
            links: Vec::new(),
            implied: ImpliedDirectories::default(),
            position: 0,
            summary: ExtractSummary::default(),
        }
    }

    /// Reads the members. Creates all but files and hard links.
    pub fn members(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        while let Some(member) = reader.next_member()? {
            if self.options.cancel.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if self.writer.has_failed() {
                return Ok(());
            }
            let name = member.name();
            self.member(member, reader)
                .with_context(|| format!("cannot restore {name}"))?;
        }
        Ok(())
    }

    fn member(&mut self, member: Member, reader: &mut Reader<'_>) -> Result<()> {
        self.position = member.start;
        let path = normalise(&member.path)?;
        if !(self.options.is_wanted)(&path) {
            return Ok(());
        }
        let Some((destination, path)) = self.locate(&path) else {
            return Ok(());
        };
        self.summary.member_count += 1;
        if member.kind == Kind::Directory {
            return self.directory(destination, path, member);
        }
        ensure!(
            !path.is_empty(),
            "it takes the place of the target directory"
        );
        // The root of a tree may be a file, but never a link: it is mounted into
        // a container, or exchanged with the old data, by its path.
        let is_link = matches!(member.kind, Kind::Symlink | Kind::HardLink);
        ensure!(
            !is_link || path != self.destinations[destination].name,
            "the tree's root is a symlink or hard link; it must be a directory or a file"
        );
        if member.kind == Kind::HardLink {
            return self.hard_link(destination, path, member);
        }
        let (parent, name) = self.parent(destination, &path)?;
        if member.kind == Kind::File {
            return self.file(parent, name, member, reader);
        }
        self.node(&parent, &name, &member)
    }

    /// Returns the destination that a member goes to, and its path there.
    fn locate(&self, path: &[u8]) -> Option<(usize, Vec<u8>)> {
        self.destinations
            .iter()
            .enumerate()
            .find_map(|(index, destination)| {
                let rest = within(path, &destination.prefix)?;
                let parts = [&destination.name, rest];
                let parts = parts.into_iter().filter(|part| !part.is_empty());
                Some((index, parts.collect::<Vec<_>>().join(&b'/')))
            })
    }

    fn base(&self, destination: usize) -> BorrowedFd<'_> {
        self.destinations[destination].parent.as_fd()
    }

    /// Opens the directory that `path` is in, and returns it with the last
    /// component. Creates the directory if the archive has no member for it.
    fn parent(&mut self, destination: usize, path: &[u8]) -> Result<(Arc<OwnedFd>, Vec<u8>)> {
        let (parent, name) = split(path);
        if let Some((of, path, fd)) = &self.last_parent
            && *of == destination
            && path == parent
        {
            return Ok((fd.clone(), name.to_vec()));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let opened = match open_beneath(self.base(destination), parent, flags) {
            Err(Errno::NOENT) if !parent.is_empty() => {
                self.create_implied(destination, parent)?;
                open_beneath(self.base(destination), parent, flags)
            }
            opened => opened,
        };
        let opened = match opened {
            Err(Errno::LOOP | Errno::NOTDIR) => bail!("its name leads through a symlink or a file"),
            opened => opened.context("cannot open the directory it is in")?,
        };
        let fd = Arc::new(opened);
        self.last_parent = Some((destination, parent.to_vec(), fd.clone()));
        Ok((fd, name.to_vec()))
    }

    /// Creates a directory that has no member, and those above it.
    fn create_implied(&mut self, destination: usize, path: &[u8]) -> Result<()> {
        if self.by_path.contains_key(&(destination, path.to_vec())) || path.is_empty() {
            return Ok(());
        }
        self.implied.add(path, self.position)?;
        let (parent, name) = self.parent(destination, path)?;
        let identity = create_directory(&parent, &name)?;
        self.record_directory(destination, path.to_vec(), None, Some(identity));
        Ok(())
    }

    fn directory(&mut self, destination: usize, path: Vec<u8>, member: Member) -> Result<()> {
        let key = (destination, path);
        if let Some(index) = self.by_path.get(&key) {
            // The last member of a directory counts, as with tar.
            self.directories[*index].member = Some(member);
            return Ok(());
        }
        let mut identity = None;
        if !key.1.is_empty() {
            let (parent, name) = self.parent(destination, &key.1)?;
            identity = Some(create_directory(&parent, &name)?);
        }
        self.record_directory(destination, key.1, Some(member), identity);
        Ok(())
    }

    fn record_directory(
        &mut self,
        destination: usize,
        path: Vec<u8>,
        member: Option<Member>,
        identity: Option<(u64, u64)>,
    ) {
        self.by_path
            .insert((destination, path.clone()), self.directories.len());
        self.directories.push(Directory {
            destination,
            path,
            member,
            identity,
        });
    }

    fn file(
        &mut self,
        parent: Arc<OwnedFd>,
        name: Vec<u8>,
        member: Member,
        reader: &mut Reader<'_>,
    ) -> Result<()> {
        // Sparse files may have any size.
        let file_bytes = &mut self.summary.file_bytes;
        *file_bytes = file_bytes.saturating_add(member.file_bytes);
        let is_small = member.stored_bytes <= INLINE_BYTES;
        let mut new = NewFile {
            parent,
            name,
            member,
            data: None,
        };
        if !is_small && !self.writer.has_file() {
            let cancel = self.options.cancel;
            return self.writer.write(&new, |file| {
                copy_from_reader(reader, &new.member, file, cancel)
            });
        }
        if is_small {
            let mut data = vec![0; new.member.stored_bytes as usize];
            let mut got = 0;
            while got < data.len() {
                got += reader.read_data(&mut data[got..])?;
            }
            new.data = Some(data);
        }
        self.batch.push(new);
        if self.batch.is_full() {
            self.send_batch();
        }
        Ok(())
    }

    fn send_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if let Some(sender) = &self.sender {
            // This fails only if all threads have panicked, which the scope that
            // they run in reports.
            let _ = sender.send(batch);
        }
    }

    /// Hands over the last files, and lets the threads end.
    pub fn end_files(&mut self) {
        self.send_batch();
        self.sender = None;
    }

    fn node(&mut self, parent: &OwnedFd, name: &[u8], member: &Member) -> Result<()> {
        let privilege = self.writer.privilege;
        let create = |kind, device: Dev| {
            rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)
        };
        let created = match member.kind {
            Kind::Symlink => rustix::fs::symlinkat(&member.link[..], parent, name),
            Kind::Fifo => create(FileType::Fifo, 0),
            _ if !self.options.allow_devices => {
                bail!("it is a device node; give --allow-devices if you trust the archive")
            }
            _ if privilege == Privilege::User => {
                self.writer
                    .unrestored
                    .add("device nodes: only root may create them".to_owned());
                return Ok(());
            }
            kind => {
                let (major, minor) = member.device;
                let kind = match kind {
                    Kind::CharDevice => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                create(kind, makedev(major, minor))
            }
        };
        created.map_err(duplicate)?;
        metadata::apply_at(
            parent.as_fd(),
            name,
            member,
            privilege,
            &self.writer.unrestored,
        )
    }

    /// Records a hard link. It is created when its target exists.
    fn hard_link(&mut self, destination: usize, path: Vec<u8>, member: Member) -> Result<()> {
        let target = normalise(&member.link).context("the target of the hard link")?;
        let target = Some(target).filter(|target| (self.options.is_wanted)(target));
        let Some((target_destination, target)) = target.and_then(|target| self.locate(&target))
        else {
            bail!(
                "it is a hard link to {}, which is not selected: name that, too",
                display_path(&member.link)
            );
        };
        self.links.push(Link {
            destination,
            path,
            target_destination,
            target,
            member,
        });
        Ok(())
    }

    /// Creates the hard links. All files must exist.
    pub fn link(&mut self) -> Result<()> {
        for link in std::mem::take(&mut self.links) {
            self.create_link(&link)
                .with_context(|| format!("cannot restore {}", link.member.name()))?;
        }
        Ok(())
    }

    fn create_link(&mut self, link: &Link) -> Result<()> {
        let (target_dir, target) = self.parent(link.target_destination, &link.target)?;
        let (dir, name) = self.parent(link.destination, &link.path)?;
        let created = rustix::fs::linkat(
            &*target_dir,
            &target[..],
            &*dir,
            &name[..],
            AtFlags::empty(),
        );
        created.map_err(|error| match error {
            Errno::NOENT => anyhow!("the target of the hard link is not in the archive"),
            error => duplicate(error),
        })
    }

    /// Sets the metadata of directories. Nothing may be created in them any
    /// more, since that would change their times.
    pub fn finish_directories(&self) -> Result<()> {
        for directory in self.directories.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let finish = || {
                let fd = open_beneath(self.base(directory.destination), &directory.path, flags)?;
                let stat = rustix::fs::fstat(&fd)?;
                let found = Some((stat.st_dev, stat.st_ino));
                ensure!(
                    directory.identity.is_none() || directory.identity == found,
                    "another directory was put in its place while it was unpacked"
                );
                match &directory.member {
                    Some(member) => metadata::apply(
                        fd.as_fd(),
                        member,
                        self.writer.privilege,
                        &self.writer.unrestored,
                    ),
                    None => Ok(rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))?),
                }
            };
            finish()
                .with_context(|| format!("cannot restore {}", display_path(&directory.path)))?;
        }
        Ok(())
    }

    pub fn into_summary(self) -> ExtractSummary {
        self.summary
    }
}

/// Creates a directory. Returns its device and inode.
fn create_directory(parent: &OwnedFd, name: &[u8]) -> Result<(u64, u64)> {
    rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(duplicate)?;
    let created = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    let created = created.context("cannot stat the new directory")?;
    Ok((created.st_dev, created.st_ino))
}
