//! The JSON configuration: serde types, their defaults and readable errors.
//! Unknown fields are refused. What the values mean together is decided in
//! `plan.rs`.

pub mod email;
pub mod plan;

use std::fmt;
use std::fs;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::de::{self, MapAccess, Unexpected, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

/// `keepDays` when a policy sets nothing at all.
pub const DEFAULT_KEEP_DAYS: u32 = 28;
pub const DEFAULT_BASE_DIR: &str = "/opt/stacks";
pub const DEFAULT_BACKUP_DIR: &str = "/var/backups/docker";
pub const DEFAULT_STATE_DIR: &str = "/var/lib/docker-stack-backup";
pub const DEFAULT_LOG_FILE: &str = "/var/log/docker-backup.log";

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Backed up one after another, in this order.
    pub stacks: Vec<Stack>,
    /// A stack without a `path` is the directory of its name in here.
    pub base_dir: PathBuf,
    /// The store: archives are `<backupDir>/<stack>/<stack>_<date>_<time>.tar`.
    pub backup_dir: PathBuf,
    /// Journal, lock and the last outcome; must survive a reboot.
    pub state_dir: PathBuf,
    /// Log lines are appended to it; `null` for none.
    pub log_file: Option<PathBuf>,
    /// `null` keeps every archive for ever.
    #[serde(deserialize_with = "retention")]
    pub retention: Option<Retention>,
    /// `null` sends no mail.
    #[serde(deserialize_with = "email")]
    pub email: Option<Email>,
    /// Options for stacks that do not set them; lists of patterns and volumes are
    /// added up.
    pub defaults: Stack,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            stacks: Vec::new(),
            base_dir: DEFAULT_BASE_DIR.into(),
            backup_dir: DEFAULT_BACKUP_DIR.into(),
            state_dir: DEFAULT_STATE_DIR.into(),
            log_file: Some(DEFAULT_LOG_FILE.into()),
            retention: Some(Retention::default()),
            email: None,
            defaults: Stack::default(),
        }
    }
}

/// A stack and its options. A plain string in the file is a name alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack(pub StackOptions);

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StackOptions {
    /// Default: the last part of `path`.
    pub name: Option<String>,
    /// Directory of the compose file; default: `<baseDir>/<name>`.
    pub path: Option<PathBuf>,
    /// Compose's project name, where the stack was started with `-p`.
    pub project: Option<String>,
    /// Compose files (`-f`), relative to the stack's directory.
    pub files: Vec<PathBuf>,
    /// Environment files (`--env-file`), relative to the stack's directory.
    pub env_files: Vec<PathBuf>,
    /// Patterns as in `.gitignore`, relative to the stack's directory and to
    /// the root of each volume.
    pub exclude: Vec<String>,
    /// Leave out what directories marked by a `CACHEDIR.TAG` hold.
    pub exclude_caches: Option<bool>,
    /// Local named volumes that are not to be archived.
    pub exclude_volumes: Vec<String>,
    /// External or driver-backed volumes that are to be archived.
    pub include_volumes: Vec<String>,
    /// Directories outside the stack's own that are to be archived.
    pub include_binds: Vec<PathBuf>,
    pub capture: Option<Capture>,
    /// Whether archives may share blocks with the stack's files.
    pub share: Option<bool>,
    /// Files that do not share, as patterns like those of `exclude`.
    pub unshared: Vec<String>,
    pub stop_method: Option<StopMethod>,
    /// Seconds from the stop signal to SIGKILL; default: each container's own.
    pub stop_timeout: Option<u32>,
    /// Seconds until all that was started must run and be healthy.
    pub start_timeout: Option<u32>,
    pub on_busy: Option<OnBusy>,
    pub verify: Option<Verify>,
    /// A service and a command in it that must succeed for a drill to.
    pub drill_check: Vec<String>,
}

/// How an archive is read back before it gets its name. The stack is up then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verify {
    /// Not at all.
    None,
    /// Headers, not data.
    Structure,
    /// All of it; the hash of each member is put beside the archive.
    #[default]
    Full,
}

/// How a consistent copy is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Capture {
    /// What has changed since it was copied is read while the stack is down.
    #[default]
    Precopy,
    /// Everything is read while the stack is down.
    Offline,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StopMethod {
    /// Containers are stopped and started; they stay the same containers.
    #[default]
    Stop,
    /// `docker compose down`, and made anew by `up`, as the script did.
    Down,
    /// Containers are frozen and thawed, and never learn of it: the archive is
    /// as if the machine had lost its power (crash-consistent).
    Pause,
}

/// What to do when a stopped stack's data is still being written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnBusy {
    /// No archive, and the stack has failed.
    #[default]
    Fail,
    /// The archive is made, and the report warns.
    Warn,
}

