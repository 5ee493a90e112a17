//! Drills of real stacks, while the real one runs beside.

mod common;

use std::fs;

use common::scene::at_call;
use common::shop::Shop;
use common::{Ended, Place, docker, output};
use serde_json::{Value, json};

trait Drilled {
    fn drill(&self, command: &[&str]) -> Ended;
    fn traces(&self) -> Vec<String>;
}

impl Drilled for Shop {
    fn drill(&self, command: &[&str]) -> Ended {
        let args = [&["--json", "drill", &self.stack.name, "--"], command].concat();
        output(&mut self.place.program(&args))
    }

    /// Everything of the throw-away project.
    fn traces(&self) -> Vec<String> {
        let filter = format!(
            "label=com.docker.compose.project=dsbdrill-{}",
            self.stack.name
        );
        let list = |args: &[&str]| docker([args, &["--quiet", "--filter", &filter]].concat());
        let mut traces = vec![
            list(&["ps", "--all"]),
            list(&["volume", "ls"]),
            list(&["network", "ls"]),
        ];
        traces.retain(|found| !found.is_empty());
        let scratch = fs::read_dir(self.place.state().join("drill"));
        traces.extend(
            scratch
                .into_iter()
                .flatten()
                .map(|e| e.unwrap().path().display().to_string()),
        );
        traces
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_drill_starts_the_archived_data_and_leaves_no_trace() {
    let shop = Shop::new();
    let (ids, states) = (shop.stack.ids(), shop.stack.states());
    // Since the archive: the drill must not see it.
    shop.stack
        .exec("cache", &["redis-cli", "set", "visitors", "43"]);
    let check = "test \"$(redis-cli get visitors)\" = 42";
    let json: Value = shop
        .drill(&["cache", "sh", "-c", check])
        .expect_status(0)
        .json();
    assert_eq!(json[0]["problems"], json!([]));
    assert_eq!(json[0]["services"], json!(["app", "cache", "db"]));
    assert_eq!(shop.traces(), [""; 0]);
    // The environment is as it was resolved, the uploads are there, and there
    // is no way out.
    let greeting = shop.stack.exec("app", &["sh", "-c", "echo \"$GREETING\""]);
    assert!(greeting.contains('$'), "{greeting}");
    let check = format!(
        "test \"$GREETING\" = '{greeting}' && test -s /uploads/picture && ! ip route | grep default"
    );
    let json = shop.drill(&["app", "sh", "-c", &check]).json();
    assert_eq!(json[0]["problems"], json!([]));
    // The control: a check that fails is told.
    let json = shop.drill(&["app", "false"]).expect_status(2).json();
    assert!(
        json[0]["problems"][0]
            .as_str()
            .unwrap()
            .contains("the check command"),
        "{json}"
    );
    assert_eq!(shop.traces(), [""; 0]);
    // The real one was left alone.
    assert_eq!((shop.stack.ids(), shop.stack.states()), (ids, states));
    assert_eq!(
        shop.stack.exec("cache", &["redis-cli", "get", "visitors"]),
        "43"
    );
    let list = output(&mut shop.place.program(&["list", "--json"]))
        .expect_status(0)
        .json();
    assert!(
        list[0]["drilled"]["problems"][0].as_str().is_some(),
        "{list}"
    );
    // The next run tells of it.
    let json = shop.place.run().expect_status(0).json();
    let outcome = shop.stack.outcome(&json);
    assert!(outcome["drilled"]["time"].is_string(), "{json}");
    let warnings = outcome["warnings"].to_string();
    assert!(
        warnings.contains("the drill of") && warnings.contains("the check command"),
        "{json}"
    );
    shop.drill(&["app", "true"]).expect_status(0);
    let json = shop.place.run().expect_status(0).json();
    let outcome = shop.stack.outcome(&json);
    assert_eq!(outcome["drilled"]["problems"], json!([]));
    assert!(!outcome["warnings"].to_string().contains("drill"), "{json}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_drill_killed_at_any_docker_call_leaves_no_trace_after_recover() {
    let shop = Shop::new();
    let mut traces = 0;
    for n in 1.. {
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
        traces += usize::from(!shop.traces().is_empty());
        output(&mut shop.place.program(&["recover"])).expect_status(0);
        assert_eq!(shop.traces(), [""; 0], "{point}");
    }
    assert!(traces > 2, "{traces}");
    assert_eq!(shop.traces(), [""; 0]);
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
    let all = drill(&[]).expect_status(0).json();
    assert_eq!(all[0]["stack"], redis.name);
    assert_eq!(all[1]["stack"], web.name);
    // One that has no archive keeps none of the others from being drilled.
    let new = place.stack("paused");
    place.config(json!([redis.name, new.name, web.name]), json!({}));
    let all = drill(&[]).expect_status(2).json();
    for (i, is_healthy) in [true, false, true].into_iter().enumerate() {
        assert_eq!(all[i]["problems"] == json!([]), is_healthy, "{all}");
    }
    let problem = all[1]["problems"][0].as_str().unwrap();
    assert!(problem.contains("there is no archive of a stack"), "{all}");
    let ended = drill(&["--", "web", "true"]).expect_status(1);
    assert!(ended.stderr.contains("name the stack"), "{}", ended.stderr);
}
