//! A run on Podman that is killed.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::podman::{self, stack_on_podman};
use crate::common::{Background, Place, output};

const BULK_BYTES: usize = 64 << 20;

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_that_is_killed_on_podman_is_recovered_there() {
    let place = Place::new();
    let stack = stack_on_podman(&place);
    fs::write(stack.dir.join("bulk"), vec![7; BULK_BYTES]).unwrap();
    place.config(
        json!([{"name": stack.name, "engine": podman::host(), "capture": "offline"}]),
        json!({}),
    );
    let (ids, running) = (stack.ids(), stack.running());
    let run = Background::spawn(&mut place.program(&["run"]));
    run.freeze_while_archiving(&place.store().join(&stack.name), BULK_BYTES as u64);
    run.signal_all(Signal::SIGKILL);
    assert_eq!(run.wait(), -1);
    assert_eq!(stack.running(), [""; 0]);
    let entry = place.state().join(format!("journal/{}.json", stack.name));
    let entry: Value = serde_json::from_slice(&fs::read(entry).unwrap()).unwrap();
    assert_eq!(entry["compose"]["engine"], podman::host());
    // The configuration is not needed for that.
    place.config(json!([]), json!({}));
    output(&mut place.program(&["recover"])).expect_status(0);
    assert_eq!(stack.running(), running);
    assert_eq!(stack.ids(), ids);
    assert_eq!(place.journalled(), [""; 0]);
    assert_eq!(stack.read("log/order"), "db\nhealthy\napp\n".repeat(2));
}