/// How long archives are kept. An archive that any rule keeps is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retention {
    /// Default 28, if no other rule is set.
    pub keep_days: Option<u32>,
    pub keep_last: Option<u32>,
    pub keep_daily: Option<u32>,
    pub keep_weekly: Option<u32>,
    pub keep_monthly: Option<u32>,
    pub keep_yearly: Option<u32>,
}

impl Retention {
    /// The policy with its default filled in.
    pub fn effective(&self) -> Retention {
        if *self == Retention::default() {
            return Retention {
                keep_days: Some(DEFAULT_KEEP_DAYS),
                ..Retention::default()
            };
        }
        self.clone()
    }

    /// Whether the policy removes all it may: every rule that is set is zero. Only
    /// the newest good archive would be left.
    pub fn keeps_nothing(&self) -> bool {
        let policy = self.effective();
        let rules = [
            policy.keep_days,
            policy.keep_last,
            policy.keep_daily,
            policy.keep_weekly,
            policy.keep_monthly,
            policy.keep_yearly,
        ];
        rules.iter().all(|rule| rule.unwrap_or(0) == 0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Email {
    /// SMTP server, by name: its certificate is checked against it.
    pub host: String,
    /// Default: 587 for `starttls`, 465 for `tls`, 25 for `none`.
    pub port: Option<u16>,
    #[serde(default)]
    pub encryption: Encryption,
    pub user: Option<String>,
    /// File with the password; a trailing newline is dropped.
    pub password_file: Option<PathBuf>,
    /// Name of a systemd credential (`LoadCredential=`) with the password. It
    /// goes before `password_file` where systemd hands over credentials.
    pub password_credential: Option<String>,
    /// PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    pub from: String,
    pub to: Vec<String>,
    /// Put in brackets before the subject.
    #[serde(default = "default_subject_tag")]
    pub subject_tag: String,
    #[serde(default)]
    pub when: MailWhen,
    /// For every single step of the SMTP conversation, in seconds.
    #[serde(default = "default_mail_timeout")]
    pub timeout: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Encryption {
    /// Plain connection upgraded by STARTTLS, which is required.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MailWhen {
    #[default]
    Always,
    /// Or a warning.
    Failure,
}

fn default_subject_tag() -> String {
    "docker-backup".to_owned()
}

fn default_mail_timeout() -> u32 {
    60
}

/// What is meant to be an object, and what it should be like; an array would be
/// taken, too, by the order of the fields.
struct Object<T>(&'static str, PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }
}

fn retention<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Retention>, D::Error> {
    let expected = "an object such as {\"keepDays\": 28}, or null to keep everything";
    deserializer.deserialize_any(Object(expected, PhantomData))
}

fn email<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Email>, D::Error> {
    let expected = "an object with `host`, `from` and `to`, or null for no mail";
    deserializer.deserialize_any(Object(expected, PhantomData))
}

/// The file as a whole.
#[derive(Deserialize)]
#[serde(transparent)]
struct Whole(#[serde(deserialize_with = "whole")] Config);

fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Config, D::Error> {
    let expected = "an object such as {\"stacks\": [\"web\"]}";
    let config = deserializer.deserialize_any(Object(expected, PhantomData))?;
    config.ok_or_else(|| de::Error::invalid_type(Unexpected::Unit, &expected))
}

impl<'de> Deserialize<'de> for Stack {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Stack, D::Error> {
        struct NameOrFields;

        impl<'de> Visitor<'de> for NameOrFields {
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

        deserializer.deserialize_any(NameOrFields)
    }
}

impl Config {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// Name the file, the path of the field within it, and what was meant.
    pub fn load(path: &Path) -> Result<Config> {
        let bytes =
            fs::read(path).with_context(|| format!("read the config {}", path.display()))?;
        Config::parse(&bytes).with_context(|| format!("config {}", path.display()))
    }

    pub fn parse(json: &[u8]) -> Result<Config> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let Whole(config) =
            serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
                let path = error.path().to_string();
                let inner = plain(&error.into_inner().to_string());
                let hint = suggestion(&inner)
                    .map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
                match path.as_str() {
                    "." | "?" => anyhow!("{inner}{hint}"),
                    _ => anyhow!("`{path}`: {inner}{hint}"),
                }
            })?;
        deserializer.end()?;
        Ok(config)
    }
}

/// A message of serde, in the words of JSON.
fn plain(message: &str) -> String {
    [
        ("invalid type: sequence", "invalid type: array"),
        ("invalid type: map", "invalid type: object"),
        ("expected a sequence", "expected an array, [\"...\"]"),
        ("expected path string", "expected a string"),
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected u16", "expected a whole number up to 65535"),
    ]
    .into_iter()
    .fold(message.to_owned(), |text, (serde, json)| {
        text.replace(serde, json)
    })
}

/// The known name that is closest to an unknown one, taken from serde's
/// message: "unknown field `a`, expected one of `b`, `c`".
fn suggestion(message: &str) -> Option<&str> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    let is_close = |known: &&str| {
        let known = known.to_lowercase();
        let unknown = unknown.to_lowercase().replace(['_', '-'], "");
        strsim::normalized_damerau_levenshtein(&known, &unknown) > 0.6
            || known.starts_with(&unknown)
            || unknown.starts_with(&known)
    };
    quoted.filter(is_close).max_by(|a, b| {
        let score = |known| strsim::normalized_damerau_levenshtein(known, unknown);
        score(a).total_cmp(&score(b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        format!("{:#}", Config::parse(json.as_bytes()).unwrap_err())
    }

    #[test]
    fn an_empty_object_means_the_defaults_of_the_script() {
        let config = Config::parse(b"{}").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.base_dir, Path::new("/opt/stacks"));
        assert_eq!(config.backup_dir, Path::new("/var/backups/docker"));
        assert_eq!(
            config.log_file.unwrap(),
            Path::new("/var/log/docker-backup.log")
        );
    }

    #[test]
    fn stacks_are_names_or_objects_and_keep_their_order() {
        let json = br#"{"stacks": ["web", {"path": "/srv/immich", "exclude": ["cache/"]}, "db"]}"#;
        let stacks = Config::parse(json).unwrap().stacks;
        assert_eq!(stacks[0].0.name.as_deref(), Some("web"));
        assert_eq!(stacks[1].0.path.as_deref(), Some(Path::new("/srv/immich")));
        assert_eq!(stacks[2].0.name.as_deref(), Some("db"));
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_path_and_a_suggestion() {
        let message = error(r#"{"retention": {"keepDay": 3}}"#);
        assert!(
            message.starts_with("`retention.keepDay`: unknown field `keepDay`"),
            "{message}"
        );
        assert!(message.ends_with("did you mean `keepDays`?"), "{message}");

        let message = error(r#"{"stacks": ["a", {"name": "b", "stop_timeout": 3}]}"#);
        assert!(message.starts_with("`stacks[1].stop_timeout`"), "{message}");
        assert!(
            message.ends_with("did you mean `stopTimeout`?"),
            "{message}"
        );

        let message = error(r#"{"backup_dir": "/x"}"#);
        assert!(message.ends_with("did you mean `backupDir`?"), "{message}");
        let message = error(r#"{"zebra": 1}"#);
        assert!(!message.contains("did you mean"), "{message}");
    }

    #[test]
    fn an_array_is_no_object_with_the_fields_in_order() {
        for (array, object) in [
            (r#"[["web"], "/opt"]"#, r#"{"stacks": ["web"]}"#),
            ("null", "{}"),
            (
                r#"{"retention": [28]}"#,
                r#"{"retention": {"keepDays": 28}}"#,
            ),
            (
                r#"{"email": ["h", 25, "none", null, null, null, null, "a@b", ["c@d"]]}"#,
                r#"{"email": {"host": "h", "from": "a@b", "to": ["c@d"]}}"#,
            ),
            (r#"{"defaults": ["web"]}"#, r#"{"defaults": {}}"#),
        ] {
            let message = error(array);
            assert!(message.contains("expected "), "{message}");
            assert!(message.contains("an object"), "{message}");
            // The control.
            Config::parse(object.as_bytes()).unwrap();
        }
        let config = Config::parse(br#"{"retention": null, "email": null}"#).unwrap();
        assert_eq!((config.retention, config.email), (None, None));
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_path() {
        let message = error(r#"{"stacks": [{"name": "a", "stopMethod": "kill"}]}"#);
        assert!(
            message.starts_with("`stacks[0].stopMethod`: unknown variant `kill`"),
            "{message}"
        );
        for (json, expected) in [
            (
                r#"{"email": {"host": "h", "from": "a@b", "to": "c@d"}}"#,
                r#"`email.to`: invalid type: string "c@d", expected an array, ["..."]"#,
            ),
            (
                r#"{"email": {"host": "h", "port": 99999}}"#,
                "`email.port`: invalid value: integer `99999`, expected a whole number up to 65535",
            ),
            (
                r#"{"retention": {"keepDays": "28"}}"#,
                r#"`retention.keepDays`: invalid type: string "28", expected a whole number, 0 or more"#,
            ),
            (
                r#"{"retention": 28}"#,
                r#"`retention`: invalid type: integer `28`, expected an object such as {"keepDays": 28}, or null"#,
            ),
            (
                r#"{"stacks": [["web"]]}"#,
                "`stacks[0]`: invalid type: array, expected a stack's name or an object",
            ),
            (
                r#"{"backupDir": ["/b"]}"#,
                "`backupDir`: invalid type: array, expected a string",
            ),
        ] {
            let message = error(json);
            assert!(message.starts_with(expected), "{message}");
        }
        let message = error(r#"{"stacks": [7]}"#);
        assert!(message.contains("a stack's name or an object"), "{message}");
        assert!(error("{").contains("EOF"), "{}", error("{"));
        assert!(error("{} x").contains("trailing"), "{}", error("{} x"));
    }
}
