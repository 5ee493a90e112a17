//! The compose file of a throw-away project, and the copies that it mounts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::compose::{compose as compose_from, isolated_network};
use super::copy::{CopyLocation, find};
use super::secrets::FileSource;
use super::service::Surroundings;
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

/// Pretends that the configuration allows /run/secrets.
fn copy_host_file(path: &str) -> Result<PathBuf> {
    let name = path.strip_prefix("/run/secrets/");
    let name = name.with_context(|| format!("{path} is not allowed"))?;
    Ok(Path::new("/copied").join(name))
}

fn network() -> Value {
    isolated_network(&[("a".to_owned(), "b".to_owned())].into())
}

/// Those of a Docker Engine.
fn surroundings() -> Surroundings {
    Surroundings {
        network: network(),
        log_driver: "local",
        host_names: &[],
    }
}

fn compose(manifest: &Manifest, project: &str) -> Result<(Value, Vec<String>)> {
    compose_in(&surroundings(), manifest, project)
}

fn compose_in(
    surroundings: &Surroundings,
    manifest: &Manifest,
    project: &str,
) -> Result<(Value, Vec<String>)> {
    let source = FileSource {
        copy: &copy,
        copy_host_file: &copy_host_file,
    };
    compose_from(manifest, project, &source, surroundings)
}

/// Returns the drilled service `app`, and notes. `peer` is drilled, too; `down` is
/// not.
#[track_caller]
fn drilled(app: Value) -> (Value, Vec<String>) {
    let services = json!({"app": app, "peer": {"image": "p"}, "down": {"image": "d"}});
    let (compose, notes) = compose(
        &manifest(&["app", "peer"], json!({"services": services})),
        "dsbdrill-web",
    )
    .unwrap();
    (compose["services"]["app"].clone(), notes)
}

/// What becomes of a field of a service.
enum Fate {
    Kept,
    Changed(Value),
    /// Left out, with a note.
    Refused,
    /// Left out, without a note, because no copy needs it.
    Unneeded,
}

