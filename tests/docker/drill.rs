//! Drills of real stacks while these are running.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::kill_points::{if_complete, kill_points};
use crate::common::scene::{Scene, at_call};
use crate::common::shop::Shop;
use crate::common::{Background, Ended, Place, Stack, docker, output, succeed, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::XattrFlags;
use serde_json::{Value, json};

/// Runs a drill with this command as its check.
fn drill(shop: &Shop, check: &[&str]) -> Ended {
    drill_of(&shop.place, &shop.stack, check)
}

fn drill_of(place: &Place, stack: &Stack, check: &[&str]) -> Ended {
    let args = [&["--json", "drill", &stack.name, "--"], check].concat();
    output(&mut place.program(&args))
}

/// Everything that is left of a stack's drill project.
fn traces(place: &Place, stack: &Stack) -> Vec<String> {
    let filter = format!("label=com.docker.compose.project=dsbdrill-{}", stack.name);
    let list = |args: &[&str]| docker([args, &["--quiet", "--filter", &filter]].concat());
    let mut traces = vec![
        list(&["ps", "--all"]),
        list(&["volume", "ls"]),
        list(&["network", "ls"]),
    ];
    traces.retain(|found| !found.is_empty());
    let scratch = fs::read_dir(place.state().join("drill"));
    traces.extend(
        scratch
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().path().display().to_string()),
    );
    traces
}

/// Starts a drill of all stacks, and freezes it while it drills `stack`.
fn freeze_in_drill(place: &Place, stack: &Stack) -> Background {
    let scratch = place.state().join("drill").join(&stack.name);
    let drill = Background::spawn(&mut place.program(&["drill", "--json"]));
    wait_until("it drills the stack", || scratch.exists());
    send(&drill, Signal::SIGSTOP);
    assert!(scratch.exists(), "the drill was over too early");
    drill
}

