//! The compose file of a throw-away project, and the copies that it mounts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::compose::compose;
use super::copy::{CopyLocation, find};
use super::volumes::volumes;
use crate::archive::Manifest;

/// The manifest of a stack in /opt/stacks/web, which is a symlink to /data/web.
fn manifest(running: &[&str], compose: Value) -> Manifest {
    serde_json::from_value(json!({
        "formatVersion": 1, "programVersion": "", "stack": "web", "project": "web", "host": "",
        "trees": {
            "web": "/opt/stacks/web",
            "web.binds/srv/media": "/srv/media",
            "web.volumes/web_data": "/var/lib/docker/volumes/web_data/_data",
        },
        "realTrees": {"web": "/data/web"},
        "capture": "offline", "stopMethod": "stop", "captured": "2026-11-24T02:00:00+00:00[UTC]",
        "downtimeMs": null, "running": running, "volumes": [], "coverage": [],
        "images": [{"service": "built", "reference": "web-built", "id": "", "digests": []}],
        "archiveBytes": 0, "contentBytes": 0, "memberCount": 0, "socketCount": 0,
        "excludedCount": 0, "changedCount": 0, "changed": [], "compose": compose,
    }))
    .unwrap()
}

/// Pretends that the copy has most paths of the stack's directory.
fn copy(path: &str) -> CopyLocation {
    match path.strip_prefix("/opt/stacks/web/") {
        Some("missing") => CopyLocation::Absent("/copy/missing".into()),
        Some("link") => CopyLocation::Outside("a symlink leads elsewhere".to_owned()),
        Some(within) => CopyLocation::Present(Path::new("/copy").join(within)),
        None => CopyLocation::Outside(format!("the archive does not hold {path}")),
    }
}

/// Returns the drilled service `app`, and notes. `peer` is drilled, too; `down` is
/// not.
#[track_caller]
fn drilled(app: Value) -> (Value, Vec<String>) {
    let services = json!({"app": app, "peer": {"image": "p"}, "down": {"image": "d"}});
    let (compose, notes) = compose(
        &manifest(&["app", "peer"], json!({"services": services})),
        "dsbdrill-web",
        &copy,
    )
    .unwrap();
    (compose["services"]["app"].clone(), notes)
}