/// Every field that the Compose specification has for a service, with a value that
/// brings in as much as it can.
fn fields_of_a_service() -> Vec<(&'static str, Value, Fate)> {
    use Fate::{Changed, Kept, Refused, Unneeded};
    vec![
        ("annotations", json!({"a": "b"}), Refused),
        ("attach", json!(true), Unneeded),
        (
            "build",
            json!({"context": "/", "privileged": true}),
            Unneeded,
        ),
        (
            "blkio_config",
            json!({"weight": 300, "device_read_bps": [{"path": "/dev/sda", "rate": 1}]}),
            Changed(json!({"weight": 300})),
        ),
        ("cap_add", json!(["CHOWN"]), Kept),
        ("cap_drop", json!(["ALL"]), Kept),
        ("cgroup", json!("host"), Refused),
        ("cgroup_parent", json!("system.slice"), Refused),
        ("command", json!(["a", "b"]), Kept),
        (
            "configs",
            json!([{"source": "missing"}]),
            Changed(json!([])),
        ),
        ("container_name", json!("web"), Unneeded),
        ("cpu_count", json!(1), Kept),
        ("cpu_percent", json!(50), Kept),
        ("cpu_period", json!(1000), Kept),
        ("cpu_quota", json!(1000), Kept),
        ("cpu_rt_period", json!("1s"), Refused),
        ("cpu_rt_runtime", json!("1s"), Refused),
        ("cpu_shares", json!(10), Kept),
        ("cpus", json!(0.5), Kept),
        ("cpuset", json!("0"), Kept),
        ("credential_spec", json!({"file": "/etc/shadow"}), Refused),
        (
            "depends_on",
            json!({"peer": {"condition": "service_started", "x-a": "b"}, "down": {}}),
            Changed(json!({"peer": {"condition": "service_started"}})),
        ),
        (
            "deploy",
            json!({"replicas": 3, "labels": {"a": "b"}, "resources": {
                "limits": {"memory": "1", "x-a": "b"}, "reservations": {"memory": "1"},
            }}),
            Changed(json!({"resources": {"limits": {"memory": "1"}}})),
        ),
        ("develop", json!({"watch": []}), Unneeded),
        ("device_cgroup_rules", json!(["a *:* rwm"]), Refused),
        ("devices", json!(["/dev/sda:/dev/sda"]), Refused),
        ("dns", json!(["8.8.8.8"]), Changed(json!(["127.0.0.1"]))),
        ("dns_opt", json!(["ndots:1"]), Kept),
        ("dns_search", json!(["example.org"]), Kept),
        ("domainname", json!("example.org"), Kept),
        ("entrypoint", json!([]), Kept),
        ("env_file", json!(["/etc/shadow"]), Unneeded),
        (
            "environment",
            json!({"A": "b", "SHELL_VARIABLE": null}),
            Changed(json!({"A": "b"})),
        ),
        ("expose", json!(["80"]), Kept),
        (
            "extends",
            json!({"file": "/etc/x.yaml", "service": "a"}),
            Refused,
        ),
        ("external_links", json!(["db:db"]), Refused),
        ("extra_hosts", json!({"a": ["10.0.0.1"]}), Kept),
        ("gpus", json!([{"count": -1}]), Refused),
        ("group_add", json!(["video"]), Kept),
        (
            "healthcheck",
            json!({"test": ["CMD", "a"], "retries": 3, "interval": "1s"}),
            Kept,
        ),
        ("hostname", json!("rabbit"), Kept),
        ("image", json!("a"), Kept),
        ("init", json!(false), Kept),
        ("ipc", json!("host"), Refused),
        ("isolation", json!("process"), Refused),
        ("label_file", json!(["/etc/shadow"]), Unneeded),
        ("labels", json!({"traefik.enable": "true"}), Unneeded),
        ("links", json!(["peer:database"]), Kept),
        (
            "logging",
            json!({"driver": "gelf", "options": {"gelf-address": "udp://a:1"}}),
            Changed(json!({"driver": "local"})),
        ),
        ("mac_address", json!("02:42:ac:11:00:02"), Refused),
        ("mem_limit", json!("1"), Kept),
        ("mem_reservation", json!("1"), Kept),
        ("mem_swappiness", json!(1), Kept),
        ("memswap_limit", json!("1"), Kept),
        ("models", json!({"llm": {}}), Refused),
        ("network_mode", json!("host"), Refused),
        (
            "networks",
            json!({"default": {"aliases": ["a"], "ipv4_address": "10.0.0.1", "priority": 1,
                "driver_opts": {"a": "b"}, "interface_name": "eth9"}}),
            Changed(json!({"default": {"aliases": ["a"]}})),
        ),
        ("oom_kill_disable", json!(true), Refused),
        ("oom_score_adj", json!(-1000), Refused),
        ("pid", json!("host"), Refused),
        ("pids_limit", json!(10), Kept),
        ("platform", json!("linux/amd64"), Kept),
        (
            "ports",
            json!([{"target": 80, "published": "80"}]),
            Unneeded,
        ),
        (
            "post_start",
            json!([{"command": ["x"], "privileged": true, "user": "0", "environment": ["A=b", "C"]}]),
            Changed(json!([{"command": ["x"], "user": "0", "environment": ["A=b"]}])),
        ),
        (
            "pre_stop",
            json!([{"command": ["x"], "privileged": true}]),
            Unneeded,
        ),
        ("privileged", json!(true), Refused),
        ("profiles", json!(["a"]), Unneeded),
        ("provider", json!({"type": "/bin/sh"}), Refused),
        ("pull_policy", json!("always"), Unneeded),
        ("pull_refresh_after", json!("1d"), Unneeded),
        ("read_only", json!(true), Kept),
        ("restart", json!("always"), Changed(json!("no"))),
        ("runtime", json!("nvidia"), Refused),
        ("scale", json!(3), Unneeded),
        ("secrets", json!(["missing"]), Changed(json!([]))),
        ("security_opt", json!(["no-new-privileges:true"]), Kept),
        ("shm_size", json!("1"), Kept),
        ("stdin_open", json!(true), Kept),
        ("stop_grace_period", json!("1s"), Kept),
        ("stop_signal", json!("SIGINT"), Kept),
        ("storage_opt", json!({"size": "1G"}), Kept),
        ("sysctls", json!({"net.core.somaxconn": 1024}), Kept),
        ("tmpfs", json!(["/run"]), Kept),
        ("tty", json!(true), Kept),
        (
            "ulimits",
            json!({"nofile": {"soft": 1, "hard": 2}, "nproc": 3}),
            Kept,
        ),
        ("use_api_socket", json!(true), Refused),
        ("user", json!("1000:1000"), Kept),
        ("userns_mode", json!("host"), Refused),
        ("uts", json!("host"), Refused),
        (
            "volumes",
            json!([{"type": "bind", "source": "/", "target": "/t"}]),
            Changed(json!([])),
        ),
        ("volumes_from", json!(["peer:ro"]), Kept),
        ("working_dir", json!("/x"), Kept),
        // Not of the specification.
        ("learnt_later", json!("x"), Refused),
        ("x-mine", json!("x"), Unneeded),
    ]
}

