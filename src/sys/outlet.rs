//! Standard output and standard error, whose reader may stop reading without going away:
//! a pager that waits, a terminal that is halted, a process that was stopped.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use rustix::fs::FileType;

use crate::sys::signals;

/// A pipe that takes anything takes this much (`PIPE_BUF`, pipe(7)).
const PIPE_BYTES: usize = 4096;
const POLL_INTERVAL_MS: u16 = 200;
/// How long standard error may take nothing.
const STDERR_LIMIT: Duration = Duration::from_secs(5);

/// Writes to standard output. If nobody reads, it waits until a signal arrives that this
/// process handles.
///
/// # Errors
/// When that happens, or the reader has gone away.
pub fn write_stdout(bytes: &[u8]) -> io::Result<()> {
    write(io::stdout(), bytes, |_| {
        let interrupted = |signal| io::Error::other(format!("interrupted by {signal}"));
        signals::received().map_or(Ok(()), |signal| Err(interrupted(signal)))
    })
}

/// Writes to standard error. If nobody reads for some seconds, this and all that follows is
/// dropped until somebody reads again, because no backup may wait for a terminal. Errors
/// are ignored for the same reason.
pub fn write_stderr(bytes: &[u8]) {
    static IS_STALLED: AtomicBool = AtomicBool::new(false);
    let limit = match IS_STALLED.load(Ordering::Relaxed) {
        true => Duration::ZERO,
        false => STDERR_LIMIT,
    };
    let written = write(io::stderr(), bytes, |waited| match waited >= limit {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(()),
    });
    let is_stalled = written.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
    IS_STALLED.store(is_stalled, Ordering::Relaxed);
}

/// Writes all of `bytes`. While nothing can be written, `waits` is asked again and again
/// whether to go on waiting; it gets the time for which nothing was taken.
fn write(
    target: impl AsFd,
    mut bytes: &[u8],
    waits: impl Fn(Duration) -> io::Result<()>,
) -> io::Result<()> {
    let stat = rustix::fs::fstat(&target)?;
    // A write that is longer than what there is room for would wait within the kernel.
    let part_bytes = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::BlockDevice => usize::MAX,
        _ => PIPE_BYTES,
    };
    let mut moved = Instant::now();
    while !bytes.is_empty() {
        let mut ready = [PollFd::new(target.as_fd(), PollFlags::POLLOUT)];
        let written = match poll(&mut ready, POLL_INTERVAL_MS) {
            Ok(0) => Err(rustix::io::Errno::AGAIN),
            Ok(_) => rustix::io::write(&target, &bytes[..bytes.len().min(part_bytes)]),
            Err(Errno::EINTR) => Err(rustix::io::Errno::INTR),
            Err(error) => return Err(error.into()),
        };
        match written {
            Ok(count) => {
                bytes = &bytes[count..];
                moved = Instant::now();
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => waits(moved.elapsed())?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::thread;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_is_waited_for_only_as_long_as_asked() {
        let (mut reader, writer) = io::pipe().unwrap();
        let limit = |waited| match waited > Duration::from_millis(300) {
            true => Err(io::Error::other("nobody reads")),
            false => Ok(()),
        };
        let bytes = vec![b'x'; 1 << 20];
        let error = write(&writer, &bytes, limit).unwrap_err();
        assert_eq!(error.to_string(), "nobody reads");
        // The control: somebody reads, and all of it arrives.
        let read = thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all.len())
        });
        write(&writer, &bytes, limit).unwrap();
        drop(writer);
        assert!(read.join().unwrap().unwrap() > bytes.len());
    }
}
