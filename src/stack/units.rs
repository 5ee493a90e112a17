//! The units of systemd that make up a stack: what else is stopped with them, why they
//! must not be stopped, and which containers they run. All of it is found while they run,
//! because containers that a unit made are gone once it has stopped.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::engine::Container;
use crate::sys::systemd::{self, ActiveState, Unit};

/// Where control groups are (systemd requires version 2 there).
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";
/// How much of a script is read that a unit runs when it starts or stops.
const SCRIPT_BYTES_MAX: u64 = 64 << 10;
/// Kinds of units that can be stopped and started again alone. The start of a target
/// would also start what was down.
const KINDS: [&str; 4] = [".service", ".socket", ".timer", ".path"];
/// Time for the stop of a unit that sets no limit for it.
pub(super) const UNLIMITED_STOP: Duration = Duration::from_secs(900);
/// A stop has its limit for `ExecStop=`, for the processes, and for `ExecStopPost=`.
const STEPS_OF_A_STOP: u32 = 3;
/// Time that systemd may need besides.
const STOP_SLACK: Duration = Duration::from_secs(60);

/// A unit as it was before this program stopped it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WasActive {
    pub name: String,
    /// Whether it kept ending, and systemd kept starting it. A start is all that can be
    /// expected of it.
    pub kept_restarting: bool,
}

/// The configured units, and those that are stopped with them.
#[derive(Debug, Default)]
pub struct UnitSet {
    members: Vec<Member>,
    /// Units outside that may start one of them at any time, each with the one that it
    /// starts.
    triggers: Vec<(String, String)>,
}

#[derive(Debug)]
struct Member {
    unit: Unit,
    /// Why it is in the set; `None` if it is configured.
    because: Option<String>,
}

impl UnitSet {
    /// Finds the units.
    ///
    /// # Errors
    /// When a configured unit does not exist, or systemd does not answer.
    pub fn of(configured: &[String]) -> Result<UnitSet> {
        UnitSet::close(configured, &systemd::unit)
    }

    /// Adds, as long as there are any, the units that run and are stopped with one of the
    /// set, or would start one of it again at once.
    fn close(configured: &[String], describe: &dyn Fn(&str) -> Result<Unit>) -> Result<UnitSet> {
        let mut set = UnitSet::default();
        let mut asked = BTreeSet::new();
        let configured = configured.iter().map(|name| (name.clone(), None));
        let mut queue: VecDeque<(String, Option<String>)> = configured.collect();
        while let Some((name, because)) = queue.pop_front() {
            if !asked.insert(name.clone()) {
                continue;
            }
            let unit = describe(&name)?;
            ensure!(
                because.is_some() || unit.state.is_loaded,
                "systemd has no unit {name} that can be started (`units`): see `systemctl status \
                 {name}`"
            );
            // It may be known by another name.
            if set.has(&unit.state.name) || (because.is_some() && !unit.state.runs()) {
                continue;
            }
            if unit.state.runs() {
                let name = &unit.state.name;
                let stopped = format!("is stopped with {name}");
                let starts = format!("would start {name} again at once (`Upholds=`)");
                let stopped = unit.stopped_with.iter().map(|other| (other, &stopped));
                let upheld = unit.upheld_by.iter().map(|other| (other, &starts));
                let others = stopped.chain(upheld);
                queue.extend(others.map(|(other, why)| (other.clone(), Some(why.clone()))));
            }
            set.members.push(Member { unit, because });
        }
        set.triggers = set.find_triggers(describe)?;
        Ok(set)
    }