#[test]
fn every_field_of_a_service_is_kept_changed_or_left_out_as_listed() {
    let fields = fields_of_a_service();
    for (field, value, fate) in &fields {
        let (service, notes) = drilled(json!({"image": "a", *field: value}));
        let expected = match fate {
            Fate::Kept => Some(value),
            Fate::Changed(changed) => Some(changed),
            Fate::Refused | Fate::Unneeded => None,
        };
        assert_eq!(service.get(*field), expected, "{field}");
        let note = format!("service app: without its {field}");
        let is_noted = notes.contains(&note);
        assert_eq!(
            is_noted,
            matches!(fate, Fate::Refused),
            "{field}: {notes:?}"
        );
        // Nothing else comes with it.
        let own = ["image", "restart", "logging", "dns", *field];
        let others = service.as_object().unwrap().keys();
        let others: Vec<_> = others
            .filter(|name| !own.contains(&name.as_str()))
            .collect();
        assert!(others.is_empty(), "{field}: {others:?}");
        // A value of an odd kind brings nothing in.
        let (service, _) =
            drilled(json!({"image": "a", *field: {"a": {"b": [{"c": "/etc/shadow"}]}}}));
        assert!(!service.to_string().contains("shadow"), "{field}");
    }
    // No rule is for a field that this list does not have.
    let listed = |name: &str| fields.iter().any(|(field, ..)| *field == name);
    assert!(super::rules::fields().all(listed));
}

#[test]
fn fields_that_reach_beyond_the_container_are_left_out() {
    // Field, value, rewritten value, and what the notes name.
    let cases = [
        ("network_mode", json!("bridge"), None, "network_mode"),
        ("network_mode", json!("private"), None, "network_mode"),
        ("network_mode", json!("shareable"), None, "network_mode"),
        ("network_mode", json!("web_default"), None, "network_mode"),
        ("network_mode", json!("container:x"), None, "network_mode"),
        ("network_mode", json!("service:down"), None, "network_mode"),
        (
            "network_mode",
            json!("service:peer"),
            Some(json!("service:peer")),
            "",
        ),
        ("network_mode", json!("none"), Some(json!("none")), ""),
        ("pid", json!("container:x"), None, "pid"),
        ("pid", json!("none"), None, "pid"),
        (
            "pid",
            json!("service:peer"),
            Some(json!("service:peer")),
            "",
        ),
        ("ipc", json!("container:x"), None, "ipc"),
        ("ipc", json!("shareable"), Some(json!("shareable")), ""),
        ("uts", json!("private"), None, "uts"),
        ("userns_mode", json!("none"), None, "userns_mode"),
        ("cgroup", json!("private"), Some(json!("private")), ""),
        ("cgroup", json!("shareable"), None, "cgroup"),
        ("privileged", json!(false), None, ""),
        (
            "cap_add",
            json!(["all", "CHOWN"]),
            Some(json!(["CHOWN"])),
            "cap_add all",
        ),
        (
            "cap_add",
            json!(["cap_sys_nice"]),
            Some(json!(["cap_sys_nice"])),
            "",
        ),
        (
            "cap_add",
            json!(["CAP_DAC_READ_SEARCH"]),
            Some(json!([])),
            "cap_add CAP_DAC_READ_SEARCH",
        ),
        (
            "cap_add",
            json!(["SYS_ADMIN"]),
            Some(json!([])),
            "cap_add SYS_ADMIN",
        ),
        (
            "cap_add",
            json!(["SYS_PTRACE"]),
            Some(json!([])),
            "cap_add SYS_PTRACE",
        ),
        (
            "cap_add",
            json!(["NET_ADMIN"]),
            Some(json!([])),
            "cap_add NET_ADMIN",
        ),
        (
            "security_opt",
            json!(["seccomp=unconfined"]),
            Some(json!([])),
            "security_opt seccomp=unconfined",
        ),
        (
            "security_opt",
            json!(["apparmor:unconfined"]),
            Some(json!([])),
            "security_opt apparmor:unconfined",
        ),
        (
            "security_opt",
            json!(["systempaths=unconfined"]),
            Some(json!([])),
            "security_opt systempaths=unconfined",
        ),
        (
            "security_opt",
            json!(["no-new-privileges:false"]),
            Some(json!([])),
            "security_opt no-new-privileges:false",
        ),
        (
            "sysctls",
            json!({"net.ipv6.conf.eth0.disable_ipv6": 0}),
            Some(json!({})),
            "sysctls net.ipv6.conf.eth0.disable_ipv6",
        ),
        (
            "sysctls",
            json!(["kernel.core_pattern=|/x", "net.ipv4.tcp_syncookies=0"]),
            Some(json!(["net.ipv4.tcp_syncookies=0"])),
            "sysctls kernel.core_pattern=|/x",
        ),
        (
            "volumes_from",
            json!(["container:live:ro", "peer:ro"]),
            Some(json!(["peer:ro"])),
            "volumes_from container:live:ro",
        ),
        (
            "links",
            json!(["peer:database", "down"]),
            Some(json!(["peer:database"])),
            "links down",
        ),
        (
            "depends_on",
            json!(["peer", "down"]),
            Some(json!({"peer": {"condition": "service_started"}})),
            "",
        ),
        (
            "environment",
            json!(["A=b", "SHELL_VARIABLE"]),
            Some(json!(["A=b"])),
            "",
        ),
        (
            "networks",
            json!(["default"]),
            Some(json!({"default": null})),
            "",
        ),
        (
            "deploy",
            json!({"resources": {"reservations": {"devices": [{"capabilities": ["gpu"]}]}}}),
            Some(json!({"resources": {"limits": {}}})),
            "deploy.resources.reservations.devices",
        ),
    ];
    for (field, value, left, noted) in cases {
        let (service, notes) = drilled(json!({"image": "a", field: value}));
        assert_eq!(service.get(field), left.as_ref(), "{field}: {value}");
        let said = format!("service app: without its {noted}");
        match noted {
            "" => assert_eq!(notes, [""; 0], "{field}: {value}"),
            _ => assert!(
                notes.iter().all(|note| note.starts_with(&said)) && notes.len() == 1,
                "{notes:?}"
            ),
        }
    }
}

