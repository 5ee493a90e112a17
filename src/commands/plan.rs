//! `plan`: shows what a run would do.

use anyhow::Result;
use serde::Serialize;

use super::left_down::print_left_down;
use super::load::load;
use super::output::{print_folded, print_json};
use super::preview::{Previewer, StackPreview};
use crate::cli::Global;
use crate::outcome::ExitStatus;

pub fn plan(global: &Global, stacks: &[String]) -> Result<ExitStatus> {
    let mut plan = load(global)?;
    plan.select(stacks)?;
    print_left_down(global, &plan)?;
    let mut status = ExitStatus::Ok;
    for reason in &plan.passed_over {
        tracing::error!("{reason}");
        status = ExitStatus::Incomplete;
    }
    let previewer = Previewer::new(&plan);
    #[derive(Serialize)]
    struct Unreadable {
        stack: String,
        error: String,
    }
    #[derive(Serialize)]
    struct Previews {
        stacks: Vec<StackPreview>,
        errors: Vec<Unreadable>,
    }
    let mut previews = Vec::new();
    let mut errors = Vec::new();
    for stack in &plan.stacks {
        match previewer.preview(stack) {
            Ok(preview) => {
                if preview.refusal.is_some() {
                    status = ExitStatus::Incomplete;
                }
                previews.push(preview);
            }
            Err(error) => {
                tracing::error!(stack = stack.name, "{error:#}");
                errors.push(Unreadable {
                    stack: stack.name.clone(),
                    error: format!("{error:#}"),
                });
                status = ExitStatus::Incomplete;
            }
        }
    }
    if global.json {
        let stacks = previews;
        print_json(&Previews { stacks, errors })?;
    } else {
        let texts: Vec<String> = previews.iter().map(StackPreview::text).collect();
        print_folded(&texts.join("\n"))?;
    }
    Ok(status)
}
