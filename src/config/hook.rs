//! Hooks: commands of the administrator that run at certain points of a stack's backup.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Deserializer, Serialize};

use super::json;

/// Seconds that a hook may take if it does not set `timeout`. While the stack is down, it
/// is `downLimit` instead.
pub const DEFAULT_HOOK_TIMEOUT_SECS: u64 = 300;
/// How much of a command is shown in messages.
const LABEL_CHARS: usize = 120;
/// What the names of the variables begin with that the program sets for each hook.
pub const VARIABLE_PREFIX: &str = "DOCKER_STACK_BACKUP_";

/// A hook as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HookOptions {
    pub when: HookPlace,
    /// The service in whose container the commands run.
    pub service: Option<String>,
    /// Whether the commands run on the host.
    #[serde(default)]
    pub host: bool,
    /// Name or id of the user that runs the commands. Default: that of the container, or
    /// root on the host.
    pub user: Option<String>,
    /// The program and its arguments. There is no shell.
    pub command: Vec<String>,
    /// Seconds that each of the two commands may take.
    pub timeout: Option<u32>,
    #[serde(default)]
    pub on_error: OnError,
    /// The command that takes back the effect of the first one; empty for none.
    #[serde(default)]
    pub undo: Vec<String>,
    /// Variables for both commands.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Variables whose values are read from a file (an absolute path) or from a systemd
    /// credential (a name).
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
}

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookPlace {
    /// Before any data is read. The stack is up.
    BeforeCopy,
    /// Right before the stack is stopped.
    BeforeStop,
    /// When all containers are stopped, before the data is captured.
    WhileDown,
    /// When the stack is up again and healthy.
    AfterStart,
    /// When the archive has its name.
    AfterArchive,
    /// At the end, whatever happened before.
    Finally,
}

/// What follows from a hook that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnError {
    /// The backup of the stack fails.
    #[default]
    Fail,
    /// The report has a warning.
    Warn,
}

/// A hook with its defaults filled in, and checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    pub when: HookPlace,
    pub command: HookCommand,
    pub undo: Option<HookCommand>,
    pub on_error: OnError,
}

/// A command of a hook. The journal has those that are still to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HookCommand {
    pub target: HookTarget,
    pub user: Option<String>,
    pub argv: Vec<String>,
    pub timeout_secs: u64,
    pub environment: BTreeMap<String, String>,
    /// Where the values are, not the values themselves.
    pub secrets: BTreeMap<String, String>,
}

/// Where a command runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookTarget {
    Host,
    /// In the container of this service.
    Service(String),
}

impl HookPlace {
    /// The name of the place in the configuration and in reports.
    pub fn name(self) -> &'static str {
        match self {
            HookPlace::BeforeCopy => "beforeCopy",
            HookPlace::BeforeStop => "beforeStop",
            HookPlace::WhileDown => "whileDown",
            HookPlace::AfterStart => "afterStart",
            HookPlace::AfterArchive => "afterArchive",
            HookPlace::Finally => "finally",
        }
    }
}

