//! What a run would do with a stack, without doing it.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::config::StopMethod;
use crate::config::plan::StackPlan;
use crate::outcome::MountCoverage;
use crate::scan;
use crate::stack::survey::Survey;
use crate::sys::format::human_bytes;
use crate::sys::signals::Signals;

/// What a run would do with a stack.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StackPreview {
    pub stack: String,
    pub path: PathBuf,
    pub project: String,
    pub stop_method: StopMethod,
    /// Containers that would be stopped (or paused) and started again.
    pub running: Vec<String>,
    pub content_bytes: u64,
    pub member_count: u64,
    pub coverage: Vec<MountCoverage>,
    pub warnings: Vec<String>,
}

impl StackPreview {
    /// Looks at a stack and scans its data; changes nothing.
    ///
    /// # Errors
    /// When a run would fail for the same reason: the stack cannot be found, or
    /// its data cannot be read.
    pub fn of(stack: &StackPlan) -> Result<StackPreview> {
        let survey = Survey::of(stack)?;
        let sources = survey.open_sources()?;
        let signals = Signals::default();
        let inventory = scan::scan(
            &sources,
            &stack.exclude,
            stack.exclude_caches,
            signals.flag(),
        )?;
        Ok(StackPreview {
            stack: stack.name.clone(),
            path: stack.dir().to_owned(),
            project: survey.project,
            stop_method: survey.stop_method,
            running: survey.running.into_iter().map(|was| was.name).collect(),
            content_bytes: inventory.content_bytes(),
            member_count: inventory.member_count(),
            coverage: survey.coverage,
            warnings: survey.warnings,
        })
    }

    /// Returns the preview as several lines of text.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} ({})\n  project   {}\n  {:8}  {}\n  archives  {}, {} members\n",
            self.stack,
            self.path.display(),
            self.project,
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
        for coverage in &self.coverage {
            let (mark, reason) = match &coverage.reason {
                Some(reason) => ("NOT in", format!(": {reason}")),
                None => ("in    ", String::new()),
            };
            let kind = format!("{:?}", coverage.kind).to_lowercase();
            text.push_str(&format!("  {mark}    {kind} {}{reason}\n", coverage.name));
        }
        for warning in &self.warnings {
            text.push_str(&format!("  warning   {warning}\n"));
        }
        text
    }
}
