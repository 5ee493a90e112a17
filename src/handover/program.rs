//! The program that works on a repository: what it is told by its environment, and how
//! long it may run.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::config::{OffsiteRepository, RepositoryKind};
use crate::store::StoredArchive;
use crate::sys::process::{Exit, Program, host_environment};
use crate::sys::progress;
use crate::sys::secret::{SecretSource, credentials_dir, lines_without_secrets, read_variables};
use crate::sys::signals::Signals;

/// The program of a repository, which may run until a deadline.
pub struct RepositoryProgram<'a> {
    pub config: &'a OffsiteRepository,
    pub host: String,
    /// Where caches are, and archives are mounted.
    pub dir: PathBuf,
    pub signals: &'a Signals,
    environment: Vec<(String, OsString)>,
    secrets: Vec<String>,
    deadline: Instant,
}

impl<'a> RepositoryProgram<'a> {
    /// Reads the secrets. Nothing may take longer than `limit`, all in all.
    ///
    /// # Errors
    /// When a secret cannot be read.
    pub fn new(
        config: &'a OffsiteRepository,
        state_dir: &Path,
        limit: Duration,
        signals: &'a Signals,
    ) -> Result<RepositoryProgram<'a>> {
        let dir = state_dir.join("handover").join(config.name());
        let [address, caches, passphrase] = match config.kind {
            RepositoryKind::Borg => ["BORG_REPO", "BORG_BASE_DIR", "BORG_PASSPHRASE"],
            RepositoryKind::Restic => ["RESTIC_REPOSITORY", "RESTIC_CACHE_DIR", "RESTIC_PASSWORD"],
        };
        let mut secrets = read_variables(&config.secrets)?;
        if config.passphrase_file.is_some() || config.credential.is_some() {
            secrets.push((passphrase.to_owned(), read_passphrase(config)?));
        }
        let fixed = [
            (address, OsString::from(&config.repository)),
            (caches, dir.join("cache").into_os_string()),
        ];
        // Times that are given to the program are those of this process's zone.
        let zone = std::env::var_os("TZ").map(|zone| ("TZ", zone));
        let fixed = fixed.into_iter().chain(zone);
        let fixed = fixed.map(|(name, value)| (name.to_owned(), value));
        let given = config.environment.iter();
        let given = given.map(|(name, value)| (name.clone(), OsString::from(value)));
        let secret = secrets.iter();
        let secret = secret.map(|(name, value)| (name.clone(), OsString::from(value)));
        // What is configured comes last, so it wins.
        let environment = host_environment(None).into_iter().chain(fixed);
        let environment = environment.chain(secret).chain(given).collect();
        Ok(RepositoryProgram {
            config,
            host: host(),
            dir,
            signals,
            environment,
            secrets: secrets.into_iter().map(|(_, value)| value).collect(),
            deadline: Instant::now() + limit,
        })
    }

    /// Whether no time is left.
    pub fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Runs the program where no file matters, as [`run_in`](RepositoryProgram::run_in) does.
    ///
    /// # Errors
    /// When it fails.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Vec<u8>> {
        self.run_in(Path::new("/"), args)
    }

    /// Runs the program in a directory, and returns what it printed. Whatever happens to this
    /// process, it does not go on: it is asked to end at the deadline and after a signal, and
    /// killed if this process is.
    ///
    /// # Errors
    /// When it fails. The last lines that it printed are in the message, without secrets.
    pub fn run_in<S: AsRef<OsStr>>(
        &self,
        dir: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Vec<u8>> {
        let args: Vec<OsString> = args
            .into_iter()
            .map(|arg| arg.as_ref().to_owned())
            .collect();
        let name = self.config.kind.program();
        let command = args
            .first()
            .map_or("".into(), |first| first.to_string_lossy());
        let command = format!("{name} {command}");
        let left = self.deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "`{command}`: no time is left");
        let program = Program::new(name, args)
            .only_env(self.environment.iter().cloned())
            .current_dir(dir)
            .limit(left)
            .ends_gently()
            .interruptible_by(self.signals)
            .while_waiting(progress::step)
            .killed_with_this_thread()
            .inherits_nothing();
        let output = program.output()?;
        if output.exit == Exit::Success {
            return Ok(output.stdout);
        }
        let lines = lines_without_secrets(&[output.stdout, output.stderr].concat(), &self.secrets);
        let advice = advice(&lines);
        match lines.as_slice() {
            [] => bail!("`{command}`: {}", output.exit),
            lines => bail!("`{command}`: {}: {}{advice}", output.exit, lines.join("; ")),
        }
    }
}

fn read_passphrase(config: &OffsiteRepository) -> Result<String> {
    let source = SecretSource {
        what: "the passphrase",
        file: config.passphrase_file.as_deref(),
        credential: config.credential.as_deref(),
        fields: ["`passphraseFile`", "`credential`"],
    };
    let passphrase = source.read(credentials_dir().as_deref())?;
    ensure!(!passphrase.contains('\0'), "the passphrase has a NUL");
    Ok(passphrase)
}

/// Returns the name of this machine, as it stands in the names of a repository's archives.
fn host() -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let host = host.to_string_lossy().into_owned();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let host: String = host
        .chars()
        .map(|c| if is_plain(c) { c } else { '-' })
        .collect();
    match host.is_empty() {
        true => "host".to_owned(),
        false => host,
    }
}

/// Says what to do about a lock that is not this program's.
fn advice(lines: &[String]) -> &'static str {
    let has = |words: &str| lines.iter().any(|line| line.contains(words));
    if has("Failed to create/acquire the lock") {
        return "; another Borg uses the repository, or one on another machine was killed: if \
                none runs, `borg break-lock` removes its lock";
    }
    if has("repository is already locked") {
        return "; another restic uses the repository, or one on another machine was killed: if \
                none runs, `restic unlock` removes its lock";
    }
    ""
}

/// Returns the context of an error with an archive.
pub fn in_archive(archive: &StoredArchive) -> String {
    format!("cannot hand over {}", archive.path.display())
}

/// Returns the directory of an archive.
pub fn directory(archive: &StoredArchive) -> Result<&Path> {
    archive.path.parent().context("it has no directory")
}

/// Returns the name of an archive without `.tar`.
pub fn stem(archive: &StoredArchive) -> String {
    let name = archive.name.to_string();
    name.strip_suffix(".tar").unwrap_or(&name).to_owned()
}