#[test]
fn a_service_in_another_namespace_sets_no_name_server() {
    for (mode, dns) in [
        ("none", None),
        ("service:peer", None),
        ("host", Some(json!(["127.0.0.1"]))),
    ] {
        let (service, _) = drilled(json!({"image": "a", "network_mode": mode}));
        assert_eq!(service.get("dns"), dns.as_ref(), "{mode}");
    }
}

#[test]
fn no_variable_of_the_environment_is_put_into_a_compose_file() {
    let config = json!({
        "services": {"app": {
            "image": "${IMAGE}", "command": ["echo", "$$PATH", "$HOME"],
            "volumes": [{"type": "bind", "source": "/opt/stacks/web/a$$b", "target": "/t"}],
        }},
        "configs": {"x": {"content": "${HOME:-x}"}},
    });
    let (compose, _) = compose(&manifest(&["app"], config), "p").unwrap();
    let app = &compose["services"]["app"];
    assert_eq!(app["image"], "$${IMAGE}");
    assert_eq!(app["command"], json!(["echo", "$$PATH", "$$HOME"]));
    // The path has one dollar sign, and the archive is searched for that.
    assert_eq!(app["volumes"][0]["source"], "/copy/a$$b");
    assert_eq!(compose["configs"]["x"]["content"], "$${HOME:-x}");
}

#[test]
fn networks_are_isolated_and_have_no_addresses() {
    let services = json!({"app": {"image": "a", "networks": {
        "proxy": {"aliases": ["www"], "ipv4_address": "172.18.0.2", "mac_address": "x"},
    }}});
    let networks = json!({"proxy": {
        "name": "proxy", "external": true, "driver": "macvlan", "labels": {"a": "b"},
        "driver_opts": {"com.docker.network.bridge.name": "docker0"}, "attachable": true,
        "enable_ipv6": true, "internal": false, "ipam": {"config": [{"subnet": "10.0.0.0/24"}]},
    }});
    let config = json!({"services": services, "networks": networks});
    let (compose, _) = compose(&manifest(&["app"], config), "dsbdrill-web").unwrap();
    let isolated = json!({
        "driver": "bridge", "internal": true, "enable_ipv6": false, "driver_opts": {"a": "b"},
    });
    assert_eq!(network(), isolated);
    assert_eq!(
        compose["networks"],
        json!({"default": isolated, "proxy": isolated})
    );
    assert_eq!(
        compose["services"]["app"]["networks"],
        json!({"proxy": {"aliases": ["www"]}})
    );
}

