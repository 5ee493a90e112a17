//! Where a secret of this program is: in a file, or in a systemd credential; and how it
//! is kept out of what is reported.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::sys::format::last_lines;

/// A longer file is none that holds a password or an address.
const MAX_BYTES: u64 = 64 * 1024;
/// How many lines of a program's output are reported.
pub const OUTPUT_LINES: usize = 10;
/// Shorter lines of a secret are words that occur elsewhere.
const SECRET_LINE_MIN: usize = 6;

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

/// Reads secrets for variables of an environment, each from a file with an absolute path,
/// or from the systemd credential with this name. A newline at the end is dropped.
///
/// # Errors
/// When one cannot be read, or has a NUL.
pub fn read_variables(sources: &BTreeMap<String, String>) -> Result<Vec<(String, String)>> {
    let read = |(name, source): (&String, &String)| {
        let path = match Path::new(source).is_absolute() {
            true => PathBuf::from(source),
            false => credentials_dir()
                .map(|dir| dir.join(source))
                .with_context(|| {
                    format!(
                        "cannot find the credential {source} for {name}: CREDENTIALS_DIRECTORY is \
                         not set; the systemd unit needs LoadCredential={source}:..."
                    )
                })?,
        };
        let value = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {} for {name}", path.display()))?;
        let value = value.strip_suffix('\n').unwrap_or(&value);
        let value = value.strip_suffix('\r').unwrap_or(value);
        ensure!(
            !value.contains('\0'),
            "the value of {name} in {} has a NUL",
            path.display()
        );
        Ok((name.clone(), value.to_owned()))
    };
    sources.iter().map(read).collect()
}

/// Returns the last lines of what a program printed, each cut, without secrets.
pub fn lines_without_secrets(output: &[u8], secrets: &[String]) -> Vec<String> {
    let text = String::from_utf8_lossy(output).into_owned();
    // Also single lines of a key, and longer secrets before those that they contain.
    let lines = secrets.iter().flat_map(|secret| secret.lines());
    let lines = lines.filter(|line| line.len() >= SECRET_LINE_MIN);
    let mut secrets: Vec<&str> = secrets.iter().map(String::as_str).chain(lines).collect();
    secrets.retain(|secret| !secret.is_empty());
    secrets.sort_unstable_by_key(|secret| Reverse(secret.len()));
    let text = secrets
        .into_iter()
        .fold(text, |text, secret| text.replace(secret, "***"));
    last_lines(&text, OUTPUT_LINES)
}
