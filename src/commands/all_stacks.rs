//! `"stacks": "all"`: the stacks are those of this host.

use anyhow::{Result, ensure};

use crate::config::plan::Plan;
use crate::config::{Config, NameGlobs, Stack, StackOptions, Stacks};
use crate::engine::Engine;
use crate::known_stacks;
use crate::stack::discover::{Discovery, Search};
use crate::stack::labels;

/// Makes a plan of all stacks of this host. If the Engine does not answer, they are those
/// that the last run found: then their backups fail, and that is told.
///
/// # Errors
/// When the configuration is not valid, or the Engine does not answer and there was no run.
pub fn find(config: Config) -> Result<Plan> {
    let engine = match &config.defaults.0.engine {
        Some(host) => Engine::at(host)?,
        None => Engine::DEFAULT,
    };
    let found = engine.containers().and_then(|mut containers| {
        labels::forget_those_of_images(&engine, &mut containers)?;
        Ok(containers)
    });
    let containers = match found {
        Ok(containers) => containers,
        Err(error) => {
            let context = "cannot find out which stacks there are";
            ensure!(
                known_stacks::read(&config.state_dir)?.is_some(),
                "{context}: {error:#}"
            );
            tracing::warn!("{context}: {error:#}; taking those of the last run");
            return remembered(config);
        }
    };
    // The globs are checked with the rest of the configuration.
    let ignored = NameGlobs::new(&config.ignore_projects).unwrap_or_default();
    let own_dirs = [config.backup_dir.clone(), config.state_dir.clone()];
    let search = Search {
        base_dir: &config.base_dir,
        own_dirs: &own_dirs,
        is_ignored: &|name| ignored.matches(name),
    };
    let Discovery {
        stacks,
        passed_over,
    } = Discovery::of(&containers, &search);
    let options = stacks.iter().map(|stack| stack.options()).collect();
    plan_what_can_be(config, options, passed_over)
}

/// Makes a plan of the stacks that the last run of all stacks found.
///
/// # Errors
/// When the configuration is not valid, or what was found cannot be read.
pub fn remembered(config: Config) -> Result<Plan> {
    let known = known_stacks::read(&config.state_dir)?.unwrap_or_default();
    let options = known.options().collect();
    plan_what_can_be(config, options, Vec::new())
}

/// Makes a plan of the stacks that fit the configuration and each other. The others are
/// passed over: whoever starts a project of a strange kind must not end all backups.
fn plan_what_can_be(
    config: Config,
    found: Vec<StackOptions>,
    mut passed_over: Vec<String>,
) -> Result<Plan> {
    let planned = |stacks: &[Stack]| {
        Plan::new(Config {
            stacks: Stacks::All(stacks.to_vec()),
            ..config.clone()
        })
    };
    let mut plan = planned(&[])?;
    let mut stacks: Vec<Stack> = found.iter().cloned().map(Stack).collect();
    match planned(&stacks) {
        Ok(all) => plan = all,
        Err(_) => {
            stacks.clear();
            for options in found {
                let name = options.name.clone().unwrap_or_default();
                stacks.push(Stack(options));
                match planned(&stacks) {
                    Ok(more) => plan = more,
                    Err(error) => {
                        stacks.pop();
                        let reason = format!("{error:#}").replace('\n', "; ");
                        passed_over.push(format!("{name} is not backed up: {reason}"));
                    }
                }
            }
        }
    }
    plan.passed_over = passed_over;
    Ok(plan)
}
