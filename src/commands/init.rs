//! `init` and `import-script`: propose a configuration.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, json};

use super::load::resolve;
use super::output::{print_plain, show};
use super::preview::{Previewer, StackPreview};
use crate::adopt::{self, Proposal, ProposedStack, database_of, nix_module};
use crate::cli::{Global, InitArgs};
use crate::config::plan::Plan;
use crate::config::{DEFAULT_BACKUP_DIR, DEFAULT_BASE_DIR, DEFAULT_STATE_DIR};
use crate::engine::{ComposeProject, Container, Engine};
use crate::outcome::{ExitStatus, MountCoverage, MountKind};
use crate::stack::discover::{Discovery, FoundStack, Search};
use crate::stack::labels;
use crate::sys::format::{count, human_bytes};

/// Days that archives are kept by a proposed configuration, as by one that says nothing.
const KEEP_DAYS: u32 = 28;
/// A longer script is not read.
const SCRIPT_BYTES_MAX: u64 = 4 << 20;

pub fn init(global: &Global, args: &InitArgs) -> Result<ExitStatus> {
    let engine = Engine::DEFAULT;
    let mut containers = engine.containers()?;
    labels::forget_those_of_images(&engine, &mut containers)?;
    let given = |dir: &Option<PathBuf>, default: &str| match dir {
        Some(dir) => resolve(dir),
        None => Ok(PathBuf::from(default)),
    };
    let backup_dir = given(&global.backup_dir, DEFAULT_BACKUP_DIR)?;
    let state_dir = given(&global.state_dir, DEFAULT_STATE_DIR)?;
    let found = look(&containers, &[backup_dir.clone(), state_dir.clone()]);
    let mut proposal = Proposal {
        notes: found.discovery.passed_over.clone(),
        ..Proposal::default()
    };
    for (field, value) in [
        ("baseDir", json!(found.base_dir)),
        ("backupDir", json!(backup_dir)),
        ("retention", json!({ "keepDays": KEEP_DAYS })),
    ] {
        proposal.fields.insert(field.to_owned(), value);
    }
    if global.state_dir.is_some() {
        proposal
            .fields
            .insert("stateDir".to_owned(), json!(state_dir));
    }
    proposal.stacks = found
        .discovery
        .stacks
        .iter()
        .map(|stack| proposed_stack(stack, &found))
        .collect();
    proposal
        .notes
        .extend(decisions(&proposal, &backup_dir, &found));
    proposal.keep_what_fits();
    let plan = checked(&proposal)?;
    let previewer = Previewer::new(&plan);
    let stacks = &found.discovery.stacks;
    for proposed in &mut proposal.stacks {
        let Some(stack) = stacks.iter().find(|stack| stack.name == proposed.name) else {
            continue;
        };
        let Some(planned) = plan.stack(&proposed.name) else {
            continue;
        };
        match previewer.preview(planned) {
            Ok(preview) => proposed.notes.extend(notes(stack, &preview, &containers)),
            Err(error) => proposed
                .notes
                .push(format!("cannot be backed up now: {error:#}")),
        }
    }
    hand_out(&proposal, args)
}

pub fn import_script(global: &Global, script: &Path, args: &InitArgs) -> Result<ExitStatus> {
    let context = || format!("cannot read {}", script.display());
    let mut text = Vec::new();
    let file = File::open(script).with_context(context)?;
    let read = file.take(SCRIPT_BYTES_MAX + 1).read_to_end(&mut text);
    ensure!(
        read.with_context(context)? as u64 <= SCRIPT_BYTES_MAX,
        "{} is no script: it has more than {SCRIPT_BYTES_MAX} bytes",
        script.display()
    );
    let text = String::from_utf8_lossy(&text);
    let mut proposal =
        adopt::import(&text).with_context(|| format!("cannot take over {}", script.display()))?;
    for (field, dir) in [
        ("backupDir", &global.backup_dir),
        ("stateDir", &global.state_dir),
    ] {
        if let Some(dir) = dir {
            proposal
                .fields
                .insert(field.to_owned(), json!(resolve(dir)?));
        }
    }
    checked(&proposal)?;
    hand_out(&proposal, args)
}

fn checked(proposal: &Proposal) -> Result<Plan> {
    let context = "the configuration would not be valid, so none is written (--backup-dir and \
                   --state-dir choose other directories)";
    proposal.plan().context(context)
}

/// Prints the proposal, or writes it to a file, with its notes.
fn hand_out(proposal: &Proposal, args: &InitArgs) -> Result<ExitStatus> {
    let text = match args.nix {
        true => nix_module(proposal),
        false => proposal.json_text()?,
    };
    match &args.output {
        None => print_plain(&text)?,
        Some(path) => create(path, &text)?,
    }
    if !args.nix {
        let notes = proposal
            .notes()
            .into_iter()
            .map(|note| format!("# {note}\n"));
        show(&notes.collect::<String>());
    }
    Ok(ExitStatus::Ok)
}

fn create(path: &Path, text: &str) -> Result<()> {
    let context = || {
        format!(
            "cannot write {} (a file that exists is never overwritten)",
            path.display()
        )
    };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(context)?;
    }
    let mut file = File::create_new(path).with_context(context)?;
    file.write_all(text.as_bytes()).with_context(context)?;
    file.sync_all().with_context(context)?;
    tracing::info!(path = %path.display(), "wrote the configuration");
    Ok(())
}

