//! Finds the archive that an argument of the command line means: a stack's
//! archive in the store, a file, or standard input.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::load::load_or_default;
use crate::archive::Manifest;
use crate::cli::Global;
use crate::config::plan::Plan;
use crate::restore::{Archive, check_manifest};
use crate::store::{Store, StoredArchive, identity};
use crate::sys::similar::did_you_mean;
use crate::sys::time::OffsetTime;

/// Opens the archive that `what` means: `-`, a path, `STACK` or `STACK@TIME`.
///
/// # Errors
/// When there is no such archive, or it cannot be opened.
pub fn open_archive(global: &Global, what: &str) -> Result<(Archive, PassedOver)> {
    if what == "-" {
        return Ok((Archive::stdin(None)?, PassedOver::default()));
    }
    if is_path(what) {
        return Ok((Archive::open(Path::new(what))?, PassedOver::default()));
    }
    let plan = load_or_default(global)?;
    let (stored, passed_over) = find_in_store(&plan, what)?;
    Ok((Archive::open(&stored.path)?, passed_over))
}

/// Archives that are newer than the newest good one of their stack, but are
/// damaged, incomplete, dated in the future or of another stack. A sentence for
/// each.
///
/// Whoever asks for the newest archive expects the newest data. So an older one
/// is used only if the admin says so.
#[derive(Default)]
pub struct PassedOver(Vec<String>);

impl PassedOver {
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Logs the archives if `is_allowed` says that an older one will do.
    ///
    /// # Errors
    /// When it does not, and there are such archives.
    pub fn check(&self, is_allowed: bool) -> Result<()> {
        for line in self.lines().filter(|_| is_allowed) {
            tracing::warn!("passed over: {line}");
        }
        ensure!(
            is_allowed || self.0.is_empty(),
            "the newest archive cannot be used: {}; give --pass-over to use the newest good one, or \
             name an archive by its time (STACK@TIME)",
            self.0.join("; ")
        );
        Ok(())
    }
}

/// Returns whether an argument names a file: it has a slash, or ends as the
/// name of an archive does. All others, except `-`, name a stack.
pub fn is_path(what: &str) -> bool {
    what.contains('/') || what.ends_with(".tar") || what.ends_with(".tar.age")
}

/// Returns whether an argument has the form `STACK` or `STACK@TIME`.
pub fn is_stack(what: &str) -> bool {
    what != "-" && !is_path(what)
}

/// Archives of a stack in the store: `STACK`, or `STACK@TIME` for those whose time begins
/// with these digits.
pub struct StackAt<'a> {
    pub stack: &'a str,
    time: &'a str,
    digits: String,
}

impl<'a> StackAt<'a> {
    /// # Errors
    /// When the time has other characters than a time.
    pub fn parse(what: &'a str) -> Result<StackAt<'a>> {
        let (stack, time) = what.split_once('@').unwrap_or((what, ""));
        let digits: String = time.chars().filter(char::is_ascii_digit).collect();
        let is_separator = |c: char| "-_:T ".contains(c);
        ensure!(
            time.chars().all(|c| c.is_ascii_digit() || is_separator(c))
                && digits.is_empty() == time.is_empty(),
            "{time:?} is not a time: give its first digits, as in {stack}@20261124_03 or \
             {stack}@2026-11-24 (`list {stack}` shows all archives)"
        );
        Ok(StackAt {
            stack,
            time,
            digits,
        })
    }

    /// Returns the archives, the oldest first; none if the stack has no archive at all.
    ///
    /// # Errors
    /// When there is no such stack, or it has no archive of this time.
    pub fn archives(&self, plan: &Plan, store: &Store) -> Result<Vec<StoredArchive>> {
        let StackAt {
            stack,
            time,
            digits,
        } = self;
        let mut archives = store.list(stack)?;
        if archives.is_empty() {
            ensure!(
                plan.configured.iter().any(|known| known == stack),
                "{}",
                unknown_stack(plan, store, stack)
            );
            return Ok(archives);
        }
        archives.retain(|archive| {
            let name = archive.name.time.strftime("%Y%m%d%H%M%S").to_string();
            name.starts_with(digits)
        });
        ensure!(
            !archives.is_empty(),
            "there is no archive of {stack} of {time} (`list {stack}` shows all archives)"
        );
        Ok(archives)
    }
}

fn unknown_stack(plan: &Plan, store: &Store, stack: &str) -> String {
    let stored = store.stacks().unwrap_or_default();
    let known = plan.configured.iter().chain(&stored).map(String::as_str);
    format!(
        "no stack `{stack}` is configured, and there is no archive of a stack {stack} in {}{}",
        plan.backup_dir.display(),
        did_you_mean(stack, known)
    )
}

/// Finds the archive that `STACK` or `STACK@TIME` means: the newest good one
/// that is not dated in the future, or the newest of those whose time begins with
/// these digits, good or not.
///
/// # Errors
/// When the time has other characters, or there is no such archive.
pub fn find_in_store(plan: &Plan, what: &str) -> Result<(StoredArchive, PassedOver)> {
    let wanted = StackAt::parse(what)?;
    let stack = wanted.stack;
    let store = Store::open(&plan.backup_dir)?;
    let mut archives = wanted.archives(plan, &store)?;
    if archives.is_empty() {
        identity::check(plan)?;
        bail!(
            "there is no archive of a stack {stack} in {}",
            plan.backup_dir.display()
        );
    }
    if !wanted.digits.is_empty()
        && let Some(archive) = archives.pop()
    {
        return Ok((archive, PassedOver::default()));
    }
    newest_good(archives, &OffsetTime::now())
        .with_context(|| format!("there is no good archive of {stack} (see `list {stack}`)"))
}

/// `archives` are sorted by time, the oldest first.
fn newest_good(
    mut archives: Vec<StoredArchive>,
    now: &OffsetTime,
) -> Result<(StoredArchive, PassedOver)> {
    let mut passed_over = Vec::new();
    while let Some(archive) = archives.pop() {
        let Some(objection) = archive.objection(now) else {
            return Ok((archive, PassedOver(passed_over)));
        };
        passed_over.push(format!("{} {objection}", archive.path.display()));
    }
    bail!(passed_over.join("; "))
}

/// Reads the manifest of an archive; `None` if another program wrote the
/// archive.
///
/// # Errors
/// When the manifest cannot be read, or is not valid.
pub fn read_manifest(archive: &Archive) -> Result<Option<Manifest>> {
    let context = || format!("cannot read the manifest of {}", archive.name());
    let json = archive.manifest().with_context(context)?;
    let Some(json) = json else { return Ok(None) };
    let manifest: Manifest = serde_json::from_slice(&json).with_context(context)?;
    check_manifest(&manifest).with_context(context)?;
    Ok(Some(manifest))
}
