//! The NixOS module and the program have the same configuration fields.
//! scripts/render-module renders a configuration with every option of the module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{PROGRAM, output};
use serde_json::{Value, json};

const ALL_OPTIONS: &str = "tests/all-options/etc/docker-stack-backup/config.json";

/// Returns whether `check` accepts a configuration, and its messages.
fn check(config: &Value) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, config.to_string()).unwrap();
    let mut command = Command::new(PROGRAM);
    let ended = output(command.args(["check", "--config"]).arg(&path));
    (ended.status == 0, ended.stderr)
}

/// Returns the fields that the program lists when it refuses an unknown one.
fn known_fields(with_unknown: &Value) -> BTreeSet<String> {
    let (ok, message) = check(with_unknown);
    assert!(!ok, "{with_unknown} is accepted");
    let (_, known) = message
        .split_once("expected ")
        .unwrap_or_else(|| panic!("{message}"));
    let names = known.lines().next().unwrap().split('`').skip(1).step_by(2);
    names
        .map(str::to_owned)
        .filter(|name| name != "zzz")
        .collect()
}

fn fields_of(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_module_sets_every_field_and_the_program_accepts_them() {
    let all: Value = serde_json::from_str(&fs::read_to_string(ALL_OPTIONS).unwrap()).unwrap();
    let (ok, message) = check(&all);
    assert!(ok, "{message}");

    let unknown = json!({"zzz": 1});
    // A hook runs in a service or on the host, so no hook has all fields.
    let mut joined = all["stacks"][0]["hooks"][0].clone();
    joined["host"] = all["defaults"]["hooks"][0]["host"].clone();
    // A stack is a Compose project or made of units.
    let mut stack = all["stacks"][0].clone();
    for field in ["units", "paths"] {
        stack[field] = all["stacks"][1][field].clone();
    }
    let stack_fields = known_fields(&json!({"stacks": [unknown]}));
    for (at, rendered, known) in [
        ("the top", &all, known_fields(&unknown)),
        ("stacks", &stack, stack_fields),
        (
            "retention",
            &all["retention"],
            known_fields(&json!({"retention": unknown})),
        ),
        (
            "email",
            &all["email"],
            known_fields(&json!({"email": unknown})),
        ),
        (
            "hooks",
            &joined,
            known_fields(&json!({"stacks": [{"hooks": [unknown]}]})),
        ),
        (
            "notify",
            &all["notify"][0],
            known_fields(&json!({"notify": [unknown]})),
        ),
        (
            "handover",
            &all["handover"][0],
            known_fields(&json!({"handover": [unknown]})),
        ),
    ] {
        assert_eq!(fields_of(rendered), known, "at {at}");
    }
}

#[test]
fn the_module_has_every_default_that_the_program_accepts() {
    let all: Value = serde_json::from_str(&fs::read_to_string(ALL_OPTIONS).unwrap()).unwrap();
    let stack = all["stacks"][0].as_object().unwrap();
    let can_be_default = |(field, value): (&String, &Value)| {
        let config = json!({"stacks": ["a"], "defaults": {field.as_str(): value}});
        check(&config).0.then(|| field.clone())
    };
    let expected: BTreeSet<String> = stack.iter().filter_map(can_be_default).collect();
    assert!(!expected.contains("path"), "{expected:?}");
    assert_eq!(fields_of(&all["defaults"]), expected);
}

/// Returns the rendered units of a scenario, by name.
fn units(scenario: &str) -> BTreeMap<String, String> {
    let dir = format!("tests/vm/golden/{scenario}/etc/systemd/system");
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

/// Returns the values of a setting in a unit.
fn values<'a>(unit: &'a str, setting: &str) -> Vec<&'a str> {
    let prefix = format!("{setting}=");
    unit.lines()
        .filter_map(|line| line.strip_prefix(&prefix))
        .collect()
}

#[test]
fn a_handover_widens_the_sandbox_of_the_run_and_of_no_other_unit() {
    let read = |unit: &str| {
        let path =
            format!("tests/all-options/etc/systemd/system/docker-stack-backup{unit}.service");
        fs::read_to_string(path).unwrap()
    };
    let run = read("");
    for (setting, expected) in [
        ("CapabilityBoundingSet", "CAP_SYS_ADMIN"),
        ("DeviceAllow", "/dev/fuse rw"),
        ("SystemCallFilter", "@mount"),
        ("MemoryMax", "infinity"),
        ("LoadCredential", "handover-nas:/run/secrets/restic"),
        ("ReadWritePaths", "-/mnt/usb/borg"),
    ] {
        let has = |unit: &str| values(unit, setting).contains(&expected);
        assert!(has(&run), "{setting}={expected}");
        for unit in ["-verify", "-drill", "-recover"] {
            assert!(!has(&read(unit)), "{unit}: {setting}={expected}");
        }
    }
}

