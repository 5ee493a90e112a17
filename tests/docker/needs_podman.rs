//! Stacks on a real Podman, through its Docker-compatible socket.

use std::fs;

use serde_json::json;

use crate::common::podman::{self, stack_on_podman};
use crate::common::{Place, Stack, output};

fn lines(stack: &Stack) -> Vec<String> {
    let order = stack.read("log/order");
    order.lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_on_podman_is_archived_in_each_way_restored_and_drilled() {
    let place = Place::new();
    let stack = stack_on_podman(&place);
    let start = ["db", "healthy", "app"];
    assert_eq!(lines(&stack), start);
    let configure = |method: &str| {
        let options = json!({
            "name": stack.name, "engine": podman::host(), "stopMethod": method,
            "startTimeout": 60,
        });
        place.config(json!([options]), json!({}));
    };
    stack.exec("db", &["sh", "-c", "echo first >/data/value"]);
    configure("stop");
    let checked = output(&mut place.program(&["check", "--live"])).expect_status(0);
    assert!(checked.stdout.contains("Podman 5"), "{}", checked.stdout);
    let ids = stack.ids();
    let run = place.run().expect_status(0).json();
    assert_eq!(stack.outcome(&run)["status"], "ok", "{run}");
    assert_eq!(stack.outcome(&run)["warnings"], json!([]), "{run}");
    assert_eq!(stack.ids(), ids);
    // The app is started when db is healthy, which nobody but the program has checked.
    assert_eq!(lines(&stack), [start, start].concat());
    let unpacked = place.extract(&place.archive(&stack.name));
    let volume = format!("{}.volumes/{}_data/value", stack.name, stack.project);
    let archived = fs::read_to_string(unpacked.join(volume)).unwrap();
    assert_eq!(archived, "first\n");
    let status = output(&mut place.program(&["status", "--json"])).expect_status(0);
    assert_eq!(
        status.json()["stacks"][0]["state"],
        "running",
        "{}",
        status.stdout
    );

    // A drill starts a copy, and takes it down.
    let drilled = output(&mut place.program(&[
        "drill",
        &stack.name,
        "--",
        "db",
        "test",
        "-e",
        "/data/value",
    ]));
    drilled.expect_status(0);
    let all = output(
        stack
            .docker()
            .args(["ps", "--all", "--format", "{{.Names}}"]),
    )
    .stdout;
    assert!(!all.contains("dsbdrill"), "{all}");
    assert!(all.contains(&stack.project), "the control: {all}");

    // A restore in place.
    stack.exec("db", &["sh", "-c", "echo second >/data/value"]);
    output(&mut place.program(&["restore", &stack.name, "--yes"])).expect_status(0);
    assert_eq!(stack.exec("db", &["cat", "/data/value"]), "first");
    assert_eq!(stack.running().len(), 2);

    // Frozen containers do not notice; `down` makes new ones.
    let (ids, before) = (stack.ids(), lines(&stack).len());
    configure("pause");
    let run = place.run().expect_status(0).json();
    assert_eq!(stack.outcome(&run)["warnings"], json!([]), "{run}");
    assert_eq!((stack.ids(), lines(&stack).len()), (ids.clone(), before));
    configure("down");
    let run = place.run().expect_status(0).json();
    assert_eq!(stack.outcome(&run)["warnings"], json!([]), "{run}");
    assert_eq!(lines(&stack)[before..], start);
    assert!(stack.ids().iter().all(|id| !ids.contains(id)));

    // A container that is paused is stopped, and paused again.
    let app = stack.container("app");
    output(stack.docker().args(["pause", &app])).expect_status(0);
    configure("stop");
    place.run().expect_status(0);
    assert_eq!(stack.states(), ["app:paused", "db:running"]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn each_stack_is_backed_up_on_its_own_engine_and_one_that_is_away_fails_alone() {
    let place = Place::new();
    let on_docker = place.stack("podman");
    on_docker.up();
    let on_podman = stack_on_podman(&place);
    let absent = place.stack("podman");
    let with_engine = |stack: &Stack, engine: &str| json!({"name": stack.name, "engine": engine});
    place.config(
        json!([
            with_engine(&absent, "unix:///run/user/4294960000/podman/podman.sock"),
            on_docker.name,
            with_engine(&on_podman, &podman::host()),
        ]),
        json!({}),
    );
    let run = place.run().expect_status(2).json();
    let failed = absent.outcome(&run).to_string();
    assert!(failed.contains("loginctl enable-linger"), "{failed}");
    for stack in [&on_docker, &on_podman] {
        assert_eq!(stack.outcome(&run)["status"], "ok", "{run}");
        assert_eq!(stack.running(), ["app:running", "db:running"]);
    }

    // A container of another Engine writes to the data.
    place.config(
        json!([on_docker.name, with_engine(&on_podman, &podman::host())]),
        json!({}),
    );
    let bind = format!("{}:/x", on_docker.dir.join("log").display());
    let args = [
        "run",
        "--detach",
        "--rm",
        "--network",
        "none",
        "--volume",
        &bind,
    ];
    let image = ["docker-stack-backup/busybox:1", "sleep", "infinity"];
    let writer = output(on_podman.docker().args(args).args(image)).expect_status(0);
    let run = output(&mut place.program(&["run", "--json", &on_docker.name])).json();
    output(
        on_podman
            .docker()
            .args(["rm", "--force", writer.stdout.trim()]),
    )
    .expect_status(0);
    let failed = on_docker.outcome(&run);
    assert_eq!(failed["status"], "failed", "{run}");
    assert!(failed.to_string().contains("the data is in use"), "{run}");
    // The control.
    let run = place.run().expect_status(0).json();
    assert_eq!(on_docker.outcome(&run)["status"], "ok", "{run}");
}
