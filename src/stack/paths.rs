//! What an archive of a stack of units holds: the configured paths. What its containers
//! mount elsewhere is told as not archived.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::config::plan::StackPlan;
use crate::engine::{Container, Mount};
use crate::outcome::{MountCoverage, MountKind};
use crate::stack::coverage::{MountDecision, Tree, bind_prefix, crossed_mounts, entry, outermost};
use crate::stack::known::{is_ignored, is_known};
use crate::sys::mounts::MountPoint;
use crate::sys::paths::without_symlinks;

/// Decides what is archived: the paths, and nothing else.
///
/// # Errors
/// When one of the paths does not exist.
pub fn decide(
    stack: &StackPlan,
    containers: &[Container],
    mounts: &[MountPoint],
) -> Result<(Vec<Tree>, Vec<MountCoverage>)> {
    let mut trees = vec![Tree::new(stack.name.clone(), stack.dir())];
    let others = outermost(&stack.include_binds).into_iter();
    trees.extend(
        others
            .filter(|path| !path.starts_with(stack.dir()))
            .map(|path| Tree::new(bind_prefix(&stack.name, path), path)),
    );
    let mut coverage = Vec::new();
    for tree in &trees {
        let path = &tree.path;
        fs::metadata(path).with_context(|| format!("cannot find {} (`paths`)", path.display()))?;
        let decision = MountDecision::Archived(path.clone());
        let name = path.display().to_string();
        coverage.push(entry(
            MountKind::Directory,
            &name,
            &BTreeSet::new(),
            decision,
        ));
    }
    coverage.extend(mounts_elsewhere(stack, containers, &trees));
    coverage.extend(crossed_mounts(stack, &trees, mounts));
    Ok((trees, coverage))
}

/// Tells of the mounts that lie in none of the trees.
fn mounts_elsewhere(
    stack: &StackPlan,
    containers: &[Container],
    trees: &[Tree],
) -> Vec<MountCoverage> {
    let roots: Vec<PathBuf> = trees
        .iter()
        .map(|tree| without_symlinks(&tree.path))
        .collect();
    let mut users: BTreeMap<(MountKind, String, PathBuf), BTreeSet<String>> = BTreeMap::new();
    for container in containers {
        for mount in &container.mounts {
            let real = without_symlinks(&mount.source);
            let (kind, name) = match mount.kind.as_str() {
                "volume" => (MountKind::Volume, mount.name.clone()),
                "bind" => (MountKind::Bind, mount.source.display().to_string()),
                _ => continue,
            };
            let is_archived = roots.iter().any(|root| {
                let inside = real.strip_prefix(root);
                inside.is_ok_and(|inside| !stack.leaves_out(root, inside))
            });
            if is_archived || is_known(stack, &mount.source) {
                continue;
            }
            let of_mount = users.entry((kind, name, mount.source.clone()));
            of_mount.or_default().insert(user(container, mount));
        }
    }
    let told = users.into_iter().map(|((kind, name, source), users)| {
        let is_excluded =
            stack.exclude_volumes.contains(&name) || users.iter().any(|u| is_excluded(stack, u));
        let decision = if is_ignored(stack, &source, users.iter()) {
            MountDecision::Ignored
        } else if is_excluded {
            MountDecision::hole("excluded (excludeVolumes)")
        } else {
            MountDecision::Hole(format!(
                "in none of the stack's paths: add {} to `paths` to have it archived",
                source.display()
            ))
        };
        entry(kind, &name, &users, decision)
    });
    told.collect()
}

fn user(container: &Container, mount: &Mount) -> String {
    format!("{}:{}", container.name, mount.destination)
}

fn is_excluded(stack: &StackPlan, user: &String) -> bool {
    stack.exclude_volumes.contains(user)
}

