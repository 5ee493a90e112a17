//! Options and messages of the commands that need no Docker Engine.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Ended, PROGRAM, Place, output};
use clap::{CommandFactory as _, Parser as _};
use docker_stack_backup::cli::Cli;
use serde_json::{Value, json};

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).env_remove("DOCKER_STACK_BACKUP_CONFIG");
    command
}

/// Runs `check` on a valid configuration with these fields replaced.
#[track_caller]
fn check(place: &Place, stacks: Value, more: Value) -> Ended {
    place.config(stacks, more);
    output(&mut place.program(&["check"]))
}

#[test]
fn a_retention_that_would_keep_nothing_is_refused_on_the_command_line_too() {
    let place = Place::new();
    place.config(json!(["web"]), json!({}));
    let ended = output(&mut place.program(&["run", "--keep-days", "0"])).expect_status(1);
    assert!(
        ended.stderr.contains("'--keep-days <DAYS>'"),
        "{}",
        ended.stderr
    );
    assert!(!place.state().exists());
}

#[test]
fn check_reports_every_mistake_and_suggests_the_right_name() {
    let place = Place::new();
    check(&place, json!(["web"]), json!({})).expect_status(0);
    let email = json!({"host": "h", "from": "a@example.org", "to": ["b@example.org"]});
    let email = |more: Value| {
        let mut email = email.clone();
        let more = more.as_object().unwrap().clone();
        email.as_object_mut().unwrap().extend(more);
        json!({ "email": email })
    };
    check(&place, json!(["web"]), email(json!({}))).expect_status(0);
    let store_within = json!({"backupDir": place.path("stacks/web/backups")});
    for (stacks, more, expected) in [
        (
            json!([]),
            json!({"stakcs": []}),
            "`stakcs`: unknown field `stakcs`",
        ),
        (json!([]), json!({"stakcs": []}), "did you mean `stacks`?"),
        (
            json!([{"name": "a", "stop_timeout": 1}]),
            json!({}),
            "`stacks[0].stop_timeout`: unknown field",
        ),
        (
            json!([{"name": "a", "stop_timeout": 1}]),
            json!({}),
            "did you mean `stopTimeout`?",
        ),
        (json!(["a", "a"]), json!({}), "stack a is configured twice"),
        (
            json!(["a/b"]),
            json!({}),
            "`a/b` is not a valid name of a stack",
        ),
        (
            json!(["../a"]),
            json!({}),
            "`../a` is not a valid name of a stack",
        ),
        (
            json!([{"path": "relative"}]),
            json!({}),
            "relative: must be an absolute path",
        ),
        (
            json!([{"name": "a", "stopMethod": "kill"}]),
            json!({}),
            "`stacks[0].stopMethod`: unknown variant `kill`, expected one of `stop`, `down`, `pause`",
        ),
        (
            json!([{"name": "a", "exclude": ["[z-a]"]}]),
            json!({}),
            "`stacks[0]` (a): `exclude`: pattern \"[z-a]\": error parsing glob",
        ),
        (
            json!(["web"]),
            store_within,
            "would archive its own archives",
        ),
        (
            json!([]),
            json!({"retention": {"keepLast": 0}}),
            "`retention`: keeps nothing",
        ),
        (
            json!([]),
            json!({"retention": {"keepDays": -1}}),
            "`retention.keepDays`: invalid value: integer `-1`",
        ),
        (
            json!([]),
            json!({"defaults": {"files": ["a.yaml"]}}),
            "`defaults.files`: cannot be a default",
        ),
        (
            json!([]),
            email(json!({"to": []})),
            "email.to names no recipient",
        ),
        (
            json!([]),
            email(json!({"from": "nobody"})),
            "email.from: not a mail address: \"nobody\"",
        ),
        (
            json!([]),
            email(json!({"user": "u"})),
            "email.user needs email.passwordFile",
        ),
        (
            json!([]),
            json!({"notify": [{"kind": "ntfy"}]}),
            "`notify[0]` (ntfy): needs `urlFile` or `credential`",
        ),
        (
            json!([]),
            json!({"notify": [{"kind": "ntfy", "urlFile": "url"}]}),
            "`notify[0]` (ntfy): `urlFile`: must be an absolute path",
        ),
        (
            json!([]),
            json!({"notify": [{"kind": "ntfy", "url": "https://ntfy.sh/x"}]}),
            "`notify[0].url`: unknown field `url`",
        ),
        (
            json!([]),
            json!({"notify": [{"kind": "fax", "urlFile": "/u"}]}),
            "`notify[0].kind`: unknown variant `fax`",
        ),
        (
            json!([]),
            json!({"notify": [["ntfy"]]}),
            "`notify[0]`: invalid type: array, expected an object with `kind` and `urlFile`",
        ),
        (
            json!([]),
            json!({"notify": [{"kind": "healthchecks", "urlFile": "/u", "when": "failure"}]}),
            "healthchecks takes silence for a failure",
        ),
        (
            json!([]),
            json!({"notify": [
                {"kind": "ntfy", "urlFile": "/u"},
                {"kind": "ntfy", "urlFile": "/v"},
            ]}),
            "`notify[1]` (ntfy): there is another channel `ntfy`",
        ),
        (
            json!([]),
            json!({"notify": [{"kind": "ntfy", "name": "mail", "urlFile": "/u"}]}),
            "`mail` is the channel that `email` configures",
        ),
        (
            json!([]),
            json!({"notify": [{"kind": "ntfy", "credential": "a/b"}]}),
            "`credential` must be a credential's name, not a path; for a path use `urlFile`",
        ),
        (
            json!([]),
            json!({"notify": [{"kind": "ntfy", "urlFile": "/u", "remindDays": 0}]}),
            "a failure that lasts must not be forgotten",
        ),
        (
            json!([]),
            email(json!({"password": "p"})),
            "`email.password`: unknown field `password`",
        ),
    ] {
        let ended = check(&place, stacks, more).expect_status(1);
        assert!(
            ended.stderr.contains(expected),
            "{expected} is not in:\n{}",
            ended.stderr
        );
        assert_eq!(ended.stdout, "");
    }
    // All mistakes are reported, each on a line of its own.
    let ended = check(&place, json!(["a/b", "c", "c"]), json!({"baseDir": "x"}));
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert!(lines.len() >= 3, "{lines:#?}");
    assert!(
        lines.iter().all(|line| line.starts_with("error: ")),
        "{lines:#?}"
    );
}

