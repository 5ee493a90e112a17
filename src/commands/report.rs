//! `report`: shows or mails the report of the last run.

use anyhow::{Result, bail};

use super::left_down::print_left_down;
use super::load::load;
use super::output::{print, print_json};
use crate::cli::Global;
use crate::outcome::ExitStatus;
use crate::{email, last_run, report as reports};

pub fn report(global: &Global, mail_test: bool) -> Result<ExitStatus> {
    let plan = load(global)?;
    let last = last_run::read(&plan.state_dir)?;
    if mail_test {
        let Some(email) = &plan.email else {
            bail!("cannot send a test mail: no `email` is configured")
        };
        let body = match &last {
            Some(outcome) => reports::run_text(outcome),
            None => "There was no run yet.\n".to_owned(),
        };
        email::send(
            email,
            &format!("[{}] TEST: mail works", email.subject_tag),
            &body,
        )?;
        tracing::info!(to = email.to.join(" "), "test mail sent");
        return Ok(ExitStatus::Ok);
    }
    print_left_down(global, &plan)?;
    let Some(outcome) = last else {
        bail!("there was no run yet")
    };
    if global.json {
        print_json(&outcome)?;
    } else {
        print(&reports::run_text(&outcome))?;
    }
    Ok(ExitStatus::Ok)
}
