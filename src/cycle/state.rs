//! The stack that is being backed up.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Result, bail};

use super::context::RunContext;
use super::journalled::Journalled;
use crate::config::StopMethod;
use crate::config::plan::StackPlan;
use crate::engine::Container;
use crate::scan::{self, Inventory, Source};
use crate::stack::driver;
use crate::stack::survey::Survey;

/// A planned stack. Its `impl` blocks are in the files of the steps.
pub(super) struct Cycle<'a> {
    pub(super) context: &'a RunContext<'a>,
    pub(super) stack: &'a StackPlan,
    pub(super) survey: Survey,
    pub(super) sources: Vec<Source>,
    /// Bytes reserved for the manifest: a draft and its archive must agree.
    pub(super) manifest_bytes: OnceLock<u64>,
    /// What the journal has of this stack.
    pub(super) entry: Journalled,
}

impl Cycle<'_> {
    pub(super) fn scan(&self) -> Result<Inventory> {
        let cancel = self.context.signals.flag();
        scan::scan(
            &self.sources,
            &self.stack.exclude,
            self.stack.exclude_caches,
            cancel,
        )
    }

    /// Fails if the path of a tree now leads to something else than the handle
    /// through which the tree is read.
    pub(super) fn refuse_replaced(&self, is_checked: impl Fn(&Source) -> bool) -> Result<()> {
        let checked = self.sources.iter().filter(|source| is_checked(source));
        for source in checked {
            if !source.is_same(&Source::open(&*source.prefix, &source.path)?) {
                bail!("{} was replaced meanwhile", source.path.display());
            }
        }
        Ok(())
    }

    pub(super) fn tree_paths(&self) -> Vec<PathBuf> {
        let trees = self.survey.trees.iter();
        trees.map(|tree| tree.path.clone()).collect()
    }

    /// Lists the containers. Waits as long as a start may take for an Engine that
    /// is away, for example because it is being restarted: the start has to wait
    /// for it anyway.
    pub(super) fn await_containers(&self) -> Result<Vec<Container>> {
        driver::containers(self.stack, self.stack.start_timeout, self.context.signals)
    }

    /// Whether the containers are paused instead of stopped, so that the archive
    /// is only crash-consistent.
    pub(super) fn is_paused(&self) -> bool {
        self.survey.stop_method == StopMethod::Pause && !self.survey.running.is_empty()
    }
}
