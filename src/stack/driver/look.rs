//! Looking at the containers of a stack, and waiting for an Engine that is away.

use std::time::Duration;

use anyhow::Result;

use crate::engine::{self, CheckPace, Container};
use crate::stack::journal::JournalEntry;
use crate::sys::signals::Signals;

/// Lists the containers of an entry's project, and those of others that the entry
/// names.
pub(super) fn present(entry: &JournalEntry) -> Result<Vec<Container>> {
    let engine = &entry.compose.engine;
    let mut present = engine.compose_containers(Some(&entry.project))?;
    let others = entry.containers.iter().filter(|was| !was.is_own());
    let others: Vec<String> = others.map(|was| was.id.clone()).collect();
    if !others.is_empty() {
        present.extend(engine.containers_of(others)?);
    }
    engine.check_health(&mut present, CheckPace::Soon);
    Ok(present)
}

pub(super) fn wait_for_engine<T>(
    request: impl Fn() -> Result<T>,
    limit: Duration,
    signals: &Signals,
) -> Result<T> {
    engine::retry_while_unreachable(request, |away| away < limit && signals.received().is_none())
}