impl Hook {
    /// Fills in the defaults. `down_limit_secs` is the limit of a hook that runs while the
    /// stack is down.
    pub(super) fn new(options: HookOptions, down_limit_secs: u64) -> Hook {
        let timeout_secs = match (options.timeout, options.when) {
            (Some(timeout), _) => timeout.into(),
            (None, HookPlace::WhileDown) => down_limit_secs,
            (None, _) => DEFAULT_HOOK_TIMEOUT_SECS,
        };
        let command = HookCommand {
            target: options
                .service
                .map_or(HookTarget::Host, HookTarget::Service),
            user: options.user,
            argv: options.command,
            timeout_secs,
            environment: options.environment,
            secrets: options.secrets,
        };
        let undo = (!options.undo.is_empty()).then(|| HookCommand {
            argv: options.undo,
            ..command.clone()
        });
        Hook {
            when: options.when,
            command,
            undo,
            on_error: options.on_error,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.when.name(), self.command)?;
        match &self.undo {
            Some(undo) => write!(f, " (undo: {})", shown(&undo.argv)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for HookCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            HookTarget::Host => write!(f, "host: {}", shown(&self.argv)),
            HookTarget::Service(service) => write!(f, "{service}: {}", shown(&self.argv)),
        }
    }
}

/// Shows a command as a shell takes it, cut if it is long.
fn shown(argv: &[String]) -> String {
    let line = shell_words(argv);
    match line.char_indices().nth(LABEL_CHARS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Quotes the words of a command for a shell.
pub fn shell_words(argv: &[String]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-+,:/=@%".contains(c);
    let quote = |word: &String| match !word.is_empty() && word.chars().all(is_plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    argv.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// Reads a list of hooks, each an object.
pub(super) fn list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<HookOptions>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Item(#[serde(deserialize_with = "object")] HookOptions);

    fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HookOptions, D::Error> {
        let expected = "an object such as {\"when\": \"beforeCopy\", \"service\": \"db\", ...}";
        json::object(deserializer, expected)?
            .ok_or_else(|| serde::de::Error::invalid_type(serde::de::Unexpected::Unit, &expected))
    }

    let items = Vec::<Item>::deserialize(deserializer)?;
    Ok(items.into_iter().map(|Item(options)| options).collect())
}

/// Checks what can be checked without looking at the stack.
pub(super) fn check(hooks: &[HookOptions]) -> Result<()> {
    for (i, hook) in hooks.iter().enumerate() {
        check_one(hook).with_context(|| format!("`hooks[{i}]`"))?;
    }
    Ok(())
}

fn check_one(hook: &HookOptions) -> Result<()> {
    match (&hook.service, hook.host) {
        (Some(service), false) if service.is_empty() => bail!("`service` is empty"),
        (Some(_), false) | (None, true) => {}
        _ => bail!("set `service` to the name of a service, or `host` to true, and not both"),
    }
    ensure!(
        hook.when != HookPlace::WhileDown || hook.host,
        "`whileDown`: no container of the stack runs then; set `host` to true instead of `service`"
    );
    ensure!(
        hook.when != HookPlace::Finally || hook.undo.is_empty(),
        "`undo`: nothing follows `finally`; add the command to the list as a hook of its own"
    );
    ensure!(
        hook.timeout != Some(0),
        "`timeout`: 0 leaves no time to run; set a number of seconds, or omit it"
    );
    check_argv(&hook.command, hook.host).context("`command`")?;
    if !hook.undo.is_empty() {
        check_argv(&hook.undo, hook.host).context("`undo`")?;
    }
    check_variables(&hook.environment, &hook.secrets)
}

/// Checks variables of an environment, and where the values of secret ones are.
pub(super) fn check_variables(
    environment: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, String>,
) -> Result<()> {
    for name in environment.keys().chain(secrets.keys()) {
        check_variable(name)?;
    }
    for (name, value) in environment {
        ensure!(!value.contains('\0'), "`environment.{name}`: has a NUL");
    }
    for (name, source) in secrets {
        ensure!(
            !environment.contains_key(name),
            "`secrets.{name}`: is in `environment`, too"
        );
        let is_credential = !source.contains('/') && !matches!(source.as_str(), "" | "." | "..");
        ensure!(
            Path::new(source).is_absolute() || is_credential,
            "`secrets.{name}`: {source:?} is neither the absolute path of a file nor the name of a \
             systemd credential"
        );
    }
    Ok(())
}

fn check_argv(argv: &[String], is_host: bool) -> Result<()> {
    let Some(program) = argv.first().filter(|program| !program.is_empty()) else {
        bail!("is empty; give the program and its arguments as [\"program\", \"argument\"]");
    };
    ensure!(
        argv.iter().all(|word| !word.contains('\0')),
        "has a NUL in an argument"
    );
    ensure!(
        !is_host || Path::new(program).is_absolute() || !program.contains('/'),
        "{program}: must be an absolute path, or a name that is found on PATH"
    );
    Ok(())
}

fn check_variable(name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    ensure!(
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(is_plain),
        "{name:?} is not the name of an environment variable"
    );
    ensure!(
        !name.starts_with(VARIABLE_PREFIX),
        "{name}: the program sets the variables {VARIABLE_PREFIX}... itself"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: &str) -> HookOptions {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_reason() {
        let good = r#""when": "beforeCopy", "service": "db", "command": ["true"]"#;
        let table = [
            (r#""when": "beforeCopy", "command": ["a"]"#, "`service`"),
            (
                r#""when": "beforeCopy", "service": "db", "host": true, "command": ["a"]"#,
                "not both",
            ),
            (
                r#""when": "whileDown", "service": "db", "command": ["a"]"#,
                "no container of the stack runs then",
            ),
            (
                r#""when": "finally", "host": true, "command": ["a"], "undo": ["b"]"#,
                "nothing follows `finally`",
            ),
            (
                r#""when": "beforeStop", "host": true, "command": []"#,
                "is empty",
            ),
            (
                r#""when": "beforeStop", "host": true, "command": ["./a"]"#,
                "absolute path",
            ),
            (
                r#""when": "beforeStop", "host": true, "command": ["a"], "undo": ["b/c"]"#,
                "`undo`",
            ),
        ];
        let more = [
            (r#""timeout": 0"#, "`timeout`: 0"),
            (r#""environment": {"A B": "x"}"#, "not the name"),
            (
                r#""environment": {"DOCKER_STACK_BACKUP_STACK": "x"}"#,
                "the program sets",
            ),
            (r#""secrets": {"A": "dir/x"}"#, "neither the absolute path"),
            (r#""secrets": {"A": ".."}"#, "neither the absolute path"),
            (
                r#""environment": {"A": ""}, "secrets": {"A": "/x"}"#,
                "in `environment`, too",
            ),
        ];
        let more = more.map(|(field, error)| (format!("{good}, {field}"), error));
        let table = table.map(|(json, error)| (json.to_owned(), error));
        for (json, expected) in table.into_iter().chain(more) {
            let error = check(&[options(&format!("{{{json}}}"))]).unwrap_err();
            let message = format!("{error:#}");
            assert!(message.starts_with("`hooks[0]`: "), "{message}");
            assert!(message.contains(expected), "{expected}: {message}");
        }
        for fine in [
            "",
            r#", "undo": ["./relative", ""], "timeout": 1"#,
            r#", "secrets": {"A": "credential", "B": "/etc/x"}"#,
        ] {
            check(&[options(&format!("{{{good}{fine}}}"))]).unwrap();
        }
    }

    #[test]
    fn a_hook_is_shown_as_a_shell_takes_it_and_cut() {
        let json = r#"{"when": "beforeStop", "service": "app", "command": ["sh", "-c", "it's"],
            "undo": ["rm", "/flag"]}"#;
        let hook = Hook::new(options(json), 120);
        let shown = r"beforeStop app: sh -c 'it'\''s' (undo: rm /flag)";
        assert_eq!(hook.to_string(), shown);
        assert_eq!(hook.command.timeout_secs, DEFAULT_HOOK_TIMEOUT_SECS);
        let json = r#"{"when": "whileDown", "host": true, "command": ["x"]}"#;
        let mut hook = Hook::new(options(json), 120);
        assert_eq!(hook.command.timeout_secs, 120);
        hook.command.argv.push("y".repeat(1000));
        assert!(hook.command.to_string().len() < 200);
    }
}
