//! Runs the commands of hooks, in containers and on the host, and takes back what they
//! did.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::{Uid, User, geteuid};

use crate::config::{Hook, HookCommand, HookPlace, HookTarget, VARIABLE_PREFIX, shell_words};
use crate::engine::{self, CheckPace, Container, Engine, Exec, ExecOptions, Health, Status};
use crate::outcome::HookOutcome;
use crate::stack::journal::{Journal, JournalEntry, PendingUndo};
use crate::stack::survey::Survey;
use crate::sys::process::{Exit, Program};
use crate::sys::progress;
use crate::sys::signals::Signals;

/// How many lines of output are reported, and how much of each.
const OUTPUT_LINES: usize = 10;
const OUTPUT_LINE_CHARS: usize = 300;
/// Shorter lines of a secret are words that occur elsewhere.
const SECRET_LINE_MIN: usize = 6;
/// Pause between two looks at a service that is not healthy yet.
const HEALTH_PAUSE: Duration = Duration::from_millis(200);
/// Where programs of the host are found if this program has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a command is told by its environment.
#[derive(Clone, Copy)]
pub struct HookContext<'a> {
    pub stack: &'a str,
    pub engine: &'a Engine,
    pub project: &'a str,
    /// The stack's directory on the host.
    pub dir: &'a Path,
    /// The place of the hook, or `undo`.
    pub phase: &'a str,
    /// The archive that was made.
    pub archive: Option<&'a Path>,
    /// What came of the backup.
    pub status: Option<&'a str>,
}

impl HookContext<'_> {
    fn variables(&self) -> Vec<(String, String)> {
        let dir = self.dir.display().to_string();
        let archive = self.archive.map(|path| path.display().to_string());
        let variables = [
            ("STACK", Some(self.stack.to_owned())),
            ("PROJECT", Some(self.project.to_owned())),
            ("DIRECTORY", Some(dir)),
            ("PHASE", Some(self.phase.to_owned())),
            ("ARCHIVE", archive),
            ("STATUS", self.status.map(str::to_owned)),
        ];
        let set = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        set.map(|(name, value)| (format!("{VARIABLE_PREFIX}{name}"), value))
            .collect()
    }
}

/// A command that has not begun to run.
pub struct ReadyCommand {
    runner: Runner,
    engine: Engine,
    secrets: Vec<String>,
    limit: Duration,
}

enum Runner {
    Container(Exec),
    Host(Box<Program>),
}

/// How a command ended.
pub struct Ended {
    pub error: Option<String>,
    /// The last lines of its output.
    pub output: Vec<String>,
    pub duration_ms: u64,
}

impl ReadyCommand {
    /// Prepares a command. In a container, the Engine knows it afterwards, and does not
    /// run it yet.
    ///
    /// # Errors
    /// When the service does not run, the user does not exist, or a secret cannot be read.
    pub fn prepare(command: &HookCommand, context: &HookContext<'_>) -> Result<ReadyCommand> {
        let secrets = read_secrets(&command.secrets)?;
        let variables: Vec<(String, String)> = context
            .variables()
            .into_iter()
            .chain(command.environment.clone())
            .chain(secrets.clone())
            .collect();
        let runner = match &command.target {
            HookTarget::Service(service) => {
                let container = running_container(context.engine, context.project, service)?;
                let variables = variables.iter();
                let variables: Vec<String> = variables
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                let options = ExecOptions {
                    argv: &command.argv,
                    user: command.user.as_deref(),
                    environment: &variables,
                };
                Runner::Container(Exec::create(context.engine, &container.id, &options)?)
            }
            HookTarget::Host => Runner::Host(Box::new(host_program(command, variables)?)),
        };
        Ok(ReadyCommand {
            runner,
            engine: context.engine.clone(),
            secrets: secrets.into_iter().map(|(_, value)| value).collect(),
            limit: Duration::from_secs(command.timeout_secs),
        })
    }

    /// Returns the process that is prepared in a container.
    pub fn exec(&self) -> Option<&Exec> {
        match &self.runner {
            Runner::Container(exec) => Some(exec),
            Runner::Host(_) => None,
        }
    }

    /// Runs the command to its end, its time limit, or a signal.
    pub fn run(self, signals: &Signals) -> Ended {
        let began = Instant::now();
        let ran = match self.runner {
            Runner::Container(exec) => {
                let is_interrupted = || signals.received().is_some();
                exec.run(&self.engine, self.limit, &is_interrupted)
            }
            Runner::Host(program) => program
                .limit(self.limit)
                .interruptible_by(signals)
                .while_waiting(progress::step)
                .killed_with_this_thread()
                .output()
                .map(|output| (output.exit, [output.stdout, output.stderr].concat())),
        };
        let duration_ms = began.elapsed().as_millis() as u64;
        match ran {
            Ok((exit, output)) => {
                let output = last_lines(&output, &self.secrets);
                let error = (exit != Exit::Success).then(|| match output.is_empty() {
                    true => exit.to_string(),
                    false => format!("{exit}: {}", output.join("; ")),
                });
                Ended {
                    error,
                    output,
                    duration_ms,
                }
            }
            Err(error) => Ended {
                error: Some(format!("{error:#}")),
                output: Vec::new(),
                duration_ms,
            },
        }
    }
}