#[test]
fn a_missing_or_malformed_configuration_is_named_in_the_error() {
    let place = Place::new();
    let path = place.path("config.json");
    let ended = output(&mut place.program(&["check"])).expect_status(1);
    let expected = format!(
        "cannot read the configuration {}: No such file",
        path.display()
    );
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    fs::write(&path, "{\"stacks\": [}").unwrap();
    let ended = output(&mut place.program(&["check"])).expect_status(1);
    assert!(
        ended.stderr.contains("at line 1 column 13") && ended.stderr.contains("config.json"),
        "{}",
        ended.stderr
    );
    if !Path::new("/etc/docker-stack-backup/config.json").exists() {
        let ended = output(&mut program(&["run"])).expect_status(1);
        assert!(
            ended
                .stderr
                .contains("there is no configuration: create /etc"),
            "{}",
            ended.stderr
        );
    }
    let ended = output(&mut program(&["run", "--stack", "/nonexistent"])).expect_status(1);
    assert!(
        ended.stderr.contains("--stack needs --backup-dir DIR"),
        "{}",
        ended.stderr
    );
}

#[test]
fn an_error_in_the_values_names_the_configuration_file() {
    let place = Place::new();
    let ended = check(&place, json!(["a", "a"]), json!({})).expect_status(1);
    let file = place.path("config.json");
    let expected = format!(
        "error: cannot use the configuration {}: stack a is configured twice",
        file.display()
    );
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
}

#[test]
fn the_configuration_may_be_named_by_the_environment() {
    let place = Place::new();
    let path = place.config(json!(["a", "b"]), json!({}));
    let list = |args: &[&str]| {
        let mut command = program(args);
        output(command.env("DOCKER_STACK_BACKUP_CONFIG", &path))
    };
    list(&["check"]).expect_status(0);
    let ended = list(&["run", "c"]).expect_status(1);
    assert!(
        ended
            .stderr
            .contains("no stack `c` is configured (there are: a, b)"),
        "{}",
        ended.stderr
    );
    // The option takes precedence.
    let ended = list(&["--config", "/nonexistent", "check"]).expect_status(1);
    assert!(ended.stderr.contains("/nonexistent"), "{}", ended.stderr);
    let ended = list(&["run", "--stack", "/x", "--backup-dir", "/y"]).expect_status(1);
    assert!(
        ended.stderr.contains("$DOCKER_STACK_BACKUP_CONFIG"),
        "{}",
        ended.stderr
    );
}