/// Says which data would be lost by the stop: a container that is removed when it ends
/// takes its anonymous volumes with it.
pub fn lost_by_stop(stack: &StackPlan, containers: &[Container]) -> Option<String> {
    let removed = containers.iter().filter(|c| c.is_removed_at_end);
    let mut volumes = removed.flat_map(|container| {
        let anonymous = container.mounts.iter().filter(|mount| mount.is_anonymous());
        anonymous.map(move |mount| (container, user(container, mount)))
    });
    let (container, user) = volumes.find(|(_, user)| !is_excluded(stack, user))?;
    Some(format!(
        "the stop would delete data: {user} is an anonymous volume, and the container {} is removed \
         with its anonymous volumes when it ends (`--rm`): give it a named volume or a directory \
         in `paths`, or add {user} to `excludeVolumes` if that data may be lost",
        container.name
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;
    use crate::config::plan::Plan;

    fn plan(options: &str) -> StackPlan {
        let json =
            format!(r#"{{"stacks": [{{"name": "db", "units": ["db.service"], {options}}}]}}"#);
        Plan::new(Config::parse(json.as_bytes()).unwrap())
            .unwrap()
            .stacks
            .remove(0)
    }

    fn container(is_removed_at_end: bool, mounts: serde_json::Value) -> Container {
        Container::from_json(json!({
            "Id": "db", "Name": "/db", "Image": "i",
            "State": {"Status": "running", "StartedAt": "", "ExitCode": 0},
            "Config": {}, "HostConfig": {"AutoRemove": is_removed_at_end}, "Mounts": mounts,
        }))
    }

    #[test]
    fn the_paths_are_archived_and_what_containers_mount_elsewhere_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        for name in ["data", "data/inner", "more", "elsewhere"] {
            fs::create_dir(at(name)).unwrap();
        }
        let paths = json!([at("data"), at("data/inner"), at("more")]);
        let stack = plan(&format!(r#""paths": {paths}"#));
        let mounts = json!([
            {"Type": "bind", "Source": at("data"), "Destination": "/data", "RW": true},
            {"Type": "bind", "Source": at("elsewhere"), "Destination": "/x", "RW": true},
            {"Type": "volume", "Name": "v", "Source": at("v"), "Destination": "/v", "RW": true},
        ]);
        let containers = [container(true, mounts)];
        let (trees, coverage) = decide(&stack, &containers, &[]).unwrap();
        let trees: Vec<(String, String)> = trees
            .into_iter()
            .map(|tree| (tree.prefix, tree.path.display().to_string()))
            .collect();
        let expected = [
            ("db".to_owned(), at("data")),
            (format!("db.binds{}", at("more")), at("more")),
        ];
        assert_eq!(trees, expected);
        let holes: Vec<&MountCoverage> = coverage.iter().filter(|c| c.is_hole()).collect();
        let names: Vec<&str> = holes.iter().map(|hole| &*hole.name).collect();
        assert_eq!(names, ["v", &at("elsewhere")]);
        let reason = holes[1].reason.as_deref().unwrap_or_default();
        assert!(reason.contains("to `paths`"), "{reason}");
        fs::remove_dir(at("more")).unwrap();
        let error = decide(&stack, &[], &[]).unwrap_err().to_string();
        assert!(error.contains("(`paths`)"), "{error}");
    }

    #[test]
    fn a_stop_that_would_delete_anonymous_volumes_is_refused_unless_they_are_excluded() {
        let name = "0123456789abcdef".repeat(4);
        let mounts = |name: &str| json!([{"Type": "volume", "Name": name, "Source": "/v", "Destination": "/data"}]);
        let paths = r#""paths": ["/srv/db"]"#;
        let lost = |is_removed: bool, name: &str, options: &str| {
            lost_by_stop(&plan(options), &[container(is_removed, mounts(name))])
        };
        let found = lost(true, &name, paths).unwrap();
        assert!(
            found.contains("add db:/data to `excludeVolumes`"),
            "{found}"
        );
        // The controls.
        assert_eq!(lost(false, &name, paths), None);
        assert_eq!(lost(true, "named", paths), None);
        let excluded = format!(r#"{paths}, "excludeVolumes": ["db:/data"]"#);
        assert_eq!(lost(true, &name, &excluded), None);
    }
}
