//! Stops, archives and starts one stack after another, on a real Engine.

use std::fs;

use crate::common::scene::start_times;
use crate::common::{Place, Stack, docker, output, succeed, wait_until};
use serde_json::{Value, json};

fn phase_ms(outcome: &Value, phase: &str) -> u64 {
    let phases = outcome["phases"].as_array().unwrap();
    phases.iter().find(|p| p["phase"] == phase).unwrap()["durationMs"]
        .as_u64()
        .unwrap()
}

fn failures(outcome: &Value) -> String {
    outcome["failures"].to_string()
}

fn position(calls: &[String], call: &str) -> usize {
    calls
        .iter()
        .position(|c| c == call)
        .unwrap_or_else(|| panic!("no call {call} in {calls:#?}"))
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn the_first_stack_is_up_and_healthy_before_the_second_is_stopped() {
    let place = Place::new();
    let (slow, web) = (place.stack("slow-health"), place.stack("web"));
    slow.up();
    web.up();
    place.config(json!([slow.name, web.name]), json!({}));
    // Each stop first records the state of all containers.
    let states = place.path("states");
    let spy = place.spy(&format!(
        "if [ \"$1\" = stop ]; then docker ps --format '{{{{.Names}}}} {{{{.Status}}}}' \
         >>'{0}'; echo -- >>'{0}'; fi",
        states.display()
    ));
    let ended = output(spy.watch(&mut place.program(&["run", "--json"]))).expect_status(0);
    let states = fs::read_to_string(states).unwrap();
    let mut at_stop = states.split("--\n");
    let healthy = |states: &str, name: &str| {
        let line = states
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.contains("(healthy)")
    };
    let first = at_stop.next().unwrap();
    assert!(
        healthy(first, &slow.name) && healthy(first, &web.name),
        "{first}"
    );
    let second = at_stop.next().unwrap();
    assert!(
        healthy(second, &slow.name) && healthy(second, &web.name),
        "{second}"
    );
    // The control: the health check did take its time.
    let json = ended.json();
    assert!(phase_ms(slow.outcome(&json), "start") >= 5000);
    let ms = |field: &str| slow.outcome(&json)[field].as_u64().unwrap();
    assert!(ms("healthyMs") >= 5000);
    // The container runs long before it is healthy.
    assert!(ms("downtimeMs") + 2000 < ms("healthyMs"), "{json}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn dependants_stop_first_and_start_last() {
    let place = Place::new();
    let chain = place.stack("chain");
    chain.up();
    let before = chain.ids();
    place.config(json!([chain.name]), json!({}));
    let spy = place.spy("");
    output(spy.watch(&mut place.program(&["run"]))).expect_status(0);
    let calls = spy.calls();
    let id = |service| docker(["inspect", "--format", "{{.Id}}", &chain.container(service)]);
    let (db, api, front, sidecar) = (id("db"), id("api"), id("front"), id("sidecar"));
    let stops: Vec<&String> = calls
        .iter()
        .filter(|call| call.starts_with("stop "))
        .collect();
    assert_eq!(stops.len(), 4, "{calls:#?}");
    let first = format!("{} {}", stops[0], stops[1]);
    assert!(
        first.contains(&front) && first.contains(&sidecar),
        "{stops:?}"
    );
    assert!(stops[2].contains(&api), "{stops:?}");
    assert!(stops[3].contains(&db), "{stops:?}");
    let start = |id: &str| position(&calls, &format!("start {id}"));
    assert!(start(&db) < start(&api));
    assert!(start(&api) < start(&front) && start(&api) < start(&sidecar));
    assert_eq!(chain.ids(), before, "the same containers, not new ones");
    // The containers' own log shows that api started after db was ready.
    let log = chain.read("log/order");
    let order: Vec<&str> = log.lines().collect();
    assert_eq!(order[..2], ["db", "api"]);
    assert_eq!(order[4..6], ["db", "api"]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_one_shot_service_that_had_exited_is_not_run_again() {
    let place = Place::new();
    let stack = place.stack("migrate");
    stack.up_with(&[]);
    let runs = || stack.read("data/migrations.log").lines().count();
    assert_eq!(runs(), 1);
    for method in ["stop", "down"] {
        place.config(
            json!([{"name": stack.name, "stopMethod": method}]),
            json!({}),
        );
        place.run().expect_status(0);
        assert_eq!(runs(), 1, "with {method}");
        let app = stack
            .states()
            .into_iter()
            .find(|state| state.starts_with("app:"));
        assert_eq!(app.as_deref(), Some("app:running"), "with {method}");
    }
    // The control: `up`, which this program does not call, runs it again.
    output(&mut stack.compose(&["up", "--detach"])).expect_status(0);
    wait_until("the migration runs again", || runs() == 2);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_that_is_down_is_archived_and_stays_down() {
    let place = Place::new();
    let (stopped, never) = (place.stack("redis"), place.stack("web"));
    stopped.up();
    stopped.exec("cache", &["redis-cli", "set", "key", "kept"]);
    output(&mut stopped.compose(&["stop"])).expect_status(0);
    place.config(json!([stopped.name, never.name]), json!({}));
    let json = place.run().expect_status(0).json();
    assert_eq!(stopped.states(), ["cache:exited"]);
    assert_eq!(never.states(), [""; 0]);
    assert_eq!(stopped.outcome(&json)["downtimeMs"], Value::Null);
    let extracted = place.extract(&place.archive(&stopped.name));
    let volume = extracted.join(format!("{0}.volumes/{0}_data", stopped.name));
    let log = fs::read_dir(volume.join("appendonlydir"))
        .unwrap()
        .map(|file| String::from_utf8_lossy(&fs::read(file.unwrap().path()).unwrap()).into_owned());
    assert!(log.collect::<String>().contains("kept"));
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn the_same_containers_run_again_with_profiles_and_replicas() {
    let place = Place::new();
    let stack = place.stack("profiles");
    stack.up_with(&["--profile", "extra"]);
    docker(["stop", &format!("{}-worker-2", stack.project)]);
    let before = (stack.ids(), stack.states());
    assert_eq!(
        before
            .1
            .iter()
            .filter(|state| **state == "worker:running")
            .count(),
        2
    );
    place.config(json!([stack.name]), json!({}));
    let json = place.run().expect_status(0).json();
    assert_eq!((stack.ids(), stack.states()), before);
    assert_eq!(
        stack.outcome(&json)["services"],
        json!(["always", "extra", "worker"])
    );
    // `down` makes new containers, as many as ran.
    place.config(
        json!([{"name": stack.name, "stopMethod": "down"}]),
        json!({}),
    );
    place.run().expect_status(0);
    let expected = [
        "always:running",
        "extra:running",
        "worker:running",
        "worker:running",
    ];
    assert_eq!(stack.states(), expected);
    assert_ne!(stack.ids(), before.0);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_paused_container_is_paused_again() {
    let place = Place::new();
    let stack = place.stack("paused");
    stack.up();
    output(&mut stack.compose(&["pause"])).expect_status(0);
    assert_eq!(stack.states(), ["app:paused"]);
    place.config(json!([stack.name]), json!({}));
    let json = place.run().expect_status(0).json();
    assert!(stack.outcome(&json)["downtimeMs"].as_u64().is_some());
    assert_eq!(stack.states(), ["app:paused"]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_container_in_a_restart_loop_does_not_hold_up_the_others() {
    let place = Place::new();
    let stack = place.stack("restarting");
    output(&mut stack.compose(&["up", "--detach"])).expect_status(0);
    wait_until("the loop is in a pause", || {
        stack.states().contains(&"crashing:restarting".to_owned())
    });
    place.config(json!([stack.name]), json!({}));
    let json = place.run().expect_status(0).json();
    assert_eq!(stack.outcome(&json)["services"], json!(["app", "crashing"]));
    assert!(stack.states().contains(&"app:running".to_owned()));
    assert!(
        !stack.states().contains(&"crashing:exited".to_owned()),
        "it loops again"
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_container_that_does_not_stop_in_time_is_killed_and_the_report_warns() {
    let place = Place::new();
    let stack = place.stack("stubborn");
    stack.up();
    place.config(json!([{"name": stack.name, "stopTimeout": 1}]), json!({}));
    let json = place.run().expect_status(0).json();
    let warnings = stack.outcome(&json)["warnings"].to_string();
    assert!(
        warnings.contains("did not end within 1 s of its stop signal and was killed"),
        "{warnings}"
    );
    assert_eq!(stack.states(), ["app:running"]);
    let stop_ms = phase_ms(stack.outcome(&json), "stop");
    assert!(
        (1000..2900).contains(&stop_ms),
        "1 s as configured, not its own 3 s: {stop_ms} ms"
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_that_stays_unhealthy_is_reported_down_and_recover_tries_again() {
    let place = Place::new();
    let stack = place.stack("slow-health");
    stack.up();
    place.config(json!([{"name": stack.name, "startTimeout": 1}]), json!({}));
    let json = place.run().expect_status(3).json();
    let outcome = stack.outcome(&json);
    assert_eq!(outcome["status"], "down");
    assert!(
        failures(outcome).contains("is not healthy (starting) after 1 s"),
        "{outcome}"
    );
    // The archive was still made.
    assert!(outcome["archive"]["path"].is_string());
    place.archive(&stack.name);
    assert_eq!(place.journalled(), [format!("{}.json", stack.name)]);
    wait_until("the stack is healthy", || {
        output(&mut place.program(&["recover"])).status == 0
    });
    assert!(place.journalled().is_empty());
    output(&mut place.program(&["recover"])).expect_status(0);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_container_that_exits_soon_after_its_start_is_reported_and_stays_in_the_journal() {
    let place = Place::new();
    let stack = place.stack("paused");
    // Its second start fails, but not at once.
    let command = "sh -c '[ -e /log/ran ] && sleep 0.5 && exit 1; touch /log/ran; sleep infinity'";
    let compose = stack.dir.join("compose.yaml");
    let text = fs::read_to_string(&compose).unwrap();
    let text = text.replace("sleep infinity", command) + "    volumes: ['./log:/log']\n";
    fs::write(&compose, text).unwrap();
    stack.up();
    place.config(json!([stack.name]), json!({}));
    let json = place.run().expect_status(3).json();
    let outcome = stack.outcome(&json);
    assert_eq!(outcome["status"], "down");
    let told = "app-1 started, but ended soon after with exit status 1";
    assert!(failures(outcome).contains(told), "{outcome}");
    assert_eq!(place.journalled(), [format!("{}.json", stack.name)]);
    // The archive was still made.
    place.archive(&stack.name);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_container_that_cannot_be_started_is_named_with_the_reason() {
    let place = Place::new();
    let (stack, web) = (place.stack("chain"), place.stack("web"));
    stack.up();
    web.up();
    place.config(json!([stack.name, web.name]), json!({}));
    // While the stack is stopped, the container of api and the compose file are
    // removed.
    let spy = place.spy(&format!(
        "case \"$*\" in start*) docker rename {0}-api-1 {0}-api-gone 2>/dev/null; \
         docker rm -f {0}-api-gone >/dev/null 2>&1; mv '{1}/compose.yaml' '{1}/gone' 2>/dev/null;; esac",
        stack.project,
        stack.dir.display()
    ));
    let ended = output(spy.watch(&mut place.program(&["run", "--json"]))).expect_status(3);
    let json = ended.json();
    let outcome = stack.outcome(&json);
    assert_eq!(outcome["status"], "down");
    assert!(
        failures(outcome).contains("api-1 has no container"),
        "{}",
        failures(outcome)
    );
    assert!(
        failures(outcome).contains("no configuration file"),
        "{}",
        failures(outcome)
    );
    // All other containers run: front does not share a namespace with api.
    let states = stack.states();
    assert!(states.contains(&"db:running".to_owned()), "{states:?}");
    assert!(states.contains(&"front:running".to_owned()), "{states:?}");
    // The next stack is still backed up.
    assert_eq!(web.outcome(&json)["status"], "ok");
    // The next run still knows which containers ran, and reports the error.
    let json = place.run().expect_status(3).json();
    assert!(failures(stack.outcome(&json)).contains("left stopped by an earlier run"));
    fs::rename(stack.dir.join("gone"), stack.dir.join("compose.yaml")).unwrap();
    let json = place.run().expect_status(0).json();
    assert_eq!(json["recovered"][0]["error"], Value::Null);
    assert_eq!(
        stack
            .states()
            .iter()
            .filter(|state| state.ends_with(":running"))
            .count(),
        4
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_with_a_broken_compose_file_is_still_backed_up() {
    let place = Place::new();
    let stack = place.stack("broken");
    stack.up();
    fs::copy(
        stack.dir.join("compose.broken.yaml"),
        stack.dir.join("compose.yaml"),
    )
    .unwrap();
    for method in ["stop", "down"] {
        place.config(
            json!([{"name": stack.name, "stopMethod": method}]),
            json!({}),
        );
        let json = place.run().expect_status(0).json();
        let outcome = stack.outcome(&json);
        assert!(outcome["downtimeMs"].as_u64().is_some());
        assert!(
            outcome["warnings"]
                .to_string()
                .contains("cannot read the compose file")
        );
        assert_eq!(stack.states(), ["app:running"]);
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_directory_that_holds_no_file_is_no_stack_that_was_started_from_it() {
    let place = Place::new();
    let stack = place.stack("broken");
    stack.up();
    place.config(json!([stack.name]), json!({}));
    // The disk is not mounted at boot, and the Engine makes what containers mount.
    let away = place.path("away");
    fs::rename(&stack.dir, &away).unwrap();
    fs::create_dir_all(stack.dir.join("data")).unwrap();
    let ids = stack.ids();
    let json = place.run().expect_status(2).json();
    let failed = failures(stack.outcome(&json));
    assert!(failed.contains("holds no file"), "{failed}");
    assert!(failed.contains("may not be mounted"), "{failed}");
    assert_eq!(place.stored(&stack.name), [""; 0]);
    // Nothing was stopped.
    assert_eq!(stack.outcome(&json)["downtimeMs"], Value::Null);
    assert_eq!(stack.ids(), ids);
    // The control: with any file, it is known by its containers.
    fs::write(stack.dir.join("notes"), "").unwrap();
    place.run().expect_status(0);
    fs::remove_dir_all(&stack.dir).unwrap();
    fs::rename(&away, &stack.dir).unwrap();
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn the_project_name_comes_from_compose_and_the_containers() {
    let place = Place::new();
    // `name:` in the file, and a container_name.
    let mut named = place.stack("named");
    named.project = format!("{}-other", named.name);
    fs::write(
        named.dir.join(".env"),
        format!("STACK_NAME={}\n", named.project),
    )
    .unwrap();
    named.up();
    // `-p` on the command line that started it.
    let mut other = place.stack("redis");
    other.project = format!("{}-p", other.name);
    other.up();
    place.config(json!([named.name, other.name]), json!({}));
    let json = place.run().expect_status(0).json();
    for stack in [&named, &other] {
        assert_eq!(stack.outcome(&json)["project"], stack.project.as_str());
        assert!(stack.outcome(&json)["downtimeMs"].as_u64().is_some());
        assert!(stack.states()[0].ends_with(":running"));
    }
    let members = succeed("tar", ["-tf", place.archive(&other.name).to_str().unwrap()]);
    assert!(
        members.contains(&format!("{}.volumes/{}_data/", other.name, other.project)),
        "{members}"
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn another_project_of_the_same_name_is_not_stopped() {
    let (here, there) = (Place::new(), Place::new());
    let stack = here.stack("paused");
    let mut stranger = there.stack("paused");
    stranger.project = stack.name.clone();
    stranger.up();
    let before = stranger.ids();
    here.config(json!([stack.name]), json!({}));
    let spy = here.spy("");
    let json = output(spy.watch(&mut here.program(&["run", "--json"])))
        .expect_status(2)
        .json();
    assert!(
        failures(stack.outcome(&json)).contains("set `project`"),
        "{json}"
    );
    assert!(
        !spy.calls().iter().any(|call| call.starts_with("stop")),
        "{:?}",
        spy.calls()
    );
    assert_eq!(stranger.ids(), before);
    // The control: with the project configured explicitly, it is stopped.
    here.config(
        json!([{"name": stack.name, "project": stack.name}]),
        json!({}),
    );
    output(spy.watch(&mut here.program(&["run", "--json"]))).expect_status(0);
    assert!(spy.calls().iter().any(|call| call.starts_with("stop")));
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_taken_down_comes_up_again() {
    let place = Place::new();
    let chain = place.stack("chain");
    chain.up();
    let before = chain.ids();
    place.config(
        json!([{"name": chain.name, "stopMethod": "down"}]),
        json!({}),
    );
    place.run().expect_status(0);
    assert_eq!(chain.states().len(), 4);
    assert!(
        chain
            .states()
            .iter()
            .all(|state| state.ends_with(":running"))
    );
    assert_ne!(chain.ids(), before);
    let log = chain.read("log/order");
    let order: Vec<&str> = log.lines().collect();
    assert_eq!(order[4..6], ["db", "api"]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_that_compose_cannot_take_down_is_stopped_instead() {
    let place = Place::new();
    let stack = place.stack("ordered");
    stack.up();
    place.config(
        json!([{"name": stack.name, "stopMethod": "down"}]),
        json!({}),
    );
    let project = format!("label=com.docker.compose.project={}", stack.name);
    let migrate = "label=com.docker.compose.service=migrate";
    let prune = ["container", "prune", "--force", "--filter", &project];
    succeed("docker", [&prune[..], &["--filter", migrate]].concat());
    let before = stack.ids();
    assert_eq!(before.len(), 2);
    let json = place.run().expect_status(0).json();
    let warnings = stack.outcome(&json)["warnings"].to_string();
    assert!(
        warnings.contains("while migrate, on which it depends, has no container"),
        "{warnings}"
    );
    assert_eq!(stack.ids(), before);
    // The control: Compose makes the container again, and can then take the stack down.
    stack.up();
    place.run().expect_status(0);
    assert_ne!(stack.ids(), before);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stop_that_fails_half_way_is_followed_by_a_start() {
    let place = Place::new();
    let stack = place.stack("chain");
    stack.up();
    place.config(json!([stack.name]), json!({}));
    let times = start_times(&stack);
    // The first group stops; the stop of the second one is refused.
    let spy = place.spy(
        "if [ \"$1\" = stop ] && [ $(grep -c ^stop \"$SPY_LOG\") = 3 ]; then \
         echo 'no stop today' >&2; exit 1; fi",
    );
    let mut command = place.program(&["run", "--json"]);
    command.env("SPY_LOG", place.path("spy/log"));
    let json = output(spy.watch(&mut command)).expect_status(2).json();
    let outcome = stack.outcome(&json);
    assert_eq!(outcome["status"], "failed");
    assert!(failures(outcome).contains("no stop today"), "{outcome}");
    assert_eq!(outcome["archive"], Value::Null);
    assert!(place.stored(&stack.name).is_empty());
    assert!(place.journalled().is_empty());
    let states = stack.states();
    assert!(
        states.iter().all(|state| state.ends_with(":running")),
        "{states:?}"
    );
    // The control: something had been stopped.
    let starts = spy
        .calls()
        .iter()
        .filter(|c| c.starts_with("start "))
        .count();
    assert_eq!(starts, 2, "{:#?}", spy.calls());
    // Containers after the failure were not stopped at all.
    let times_now = start_times(&stack);
    let kept = times_now.iter().filter(|line| times.contains(line));
    assert_eq!(kept.count(), 2, "{times_now:?}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stopped_stack_with_the_same_service_names_is_not_started() {
    let place = Place::new();
    let (other, stack) = (place.stack("redis"), place.stack("redis"));
    stack.up();
    other.up();
    // This container was killed, not stopped, and its name sorts first.
    docker(["kill", &other.container("cache")]);
    place.config(
        json!([{"name": stack.name, "stopMethod": "down"}]),
        json!({}),
    );
    let json = place.run().expect_status(0).json();
    assert_eq!(stack.outcome(&json)["status"], "ok");
    assert_eq!(other.states(), ["cache:exited"]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_paused_stack_keeps_its_processes_and_its_archive_is_crash_consistent() {
    let place = Place::new();
    let (stack, half) = (place.stack("redis"), place.stack("paused"));
    stack.up();
    half.up();
    output(&mut half.compose(&["pause"])).expect_status(0);
    let pause = |stack: &Stack| json!({"name": stack.name, "stopMethod": "pause"});
    place.config(json!([pause(&stack), pause(&half)]), json!({}));
    let times = start_times(&stack);
    let spy = place.spy("");
    let mut command = place.program(&["run", "--json"]);
    let json = output(spy.watch(&mut command)).expect_status(0).json();
    let archive = &stack.outcome(&json)["archive"];
    assert_eq!(archive["crashConsistent"], true, "{archive}");
    assert!(stack.outcome(&json)["downtimeMs"].is_u64());
    assert_eq!(stack.states(), ["cache:running"]);
    assert_eq!(start_times(&stack), times, "the same processes");
    assert_eq!(half.states(), ["app:paused"], "it stays paused");
    let calls = spy.calls();
    let of = |id: &str| -> Vec<&str> {
        let calls = calls.iter().filter_map(|call| call.split_once(' '));
        let calls = calls.filter(|(verb, on)| *on == id && *verb != "ps");
        calls.map(|(verb, _)| verb).collect()
    };
    assert_eq!(of(&stack.container("cache")), ["pause", "unpause"]);
    assert!(
        !of(&half.container("app")).contains(&"unpause"),
        "{calls:?}"
    );
    let report = output(&mut place.program(&["report"])).stdout;
    // Lines are wrapped.
    let words: Vec<&str> = report.split_whitespace().collect();
    assert!(
        words
            .join(" ")
            .contains("crash-consistent (paused, not stopped)"),
        "{report}"
    );
    let list = output(&mut place.program(&["list"])).stdout;
    assert!(list.contains("crash-consistent"), "{list}");
    // The control: a stop makes a consistent archive and restarts the
    // processes.
    place.config(json!([stack.name]), json!({}));
    let json = place.run().expect_status(0).json();
    assert_eq!(stack.outcome(&json)["archive"]["crashConsistent"], false);
    assert_ne!(start_times(&stack), times);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_without_the_socket_uses_docker_commands() {
    let place = Place::new();
    let (chain, redis) = (place.stack("chain"), place.stack("redis"));
    chain.up();
    redis.up();
    place.config(
        json!([chain.name, {"name": redis.name, "stopMethod": "pause"}]),
        json!({}),
    );
    let before = (chain.ids(), chain.states(), redis.states());
    let times = start_times(&redis);
    let spy = place.spy("").without_socket();
    output(spy.watch(&mut place.program(&["run"]))).expect_status(0);
    assert_eq!((chain.ids(), chain.states(), redis.states()), before);
    assert_eq!(start_times(&redis), times);
    let calls = spy.calls();
    let count = |verb: &str| calls.iter().filter(|call| call.starts_with(verb)).count();
    // One command stops a whole group.
    assert_eq!(count("stop "), 3, "{calls:#?}");
    assert_eq!(count("start "), 4, "{calls:#?}");
    assert_eq!((count("pause "), count("unpause ")), (1, 1), "{calls:#?}");
    // The control: with the socket, no command looks at a container.
    assert!(count("container inspect") > 0, "{calls:#?}");
    let spy = place.spy("");
    spy.clear();
    output(spy.watch(&mut place.program(&["run"]))).expect_status(0);
    let calls = spy.calls();
    assert!(
        !calls
            .iter()
            .any(|call| call.starts_with("container inspect"))
    );
}