#[test]
fn fields_that_reach_beyond_the_container_are_left_out() {
    // Field, value, rewritten value, and whether there is a note.
    let cases = [
        ("labels", json!({"traefik.enable": "true"}), None, false),
        ("label_file", json!(["./labels"]), None, false),
        ("annotations", json!({"a": "b"}), None, true),
        ("container_name", json!("web"), None, false),
        ("ports", json!([{"target": 80}]), None, false),
        ("external_links", json!(["db:db"]), None, true),
        ("network_mode", json!("host"), None, true),
        ("network_mode", json!("container:x"), None, true),
        ("network_mode", json!("service:down"), None, true),
        (
            "network_mode",
            json!("service:peer"),
            Some(json!("service:peer")),
            false,
        ),
        ("network_mode", json!("none"), Some(json!("none")), false),
        ("pid", json!("host"), None, true),
        ("pid", json!("container:x"), None, true),
        ("ipc", json!("host"), None, true),
        ("ipc", json!("shareable"), Some(json!("shareable")), false),
        ("uts", json!("host"), None, true),
        ("cgroup", json!("host"), None, true),
        ("cgroup_parent", json!("system.slice"), None, true),
        ("userns_mode", json!("host"), None, true),
        ("devices", json!(["/dev/sda:/dev/sda"]), None, true),
        ("device_cgroup_rules", json!(["a *:* rwm"]), None, true),
        ("gpus", json!([{"count": -1}]), None, true),
        ("runtime", json!("nvidia"), None, true),
        ("privileged", json!(true), None, true),
        ("privileged", json!(false), None, false),
        ("oom_score_adj", json!(-1000), None, true),
        ("use_api_socket", json!(true), None, true),
        ("models", json!({"llm": {}}), None, true),
        ("provider", json!({"type": "x"}), None, true),
        ("learnt_later", json!("x"), None, true),
        ("pre_stop", json!([{"command": ["x"]}]), None, false),
        (
            "post_start",
            json!([{"command": ["x"], "privileged": true}]),
            Some(json!([{"command": ["x"]}])),
            false,
        ),
        (
            "cap_add",
            json!(["SYS_TIME", "CAP_SYS_MODULE", "all", "NET_ADMIN"]),
            Some(json!(["NET_ADMIN"])),
            true,
        ),
        (
            "security_opt",
            json!(["systempaths=unconfined", "no-new-privileges:true"]),
            Some(json!(["no-new-privileges:true"])),
            true,
        ),
        (
            "volumes_from",
            json!(["container:live", "container:live:ro", "down", "peer:ro"]),
            Some(json!(["peer:ro"])),
            true,
        ),
        (
            "links",
            json!(["peer:database", "down"]),
            Some(json!(["peer:database"])),
            true,
        ),
        (
            "depends_on",
            json!({"peer": {"condition": "service_started"}, "down": {}}),
            Some(json!({"peer": {"condition": "service_started"}})),
            false,
        ),
        (
            "deploy",
            json!({"replicas": 3, "resources": {
                "limits": {"memory": "1"},
                "reservations": {"devices": [{"capabilities": ["gpu"]}]},
            }}),
            Some(json!({"resources": {"limits": {"memory": "1"}}})),
            true,
        ),
        (
            "logging",
            json!({"driver": "gelf", "options": {"gelf-address": "udp://a:1"}}),
            Some(json!({"driver": "local"})),
            false,
        ),
        ("restart", json!("always"), Some(json!("no")), false),
        ("hostname", json!("rabbit"), Some(json!("rabbit")), false),
        ("mac_address", json!("02:42:ac:11:00:02"), None, true),
        ("mem_limit", json!("1"), Some(json!("1")), false),
    ];
    for (field, value, left, has_note) in cases {
        let (service, notes) = drilled(json!({"image": "a", field: value}));
        assert_eq!(service.get(field), left.as_ref(), "{field}: {value}");
        assert_eq!(!notes.is_empty(), has_note, "{field}: {value}: {notes:?}");
        let said = format!("service app: without its {field}");
        assert!(
            notes.iter().all(|note| note.starts_with(&said)),
            "{notes:?}"
        );
    }
}

#[test]
fn networks_are_internal_and_have_no_addresses() {
    let services = json!({"app": {"image": "a", "networks": {
        "proxy": {"aliases": ["www"], "ipv4_address": "172.18.0.2", "mac_address": "x"},
    }}});
    let networks = json!({"proxy": {
        "name": "proxy", "external": true, "driver": "macvlan", "labels": {"a": "b"},
    }});
    let config = json!({"services": services, "networks": networks});
    let (compose, _) = compose(&manifest(&["app"], config), "dsbdrill-web", &copy).unwrap();
    let internal = json!({"internal": true});
    assert_eq!(
        compose["networks"],
        json!({"default": internal, "proxy": internal})
    );
    assert_eq!(
        compose["services"]["app"]["networks"],
        json!({"proxy": {"aliases": ["www"]}})
    );
}

