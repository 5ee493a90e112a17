//! The members that the names on a command line select.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use globset::{GlobBuilder, GlobMatcher};
use serde_json::Value;

use super::trees::tree_of;
use crate::archive::Manifest;
use crate::archive::member_path::{enclosing, normalise, within};
use crate::sys::format::display_path;

/// Selects members by name, each with everything beneath it. Without names, everything is
/// selected.
///
/// A name is a service (its volumes and binds), a volume, or a path: of a member, relative
/// to the stack's directory, on the host, or in a container (`service:/path`, or `/path`).
/// Paths may be globs.
#[derive(Debug, Default)]
pub struct Selection {
    names: Vec<Name>,
    /// What each name, by its position, has matched.
    found: RefCell<BTreeMap<usize, Roots>>,
}

/// Member paths, by the position of the meaning of a name that matched them. Everything
/// beneath them is selected, too.
type Roots = BTreeMap<usize, BTreeSet<Vec<u8>>>;

/// A name on the command line, and what it can mean.
#[derive(Debug)]
struct Name {
    given: String,
    meanings: Vec<Meaning>,
    /// Whether the first meaning is the only one if the archive has it: the name is a member's
    /// own path.
    prefers_first: bool,
}

#[derive(Debug)]
enum Meaning {
    /// These members.
    Members(Vec<Vec<u8>>),
    Glob(GlobMatcher),
    /// What has this path among the volumes of any stack.
    InVolumes(Vec<u8>),
}

impl Selection {
    /// With a manifest, `names` may also be services, volumes as the compose file calls
    /// them, and paths on the host or in containers.
    ///
    /// # Errors
    /// When a name cannot be a member's, or the archive holds nothing of a
    /// service.
    pub fn new(names: &[String], manifest: Option<&Manifest>) -> Result<Selection> {
        let names = names.iter().map(|name| {
            Ok(Name {
                given: name.clone(),
                meanings: meanings(name, manifest)?,
                prefers_first: !name.contains(['*', '?', '[', '{', ':']) && !name.starts_with('/'),
            })
        });
        Ok(Selection {
            names: names.collect::<Result<_>>()?,
            found: RefCell::default(),
        })
    }

    /// Whether everything is selected.
    pub fn is_whole(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether the member with the normalised path `path` is selected.
    pub fn includes(&self, path: &[u8]) -> bool {
        if self.names.is_empty() {
            return true;
        }
        let mut is_included = false;
        // All names are tried, because each of them must be found.
        for (at, name) in self.names.iter().enumerate() {
            for (meant, meaning) in name.meanings.iter().enumerate() {
                let Some(root) = meaning.root_of(path) else {
                    continue;
                };
                is_included = true;
                let mut found = self.found.borrow_mut();
                let roots = found.entry(at).or_default().entry(meant).or_default();
                if !roots.contains(root) {
                    roots.insert(root.to_vec());
                }
            }
        }
        is_included
    }

    /// Checks that every name matched a member.
    ///
    /// # Errors
    /// Names the first one that matched none.
    pub fn check_all_found(&self) -> Result<()> {
        let found = self.found.borrow();
        let mut names = self.names.iter().enumerate();
        match names.find(|(at, _)| !found.contains_key(at)) {
            Some((_, name)) => bail!(
                "nothing in the archive is called {} (`list ARCHIVE` shows all names)",
                display_path(name.given.as_bytes())
            ),
            None => Ok(()),
        }
    }

    /// Returns the member paths that the names stand for, none of which is within another.
    ///
    /// # Errors
    /// When a name matched none, or has several meanings in this archive.
    pub fn roots(&self) -> Result<Vec<Vec<u8>>> {
        self.check_all_found()?;
        let mut all: BTreeSet<Vec<u8>> = BTreeSet::new();
        for (at, roots) in self.found.borrow().iter() {
            let name = &self.names[*at];
            let first = roots.get(&0).filter(|_| name.prefers_first);
            let meant: BTreeSet<&Vec<u8>> = match first {
                Some(first) => first.iter().collect(),
                None => roots.values().flatten().collect(),
            };
            if first.is_none() && roots.len() > 1 && meant.len() > 1 {
                let shown: Vec<String> = meant.iter().map(|path| display_path(path)).collect();
                bail!(
                    "{} may mean several parts of the archive: name one of {}",
                    name.given,
                    shown.join(", ")
                );
            }
            all.extend(meant.into_iter().cloned());
        }
        let mut roots: Vec<Vec<u8>> = Vec::new();
        for path in all {
            // They come in their order, so those so far are sorted.
            if enclosing(&roots, &path).is_none() {
                roots.push(path);
            }
        }
        Ok(roots)
    }
}

impl Meaning {
    /// Returns the member that is meant, if it is `path` or a directory above it.
    fn root_of<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        match self {
            Meaning::Members(members) => {
                let mut members = members.iter();
                members.find_map(|member| is_within(path, member).then(|| &path[..member.len()]))
            }
            Meaning::Glob(glob) => {
                let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
                let mut ends = ends.map(|(at, _)| at).chain([path.len()]);
                let end =
                    ends.find(|end| glob.is_match(Path::new(OsStr::from_bytes(&path[..*end]))))?;
                Some(&path[..end])
            }
            Meaning::InVolumes(name) => {
                let slash = path.iter().position(|byte| *byte == b'/')?;
                let is_there =
                    path[..slash].ends_with(b".volumes") && is_within(&path[slash + 1..], name);
                is_there.then(|| &path[..slash + 1 + name.len()])
            }
        }
    }
}

