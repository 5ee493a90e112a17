//! Proof that nothing writes to the data while it is archived.

use anyhow::{Result, bail};

use super::recorder::add_warning;
use super::state::Cycle;
use crate::config::OnBusy;
use crate::engine::{Container, Status};
use crate::outcome::StackOutcome;
use crate::scan::Inventory;
use crate::stack::driver::{self, UnitsAtRest};
use crate::stack::neighbours::Neighbours;
use crate::stack::quiet::{self, WriterFilter, Writers};

/// Exit status of a container that got SIGKILL.
const KILLED: i64 = 128 + 9;

/// What a proof has seen, for the one that follows the copy.
pub(super) struct AtRest {
    containers: Containers,
    units: UnitsAtRest,
}

/// The containers that one look has found.
struct Containers {
    /// Those whose writing makes the backup fail.
    all: Vec<Container>,
    /// Those of users' Engines: they are told of.
    of_users: Vec<Container>,
    /// Whether all other Engines have answered.
    is_complete: bool,
}

impl Cycle<'_> {
    /// Fails if a container that the backup will not stop writes to the data. This
    /// is checked before the stop, so that nothing is stopped in vain. What the other
    /// Engines have told the survey is new enough for that.
    pub(super) fn refuse_writers(&self) -> Result<()> {
        let own = self.survey.own_ids();
        let filter = WriterFilter::RunningExcept(&own);
        let mut containers = driver::containers_now(self.stack)?;
        containers.extend_from_slice(&self.survey.neighbours.containers);
        let writers = self.container_writers(&containers, filter);
        if self.stack.on_busy == OnBusy::Fail && !writers.busy.is_empty() {
            bail!("{}; nothing was stopped", in_use(&writers.busy));
        }
        Ok(())
    }

    /// Proves that the stack is stopped and nothing else writes to its data. Also
    /// returns what [`prove_quiet_since`](Cycle::prove_quiet_since) needs.
    pub(super) fn prove_quiet(&self, outcome: &mut StackOutcome) -> Result<(Inventory, AtRest)> {
        self.context.signals.check()?;
        // A mount may have been unmounted with the last container.
        self.refuse_replaced(|source| !source.is_mount())?;
        let (units, warnings) = UnitsAtRest::look(&self.survey.units)?;
        for warning in warnings {
            add_warning(outcome, warning);
        }
        let containers = self.with_neighbours(driver::containers_now(self.stack)?);
        self.check_stopped(outcome, &containers.all)?;
        // While the stack is down, its own containers are not exempt.
        let filter = WriterFilter::RunningExcept(&[]);
        let Writers { mut busy, possible } = self.container_writers(&containers.all, filter);
        for found in possible {
            tracing::debug!(found, "could write");
        }
        self.tell_of_users(outcome, &containers, filter);
        let inventory = self.scan()?;
        let frozen = containers.all.iter().filter(|c| c.status == Status::Paused);
        let frozen: Vec<&str> = frozen.map(|c| c.id.as_str()).collect();
        busy.extend(quiet::process_writers(&inventory, &frozen)?);
        self.fail_or_warn(outcome, &busy)?;
        Ok((inventory, AtRest { containers, units }))
    }

    /// Proves that no container and no unit has run since
    /// [`prove_quiet`](Cycle::prove_quiet) returned `before`. A daemon that restarts also
    /// starts containers that have a restart policy, and they may have ended again.
    pub(super) fn prove_quiet_since(
        &self,
        outcome: &mut StackOutcome,
        before: &AtRest,
    ) -> Result<()> {
        before.units.check_still()?;
        let before = &before.containers;
        let own = self.await_containers()?;
        let now = match before.is_complete {
            true => self.with_neighbours(own),
            // One that was not seen before would look as if it had just been started.
            false => Containers {
                all: own,
                of_users: Vec::new(),
                is_complete: false,
            },
        };
        let writers = self.container_writers(&now.all, WriterFilter::StartedSince(&before.all));
        self.tell_of_users(outcome, &now, WriterFilter::StartedSince(&before.of_users));
        self.fail_or_warn(outcome, &writers.busy)
    }

    /// Adds the containers of other stacks' Engines, if these have answered before the
    /// stop.
    fn with_neighbours(&self, own: Vec<Container>) -> Containers {
        let had_answered = self.survey.neighbours.have_answered();
        let neighbours = match had_answered {
            true => Neighbours::while_down(self.stack),
            false => Neighbours::default(),
        };
        for warning in &neighbours.warnings {
            tracing::warn!("{warning}");
        }
        Containers {
            is_complete: had_answered && neighbours.have_answered(),
            all: own.into_iter().chain(neighbours.containers).collect(),
            of_users: neighbours.of_users,
        }
    }

    /// Warns of containers of users' Engines that write to the data. A user must not be
    /// able to keep another stack from being backed up by what the user's Engine says;
    /// an open file is found by its process.
    fn tell_of_users(
        &self,
        outcome: &mut StackOutcome,
        containers: &Containers,
        filter: WriterFilter<'_>,
    ) {
        for found in self.container_writers(&containers.of_users, filter).busy {
            add_warning(
                outcome,
                format!(
                    "{found}, says the Engine of a user: the data may have changed while it was archived"
                ),
            );
        }
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
