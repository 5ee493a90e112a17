//! Random names.

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context, Result};

const ID_BYTES: usize = 16;

/// Returns 16 random bytes in hexadecimal.
///
/// # Errors
/// When the kernel gives none.
pub fn random_id() -> Result<String> {
    let mut random = [0; ID_BYTES];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .context("cannot read random bytes")?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