/// Returns what a name can mean.
fn meanings(name: &str, manifest: Option<&Manifest>) -> Result<Vec<Meaning>> {
    let trees = manifest.and_then(|manifest| trees_of_service(manifest, name));
    if let Some(trees) = trees {
        if trees.is_empty() {
            bail!("service {name} has no volume or bind that the archive holds");
        }
        let trees = trees.into_iter().map(String::into_bytes).collect();
        return Ok(vec![Meaning::Members(trees)]);
    }
    let mut paths: Vec<Vec<u8>> = Vec::new();
    match (manifest, name.split_once(':')) {
        (Some(manifest), Some((service, path)))
            if path.starts_with('/') && service_of(manifest, service).is_some() =>
        {
            paths.extend(in_container(manifest, service, path));
        }
        (Some(manifest), _) if name.starts_with('/') => {
            paths.extend(tree_of(manifest, name).map(String::into_bytes));
            for service in services(manifest) {
                paths.extend(in_container(manifest, service, name));
            }
        }
        (Some(manifest), _) => {
            let plain = normalise(name.as_bytes())?;
            let stack = &manifest.stack;
            let below = |dir: String| [dir.as_bytes(), &plain].concat();
            let others = [
                below(format!("{stack}/")),
                below(format!("{stack}.volumes/")),
            ];
            let (key, rest) = name.split_once('/').unwrap_or((name, ""));
            let volume = volume_name(manifest, key);
            let volume = volume
                .map(|volume| normalise(format!("{stack}.volumes/{volume}/{rest}").as_bytes()));
            paths.push(plain);
            paths.extend(others.into_iter().chain(volume.transpose()?));
        }
        (None, _) => paths.push(normalise(name.as_bytes())?),
    }
    if paths.is_empty() {
        bail!("{name} is neither in a tree of the archive nor in a mount of its services");
    }
    let is_glob = name.contains(['*', '?', '[', '{']);
    let mut meanings: Vec<Meaning> = Vec::new();
    for (at, path) in paths.iter().enumerate() {
        if paths[..at].contains(path) {
            continue;
        }
        meanings.push(Meaning::Members(vec![path.clone()]));
        if is_glob {
            meanings.push(Meaning::Glob(glob(name, path)?));
        }
        if manifest.is_none() {
            meanings.push(Meaning::InVolumes(path.clone()));
        }
    }
    Ok(meanings)
}

