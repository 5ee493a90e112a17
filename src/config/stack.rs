//! The options of a stack.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{
    self, MapAccess, SeqAccess, Visitor,
    value::{MapAccessDeserializer, SeqAccessDeserializer},
};
use serde::{Deserialize, Deserializer, Serialize};

use super::alarm::MaxAge;
use super::hook::{self, HookOptions};

/// `startTimeout` of a stack that does not set it.
pub const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(180);
/// `downLimit` of a stack that does not set it.
pub const DEFAULT_DOWN_LIMIT: Duration = Duration::from_secs(120);
/// `stallLimit` of a stack that does not set it.
pub const DEFAULT_STALL_LIMIT: Duration = Duration::from_secs(900);
/// `share` of a stack that does not set it.
pub const DEFAULT_SHARE: bool = true;
/// `excludeCaches` of a stack that does not set it.
pub const DEFAULT_EXCLUDE_CACHES: bool = false;

/// `drill` of a stack that does not set it.
pub const DEFAULT_DRILL: bool = true;

/// What is backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stacks {
    /// These, in this order.
    Listed(Vec<Stack>),
    /// Every Compose project of the Engine, and each directory with a compose file in
    /// `baseDir`. The file has the word "all"; who reads it adds what is found.
    All(Vec<Stack>),
}

impl Default for Stacks {
    fn default() -> Stacks {
        Stacks::Listed(Vec::new())
    }
}

impl<'de> Deserialize<'de> for Stacks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Stacks, D::Error> {
        struct ListOrAll;

        impl<'de> Visitor<'de> for ListOrAll {
            type Value = Stacks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of stacks, [\"...\"], or \"all\"")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Stacks, E> {
                match word {
                    "all" => Ok(Stacks::All(Vec::new())),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Stacks, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Stacks::Listed)
            }
        }

        deserializer.deserialize_any(ListOrAll)
    }
}

/// A stack and its options. A plain string in the file is a name without options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack(pub StackOptions);

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StackOptions {
    /// Default: the last component of `path`.
    pub name: Option<String>,
    /// Directory of the compose file. Default: `<baseDir>/<name>`.
    pub path: Option<PathBuf>,
    /// Units of systemd that are stopped and started instead of a Compose project.
    pub units: Vec<String>,
    /// The directories and files of a stack with `units`.
    pub paths: Vec<PathBuf>,
    /// Compose's project name, for a stack that is started with `-p`.
    pub project: Option<String>,
    /// The Engine that runs it, as `unix:///PATH`. Default: the one that the docker
    /// command would use.
    pub engine: Option<String>,
    /// Compose files (`-f`), relative to the stack's directory.
    pub files: Vec<PathBuf>,
    /// Environment files (`--env-file`), relative to the stack's directory.
    pub env_files: Vec<PathBuf>,
    /// Patterns as in `.gitignore`, relative to the stack's directory and to
    /// the root of each volume.
    pub exclude: Vec<String>,
    /// Leaves out the contents of directories with a `CACHEDIR.TAG`.
    pub exclude_caches: Option<bool>,
    /// Local named volumes to leave out.
    pub exclude_volumes: Vec<String>,
    /// External or driver-backed volumes to archive.
    pub include_volumes: Vec<String>,
    /// Directories outside the stack's own to archive.
    pub include_binds: Vec<PathBuf>,
    /// Binds outside the stack's directory that are not archived on purpose: paths on the
    /// host, or `service:/path/in/container`.
    pub ignore_binds: Vec<String>,
    pub capture: Option<Capture>,
    /// Whether archives may share blocks with the stack's files.
    pub share: Option<bool>,
    /// Files whose blocks are not shared, as patterns like those of `exclude`.
    pub unshared: Vec<String>,
    pub stop_method: Option<StopMethod>,
    /// Seconds from the stop signal to SIGKILL. Default: each container's own.
    pub stop_timeout: Option<u32>,
    /// Seconds until everything that was started must run and be healthy.
    pub start_timeout: Option<u32>,
    /// Seconds without any progress of the copy after which a stack that is down is
    /// started.
    pub down_limit: Option<u32>,
    /// Seconds after which a stack that is down is started, progress or not.
    pub capture_limit: Option<u32>,
    /// Seconds without any progress after which a stack that is up is given up.
    pub stall_limit: Option<u32>,
    pub on_busy: Option<OnBusy>,
    /// Commands to run at certain points of the backup, in this order.
    #[serde(deserialize_with = "hook::list")]
    pub hooks: Vec<HookOptions>,
    pub verify: Option<Verify>,
    /// How old the newest good archive may become without a warning.
    pub max_age: Option<MaxAge>,
    /// Percentage by which an archive may be smaller than those before it without a
    /// warning.
    pub size_drop: Option<u32>,
    /// How Borg cuts the stack's archives into chunks, as its `--chunker-params` say it.
    pub chunker: Option<String>,
    /// Whether a drill of all stacks drills this one.
    pub drill: Option<bool>,
    /// A service, and a command that must succeed in it for a drill to succeed.
    pub drill_check: Vec<String>,
    /// Files of the machine that a drill may copy as secrets, or directories of
    /// them.
    pub drill_secrets: Vec<PathBuf>,
}

/// How a new archive is checked before it gets its name. The stack is up then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verify {
    /// It is not read back.
    None,
    /// Headers are read, but no data.
    Structure,
    /// Headers are read, and data whose hash is not known. The hashes of what was
    /// rendered are stored beside the archive.
    #[default]
    Written,
    /// Everything is read from the storage and compared with what was rendered. The
    /// hashes are stored beside the archive.
    Full,
}

impl Verify {
    /// Whether the hash of each member is stored beside the archive.
    pub fn is_hashed(self) -> bool {
        matches!(self, Verify::Written | Verify::Full)
    }
}

/// How a consistent copy is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Capture {
    /// Data is copied while the stack is up. What has changed since is copied
    /// again while the stack is down.
    #[default]
    Precopy,
    /// Everything is copied while the stack is down.
    Offline,
}

/// How a stack is taken down for the copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StopMethod {
    /// Containers are stopped and started. They stay the same containers.
    #[default]
    Stop,
    /// `docker compose down` removes the containers, and `up` makes new ones.
    Down,
    /// Containers are frozen and thawed without noticing. The archive is as after
    /// a power cut (crash-consistent).
    Pause,
}

/// What to do when a stopped stack's data is still being written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnBusy {
    /// No archive is made, and the stack's backup fails.
    #[default]
    Fail,
    /// The archive is made, and the report has a warning.
    Warn,
}

impl<'de> Deserialize<'de> for Stack {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Stack, D::Error> {
        struct NameOrOptions;

        impl<'de> Visitor<'de> for NameOrOptions {
            type Value = Stack;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a stack's name or an object with its options")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Stack, E> {
                let name = Some(name.to_owned());
                Ok(Stack(StackOptions {
                    name,
                    ..StackOptions::default()
                }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Stack, A::Error> {
                StackOptions::deserialize(MapAccessDeserializer::new(map)).map(Stack)
            }
        }

        deserializer.deserialize_any(NameOrOptions)
    }
}