#[test]
fn mounts_are_from_the_archive_or_empty_or_left_out() {
    let bind = |source: &str| json!({"type": "bind", "source": source, "target": "/t", "bind": {"propagation": "shared"}});
    let bind_of_copy =
        |path: &str| json!({"type": "bind", "source": path, "target": "/t", "bind": {}});
    let volume = |source: &str| json!({"type": "volume", "source": source, "target": "/t"});
    let tmpfs = json!({"type": "tmpfs", "target": "/t"});
    let cases = [
        (
            bind("/opt/stacks/web/db"),
            Some(bind_of_copy("/copy/db")),
            "",
        ),
        (
            bind("/opt/stacks/web/missing"),
            Some(bind_of_copy("/copy/missing")),
            "empty at /t, the archive does not hold /opt/stacks/web/missing",
        ),
        (
            bind("/opt/stacks/web/link"),
            None,
            "nothing at /t, a symlink leads elsewhere",
        ),
        (
            bind("/var/run/docker.sock"),
            None,
            "nothing at /t, the archive does not hold /var/run/docker.sock",
        ),
        (volume("data"), Some(volume("data")), ""),
        (
            volume("other"),
            Some(volume("other")),
            "an empty volume at /t, the archive does not hold web_other",
        ),
        (tmpfs.clone(), Some(tmpfs), ""),
        (
            json!({"type": "cluster", "source": "x", "target": "/t"}),
            None,
            "nothing at /t, which is a cluster",
        ),
    ];
    let names = json!({
        "data": {"name": "web_data", "labels": {"a": "b"}},
        "other": {"name": "web_other", "driver_opts": {"type": "nfs"}},
    });
    for (mount, left, note) in cases {
        let config = json!({
            "services": {"app": {"image": "a", "volumes": [mount]}}, "volumes": names,
        });
        let manifest = manifest(&["app"], config);
        let (compose, notes) = compose(&manifest, "dsbdrill-web", &copy).unwrap();
        let left = Value::from_iter(left);
        assert_eq!(compose["services"]["app"]["volumes"], left, "{mount}");
        let notes: Vec<&str> = notes
            .iter()
            .map(|told| told.strip_prefix("service app: ").unwrap())
            .collect();
        let expected: Vec<&str> = [note].into_iter().filter(|note| !note.is_empty()).collect();
        assert_eq!(notes, expected);
        let filled = volumes(&manifest, "dsbdrill-web").unwrap();
        let is_filled = mount["source"] == "data";
        assert_eq!(filled.contains_key("web.volumes/web_data"), is_filled);
        for (key, config) in compose["volumes"].as_object().unwrap() {
            let name = format!("dsbdrill-web_{key}");
            let expected = match is_filled {
                true => json!({"name": name, "external": true}),
                false => json!({"name": name}),
            };
            assert_eq!(*config, expected);
        }
    }
}

#[test]
fn secrets_are_from_the_archive_or_the_machine_but_never_behind_a_symlink() {
    let secret = |file: &str| json!({"name": "web_x", "file": file, "labels": {"a": "b"}});
    let cases = [
        (
            secret("/opt/stacks/web/key"),
            Some(json!({"file": "/copy/key"})),
            "",
        ),
        (
            secret("/opt/stacks/web/link"),
            None,
            "secrets: without x, a symlink leads elsewhere",
        ),
        (
            secret("/opt/stacks/web/missing"),
            None,
            "secrets: without x, the archive does not hold /opt/stacks/web/missing",
        ),
        (
            secret("/run/secrets/x"),
            Some(json!({"file": "/run/secrets/x"})),
            "secrets: x is the one of this machine, the archive does not hold /run/secrets/x",
        ),
        (
            json!({"external": true, "name": "x"}),
            None,
            "secrets: without x, which is external",
        ),
        (
            json!({"environment": "X"}),
            Some(json!({"environment": "X"})),
            "",
        ),
    ];
    for (secret, left, note) in cases {
        let config = json!({
            "services": {"app": {"image": "a", "secrets": [{"source": "x", "target": "/x"}]}},
            "secrets": {"x": secret},
        });
        let (compose, notes) = compose(&manifest(&["app"], config), "p", &copy).unwrap();
        assert_eq!(compose["secrets"].get("x"), left.as_ref(), "{secret}");
        let uses = compose["services"]["app"]["secrets"].as_array().unwrap();
        assert_eq!(uses.len(), usize::from(left.is_some()), "{secret}");
        assert_eq!(notes.concat(), note);
    }
}

#[test]
fn a_service_that_was_built_uses_its_built_image() {
    let config = json!({"services": {"built": {"build": {"context": "/x"}}}});
    let (compose, _) = compose(&manifest(&["built"], config), "p", &copy).unwrap();
    let service = &compose["services"]["built"];
    assert_eq!(service["image"], "web-built");
    assert_eq!(service.get("build"), None);
    let error = volumes(&manifest(&["app"], Value::Null), "p").unwrap_err();
    assert!(error.to_string().contains("cannot be drilled"), "{error}");
}