#[test]
fn mounts_are_from_the_archive_or_empty_or_left_out() {
    let bind = |source: &str| json!({"type": "bind", "source": source, "target": "/t", "consistency": "cached", "bind": {"propagation": "shared", "recursive": "enabled"}});
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
            json!({
                "type": "volume", "source": "data", "target": "/t", "read_only": true,
                "volume": {"nocopy": true, "subpath": "s", "labels": {"a": "b"}},
            }),
            Some(json!({
                "type": "volume", "source": "data", "target": "/t", "read_only": true,
                "volume": {"nocopy": true, "subpath": "s"},
            })),
            "",
        ),
        (
            json!({"type": "image", "source": "a", "target": "/t", "image": {"subpath": "s"}}),
            Some(
                json!({"type": "image", "source": "a", "target": "/t", "image": {"subpath": "s"}}),
            ),
            "",
        ),
        (
            json!({"type": "npipe", "source": "x", "target": "/t"}),
            None,
            "nothing at /t, which is a npipe",
        ),
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
        let (compose, notes) = compose(&manifest, "dsbdrill-web").unwrap();
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
fn secrets_and_configs_are_copies() {
    let file = |file: &str| {
        json!({
            "name": "web_x", "file": file, "labels": {"a": "b"}, "driver": "d",
            "driver_opts": {"a": "b"}, "template_driver": "golang",
        })
    };
    let cases = [
        (
            file("/opt/stacks/web/key"),
            Some(json!({"file": "/copy/key"})),
            "",
        ),
        (
            file("/opt/stacks/web/link"),
            None,
            "without x, a symlink leads elsewhere",
        ),
        (
            file("/opt/stacks/web/missing"),
            None,
            "without x, the archive does not hold /opt/stacks/web/missing",
        ),
        (
            file("/run/secrets/x"),
            Some(json!({"file": "/copied/x"})),
            "x is a copy of the one of this machine",
        ),
        (
            file("/var/run/docker.sock"),
            None,
            "without x, /var/run/docker.sock is not allowed",
        ),
        (
            json!({"external": true, "name": "x"}),
            None,
            "without x, which is external",
        ),
        (
            json!({"environment": "X"}),
            None,
            "without x, which is a variable of Compose's environment",
        ),
        (
            json!({"environment": "X", "file": "/opt/stacks/web/key"}),
            None,
            "without x, which is a variable of Compose's environment",
        ),
        (
            json!({"name": "x", "content": "a", "labels": {"a": "b"}}),
            Some(json!({"content": "a"})),
            "",
        ),
    ];
    for kind in ["secrets", "configs"] {
        for (config, left, note) in &cases {
            let used = json!([{"source": "x", "target": "/x", "mode": "0400", "x-a": "b"}]);
            let config = json!({
                "services": {"app": {"image": "a", kind: used}},
                kind: {"x": config},
            });
            let (compose, notes) = compose(&manifest(&["app"], config.clone()), "p").unwrap();
            assert_eq!(compose[kind].get("x"), left.as_ref(), "{config}");
            let uses = compose["services"]["app"][kind].clone();
            let expected = left
                .iter()
                .map(|_| json!({"source": "x", "target": "/x", "mode": "0400"}));
            assert_eq!(uses, expected.collect::<Value>(), "{config}");
            let note = match note {
                &"" => String::new(),
                note => format!("{kind}: {note}"),
            };
            assert_eq!(notes.concat(), note);
        }
    }
}

#[test]
fn a_service_that_was_built_uses_its_built_image() {
    let config = json!({"services": {"built": {"build": {"context": "/x"}}}});
    let (compose, _) = compose(&manifest(&["built"], config), "p").unwrap();
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

#[test]
fn on_podman_names_of_the_host_lead_nowhere_and_logs_stay_here() {
    let podman = Surroundings {
        log_driver: "k8s-file",
        host_names: &["host.docker.internal"],
        ..surroundings()
    };
    let nowhere = "host.docker.internal:127.0.0.1";
    for (hosts, expected) in [
        (Value::Null, json!([nowhere])),
        (
            json!(["a=10.0.0.1", "host.docker.internal:host-gateway"]),
            json!(["a=10.0.0.1", nowhere]),
        ),
        (
            json!({"host.docker.internal": ["host-gateway"], "a": ["10.0.0.1"]}),
            json!({"host.docker.internal": "127.0.0.1", "a": ["10.0.0.1"]}),
        ),
    ] {
        let services = json!({"app": {"image": "i", "extra_hosts": hosts}});
        let manifest = manifest(&["app"], json!({"services": services}));
        let (compose, _) = compose_in(&podman, &manifest, "p").unwrap();
        let app = &compose["services"]["app"];
        assert_eq!(app["extra_hosts"], expected);
        assert_eq!(app["logging"]["driver"], "k8s-file");
        // The control: a Docker Engine gives the host no name.
        let (compose, _) = compose_in(&surroundings(), &manifest, "p").unwrap();
        assert_eq!(compose["services"]["app"]["extra_hosts"], hosts);
    }
}
