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
