//! Parts of a stack, restored in place.

use std::fs;

use serde_json::json;

use crate::common::mixed::{Mixed, RUNNING};
use crate::common::scene::start_times;
use crate::common::{Place, docker, output};

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn parts_are_restored_in_place_and_nothing_else_changes() {
    let mixed = Mixed::new();
    let stack = &mixed.stack;
    let restore = |options: &[&str]| mixed.restore(&[&["--yes", "--only"], options].concat());
    mixed.change();
    let ids = stack.ids();

    // One file, named as the stack's owner knows it. Its size is shown.
    let shown = mixed
        .restore(&["--dry-run", "--only", "conf/app.ini"])
        .expect_status(0)
        .stdout;
    assert!(shown.contains("conf/app.ini (9 B in 1 member)"), "{shown}");
    assert!(!shown.contains("outside"), "{shown}");
    restore(&["conf/app.ini"]).expect_status(0);
    assert_eq!(stack.read("conf/app.ini"), "archived\n");
    assert_eq!(stack.read("inside/generation"), "changed\n");
    assert_eq!(mixed.generations(), ["archived", "changed"]);
    assert_eq!(stack.running(), RUNNING);
    assert_eq!(stack.ids(), ids);

    // A directory that is gone is made again, with what is asked for in it.
    fs::write(stack.dir.join("inside/other"), "").unwrap();
    fs::remove_dir_all(stack.dir.join("inside")).unwrap();
    restore(&["inside/generation"]).expect_status(0);
    assert_eq!(stack.read("inside/generation"), "archived\n");

    // A volume, whose new files go; a directory and a file, as the container knows them.
    restore(&["data", "forge:/outside/gen*", "/etc/secret"]).expect_status(0);
    restore(&["repos"]).expect_status(0);
    mixed.assert_archived("all parts were restored");
    let trees = [
        mixed.trees(),
        vec![stack.dir.join("conf/x"), stack.dir.join("inside/x")],
    ];
    mixed
        .place
        .assert_no_restore(&trees.concat(), "all parts were restored");

    // What is not there changes nothing.
    mixed.change();
    for (names, expected) in [
        (
            &["data", "nothing"][..],
            "nothing in the archive is called nothing",
        ),
        (&["data/other name"], "name the directory that it is in"),
        (&["/no/such/mount"], "neither in a tree of the archive"),
    ] {
        let refused = restore(names).expect_status(1);
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    }
    mixed.assert_changed("refused");
    // The old data of a part stays beside it.
    restore(&["inside/generation", "--keep-old"]).expect_status(0);
    let names = fs::read_dir(stack.dir.join("inside")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let kept = names.filter(|name| name.starts_with(".generation.before-"));
    assert_eq!(kept.count(), 1);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_live_restore_of_a_part_leaves_the_stack_running() {
    let mixed = Mixed::new();
    let stack = &mixed.stack;
    mixed.change();
    let before = start_times(stack);
    let shown = mixed.restore(&["--dry-run", "--live", "--only", "inside/generation"]);
    let shown = shown.expect_status(0).stdout;
    assert!(shown.contains("goes on running"), "{shown}");
    let live = |part: &str| mixed.restore(&["--yes", "--live", "--only", part]);
    live("inside/generation").expect_status(0);
    assert_eq!(
        stack.exec("forge", &["cat", "/inside/generation"]),
        "archived"
    );
    assert_eq!(start_times(stack), before);
    // What is mounted as a whole would stay as it is in the container.
    for part in ["data", "conf/app.ini"] {
        let refused = live(part).expect_status(1);
        assert!(
            refused.stderr.contains("is in use"),
            "{part}: {}",
            refused.stderr
        );
    }
    assert_eq!(start_times(stack), before);
    // The control: without `--live`, the stack is stopped and started.
    mixed
        .restore(&["--yes", "--only", "inside/generation"])
        .expect_status(0);
    assert_ne!(start_times(stack), before);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn missing_external_networks_and_volumes_are_named_and_made_if_asked() {
    let place = Place::new();
    let stack = place.stack("paused");
    let name = |kind: &str| format!("{}-{kind}", stack.name);
    let compose = format!(
        "{}    networks: [proxy]\n    volumes: [\"media:/media\"]\n\
         networks: {{proxy: {{external: true, name: {}}}}}\n\
         volumes: {{media: {{external: true, name: {}}}}}\n",
        stack.read("compose.yaml"),
        name("proxy"),
        name("media")
    );
    fs::write(stack.dir.join("compose.yaml"), compose).unwrap();
    docker(["network", "create", &name("proxy")]);
    docker(["volume", "create", &name("media")]);
    stack.up();
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
    let remove_externals = || {
        docker(["network", "rm", &name("proxy")]);
        docker(["volume", "rm", &name("media")]);
    };
    stack.remove();
    remove_externals();
    let restore = |more: &[&str]| {
        let what = [&["restore", &stack.name, "--yes"], more].concat();
        output(&mut place.program(&what))
    };
    let refused = restore(&[]).expect_status(1).stderr;
    for missing in [name("proxy"), name("media")] {
        assert!(refused.contains(&missing), "{refused}");
    }
    assert!(refused.contains("--create-external"), "{refused}");
    assert!(!stack.dir.exists());
    restore(&["--create-external"]).expect_status(0);
    assert_eq!(stack.running(), ["app:running"]);
    // The control: nothing is missing now.
    restore(&[]).expect_status(0);
    stack.remove();
    remove_externals();
}