    fn find_triggers(
        &self,
        describe: &dyn Fn(&str) -> Result<Unit>,
    ) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        for member in self.running() {
            for trigger in &member.unit.triggered_by {
                if !self.has(trigger) && describe(trigger)?.state.runs() {
                    found.push((trigger.clone(), member.unit.state.name.clone()));
                }
            }
        }
        Ok(found)
    }

    fn has(&self, name: &str) -> bool {
        let mut members = self.members.iter();
        members.any(|member| member.unit.state.name == name)
    }

    fn running(&self) -> impl Iterator<Item = &Member> {
        let members = self.members.iter();
        members.filter(|member| member.unit.state.runs())
    }

    /// Records the units that run, those that are configured first.
    pub fn active(&self) -> Vec<WasActive> {
        let record = |member: &Member| WasActive {
            name: member.unit.state.name.clone(),
            kept_restarting: member.unit.state.awaits_restart(),
        };
        self.running().map(record).collect()
    }

    /// Returns the names of all of them, whether they run or not.
    pub fn names(&self) -> Vec<String> {
        let members = self.members.iter();
        members
            .map(|member| member.unit.state.name.clone())
            .collect()
    }

    /// Returns how long the stop of all of them may take, by their own settings.
    pub fn stop_limit(&self) -> Duration {
        let limit = |member: &Member| match member.unit.stop_timeout {
            Some(timeout) => timeout.min(UNLIMITED_STOP) * STEPS_OF_A_STOP,
            None if member.unit.state.name.ends_with(".service") => UNLIMITED_STOP,
            None => Duration::ZERO,
        };
        // They may be stopped one after the other.
        self.running().map(limit).sum::<Duration>() + STOP_SLACK
    }

    /// Says why the units must not be stopped, if there is a reason. `own` is the unit in
    /// which this program runs.
    pub fn obstacle(&self, own: Option<&str>) -> Option<String> {
        self.running().find_map(|member| member.obstacle(own))
    }

    /// Warns of units that fail already, and of what may start a unit while it is down.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for member in &self.members {
            let state = &member.unit.state;
            if state.awaits_restart() {
                warnings.push(format!("{} keeps restarting", state.name));
            } else if state.active == ActiveState::Failed {
                warnings.push(format!("{} has failed and is down", state.name));
            }
        }
        let triggers = self.triggers.iter();
        warnings.extend(triggers.map(|(trigger, unit)| {
            format!(
                "{trigger} may start {unit} while it is down, which would fail the backup: add \
                 {trigger} to `units`"
            )
        }));
        warnings
    }

    /// Returns the units that run containers by Podman.
    pub fn of_podman(&self) -> impl Iterator<Item = &str> {
        let running = self
            .running()
            .filter(|member| Traces::of(&member.unit).name_podman());
        running.map(|member| &*member.unit.state.name)
    }

    /// Returns the containers that the units run. They are found by what Podman has noted,
    /// by what the units are called and by their commands, so some may be among them that
    /// are not run by them.
    pub fn containers<'a>(&self, all: &'a [Container]) -> Vec<&'a Container> {
        let traces: Vec<Traces> = self
            .running()
            .map(|member| Traces::of(&member.unit))
            .collect();
        let found = all
            .iter()
            .filter(|container| traces.iter().any(|traces| traces.lead_to(container)));
        found.collect()
    }
}

impl Member {
    fn obstacle(&self, own: Option<&str>) -> Option<String> {
        let state = &self.unit.state;
        let name = &state.name;
        let it = match &self.because {
            Some(because) => format!("{name} {because}"),
            None => format!("{name} is to be stopped"),
        };
        if own == Some(name) {
            return Some(format!("{it}, and this program runs in it"));
        }
        if !KINDS.iter().any(|kind| name.ends_with(kind)) {
            return Some(format!(
                "{it}, and cannot be started again alone, because it is not one of {}",
                KINDS.join(" ")
            ));
        }
        let is_settled = state.active == ActiveState::Active || state.awaits_restart();
        if !is_settled {
            return Some(format!(
                "{name} is just being started or stopped ({}): try again when that has ended",
                state.sub
            ));
        }
        let command = volume_removal(&with_scripts(&self.unit.stop_commands))?;
        Some(format!(
            "{it}, and its stop would remove volumes (`{command}`): change its `ExecStop=` or \
             `ExecStopPost=`"
        ))
    }
}

/// Returns the line of a unit's commands that removes volumes.
fn volume_removal(commands: &str) -> Option<String> {
    let removes = |line: &&str| {
        let words: Vec<&str> = words(line).collect();
        let follows = |first: &str, seconds: &[&str]| {
            words
                .windows(2)
                .any(|pair| pair[0] == first && seconds.contains(&pair[1]))
        };
        let down = words.iter().position(|word| *word == "down");
        let of_down = down.map_or(&[][..], |at| &words[at..]);
        follows("volume", &["rm", "remove", "prune"])
            || of_down
                .iter()
                .any(|word| ["-v", "--volumes"].contains(word))
    };
    let line = commands.lines().map(arguments).find(removes)?;
    let words: Vec<&str> = words(line).collect();
    Some(words.join(" "))
}

/// Returns what a command is called with, where systemd describes it; else the whole line.
fn arguments(line: &str) -> &str {
    let after = line.split_once("argv[]=").map_or(line, |(_, after)| after);
    let before = after.split_once(" ; ignore_errors=");
    before.map_or(after, |(arguments, _)| arguments)
}