impl Ended {
    /// What is told of a command that could not begin.
    pub fn not_begun(error: &anyhow::Error) -> Ended {
        Ended {
            error: Some(format!("{error:#}")),
            output: Vec::new(),
            duration_ms: 0,
        }
    }

    pub fn outcome(self, when: HookPlace, is_undo: bool, command: &HookCommand) -> HookOutcome {
        let outcome = HookOutcome {
            when,
            is_undo,
            command: command.to_string(),
            duration_ms: self.duration_ms,
            error: None,
            output: self.output,
        };
        for line in &outcome.output {
            tracing::info!(hook = outcome.command, "{line}");
        }
        HookOutcome {
            error: self
                .error
                .map(|error| format!("{}: {error}", outcome.label())),
            ..outcome
        }
    }
}

/// Fails if a hook names a service that the stack does not have.
///
/// # Errors
/// Names the service, and those that exist.
pub fn check_services(hooks: &[Hook], survey: &Survey) -> Result<()> {
    let configured = survey.config.iter().flat_map(|c| c.services.keys());
    let existing = survey.containers.iter().map(|c| &c.service);
    let mut known: Vec<&str> = configured.chain(existing).map(String::as_str).collect();
    known.sort_unstable();
    known.dedup();
    for hook in hooks {
        if let HookTarget::Service(service) = &hook.command.target {
            ensure!(
                known.contains(&service.as_str()),
                "`hooks`: project {} has no service `{service}` (there are: {})",
                survey.project,
                known.join(", ")
            );
        }
    }
    Ok(())
}

/// Takes back the effect of hooks, that of the last one first. What succeeds leaves the
/// entry, in memory and on disk; the rest stays for `recover`. Signals do not interrupt
/// this.
///
/// # Errors
/// When the journal cannot be written. All was attempted then.
pub fn undo_all(
    entry: &mut JournalEntry,
    journal: &Journal,
    tell: &mut dyn FnMut(HookOutcome),
) -> Result<()> {
    let mut written = Ok(());
    for undo in entry.undos.clone().into_iter().rev() {
        let outcome = undo_one(&undo, entry);
        match &outcome.error {
            None => {
                entry.undos.retain(|pending| *pending != undo);
                written = written.and(journal.settle(entry));
            }
            Some(error) => tracing::error!("{error}"),
        }
        tell(outcome);
    }
    written
}

fn undo_one(undo: &PendingUndo, entry: &JournalEntry) -> HookOutcome {
    tracing::info!(undo = undo.command.to_string(), "taking back a hook");
    let attempt = || {
        let limit = Duration::from_secs(undo.command.timeout_secs);
        if let Some(hook) = &undo.hook {
            let end = || hook.end(&entry.compose.engine, limit);
            let over = engine::retry_while_unreachable(end, |away| away < limit);
            over.context("cannot make sure that the hook itself is over")?;
        }
        if let HookTarget::Service(service) = &undo.command.target {
            await_service(service, entry)?;
        }
        ReadyCommand::prepare(&undo.command, &undo_context(entry))
    };
    let ended = match attempt() {
        Ok(ready) => ready.run(&Signals::default()),
        Err(error) => Ended::not_begun(&error),
    };
    let mut outcome = ended.outcome(undo.when, true, &undo.command);
    outcome.error = outcome.error.map(|error| {
        format!(
            "{error}; try it by hand ({}), then run `docker-stack-backup recover`, which tries it \
             again, or `docker-stack-backup recover --forget {}`, which gives it up",
            by_hand(&undo.command, entry),
            entry.stack
        )
    });
    outcome
}

fn undo_context(entry: &JournalEntry) -> HookContext<'_> {
    HookContext {
        stack: &entry.stack,
        engine: &entry.compose.engine,
        project: &entry.project,
        dir: &entry.compose.dir,
        phase: "undo",
        archive: None,
        status: None,
    }
}

/// Says how a person runs a command.
fn by_hand(command: &HookCommand, entry: &JournalEntry) -> String {
    let HookTarget::Service(service) = &command.target else {
        return match &command.user {
            Some(user) => format!("as {user}: {}", shell_words(&command.argv)),
            None => shell_words(&command.argv),
        };
    };
    let mut words = ["docker", "compose", "-p", &entry.project, "exec"]
        .map(str::to_owned)
        .to_vec();
    if let Some(user) = &command.user {
        words.extend(["--user".to_owned(), user.clone()]);
    }
    words.push(service.clone());
    words.extend(command.argv.iter().cloned());
    shell_words(&words)
}

