//! What a run would do with a stack, without doing it.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::config::StopMethod;
use crate::config::plan::{Plan, StackPlan};
use crate::cycle::{self, RunContext, Unobserved};
use crate::last_run;
use crate::outcome::{MountCoverage, ToldHoles};
use crate::scan;
use crate::stack::hooks::check_services;
use crate::stack::journal::Journal;
use crate::stack::survey::Survey;
use crate::store::{Store, identity};
use crate::sys::format::{human_bytes, one_line};
use crate::sys::signals::Signals;

/// Looks at stacks as a run would.
pub struct Previewer {
    /// `None` if there is no store yet.
    store: Option<Store>,
    /// Why no run may use the store.
    problem: Option<String>,
    journal: Journal,
    told: ToldHoles,
}

impl Previewer {
    /// What was told about holes is nothing if it cannot be read: a run would report the
    /// error. So would it for the store.
    pub fn new(plan: &Plan) -> Previewer {
        let told = last_run::told_holes(&plan.state_dir).unwrap_or_else(|error| {
            tracing::warn!("cannot tell which mounts are new among those not archived: {error:#}");
            ToldHoles::default()
        });
        Previewer {
            store: Store::open(&plan.backup_dir).ok(),
            problem: identity::check(plan)
                .err()
                .map(|error| format!("{error:#}")),
            journal: Journal::of(&plan.state_dir),
            told,
        }
    }

    /// Looks at a stack and scans its data; changes nothing. Holes that were not told are
    /// marked as new, as a run would do.
    ///
    /// # Errors
    /// When a run would fail for the same reason: the stack cannot be found, or its data
    /// cannot be read.
    pub fn preview(&self, stack: &StackPlan) -> Result<StackPreview> {
        let (stack, mut survey) = Survey::with_labels(stack)?;
        let stack = &stack;
        check_services(&stack.hooks, &survey)?;
        self.told.mark_new(&stack.name, &mut survey.coverage);
        let sources = survey.open_sources()?;
        let signals = Signals::default();
        let inventory = scan::scan(
            &sources,
            &stack.exclude,
            stack.exclude_caches,
            signals.flag(),
        )?;
        let mut preview = StackPreview {
            stack: stack.name.clone(),
            path: stack.dir().to_owned(),
            project: survey.project.clone(),
            stop_method: survey.stop_method,
            units: stack.units.clone(),
            running: survey.stopped_names(),
            content_bytes: inventory.content_bytes(),
            member_count: inventory.member_count(),
            coverage: survey.coverage.clone(),
            hooks: stack.hooks.iter().map(ToString::to_string).collect(),
            warnings: survey.warnings.clone(),
            refusal: self.problem.clone().or_else(|| survey.obstacle.clone()),
        };
        if let Some(store) = &self.store {
            let context = RunContext {
                store,
                journal: &self.journal,
                signals: &signals,
                host: "",
                observer: &Unobserved,
            };
            let rehearsed = cycle::rehearse(&context, stack, survey, sources, &inventory);
            let refusal = rehearsed.err().map(|error| format!("{error:#}"));
            preview.refusal = preview.refusal.or(refusal);
        }
        Ok(preview)
    }
}

/// What a run would do with a stack.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StackPreview {
    pub stack: String,
    pub path: PathBuf,
    /// Empty for a stack of units.
    pub project: String,
    /// The configured units of a stack that is no Compose project.
    pub units: Vec<String>,
    pub stop_method: StopMethod,
    /// Containers, or units, that would be stopped (or paused) and started again.
    pub running: Vec<String>,
    pub content_bytes: u64,
    pub member_count: u64,
    pub coverage: Vec<MountCoverage>,
    /// The hooks that a run runs, in the order of the configuration.
    pub hooks: Vec<String>,
    pub warnings: Vec<String>,
    /// Why a run would not stop the stack, if it would not.
    pub refusal: Option<String>,
}

impl StackPreview {
    /// Returns the name of the project, or those of the units.
    pub fn identity(&self) -> String {
        match self.units.is_empty() {
            true => self.project.clone(),
            false => self.units.join(" "),
        }
    }

    /// Returns the preview as several lines of text.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} ({})\n  {:8}  {}\n  {:8}  {}\n  archives  {}, {} members\n",
            self.stack,
            self.path.display(),
            if self.units.is_empty() {
                "project"
            } else {
                "units"
            },
            self.identity(),
            match self.stop_method {
                StopMethod::Stop | StopMethod::Down => "stops",
                StopMethod::Pause => "pauses",
            },
            if self.running.is_empty() {
                "nothing, it is down".to_owned()
            } else {
                self.running.join(" ")
            },
            human_bytes(self.content_bytes),
            self.member_count,
        );
        for mount in self.coverage.iter().filter(|mount| mount.archived) {
            let limit = match &mount.reason {
                Some(reason) => format!(" ({reason})"),
                None => String::new(),
            };
            text.push_str(&format!(
                "  in        {}\n",
                one_line(&format!("{}{limit}", mount.label()))
            ));
        }
        text.push_str(&self.holes("  "));
        for hook in &self.hooks {
            text.push_str(&format!("  hook      {hook}\n"));
        }
        for warning in &self.warnings {
            text.push_str(&format!("  warning   {}\n", one_line(warning)));
        }
        if let Some(refusal) = &self.refusal {
            text.push_str(&format!("  REFUSED   {}\n", one_line(refusal)));
        }
        text
    }

    /// Returns a line for each hole, in the words of a run's report.
    pub fn holes(&self, indent: &str) -> String {
        let holes = self.coverage.iter().filter(|mount| mount.is_hole());
        holes
            .map(|mount| format!("{indent}NOT in    {}\n", one_line(&mount.hole())))
            .collect()
    }
}
