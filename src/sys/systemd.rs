//! systemd, as the systemctl command tells of it and gives it orders. Each call has a
//! time limit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::sys::format::last_lines;
use crate::sys::process::{Exit, Output, Program};

const SYSTEMCTL: &str = "systemctl";
/// How long systemd may take to answer, or to take an order.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How often systemd is asked something.
const ATTEMPTS: u32 = 3;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);
/// How long the log of a unit may take to be found.
const LOG_LIMIT: Duration = Duration::from_secs(10);

/// Properties of a unit that may be different a moment later.
const STATE: [&str; 8] = [
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "InvocationID",
    "NRestarts",
    "Result",
    "Job",
];
/// Dependencies by which a unit is stopped with another one (systemd.unit(5)).
const STOPPED_WITH: [&str; 5] = [
    "RequiredBy",
    "RequisiteOf",
    "BoundBy",
    "ConsistsOf",
    "PropagatesStopTo",
];
const STOP_COMMANDS: [&str; 2] = ["ExecStop", "ExecStopPost"];
const COMMANDS: [&str; 2] = ["ExecStart", "ExecStartPre"];
const OTHER: [&str; 5] = [
    "UpheldBy",
    "TriggeredBy",
    "TimeoutStopUSec",
    "WorkingDirectory",
    "ControlGroup",
];

/// `ActiveState` of a unit. What reloads is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActiveState {
    Active,
    Activating,
    Deactivating,
    Inactive,
    Failed,
}

/// How a unit is at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitState {
    /// Its own name, also where it was asked for by an alias.
    pub name: String,
    /// Whether there is such a unit, and it may be started.
    pub is_loaded: bool,
    pub active: ActiveState,
    pub sub: String,
    /// Another one after each start. Empty if the unit was not started since systemd
    /// began to know it.
    pub invocation: String,
    /// Number of restarts by its `Restart=` since it was last started otherwise.
    pub restart_count: u64,
    /// How a service ended, such as `success` or `timeout`.
    pub result: String,
    /// Whether it is about to be started or stopped.
    pub has_job: bool,
}

/// A unit, with what its files say.
#[derive(Clone, Debug)]
pub struct Unit {
    pub state: UnitState,
    /// Units that are stopped with it.
    pub stopped_with: Vec<String>,
    pub upheld_by: Vec<String>,
    pub triggered_by: Vec<String>,
    /// The commands that start it, as text.
    pub start_commands: String,
    /// The commands that are run when it stops, as text.
    pub stop_commands: String,
    /// `TimeoutStopSec=`; `None` if it has no limit, or is no service.
    pub stop_timeout: Option<Duration>,
    pub working_dir: Option<PathBuf>,
    /// Path below the root of the control groups; empty if nothing of it runs.
    pub control_group: String,
}

impl UnitState {
    /// Whether it would have to be stopped.
    pub fn runs(&self) -> bool {
        !matches!(self.active, ActiveState::Inactive | ActiveState::Failed)
    }

    /// Whether it has ended, and systemd starts it again in a moment.
    pub fn awaits_restart(&self) -> bool {
        self.active == ActiveState::Activating && self.sub.starts_with("auto-restart")
    }

    fn new(properties: &BTreeMap<String, String>) -> UnitState {
        let text = |name: &str| properties.get(name).cloned().unwrap_or_default();
        UnitState {
            name: text("Id"),
            is_loaded: text("LoadState") == "loaded",
            active: match text("ActiveState").as_str() {
                "active" | "reloading" | "refreshing" => ActiveState::Active,
                "activating" => ActiveState::Activating,
                "failed" => ActiveState::Failed,
                "inactive" => ActiveState::Inactive,
                // Among them `maintenance`: it is certain that it is not up.
                _ => ActiveState::Deactivating,
            },
            sub: text("SubState"),
            invocation: text("InvocationID"),
            restart_count: text("NRestarts").parse().unwrap_or(0),
            result: text("Result"),
            has_job: !matches!(text("Job").as_str(), "" | "0"),
        }
    }
}