fn glob(name: &str, path: &[u8]) -> Result<GlobMatcher> {
    let context = || format!("cannot read the glob {name}");
    let pattern = std::str::from_utf8(path).with_context(context)?;
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    Ok(glob.with_context(context)?.compile_matcher())
}

/// Unlike [`within`], the empty name contains nothing but itself.
fn is_within(path: &[u8], name: &[u8]) -> bool {
    within(path, name).is_some_and(|rest| !name.is_empty() || rest.is_empty())
}

fn service_of<'m>(manifest: &'m Manifest, service: &str) -> Option<&'m Value> {
    manifest.compose.get("services")?.get(service)
}

fn services(manifest: &Manifest) -> impl Iterator<Item = &str> {
    let services = manifest.compose.get("services").and_then(Value::as_object);
    services
        .into_iter()
        .flat_map(|services| services.keys().map(String::as_str))
}

fn mounts_of<'m>(manifest: &'m Manifest, service: &str) -> impl Iterator<Item = &'m Value> {
    let service = service_of(manifest, service);
    let mounts = service.and_then(|service| service.get("volumes")?.as_array());
    mounts.into_iter().flatten()
}

/// Returns what the Engine calls a volume of the compose file.
fn volume_name<'m>(manifest: &'m Manifest, key: &str) -> Option<&'m str> {
    manifest
        .compose
        .get("volumes")?
        .get(key)?
        .get("name")?
        .as_str()
}

/// Returns the member path of the tree that a mount is of, if the archive holds it.
fn tree_of_mount(manifest: &Manifest, mount: &Value) -> Option<String> {
    let source = mount
        .get("source")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match mount.get("type").and_then(Value::as_str) {
        Some("volume") => {
            let volume = volume_name(manifest, source).unwrap_or(source);
            let tree = format!("{}.volumes/{volume}", manifest.stack);
            manifest.trees.contains_key(&tree).then_some(tree)
        }
        _ => tree_of(manifest, source),
    }
}

/// Returns the member that is at `path` in the containers of a service: that of the innermost
/// mount.
fn in_container(manifest: &Manifest, service: &str, path: &str) -> Option<Vec<u8>> {
    let mounts = mounts_of(manifest, service).filter_map(|mount| {
        let target = Path::new(mount.get("target")?.as_str()?);
        let rest = Path::new(path).strip_prefix(target).ok()?;
        Some((target.components().count(), rest, mount))
    });
    let (_, rest, mount) = mounts.max_by_key(|(depth, ..)| *depth)?;
    let tree = tree_of_mount(manifest, mount)?;
    let member = Path::new(&tree).join(rest);
    normalise(member.as_os_str().as_bytes()).ok()
}

