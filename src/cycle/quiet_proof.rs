//! Proof that nothing writes to the data while it is archived.

use anyhow::{Result, bail};

use super::recorder::add_warning;
use super::state::Cycle;
use crate::config::OnBusy;
use crate::engine::{self, Container, Status};
use crate::outcome::StackOutcome;
use crate::scan::Inventory;
use crate::stack::quiet::{self, WriterFilter, Writers};

/// Exit status of a container that got SIGKILL.
const KILLED: i64 = 128 + 9;

impl Cycle<'_> {
    /// Fails if a container that the backup will not stop writes to the data. This
    /// is checked before the stop, so that nothing is stopped in vain.
    pub(super) fn refuse_writers(&self) -> Result<()> {
        let own = self.survey.running.iter();
        let own: Vec<&str> = own.map(|was| was.id.as_str()).collect();
        let filter = WriterFilter::RunningExcept(&own);
        let containers = engine::containers()?;
        let writers = self.container_writers(&containers, filter);
        if self.stack.on_busy == OnBusy::Fail && !writers.busy.is_empty() {
            bail!("{}; nothing was stopped", in_use(&writers.busy));
        }
        Ok(())
    }

    /// Proves that the stack is stopped and nothing else writes to its data. Also
    /// returns the containers, for [`prove_quiet_since`](Cycle::prove_quiet_since).
    pub(super) fn prove_quiet(
        &self,
        outcome: &mut StackOutcome,
    ) -> Result<(Inventory, Vec<Container>)> {
        self.context.signals.check()?;
        // A mount may have been unmounted with the last container.
        self.refuse_replaced(|source| !source.is_mount())?;
        let containers = engine::containers()?;
        self.check_stopped(outcome, &containers)?;
        // While the stack is down, its own containers are not exempt.
        let filter = WriterFilter::RunningExcept(&[]);
        let Writers { mut busy, possible } = self.container_writers(&containers, filter);
        for found in possible {
            tracing::debug!(found, "could write");
        }
        let inventory = self.scan()?;
        let frozen = containers.iter().filter(|c| c.status == Status::Paused);
        let frozen: Vec<&str> = frozen.map(|c| c.id.as_str()).collect();
        busy.extend(quiet::process_writers(&inventory, &frozen)?);
        self.fail_or_warn(outcome, &busy)?;
        Ok((inventory, containers))
    }

    /// Proves that no container has run since [`prove_quiet`](Cycle::prove_quiet)
    /// returned `before`. A daemon that restarts also starts containers that have
    /// a restart policy, and they may have ended again.
    pub(super) fn prove_quiet_since(
        &self,
        outcome: &mut StackOutcome,
        before: &[Container],
    ) -> Result<()> {
        let now = self.await_containers()?;
        let filter = WriterFilter::StartedSince(before);
        let writers = self.container_writers(&now, filter);
        self.fail_or_warn(outcome, &writers.busy)
    }

    /// What is not archived may be written to.
    fn container_writers(&self, containers: &[Container], filter: WriterFilter<'_>) -> Writers {
        quiet::container_writers(containers, &self.tree_paths(), filter, &|root, inside| {
            self.stack.leaves_out(root, inside)
        })
    }

    fn check_stopped(&self, outcome: &mut StackOutcome, containers: &[Container]) -> Result<()> {
        for was in &self.survey.running {
            let Some(now) = containers.iter().find(|c| c.id == was.id) else {
                continue;
            };
            let is_frozen = now.status == Status::Paused && self.is_paused();
            if is_frozen {
                continue;
            }
            if now.status != Status::Stopped {
                bail!(
                    "{} still runs after its stop; does something restart it?",
                    was.name
                );
            }
            if now.exit_code == KILLED && !now.oom_killed {
                let grace = self.stack.stop_timeout.unwrap_or(now.stop_timeout);
                let warning = format!(
                    "{} did not end within {} s of its stop signal and was killed, so its data may \
                     need recovery; give it more time with `stopTimeout` or `stop_grace_period`",
                    was.name,
                    grace.as_secs()
                );
                add_warning(outcome, warning);
            }
        }
        Ok(())
    }

    /// Fails or warns, as `onBusy` says, if there are writers.
    fn fail_or_warn(&self, outcome: &mut StackOutcome, writers: &[String]) -> Result<()> {
        if writers.is_empty() {
            return Ok(());
        }
        if self.stack.on_busy == OnBusy::Fail {
            bail!(in_use(writers));
        }
        add_warning(outcome, in_use(writers));
        Ok(())
    }
}

fn in_use(writers: &[String]) -> String {
    format!("the data is in use ({}); see `onBusy`", writers.join("; "))
}