/// Waits for a service that is being started, for example at boot, until it is healthy or
/// it is certain that it is not. One that is down is not waited for.
fn await_service(service: &str, entry: &JournalEntry) -> Result<()> {
    let limit = Duration::from_secs(entry.start_timeout_secs);
    let began = Instant::now();
    let look = || running_container(&entry.compose.engine, &entry.project, service);
    loop {
        progress::step();
        let container = engine::retry_while_unreachable(look, |away| away < limit)?;
        let is_starting = container.health == Some(Health::Starting);
        if !is_starting || began.elapsed() > limit {
            return Ok(());
        }
        thread::sleep(HEALTH_PAUSE);
    }
}

/// Returns the container of a service; the first one, if there are several.
fn running_container(engine: &Engine, project: &str, service: &str) -> Result<Container> {
    let mut containers = engine.compose_containers(Some(project))?;
    engine.check_health(&mut containers, CheckPace::Soon);
    let mut running: Vec<Container> = containers
        .into_iter()
        .filter(|c| c.service == service && !c.one_off && c.status == Status::Running)
        .collect();
    running.sort_by_key(|container| container.number);
    let Some(container) = running.into_iter().next() else {
        bail!("service {service} of project {project} does not run");
    };
    // A command may have secrets, so it must not go to a container that was made without
    // Compose, from an image with the labels of this project.
    let images = engine.images(&BTreeSet::from([container.image_id.clone()]))?;
    let is_of_image = |hash: &str| images.iter().any(|image| image.config_hash() == Some(hash));
    ensure!(
        container
            .config_hash
            .as_deref()
            .is_some_and(|hash| !is_of_image(hash)),
        "container {} was not made by Compose for service {service}, although its labels say so",
        container.name
    );
    Ok(container)
}

fn host_program(command: &HookCommand, variables: Vec<(String, String)>) -> Result<Program> {
    let (program, args) = command.argv.split_first().context("the command is empty")?;
    let user = command.user.as_deref().map(find_user).transpose()?;
    let home = match &user {
        Some(user) => Some(user.clone()),
        None => User::from_uid(geteuid()).ok().flatten(),
    };
    let home = home.map_or_else(|| PathBuf::from("/"), |user| user.dir);
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let own = [
        ("PATH".to_owned(), path),
        ("HOME".to_owned(), home.into_os_string()),
    ];
    let variables = variables
        .into_iter()
        .map(|(name, value)| (name, OsString::from(value)));
    let prepared = Program::new(program, args)
        .only_env(own.into_iter().chain(variables))
        .current_dir(Path::new("/"));
    Ok(match user {
        Some(user) if user.uid != geteuid() => prepared.user(&user),
        _ => prepared,
    })
}

fn find_user(name: &str) -> Result<User> {
    let found = match name.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };
    found
        .with_context(|| format!("cannot look up the user {name}"))?
        .with_context(|| format!("there is no user {name} on this host"))
}

/// Reads the secrets: a trailing newline is dropped.
fn read_secrets(sources: &BTreeMap<String, String>) -> Result<Vec<(String, String)>> {
    let read = |(name, source): (&String, &String)| {
        let path = match Path::new(source).is_absolute() {
            true => PathBuf::from(source),
            false => env::var_os("CREDENTIALS_DIRECTORY")
                .map(|dir| Path::new(&dir).join(source))
                .with_context(|| {
                    format!(
                        "cannot find the credential {source} for {name}: CREDENTIALS_DIRECTORY is \
                         not set; the systemd unit needs LoadCredential={source}:..."
                    )
                })?,
        };
        let value = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {} for {name}", path.display()))?;
        let value = value.strip_suffix('\n').unwrap_or(&value);
        let value = value.strip_suffix('\r').unwrap_or(value);
        ensure!(
            !value.contains('\0'),
            "the value of {name} in {} has a NUL",
            path.display()
        );
        Ok((name.clone(), value.to_owned()))
    };
    sources.iter().map(read).collect()
}

/// Returns the last lines of output, without secrets.
pub fn last_lines(output: &[u8], secrets: &[String]) -> Vec<String> {
    let text = String::from_utf8_lossy(output).into_owned();
    // Also single lines of a key, and longer secrets before those that they contain.
    let lines = secrets.iter().flat_map(|secret| secret.lines());
    let lines = lines.filter(|line| line.len() >= SECRET_LINE_MIN);
    let mut secrets: Vec<&str> = secrets.iter().map(String::as_str).chain(lines).collect();
    secrets.retain(|secret| !secret.is_empty());
    secrets.sort_unstable_by_key(|secret| Reverse(secret.len()));
    let text = secrets
        .into_iter()
        .fold(text, |text, secret| text.replace(secret, "***"));
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let cut = |line: &&str| match line.char_indices().nth(OUTPUT_LINE_CHARS) {
        Some((end, _)) => format!("{} [cut]", &line[..end]),
        None => (*line).to_owned(),
    };
    let first = lines.len().saturating_sub(OUTPUT_LINES);
    lines[first..].iter().map(cut).collect()
}
