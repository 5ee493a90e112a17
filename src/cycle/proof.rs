//! Nothing writes to what is archived.

use anyhow::{Result, bail};

use super::Cycle;
use super::record::warn;
use crate::config::OnBusy;
use crate::engine::{self, Container, Status};
use crate::outcome::StackOutcome;
use crate::scan::Inventory;
use crate::stack::quiet::{self, WriterFilter, Writers};

/// Exit status of a container that got SIGKILL.
const KILLED: i64 = 128 + 9;

impl Cycle<'_> {
    /// Before the stop, so that nothing is stopped in vain.
    pub(super) fn refuse_writers(&self) -> Result<()> {
        let own = self.survey.running.iter();
        let own: Vec<&str> = own.map(|was| was.id.as_str()).collect();
        let filter = WriterFilter::RunningExcept(&own);
        let writers = quiet::container_writers(&engine::containers()?, &self.paths(), filter);
        if self.stack.on_busy == OnBusy::Fail && !writers.busy.is_empty() {
            bail!("{}; nothing was stopped", busy(&writers.busy));
        }
        Ok(())
    }

    /// Also returns the containers as they were at that moment.
    pub(super) fn prove_quiet(
        &self,
        outcome: &mut StackOutcome,
    ) -> Result<(Inventory, Vec<Container>)> {
        self.context.signals.check()?;
        // What was mounted may be unmounted with the last container.
        self.refuse_replaced(|source| !source.is_mount())?;
        let containers = engine::containers()?;
        self.check_stopped(outcome, &containers)?;
        // With the stack down, no container is exempt.
        let filter = WriterFilter::RunningExcept(&[]);
        let Writers { mut busy, possible } =
            quiet::container_writers(&containers, &self.paths(), filter);
        for found in possible {
            tracing::debug!(found, "could write");
        }
        let inventory = self.scan()?;
        let frozen = containers.iter().filter(|c| c.status == Status::Paused);
        let frozen: Vec<&str> = frozen.map(|c| c.id.as_str()).collect();
        busy.extend(quiet::process_writers(&inventory, &frozen)?);
        self.judge(outcome, &busy)?;
        Ok((inventory, containers))
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
                let grace = grace.as_secs();
                warn(
                    outcome,
                    format!(
                        "{} did not end within {grace} s of its stop signal and was killed: its data \
                     may need a recovery; give it more time (stopTimeout, stop_grace_period)",
                        was.name
                    ),
                );
            }
        }
        Ok(())
    }

    pub(super) fn judge(&self, outcome: &mut StackOutcome, found: &[String]) -> Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        if self.stack.on_busy == OnBusy::Fail {
            bail!(busy(found));
        }
        warn(outcome, busy(found));
        Ok(())
    }
}

fn busy(found: &[String]) -> String {
    format!("the data is in use ({}); see onBusy", found.join("; "))
}
