//! A store that a run cannot use.

use std::fs;
use std::os::unix::fs::symlink;

use crate::common::Place;
use crate::common::scene::start_times;
use serde_json::json;

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn an_unusable_store_is_refused_before_the_stop() {
    let place = Place::new();
    let stack = place.stack("paused");
    stack.up();
    place.config(json!([stack.name]), json!({}));
    let times = start_times(&stack);
    fs::create_dir_all(place.path("elsewhere")).unwrap();
    fs::create_dir_all(place.store()).unwrap();
    let link = place.store().join(&stack.name);
    symlink(place.path("elsewhere"), &link).unwrap();
    let json = place.run().expect_status(2).json();
    let failure = &stack.outcome(&json)["failures"][0];
    assert_eq!(failure["phase"], "measure", "{failure}");
    assert_eq!(start_times(&stack), times);
    // The control: without the symlink, the run succeeds.
    fs::remove_file(&link).unwrap();
    place.run().expect_status(0);
    assert_ne!(start_times(&stack), times);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_that_a_symlink_leads_into_the_store_is_refused() {
    let place = Place::new();
    let stack = place.stack("paused");
    let inside = place.store().join("stacks");
    fs::create_dir_all(place.store()).unwrap();
    fs::rename(place.path("stacks"), &inside).unwrap();
    symlink(&inside, place.path("stacks")).unwrap();
    place.config(json!([stack.name]), json!({}));
    let json = place.run().expect_status(2).json();
    let failure = &stack.outcome(&json)["failures"][0];
    assert_eq!(failure["phase"], "plan", "{failure}");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("archive its own archives"), "{message}");
    // The control: outside of the store it is archived.
    fs::remove_file(place.path("stacks")).unwrap();
    fs::rename(&inside, place.path("stacks")).unwrap();
    place.run().expect_status(0);
}
