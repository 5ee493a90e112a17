//! Which units a restore stops and starts. Their names come from the configuration of this
//! host and from systemd: whoever made the archive may have written anything into it.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::archive::{Manifest, ManifestDriver};
use crate::config::plan::StackPlan;
use crate::restore::facts::ArchiveFacts;
use crate::stack::unit_containers::{self, CheckedContainer};
use crate::stack::units::{UnitSet, WasActive};
use crate::sys::systemd;

/// The units of a restore, as they are before it.
#[derive(Debug, Default)]
pub(super) struct RestoredUnits {
    /// Units that run now, and are stopped.
    pub running: Vec<WasActive>,
    /// What is started afterwards: those that run now, and those of the configured ones that
    /// ran when the archive was made.
    pub to_start: Vec<WasActive>,
    /// The containers of the running units whose health is waited for after the start.
    pub checked: Vec<CheckedContainer>,
    /// Ids of the containers that end with them.
    pub container_ids: Vec<String>,
    pub stop_limit: Duration,
}

impl RestoredUnits {
    /// Looks at the units of the stack; `None` if it is a Compose project.
    ///
    /// # Errors
    /// When the archive and the configured stack are not of the same kind, or the units must
    /// not be stopped.
    pub fn find(facts: &ArchiveFacts, stack: Option<&StackPlan>) -> Result<Option<RestoredUnits>> {
        let of_units = stack.filter(|stack| stack.is_of_units());
        let described = match facts {
            ArchiveFacts::Described(manifest) if is_of_units(manifest) => Some(manifest),
            _ => None,
        };
        match (described, of_units) {
            (Some(manifest), Some(stack)) => RestoredUnits::look(manifest, stack).map(Some),
            (None, None) => Ok(None),
            (Some(_), None) => bail!(
                "the archive is of units of systemd, and the configuration has no `units` for the \
                 stack {}: configure it as it was, or unpack the archive with --to",
                facts.stack()
            ),
            (None, Some(_)) => bail!(
                "the stack {} has `units`, and the archive is of a Compose project: unpack it with \
                 --to",
                facts.stack()
            ),
        }
    }

    fn look(manifest: &Manifest, stack: &StackPlan) -> Result<RestoredUnits> {
        let set = UnitSet::of(&stack.units)?;
        let obstacle = set.obstacle(systemd::own_unit().as_deref());
        if let Some(obstacle) = obstacle {
            bail!("{obstacle}; nothing was done");
        }
        let running = set.active();
        let configured = set.names();
        let ran = manifest.running.iter().filter(|name| {
            configured.contains(name) && running.iter().all(|was| was.name != **name)
        });
        let ran = ran.map(|name| WasActive {
            name: name.clone(),
            kept_restarting: false,
        });
        let to_start = running.iter().cloned().chain(ran).collect();
        let asked = unit_containers::ask(&stack.compose.engine)?;
        let (mut checked, mut container_ids) = (Vec::new(), Vec::new());
        for (engine, all) in &asked {
            let own = set.containers(all);
            checked.extend(CheckedContainer::all(engine, own.iter().copied()));
            container_ids.extend(own.into_iter().map(|container| container.id.clone()));
        }
        Ok(RestoredUnits {
            checked,
            container_ids,
            to_start,
            running,
            stop_limit: set.stop_limit(),
        })
    }

    /// Returns the names of all units that the restore may start.
    pub fn names_to_start(&self) -> Vec<String> {
        self.to_start.iter().map(|was| was.name.clone()).collect()
    }
}

/// Whether an archive is of units of systemd.
fn is_of_units(manifest: &Manifest) -> bool {
    manifest.driver == ManifestDriver::Systemd
}