impl Unit {
    fn new(properties: &BTreeMap<String, String>) -> Unit {
        let text = |name: &str| properties.get(name).cloned().unwrap_or_default();
        let texts = |names: &[&str]| -> String {
            let texts = names.iter().map(|name| text(name));
            texts.collect::<Vec<_>>().join("\n")
        };
        let units = |names: &[&str]| -> Vec<String> {
            texts(names).split_whitespace().map(str::to_owned).collect()
        };
        let working_dir = text("WorkingDirectory");
        Unit {
            state: UnitState::new(properties),
            stopped_with: units(&STOPPED_WITH),
            upheld_by: units(&["UpheldBy"]),
            triggered_by: units(&["TriggeredBy"]),
            start_commands: texts(&COMMANDS),
            stop_commands: texts(&STOP_COMMANDS),
            stop_timeout: parse_time_span(&text("TimeoutStopUSec")),
            working_dir: Some(PathBuf::from(working_dir.trim_start_matches(['!', '-'])))
                .filter(|dir| dir.is_absolute()),
            control_group: text("ControlGroup"),
        }
    }
}

/// Describes a unit. One that does not exist is described as not loaded.
///
/// # Errors
/// When systemd does not answer.
pub fn unit(name: &str) -> Result<Unit> {
    let properties = [&STATE[..], &STOPPED_WITH, &STOP_COMMANDS, &COMMANDS, &OTHER].concat();
    let output = show(&properties, &[name.to_owned()])?;
    // Commands may have several lines, so this must be the output about one unit.
    let unit = Unit::new(&parse_properties(&output, &properties));
    ensure!(
        !unit.state.name.is_empty(),
        "systemd does not tell anything about {name}"
    );
    Ok(unit)
}

/// Looks how units are, in their order.
///
/// # Errors
/// When systemd does not answer.
pub fn states(names: &[String]) -> Result<Vec<UnitState>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let output = show(&STATE, names)?;
    let blocks = output
        .split("\n\n")
        .filter(|block| !block.trim().is_empty());
    let states: Vec<UnitState> = blocks
        .map(|block| UnitState::new(&parse_properties(block, &STATE)))
        .collect();
    ensure!(
        states.len() == names.len(),
        "systemd tells about {} units, although {} were asked for",
        states.len(),
        names.len()
    );
    Ok(states)
}

/// Has units started. Returns when systemd has taken the order; it starts them in the
/// order of their dependencies. The start of a unit that is being stopped follows its
/// stop.
///
/// # Errors
/// When one of the units cannot be started, or systemd does not answer.
pub fn begin_start(names: &[String]) -> Result<()> {
    let args = ["start", "--no-block", "--no-ask-password", "--"].map(str::to_owned);
    order(args.into_iter().chain(names.iter().cloned()), ANSWER_LIMIT)
}

/// Stops units, and those that need them. Returns when they have ended.
///
/// # Errors
/// When one of them cannot be stopped, or that takes longer than `limit`. The stop goes
/// on then.
pub fn stop(names: &[String], limit: Duration) -> Result<()> {
    let args = ["stop", "--no-ask-password", "--"].map(str::to_owned);
    order(args.into_iter().chain(names.iter().cloned()), limit)
}

fn order(args: impl Iterator<Item = String>, limit: Duration) -> Result<()> {
    let ordered = Program::new(SYSTEMCTL, args)
        .limit(limit)
        // It must not give an order that a killed run has not given yet.
        .killed_with_this_thread()
        .output()?;
    ordered.check().map(drop)
}

/// Asks again after a moment, because systemd does not answer while it starts itself anew.
fn show(properties: &[&str], names: &[String]) -> Result<String> {
    let properties = format!("--property={}", properties.join(","));
    let args = ["show", &properties, "--"].map(str::to_owned);
    let args: Vec<String> = args.into_iter().chain(names.iter().cloned()).collect();
    let ask = || {
        let program = Program::new(SYSTEMCTL, &args).limit(ANSWER_LIMIT);
        let answer = program.output().and_then(Output::check);
        answer.context("cannot ask systemd")
    };
    let mut answer = ask();
    for _ in 1..ATTEMPTS {
        if answer.is_ok() {
            break;
        }
        thread::sleep(ATTEMPT_PAUSE);
        answer = ask();
    }
    Ok(String::from_utf8_lossy(&answer?.stdout).into_owned())
}

