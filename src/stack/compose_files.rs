//! The files that Compose reads to make a stack: its compose files, and what these name.
//!
//! Compose's resolved output has only their content. Their names are looked for in the
//! files without understanding YAML: what is found too much is no file, or lies in the
//! stack's directory, and does not matter. So nothing in a file can cost more than
//! reading it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::engine::{ComposeConfig, ComposeProject};
use crate::scan::Boundary;
use crate::sys::paths::{open_regular, without_symlinks};

/// Keys whose values name files that Compose reads: `env_file`, `include`, those of
/// `extends`, `secrets` and `configs`, and the long forms of the first two.
const KEYS: [&str; 4] = ["env_file", "include", "file", "path"];

const FILE_BYTES_MAX: u64 = 1 << 20;
const FILE_COUNT_MAX: usize = 200;

/// What was found.
#[derive(Debug, Default)]
pub struct ComposeFiles {
    /// Those that exist, without symlinks.
    pub files: BTreeSet<PathBuf>,
    /// Paths at which a symlink leads elsewhere that a container may have made, each with
    /// the reason why it is not followed.
    pub misled: BTreeMap<PathBuf, String>,
}

/// Finds the files. `boundary` knows where containers write.
pub fn of(
    compose: &ComposeProject,
    config: Option<&ComposeConfig>,
    boundary: &Boundary,
) -> ComposeFiles {
    let variables = variables(compose);
    let named = config.iter().flat_map(|config| &config.host_files);
    let names = compose
        .own_files()
        .into_iter()
        .chain(named.map(PathBuf::as_path));
    let mut queue: Vec<PathBuf> = names.map(|name| compose.dir.join(name)).collect();
    let mut found = ComposeFiles::default();
    while let Some(path) = queue.pop() {
        let real = without_symlinks(&path);
        if !real.is_file() || found.files.len() == FILE_COUNT_MAX {
            continue;
        }
        if let Err(error) = boundary.resolve(&path) {
            found.misled.insert(path, format!("{error:#}"));
            continue;
        }
        if !found.files.insert(real.clone()) {
            continue;
        }
        if !is_compose_file(&path) {
            continue;
        }
        // A name is relative to the file that has it, or to the first compose file.
        let dirs = [path.parent(), real.parent(), Some(compose.dir.as_path())];
        for value in values(&read(&real)) {
            let Some(name) = expand(&value, &variables) else {
                continue;
            };
            queue.extend(dirs.iter().flatten().map(|dir| dir.join(&name)));
        }
    }
    found
}