/// Returns the words of a command as systemd or a shell script has it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| c.is_whitespace() || c == ';');
    let bare = words.map(|word| word.trim_matches(['\'', '"', '{', '}']));
    bare.filter(|word| !word.is_empty())
}

/// Returns commands together with the scripts that they name. NixOS puts most commands
/// into scripts.
fn with_scripts(commands: &str) -> String {
    let mut text = commands.to_owned();
    let paths = words(commands).map(|word| word.strip_prefix("path=").unwrap_or(word));
    let paths: BTreeSet<&str> = paths.filter(|word| word.starts_with('/')).collect();
    for script in paths.into_iter().filter_map(script) {
        text.push('\n');
        text.push_str(&script);
    }
    text
}

fn script(path: &str) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > SCRIPT_BYTES_MAX {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    text.starts_with("#!").then_some(text)
}

/// What leads from a unit to its containers.
#[derive(Debug, Default)]
struct Traces {
    unit: String,
    /// Words of its commands, and of the command lines of its processes.
    words: BTreeSet<String>,
    /// Directories in which its commands run.
    dirs: BTreeSet<PathBuf>,
}

impl Traces {
    fn of(unit: &Unit) -> Traces {
        let mut traces = Traces {
            unit: unit.state.name.clone(),
            ..Traces::default()
        };
        let commands = with_scripts(&unit.start_commands);
        let commands = words(&commands).map(|word| word.strip_prefix("path=").unwrap_or(word));
        traces.words.extend(commands.map(str::to_owned));
        traces.dirs.extend(unit.working_dir.clone());
        // So NixOS names the units of `virtualisation.oci-containers`.
        let name = unit.state.name.strip_suffix(".service");
        let prefixes = ["docker-", "podman-"].into_iter();
        let container = name.and_then(|name| {
            let mut found = prefixes.filter_map(|prefix| name.strip_prefix(prefix));
            found.next()
        });
        traces.words.extend(container.map(str::to_owned));
        for pid in processes(&unit.control_group) {
            let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command_line = command_line.split(|byte| *byte == 0);
            let command_line = command_line.map(|word| String::from_utf8_lossy(word).into_owned());
            traces.words.extend(command_line);
            traces
                .dirs
                .extend(fs::read_link(format!("/proc/{pid}/cwd")));
        }
        traces
    }

    /// Whether one of the commands is Podman's.
    fn name_podman(&self) -> bool {
        let mut words = self.words.iter();
        words.any(|word| {
            Path::new(word)
                .file_name()
                .is_some_and(|name| name == "podman")
        })
    }

    fn lead_to(&self, container: &Container) -> bool {
        let name = &container.name;
        let names_it = |word: &String| {
            let after = word.rsplit_once('=').map(|(_, value)| value);
            word == name || after == Some(name)
        };
        let names = |path: &Path| {
            let mut words = self.words.iter();
            !path.as_os_str().is_empty() && words.any(|word| Path::new(word) == path)
        };
        container.systemd_unit.as_ref() == Some(&self.unit)
            || self.words.iter().any(names_it)
            || self.dirs.contains(&container.working_dir)
            || names(&container.working_dir)
            || container.config_files.iter().any(|file| names(file))
    }
}

