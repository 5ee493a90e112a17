//! Which archive is the newest of its stack, and what is said if that cannot be
//! used.

use std::fs;
use std::path::PathBuf;

use crate::common::{Ended, Place, output};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Returns an archive with a manifest, and a file `<stack>/f` with this content.
fn archive(stack: &str, captured: &str, content: &str) -> Vec<u8> {
    let with_length = |archive_bytes: u64| {
        let manifest = json!({
            "formatVersion": 1, "programVersion": "0.1.0", "stack": stack, "project": stack,
            "host": "h", "trees": {stack: format!("/opt/stacks/{stack}")}, "capture": "offline",
            "stopMethod": "stop", "captured": captured, "downtimeMs": null, "running": [],
            "images": [], "volumes": [], "coverage": [], "archiveBytes": archive_bytes,
            "contentBytes": content.len(), "memberCount": 2, "socketCount": 0,
            "excludedCount": 0, "changedCount": 0, "changed": [], "compose": null,
        });
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind: tar::EntryType, data: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_path(path).unwrap();
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_size(data.len() as u64);
            header.set_cksum();
            tar.append(&header, data).unwrap();
        };
        let name = format!("{stack}.manifest.json");
        add(
            &name,
            tar::EntryType::Regular,
            manifest.to_string().as_bytes(),
        );
        add(&format!("{stack}/"), tar::EntryType::Directory, b"");
        add(
            &format!("{stack}/f"),
            tar::EntryType::Regular,
            content.as_bytes(),
        );
        tar.into_inner().unwrap()
    };
    let length = with_length(1 << 12).len() as u64;
    with_length(length)
}

struct Scene {
    place: Place,
    count: usize,
}

impl Scene {
    fn new() -> Scene {
        let place = Place::new();
        place.config(
            json!(["web", "other"]),
            json!({"retention": {"keepLast": 100}}),
        );
        Scene { place, count: 0 }
    }

    /// Puts an archive of `made_of` into the directory of `web`. Its content is
    /// its name.
    fn put(&self, name: &str, made_of: &str, captured: &str) -> PathBuf {
        let path = self.place.store().join("web").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, archive(made_of, captured, name)).unwrap();
        path
    }

    fn restore(&mut self, what: &str, more: &[&str]) -> (Ended, String) {
        self.count += 1;
        let dir = self.place.path(&format!("restored-{}", self.count));
        let args = [&["restore", what, "--to", dir.to_str().unwrap()], more].concat();
        let ended = output(&mut self.place.program(&args));
        (
            ended,
            fs::read_to_string(dir.join("web/f")).unwrap_or_default(),
        )
    }

    fn list(&self) -> Value {
        output(&mut self.place.program(&["list", "--json", "web"]))
            .expect_status(0)
            .items("archives")
    }
}

#[test]
fn newer_archives_that_cannot_be_used_are_named_and_need_a_word() {
    let good = "web_20260102_030000.tar";
    let future = Timestamp::now() + SignedDuration::from_hours(24 * 365);
    let future = future.strftime("web_%Y%m%d_030000.tar").to_string();
    let newer = "web_20260103_030000.tar";
    let cases: [(&str, &str, &str); 3] = [
        (newer, "other", "is of the stack other"),
        (&future, "web", "is dated in the future"),
        (newer, "web", "is incomplete"),
    ];
    for (name, made_of, why) in cases {
        let mut scene = Scene::new();
        scene.put(
            "web_20260101_030000.tar",
            "web",
            "2026-01-01T03:00:01+00:00",
        );
        scene.put(good, "web", "2026-01-02T03:00:01+00:00");
        // The control: as yet the good one is the newest.
        let (ended, content) = scene.restore("web", &[]);
        ended.expect_status(0);
        assert_eq!(content, good);

        let path = scene.put(name, made_of, "2026-01-03T03:00:01+00:00");
        if why == "is incomplete" {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() - 512).unwrap();
        }
        let (ended, content) = scene.restore("web", &[]);
        let stderr = ended.expect_status(1).stderr;
        assert!(stderr.contains(name) && stderr.contains(why), "{stderr}");
        assert!(stderr.contains("--pass-over"), "{stderr}");
        assert_eq!(content, "");
        let (ended, content) = scene.restore("web", &["--pass-over"]);
        let stderr = ended.expect_status(0).stderr;
        assert!(stderr.contains(name) && stderr.contains(why), "{stderr}");
        assert_eq!(content, good);
        let (ended, content) = scene.restore("web@20260102", &[]);
        ended.expect_status(0);
        assert_eq!(content, good);
        // It is not counted, and not pruned.
        scene
            .place
            .config(json!(["web"]), json!({"retention": {"keepLast": 1}}));
        output(&mut scene.place.program(&["prune"])).expect_status(0);
        let left = scene.place.stored("web");
        assert!(left.contains(&good.to_owned()), "{left:?}");
        assert!(
            !left.contains(&"web_20260101_030000.tar".to_owned()),
            "{left:?}"
        );
        assert_eq!(
            left.contains(&name.to_owned()),
            why != "is incomplete",
            "{left:?}"
        );
    }
}

