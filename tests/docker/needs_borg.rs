//! A run that hands its archive over to real Borg.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{Place, output};

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_hands_over_what_it_made_and_a_failure_hurts_nothing() {
    let place = Place::new();
    let stack = place.stack("web");
    stack.up();
    let states = stack.states();
    let repository = |name: &str| {
        json!({
            "kind": "borg",
            "name": name,
            "repository": place.path(name),
            "environment": { "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes" },
        })
    };
    let borg = || {
        let mut borg = Command::new("borg");
        borg.env("BORG_REPO", place.path("good"))
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
            .env("BORG_BASE_DIR", place.path("borg"));
        borg
    };
    output(borg().args(["init", "--encryption", "none"])).expect_status(0);
    let both = json!({
        "handover": [repository("missing"), repository("good")],
        "retention": { "keepLast": 1 },
    });
    place.config(json!([stack.name]), both);
    let run = place.run().expect_status(2);
    let outcome = run.json();
    assert_eq!(outcome["stacks"][0]["status"], "ok");
    assert_eq!(stack.states(), states);
    let name = place.stored(&stack.name).remove(0);
    let [missing, good] = [0, 1].map(|i| &outcome["handovers"][i]);
    assert!(missing["error"].is_string(), "{missing}");
    assert_eq!(missing["waitingCount"], 1);
    let kinds = good["steps"].as_array().unwrap().iter();
    let kinds: Vec<&Value> = kinds.map(|step| &step["kind"]).collect();
    assert_eq!(kinds, ["archive", "check"], "{good}");
    assert_eq!(good["steps"][0]["archive"], name);
    assert_eq!(
        (&good["error"], &good["waitingCount"]),
        (&Value::Null, &json!(0))
    );
    let report = output(&mut place.program(&["report"])).stdout;
    for expected in [
        "FAILURE: missing not up to date; 1 stack backed up",
        "off-site missing: ",
        &format!("good: {name}: ok"),
        "missing: 1 archive waiting",
        "docker-stack-backup handover",
    ] {
        assert!(report.contains(expected), "{expected}: {report}");
    }

    // What one repository still lacks is pruned from the store by the next run, and told by the
    // one after it; the other one has everything.
    place.run().expect_status(2);
    assert_ne!(place.stored(&stack.name), [name.as_str()]);
    let mut init = borg();
    init.env("BORG_REPO", place.path("missing"));
    output(init.args(["init", "--encryption", "none"])).expect_status(0);
    let outcome = place.run().expect_status(0).json();
    let lost = outcome["handovers"][0]["warnings"].to_string();
    assert!(
        lost.contains(&format!("{name} was removed from the store")),
        "{lost}"
    );
    let listed = |repository: &str| {
        let mut list = borg();
        list.env("BORG_REPO", place.path(repository));
        output(list.args(["list", "--short"]))
            .expect_status(0)
            .stdout
    };
    assert_eq!(listed("good").lines().count(), 3);
    assert_eq!(listed("missing").lines().count(), 2);

    // The way back, into the running stack.
    let newest = listed("good").lines().last().unwrap().to_owned();
    fs::write(stack.dir.join("compose.yaml.new"), "new").unwrap();
    let script = format!(
        "borg extract --stdout ::{newest} {}.tar | $P --config $C restore {} --from - --yes",
        newest.split('@').next().unwrap(),
        stack.name
    );
    let borg = borg();
    let mut back = Command::new("bash");
    back.envs(
        borg.get_envs()
            .filter_map(|(key, value)| Some((key, value?))),
    )
    .args(["-c", &format!("set -o pipefail; {script}")])
    .env("P", crate::common::PROGRAM)
    .env("C", place.path("config.json"));
    output(&mut back).expect_status(0);
    assert!(!stack.dir.join("compose.yaml.new").exists());
    assert_eq!(stack.states(), states);
}