#[test]
fn symlinks_in_a_copy_lead_to_the_copies_of_their_targets() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    let root = dir.path().join("root");
    for made in [
        &outside,
        &root.join("web/data-v2/sub"),
        &root.join("web.binds/srv/media"),
    ] {
        fs::create_dir_all(made).unwrap();
    }
    fs::write(root.join("web/file"), "").unwrap();
    let root = fs::canonicalize(root).unwrap();
    let manifest = manifest(&[], Value::Null);
    let find = |path: &str| find(&manifest, &root, path);
    let held = |member: &str| CopyLocation::Present(root.join(member));
    let links = [
        ("relative", "data-v2", held("web/data-v2")),
        ("./up", "data-v2/sub/../../data-v2", held("web/data-v2")),
        ("absolute", "/opt/stacks/web/data-v2", held("web/data-v2")),
        ("real", "/data/web/data-v2", held("web/data-v2")),
        ("chain", "absolute/sub", held("web/data-v2/sub")),
        ("media", "/srv/media", held("web.binds/srv/media")),
        ("to-file", "file", held("web/file")),
        (
            "gone",
            "data-v3/x",
            CopyLocation::Absent(root.join("web/data-v3/x")),
        ),
    ];
    for (name, target, found) in links {
        symlink(target, root.join("web").join(name)).unwrap();
        for dir in ["/opt/stacks/web", "/data/web"] {
            assert_eq!(find(&format!("{dir}/{name}")), found, "{dir}/{name}");
        }
    }
    assert_eq!(
        find("/opt/stacks/web/absolute/sub/x"),
        CopyLocation::Absent(root.join("web/data-v2/sub/x"))
    );
    let outside = outside.to_str().unwrap();
    let out = root.join("web.binds/srv/media").display().to_string();
    for (name, target) in [
        ("disk", "/srv/disk"),
        ("outside", outside),
        ("dotdot", "../../outside"),
        ("root", "/"),
        // The path of the copy itself means nothing on the host.
        ("copy", &out),
        ("loop", "loop"),
        ("parent", ".."),
    ] {
        symlink(target, root.join("web").join(name)).unwrap();
        for path in [name.to_owned(), format!("{name}/x")] {
            let CopyLocation::Outside(why) = find(&format!("/opt/stacks/web/{path}")) else {
                panic!("{path}");
            };
            assert!(why.contains("symlink"), "{why}");
        }
    }
    let told = "a symlink leads from /opt/stacks/web/disk to /srv/disk, which the archive does \
                not hold";
    assert_eq!(
        find("/opt/stacks/web/disk"),
        CopyLocation::Outside(told.to_owned())
    );
    assert_eq!(
        find("/etc"),
        CopyLocation::Outside("the archive does not hold /etc".to_owned())
    );
    // The control: followed as they are, some lead out of the copy.
    let real = |name: &str| fs::canonicalize(root.join("web").join(name));
    assert_eq!(real("outside").unwrap(), fs::canonicalize(outside).unwrap());
    assert_eq!(real("root").unwrap(), Path::new("/"));
}

#[test]
fn a_symlink_above_a_tree_does_not_lead_out_of_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let dir = fs::canonicalize(dir.path()).unwrap();
    fs::create_dir_all(dir.join("outside/srv/media")).unwrap();
    let root = dir.join("root");
    fs::create_dir(&root).unwrap();
    let manifest = manifest(&[], Value::Null);
    let find = |path: &str| find(&manifest, &root, path);
    let copy: PathBuf = root.join("web.binds/srv/media");
    assert_eq!(find("/srv/media"), CopyLocation::Absent(copy));
    // A tree that is a symlink itself.
    symlink(dir.join("outside"), root.join("web.binds")).unwrap();
    symlink(dir.join("outside"), root.join("web")).unwrap();
    for path in ["/srv/media", "/srv/media/x", "/opt/stacks/web"] {
        assert!(matches!(find(path), CopyLocation::Outside(_)), "{path}");
    }
}