/// What was found on this host.
struct Host {
    base_dir: PathBuf,
    discovery: Discovery,
}

/// Finds the stacks, and the directory that most of them are in.
fn look(containers: &[Container], own_dirs: &[PathBuf]) -> Host {
    let search = |base_dir: &Path| {
        Discovery::of(
            containers,
            &Search {
                base_dir,
                own_dirs,
                is_ignored: &|_| false,
            },
        )
    };
    let default = Path::new(DEFAULT_BASE_DIR);
    let mut parents: BTreeMap<&Path, usize> = BTreeMap::new();
    let first = search(default);
    for parent in first.stacks.iter().filter_map(|stack| stack.dir.parent()) {
        *parents.entry(parent).or_default() += 1;
    }
    let most = parents
        .iter()
        .max_by_key(|(parent, count)| (**count, **parent == default));
    let base_dir = most.map_or(default, |(parent, _)| *parent).to_owned();
    Host {
        discovery: search(&base_dir),
        base_dir,
    }
}

fn proposed_stack(stack: &FoundStack, host: &Host) -> ProposedStack {
    let mut options = Map::new();
    if host.base_dir.join(&stack.name) != stack.dir {
        options.insert("path".to_owned(), json!(stack.dir));
    }
    for (field, files) in [("files", &stack.files), ("envFiles", &stack.env_files)] {
        if !files.is_empty() {
            options.insert(field.to_owned(), json!(files));
        }
    }
    let others = host.discovery.stacks.iter();
    let is_alone = others.filter(|other| other.dir == stack.dir).count() == 1;
    if let Some(project) = &stack.project
        && !(is_alone && is_composes_choice(stack, project))
    {
        options.insert("project".to_owned(), json!(project));
    }
    ProposedStack {
        name: stack.name.clone(),
        options,
        notes: Vec::new(),
    }
}

/// Whether Compose gives the stack this name by itself.
fn is_composes_choice(stack: &FoundStack, project: &str) -> bool {
    let compose = ComposeProject {
        dir: stack.dir.clone(),
        name: None,
        files: stack.files.clone(),
        env_files: stack.env_files.clone(),
        engine: Engine::DEFAULT,
    };
    compose.config().is_ok_and(|config| config.name == project)
}

/// What a person decides about the configuration as a whole.
fn decisions(proposal: &Proposal, backup_dir: &Path, host: &Host) -> Vec<String> {
    let mut notes = Vec::new();
    if proposal.stacks.is_empty() {
        notes.push("no Compose project was found on this host".to_owned());
    }
    notes.push(
        "decide: nobody is told when a backup fails; set `email` or `notify` for that".to_owned(),
    );
    let device = |path: &Path| {
        let existing = path.ancestors().find(|path| path.exists())?;
        fs::metadata(existing).ok().map(|metadata| metadata.dev())
    };
    let is_beside = |stack: &FoundStack| device(&stack.dir) == device(backup_dir);
    if host.discovery.stacks.iter().any(is_beside) {
        notes.push(format!(
            "decide: {} is on the same disk as a stack, so both may be lost at once; choose \
             another with --backup-dir, or copy the archives elsewhere (docs/off-site.md)",
            backup_dir.display()
        ));
    }
    notes
}

/// What there is to know, and to decide, about one stack.
fn notes(stack: &FoundStack, preview: &StackPreview, containers: &[Container]) -> Vec<String> {
    let mut notes = Vec::new();
    notes.push(format!(
        "{} to archive; {}",
        human_bytes(preview.content_bytes),
        match preview.running.len() {
            0 => "nothing runs".to_owned(),
            running => format!("{} to stop", count(running as u64, "container")),
        }
    ));
    let mut databases = Vec::new();
    for (service, image) in &stack.images {
        if let Some(database) = database_of(image) {
            databases.push(format!("{service} ({database})"));
        }
    }
    if !databases.is_empty() {
        notes.push(format!(
            "databases: {}; they are stopped for the copy, so nothing needs to be set",
            databases.join(", ")
        ));
    }
    let is_foreign = |name: &&String| {
        let container = containers.iter().find(|c| c.name == **name);
        container.is_some_and(|c| stack.project.as_ref() != Some(&c.project))
    };
    let foreign: Vec<&str> = (preview.running.iter().filter(is_foreign))
        .map(String::as_str)
        .collect();
    if !foreign.is_empty() {
        notes.push(format!(
            "stopped and started with it, because they share a namespace or volumes: {}",
            foreign.join(", ")
        ));
    }
    let holes = preview.coverage.iter().filter(|mount| mount.is_hole());
    notes.extend(holes.map(decision));
    notes.extend(
        preview
            .warnings
            .iter()
            .map(|warning| format!("warning: {warning}")),
    );
    notes.extend(
        preview
            .refusal
            .iter()
            .map(|refusal| format!("a run would refuse: {refusal}")),
    );
    notes
}

fn decision(hole: &MountCoverage) -> String {
    let choice = match hole.kind {
        MountKind::Bind => "; if it need not be archived, name it in `ignoreBinds`",
        MountKind::Directory | MountKind::Volume | MountKind::File => "",
    };
    format!("decide: not in the archive: {}{choice}", hole.hole())
}
