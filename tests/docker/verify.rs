//! `verify`, sidecars of archives, and the consequences of damage.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Place, Stack, output};
use serde_json::json;

/// A stack that is down, and `count` archives of it, a day apart.
fn archived(count: usize) -> (Place, Stack, Vec<PathBuf>) {
    let place = Place::new();
    let stack = place.stack("web");
    place.config(
        json!([{"name": stack.name}]),
        json!({"retention": {"keepLast": 1}}),
    );
    let dir = place.store().join(&stack.name);
    place.run().expect_status(0);
    let first = place.archive(&stack.name);
    let mut archives = Vec::new();
    for day in 1..=count {
        let name = |suffix: &str| dir.join(format!("{}_2020010{day}_000000{suffix}", stack.name));
        fs::copy(&first, name(".tar")).unwrap();
        fs::copy(first.with_extension("sums"), name(".sums")).unwrap();
        archives.push(name(".tar"));
    }
    for sidecar in ["sums", "checks.json"] {
        fs::remove_file(first.with_extension(sidecar)).unwrap();
    }
    fs::remove_file(first).unwrap();
    (place, stack, archives)
}

fn damage(archive: &Path) {
    let mut bytes = fs::read(archive).unwrap();
    let at = bytes.windows(4).rposition(|four| four == b"html").unwrap() + 600;
    bytes[at] ^= 1;
    fs::write(archive, bytes).unwrap();
}

fn prune(place: &Place) -> Vec<String> {
    let ended = output(&mut place.program(&["prune", "--dry-run", "--json"])).expect_status(0);
    let views = ended.items("archives");
    let kept = views
        .as_array()
        .unwrap()
        .iter()
        .filter(|view| view["keep"] == true);
    kept.map(|view| view["path"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_damaged_archive_is_reported_and_no_longer_counts_as_good() {
    let (place, stack, archives) = archived(3);
    output(&mut place.program(&["verify"])).expect_status(0);
    assert_eq!(prune(&place), [archives[2].display().to_string()]);
    damage(&archives[2]);
    let ended = output(&mut place.program(&["verify", &stack.name])).expect_status(2);
    assert!(ended.stdout.contains("DAMAGED"), "{}", ended.stdout);
    assert_eq!(prune(&place), [archives[1].display().to_string()]);
    let list = output(&mut place.program(&["list"]))
        .expect_status(0)
        .stdout;
    assert_eq!(list.matches("DAMAGED").count(), 1, "{list}");
    // A restore without a named archive names it, and does not use it.
    let to = place.path("restored");
    let restore = ["restore", &stack.name, "--to", to.to_str().unwrap()];
    let refused = output(&mut place.program(&restore)).expect_status(1);
    let problem = "20200103_000000.tar is damaged";
    assert!(refused.stderr.contains(problem), "{}", refused.stderr);
    assert!(!to.exists());
    let pass_over = [&restore[..], &["--pass-over"]].concat();
    output(&mut place.program(&pass_over)).expect_status(0);
    // Each run warns about it as long as it exists.
    let warnings = || {
        let json = place.run().expect_status(0).json();
        let outcome = stack.outcome(&json).clone();
        fs::remove_file(outcome["archive"]["path"].as_str().unwrap()).unwrap();
        outcome["warnings"].to_string()
    };
    let keep = json!({"retention": null});
    place.config(json!([{"name": stack.name}]), keep);
    assert!(warnings().contains("20200103_000000.tar damaged on"));
    // A repaired archive counts as good again.
    fs::copy(&archives[1], &archives[2]).unwrap();
    output(&mut place.program(&["verify", archives[2].to_str().unwrap()])).expect_status(0);
    assert!(!warnings().contains("damaged"));
    place.config(
        json!([{"name": stack.name}]),
        json!({"retention": {"keepLast": 1}}),
    );
    assert_eq!(prune(&place), [archives[2].display().to_string()]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn sidecars_are_removed_with_their_archive() {
    let (place, stack, archives) = archived(2);
    output(&mut place.program(&["verify"])).expect_status(0);
    let names = || {
        let listing = fs::read_dir(place.store().join(&stack.name)).unwrap();
        let mut names: Vec<String> = listing
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names().len(), 6, "{:?}", names());
    output(&mut place.program(&["prune"])).expect_status(0);
    assert_eq!(names().len(), 3, "{:?}", names());
    assert!(
        names().iter().all(|name| name.contains("20200102")),
        "{:?}",
        names()
    );
    // A sums file without its archive is removed, and an archive without sums
    // is complete.
    fs::copy(
        archives[1].with_extension("sums"),
        archives[0].with_extension("sums"),
    )
    .unwrap();
    fs::write(place.store().join(&stack.name).join("mine.sums"), "mine").unwrap();
    fs::remove_file(archives[1].with_extension("sums")).unwrap();
    place.run().expect_status(0);
    assert!(!archives[0].with_extension("sums").exists());
    assert!(place.store().join(&stack.name).join("mine.sums").exists());
    let list = output(&mut place.program(&["list", "--json"]))
        .expect_status(0)
        .items("archives");
    assert_eq!(list[0]["complete"], true);
    assert_eq!(list[0]["damaged"], false);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn sums_are_made_as_configured() {
    for (verify, has_sums) in [
        ("none", false),
        ("structure", false),
        ("written", true),
        ("full", true),
    ] {
        let place = Place::new();
        let stack = place.stack("web");
        place.config(json!([{"name": stack.name, "verify": verify}]), json!({}));
        place.run().expect_status(0);
        let archive = place.archive(&stack.name);
        assert_eq!(
            archive.with_extension("sums").exists(),
            has_sums,
            "{verify}"
        );
        let members = output(&mut place.program(&[
            "list",
            archive.to_str().unwrap(),
            &format!("{}/html", stack.name),
        ]));
        let members = members.expect_status(0).stdout;
        assert_eq!(
            members,
            format!("{0}/html/\n{0}/html/index.html\n", stack.name)
        );
    }
}