/// Whether a file is a compose file, by its name.
pub fn is_compose_file(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml"))
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let opened = open_regular(path).map(|file| file.take(FILE_BYTES_MAX));
    // A file that cannot be read is a failure of Compose, not of this search.
    let _ = opened.and_then(|mut file| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns the variables of the stack's environment files.
fn variables(compose: &ComposeProject) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for file in compose.own_env_files() {
        for line in read(&without_symlinks(&compose.dir.join(file))).lines() {
            if let Some((name, value)) = line.split_once('=') {
                let name = name.trim().trim_start_matches("export ");
                let value = value.trim().trim_matches(['"', '\'']);
                variables.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    variables
}

/// Replaces `$NAME`, `${NAME}` and `${NAME:-default}`. `None` if a variable is not known.
fn expand(value: &str, variables: &BTreeMap<String, String>) -> Option<String> {
    let mut parts = value.split('$');
    let mut expanded = parts.next()?.to_owned();
    for part in parts {
        let (name, rest) = match part.strip_prefix('{') {
            Some(part) => part.split_once('}')?,
            None => {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                part.split_at(part.find(|c| !is_name(c)).unwrap_or(part.len()))
            }
        };
        let (name, default) = match name.split_once('-') {
            Some((name, default)) => (name.trim_end_matches(':'), Some(default)),
            None => (name, None),
        };
        let known = variables.get(name).map(String::as_str);
        expanded += known.or(default)?;
        expanded += rest;
    }
    Some(expanded)
}

/// Returns the scalars below one of the [`KEYS`], in block or flow style.
fn values(yaml: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut key = String::new();
    for line in yaml.lines() {
        let mut rest = line;
        while let Some((scalar, is_key, after)) = next_scalar(rest) {
            match is_key {
                true => key = scalar,
                false if KEYS.contains(&&*key) => found.push(scalar),
                false => {}
            }
            rest = after;
        }
    }
    found
}

/// Returns the first scalar of a line, whether it is a key, and the rest of the line.
fn next_scalar(line: &str) -> Option<(String, bool, &str)> {
    let separators = [' ', '\t', '{', '}', '[', ']', ','];
    let mut line = line.trim_start_matches(separators);
    while let Some(item) = line.strip_prefix("- ") {
        line = item.trim_start_matches(separators);
    }
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    for quote in ['"', '\''] {
        if let Some((scalar, rest)) = line
            .strip_prefix(quote)
            .and_then(|quoted| quoted.split_once(quote))
        {
            let after = rest.trim_start();
            let is_key = after.starts_with(':');
            let rest = if is_key { &after[1..] } else { rest };
            return Some((scalar.to_owned(), is_key, rest));
        }
    }
    let is_end = |at: usize, c: char| {
        let next = line[at + c.len_utf8()..].chars().next();
        let ends_key = c == ':' && next.is_none_or(|c| separators.contains(&c));
        // `${NAME}` is no flow mapping.
        let is_flow = "[]{},".contains(c) && !line[..at].ends_with('$');
        let is_variable = c == '}' && line[..at].rfind("${") > line[..at].rfind('}');
        ends_key || (is_flow && !is_variable) || (c == '#' && line[..at].ends_with(' '))
    };
    let end = line.char_indices().find(|(at, c)| is_end(*at, *c));
    let end = end.map_or(line.len(), |(at, _)| at);
    let (scalar, rest) = line.split_at(end);
    let is_key = rest.starts_with(':');
    let rest = if is_key { &rest[1..] } else { rest };
    let rest = if rest.starts_with('#') { "" } else { rest };
    Some((scalar.trim_end().to_owned(), is_key, rest))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_of_files_are_found_in_block_and_flow_style() {
        let yaml = "\
# file: no
include:
  - ../a.yaml # no
  - path: [../b.yaml, '../c d.yaml']
services: {app: {extends: {file: ../base.yaml, service: base}, env_file: [../x.env]}}
  web:
    image: \"file\"
    env_file: ../y.env
    env_file:
      - \"../${STAGE:-prod}.env\"
      - path: ${DIR}/z.env
        required: false
    command: [path, x, --file=y]
secrets: {s: {file: /etc/s}, t: {environment: T}}
";
        let found = [
            "../a.yaml",
            "../b.yaml",
            "../c d.yaml",
            "../base.yaml",
            "../x.env",
            "../y.env",
            "../${STAGE:-prod}.env",
            "${DIR}/z.env",
            "/etc/s",
        ];
        assert_eq!(values(yaml), found);
        assert_eq!(values(""), [""; 0]);
        assert_eq!(values("file: \"x\nfile: '\n: :\n- - -\n}}}"), ["\"x", "'"]);
    }

    #[test]
    fn variables_are_expanded_if_they_are_known() {
        let variables = BTreeMap::from([("A".to_owned(), "a".to_owned())]);
        let expand = |value: &str| expand(value, &variables);
        assert_eq!(expand("x/$A/${A}.env"), Some("x/a/a.env".to_owned()));
        assert_eq!(expand("${B:-b}${B-c}"), Some("bc".to_owned()));
        assert_eq!(expand("plain"), Some("plain".to_owned()));
        assert_eq!(expand("$B"), None);
        assert_eq!(expand("${A"), None);
    }

    #[test]
    fn files_are_followed_wherever_they_lie_and_only_existing_ones_count() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "base/base.yaml",
            "include: [deep.yml, missing.yml, base.yaml]",
        );
        write("base/deep.yml", "env_file: deep.env\nfile: ..");
        write("base/deep.env", "file: /etc/hostname");
        write("store/compose.yaml", "extends: {file: ../base/base.yaml}");
        write("app/x", "");
        let link = root.join("app/compose.yaml");
        symlink("../store/compose.yaml", link).unwrap();
        let compose = ComposeProject {
            dir: root.join("app"),
            name: None,
            files: Vec::new(),
            env_files: Vec::new(),
            engine: Default::default(),
        };
        let found = of(&compose, None, &Boundary::default()).files;
        let found: Vec<PathBuf> = found.into_iter().collect();
        let expected = [
            "base/base.yaml",
            "base/deep.env",
            "base/deep.yml",
            "store/compose.yaml",
        ];
        assert_eq!(found, expected.map(|name| root.join(name)));
        // A container that writes where the symlink is may have made it.
        let written = Boundary::new([compose.dir.as_path()].into_iter());
        let found = of(&compose, None, &written);
        assert_eq!(found.files, BTreeSet::new());
        let misled: Vec<&PathBuf> = found.misled.keys().collect();
        assert_eq!(misled, [&root.join("app/compose.yaml")]);
    }
}
