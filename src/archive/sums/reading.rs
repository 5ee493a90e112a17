//! Reads the members of an archive in several threads, and hashes them.

use std::fs::File;
use std::iter::Peekable;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, anyhow, ensure};
use sha2::{Digest, Sha256};

use crate::archive::hash::{
    DataHash, HeadHash, PIECE_BYTES, hash_head, hash_piece, join_pieces, piece_bytes, piece_count,
    shortened,
};
use crate::archive::sums::member_sum::{Algorithm, MemberSum};
use crate::archive::uncached::UncachedReader;
use crate::sys::progress;
use crate::sys::threads::{Spawned, spawn_or_run};

/// Small members that lie one behind the other are read together, up to this.
const GROUP_BYTES: u64 = 1 << 20;
const THREADS_MAX: usize = 8;

/// Hashes of a member's data, and of its head and padding.
pub(super) type Hashes = (DataHash, HeadHash);

/// What a thread reads at once.
enum Job {
    /// Members that lie one behind the other, and their numbers.
    Group(Vec<(usize, MemberSum)>),
    /// One piece of a large member. With the first one, its head is read.
    Piece(Arc<LargeMember>, u64),
    /// A member that the archive is too short for.
    Cut(usize),
    /// A member whose data can only be hashed from its beginning to its end.
    Whole(usize, MemberSum),
}

/// A member whose pieces are read by several threads.
struct LargeMember {
    at: usize,
    member: MemberSum,
    progress: Mutex<Progress>,
}

struct Progress {
    head: HeadHash,
    pieces: Vec<DataHash>,
    left: u64,
    error: Option<anyhow::Error>,
}

/// Reads and hashes `members`, and calls `found` with the number of each and its
/// hashes, or why it cannot be read.
///
/// # Errors
/// The first error of `found`, or `interrupted` soon after `cancel` is set.
pub(super) fn hash_members(
    (file, algorithm): (&File, Algorithm),
    members: impl Iterator<Item = (usize, MemberSum)> + Send,
    cancel: &AtomicBool,
    found: impl Fn(usize, Result<Hashes>) -> Result<()> + Sync,
) -> Result<()> {
    let archive_bytes = file.metadata()?.len();
    let reading = Reading {
        reader: UncachedReader::new(file),
        algorithm,
        cancel,
        found,
    };
    let jobs = Mutex::new(Some(Jobs {
        members: members.peekable(),
        algorithm,
        archive_bytes,
        large: None,
    }));
    let lock = || jobs.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || -> Result<()> {
        let mut buffer = vec![0; GROUP_BYTES as usize];
        loop {
            let Some(job) = lock().as_mut().and_then(Iterator::next) else {
                return Ok(());
            };
            progress::step();
            let done = reading.check_interrupt();
            if let Err(error) = done.and_then(|()| reading.act(job, &mut buffer)) {
                // The other threads find no more jobs.
                *lock() = None;
                return Err(error);
            }
        }
    };
    let threads = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, THREADS_MAX);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| spawn_or_run(scope, work)).collect();
        workers.into_iter().try_for_each(Spawned::join)
    })
}

/// Divides members into jobs, in their order, so that the disk is read from the
/// front to the back.
struct Jobs<I: Iterator<Item = (usize, MemberSum)>> {
    members: Peekable<I>,
    algorithm: Algorithm,
    archive_bytes: u64,
    /// The large member whose pieces come next, and the number of the first.
    large: Option<(Arc<LargeMember>, u64)>,
}

impl<I: Iterator<Item = (usize, MemberSum)>> Iterator for Jobs<I> {
    type Item = Job;

    fn next(&mut self) -> Option<Job> {
        if let Some((large, number)) = self.large.take() {
            if number + 1 < large.piece_count() {
                self.large = Some((large.clone(), number + 1));
            }
            return Some(Job::Piece(large, number));
        }
        let archive_bytes = self.archive_bytes;
        let (at, member) = self.members.next()?;
        if member.end() > archive_bytes {
            return Some(Job::Cut(at));
        }
        if !is_small(&member) {
            if self.algorithm == Algorithm::Sha256 {
                return Some(Job::Whole(at, member));
            }
            self.large = Some((Arc::new(LargeMember::new(at, member)), 0));
            return self.next();
        }
        let (start, mut end) = (member.start, member.end());
        let mut group = vec![(at, member)];
        while let Some(next) = self.members.next_if(|(_, next)| {
            is_small(next)
                && next.start == end
                && next.end() <= archive_bytes
                && next.end() - start <= GROUP_BYTES
        }) {
            end = next.1.end();
            group.push(next);
        }
        Some(Job::Group(group))
    }
}

fn is_small(member: &MemberSum) -> bool {
    member.data_bytes <= PIECE_BYTES && member.end() - member.start <= GROUP_BYTES
}

impl LargeMember {
    fn new(at: usize, member: MemberSum) -> LargeMember {
        // A member without data has one empty piece.
        let count = piece_count(member.data_bytes).max(1);
        LargeMember {
            at,
            member,
            progress: Mutex::new(Progress {
                head: HeadHash::default(),
                pieces: vec![DataHash::default(); count as usize],
                left: count,
                error: None,
            }),
        }
    }

    fn piece_count(&self) -> u64 {
        piece_count(self.member.data_bytes).max(1)
    }
}

