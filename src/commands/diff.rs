//! `diff`: what changed between two archives.

use anyhow::Result;

use super::look::{LookedInto, NEVER};
use super::output::print_differences;
use crate::archive::tree::ArchiveDiff;
use crate::cli::Global;
use crate::outcome::ExitStatus;

pub fn diff(global: &Global, before: &str, after: &str, pass_over: bool) -> Result<ExitStatus> {
    let open = |what| LookedInto::open(global, what, pass_over);
    let (before, after) = (open(before)?, open(after)?);
    let names = [before.name(), after.name()];
    let trees = (before.open_tree()?, after.open_tree()?);
    let diff = ArchiveDiff::of(trees.0, trees.1, names, &NEVER)?;
    let is_same = diff.differences.is_empty();
    print_differences(global.json, &diff, || diff.text(), is_same)
}