/// Returns the version of systemd, in its own words.
///
/// # Errors
/// When systemd does not answer.
pub fn version() -> Result<String> {
    let args = ["show", "--property=Version", "--value"];
    let output = Program::new(SYSTEMCTL, args)
        .limit(ANSWER_LIMIT)
        .output()?
        .check()
        .context("cannot ask systemd")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the last lines of a unit's log; nothing if they cannot be read.
pub fn last_log_lines(name: &str, count: usize) -> Vec<String> {
    let args = [
        "--quiet".to_owned(),
        "--no-pager".to_owned(),
        "--output=cat".to_owned(),
        format!("--lines={count}"),
        format!("--unit={name}"),
    ];
    match Program::new("journalctl", args).limit(LOG_LIMIT).output() {
        Ok(output) if output.exit == Exit::Success => {
            // An entry of the journal may have any number of lines.
            last_lines(&String::from_utf8_lossy(&output.stdout), count)
        }
        _ => Vec::new(),
    }
}

/// Returns the unit in which this process runs.
pub fn own_unit() -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let name = Path::new(group).file_name()?.to_str()?;
    Some(name.to_owned())
}

/// Reads lines `Name=value`. A line that does not begin with one of `names` goes on with
/// the value before it.
fn parse_properties(output: &str, names: &[&str]) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut last: Option<String> = None;
    for line in output.lines() {
        let property = line.split_once('=');
        match property.filter(|(name, _)| names.contains(name)) {
            Some((name, value)) => {
                // Some are there several times, such as a service with two commands.
                add_line(found.entry(name.to_owned()).or_default(), value);
                last = Some(name.to_owned());
            }
            None => {
                if let Some(value) = last.as_ref().and_then(|name| found.get_mut(name)) {
                    add_line(value, line);
                }
            }
        }
    }
    found
}

fn add_line(text: &mut String, line: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(line);
}

/// Reads a time span as systemd prints it, such as `1min 30s` (systemd.time(7)). `None` if
/// it is infinite, or no time span.
fn parse_time_span(text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    let mut words = text.split_whitespace().peekable();
    words.peek()?;
    for word in words {
        let digits = word.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = word.split_at(digits.unwrap_or(word.len()));
        let number: f64 = number.parse().ok()?;
        seconds += number
            * match unit {
                "us" => 1e-6,
                "ms" => 1e-3,
                "s" | "" => 1.0,
                "min" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                "w" => 604_800.0,
                "month" => 2_629_800.0,
                "y" => 31_557_600.0,
                _ => return None,
            };
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_read_as_systemd_prints_them() {
        for (text, expected) in [
            ("1min 30s", Some(90_000)),
            ("2min", Some(120_000)),
            ("1h 1.500s", Some(3_601_500)),
            ("500ms", Some(500)),
            ("0", Some(0)),
            ("infinity", None),
            ("", None),
        ] {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(parse_time_span(text), expected, "{text}");
        }
    }

    #[test]
    fn a_command_of_several_lines_hides_no_other_property() {
        let output = "Id=db.service\n\
            ExecStop={ path=/bin/sh ; argv[]=/bin/sh -c a\n\
            \n\
            Id: b=c ; ignore_errors=no }\n\
            LoadState=loaded\nActiveState=reloading\nNRestarts=2\nJob=17\n";
        let properties = [
            "Id",
            "ExecStop",
            "LoadState",
            "ActiveState",
            "NRestarts",
            "Job",
        ];
        let found = parse_properties(output, &properties);
        assert!(found["ExecStop"].ends_with("Id: b=c ; ignore_errors=no }"));
        let state = UnitState::new(&found);
        assert_eq!(state.name, "db.service");
        assert_eq!(state.active, ActiveState::Active);
        assert_eq!((state.restart_count, state.has_job), (2, true));
        assert!(state.is_loaded && state.runs());
        // The control: of a unit that does not exist, systemd tells this.
        let output = "Id=x.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\n";
        let state = UnitState::new(&parse_properties(output, &STATE));
        assert!(!state.is_loaded && !state.runs() && !state.has_job);
    }
}
