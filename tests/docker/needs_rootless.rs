//! Stacks on the Podman of an ordinary user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use serde_json::{Value, json};

use crate::common::podman::{self, USER};
use crate::common::{Place, Stack, output, succeed};

/// A stack of an ordinary user, in a directory that the user can reach.
fn stack_of_user(place: &Place) -> Stack {
    let mut stack = place.stack("rootless");
    for dir in [place.path(""), place.path("stacks")] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).unwrap();
    }
    let owner = format!("{USER}:{USER}");
    succeed("chown", ["-R", &owner, stack.dir.to_str().unwrap()]);
    stack.host = Some(podman::user_host());
    stack.up();
    stack
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn the_stack_of_a_user_is_archived_and_restored_with_its_subordinate_ids() {
    let place = Place::new();
    let stack = stack_of_user(&place);
    let options = json!({"name": stack.name, "engine": podman::user_host()});
    place.config(json!([options]), json!({}));
    let value = stack.mountpoint("data").join("value");
    let owner = fs::metadata(&value).unwrap().uid();
    assert!(owner > USER, "{owner}");
    let run = place.run().expect_status(0).json();
    assert_eq!(stack.outcome(&run)["status"], "ok", "{run}");
    assert_eq!(stack.read("log/order"), "db\napp\n".repeat(2));
    fs::write(&value, "2").unwrap();
    chown(&value, Some(0), Some(0)).unwrap();
    output(&mut place.program(&["restore", &stack.name, "--yes", "--no-start"])).expect_status(0);
    assert_eq!(fs::read_to_string(&value).unwrap(), "1\n");
    assert_eq!(fs::metadata(&value).unwrap().uid(), owner);
    // Its containers could not read what a drill unpacks.
    let drilled = output(&mut place.program(&["--json", "drill", &stack.name]));
    let skipped = drilled.expect_status(0).items("drills");
    assert_ne!(skipped[0]["skipped"], Value::Null, "{skipped}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_socket_that_a_user_has_replaced_leads_to_no_other_engine() {
    let place = Place::new();
    let stack = place.stack("podman");
    let run_dir = place.path("run");
    fs::create_dir(&run_dir).unwrap();
    let socket = run_dir.join("podman.sock");
    let host = podman::host();
    symlink(host.strip_prefix("unix://").unwrap(), &socket).unwrap();
    let engine = format!("unix://{}", socket.display());
    place.config(json!([{"name": stack.name, "engine": engine}]), json!({}));
    // The control: the link of root is followed.
    output(&mut place.program(&["plan"])).expect_status(0);
    chown(&run_dir, Some(USER), Some(USER)).unwrap();
    let refused = output(&mut place.program(&["plan"]));
    let told = format!("{}{}", refused.stdout, refused.stderr);
    assert!(told.contains("which another user owns"), "{told}");
}