/// Returns the member paths of the trees that a service mounts, or `None` if
/// the manifest has no such service.
fn trees_of_service(manifest: &Manifest, service: &str) -> Option<Vec<String>> {
    service_of(manifest, service)?;
    let trees = mounts_of(manifest, service).filter_map(|mount| tree_of_mount(manifest, mount));
    let trees: BTreeSet<String> = trees.collect();
    Some(trees.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::trees::tests::frozen_manifest;

    #[test]
    fn a_name_selects_a_member_everything_beneath_it_and_a_volume() {
        let names = ["web/html", "web_data"].map(str::to_owned);
        let selection = Selection::new(&names, None).unwrap();
        assert!(selection.check_all_found().is_err());
        for path in [
            "web/html",
            "web/html/a",
            "web.volumes/web_data",
            "web.volumes/web_data/x",
        ] {
            assert!(selection.includes(path.as_bytes()), "{path}");
        }
        for path in [
            "web",
            "web/html2",
            "web.volumes/web_data2",
            "web_dat",
            "other/web_data",
        ] {
            assert!(!selection.includes(path.as_bytes()), "{path}");
        }
        selection.check_all_found().unwrap();
        assert!(Selection::default().includes(b"anything"));
    }

    /// Members of the archive that the frozen manifest describes, and some more.
    fn roots(manifest: &Manifest, names: &[&str], members: &[&str]) -> Result<String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let selection = Selection::new(&names, Some(manifest))?;
        for member in members {
            selection.includes(member.as_bytes());
        }
        let roots = selection.roots()?.into_iter();
        let roots: Vec<String> = roots.map(|root| String::from_utf8(root).unwrap()).collect();
        Ok(roots.join(" "))
    }

    #[test]
    fn a_part_is_named_as_a_person_knows_it() {
        let mut manifest = frozen_manifest();
        manifest.trees = [("web", "/srv/web"), ("web.volumes/web_data", "/v/_data")]
            .map(|(tree, path)| (tree.to_owned(), path.to_owned()))
            .into();
        manifest.stack = "web".to_owned();
        manifest.compose = serde_json::json!({
            "services": {"app": {"volumes": [
                {"type": "bind", "source": "/srv/web/conf", "target": "/etc/app"},
                {"type": "volume", "source": "data", "target": "/data"},
                {"type": "bind", "source": "/mnt", "target": "/data/mnt"},
            ]}},
            "volumes": {"data": {"name": "web_data"}},
        });
        let members = [
            "web",
            "web/conf",
            "web/conf/a.ini",
            "web/conf/b.ini",
            "web/conf/sub/c.ini",
            "web/x",
            "web.volumes/web_data",
            "web.volumes/web_data/x",
        ];
        let named = |name: &str| roots(&manifest, &[name], &members).map_err(|e| format!("{e:#}"));
        for (name, expected) in [
            ("app", "web.volumes/web_data web/conf"),
            ("web_data", "web.volumes/web_data"),
            ("data", "web.volumes/web_data"),
            ("data/x", "web.volumes/web_data/x"),
            ("web_data/x", "web.volumes/web_data/x"),
            ("web.volumes/web_data", "web.volumes/web_data"),
            ("conf/a.ini", "web/conf/a.ini"),
            ("web/conf/", "web/conf"),
            ("/srv/web/conf/a.ini", "web/conf/a.ini"),
            ("/etc/app/a.ini", "web/conf/a.ini"),
            ("app:/data", "web.volumes/web_data"),
            ("app:/data/x", "web.volumes/web_data/x"),
            ("conf/*.ini", "web/conf/a.ini web/conf/b.ini"),
            (
                "conf/**/*.ini",
                "web/conf/a.ini web/conf/b.ini web/conf/sub/c.ini",
            ),
            ("/etc/app/[a]*", "web/conf/a.ini"),
            ("web", "web"),
        ] {
            assert_eq!(named(name).as_deref(), Ok(expected), "{name}");
        }
        for (name, expected) in [
            ("y", "nothing in the archive is called y"),
            ("/data/mnt/x", "neither in a tree"),
            ("/nowhere", "neither in a tree"),
            ("*/x", "may mean several parts"),
            ("../x", ".."),
        ] {
            let error = named(name).unwrap_err();
            assert!(error.contains(expected), "{name}: {error}");
        }
        let nested = roots(&manifest, &["conf", "conf/a.ini"], &members).unwrap();
        assert_eq!(nested, "web/conf");
        let more = [&members[..], &["web/web_data"]].concat();
        let error = roots(&manifest, &["web_data"], &more)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("name one of web.volumes/web_data, web/web_data"),
            "{error}"
        );
    }

    #[test]
    fn names_that_overlap_are_all_found() {
        let names = ["web", "web/html", "web"].map(str::to_owned);
        let selection = Selection::new(&names, None).unwrap();
        assert!(selection.includes(b"web/html/a"));
        selection.check_all_found().unwrap();
    }
}
