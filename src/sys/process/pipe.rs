//! Reads a program's output while the program runs, so that a full pipe never
//! stops it.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A thread that reads a pipe to its end.
pub struct PipeReader {
    bytes: Arc<Mutex<Vec<u8>>>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl PipeReader {
    /// Reads until the pipe ends or has given `limit` bytes.
    ///
    /// # Errors
    /// When there is no room for a thread.
    pub fn start(pipe: Option<impl Read + Send + 'static>, limit: usize) -> io::Result<PipeReader> {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (shared, over) = (bytes.clone(), is_over.clone());
        let thread = thread::Builder::new().spawn(move || {
            let Some(mut pipe) = pipe else { return };
            let mut buffer = [0; 8 << 10];
            // An error ends the output; what was read before it is still useful.
            loop {
                let count = match pipe.read(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Ok(0) | Err(_) => return,
                    Ok(count) => count,
                };
                let mut bytes = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if bytes.len() + count > limit {
                    over.store(true, Ordering::Relaxed);
                    return;
                }
                bytes.extend_from_slice(&buffer[..count]);
            }
        })?;
        Ok(PipeReader {
            bytes,
            is_over,
            thread,
        })
    }

    /// Whether there was more output than the limit.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Returns all output, or after the deadline what has arrived by then. In
    /// that case the thread goes on until the pipe is closed.
    pub fn finish(self, deadline: Instant) -> Vec<u8> {
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL);
        }
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
