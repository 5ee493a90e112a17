//! Writes members of an archive beneath directories, and nowhere else.
//!
//! Every path is resolved by `openat2` beneath the handle of a directory that
//! was empty, so all that is found there was made here; no symlink is followed
//! and nothing is replaced. Directories, symlinks and nodes are made in the
//! order of the archive; files are written by several threads; hard links
//! follow when all files are there, and the metadata of directories last, the
//! deepest first.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;

use super::metadata::{self, Privilege, Unrestored};
use crate::archive::{Kind, Member, Reader};
use crate::scan::{Extent, open_beneath};

/// Data up to this is read by the one who reads headers, and handed over.
const INLINE_BYTES: u64 = 128 << 10;
/// Handed over at once, to be worth the waking.
const BATCH_BYTES: u64 = 512 << 10;
const BATCH_COUNT: usize = 64;
const COPY_BYTES: usize = 1 << 20;

/// Where a part of the archive goes.
pub struct Destination {
    /// Member path of the part; empty for the whole archive.
    pub prefix: Vec<u8>,
    /// The directory in which `name` is made.
    pub parent: OwnedFd,
    /// What takes the place of the prefix; empty for `parent` itself, which
    /// must be empty.
    pub name: Vec<u8>,
}

pub struct ExtractOptions<'a> {
    /// Members that are extracted, by their normalised path.
    pub is_wanted: &'a dyn Fn(&[u8]) -> bool,
    /// Otherwise device nodes are refused.
    pub allow_devices: bool,
    /// Attributes that this process has no right to set are reported as unrestored.
    /// Otherwise they are an error.
    pub tolerates_refusals: bool,
    pub cancel: &'a AtomicBool,
}

#[derive(Debug, Default)]
pub struct ExtractSummary {
    pub member_count: u64,
    pub file_bytes: u64,
    /// What this file system or user could not be given.
    pub unrestored: Vec<String>,
}

/// The components of a member's path, joined: without `./` and doubled slashes.
///
/// # Errors
/// When it is absolute, or has `..` in it.
pub fn normalise(path: &[u8]) -> Result<Vec<u8>> {
    ensure!(!path.starts_with(b"/"), "its name is absolute");
    let parts = path.split(|byte| *byte == b'/');
    let parts: Vec<&[u8]> = parts
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    ensure!(!parts.contains(&&b".."[..]), "its name has .. in it");
    ensure!(!path.contains(&0), "its name has a NUL in it");
    Ok(parts.join(&b'/'))
}

/// What follows `prefix` in a path that is beneath it, or is it: both are
/// normalised, and everything is beneath the empty one.
pub fn within<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(prefix)?;
    match prefix.is_empty() || rest.is_empty() {
        true => Some(rest),
        false => rest.strip_prefix(b"/"),
    }
}

/// Extracts what is wanted of the members that `reader` has left. With `file`,
/// from which the reader reads, large data is copied, or shared, by the kernel.
///
/// # Errors
/// Names the member. What was extracted before stays where it is.
pub fn extract(
    reader: &mut Reader<'_>,
    file: Option<&File>,
    destinations: &[Destination],
    options: &ExtractOptions<'_>,
) -> Result<ExtractSummary> {
    let shared = Shared {
        file,
        privilege: Privilege::of_this_process(),
        unrestored: Unrestored::new(options.tolerates_refusals),
        failed: AtomicBool::new(false),
        error: Mutex::new(None),
    };
    let (sender, receiver) = sync_channel(4);
    let receiver = Mutex::new(receiver);
    let (result, extractor) = std::thread::scope(|scope| {
        for _ in 0..thread_count() {
            scope.spawn(|| work(&shared, &receiver));
        }
        // Made in here: if it panics, it is dropped, and the workers end.
        let mut extractor = Extractor {
            destinations,
            options,
            shared: &shared,
            batch: Batch::default(),
            sender: Some(sender),
            directories: Vec::new(),
            by_path: HashMap::new(),
            parent: None,
            links: Vec::new(),
            summary: ExtractSummary::default(),
        };
        let result = extractor.members(reader);
        extractor.end_batch();
        extractor.sender = None;
        (result, extractor)
    });
    let mut extractor = extractor;
    // What failed first explains the rest.
    if let Some(error) = shared
        .error
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
    {
        return Err(error);
    }
    result?;
    extractor.link()?;
    extractor.finish_directories()?;
    let mut summary = extractor.summary;
    summary.unrestored = shared.unrestored.into_messages();
    if shared.privilege == Privilege::User {
        summary
            .unrestored
            .push("owners, set-user-id and set-group-id: only root may set them".to_owned());
    }
    Ok(summary)
}