fn processes(control_group: &str) -> Vec<u32> {
    if control_group.is_empty() || control_group == "/" {
        return Vec::new();
    }
    let file = format!("{CONTROL_GROUPS}{control_group}/cgroup.procs");
    let processes = fs::read_to_string(file).unwrap_or_default();
    processes
        .lines()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::sys::systemd::UnitState;

    fn unit(name: &str, active: ActiveState) -> Unit {
        Unit {
            state: UnitState {
                name: name.to_owned(),
                is_loaded: true,
                active,
                sub: "running".to_owned(),
                invocation: "1".to_owned(),
                restart_count: 0,
                result: "success".to_owned(),
                has_job: false,
            },
            stopped_with: Vec::new(),
            upheld_by: Vec::new(),
            triggered_by: Vec::new(),
            start_commands: String::new(),
            stop_commands: String::new(),
            stop_timeout: Some(Duration::from_secs(90)),
            working_dir: None,
            control_group: String::new(),
        }
    }

    fn named(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn set(configured: &[&str], units: Vec<Unit>) -> Result<UnitSet> {
        let units = units.into_iter().map(|u| (u.state.name.clone(), u));
        let units: BTreeMap<String, Unit> = units.collect();
        let unknown = |name: &str| Unit {
            state: UnitState {
                is_loaded: false,
                ..unit(name, ActiveState::Inactive).state
            },
            ..unit(name, ActiveState::Inactive)
        };
        let describe = |name: &str| Ok(units.get(name).cloned().unwrap_or_else(|| unknown(name)));
        UnitSet::close(&named(configured), &describe)
    }

    fn active(set: &UnitSet) -> Vec<String> {
        set.active().into_iter().map(|was| was.name).collect()
    }

    #[test]
    fn what_runs_and_is_stopped_with_a_unit_or_upholds_it_is_in_the_set() {
        let up = ActiveState::Active;
        let db = Unit {
            stopped_with: named(&["app.service", "idle.service"]),
            upheld_by: named(&["net.service"]),
            ..unit("db.service", up)
        };
        let app = Unit {
            // A circle ends.
            stopped_with: named(&["front.service", "db.service"]),
            ..unit("app.service", up)
        };
        let units = vec![
            db,
            app,
            unit("front.service", up),
            unit("net.service", up),
            unit("idle.service", ActiveState::Inactive),
            unit("down.service", ActiveState::Failed),
            unit("other.service", up),
        ];
        let set = set(&["db.service", "down.service"], units).unwrap();
        let expected = ["db.service", "app.service", "net.service", "front.service"];
        assert_eq!(active(&set), expected);
        assert_eq!(set.obstacle(None), None);
        assert_eq!(set.warnings(), ["down.service has failed and is down"]);
        // Four units, each with its time for three steps.
        assert_eq!(set.stop_limit(), Duration::from_secs(4 * 3 * 90 + 60));
    }

    #[test]
    fn a_unit_that_does_not_exist_is_an_error_and_an_alias_is_the_same_unit() {
        let up = ActiveState::Active;
        let error = set(&["no.service"], Vec::new()).unwrap_err().to_string();
        assert!(error.contains("no unit no.service"), "{error}");
        let describe = |_: &str| Ok(unit("postgresql.service", up));
        let both = named(&["postgres.service", "postgresql.service"]);
        let set = UnitSet::close(&both, &describe).unwrap();
        assert_eq!(active(&set), ["postgresql.service"]);
    }

    #[test]
    fn units_that_cannot_be_stopped_without_harm_are_refused() {
        let up = ActiveState::Active;
        let obstacle = |change: &dyn Fn(&mut Unit), others: Vec<Unit>| {
            let mut db = unit("db.service", up);
            change(&mut db);
            let units = others.into_iter().chain([db]).collect();
            let set = set(&["db.service"], units).unwrap();
            set.obstacle(Some("backup.service")).unwrap_or_default()
        };
        // The control.
        assert_eq!(obstacle(&|_| {}, vec![]), "");
        let found = obstacle(
            &|db| db.upheld_by = named(&["multi-user.target"]),
            vec![unit("multi-user.target", up)],
        );
        let expected = "multi-user.target would start db.service again at once (`Upholds=`), and \
                        cannot be started again alone";
        assert!(found.starts_with(expected), "{found}");
        let found = obstacle(
            &|db| db.stopped_with = named(&["backup.service"]),
            vec![unit("backup.service", ActiveState::Activating)],
        );
        assert!(found.ends_with("and this program runs in it"), "{found}");
        let found = obstacle(&|db| db.state.active = ActiveState::Activating, vec![]);
        assert!(found.contains("just being started"), "{found}");
        for command in [
            "{ path=/bin/docker ; argv[]=/bin/docker volume rm -f p_data ; ignore_errors=no }",
            "{ path=/bin/sh ; argv[]=/bin/sh -c 'podman volume prune' ; }",
            "{ path=/bin/docker ; argv[]=/bin/docker compose down -v ; }",
            "{ path=/bin/docker ; argv[]=/bin/docker compose down --timeout 5 --volumes ; }",
        ] {
            let found = obstacle(&|db| db.stop_commands = command.to_owned(), vec![]);
            assert!(found.contains("would remove volumes"), "{command}: {found}");
        }
        let command = "{ path=/bin/docker ; argv[]=/bin/docker volume rm a ; ignore_errors=no ; }";
        let found = obstacle(&|db| db.stop_commands = command.to_owned(), vec![]);
        assert!(found.contains("(`/bin/docker volume rm a`)"), "{found}");
        for harmless in [
            "{ path=/bin/docker ; argv[]=/bin/docker compose down ; }",
            "{ path=/bin/docker ; argv[]=/bin/docker network rm -f p_default ; }",
            "{ path=/bin/docker ; argv[]=/bin/docker rm -v -f x ; }",
        ] {
            let found = obstacle(&|db| db.stop_commands = harmless.to_owned(), vec![]);
            assert_eq!(found, "", "{harmless}");
        }
    }

    #[test]
    fn a_script_that_removes_volumes_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unit-script-stop");
        let commands = format!("{{ path={0} ; argv[]={0} ; }}", path.display());
        for (script, expected) in [
            (
                "#!/bin/sh\ndocker volume rm data\n",
                Some("docker volume rm data"),
            ),
            ("#!/bin/sh\ndocker rm data\n", None),
            // No script.
            ("docker volume rm data\n", None),
        ] {
            fs::write(&path, script).unwrap();
            let found = volume_removal(&with_scripts(&commands));
            assert_eq!(found.as_deref(), expected, "{script}");
        }
    }

    #[test]
    fn what_starts_a_unit_by_itself_is_told_unless_it_is_stopped_too() {
        let up = ActiveState::Active;
        let units = || {
            let triggered = Unit {
                triggered_by: named(&["db.socket", "db.timer", "db.path"]),
                ..unit("db.service", up)
            };
            let idle = unit("db.path", ActiveState::Inactive);
            vec![triggered, unit("db.socket", up), unit("db.timer", up), idle]
        };
        let warnings = |configured: &[&str]| set(configured, units()).unwrap().warnings();
        let found = warnings(&["db.service", "db.socket"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("db.timer may start db.service"),
            "{found:?}"
        );
        let all = ["db.service", "db.socket", "db.timer"];
        assert!(warnings(&all).is_empty());
    }

    #[test]
    fn containers_are_found_by_the_names_and_commands_of_units() {
        let container = |name: &str, working_dir: &str| -> Container {
            Container::from_json(json!({
                "Id": name, "Name": format!("/{name}"), "Image": "i",
                "State": {"Status": "running", "StartedAt": "", "ExitCode": 0},
                "Config": {"Labels": {"com.docker.compose.project.working_dir": working_dir}},
                "HostConfig": {},
            }))
        };
        let all = [
            container("immich", ""),
            container("cache", ""),
            container("of-compose", "/srv/app"),
            container("other", "/srv/other"),
            Container {
                systemd_unit: Some("quadlet.service".to_owned()),
                ..container("noted", "")
            },
        ];
        let found = |unit: Unit| -> Vec<String> {
            let name = unit.state.name.clone();
            let set = set(&[&name], vec![unit]).unwrap();
            let found = set.containers(&all).into_iter();
            found.map(|container| container.name.clone()).collect()
        };
        let up = ActiveState::Active;
        assert_eq!(found(unit("docker-immich.service", up)), ["immich"]);
        let commands = "{ path=/bin/docker ; argv[]=/bin/docker run --rm --name=cache redis ; }";
        let by_command = Unit {
            start_commands: commands.to_owned(),
            ..unit("any.service", up)
        };
        assert_eq!(found(by_command), ["cache"]);
        let by_directory = Unit {
            working_dir: Some("/srv/app".into()),
            ..unit("app.service", up)
        };
        assert_eq!(found(by_directory), ["of-compose"]);
        assert_eq!(found(unit("quadlet.service", up)), ["noted"]);
        assert!(found(unit("app.service", up)).is_empty());
    }

    #[test]
    fn units_that_run_containers_by_podman_are_known_by_their_commands() {
        let of_podman = |commands: &str| {
            let unit = Unit {
                start_commands: commands.to_owned(),
                ..unit("a.service", ActiveState::Active)
            };
            let set = set(&["a.service"], vec![unit]).unwrap();
            set.of_podman().count()
        };
        assert_eq!(
            of_podman("{ path=/usr/bin/podman ; argv[]=podman run x ; }"),
            1
        );
        assert_eq!(
            of_podman("{ path=/bin/sh ; argv[]=/bin/sh -c 'exec podman run x' ; }"),
            1
        );
        // The controls.
        assert_eq!(
            of_podman("{ path=/usr/bin/docker ; argv[]=docker run x ; }"),
            0
        );
        assert_eq!(
            of_podman("{ path=/usr/bin/podman-exporter ; argv[]=x ; }"),
            0
        );
    }
}
