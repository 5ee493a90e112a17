//! What happens before a stack is stopped, so that nothing is stopped for an
//! archive that cannot be made.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};

use super::context::RunContext;
use super::journalled::Journalled;
use super::recorder::add_warning;
use super::state::Cycle;
use crate::config::plan::StackPlan;
use crate::outcome::StackOutcome;
use crate::scan::{Inventory, Source};
use crate::stack::hooks;
use crate::stack::survey::Survey;
use crate::store::Store;
use crate::sys::format::human_bytes;

/// Room that must be free beyond the archive's own length: for data that is added
/// between measuring and stopping, and for the file system itself.
const SPARE_BYTES: u64 = 16 << 20;

impl<'a> Cycle<'a> {
    pub(super) fn plan(
        outcome: &mut StackOutcome,
        context: &'a RunContext<'a>,
        stack: &'a StackPlan,
        survey: Survey,
    ) -> Result<Cycle<'a>> {
        context.signals.check()?;
        copy_survey(outcome, &survey);
        refuse_own_store(context.store, &survey)?;
        hooks::check_services(&stack.hooks, &survey)?;
        // The handles stay open from now on: through them, a volume that its
        // driver unmounts with the last container stays readable.
        let sources = survey.open_sources()?;
        Ok(Cycle::new(context, stack, survey, sources))
    }

    fn new(
        context: &'a RunContext<'a>,
        stack: &'a StackPlan,
        survey: Survey,
        sources: Vec<Source>,
    ) -> Cycle<'a> {
        Cycle {
            context,
            stack,
            survey,
            sources,
            manifest_bytes: OnceLock::new(),
            entry: Journalled::default(),
        }
    }
}

/// Fails for the reason for which a run would fail before it stops the stack, of which
/// this was found. Changes nothing.
///
/// # Errors
/// When there is such a reason, or it cannot be found out.
pub fn rehearse(
    context: &RunContext<'_>,
    stack: &StackPlan,
    survey: Survey,
    sources: Vec<Source>,
    inventory: &Inventory,
) -> Result<()> {
    refuse_own_store(context.store, &survey)?;
    let cycle = Cycle::new(context, stack, survey, sources);
    cycle.refuse(inventory).map(drop)
}

impl Cycle<'_> {
    /// Scans the trees, and checks that the archive has room and nothing else
    /// writes to them.
    pub(super) fn measure(&self) -> Result<Inventory> {
        self.context.signals.check()?;
        let inventory = self.scan()?;
        let available = self.refuse(&inventory)?;
        tracing::info!(
            content = human_bytes(inventory.content_bytes()),
            members = inventory.member_count(),
            available = human_bytes(available),
            "measured"
        );
        Ok(inventory)
    }

    /// Fails if an archive of what was found cannot be made. Returns the free bytes of the
    /// store.
    fn refuse(&self, inventory: &Inventory) -> Result<u64> {
        self.refuse_obstacle()?;
        self.context.store.check_stack_dir(&self.stack.name)?;
        let manifest = self.manifest();
        let layout = self.layout(inventory, &manifest)?;
        let needed = layout.archive_bytes() + SPARE_BYTES;
        let available = self.context.store.available_bytes()?;
        if needed > available {
            bail!(
                "there is not enough room in {}: the archive needs {} ({needed} bytes), and {} \
                 ({available} bytes) are free; nothing was stopped",
                self.context.store.path().display(),
                human_bytes(needed),
                human_bytes(available)
            );
        }
        self.refuse_writers()?;
        Ok(available)
    }

    /// Surveys the stack again right before the stop, because the copy may have
    /// taken hours: what was stopped meanwhile must not be started, and what was
    /// started meanwhile must be.
    pub(super) fn plan_again(&mut self, outcome: &mut StackOutcome) -> Result<()> {
        self.context.signals.check()?;
        let survey = Survey::of(self.stack)?;
        if survey.project != self.survey.project || survey.trees != self.survey.trees {
            bail!("the trees to archive changed during the backup; nothing was stopped");
        }
        // Only directories are checked: a single file may have been saved by a
        // rename, and is read while the stack is down like any new file.
        self.refuse_replaced(Source::is_directory)
            .context("nothing was stopped")?;
        self.sources = survey.open_sources()?;
        copy_survey(outcome, &survey);
        self.survey = survey;
        self.check_manifest_fits()?;
        self.refuse_obstacle()?;
        self.refuse_writers()
    }

    /// Fails if the survey found a reason not to stop the stack.
    fn refuse_obstacle(&self) -> Result<()> {
        match &self.survey.obstacle {
            Some(obstacle) => bail!("{obstacle}; nothing was stopped"),
            None => Ok(()),
        }
    }

    /// Whether the store's file system is almost full.
    pub(super) fn is_store_almost_full(&self) -> bool {
        let available = self.context.store.available_bytes();
        available.is_ok_and(|bytes| bytes < SPARE_BYTES)
    }
}

fn copy_survey(outcome: &mut StackOutcome, survey: &Survey) {
    outcome.project = Some(survey.project.clone());
    outcome.services = survey.services();
    outcome.coverage = survey.coverage.clone();
    for warning in &survey.warnings {
        add_warning(outcome, warning.clone());
    }
}

/// Fails if the store is in a tree, or a tree in the store. The configuration
/// alone cannot show that: a symlink or a volume may lead there.
fn refuse_own_store(store: &Store, survey: &Survey) -> Result<()> {
    let path = store.path();
    let real =
        fs::canonicalize(path).with_context(|| format!("cannot resolve {}", path.display()))?;
    let overlaps = |tree: &Path| {
        fs::canonicalize(tree).is_ok_and(|tree| real.starts_with(&tree) || tree.starts_with(&real))
    };
    match survey.trees.iter().find(|tree| overlaps(&tree.path)) {
        Some(tree) => bail!(
            "it would archive its own archives, because `backupDir` {} and {} lie in one another",
            path.display(),
            tree.path.display()
        ),
        None => Ok(()),
    }
}