fn thread_count() -> usize {
    std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 8)
}

struct Shared<'a> {
    file: Option<&'a File>,
    privilege: Privilege,
    unrestored: Unrestored,
    failed: AtomicBool,
    error: Mutex<Option<anyhow::Error>>,
}

#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    bytes: u64,
}

/// A regular file to be written.
struct Job {
    parent: Arc<OwnedFd>,
    name: Vec<u8>,
    member: Member,
    /// `None`: it is to be taken from the archive's file.
    data: Option<Vec<u8>>,
}

struct Directory {
    destination: usize,
    path: Vec<u8>,
    /// `None` for one that had to be made for what it holds.
    member: Option<Member>,
}

struct Link {
    destination: usize,
    path: Vec<u8>,
    target_destination: usize,
    target: Vec<u8>,
    member: Member,
}

struct Extractor<'a> {
    destinations: &'a [Destination],
    options: &'a ExtractOptions<'a>,
    shared: &'a Shared<'a>,
    batch: Batch,
    /// `None` when all is handed over: then the workers end.
    sender: Option<SyncSender<Batch>>,
    directories: Vec<Directory>,
    by_path: HashMap<(usize, Vec<u8>), usize>,
    /// The directory that something was last made in.
    parent: Option<(usize, Vec<u8>, Arc<OwnedFd>)>,
    links: Vec<Link>,
    summary: ExtractSummary,
}