/// Returns the rendered configuration of a job; `None` is the simple form.
fn configuration(scenario: &str, job: Option<&str>) -> Value {
    let file = job.map_or("config.json".to_owned(), |job| format!("jobs/{job}.json"));
    let path = format!("tests/vm/golden/{scenario}/etc/docker-stack-backup/{file}");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_file_of_metrics_is_where_the_node_exporter_looks() {
    let dir = "/var/lib/node-exporter";
    let file = |job| configuration("units", job)["metricsFile"].clone();
    assert_eq!(file(None), format!("{dir}/docker-stack-backup.prom"));
    let of_job = format!("{dir}/docker-stack-backup-awkward.prom");
    assert_eq!(file(Some("awkward")), of_job);
    let units = units("units");
    for unit in ["", "-recover", "-drill", "-verify"] {
        let unit = &units[&format!("docker-stack-backup{unit}.service")];
        assert!(
            values(unit, "ReadWritePaths")
                .iter()
                .any(|path| path.contains(dir))
        );
    }
    // The controls: without the flag there is no file, and an exporter that is not told of
    // a directory has none.
    assert_eq!(configuration("nightly", None)["metricsFile"], Value::Null);
}

#[test]
fn recovery_needs_the_state_directory_and_no_other_disk() {
    let units = units("missing-disk");
    for (job, state) in [
        ("", "/var/lib/docker-stack-backup"),
        ("-second", "/var/lib/docker-stack-backup-second"),
    ] {
        let recover = &units[&format!("docker-stack-backup-recover{job}.service")];
        assert_eq!(values(recover, "RequiresMountsFor"), [state]);
        assert_eq!(values(recover, "WantsMountsFor"), [""; 0]);
    }
    // The control: a run wants the store and every stack.
    let run = &units["docker-stack-backup.service"];
    let wanted = values(run, "WantsMountsFor");
    assert_eq!(
        wanted,
        [
            "/srv/backup",
            "/srv/stacks/db",
            "/srv/disk/files",
            "/srv/stacks/web"
        ]
    );
    assert_eq!(
        values(run, "RequiresMountsFor"),
        ["/var/lib/docker-stack-backup"]
    );
}

#[test]
fn hooks_have_what_they_need_in_the_sandbox_of_runs_and_recoveries() {
    let needs = |scenario: &str, unit: &str| {
        let units = units(scenario);
        let unit = &units[unit];
        let capabilities = values(unit, "CapabilityBoundingSet");
        let has = |name: &str| capabilities.contains(&name);
        let writes = values(unit, "ReadWritePaths");
        has("CAP_KILL") && has("CAP_SETUID") && writes.contains(&"-/srv/stacks/web")
    };
    for unit in [
        "docker-stack-backup.service",
        "docker-stack-backup-recover.service",
    ] {
        assert!(needs("killed", unit), "{unit}");
        // The control: there are no hooks.
        assert!(!needs("nightly", unit), "{unit}");
    }
}

#[test]
fn each_job_has_units_with_its_own_configuration() {
    let units = units("jobs");
    let (media, simple): (Vec<_>, Vec<_>) = units
        .iter()
        .filter(|(name, _)| name.ends_with(".service"))
        .partition(|(name, _)| name.ends_with("-media.service"));
    // Run, recover, drill and send; run, recover and send.
    assert_eq!((media.len(), simple.len()), (4, 3));
    let config = " --config /etc/docker-stack-backup/jobs/media.json ";
    for (units, has_config) in [(media, true), (simple, false)] {
        for (name, unit) in units {
            let commands = [values(unit, "ExecStart"), values(unit, "ExecStopPost")].concat();
            assert!(!commands.is_empty(), "{name}");
            for command in commands {
                assert_eq!(command.contains(config), has_config, "{name}: {command}");
            }
            let recovery = values(unit, "OnFailure").join(" ");
            let is_own = recovery.is_empty() || recovery.contains("-media.service") == has_config;
            assert!(is_own, "{name}: {recovery}");
        }
    }
}

#[test]
fn paths_with_spaces_and_percent_signs_are_one_word_in_a_unit() {
    let units = units("jobs");
    let run = &units["docker-stack-backup-run-media.service"];
    assert_eq!(
        values(run, "ReadWritePaths"),
        ["\"-/srv/a store/100%%\"", "\"-/srv/a state/%%n\""]
    );
    // The control: what needs no quotes has none.
    let simple = &units["docker-stack-backup.service"];
    assert_eq!(values(simple, "ReadWritePaths")[0], "-/srv/backup");
}

/// Returns the configuration files below `dir`.
fn configurations(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(configurations(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_program_accepts_the_configuration_of_every_scenario() {
    let all = configurations(Path::new("tests/vm/golden"));
    let (good, broken): (Vec<_>, Vec<_>) = all
        .into_iter()
        .filter(|path| !path.ends_with("etc/docker/daemon.json"))
        .partition(|path| path.to_str().unwrap().contains("/etc/docker-stack-backup/"));
    assert!(good.iter().any(|path| path.ends_with("jobs/media.json")));
    for (paths, is_good) in [(good, true), (broken, false)] {
        assert!(!paths.is_empty());
        for path in paths {
            let config = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            let (accepted, message) = check(&config);
            assert_eq!(accepted, is_good, "{}: {message}", path.display());
        }
    }
}

#[test]
fn the_package_for_nixpkgs_has_the_version_and_description_of_this_one() {
    let package = fs::read_to_string("contrib/nixpkgs/package.nix").unwrap();
    let has = |line: &str| package.lines().any(|found| found.trim() == line);
    assert!(has(&format!(
        "version = \"{}\";",
        env!("CARGO_PKG_VERSION")
    )));
    let description = env!("CARGO_PKG_DESCRIPTION");
    assert!(has(&format!("description = \"{description}\";")));
    // The control: another version is not there.
    assert!(!has("version = \"0.0.0\";"));
}
