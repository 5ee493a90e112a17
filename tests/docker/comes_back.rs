//! The stack comes back as it was: with its addresses, its networks, its anonymous
//! volumes, and whoever shares a namespace with it.

use std::fs;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::common::{Ended, Place, Stack, docker, in_parallel, output, wait_until};

const SERVICE: &str = "image: docker-stack-backup/busybox:1, init: true, command: sleep infinity";
/// It ignores its stop signal, so there is time while the others are down.
const DEAF: &str = "image: docker-stack-backup/busybox:1, command: sleep infinity, \
                    network_mode: none, stop_grace_period: 4s";

fn write_compose(stack: &Stack, text: &str) {
    fs::write(stack.dir.join("compose.yaml"), text).unwrap();
}

fn address(stack: &Stack, service: &str) -> String {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    docker(["inspect", "--format", format, &stack.container(service)])
}

fn succeeds(args: &[&str]) -> bool {
    let mut command = Command::new("docker");
    command.args(args);
    output(&mut command).status == 0
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn containers_get_their_addresses_again_and_a_fixed_one_is_not_taken() {
    let place = Place::new();
    let stack = place.stack("paused");
    let pid = std::process::id();
    let subnet = format!("10.{}.{}", 150 + pid % 40, pid / 40 % 250);
    write_compose(
        &stack,
        &format!(
            "services:\n  app: {{{SERVICE}, networks: [net]}}\n  db: {{{SERVICE}, networks: \
             [net]}}\n  dns: {{{SERVICE}, depends_on: [db], networks: {{net: {{ipv4_address: \
             {subnet}.2}}}}}}\n  filler: {{{SERVICE}, networks: [net], profiles: [never]}}\n  web: \
             {{{SERVICE}, networks: [net]}}\nnetworks: {{net: {{ipam: {{config: [{{subnet: \
             {subnet}.0/24}}]}}}}}}\n"
        ),
    );
    // `db` must start before `dns`, and would take its address.
    for service in ["filler", "db"] {
        output(&mut stack.compose(&["up", "--detach", service])).expect_status(0);
    }
    output(&mut stack.compose(&["rm", "--stop", "--force", "filler"])).expect_status(0);
    for service in ["dns", "web", "app"] {
        output(&mut stack.compose(&["up", "--detach", service])).expect_status(0);
    }
    let services = ["dns", "db", "web", "app"];
    let addresses = || services.map(|service| address(&stack, service));
    let before = addresses();
    let expected = [2, 3, 4, 5].map(|n| format!("{subnet}.{n}"));
    assert_eq!(before, expected, "the test itself");
    place.config(json!([stack.name]), json!({}));
    for _ in 0..2 {
        place.run().expect_status(0);
        assert_eq!(addresses(), before);
    }
    // One that another container has taken meanwhile is an error that names it.
    output(&mut stack.compose(&["stop", "dns"])).expect_status(0);
    let thief = format!("{}-thief", stack.project);
    let network = format!("{}_net", stack.project);
    let image = "docker-stack-backup/busybox:1";
    let ip = format!("{subnet}.2");
    output(&mut stack.compose(&["start", "dns"])).expect_status(0);
    let steal = || {
        let args = [
            "run", "--detach", "--rm", "--init", "--name", &thief, "--ip", &ip,
        ];
        succeeds(
            &[
                &args[..],
                &["--network", &network, image, "sleep", "infinity"],
            ]
            .concat(),
        )
    };
    let slow = format!("services:\n  slow: {{{DEAF}}}\n");
    fs::write(stack.dir.join("compose.override.yaml"), slow).unwrap();
    output(&mut stack.compose(&["up", "--detach", "slow"])).expect_status(0);
    let ended = thread::scope(|scope| {
        let run = scope.spawn(|| place.run());
        wait_until("the address is taken", || {
            docker(["rm", "--force", &thief]);
            steal()
        });
        run.join().unwrap()
    });
    docker(["rm", "--force", &thief]);
    let told = ended.expect_status(3).json().to_string();
    assert!(
        told.contains(&format!("taken by container {thief}")),
        "{told}"
    );
    output(&mut place.program(&["recover"])).expect_status(0);
    assert_eq!(addresses()[0], before[0]);
}

/// Runs a backup, and removes the container of `db`, this volume and the network while
/// the stack is down.
fn run_and_prune(place: &Place, stack: &Stack, volume: Option<&str>) -> Ended {
    let (db, network) = (stack.container("db"), format!("{}_default", stack.project));
    thread::scope(|scope| {
        let run = scope.spawn(|| place.run());
        wait_until("the container is removed", || succeeds(&["rm", &db]));
        if let Some(volume) = volume {
            docker(["volume", "rm", volume]);
        }
        wait_until("the network is removed", || {
            succeeds(&["network", "rm", &network])
        });
        run.join().unwrap()
    })
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn what_was_pruned_while_the_stack_was_down_is_made_again_with_its_data() {
    let place = Place::new();
    let stack = place.stack("paused");
    write_compose(
        &stack,
        &format!(
            "services:\n  app: {{{SERVICE}, depends_on: [db]}}\n  db: {{{SERVICE}, volumes: \
             [/data]}}\n  slow: {{{DEAF}}}\n"
        ),
    );
    stack.up();
    let write = |service, path| {
        let command = format!("echo precious >{path}");
        stack.exec(service, &["sh", "-c", &command]);
    };
    write("db", "/data/file");
    write("app", "/file");
    place.config(json!([stack.name]), json!({}));
    let app = stack.container("app");
    run_and_prune(&place, &stack, None).expect_status(0);
    assert_eq!(stack.running().len(), 3);
    assert_eq!(stack.exec("db", &["cat", "/data/file"]).trim(), "precious");
    // This container was not removed, so it keeps even what is in no volume.
    assert_eq!(stack.container("app"), app);
    assert_eq!(stack.exec("app", &["cat", "/file"]).trim(), "precious");
    stack.exec("app", &["ping", "-c", "1", "db"]);
    // What was made again is what Compose would make.
    let planned = output(&mut stack.compose(&["--dry-run", "up", "--no-start"]));
    assert!(!planned.stderr.contains("Recreate"), "{}", planned.stderr);

    // With the volume gone, too, it is up, but that is no success.
    let format = "{{range .Mounts}}{{.Name}}{{end}}";
    let volume = docker(["inspect", "--format", format, &stack.container("db")]);
    let told = run_and_prune(&place, &stack, Some(&volume));
    let told = told.expect_status(3).json().to_string();
    assert!(told.contains("empty volume at /data"), "{told}");
    assert!(told.contains(&volume), "{told}");
    assert_eq!(stack.running().len(), 3);
    output(&mut place.program(&["recover"])).expect_status(0);
    assert!(place.journalled().is_empty());
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn who_shares_a_namespace_with_the_stack_is_stopped_and_started_with_it() {
    let place = Place::new();
    let stack = place.stack("paused");
    write_compose(&stack, &format!("services:\n  vpn: {{{SERVICE}}}\n"));
    stack.up();
    let name = |kind: &str| format!("{}-{kind}", stack.project);
    let vpn = stack.container("vpn");
    let joins = |kind: &str, of: &str| format!("--{kind}=container:{of}");
    let run = |kind: &str, options: &[&str]| {
        let name = name(kind);
        let args = ["run", "--detach", "--init", "--name", &name];
        let command = ["docker-stack-backup/busybox:1", "sleep", "infinity"];
        docker([&args[..], options, &command].concat())
    };
    run("network", &[&joins("network", &vpn)]);
    run("pid", &[&joins("pid", &vpn)]);
    // This one shares with one that shares.
    run("second", &[&joins("network", &name("network"))]);
    run("once", &["--rm", &joins("network", &vpn)]);
    run("other", &[]);
    let kinds = ["network", "pid", "second", "once", "other"];
    let started = |kind: &str| {
        let format = "{{.State.Running}} {{.State.StartedAt}}";
        docker(["inspect", "--format", format, &name(kind)])
    };
    let before = kinds.map(started);
    place.config(json!([stack.name]), json!({}));
    let planned = output(&mut place.program(&["plan"]))
        .expect_status(0)
        .stdout;
    for kind in ["network", "pid", "second"] {
        assert!(planned.contains(&name(kind)), "{planned}");
    }
    let ran = place.run().expect_status(0).json();
    let warnings = stack.outcome(&ran)["warnings"].to_string();
    assert!(warnings.contains(&name("once")), "{warnings}");
    let after = kinds.map(started);
    for (i, kind) in kinds.into_iter().enumerate() {
        assert!(after[i].starts_with("true"), "{kind}");
        // The controls: these were left alone.
        let is_left_alone = ["once", "other"].contains(&kind);
        assert_eq!(after[i] == before[i], is_left_alone, "{kind}");
    }
    for kind in ["network", "second"] {
        let shown = docker(["exec", &name(kind), "ip", "addr", "show", "eth0"]);
        assert!(shown.contains("inet "), "{kind}: {shown}");
    }
    in_parallel(kinds, |kind| {
        docker(["rm", "--force", &name(kind)]);
    });
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn down_is_refused_if_up_would_make_other_containers_and_keeps_anonymous_volumes() {
    let place = Place::new();
    let stack = place.stack("paused");
    write_compose(
        &stack,
        &format!(
            "services:\n  app: {{{SERVICE}, depends_on: [db], environment: {{PASSWORD: \
             '${{PASSWORD}}', SAME: 'a$$b'}}}}\n  db: {{{SERVICE}, volumes: [/data]}}\n"
        ),
    );
    let mut up = stack.compose(&["up", "--detach"]);
    output(up.env("PASSWORD", "tru$stno1")).expect_status(0);
    stack.exec("db", &["sh", "-c", "echo precious >/data/file"]);
    place.config(
        json!([{"name": stack.name, "stopMethod": "down"}]),
        json!({}),
    );
    let before = stack.ids();
    let ended = place.run();
    assert_ne!(ended.status, 0);
    let told: Value = ended.json();
    let failures = stack.outcome(&told)["failures"].to_string();
    assert!(failures.contains("other values of PASSWORD;"), "{failures}");
    assert!(!failures.contains("stno1"), "{failures}");
    assert_eq!(stack.ids(), before);
    // The control. It holds for what this program has made, too.
    fs::write(stack.dir.join(".env"), "PASSWORD='tru$stno1'\n").unwrap();
    for _ in 0..2 {
        place.run().expect_status(0);
        assert_ne!(stack.ids(), before);
        assert!(stack.exec("app", &["env"]).contains("PASSWORD=tru$stno1"));
        assert_eq!(stack.exec("db", &["cat", "/data/file"]).trim(), "precious");
    }
}