impl Extractor<'_> {
    fn members(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        while let Some(member) = reader.next_member()? {
            if self.options.cancel.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if self.shared.failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let name = member.name();
            self.member(member, reader)
                .with_context(|| format!("restore {name}"))?;
        }
        Ok(())
    }

    fn member(&mut self, member: Member, reader: &mut Reader<'_>) -> Result<()> {
        let path = normalise(&member.path)?;
        if !(self.options.is_wanted)(&path) {
            return Ok(());
        }
        let Some((destination, path)) = self.place(&path) else {
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
        // A tree may be a file, but is never a link: what is put there is
        // mounted, or exchanged with what was, by its path.
        let is_link = matches!(member.kind, Kind::Symlink | Kind::HardLink);
        ensure!(
            !is_link || path != self.destinations[destination].name,
            "a link takes the place of what it is to be"
        );
        if member.kind == Kind::HardLink {
            let target = normalise(&member.link).context("the file it is a link to")?;
            let target = Some(target).filter(|target| (self.options.is_wanted)(target));
            let Some((target_destination, target)) = target.and_then(|target| self.place(&target))
            else {
                bail!(
                    "it is a hard link to {}, which is not among what is restored: name that, too",
                    crate::sys::format::display_path(&member.link)
                );
            };
            self.links.push(Link {
                destination,
                path,
                target_destination,
                target,
                member,
            });
            return Ok(());
        }
        let (parent, name) = self.parent(destination, &path)?;
        if member.kind == Kind::File {
            return self.file(parent, name, member, reader);
        }
        self.node(&parent, &name, &member)
    }

    /// Which destination a member is in, and where in it.
    fn place(&self, path: &[u8]) -> Option<(usize, Vec<u8>)> {
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

    fn base(&self, destination: usize) -> std::os::fd::BorrowedFd<'_> {
        self.destinations[destination].parent.as_fd()
    }

    /// The open directory that `path` lies in, and its last component.
    fn parent(&mut self, destination: usize, path: &[u8]) -> Result<(Arc<OwnedFd>, Vec<u8>)> {
        let (parent, name) = split(path);
        if let Some((of, path, fd)) = &self.parent
            && *of == destination
            && path == parent
        {
            return Ok((fd.clone(), name.to_vec()));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let opened = match open_beneath(self.base(destination), parent, flags) {
            Err(Errno::NOENT) if !parent.is_empty() => {
                self.make_missing(destination, parent)?;
                open_beneath(self.base(destination), parent, flags)
            }
            opened => opened,
        };
        let opened = match opened {
            Err(Errno::LOOP | Errno::NOTDIR) => bail!("its name leads through a symlink or a file"),
            opened => opened.context("open the directory it lies in")?,
        };
        let fd = Arc::new(opened);
        self.parent = Some((destination, parent.to_vec(), fd.clone()));
        Ok((fd, name.to_vec()))
    }

    /// Directories that have no member, above one that has.
    fn make_missing(&mut self, destination: usize, path: &[u8]) -> Result<()> {
        if self.by_path.contains_key(&(destination, path.to_vec())) || path.is_empty() {
            return Ok(());
        }
        let (parent, name) = self.parent(destination, path)?;
        make_directory(&parent, &name)?;
        self.note_directory(destination, path.to_vec(), None);
        Ok(())
    }

    fn directory(&mut self, destination: usize, path: Vec<u8>, member: Member) -> Result<()> {
        let key = (destination, path);
        if let Some(index) = self.by_path.get(&key) {
            // As tar has it, the last one counts.
            self.directories[*index].member = Some(member);
            return Ok(());
        }
        if key.1.is_empty() {
            self.note_directory(destination, key.1, Some(member));
            return Ok(());
        }
        let (parent, name) = self.parent(destination, &key.1)?;
        make_directory(&parent, &name)?;
        self.note_directory(destination, key.1, Some(member));
        Ok(())
    }

    fn note_directory(&mut self, destination: usize, path: Vec<u8>, member: Option<Member>) {
        self.by_path
            .insert((destination, path.clone()), self.directories.len());
        self.directories.push(Directory {
            destination,
            path,
            member,
        });
    }

    fn file(
        &mut self,
        parent: Arc<OwnedFd>,
        name: Vec<u8>,
        member: Member,
        reader: &mut Reader<'_>,
    ) -> Result<()> {
        self.summary.file_bytes += member.file_bytes;
        let is_small = member.stored_bytes <= INLINE_BYTES;
        if !is_small && self.shared.file.is_none() {
            let job = Job {
                parent,
                name,
                member,
                data: None,
            };
            return self
                .shared
                .write(&job, |file| copy_from_reader(reader, &job.member, file));
        }
        let mut data = None;
        if is_small {
            let mut bytes = vec![0; member.stored_bytes as usize];
            let mut got = 0;
            while got < bytes.len() {
                got += reader.read_data(&mut bytes[got..])?;
            }
            data = Some(bytes);
        }
        self.batch.bytes += member.stored_bytes;
        self.batch.jobs.push(Job {
            parent,
            name,
            member,
            data,
        });
        if self.batch.bytes >= BATCH_BYTES || self.batch.jobs.len() >= BATCH_COUNT {
            self.end_batch();
        }
        Ok(())
    }

    fn end_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if let Some(sender) = &self.sender {
            // Nobody receives any more only after a panic, which the scope reports.
            let _ = sender.send(batch);
        }
    }

    fn node(&mut self, parent: &OwnedFd, name: &[u8], member: &Member) -> Result<()> {
        let privilege = self.shared.privilege;
        let make = |kind, device: Dev| {
            rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)
        };
        let made = match member.kind {
            Kind::Symlink => rustix::fs::symlinkat(&member.link[..], parent, name),
            Kind::Fifo => make(FileType::Fifo, 0),
            _ if !self.options.allow_devices => {
                bail!("it is a device node; give --allow-devices if you trust the archive")
            }
            _ if privilege == Privilege::User => {
                self.shared
                    .unrestored
                    .add("device nodes: only root may make them".to_owned());
                return Ok(());
            }
            kind => {
                let (major, minor) = member.device;
                let kind = match kind {
                    Kind::CharDevice => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                make(kind, makedev(major, minor))
            }
        };
        made.map_err(twice)?;
        metadata::apply_at(
            parent.as_fd(),
            name,
            member,
            privilege,
            &self.shared.unrestored,
        )
    }

    fn link(&mut self) -> Result<()> {
        for link in std::mem::take(&mut self.links) {
            let context = || format!("restore {}", link.member.name());
            let made = self
                .parent(link.target_destination, &link.target)
                .and_then(|target| Ok((target, self.parent(link.destination, &link.path)?)))
                .and_then(|((target_dir, target), (dir, name))| {
                    rustix::fs::linkat(
                        &*target_dir,
                        &target[..],
                        &*dir,
                        &name[..],
                        AtFlags::empty(),
                    )
                    .map_err(|error| match error {
                        Errno::NOENT => {
                            anyhow::anyhow!("the file it is a link to is not in the archive")
                        }
                        error => twice(error),
                    })
                });
            made.with_context(context)?;
        }
        Ok(())
    }

    fn finish_directories(&mut self) -> Result<()> {
        for directory in self.directories.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let finish = || {
                let fd = open_beneath(self.base(directory.destination), &directory.path, flags)?;
                match &directory.member {
                    Some(member) => metadata::apply(
                        fd.as_fd(),
                        member,
                        self.shared.privilege,
                        &self.shared.unrestored,
                    ),
                    None => Ok(rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))?),
                }
            };
            finish().with_context(|| {
                format!(
                    "restore {}",
                    crate::sys::format::display_path(&directory.path)
                )
            })?;
        }
        Ok(())
    }
}

