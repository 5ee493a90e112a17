//! `diff`: what changed between two archives.

use anyhow::Result;

use super::look::LookedInto;
use super::output::{print, print_json};
use crate::archive::tree::ArchiveDiff;
use crate::cli::Global;
use crate::outcome::ExitStatus;
use crate::sys::signals::Signals;

/// The exit status is like that of diff(1), but 2 means that there are differences,
/// because 1 means that the command could not run.
pub fn diff(global: &Global, before: &str, after: &str, pass_over: bool) -> Result<ExitStatus> {
    let signals = Signals::install_silently()?;
    let open = |what| LookedInto::open(global, what, pass_over, signals.flag());
    let (before, after) = (open(before)?, open(after)?);
    let names = [before.name(), after.name()];
    let trees = (before.open_tree()?, after.open_tree()?);
    let diff = ArchiveDiff::of(trees.0, trees.1, names, signals.flag())?;
    if global.json {
        print_json(&diff)?;
    } else {
        print(&diff.text())?;
    }
    Ok(match diff.differences.as_slice() {
        [] => ExitStatus::Ok,
        _ => ExitStatus::Incomplete,
    })
}
