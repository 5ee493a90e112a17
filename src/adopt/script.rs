//! Makes a configuration of the settings of the script `docker-backup.py`, which are
//! assignments at its beginning. The script is read, and never run.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use super::proposal::{Proposal, ProposedStack};
use super::python::{Assignments, PyValue, assignments};
use crate::config::plan::check_name;
use crate::config::{DEFAULT_BACKUP_DIR, DEFAULT_BASE_DIR, DEFAULT_LOG_FILE};

/// Where the proposal expects the password of the mail server.
const PASSWORD_FILE: &str = "/etc/docker-stack-backup/smtp-password";
const SUBMISSIONS_PORT: i64 = 465;
const SMTP_PORT: i64 = 25;

/// The settings that are known. All else in the script is code.
const KNOWN: [&str; 13] = [
    "STACKS",
    "BASE_DIR",
    "EXTRA_STACK_PATH",
    "BACKUP_DIR",
    "DAILY_RETENTION_DAYS",
    "LOG_FILE",
    "SMTP_SERVER",
    "SMTP_PORT",
    "SMTP_USER",
    "SMTP_PASS",
    "SENDER_EMAIL",
    "RECEIVER_EMAIL",
    "SUBJECT_TAG",
];

/// Makes a configuration that does what the script did.
///
/// # Errors
/// When the text has none of the script's settings.
pub fn import(text: &str) -> Result<Proposal> {
    let found = assignments(text);
    ensure!(
        KNOWN.iter().any(|name| found.contains_key(*name)),
        "it has none of the settings of docker-backup.py, such as STACKS and BASE_DIR"
    );
    let mut import = Import {
        found,
        proposal: Proposal::default(),
    };
    import.directories();
    import.stacks();
    import.retention();
    import.email();
    import.unknown();
    let note = "the script's archives in backupDir are listed, pruned and restored like new ones: \
                `restore STACK --from FILE`";
    import.proposal.notes.push(note.to_owned());
    Ok(import.proposal)
}

struct Import {
    found: Assignments,
    proposal: Proposal,
}

impl Import {
    fn note(&mut self, note: String) {
        // A setting may be asked for twice.
        if !self.proposal.notes.contains(&note) {
            self.proposal.notes.push(note);
        }
    }

    /// Returns the value of a setting. If it cannot be read, there is a note.
    fn value(&mut self, name: &str) -> Option<PyValue> {
        match self.found.get(name)? {
            Ok(PyValue::Null) => None,
            Ok(value) => Some(value.clone()),
            Err(reason) => {
                let note = format!("{name} is not taken over: {reason}; set it by hand");
                self.note(note);
                None
            }
        }
    }

    /// Returns a string that is not empty.
    fn string(&mut self, name: &str) -> Option<String> {
        match self.value(name)? {
            PyValue::Str(text) if text.trim().is_empty() => None,
            PyValue::Str(text) => Some(text),
            _ => {
                self.note(format!("{name} is not taken over: it is not a string"));
                None
            }
        }
    }

    /// Returns a string, or the strings of a list.
    fn strings(&mut self, name: &str) -> Vec<String> {
        let items = match self.value(name) {
            None => return Vec::new(),
            Some(PyValue::List(items)) => items,
            Some(one) => vec![one],
        };
        let mut strings = Vec::new();
        for item in items {
            match item {
                PyValue::Str(text) if text.trim().is_empty() => {}
                PyValue::Str(text) => strings.push(text),
                _ => self.note(format!(
                    "an item of {name} is not taken over: it is not a string"
                )),
            }
        }
        strings
    }

    fn number(&mut self, name: &str) -> Option<i64> {
        match self.value(name)? {
            PyValue::Int(number) => Some(number),
            PyValue::Str(text) => match text.trim().parse() {
                Ok(number) => Some(number),
                Err(_) => {
                    self.note(format!("{name} is not taken over: it is not a number"));
                    None
                }
            },
            _ => {
                self.note(format!(
                    "{name} is not taken over: it is not a whole number"
                ));
                None
            }
        }
    }

    fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.proposal.fields.insert(field.to_owned(), value.into());
    }

    fn directories(&mut self) {
        for (name, field, default) in [
            ("BASE_DIR", "baseDir", DEFAULT_BASE_DIR),
            ("BACKUP_DIR", "backupDir", DEFAULT_BACKUP_DIR),
            ("LOG_FILE", "logFile", DEFAULT_LOG_FILE),
        ] {
            let path = self.string(name);
            if let Some(path) = path.and_then(|path| self.absolute(name, &path)) {
                self.set(field, path);
            } else {
                self.set(field, default);
            }
        }
    }

    /// Returns the path without `/` at its end.
    fn absolute(&mut self, name: &str, path: &str) -> Option<String> {
        let trimmed = match path.trim_end_matches('/') {
            "" => "/",
            trimmed => trimmed,
        };
        if Path::new(trimmed).is_absolute() {
            return Some(trimmed.to_owned());
        }
        self.note(format!(
            "{name} is not taken over: {path} is not an absolute path"
        ));
        None
    }

    fn stacks(&mut self) {
        let stacks = match self.value("STACKS") {
            // A directory for each name.
            Some(PyValue::Dict(pairs)) => {
                let mut named = Vec::new();
                for pair in pairs {
                    match pair {
                        (PyValue::Str(name), PyValue::Str(path)) => named.push((name, Some(path))),
                        _ => self.note(
                            "an item of STACKS is not taken over: it is not a name with a path"
                                .to_owned(),
                        ),
                    }
                }
                named
            }
            _ => {
                let names = self.strings("STACKS").into_iter();
                names.map(|name| (name, None)).collect::<Vec<_>>()
            }
        };
        for (name, path) in stacks {
            self.add_stack(Some(name), path);
        }
        for path in self.strings("EXTRA_STACK_PATH") {
            self.add_stack(None, Some(path));
        }
        if self.proposal.stacks.is_empty() {
            let note = "the script names no stack that could be read: add them to `stacks`, or set \
                        it to \"all\"";
            self.note(note.to_owned());
        }
    }

    fn add_stack(&mut self, name: Option<String>, path: Option<String>) {
        let name = name.map(|name| name.trim_matches('/').to_owned());
        let mut options = Map::new();
        let mut dir_name = name.clone().unwrap_or_default();
        // A name with slashes was a path below BASE_DIR.
        let path = match (path, name) {
            (Some(path), _) => Some(path),
            (None, Some(name)) if name.contains('/') => {
                let base = self.proposal.fields.get("baseDir").and_then(Value::as_str);
                Some(format!("{}/{name}", base.unwrap_or(DEFAULT_BASE_DIR)))
            }
            (None, _) => None,
        };
        if let Some(path) = path {
            let Some(path) = self.absolute("a stack", &path) else {
                return;
            };
            let last = path.rsplit('/').next().unwrap_or_default();
            if dir_name.is_empty() || dir_name.contains('/') {
                dir_name = last.to_owned();
            }
            options.insert("path".to_owned(), path.into());
        }
        if self
            .proposal
            .stacks
            .iter()
            .any(|known| known.name == dir_name)
        {
            self.note(format!(
                "the stack {dir_name} is there twice, and taken over once"
            ));
            return;
        }
        if let Err(error) = check_name(&dir_name) {
            self.note(format!("a stack is not taken over: {error:#}"));
            return;
        }
        self.proposal.stacks.push(ProposedStack {
            name: dir_name,
            options,
            notes: Vec::new(),
        });
    }

    fn retention(&mut self) {
        match self.number("DAILY_RETENTION_DAYS") {
            Some(days) if days > 0 && u32::try_from(days).is_ok() => {
                self.set("retention", json!({ "keepDays": days }));
            }
            Some(days) => {
                self.set("retention", Value::Null);
                self.note(format!(
                    "DAILY_RETENTION_DAYS is {days}, which would keep nothing: every archive is \
                     kept; set `retention`"
                ));
            }
            None => {}
        }
    }

    fn email(&mut self) {
        let host = self.string("SMTP_SERVER");
        let port = self.number("SMTP_PORT");
        let user = self.string("SMTP_USER");
        let from = self.string("SENDER_EMAIL");
        let to: Vec<String> = self.strings("RECEIVER_EMAIL");
        let to: Vec<&str> = to.iter().flat_map(|to| to.split(',')).collect();
        let to: Vec<&str> = to
            .into_iter()
            .map(str::trim)
            .filter(|to| !to.is_empty())
            .collect();
        let tag = self.string("SUBJECT_TAG");
        let (Some(host), Some(from), false) = (host, from, to.is_empty()) else {
            let note = "SMTP_SERVER, SENDER_EMAIL and RECEIVER_EMAIL are not all there: nobody is \
                        told of failures; set `email` or `notify`";
            self.note(note.to_owned());
            return;
        };
        let mut email = Map::new();
        email.insert("host".to_owned(), host.into());
        email.insert("from".to_owned(), from.into());
        email.insert("to".to_owned(), to.into());
        let encryption = match port {
            Some(SUBMISSIONS_PORT) => Some("tls"),
            Some(SMTP_PORT) if user.is_none() => Some("none"),
            _ => None,
        };
        if let Some(encryption) = encryption {
            email.insert("encryption".to_owned(), encryption.into());
        }
        if let Some(port) = port.and_then(|port| u16::try_from(port).ok()) {
            email.insert("port".to_owned(), port.into());
        }
        if let Some(tag) = tag {
            let tag = tag.trim().trim_start_matches('[').trim_end_matches(']');
            email.insert("subjectTag".to_owned(), tag.into());
        }
        if let Some(user) = user {
            email.insert("user".to_owned(), user.into());
            email.insert("passwordFile".to_owned(), PASSWORD_FILE.into());
            self.note(format!(
                "the password (SMTP_PASS) is not taken over: write it to {PASSWORD_FILE}, readable \
                 by root alone (`install -D -m 600 /dev/stdin {PASSWORD_FILE}`)"
            ));
        }
        self.set("email", Value::Object(email));
    }

    /// Names settings that nothing here knows: they may be of a changed script.
    fn unknown(&mut self) {
        let is_setting = |name: &&String| {
            let is_shouted = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            name.chars().all(is_shouted) && !KNOWN.contains(&name.as_str())
        };
        let unknown: Vec<String> = self.found.keys().filter(is_setting).cloned().collect();
        if !unknown.is_empty() {
            self.note(format!(
                "not known, and not taken over: {}",
                unknown.join(", ")
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::nix::nix_module;
    use super::*;

    /// The settings as the script has them.
    const SCRIPT: &str = r#"#!/usr/bin/env python3
import os, smtplib
STACKS = ["a", "b"]
BASE_DIR = "/opt/stacks/"
EXTRA_STACK_PATH = "/srv/extra"
BACKUP_DIR = "/var/backups/docker"
DAILY_RETENTION_DAYS = 28
LOG_FILE = "/var/log/docker-backup.log"
SMTP_SERVER = "mail.example.org"
SMTP_PORT = 587
SMTP_USER = "u"
SMTP_PASS = "hunter2"
SENDER_EMAIL = "a@example.org"
RECEIVER_EMAIL = "b@example.org"
SUBJECT_TAG = "docker"

def main():
    STACKS = []
"#;

    fn email_of(more: &str) -> Value {
        let proposal = import(&format!("{SCRIPT}{more}\n")).unwrap();
        proposal.plan().unwrap();
        proposal.json()["email"].clone()
    }

    #[test]
    fn the_settings_of_the_script_become_a_configuration_without_its_password() {
        let proposal = import(SCRIPT).unwrap();
        let plan = proposal.plan().unwrap();
        let dirs: Vec<_> = plan.stacks.iter().map(|stack| stack.dir()).collect();
        let expected = ["/opt/stacks/a", "/opt/stacks/b", "/srv/extra"];
        assert_eq!(dirs, expected.map(Path::new));
        assert_eq!(
            plan.retention.as_ref().and_then(|kept| kept.keep_days),
            Some(28)
        );
        let expected = json!({
            "host": "mail.example.org", "port": 587, "user": "u", "subjectTag": "docker",
            "from": "a@example.org", "to": ["b@example.org"], "passwordFile": PASSWORD_FILE,
        });
        assert_eq!(proposal.json()["email"], expected);
        let all = format!(
            "{}{}{:?}",
            proposal.json(),
            nix_module(&proposal),
            proposal.notes()
        );
        assert!(
            all.contains(PASSWORD_FILE) && !all.contains("hunter2"),
            "{all}"
        );
    }

    #[test]
    fn other_ways_to_write_the_settings_are_understood() {
        assert_eq!(email_of("SMTP_PORT = 465")["encryption"], "tls");
        let local = email_of("SMTP_PORT = '25'\nSMTP_USER = None\nSMTP_SERVER = 'localhost'");
        assert_eq!(local["encryption"], "none");
        assert_eq!(local.get("passwordFile"), None);
        let many = email_of("RECEIVER_EMAIL = ['x@example.org', 'y@example.org, z@example.org']");
        assert_eq!(many["to"].as_array().unwrap().len(), 3);
        let proposal = import("STACKS = {'x': '/data/x'}\nEXTRA_STACK_PATH = ['/p/y', '/q/x']");
        let proposal = proposal.unwrap();
        let names: Vec<&str> = proposal.stacks.iter().map(|stack| &*stack.name).collect();
        assert_eq!(names, ["x", "y"]);
        assert!(
            proposal
                .notes()
                .iter()
                .any(|note| note.contains("x is there twice"))
        );
        proposal.plan().unwrap();
    }

    #[test]
    fn what_is_not_taken_over_is_named() {
        let text = "STACKS = ['a', 1, 'b c']\nBASE_DIR = os.getenv('B')\nBACKUP_DIR = f'{X}'\n\
                    DAILY_RETENTION_DAYS = 0\nLOG_FILE = 'relative'\nWEEKLY = 4\n";
        let proposal = import(text).unwrap();
        proposal.plan().unwrap();
        assert_eq!(proposal.json()["retention"], Value::Null);
        assert_eq!(proposal.json()["baseDir"], DEFAULT_BASE_DIR);
        let notes = proposal.notes().join("\n");
        for expected in [
            "an item of STACKS",
            "`b c` is not a valid name of a stack",
            "BASE_DIR is not taken over: it is computed (`os`)",
            "BACKUP_DIR is not taken over: it is an f-string",
            "would keep nothing",
            "LOG_FILE is not taken over: relative",
            "not known, and not taken over: WEEKLY",
            "nobody is told of failures",
        ] {
            assert!(notes.contains(expected), "{expected} is not in:\n{notes}");
        }
        let other = import("import os\nprint('x')\n").unwrap_err().to_string();
        assert!(other.contains("none of the settings"), "{other}");
    }
}
