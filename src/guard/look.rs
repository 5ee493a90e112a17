//! What is known of a stack before its update, and what speaks against one that could not
//! be rolled back.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::images::{self, HeldImage};
use crate::archive::Manifest;
use crate::config::StopMethod;
use crate::config::plan::StackPlan;
use crate::engine::Container;
use crate::outcome::MountCoverage;
use crate::restore::selection::Selection;
use crate::restore::stack::{RestoreOptions, RestorePlan};
use crate::restore::{Archive, ArchiveFacts, Parts, check_manifest};
use crate::stack::journal::{self, Journal, JournalEntry, StopProgress};
use crate::stack::running::{StateBefore, WasRunning, network_names};
use crate::stack::survey::Survey;
use crate::sys::random::random_id;
use crate::sys::time::{OffsetTime, zone_name};

/// A stack that can be updated.
pub struct GuardedStack {
    /// With the options that its labels set.
    pub plan: StackPlan,
    pub token: String,
    pub images: Vec<HeldImage>,
    /// What runs, as a stopped stack to be started.
    pub before: JournalEntry,
    pub idle: Vec<WasRunning>,
    pub warnings: Vec<String>,
}

/// Looks at a stack. Changes nothing. `allow_holes` says that data which no archive holds
/// may stay as the update leaves it.
///
/// # Errors
/// When an update of it could not be judged or not be rolled back.
pub fn look(stack: &StackPlan, state_dir: &Path, allow_holes: bool) -> Result<GuardedStack> {
    ensure!(
        !stack.is_of_units(),
        "{} has `units`, which systemd updates, and not containers: go back to the former \
         configuration of the system, and restore the data from an archive",
        stack.name
    );
    ensure!(
        !Journal::of(state_dir).has(&stack.name) && !super::journal::has(state_dir, &stack.name),
        "an interrupted command left {} stopped or half updated, or did not undo a hook: run \
         `docker-stack-backup recover` first",
        stack.name
    );
    let (plan, survey) = Survey::with_labels(stack)?;
    let containers = WasRunning::all(&survey.containers);
    ensure!(
        !containers.is_empty(),
        "nothing of {} runs, so it could not be seen whether an update works: start it first, or \
         update it without `guard`",
        stack.name
    );
    let warnings = holes(&survey, allow_holes)?;
    let token = random_id()?;
    let engine = &survey.compose.engine;
    let images = images::of_containers(engine, &survey.containers, &token)?;
    let is_idle = |c: &&Container| !c.one_off && containers.iter().all(|was| was.id != c.id);
    let idle = survey.containers.iter().filter(is_idle);
    let idle: Vec<WasRunning> = idle
        .map(|container| WasRunning::with_state(container, StateBefore::Ended))
        .collect();
    let mut networks = network_names(&containers);
    networks.extend(network_names(&idle));
    let before = JournalEntry {
        format_version: journal::FORMAT_VERSION,
        stack: stack.name.clone(),
        project: survey.project.clone(),
        compose: survey.compose.clone(),
        stop_method: StopMethod::Stop,
        stop_timeout_secs: plan.stop_timeout.map(|timeout| timeout.as_secs()),
        start_timeout_secs: plan.start_timeout.as_secs(),
        since: OffsetTime::now(),
        time_zone: zone_name(),
        step: StopProgress::Stopped,
        for_restore: false,
        networks: engine.networks(&networks)?,
        containers,
        units: Vec::new(),
        unit_containers: Vec::new(),
        undos: Vec::new(),
    };
    Ok(GuardedStack {
        plan,
        token,
        images,
        before,
        idle,
        warnings,
    })
}

/// Finds data that no archive holds and that a container can write.
///
/// # Errors
/// When there is such data, unless it is allowed; else it is in the warnings.
fn holes(survey: &Survey, allow_holes: bool) -> Result<Vec<String>> {
    let mounts = survey.containers.iter().flat_map(|c| &c.mounts);
    let written: Vec<PathBuf> = mounts
        .filter(|mount| mount.writable)
        .map(|mount| match mount.kind.as_str() {
            "volume" => PathBuf::from(&mount.name),
            _ => mount.source.clone(),
        })
        .filter(|place| place.is_relative() || place.is_dir() || place.is_file())
        .collect();
    let is_written = |hole: &&MountCoverage| written.iter().any(|at| *at == Path::new(&hole.name));
    let holes = survey.coverage.iter().filter(|mount| mount.is_hole());
    let holes: Vec<String> = holes.filter(is_written).map(MountCoverage::hole).collect();
    if !holes.is_empty() && !allow_holes {
        bail!(
            "some data is in no archive, so it could not be put back: {}; have it archived, or give \
             --allow-holes if it may stay as the update leaves it",
            holes.join("; ")
        );
    }
    let warning = |hole: String| format!("is not put back by a roll-back: {hole}");
    Ok(holes.into_iter().map(warning).collect())
}

/// Makes the plan of a restore that puts a stack's data back, and calls `with` with it. The
/// restore starts nothing.
///
/// # Errors
/// When the archive cannot be read, the restore cannot succeed, or `with` fails.
pub fn with_restore<T>(
    state_dir: &Path,
    stack: &StackPlan,
    archive: &Path,
    allow_reachable: bool,
    with: impl FnOnce(RestorePlan<'_>) -> Result<T>,
) -> Result<T> {
    let archive = Archive::open(archive)?;
    let context = || format!("cannot read the manifest of {}", archive.name());
    let json = archive.manifest().with_context(context)?;
    let json = json.with_context(|| format!("{} has no manifest", archive.name()))?;
    let manifest: Manifest = serde_json::from_slice(&json).with_context(context)?;
    check_manifest(&manifest).with_context(context)?;
    // What patterns left out of the archive is among the data that is replaced.
    let keep_old = manifest.excluded_count > 0;
    let facts = ArchiveFacts::Described(Box::new(manifest));
    let parts = Parts::find(
        &archive,
        &Selection::new(&[], facts.manifest())?,
        &facts.trees(),
    )?;
    let options = RestoreOptions {
        state_dir,
        allow_devices: true,
        allow_volume_options: true,
        allow_damaged: false,
        keep_old,
        allow_reachable,
        starts: false,
        live: false,
        create_external: false,
        parts: &parts,
    };
    with(RestorePlan::new(&archive, &facts, Some(stack), &options)?)
}
