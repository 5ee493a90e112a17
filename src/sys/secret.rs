//! Where a secret of this program is: in a file, or in a systemd credential.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// A longer file is none that holds a password or an address.
const MAX_BYTES: u64 = 64 * 1024;

/// The two places where a secret may be, and how they are called in messages.
pub struct SecretSource<'a> {
    /// Such as `the mail password`.
    pub what: &'a str,
    pub file: Option<&'a Path>,
    pub credential: Option<&'a str>,
    /// The fields of the configuration for `file` and `credential`.
    pub fields: [&'a str; 2],
}

/// Returns the directory in which systemd passes credentials to this process.
pub fn credentials_dir() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

impl SecretSource<'_> {
    /// Reads the secret. A newline at its end is dropped.
    ///
    /// # Errors
    /// When there is none, or it is empty.
    pub fn read(&self, credentials_dir: Option<&Path>) -> Result<String> {
        let path = self.path(credentials_dir)?;
        let context = || format!("cannot read {} from {}", self.what, path.display());
        let mut text = String::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
            .with_context(context)?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let secret = line.strip_suffix('\r').unwrap_or(line);
        ensure!(!secret.is_empty(), "{}: it is empty", context());
        Ok(secret.to_owned())
    }

    /// Returns the path of the secret. A systemd unit uses the credential. The same
    /// configuration tried in a shell uses the file.
    fn path(&self, credentials_dir: Option<&Path>) -> Result<PathBuf> {
        let [file_field, credential_field] = self.fields;
        match (self.credential, credentials_dir, self.file) {
            (Some(name), Some(dir), _) => Ok(dir.join(name)),
            (_, _, Some(path)) => Ok(path.to_owned()),
            (Some(name), None, None) => bail!(
                "cannot find {}: CREDENTIALS_DIRECTORY is not set; the systemd unit needs \
                 LoadCredential={name}:...",
                self.what
            ),
            (None, _, None) => {
                bail!("{} needs {file_field} or {credential_field}", self.what)
            }
        }
    }
}

/// Checks the name of a credential. `field` is that of the configuration, `file_field`
/// the one for a path.
///
/// # Errors
/// When it is not a name, but a path or a part of one.
pub fn check_credential_name(name: &str, field: &str, file_field: &str) -> Result<()> {
    match name {
        "" | "." | ".." => bail!("{field} is not the name of a credential"),
        name if name.contains('/') => {
            bail!("{field} must be a credential's name, not a path; for a path use {file_field}")
        }
        _ => Ok(()),
    }
}
