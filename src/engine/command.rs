//! The docker command, and what all that is run through it has in common.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use super::error::{Refused, is_unreachable};
use crate::sys::process::{Exit, Output, Program};

const DOCKER: &str = "docker";

/// Time that the Engine may need to act on a request, on top of a grace period
/// that the request itself contains.
pub(super) const ENGINE_SLACK: Duration = Duration::from_secs(60);

/// Prepares a docker command.
pub(super) fn docker<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Program {
    Program::new(DOCKER, args.into_iter().map(|arg| arg.as_ref().to_owned()))
}

/// Returns the versions of the Engine and of Compose.
///
/// # Errors
/// When either is missing, or the Engine does not answer.
pub fn versions() -> Result<(String, String)> {
    let engine = docker(["version", "--format", "{{.Server.Version}}"])
        .output()?
        .check()
        .context(
            "cannot reach the Docker Engine (does it run, and may this user use its socket?)",
        )?;
    let compose = docker(["compose", "version", "--short"])
        .output()?
        .check()
        .context("cannot run Docker Compose (version 2 is needed, as a plugin of docker)")?;
    Ok((output_text(&engine), output_text(&compose)))
}

fn output_text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Returns the lines a command wrote to stdout.
pub(super) fn output_lines(output: &Output) -> Vec<String> {
    output_text(output).lines().map(str::to_owned).collect()
}

/// Runs `docker KIND inspect`. That prints what it found and exits 1 for names
/// that are gone, which is no error here: things come and go between two calls.
pub(super) fn inspect<T: DeserializeOwned>(kind: &str, names: Vec<String>) -> Result<Vec<T>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let count = names.len();
    let args = [kind.to_owned(), "inspect".to_owned()]
        .into_iter()
        .chain(names);
    let output = docker(args).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).to_lowercase();
    let only_missing = stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        .all(|line| line.contains("no such") || line.contains("not found"));
    if output.exit != Exit::Success && !only_missing {
        output.check()?;
        unreachable!("check() errs unless the exit was a success");
    }
    let found = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("cannot parse the output of `docker {kind} inspect` ({count} names)")
    })?;
    Ok(found)
}

/// Checks a command that asked the Engine to change something. A command that
/// ended by itself had the Engine's answer, so its failure is a refusal, unless
/// it reports that the Engine did not answer.
pub(super) fn check_request(output: Output) -> Result<()> {
    let has_ended = matches!(output.exit, Exit::Failure(_));
    let error = match output.check() {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    match has_ended && !is_unreachable(&error) {
        true => Err(Refused(format!("{error:#}")).into()),
        false => Err(error),
    }
}
