//! Standard input, which may be a pipe that never ends or whose other end says nothing.

use std::io::{self, Read};
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, poll};

use crate::sys::signals;

const POLL_INTERVAL_MS: u16 = 200;

/// Reads until a signal asks the program to end.
pub struct InterruptibleStdin;

impl Read for InterruptibleStdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        loop {
            if let Some(signal) = signals::received() {
                return Err(io::Error::other(format!("interrupted by {signal}")));
            }
            let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, POLL_INTERVAL_MS)? > 0 {
                // Without a buffer, in which data could wait that poll(2) does not see.
                return Ok(rustix::io::read(&stdin, buffer)?);
            }
        }
    }
}