fn send(child: &Background, signal: Signal) {
    kill(Pid::from_raw(child.pid()), signal).unwrap();
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_drill_of_all_stacks_ended_by_a_signal_reports_the_finished_drills() {
    let place = Place::new();
    let (redis, web) = (place.stack("redis"), place.stack("web"));
    redis.up();
    // The file is large, so the drill is still unpacking when it is frozen.
    fs::write(web.dir.join("bulk"), vec![7; 256 << 20]).unwrap();
    web.up();
    let unreachable = json!({
        "host": "localhost", "port": 1, "encryption": "none", "timeout": 5,
        "from": "a@example.org", "to": ["b@example.org"],
    });
    let stacks = json!([redis.name, web.name, "never"]);
    place.config(json!([redis.name, web.name]), json!({}));
    place.run().expect_status(0);
    place.config(stacks, json!({"email": unreachable}));
    let drill = freeze_in_drill(&place, &web);
    let unpacked = place.state().join("drill").join(&web.name);
    let unpacked = unpacked.join("compose.json");
    assert!(!unpacked.exists(), "it was unpacked too early");
    send(&drill, Signal::SIGTERM);
    send(&drill, Signal::SIGCONT);
    let ended = drill.end().expect_status(2);
    let all = ended.items("drills");
    assert_eq!(all[0]["problems"], json!([]), "{all}");
    assert_eq!(all[0]["interrupted"], Value::Null);
    for (i, stack) in [(1, web.name.as_str()), (2, "never")] {
        assert_eq!(all[i]["stack"], stack, "{all}");
        assert_eq!(all[i]["interrupted"], "SIGTERM", "{all}");
        // An interrupted drill is not a problem of the archive.
        assert_eq!(all[i]["problems"], json!([]), "{all}");
    }
    let log = fs::read_to_string(place.path("log")).unwrap();
    assert!(
        log.contains("the news is not sent yet, but kept: cannot send mail through localhost:1"),
        "{log}"
    );
    let list = || {
        output(&mut place.program(&["list", "--json"]))
            .expect_status(0)
            .items("archives")
    };
    assert!(list()[0]["drilled"]["time"].is_string(), "{}", list());
    assert_eq!(list()[1]["drilled"], Value::Null, "{}", list());
    for stack in [&redis, &web] {
        assert_eq!(traces(&place, stack), [""; 0]);
    }
    // The control: without a signal, the second is drilled, too.
    place.config(json!([redis.name, web.name]), json!({}));
    output(&mut place.program(&["drill"])).expect_status(0);
    assert!(list()[1]["drilled"]["time"].is_string(), "{}", list());
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_signal_ends_a_waiting_drill_at_once() {
    let place = Place::new();
    let stack = place.stack("slow-health");
    // The health check needs a file outside of the stack, which a drill does
    // not mount.
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("ready"), "").unwrap();
    let mount = format!(
        "tmpfs: /run\n    volumes: ['{}:/outside']",
        outside.display()
    );
    let compose = stack.read("compose.yaml");
    let [ill, well] = ["/outside/ready", "/run/ready"].map(|file| {
        compose
            .replace("tmpfs: /run", &mount)
            .replace("\"/run/ready", &format!("\"{file}"))
            .replace("sleep 5;", "")
    });
    let archive = |compose: &str| {
        fs::write(stack.dir.join("compose.yaml"), compose).unwrap();
        stack.up();
        place.run().expect_status(0);
    };
    let drill = |args: &[&str]| {
        place.program(&[&["--json", "drill", stack.name.as_str(), "--"], args].concat())
    };
    place.config(json!([stack.name]), json!({}));
    archive(&ill);
    let name = format!("dsbdrill-{}-app-1", stack.name);
    let inspect = |format: &str| {
        let inspect = ["container", "inspect", "--format", format, &name];
        output(Command::new("docker").args(inspect)).stdout
    };
    let interrupted = |args: &[&str], is_there: &dyn Fn() -> bool| {
        let child = Background::spawn(&mut drill(args));
        wait_until("the drill waits", is_there);
        let began = Instant::now();
        send(&child, Signal::SIGTERM);
        let ended = child.end().expect_status(2).items("drills");
        let took = began.elapsed();
        // Without the signal it would wait for three minutes.
        assert!(took < Duration::from_secs(120), "{took:?}");
        assert_eq!(ended[0]["interrupted"], "SIGTERM", "{ended}");
        assert_eq!(ended[0]["problems"], json!([]), "{ended}");
        assert_eq!(traces(&place, &stack), [""; 0]);
    };
    interrupted(&["app", "true"], &|| {
        inspect("{{.State.Running}}") == "true\n"
    });
    // The control: without a signal the drill waits until its timeout.
    let limited = json!([{"name": stack.name, "startTimeout": 8}]);
    place.config(limited, json!({}));
    let began = Instant::now();
    let ended = output(&mut drill(&["app", "true"]))
        .expect_status(2)
        .items("drills");
    assert!(began.elapsed() > Duration::from_secs(8));
    assert_eq!(ended[0]["interrupted"], Value::Null, "{ended}");
    assert_ne!(ended[0]["problems"], json!([]), "{ended}");
    // A signal also ends the check. The check runs once its file exists.
    archive(&well);
    let check = ["app", "sh", "-c", "touch /run/checking; sleep 300"];
    interrupted(&check, &|| {
        let exec = ["exec", &name, "test", "-e", "/run/checking"];
        output(Command::new("docker").args(exec)).status == 0
    });
    output(&mut drill(&["app", "true"])).expect_status(0);
}

/// Runs the program without CAP_SYS_ADMIN, as the systemd unit does.
fn without_sys_admin(program: &Command) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]);
    command.arg(program.get_program()).args(program.get_args());
    command
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn without_cap_sys_admin_a_drill_notes_a_lost_attribute_and_a_restore_refuses() {
    let place = Place::new();
    let stack = place.stack("web");
    for file in ["one", "two"] {
        let path = stack.dir.join(file);
        fs::write(&path, "x").unwrap();
        rustix::fs::setxattr(&path, "trusted.thing", b"y", XattrFlags::empty()).unwrap();
    }
    stack.up();
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
    let drill = place.program(&["drill", "--json", &stack.name]);
    let told = "not restored: trusted.thing: only root with CAP_SYS_ADMIN may set it";
    let notes = |mut program: Command| {
        let json = output(&mut program).expect_status(0).items("drills");
        assert_eq!(json[0]["problems"], json!([]), "{json}");
        json[0]["notes"].as_array().unwrap().clone()
    };
    // The note appears once, although two files have the attribute.
    let of_it = |notes: Vec<Value>| notes.into_iter().filter(|note| *note == told).count();
    assert_eq!(of_it(notes(without_sys_admin(&drill))), 1);
    let restore = place.program(&["restore", &stack.name, "--yes"]);
    let ids = stack.ids();
    let refused = output(&mut without_sys_admin(&restore)).expect_status(1);
    let said = "set its attribute trusted.thing (this process needs CAP_SYS_ADMIN for that)";
    assert!(refused.stderr.contains(said), "{}", refused.stderr);
    place.assert_no_restore(std::slice::from_ref(&stack.dir), "refused");
    assert_eq!(stack.ids(), ids);
    // The control: with CAP_SYS_ADMIN, drill and restore set the attribute.
    assert_eq!(of_it(notes(drill)), 0);
    fs::remove_file(stack.dir.join("one")).unwrap();
    let mut restore = restore;
    output(&mut restore).expect_status(0);
    let mut value = [0; 8];
    let path = stack.dir.join("one");
    let bytes = rustix::fs::getxattr(&path, "trusted.thing", &mut value).unwrap();
    assert_eq!(&value[..bytes], b"y");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_waits_for_a_drill_and_recover_does_not_wait() {
    let place = Place::new();
    let web = place.stack("web");
    web.up();
    place.config(json!([web.name]), json!({}));
    place.run().expect_status(0);
    let drill = freeze_in_drill(&place, &web);
    let run = Background::spawn(&mut place.program(&["run", "--json"]));
    let log = || fs::read_to_string(place.path("log")).unwrap();
    wait_until("the run waits", || {
        log().contains("waiting for the drill that is under way")
    });
    // `recover` does not remove the files of the running drill.
    let scratch = place.state().join("drill").join(&web.name);
    output(&mut place.program(&["recover"])).expect_status(0);
    assert!(scratch.exists());
    // The control: a second drill is refused.
    output(&mut place.program(&["drill"])).expect_status(1);
    send(&drill, Signal::SIGCONT);
    drill.end().expect_status(0);
    run.end().expect_status(0);
    assert_eq!(traces(&place, &web), [""; 0]);

    // A signal ends the wait, before anything was done.
    let drill = freeze_in_drill(&place, &web);
    let run = Background::spawn(&mut place.program(&["run", "--json"]));
    wait_until("the run waits", || {
        log().matches("waiting for the drill").count() == 2
    });
    let archives = place.stored(&web.name).len();
    send(&run, Signal::SIGTERM);
    run.end().expect_status(1);
    assert_eq!(place.stored(&web.name).len(), archives);
    // The waiting run removes the traces of a killed drill.
    let run = Background::spawn(&mut place.program(&["run", "--json"]));
    wait_until("the run waits", || {
        log().matches("waiting for the drill").count() == 3
    });
    send(&drill, Signal::SIGKILL);
    drill.end().expect_status(-1);
    run.end().expect_status(0);
    assert_eq!(traces(&place, &web), [""; 0]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_drill_first_starts_containers_that_a_killed_run_left_stopped() {
    let scene = Scene::new("stop", 0);
    scene.place.run().expect_status(0);
    let kill = "if [ \"$1\" = start ]; then kill -9 $PARENT; exit 1; fi";
    let (ended, _) = scene.attempt(&["run"], kill);
    assert!(ended.is_none(), "{ended:?}");
    // The control: the stack is down.
    assert_ne!(scene.running(), scene.states);
    let ended = output(&mut scene.place.program(&["drill"])).expect_status(0);
    let (recovered, drilled) = (
        ended.stderr.find("left stopped, starting it"),
        ended.stderr.find("dsbdrill-"),
    );
    assert!(
        recovered.is_some() && recovered < drilled,
        "{}",
        ended.stderr
    );
    scene.assert_recovered("drill after a killed run");
    assert_eq!(scene.last_run()["interrupted"], "killed");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_drill_runs_on_archived_data_and_leaves_no_trace() {
    let shop = Shop::new();
    let (ids, states) = (shop.stack.ids(), shop.stack.states());
    // The value changes after the backup; the drill must not see the change.
    shop.stack
        .exec("cache", &["redis-cli", "set", "visitors", "43"]);
    let check = "test \"$(redis-cli get visitors)\" = 42";
    let json: Value = drill(&shop, &["cache", "sh", "-c", check])
        .expect_status(0)
        .items("drills");
    assert_eq!(json[0]["problems"], json!([]));
    assert_eq!(json[0]["services"], json!(["app", "cache", "db"]));
    assert_eq!(traces(&shop.place, &shop.stack), [""; 0]);
    // The environment is resolved as in the stack, the uploads are mounted, and
    // the network has no default route.
    let greeting = shop.stack.exec("app", &["sh", "-c", "echo \"$GREETING\""]);
    assert!(greeting.contains('$'), "{greeting}");
    let check = format!(
        "test \"$GREETING\" = '{greeting}' && test -s /uploads/picture && ! ip route | grep default"
    );
    let json = drill(&shop, &["app", "sh", "-c", &check]).items("drills");
    assert_eq!(json[0]["problems"], json!([]));
    // The control: a failing check is reported.
    let json = drill(&shop, &["app", "false"])
        .expect_status(2)
        .items("drills");
    assert!(
        json[0]["problems"][0]
            .as_str()
            .unwrap()
            .contains("the check command"),
        "{json}"
    );
    assert_eq!(traces(&shop.place, &shop.stack), [""; 0]);
    // The real stack was not touched.
    assert_eq!((shop.stack.ids(), shop.stack.states()), (ids, states));
    assert_eq!(
        shop.stack.exec("cache", &["redis-cli", "get", "visitors"]),
        "43"
    );
    let list = output(&mut shop.place.program(&["list", "--json"]))
        .expect_status(0)
        .items("archives");
    assert!(
        list[0]["drilled"]["problems"][0].as_str().is_some(),
        "{list}"
    );
    // The next run reports the failed drill.
    let json = shop.place.run().expect_status(0).json();
    let outcome = shop.stack.outcome(&json);
    assert!(outcome["drilled"]["time"].is_string(), "{json}");
    let warnings = outcome["warnings"].to_string();
    assert!(
        warnings.contains("the drill of") && warnings.contains("the check command"),
        "{json}"
    );
    drill(&shop, &["app", "true"]).expect_status(0);
    let json = shop.place.run().expect_status(0).json();
    let outcome = shop.stack.outcome(&json);
    assert_eq!(outcome["drilled"]["problems"], json!([]));
    assert!(!outcome["warnings"].to_string().contains("drill"), "{json}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_drill_killed_at_any_docker_call_leaves_no_trace_after_recover() {
    let shop = Shop::new();
    let mut with_traces = 0;
    for n in kill_points() {
        let spy = shop.place.spy(&at_call(
            n,
            "\"$REAL\" \"$@\" >/dev/null 2>&1; kill -9 $PARENT; exit 1",
        ));
        spy.clear();
        let ended = output(spy.watch(&mut shop.place.program(&["drill", &shop.stack.name])));
        if ended.status != -1 {
            ended.expect_status(0);
            assert!(n > 4, "{n}");
            break;
        }
        let point = format!("killed at call {n}: {:?}", spy.calls().last());
        with_traces += usize::from(!traces(&shop.place, &shop.stack).is_empty());
        output(&mut shop.place.program(&["recover"])).expect_status(0);
        assert_eq!(traces(&shop.place, &shop.stack), [""; 0], "{point}");
    }
    assert!(with_traces >= if_complete(3), "{with_traces}");
    assert_eq!(traces(&shop.place, &shop.stack), [""; 0]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn without_a_name_every_configured_stack_is_drilled() {
    let place = Place::new();
    let (redis, web) = (place.stack("redis"), place.stack("web"));
    redis.up();
    web.up();
    place.config(json!([redis.name, web.name]), json!({}));
    place.run().expect_status(0);
    let drill = |args: &[&str]| output(&mut place.program(&[&["drill", "--json"], args].concat()));
    let all = drill(&[]).expect_status(0).items("drills");
    assert_eq!(all[0]["stack"], redis.name);
    assert_eq!(all[1]["stack"], web.name);
    // A stack without an archive does not prevent the drills of the others.
    let new = place.stack("paused");
    place.config(json!([redis.name, new.name, web.name]), json!({}));
    let all = drill(&[]).expect_status(2).items("drills");
    for (i, is_healthy) in [true, false, true].into_iter().enumerate() {
        assert_eq!(all[i]["problems"] == json!([]), is_healthy, "{all}");
    }
    let problem = all[1]["problems"][0].as_str().unwrap();
    assert!(problem.contains("there is no archive of a stack"), "{all}");
    let ended = drill(&["--", "web", "true"]).expect_status(1);
    assert!(ended.stderr.contains("name the stack"), "{}", ended.stderr);
    // The same holds if the stacks are named.
    let all = drill(&[&new.name, "./none.tar", &web.name])
        .expect_status(2)
        .items("drills");
    for (i, name) in [new.name.as_str(), "./none.tar", &web.name]
        .into_iter()
        .enumerate()
    {
        assert_eq!(all[i]["stack"], name, "{all}");
        assert_eq!(all[i]["problems"] == json!([]), i == 2, "{all}");
    }
}

/// Writes a compose file with a service `app` that only waits, and `more`
/// lines.
fn write_app(stack: &Stack, more: &str) {
    let compose = format!(
        "services:\n  app:\n    image: docker-stack-backup/busybox:1\n    \
         command: sleep infinity\n    init: true\n{more}"
    );
    fs::write(stack.dir.join("compose.yaml"), compose).unwrap();
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_drill_mounts_no_live_data_through_a_symlink() {
    let place = Place::new();
    let stack = place.stack("paused");
    let (here, disk) = (stack.dir.join("data-v2"), place.path("disk"));
    for dir in [&here, &disk] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("file"), "archived").unwrap();
    }
    symlink(&here, stack.dir.join("here")).unwrap();
    symlink(&disk, stack.dir.join("disk")).unwrap();
    write_app(&stack, "    volumes: ['./here:/here', './disk:/disk']\n");
    stack.up();
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
    for dir in [&here, &disk] {
        fs::write(dir.join("file"), "live").unwrap();
    }
    // The control: the real stack mounts both.
    let read = "cat /here/file /disk/file";
    assert_eq!(stack.exec("app", &["sh", "-c", read]), "livelive");
    let check = "test \"$(cat /here/file)\" = archived && test ! -e /disk && \
                 for dir in /here /disk; do mkdir -p $dir && echo drilled >$dir/file; done";
    let json = drill_of(&place, &stack, &["app", "sh", "-c", check])
        .expect_status(0)
        .items("drills");
    assert_eq!(json[0]["problems"], json!([]), "{json}");
    let note = format!(
        "service app: nothing at /disk, a symlink leads from {} to {}, which the archive does not \
         hold",
        stack.dir.join("disk").display(),
        disk.display()
    );
    assert_eq!(json[0]["notes"], json!([note]));
    assert_eq!(stack.exec("app", &["sh", "-c", read]), "livelive");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn symlinks_in_an_archive_cannot_make_a_drill_write_elsewhere() {
    let place = Place::new();
    let stack = place.stack("redis");
    stack.up();
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
    let (precious, forged) = (place.path("precious"), place.path("forged.tar"));
    fs::write(&precious, "precious").unwrap();
    fs::copy(place.archive(&stack.name), &forged).unwrap();
    // The symlinks have names that the program uses, or used, in the same
    // directory.
    let links = place.path("links");
    fs::create_dir(&links).unwrap();
    for name in [".dsbdrill.compose.json", "compose.json", "unpacked"] {
        symlink(&precious, links.join(name)).unwrap();
        let [forged, links] = [&forged, &links].map(|path| path.to_str().unwrap());
        succeed("tar", ["-rf", forged, "-C", links, name]);
    }
    let drill = ["drill", "--json", forged.to_str().unwrap()];
    let json = output(&mut place.program(&drill))
        .expect_status(0)
        .items("drills");
    assert_eq!(json[0]["problems"], json!([]), "{json}");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert_eq!(traces(&place, &stack), [""; 0]);
    // The control: they were in the archive.
    let extracted = place.extract(&forged);
    for name in [".dsbdrill.compose.json", "compose.json", "unpacked"] {
        assert_eq!(fs::read_link(extracted.join(name)).unwrap(), precious);
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_drilled_container_is_isolated_from_the_host_and_other_projects() {
    let place = Place::new();
    let (stack, other) = (place.stack("paused"), place.stack("redis"));
    other.up();
    write_app(
        &stack,
        &format!(
            "    labels: {{traefik.enable: 'true'}}\n    volumes_from: ['container:{}']\n    \
             privileged: true\n    network_mode: host\n    pid: host\n    \
             logging: {{driver: gelf, options: {{gelf-address: 'udp://127.0.0.1:9'}}}}\n    \
             cap_add: [SYS_TIME, IPC_LOCK]\n    oom_score_adj: 500\n",
            other.container("cache")
        ),
    );
    stack.up();
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
    let inspect = |container: &str| -> Value {
        let inspected = output(Command::new("docker").args(["container", "inspect", container]));
        let all: Value = serde_json::from_str(&inspected.stdout).unwrap();
        all[0].clone()
    };
    // Labels, volumes, and access to the host.
    let seen = |container: &Value| {
        let labels = container["Config"]["Labels"].as_object().unwrap();
        // The image has labels, too.
        let labels = labels.keys().filter(|key| key.starts_with("traefik."));
        let mounts = container["Mounts"].as_array().unwrap().iter();
        let host = &container["HostConfig"];
        json!({
            "labels": labels.collect::<Vec<_>>(),
            "mounts": mounts.map(|mount| &mount["Destination"]).collect::<Vec<_>>(),
            "from": host["VolumesFrom"].as_array().map_or(0, Vec::len),
            "privileged": host["Privileged"],
            "pid": host["PidMode"],
            "log": host["LogConfig"]["Type"],
            "capabilities": host["CapAdd"].as_array().map_or(0, Vec::len),
            "oom": host["OomScoreAdj"],
            "is_of_host": host["NetworkMode"] == "host",
        })
    };
    let name = format!("dsbdrill-{}-app-1", stack.name);
    let args = ["drill", "--json", &stack.name, "--", "app", "sleep", "300"];
    let drill = Background::spawn(&mut place.program(&args));
    wait_until("the drill runs the container", || {
        inspect(&name)["State"]["Running"] == true
    });
    let expected = json!({
        "labels": [], "mounts": [], "from": 0, "privileged": false, "pid": "", "log": "local",
        "capabilities": 1, "oom": 0, "is_of_host": false,
    });
    assert_eq!(seen(&inspect(&name)), expected);
    send(&drill, Signal::SIGTERM);
    drill.end().expect_status(2);
    // The control: the real container has all of these.
    let expected = json!({
        "labels": ["traefik.enable"], "mounts": ["/data"], "from": 1, "privileged": true,
        "pid": "host", "log": "gelf", "capabilities": 2, "oom": 500, "is_of_host": true,
    });
    assert_eq!(seen(&inspect(&stack.container("app"))), expected);
    // The notes list everything that the drill left out.
    let args = ["drill", "--json", &stack.name];
    let json = output(&mut place.program(&args))
        .expect_status(0)
        .items("drills");
    let told = json[0]["notes"].to_string();
    for what in [
        "volumes_from container:",
        "privileged",
        "network_mode",
        "pid",
        "cap_add SYS_TIME",
    ] {
        assert!(
            told.contains(&format!("service app: without its {what}")),
            "{told}"
        );
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_drilled_container_reaches_no_service_and_no_secret_of_the_host() {
    let place = Place::new();
    let stack = place.stack("paused");
    let secrets = place.path("secrets");
    fs::create_dir(&secrets).unwrap();
    for name in ["listed", "other"] {
        fs::write(secrets.join(name), name).unwrap();
    }
    let _socket = UnixListener::bind(secrets.join("socket")).unwrap();
    let file = |name: &str| secrets.join(name).display().to_string();
    write_app(
        &stack,
        &format!(
            "    secrets: [listed, other, socket]\n    sysctls: \
             {{net.ipv6.conf.eth0.disable_ipv6: 0}}\nsecrets:\n  listed: {{file: '{}'}}\n  \
             other: {{file: '{}'}}\n  socket: {{file: '{}'}}\n",
            file("listed"),
            file("other"),
            file("socket")
        ),
    );
    // The Engine's host, as containers see it.
    let service = format!("{}-service", stack.name);
    let serve = "while :; do echo served | nc -l -p 18472; done";
    let image = "docker-stack-backup/busybox:1";
    let run = [
        "run",
        "--detach",
        "--rm",
        "--init",
        "--network",
        "host",
        "--name",
        &service,
    ];
    docker([&run[..], &[image, "sh", "-c", serve]].concat());
    let _removed = Removed(service);
    stack.up();
    // Such files would be archived otherwise, and the drill would have their copies.
    let options = json!({
        "name": stack.name, "drillSecrets": [secrets.join("listed")],
        "ignoreBinds": [secrets.join("listed"), secrets.join("other")],
    });
    place.config(json!([options]), json!({}));
    place.run().expect_status(0);
    let reach = "net=$(ip -4 addr show eth0 | sed -n 's/.*inet \\([0-9.]*\\)\\.[0-9]*\\/.*/\\1/p'); \
                 nc -w 3 $net.1 18472 </dev/null";
    // The control: the real container reaches the host, and has the secrets.
    wait_until("the service of the host answers", || {
        let reached = output(&mut stack.compose(&["exec", "-T", "app", "sh", "-c", reach]));
        reached.stdout == "served\n"
    });
    let has_all = "cat /run/secrets/listed /run/secrets/other; test -S /run/secrets/socket";
    assert_eq!(stack.exec("app", &["sh", "-c", has_all]), "listedother");
    let check = format!(
        "test -n \"$(ip -4 addr show eth0)\" && test -z \"$({reach})\" && \
         test -z \"$(ip -6 addr show eth0)\" && test \"$(ls /run/secrets)\" = listed && \
         test \"$(cat /run/secrets/listed)\" = listed"
    );
    let json = drill_of(&place, &stack, &["app", "sh", "-c", &check])
        .expect_status(0)
        .items("drills");
    assert_eq!(json[0]["problems"], json!([]), "{json}");
    let notes = |json: &Value| json[0]["notes"].to_string();
    for note in [
        "secrets: listed is a copy of the one of this machine",
        "secrets: without other, the archive does not hold",
        "secrets: without socket, the archive does not hold",
    ] {
        assert!(notes(&json).contains(note), "{json}");
    }
    // An archive that is not from the store gets none.
    let copied = place.path("copied.tar");
    fs::copy(place.archive(&stack.name), &copied).unwrap();
    let args = ["drill", "--json", copied.to_str().unwrap()];
    let json = output(&mut place.program(&args))
        .expect_status(0)
        .items("drills");
    assert!(notes(&json).contains("secrets: without listed"), "{json}");
    assert_eq!(traces(&place, &stack), [""; 0]);
}

/// Removes a container when it is dropped.
struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-f", &self.0]).output();
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_behind_a_symlink_is_drilled_and_restored_with_its_binds() {
    let place = Place::new();
    let mut stack = place.stack("paused");
    let real = stack.dir.clone();
    fs::create_dir(real.join("db")).unwrap();
    fs::write(real.join("db/file"), "archived").unwrap();
    symlink(place.path("stacks"), place.path("linked")).unwrap();
    stack.dir = place.path("linked").join(&stack.name);
    // The binds use both paths of the directory.
    let binds = format!("    volumes: ['./db:/db', '{}/db:/real']\n", real.display());
    write_app(&stack, &binds);
    // The shell's `cd` keeps the symlink in the path, as it does for a person.
    let script = "cd \"$1\" && docker compose up --detach --wait";
    let up = || {
        output(
            Command::new("sh")
                .args(["-c", script, "sh"])
                .arg(&stack.dir),
        )
    };
    up().expect_status(0);
    let ids = stack.ids();
    place.config(json!([{"name": stack.name, "path": stack.dir}]), json!({}));
    place.run().expect_status(0);
    fs::write(real.join("db/file"), "live").unwrap();
    let check = "test \"$(cat /db/file /real/file)\" = archivedarchived";
    let json = drill_of(&place, &stack, &["app", "sh", "-c", check])
        .expect_status(0)
        .items("drills");
    assert_eq!(json[0]["problems"], json!([]), "{json}");
    assert_eq!(json[0]["notes"], json!([]), "{json}");
    let out = place.path("out");
    let out = out.to_str().unwrap();
    let restore = |more: &[&str]| {
        let args = [&["restore", stack.name.as_str()], more].concat();
        output(&mut place.program(&args)).expect_status(0)
    };
    restore(&["--to", out, "--only", "app"]);
    let file = Path::new(out).join(&stack.name).join("db/file");
    assert_eq!(fs::read_to_string(file).unwrap(), "archived");
    // Compose recognises the running stack and recreates no container.
    restore(&["--yes"]);
    assert_eq!(
        fs::read_to_string(real.join("db/file")).unwrap(),
        "archived"
    );
    assert_eq!(stack.ids(), ids);
    // The control: a changed compose file makes Compose recreate the container.
    let compose = stack.read("compose.yaml");
    fs::write(real.join("compose.yaml"), compose + "    hostname: other\n").unwrap();
    up().expect_status(0);
    assert_ne!(stack.ids(), ids);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn what_has_nothing_to_start_is_skipped_and_no_health_check_is_needed() {
    let place = Place::new();
    let stack = place.stack("paused");
    let service = "image: docker-stack-backup/busybox:1, init: true";
    let checks = [
        "disable: true",
        "test: [NONE]",
        "test: [CMD, 'true'], interval: 1s",
    ];
    let services: String = checks
        .iter()
        .enumerate()
        .map(|(i, check)| {
            let command = "command: sleep infinity";
            format!("  s{i}: {{{service}, {command}, healthcheck: {{{check}}}}}\n")
        })
        .collect();
    let write = |more: &str| {
        let compose = format!("services:\n{services}{more}");
        fs::write(stack.dir.join("compose.yaml"), compose).unwrap();
    };
    let configure = |drill: bool| {
        place.config(json!([{"name": stack.name, "drill": drill}]), json!({}));
    };
    let drill = |args: &[&str]| output(&mut place.program(&[&["drill", "--json"], args].concat()));
    // Not `up --wait`, which fails for a service without a health check.
    let up = || output(&mut stack.compose(&["up", "--detach"])).expect_status(0);
    write("");
    configure(true);
    up();
    place.run().expect_status(0);
    let json = drill(&[]).expect_status(0).items("drills");
    assert_eq!(json[0]["problems"], json!([]), "{json}");
    assert_eq!(json[0]["services"], json!(["s0", "s1", "s2"]));
    assert_eq!(json[0]["skipped"], Value::Null);
    // It may be left out of the drills of all stacks, and drilled by name.
    configure(false);
    let json = drill(&[]).expect_status(0).items("drills");
    assert!(
        json[0]["skipped"]
            .as_str()
            .unwrap()
            .contains("`drill` is false"),
        "{json}"
    );
    let json = drill(&[&stack.name]).expect_status(0).items("drills");
    assert_eq!(json[0]["skipped"], Value::Null);

    // The control: a service without a health check that crashes a moment after
    // its start, as only the copy does, whose network has no route.
    let crash = "command: sh -c 'sleep 1; ip route | grep -q default && sleep 1000'";
    write(&format!(
        "  crash:\n    image: docker-stack-backup/busybox:1\n    {crash}\n"
    ));
    configure(true);
    up();
    place.run().expect_status(0);
    let json = drill(&[]).expect_status(2).items("drills");
    let problem = json[0]["problems"][0].as_str().unwrap();
    // It is found while the drill waits, or by its second look.
    let is_named = problem.contains("crash") && problem.contains("exit status 1");
    assert!(is_named, "{problem}");

    // A stack that is down has nothing to start.
    write("");
    output(&mut stack.compose(&["down", "--remove-orphans", "--timeout", "1"])).expect_status(0);
    place.run().expect_status(0);
    let json = drill(&[]).expect_status(0).items("drills");
    assert!(
        json[0]["skipped"].as_str().unwrap().contains("nothing ran"),
        "{json}"
    );
    assert_eq!(json[0]["problems"], json!([]));
    let json = place.run().expect_status(0).json();
    let outcome = stack.outcome(&json);
    // It does not hide the one that failed.
    let drilled = &outcome["drilled"];
    assert!(drilled["skippedLater"]["reason"].is_string(), "{outcome}");
    assert!(drilled["problems"][0].is_string(), "{outcome}");
    let warnings = outcome["warnings"].to_string();
    assert!(warnings.contains("the drill of"), "{outcome}");
}
