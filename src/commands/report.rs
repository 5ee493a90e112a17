//! `report`: shows the report of the last run, and tries and empties the channels of
//! news.

use std::path::Path;

use anyhow::{Result, bail, ensure};

use super::html_report::write_html;
use super::left_down::print_left_down;
use super::load::load;
use super::output::{print_folded, print_json_field, print_outcome_json, print_report};
use crate::cli::Global;
use crate::config::plan::Plan;
use crate::last_run::{self, log_channels};
use crate::outcome::{ChannelOutcome, ChannelStatus, ExitStatus, RunOutcome};
use crate::{metrics, notify};

pub fn report(
    global: &Global,
    stacks: &[String],
    html: Option<&Path>,
    test: bool,
    send_queued: bool,
) -> Result<ExitStatus> {
    let plan = load(global)?;
    if send_queued {
        return self::send_queued(global, &plan);
    }
    let last = last_run::read(&plan.state_dir)?;
    if let Some(file) = html {
        return write_html(global, &plan, last.as_ref(), file);
    }
    if test {
        return self::test(global, &plan, last.as_ref());
    }
    print_left_down(global, &plan)?;
    print_waiting(global, &plan)?;
    let Some(mut outcome) = last else {
        bail!("there was no run yet")
    };
    for stack in stacks {
        if outcome.stack(stack).is_none() {
            ensure!(plan.stack(stack).is_some(), "{}", plan.unknown_stack(stack));
            bail!("{stack} was not in the last run (`status {stack}` shows its earlier ones)");
        }
    }
    if !stacks.is_empty() {
        outcome.select(stacks);
    }
    if global.json {
        print_outcome_json(&outcome)?;
    } else {
        print_report(&outcome)?;
    }
    Ok(ExitStatus::Ok)
}

/// Says what is still in the queue, or logs it where JSON is printed.
fn print_waiting(global: &Global, plan: &Plan) -> Result<()> {
    for line in notify::waiting(plan)? {
        match global.json {
            true => tracing::warn!("{line}"),
            false => print_folded(&format!("{line}\n"))?,
        }
    }
    Ok(())
}

/// Tries every channel, whatever the others do.
fn test(global: &Global, plan: &Plan, last: Option<&RunOutcome>) -> Result<ExitStatus> {
    ensure!(
        plan.email.is_some() || !plan.notify.is_empty(),
        "cannot send a test message: neither `email` nor `notify` is configured"
    );
    let tested: Vec<ChannelOutcome> = notify::test(plan, last)
        .into_iter()
        .map(|(channel, result)| ChannelOutcome {
            channel,
            status: match result {
                Ok(()) => ChannelStatus::Sent,
                Err(_) => ChannelStatus::Lost,
            },
            error: result.err().map(|error| format!("{error:#}")),
        })
        .collect();
    if global.json {
        print_json_field("channels", &tested)?;
    } else {
        for channel in &tested {
            let (word, what) = match &channel.error {
                None => ("ok    ", "the server has accepted the test message"),
                Some(error) => ("FAILED", error.as_str()),
            };
            print_folded(&format!("{word}  {}: {what}\n", channel.channel))?;
        }
    }
    Ok(match tested.iter().all(|channel| channel.error.is_none()) {
        true => ExitStatus::Ok,
        false => ExitStatus::CouldNotRun,
    })
}

/// Sends what waits. That nothing waits is no reason to say anything.
fn send_queued(global: &Global, plan: &Plan) -> Result<ExitStatus> {
    let channels = notify::send_queued(plan);
    log_channels(&channels);
    if let Err(error) = metrics::update(plan) {
        tracing::error!("{error:#}");
    }
    if global.json {
        print_json_field("channels", &channels)?;
    }
    Ok(
        match channels.iter().all(|channel| channel.error.is_none()) {
            true => ExitStatus::Ok,
            false => ExitStatus::Incomplete,
        },
    )
}