struct Reading<'a, F> {
    reader: UncachedReader<'a>,
    algorithm: Algorithm,
    cancel: &'a AtomicBool,
    found: F,
}

impl<F: Fn(usize, Result<Hashes>) -> Result<()>> Reading<'_, F> {
    fn act(&self, job: Job, buffer: &mut [u8]) -> Result<()> {
        match job {
            Job::Cut(at) => (self.found)(at, Err(anyhow!("the archive ends within it"))),
            Job::Whole(at, member) => (self.found)(at, self.whole(&member, buffer)),
            Job::Group(members) => self.group(&members, buffer),
            Job::Piece(large, number) => self.piece(&large, number, buffer),
        }
    }

    fn group(&self, members: &[(usize, MemberSum)], buffer: &mut [u8]) -> Result<()> {
        let start = members[0].1.start;
        let end = members[members.len() - 1].1.end();
        let bytes = &mut buffer[..(end - start) as usize];
        let read = self.reader.read_exact_at(bytes, start);
        for (at, member) in members {
            let hashes = match &read {
                Ok(()) => {
                    let bytes = &buffer[(member.start - start) as usize..];
                    let bytes = &bytes[..(member.end() - member.start) as usize];
                    Ok(hash_member(self.algorithm, member, bytes))
                }
                // Only some of them may be unreadable.
                Err(_) => self.whole(member, buffer),
            };
            (self.found)(*at, hashes)?;
        }
        Ok(())
    }

    /// Reads one piece. Whoever reads the last one concludes the member.
    fn piece(&self, large: &LargeMember, number: u64, buffer: &mut [u8]) -> Result<()> {
        let hashed = self.hash_piece(&large.member, number, buffer);
        let mut progress = large
            .progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match hashed {
            Ok((piece, head)) => {
                progress.pieces[number as usize] = piece;
                progress.head = head.unwrap_or(progress.head);
            }
            Err(error) => progress.error = Some(error),
        }
        progress.left -= 1;
        if progress.left > 0 {
            return Ok(());
        }
        let hashes = match progress.error.take() {
            Some(error) => Err(error),
            None if large.member.data_bytes == 0 => Ok(([0; 32], progress.head)),
            None => Ok((join_pieces(&progress.pieces), progress.head)),
        };
        drop(progress);
        (self.found)(large.at, hashes)
    }

    /// The hash of a piece and, with the first one, that of the head.
    fn hash_piece(
        &self,
        member: &MemberSum,
        number: u64,
        buffer: &mut [u8],
    ) -> Result<(DataHash, Option<HeadHash>)> {
        let head = match number {
            0 => Some(self.head(member, buffer)?),
            _ => None,
        };
        let bytes = piece_bytes(member.data_bytes, number) as usize;
        let piece = &mut buffer[..bytes];
        let start = member.data_start() + number * PIECE_BYTES;
        self.reader.read_exact_at(piece, start)?;
        Ok((hash_piece(piece, number, member.data_bytes), head))
    }

    /// Reads a member from its beginning to its end.
    fn whole(&self, member: &MemberSum, buffer: &mut [u8]) -> Result<Hashes> {
        let head = self.head(member, buffer)?;
        if member.data_bytes == 0 {
            return Ok(([0; 32], head));
        }
        let data = self.hash_ranges([(member.data_start(), member.data_end())], buffer)?;
        Ok((data, head))
    }

    fn head(&self, member: &MemberSum, buffer: &mut [u8]) -> Result<HeadHash> {
        let head = (member.start, member.data_start());
        let padding = (member.data_end(), member.end());
        let hash = self.hash_ranges([head, padding], buffer)?;
        Ok(shortened(&hash))
    }

    fn hash_ranges<const N: usize>(
        &self,
        ranges: [(u64, u64); N],
        buffer: &mut [u8],
    ) -> Result<DataHash> {
        let mut sha256 = Sha256::new();
        let mut blake3 = blake3::Hasher::new();
        for (mut start, end) in ranges {
            while start < end {
                self.check_interrupt()?;
                progress::step();
                let part = (end - start).min(buffer.len() as u64) as usize;
                let part = &mut buffer[..part];
                self.reader.read_exact_at(part, start)?;
                match self.algorithm {
                    Algorithm::Sha256 => sha256.update(&*part),
                    Algorithm::Blake3 => drop(blake3.update(part)),
                }
                start += part.len() as u64;
            }
        }
        Ok(match self.algorithm {
            Algorithm::Sha256 => sha256.finalize().into(),
            Algorithm::Blake3 => blake3.finalize().into(),
        })
    }

    fn check_interrupt(&self) -> Result<()> {
        ensure!(!self.cancel.load(Ordering::Relaxed), "interrupted");
        progress::step();
        Ok(())
    }
}

/// The hashes of a small member that was read as `bytes`.
fn hash_member(algorithm: Algorithm, member: &MemberSum, bytes: &[u8]) -> Hashes {
    let (head, rest) = bytes.split_at(member.head_bytes as usize);
    let (data, padding) = rest.split_at(member.data_bytes as usize);
    let head = match algorithm {
        Algorithm::Sha256 => {
            let hash = Sha256::new().chain_update(head).chain_update(padding);
            shortened(&hash.finalize().into())
        }
        Algorithm::Blake3 => hash_head(head, padding),
    };
    match data {
        [] => ([0; 32], head),
        _ => (algorithm.digest(data), head),
    }
}