#[test]
fn usage_errors_are_status_1_and_help_lists_the_statuses() {
    for args in [
        &[][..],
        &["runn"],
        &["run", "--bogus"],
        &["-q", "-v", "run"],
    ] {
        let ended = output(&mut program(args)).expect_status(1);
        assert!(ended.stderr.contains("Usage:"), "{}", ended.stderr);
    }
    let ended = output(&mut program(&["runn"]));
    assert!(ended.stderr.contains("'run'"), "{}", ended.stderr);
    for option in ["--help", "-h"] {
        let help = output(&mut program(&[option])).expect_status(0).stdout;
        assert!(help.contains("Exit status:\n  0  all good\n"), "{help}");
        assert!(help.contains("3  a stack that was running is still down"));
    }
    let version = output(&mut program(&["--version"])).expect_status(0);
    assert_eq!(
        version.stdout.trim(),
        concat!("docker-stack-backup ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn completions_and_man_pages_are_written() {
    for (shell, sign) in [
        ("bash", "complete -o nospace"),
        ("zsh", "#compdef docker-stack-backup"),
        ("fish", "complete --keep-order"),
    ] {
        let script = output(&mut program(&["completions", shell])).expect_status(0);
        assert!(script.stdout.contains(sign), "{shell}: {}", script.stdout);
        assert!(script.stdout.contains("docker-stack-backup"), "{shell}");
    }
    let place = Place::new();
    let dir = place.path("new/man");
    output(program(&["man-pages"]).arg(&dir)).expect_status(0);
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let page = read("docker-stack-backup.1");
    assert!(page.contains(".TH docker-stack-backup 1"), "{page}");
    let run = read("docker-stack-backup-run.1");
    for section in [
        "EXAMPLES",
        "FILES",
        "ENVIRONMENT",
        "EXIT STATUS",
        "SEE ALSO",
    ] {
        assert!(
            run.contains(&format!(".SH {section}\n")),
            "{section}: {run}"
        );
    }
    assert!(!dir.join("docker-stack-backup-worker.1").exists());
    let config = read("docker-stack-backup-config.5");
    for field in [
        "backupDir",
        "ignoreProjects",
        "keepDaily",
        "passwordFile",
        "beforeCopy",
    ] {
        assert!(
            config.contains(&format!("\\fB{field}\\fR")),
            "{field}: {config}"
        );
    }
    assert!(
        !config.contains("](") && !config.contains("|---"),
        "{config}"
    );
}

#[test]
fn a_shell_completes_stacks_and_the_times_of_their_archives() {
    let place = Place::new();
    let config = place.config(json!(["web", "wiki", "db"]), json!({}));
    let dir = place.store().join("web");
    fs::create_dir_all(&dir).unwrap();
    for time in ["20261123_031500", "20261124_031500"] {
        fs::write(dir.join(format!("web_{time}.tar")), "").unwrap();
    }
    let complete = |words: &[&str]| -> Vec<String> {
        let mut shell = Command::new(PROGRAM);
        shell.args(["--", "docker-stack-backup"]).args(words);
        shell.env("COMPLETE", "bash").env("_CLAP_IFS", "\n");
        shell.env("_CLAP_COMPLETE_INDEX", words.len().to_string());
        shell.env("_CLAP_COMPLETE_COMP_TYPE", "9");
        shell.env("DOCKER_STACK_BACKUP_CONFIG", &config);
        let words = output(&mut shell).expect_status(0).stdout;
        words.lines().map(str::to_owned).collect()
    };
    assert_eq!(complete(&["run", "w"]), ["web", "wiki"]);
    assert_eq!(
        complete(&["restore", "web@"]),
        ["web@20261124_031500", "web@20261123_031500"]
    );
    assert_eq!(
        complete(&["verify", "web@20261123"]),
        ["web@20261123_031500"]
    );
    assert_eq!(complete(&["run", "x"]), [""; 0]);
    assert_eq!(complete(&["stat"]), ["status"]);
    // Bash itself takes `web@2026` for three words.
    let asked = r#"
        eval "$(docker-stack-backup completions bash)"
        COMP_LINE="docker-stack-backup restore $W" COMP_POINT=999 COMP_TYPE=9
        COMP_WORDS=(docker-stack-backup restore web @ 20261123) COMP_CWORD=4
        _docker_stack_backup docker-stack-backup 20261123 @
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    let here = Path::new(PROGRAM).parent().unwrap().display();
    let path = format!("{here}:{}", std::env::var("PATH").unwrap());
    bash.args(["-c", asked])
        .env("PATH", path)
        .env("W", "web@20261123");
    bash.env("DOCKER_STACK_BACKUP_CONFIG", &config);
    let answer = output(&mut bash).expect_status(0);
    assert_eq!(answer.stdout, "20261123_031500\n", "{}", answer.stderr);
    // The control: another configuration has other stacks.
    fs::write(place.path("other.json"), r#"{"stacks": ["wordpress"]}"#).unwrap();
    let other = place.path("other.json");
    assert_eq!(
        complete(&["--config", other.to_str().unwrap(), "run", "w"]),
        ["wordpress"]
    );
}

#[test]
fn help_has_the_commands_own_options_first_and_examples_that_work() {
    let help = output(&mut program(&["run", "--help"]))
        .expect_status(0)
        .stdout;
    let at = |what: &str| {
        help.find(what)
            .unwrap_or_else(|| panic!("no {what}: {help}"))
    };
    assert!(at("--keep-days") < at("Options of all commands:"), "{help}");
    assert!(at("Options of all commands:") < at("--config"), "{help}");
    let mut cli = Cli::command();
    cli.build();
    let mut count = 0;
    for command in cli.get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string);
        for line in help.iter().flat_map(|help| help.lines().skip(1)) {
            let line = line.split(['|', '>']).next().unwrap();
            let words = line.split_whitespace();
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn colour_is_for_terminals_and_on_demand() {
    let place = Place::new();
    place.config(json!([]), json!({"stateDir": "/proc/nowhere"}));
    let check = |variables: &[(&str, &str)]| {
        let mut check = place.program(&["check", "--live"]);
        for name in ["NO_COLOR", "CLICOLOR_FORCE"] {
            check.env_remove(name);
        }
        output(check.envs(variables.iter().copied())).stdout
    };
    let failed = "\x1b[31mFAILED\x1b[0m  stateDir: ";
    let forced = check(&[("CLICOLOR_FORCE", "1")]);
    assert!(forced.contains(failed), "{forced}");
    for plain in [
        &[][..],
        &[("CLICOLOR_FORCE", "0")],
        &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")],
    ] {
        let text = check(plain);
        assert!(
            !text.contains('\x1b') && text.contains("FAILED  stateDir: "),
            "{text}"
        );
    }
}

#[test]
fn a_report_before_the_first_run_says_so() {
    let place = Place::new();
    place.config(json!([]), json!({}));
    for args in [&["report"][..], &["report", "--json"]] {
        let ended = output(place.program(args).stdin(Stdio::null())).expect_status(1);
        assert!(
            ended.stderr.contains("there was no run yet"),
            "{}",
            ended.stderr
        );
    }
    let ended = output(&mut place.program(&["run"])).expect_status(1);
    assert!(
        ended.stderr.contains("nothing to back up"),
        "{}",
        ended.stderr
    );
}

#[test]
fn status_shows_what_it_can_of_a_damaged_state_directory() {
    let place = Place::new();
    place.config(json!(["web"]), json!({}));
    let status = || {
        let mut status = place.program(&["status"]);
        output(status.env("DOCKER_HOST", "unix:///nonexistent.sock"))
    };
    // The control.
    let ended = status().expect_status(2);
    assert!(
        ended.stdout.contains("web was never backed up"),
        "{}",
        ended.stdout
    );
    assert!(
        ended.stdout.contains("cannot ask the Engine"),
        "{}",
        ended.stdout
    );
    fs::create_dir_all(place.state().join("journal")).unwrap();
    for file in ["history", "last-run", "drills", "journal/web"] {
        fs::write(place.state().join(format!("{file}.json")), "{").unwrap();
    }
    let ended = status().expect_status(3);
    for part in [
        "DOWN",
        "recover --forget web",
        "cannot parse the history of runs",
        "cannot parse the last run",
        "cannot parse the drills",
    ] {
        assert!(ended.stdout.contains(part), "no {part} in {}", ended.stdout);
    }
    assert!(
        !ended.stdout.contains("never backed up"),
        "{}",
        ended.stdout
    );
    // The control: with the journal alone undamaged, it is not down.
    fs::remove_file(place.state().join("journal/web.json")).unwrap();
    status().expect_status(2);
}

#[test]
fn recover_needs_no_engine_when_there_is_nothing_to_recover() {
    let place = Place::new();
    place.config(json!(["web"]), json!({}));
    let mut recover = place.program(&["recover"]);
    let recover = recover.env("DOCKER_HOST", "unix:///nonexistent.sock");
    let ended = output(recover).expect_status(0);
    assert!(
        ended.stderr.contains("nothing to recover"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.stdout, "");
}

#[test]
fn recover_uses_what_can_be_read_of_a_broken_configuration() {
    let place = Place::new();
    place.config(json!([{"name": "web", "stopTimeot": 5}]), json!({}));
    let recover = || {
        let mut recover = place.program(&["recover"]);
        // There is nothing to start, so the broken configuration is all there is to say.
        output(recover.env("DOCKER_HOST", "unix:///nonexistent.sock")).expect_status(1)
    };
    let told = "`stacks[0].stopTimeot`: unknown field";
    let salvaged = format!("state directory path={}", place.state().display());
    let ended = recover();
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    // A directory that does not exist has nothing to recover, and is not made.
    assert!(!ended.stderr.contains(&salvaged), "{}", ended.stderr);
    assert!(!place.state().exists());
    fs::create_dir(place.state()).unwrap();
    let ended = recover();
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    assert!(ended.stderr.contains(&salvaged), "{}", ended.stderr);
}

#[test]
fn a_live_check_tries_every_place_that_a_run_writes_to() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    let live = |more: Value| {
        place.config(json!([]), more);
        // There may be no Engine, so its line is ignored.
        output(&mut place.program(&["check", "--live"])).stdout
    };
    let below = place.path("file/below");
    let text = live(json!({"stateDir": below, "logFile": below, "backupDir": below}));
    let failed = |what: &str| text.contains(&format!("FAILED  {what}: "));
    for what in ["stateDir", "logFile", "backupDir"] {
        assert!(failed(what), "{what}: {text}");
    }
    // The control: good places are accepted, and nothing is left behind in them.
    let text = live(json!({}));
    for what in ["stateDir", "logFile", "backupDir"] {
        assert!(text.contains(&format!("ok      {what}: ")), "{text}");
    }
    assert!(!place.state().exists() && !place.path("log").exists());
    fs::write(place.path("log"), "a line\n").unwrap();
    assert!(live(json!({})).contains("ok      logFile: "));
    assert_eq!(fs::read_to_string(place.path("log")).unwrap(), "a line\n");
}

#[test]
fn an_invalid_time_picks_no_archive() {
    let place = Place::new();
    place.config(json!(["web"]), json!({}));
    fs::create_dir_all(place.store().join("web")).unwrap();
    let refused = |what: &str, said: &str| {
        let ended = output(&mut place.program(&["restore", what, "--yes"])).expect_status(1);
        assert!(ended.stderr.contains(said), "{what}: {}", ended.stderr);
    };
    for time in ["yesterday", "latest", "-", "2026-11-24x"] {
        refused(
            &format!("web@{time}"),
            "is not a time: give its first digits",
        );
    }
    for what in ["web", "web@2026-11-24T03", "web@20261124_0315"] {
        refused(what, "there is no archive of a stack web");
    }
}

#[test]
fn the_package_holds_all_that_the_program_is_built_from() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut package = Command::new(env!("CARGO"));
    package.args([
        "package",
        "--list",
        "--allow-dirty",
        "--offline",
        "--manifest-path",
    ]);
    let listed = output(package.arg(root.join("Cargo.toml")))
        .expect_status(0)
        .stdout;
    let listed: Vec<&str> = listed.lines().collect();
    let sources = walkdir::WalkDir::new(root.join("src")).into_iter();
    let sources = sources.map(|entry| entry.unwrap().into_path());
    let sources: Vec<_> = sources.filter(|path| path.is_file()).collect();
    assert!(sources.len() > 300);
    for source in sources {
        let name = source.strip_prefix(root).unwrap().to_str().unwrap();
        assert!(listed.contains(&name), "{name} is not in the package");
    }
    for name in ["Cargo.lock", "LICENSE", "README.md", "docs/restore.md"] {
        assert!(listed.contains(&name), "{name} is not in the package");
    }
    // A link that leads nowhere cannot be packaged.
    let made = ["Cargo.toml.orig", ".cargo_vcs_info.json"];
    for name in listed.iter().filter(|name| !made.contains(name)) {
        assert!(root.join(name).is_file(), "{name} cannot be packaged");
    }
}