#[test]
fn an_archive_of_another_stack_is_refused() {
    let mut scene = Scene::new();
    scene.put(
        "web_20260101_030000.tar",
        "other",
        "2026-01-01T03:00:01+00:00",
    );
    for what in ["web", "web@2026"] {
        for more in [&["--yes"][..], &["--yes", "--pass-over"], &["--diff"]] {
            let args = [&["restore", what], more].concat();
            let stderr = output(&mut scene.place.program(&args))
                .expect_status(1)
                .stderr;
            assert!(stderr.contains("the stack other"), "{stderr}");
        }
    }
    let list = output(&mut scene.place.program(&["list"]))
        .expect_status(0)
        .stdout;
    assert!(list.contains("OF THE STACK other"), "{list}");
    assert_eq!(scene.list()[0]["otherStack"], "other");
    // It can be looked at.
    let (ended, _) = scene.restore("web@2026", &[]);
    ended.expect_status(0);
    // The control: an archive of the stack itself.
    scene.put(
        "web_20260102_030000.tar",
        "web",
        "2026-01-02T03:00:01+00:00",
    );
    assert_eq!(scene.list()[1]["otherStack"], Value::Null);
    let (ended, _) = scene.restore("web", &[]);
    ended.expect_status(0);
}

#[test]
fn where_clocks_go_back_the_archive_made_last_is_the_newest() {
    let mut scene = Scene::new();
    let (summer, winter) = ("web_20251026_025000.tar", "web_20251026_021000.tar");
    scene.put(summer, "web", "2025-10-26T02:50:01+02:00");
    scene.put(winter, "web", "2025-10-26T02:10:01+01:00");
    // A backup that began before the change and was captured after it.
    scene.put(
        "web_20251026_024000.tar",
        "web",
        "2025-10-26T02:05:00+01:00",
    );
    let (ended, content) = scene.restore("web", &[]);
    ended.expect_status(0);
    assert_eq!(content, winter);
    let list = scene.list();
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|archive| {
            archive["path"]
                .as_str()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
        })
        .collect();
    assert_eq!(names, [summer, "web_20251026_024000.tar", winter]);
    assert_eq!(list[0]["time"], "2025-10-26T02:50:00+02:00");
    scene
        .place
        .config(json!(["web"]), json!({"retention": {"keepLast": 1}}));
    output(&mut scene.place.program(&["prune"])).expect_status(0);
    assert_eq!(scene.place.stored("web"), [winter]);
}

#[test]
fn state_and_archives_of_another_zone_are_read_without_a_time_zone_database() {
    let mut scene = Scene::new();
    let time = "2026-01-01T03:00:01+13:00[Nowhere/No_Such_Zone]";
    scene.put("web_20260101_030000.tar", "web", time);
    let (ended, content) = scene.restore("web", &[]);
    ended.expect_status(0);
    assert_eq!(content, "web_20260101_030000.tar");
    assert_eq!(scene.list()[0]["time"], "2026-01-01T03:00:00+13:00");

    // The outcome that a run writes has the zone in a field of its own.
    let empty = scene.place.path("no-zones");
    fs::create_dir(&empty).unwrap();
    output(&mut scene.place.program(&["run"])).expect_status(2);
    let file = scene.place.state().join("last-run.json");
    let last = fs::read_to_string(&file).unwrap();
    let mut json: Value = serde_json::from_str(&last).unwrap();
    assert!(!last.contains("+00:00["), "{last}");
    assert!(json.as_object().unwrap().contains_key("timeZone"), "{last}");
    json["started"] = json!(time);
    fs::write(&file, json.to_string()).unwrap();
    let report = output(scene.place.program(&["report"]).env("TZDIR", &empty));
    let text = report.expect_status(0).stdout;
    assert!(text.contains("2026-01-01 03:00:01 +13:00"), "{text}");
}
