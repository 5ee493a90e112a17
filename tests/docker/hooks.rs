//! Hooks: their places, what their failures do, and what takes back their effect.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::hooks::{flag_hook, host_hook, with_hooks};
use crate::common::scene::{Scene, start_times};
use crate::common::{Background, docker, output, wait_until};

/// A hook on the host that adds a line to `log`.
fn logged(place: &str, log: &Path) -> Value {
    let containers = "$(docker ps -q --filter \
                      label=com.docker.compose.project=$DOCKER_STACK_BACKUP_PROJECT | wc -l)";
    let script = format!(
        "echo $DOCKER_STACK_BACKUP_PHASE running={containers} \
         ${{DOCKER_STACK_BACKUP_ARCHIVE:+archive }}$DOCKER_STACK_BACKUP_STATUS >>{log}; echo said",
        log = log.display()
    );
    let undo = format!("echo undo of {place} >>{}", log.display());
    let mut hook = host_hook(place, &script, Some(&undo));
    hook["environment"] = json!({"DOCKER_HOST": std::env::var("DOCKER_HOST").unwrap_or_default()});
    if place == "finally" {
        hook.as_object_mut().unwrap().remove("undo");
    }
    hook
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn hooks_run_at_their_places_and_are_undone_in_reverse_order() {
    let scene = Scene::new("stop", 0);
    let log = scene.place.path("hooks.log");
    let key = scene.place.path("key");
    fs::write(&key, "s3cret-of-a-hook\n").unwrap();
    let script = "id -u; echo key $KEY; echo $DOCKER_STACK_BACKUP_STACK $MODE $KEY >/data/dump";
    let dump = json!({
        "when": "beforeCopy", "service": "app", "user": "1234",
        "command": ["sh", "-c", script], "undo": ["sh", "-c", "echo key $KEY"],
        "environment": {"MODE": "fast"}, "secrets": {"KEY": key},
    });
    let data = scene.stack.dir.join("data");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    let places = [
        "beforeCopy",
        "beforeStop",
        "whileDown",
        "afterStart",
        "afterArchive",
        "finally",
    ];
    let hooks = places.iter().map(|place| logged(place, &log));
    with_hooks(&scene, hooks.chain([dump]).collect());
    let plan = output(&mut scene.place.program(&["plan"])).expect_status(0);
    assert!(
        plan.stdout.contains("hook      whileDown host: sh -c"),
        "{}",
        plan.stdout
    );

    let json = scene.place.run().expect_status(0).json();
    assert_eq!(
        lines(&log),
        [
            "beforeCopy running=2",
            "beforeStop running=2",
            "whileDown running=0",
            "undo of whileDown",
            "undo of beforeStop",
            "undo of beforeCopy",
            "afterStart running=2",
            "afterArchive running=2 archive",
            "undo of afterArchive",
            "undo of afterStart",
            "finally running=2 archive ok",
        ]
    );
    scene.assert_recovered("after hooks");
    let hooks = scene.stack.outcome(&json)["hooks"].as_array().unwrap();
    assert_eq!(hooks.len(), 13, "{hooks:#?}");
    assert_eq!(hooks[1]["output"], json!(["1234", "key ***"]));
    // The value is in no file of the program, and neither printed nor logged.
    let state = fs::read_to_string(scene.place.state().join("last-run.json")).unwrap();
    let log_file = fs::read_to_string(scene.place.path("log")).unwrap();
    assert!(log_file.contains("key ***") && state.contains("key ***"));
    for text in [state, log_file, json.to_string()] {
        assert!(!text.contains("s3cret-of-a-hook"), "{text}");
    }
    assert!(hooks.iter().all(|hook| hook["error"] == Value::Null));
    let report = output(&mut scene.place.program(&["report"])).expect_status(0);
    for expected in ["HOOKS", "beforeCopy app: sh -c", ": ok, ", "      said"] {
        assert!(
            report.stdout.contains(expected),
            "{expected}: {}",
            report.stdout
        );
    }
    // What a hook writes before the copy is in the archive, and so is what undoes others.
    let archive = scene.place.archive(&scene.stack.name);
    let extracted = scene.place.extract(&archive);
    let text = fs::read_to_string(extracted.join(&scene.stack.name).join("data/dump")).unwrap();
    // The control: the command had the secret.
    let expected = format!("{} fast s3cret-of-a-hook\n", scene.stack.name);
    assert_eq!(text, expected);
    let manifest = fs::read(extracted.join(format!("{}.manifest.json", scene.stack.name)));
    let manifest: Value = serde_json::from_slice(&manifest.unwrap()).unwrap();
    assert_eq!(manifest["undos"].as_array().unwrap().len(), 4);
    let preview = output(&mut scene.place.program(&["restore", &scene.stack.name]));
    assert!((preview.stdout + &preview.stderr).contains("while hooks were in effect"),);

    // A stack that is down is neither stopped nor started.
    output(&mut scene.stack.compose(&["stop"])).expect_status(0);
    fs::remove_file(&log).unwrap();
    let hooks = places.iter().map(|place| logged(place, &log));
    with_hooks(&scene, hooks.collect());
    scene.place.run().expect_status(0);
    let seen = lines(&log);
    let ran: Vec<&str> = seen
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let expected = [
        "beforeCopy",
        "whileDown",
        "undo",
        "undo",
        "afterArchive",
        "undo",
        "finally",
    ];
    assert_eq!(ran, expected);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_hook_that_fails_does_what_its_setting_says() {
    let scene = Scene::new("stop", 0);
    let name = &scene.stack.name;
    let log = scene.place.path("hooks.log");
    let note = |what: &str| format!("echo {what} >>{}", log.display());
    let run = |place: &str, on_error: &str| {
        let mut failing = host_hook(place, "echo out of order; exit 7", Some(&note("undone")));
        failing["onError"] = on_error.into();
        if place == "finally" {
            failing.as_object_mut().unwrap().remove("undo");
        }
        let hooks = vec![
            host_hook("beforeCopy", "true", Some(&note("first undone"))),
            failing,
            host_hook(place, &note("next"), None),
            host_hook("finally", &note("last"), None),
        ];
        with_hooks(&scene, hooks);
        let _ = fs::remove_file(&log);
        let _ = fs::remove_dir_all(scene.place.store().join(name));
        let times = start_times(&scene.stack);
        let ended = scene.place.run();
        let was_stopped = start_times(&scene.stack) != times;
        scene.assert_recovered(place);
        let outcome = scene.stack.outcome(&ended.json()).clone();
        let has_archive = outcome["archive"] != Value::Null;
        (ended.status, was_stopped, has_archive, lines(&log), outcome)
    };
    let undone = ["undone", "first undone"];
    for (place, was_stopped, has_archive, expected) in [
        (
            "beforeCopy",
            false,
            false,
            [&undone[..], &["last"]].concat(),
        ),
        (
            "beforeStop",
            false,
            false,
            [&undone[..], &["last"]].concat(),
        ),
        ("whileDown", true, false, [&undone[..], &["last"]].concat()),
        (
            "afterStart",
            true,
            true,
            vec!["first undone", "undone", "last"],
        ),
        (
            "afterArchive",
            true,
            true,
            vec!["first undone", "undone", "last"],
        ),
        ("finally", true, true, vec!["first undone", "next", "last"]),
    ] {
        let (status, stopped, archived, log, outcome) = run(place, "fail");
        assert_eq!(status, 2, "{place}: {outcome:#}");
        assert_eq!(outcome["status"], "failed", "{place}");
        assert_eq!((stopped, archived), (was_stopped, has_archive), "{place}");
        assert_eq!(log, expected, "{place}");
        let message = outcome["failures"][0]["message"].as_str().unwrap();
        assert!(message.contains("exit status 7: out of order"), "{message}");
        assert_eq!(
            outcome["failures"].as_array().unwrap().len(),
            1,
            "{outcome:#}"
        );
    }
    for place in ["beforeCopy", "whileDown", "afterArchive", "finally"] {
        let (status, stopped, archived, log, outcome) = run(place, "warn");
        assert_eq!(status, 0, "{place}: {outcome:#}");
        assert!(stopped && archived, "{place}");
        assert!(log.contains(&"next".to_owned()), "{place}: {log:?}");
        let warnings = outcome["warnings"].to_string();
        assert!(
            warnings.contains("exit status 7: out of order"),
            "{warnings}"
        );
    }

    // A service that does not run; a program that does not exist; no such service.
    let in_service = |service: &str, program: &str| {
        let hook = json!({"when": "beforeCopy", "service": service, "command": [program]});
        with_hooks(&scene, vec![hook]);
        let times = start_times(&scene.stack);
        let ended = scene.place.run().expect_status(2).json();
        assert_eq!(start_times(&scene.stack), times);
        scene.stack.outcome(&ended)["failures"].to_string()
    };
    let said = in_service("migrate", "true");
    assert!(said.contains("service migrate of project"), "{said}");
    let said = in_service("app", "/no/such/program");
    assert!(said.contains("/no/such/program"), "{said}");
    let said = in_service("nothing", "true");
    assert!(
        said.contains("has no service `nothing` (there are: app, db, migrate)"),
        "{said}"
    );
    let check = output(&mut scene.place.program(&["check", "--live"])).expect_status(1);
    assert!(
        check.stdout.contains("has no service `nothing`"),
        "{}",
        check.stdout
    );
    let plan = output(&mut scene.place.program(&["plan"])).expect_status(2);
    assert!(
        plan.stderr.contains("has no service `nothing`"),
        "{}",
        plan.stderr
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_hook_runs_in_no_container_whose_image_imitates_compose() {
    let scene = Scene::new("stop", 0);
    let hook = json!({
        "when": "beforeStop", "service": "app", "command": ["sh", "-c", "echo it ran"],
    });
    with_hooks(&scene, vec![hook]);
    // The control: it runs in the service's container.
    scene.place.run().expect_status(0);
    // A container that no Compose made, with the labels of the one that it replaces.
    let own = scene.stack.container("app");
    let image = format!("{}-imitation", scene.stack.name);
    docker(["commit", "--pause=false", &own, &image]);
    docker(["rm", "--force", &own]);
    docker(["run", "--detach", "--name", &image, &image]);
    let json = scene.place.run().json();
    docker(["rm", "--force", &image]);
    docker(["image", "rm", &image]);
    let stack = scene.stack.outcome(&json);
    let told = stack.to_string();
    assert!(
        told.contains("was not made by Compose for service app"),
        "{stack:#}"
    );
    assert_eq!(stack["hooks"][0]["output"], json!([]), "{stack:#}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_hook_that_takes_too_long_is_killed() {
    let scene = Scene::new("stop", 0);
    let in_app = |script: &str| scene.stack.exec("app", &["sh", "-c", script]);
    let count = "ps | grep -c '[s]leep 3[0-9][0-9]' || true";
    let slow = json!({
        "when": "beforeCopy", "service": "app", "timeout": 1,
        "command": ["sh", "-c", "echo begun; sleep 301 & sleep 302"],
    });
    with_hooks(&scene, vec![slow.clone()]);
    let json = scene.place.run().expect_status(2).json();
    let said = scene.stack.outcome(&json)["failures"].to_string();
    assert!(
        said.contains("still running after 1 s, killed: begun"),
        "{said}"
    );
    wait_until("the hook's processes have ended", || in_app(count) == "0");
    // The control: what is not killed is seen.
    in_app("sleep 303 >/dev/null 2>&1 &");
    assert_eq!(in_app(count), "1");
    in_app("kill $(ps | grep '[s]leep 303' | awk '{print $1}')");

    let mut hangs = host_hook("whileDown", "sleep 301 & sleep 302", None);
    hangs["timeout"] = 1.into();
    with_hooks(&scene, vec![hangs]);
    let began = Instant::now();
    let json = scene.place.run().expect_status(2).json();
    assert!(began.elapsed() < Duration::from_secs(60));
    let outcome = scene.stack.outcome(&json);
    assert!(
        outcome["downtimeMs"].as_u64().unwrap() < 30_000,
        "{outcome:#}"
    );
    assert_eq!(outcome["archive"], Value::Null);
    scene.assert_recovered("a hook that hangs while the stack is down");

    // One that has time left counts as progress, wherever it runs.
    let in_time = json!({"when": "beforeCopy", "service": "app", "command": ["sleep", "8"]});
    let hooks = [in_time, host_hook("whileDown", "sleep 8", None)];
    let mut stack = json!({"name": scene.stack.name, "downLimit": 6, "stallLimit": 6});
    stack["hooks"] = hooks.into();
    stack["hooks"][1]["timeout"] = 60.into();
    scene.place.config(json!([stack]), json!({}));
    scene.place.run().expect_status(0);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn hooks_are_undone_after_a_signal_a_failure_and_the_death_of_the_worker() {
    let scene = Scene::new("stop", 0);
    let flag = scene.stack.dir.join("data/flag");
    let waiting = |place: &str, service: bool| {
        let waits = match service {
            true => json!({
                "when": place, "service": "app", "command": ["sh", "-c", "touch /data/waits; sleep 300"],
                "undo": ["rm", "-f", "/data/waits"],
            }),
            false => {
                let waits = scene.stack.dir.join("data/waits").display().to_string();
                host_hook(
                    place,
                    &format!("touch {waits}; sleep 300"),
                    Some(&format!("rm -f {waits}")),
                )
            }
        };
        with_hooks(&scene, vec![flag_hook("beforeCopy"), waits]);
        let run = Background::spawn(&mut scene.place.program(&["run", "--json"]));
        wait_until("the hook runs", || {
            scene.stack.dir.join("data/waits").exists()
        });
        // The control: the other hook is in effect, unless the stack is up again.
        assert_eq!(flag.exists(), place != "afterStart");
        run
    };
    let assert_undone = |what: &str| {
        assert!(!flag.exists(), "{what}");
        assert!(!scene.stack.dir.join("data/waits").exists(), "{what}");
        scene.assert_recovered(what);
    };
    for (place, service) in [
        ("beforeCopy", true),
        ("whileDown", false),
        ("afterStart", true),
    ] {
        let run = waiting(place, service);
        let began = Instant::now();
        kill(Pid::from_raw(run.pid()), Signal::SIGTERM).unwrap();
        let ended = run.end().expect_status(2);
        assert!(began.elapsed() < Duration::from_secs(90));
        assert_eq!(ended.json()["interrupted"], "SIGTERM");
        assert_undone(&format!("SIGTERM in {place}"));
    }
    for (place, service) in [("beforeCopy", true), ("whileDown", false)] {
        let run = waiting(place, service);
        kill(Pid::from_raw(run.worker().unwrap()), Signal::SIGKILL).unwrap();
        let json = run.end().expect_status(2).json();
        let said = scene.stack.outcome(&json)["failures"].to_string();
        assert!(said.contains("has ended"), "{said}");
        assert_eq!(scene.stack.outcome(&json)["status"], "failed");
        assert_undone(&format!("the worker was killed in {place}"));
    }
    // The data is in use while the stack is down.
    with_hooks(&scene, vec![flag_hook("beforeStop")]);
    let writer = fs::OpenOptions::new()
        .append(true)
        .open(scene.stack.dir.join("bulk"))
        .unwrap();
    let json = scene.place.run().expect_status(2).json();
    let said = scene.stack.outcome(&json)["failures"].to_string();
    assert!(said.contains("in use"), "{said}");
    assert_undone("the data was in use");
    drop(writer);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn what_cannot_be_undone_is_told_until_it_is() {
    let scene = Scene::new("stop", 0);
    let name = &scene.stack.name;
    let fixed = scene.stack.dir.join("data/fixed");
    let hook = json!({
        "when": "beforeStop", "service": "app", "command": ["touch", "/data/flag"],
        "undo": ["sh", "-c", "echo not yet; test -e /data/fixed && rm /data/flag"],
    });
    with_hooks(&scene, vec![hook]);
    let ended = scene.place.run().expect_status(3);
    let json = ended.json();
    let outcome = scene.stack.outcome(&json);
    assert_eq!(outcome["status"], "failed", "{outcome:#}");
    assert_ne!(outcome["archive"], Value::Null);
    assert_eq!(outcome["notUndone"].as_array().unwrap().len(), 1);
    let said = outcome["failures"].to_string();
    for expected in [
        "exit status 1: not yet",
        "docker compose -p",
        " exec app sh -c",
        "docker-stack-backup recover",
        "recover --forget",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(scene.running(), scene.states);
    // It stays in the journal, and everybody says so.
    let told = format!("{name}: the effect of a hook is not taken back");
    for command in [&["plan"][..], &["report"], &["list"], &["check", "--live"]] {
        let ended = output(&mut scene.place.program(command));
        let said = ended.stdout + &ended.stderr;
        assert!(said.contains(&told), "{command:?}: {said}");
        assert!(!said.contains("IS DOWN ("), "{command:?}: {said}");
    }
    let restore = ["restore", name, "--yes", "--allow-reachable"];
    let ended = output(&mut scene.place.program(&restore)).expect_status(1);
    assert!(
        ended.stderr.contains("did not undo a hook"),
        "{}",
        ended.stderr
    );
    // `recover` tries again; a run does so first, and backs nothing up otherwise.
    let times = start_times(&scene.stack);
    let json = output(&mut scene.place.program(&["recover", "--json"]))
        .expect_status(3)
        .json();
    assert_eq!(json["recovered"][0]["error"], Value::Null);
    assert_eq!(json["recovered"][0]["services"], json!([]));
    let json = scene.place.run().expect_status(3).json();
    let said = scene.stack.outcome(&json)["failures"].to_string();
    assert!(
        said.contains("the hook of an earlier run is in effect"),
        "{said}"
    );
    assert_eq!(start_times(&scene.stack), times, "the stack was left alone");
    let report = output(&mut scene.place.program(&["report"])).stdout;
    assert!(
        report.contains(&format!("a hook of {name} is not")),
        "{report}"
    );

    fs::write(&fixed, "").unwrap();
    let json = output(&mut scene.place.program(&["recover", "--json"]))
        .expect_status(0)
        .json();
    let undone = json["recovered"][0]["undone"].to_string();
    assert!(undone.contains("app: sh -c"), "{undone}");
    let report = output(&mut scene.place.program(&["report"])).stdout;
    assert!(report.contains("UNDONE"), "{report}");
    assert!(!scene.stack.dir.join("data/flag").exists());
    scene.assert_recovered("undone by recover");
    scene.place.run().expect_status(0);
    // What nobody can undo is given up.
    fs::remove_file(&fixed).unwrap();
    scene.place.run().expect_status(3);
    output(&mut scene.place.program(&["recover", "--forget", name])).expect_status(0);
    output(&mut scene.place.program(&["recover"])).expect_status(0);
    scene.assert_recovered("forgotten");
}
