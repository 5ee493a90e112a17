//! The JSON files in which the program keeps its state: read, checked for their
//! version, listed, written and removed in one way.
//!
//! A file is replaced in one step and is on stable storage when [`write`]
//! returns, so a power cut leaves the old content or the new.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::durable::{sync_dir, write_durably};

/// What the name of a state file ends with.
const SUFFIX: &str = ".json";

/// The content of a state file. Its JSON has the field `formatVersion`.
pub trait State: Serialize + DeserializeOwned {
    /// What a file of this kind is called in messages, such as `the journal`.
    const NAME: &'static str;
    /// The version that this program writes.
    const FORMAT_VERSION: u32;

    /// Turns the JSON of an older version into that of the present one. Returns
    /// `None` for a version that this program does not know.
    fn upgrade(version: u32, json: Value) -> Option<Value> {
        (version == Self::FORMAT_VERSION).then_some(json)
    }
}

/// Returns the content of a state file, or `None` if there is no such file.
///
/// # Errors
/// When the file cannot be read, is not what it should be, or was written by a
/// newer program.
pub fn read<T: State>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.with_context(|| format!("cannot read {} {}", T::NAME, path.display()))?,
    };
    parse(&bytes)
        .map(Some)
        .with_context(|| format!("cannot parse {} {}", T::NAME, path.display()))
}

/// Parses what a state file holds.
///
/// # Errors
/// When it is not JSON of this kind, or its version is not known.
pub fn parse<T: State>(bytes: &[u8]) -> Result<T> {
    /// Files without the field are of the first version.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Versioned {
        format_version: Option<u32>,
    }
    let json: Value = serde_json::from_slice(bytes)?;
    let version = Versioned::deserialize(&json)?.format_version.unwrap_or(1);
    let current = (version <= T::FORMAT_VERSION)
        .then(|| T::upgrade(version, json))
        .flatten();
    ensure!(
        current.is_some(),
        "its format version is {version}; this program knows {}",
        T::FORMAT_VERSION
    );
    Ok(serde_json::from_value(current.unwrap_or_default())?)
}

/// Replaces a state file in one step. Its mode is 0600; its directory must
/// exist.
///
/// # Errors
/// When it is not certain that the new content is on stable storage.
pub fn write<T: State>(path: &Path, content: &T) -> Result<()> {
    render(content)
        .and_then(|json| write_durably(path, &json))
        .with_context(|| format!("cannot write {} {}", T::NAME, path.display()))
}

/// Returns what a state file with this content holds.
///
/// # Errors
/// When the content cannot be represented in JSON.
pub fn render<T: State>(content: &T) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(content)?)
}

/// Removes a state file; one that does not exist is no error.
///
/// # Errors
/// When it is not certain that the file is gone.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", path.display()));
        }
        _ => {}
    }
    // Without its directory, the file cannot come back.
    let dir = path.parent().filter(|dir| dir.exists());
    dir.map_or(Ok(()), sync_dir)
}

/// Returns the state files in a directory, by what stands before `.json` in
/// their names, sorted. A directory that does not exist has none.
///
/// # Errors
/// When the directory cannot be listed.
pub fn list(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let context = || format!("cannot list {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(context)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(context)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(name) = name.strip_suffix(SUFFIX) {
            files.push((name.to_owned(), path.clone()));
        }
    }
    files.sort();
    Ok(files)
}

/// Returns the path of the state file `name` in `dir`.
pub fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{SUFFIX}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Pets {
        format_version: u32,
        names: Vec<String>,
    }

    impl State for Pets {
        const NAME: &'static str = "the pets";
        const FORMAT_VERSION: u32 = 2;

        fn upgrade(version: u32, json: Value) -> Option<Value> {
            match version {
                1 => Some(json!({ "formatVersion": 2, "names": [json["name"]] })),
                2 => Some(json),
                _ => None,
            }
        }
    }

    fn pets(names: &[&str]) -> Pets {
        Pets {
            format_version: 2,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn what_was_written_is_read_back_and_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = path(dir.path(), "web");
        assert_eq!(read::<Pets>(&file).unwrap(), None);
        write(&file, &pets(&["Ada"])).unwrap();
        write(&file, &pets(&["Bo"])).unwrap();
        assert_eq!(read(&file).unwrap(), Some(pets(&["Bo"])));
        remove(&file).unwrap();
        remove(&file).unwrap();
        remove(&path(&dir.path().join("none"), "web")).unwrap();
        assert_eq!(read::<Pets>(&file).unwrap(), None);
    }

    #[test]
    fn older_versions_are_upgraded_and_newer_ones_refused() {
        assert_eq!(
            parse::<Pets>(br#"{"name": "Ada"}"#).unwrap(),
            pets(&["Ada"])
        );
        let error = parse::<Pets>(br#"{"formatVersion": 3, "names": []}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "its format version is 3; this program knows 2"
        );
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = path(dir.path(), "web");
        for damage in [&b""[..], b"\0\0\0\0", b"[]", br#"{"formatVersion":2}"#] {
            fs::write(&file, damage).unwrap();
            let error = format!("{:#}", read::<Pets>(&file).unwrap_err());
            let expected = format!("cannot parse the pets {}: ", file.display());
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn only_complete_files_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(list(&dir.path().join("none")).unwrap(), []);
        for name in ["web.json", "db.json", "web.json.new", "notes"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<String> = list(dir.path()).unwrap().into_iter().map(|f| f.0).collect();
        assert_eq!(names, ["db", "web"]);
    }
}