fn make_directory(parent: &OwnedFd, name: &[u8]) -> Result<()> {
    rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(twice)
}

/// The target was empty, so what is there is of this very archive.
fn twice(error: Errno) -> anyhow::Error {
    match error {
        Errno::EXIST => anyhow::anyhow!("the archive has it twice"),
        error => error.into(),
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn work(shared: &Shared<'_>, receiver: &Mutex<Receiver<Batch>>) {
    loop {
        let batch = receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(batch) = batch else { return };
        for job in &batch.jobs {
            if shared.failed.load(Ordering::Relaxed) {
                break;
            }
            let written = shared.write(job, |file| match (&job.data, shared.file) {
                (Some(data), _) => write_stored(&job.member, data, file),
                (None, Some(archive)) => copy_from_file(archive, &job.member, file),
                (None, None) => bail!("its data was not read"),
            });
            if let Err(error) = written {
                shared.failed.store(true, Ordering::Relaxed);
                let error = error.context(format!("restore {}", job.member.name()));
                let mut first = shared.error.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(error);
            }
        }
    }
}

impl Shared<'_> {
    /// Makes a file, fills it, and gives it its metadata.
    fn write(&self, job: &Job, fill: impl FnOnce(&File) -> Result<()>) -> Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = rustix::fs::openat(&*job.parent, &job.name[..], flags, mode).map_err(twice)?;
        let file = File::from(fd);
        fill(&file)?;
        if job.member.extents.is_some() {
            file.set_len(job.member.file_bytes)
                .context("set its size")?;
        }
        metadata::apply(file.as_fd(), &job.member, self.privilege, &self.unrestored)
    }
}

/// Each stretch of stored data with its place in the file.
pub(super) fn stretches(member: &Member) -> impl Iterator<Item = Extent> + '_ {
    let whole = Extent {
        offset: 0,
        bytes: member.stored_bytes,
        stored: 0,
    };
    let extents = member.extents.as_deref();
    extents
        .unwrap_or(&[])
        .iter()
        .copied()
        .chain(Some(whole).filter(|_| extents.is_none()))
}

fn write_stored(member: &Member, data: &[u8], file: &File) -> Result<()> {
    for extent in stretches(member) {
        let start = extent.stored as usize;
        file.write_all_at(&data[start..start + extent.bytes as usize], extent.offset)
            .context("write it")?;
    }
    Ok(())
}

fn copy_from_reader(reader: &mut Reader<'_>, member: &Member, file: &File) -> Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    for extent in stretches(member) {
        let mut done = 0;
        while done < extent.bytes {
            let wanted = (extent.bytes - done).min(COPY_BYTES as u64) as usize;
            let got = reader.read_data(&mut buffer[..wanted])?;
            file.write_all_at(&buffer[..got], extent.offset + done)
                .context("write it")?;
            done += got as u64;
        }
    }
    Ok(())
}

/// In the kernel, which shares whole blocks with the archive where the file
/// system can (`copy_file_range(2)`).
fn copy_from_file(archive: &File, member: &Member, file: &File) -> Result<()> {
    let mut can_copy = true;
    let mut buffer = Vec::new();
    for extent in stretches(member) {
        let mut done = 0;
        while done < extent.bytes {
            let left = usize::try_from(extent.bytes - done)
                .unwrap_or(usize::MAX)
                .min(1 << 30);
            let (mut from, mut to) = (member.data + extent.stored + done, extent.offset + done);
            if can_copy {
                match rustix::fs::copy_file_range(
                    archive,
                    Some(&mut from),
                    file,
                    Some(&mut to),
                    left,
                ) {
                    Ok(0) | Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => {
                        can_copy = false
                    }
                    Ok(copied) => done += copied as u64,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error).context("write it"),
                }
                continue;
            }
            buffer.resize(COPY_BYTES, 0);
            let part = &mut buffer[..left.min(COPY_BYTES)];
            archive.read_exact_at(part, from).context("read its data")?;
            file.write_all_at(part, to).context("write it")?;
            done += part.len() as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::normalise;

    #[test]
    fn names_that_lead_out_are_refused() {
        assert_eq!(normalise(b"./a//b/").unwrap(), b"a/b");
        assert_eq!(normalise(b"./").unwrap(), b"");
        assert_eq!(normalise(b"a/..b").unwrap(), b"a/..b");
        for wrong in [&b"/a"[..], b"..", b"a/../b", b"../a", b"a/..", b"a\0b"] {
            assert!(normalise(wrong).is_err(), "{wrong:?}");
        }
    }
}
