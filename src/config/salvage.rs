//! The fields of a configuration that `recover` can use, read one by one, so that
//! a mistake elsewhere in the file does not matter.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::email::{self, Email};
use super::notify::Channel;

/// What could be read; `None` for what is missing or not valid.
#[derive(Debug, PartialEq)]
pub struct Salvage {
    pub state_dir: Option<PathBuf>,
    pub backup_dir: Option<PathBuf>,
    pub log_file: Option<PathBuf>,
    pub email: Option<Email>,
    pub notify: Vec<Channel>,
}

impl Salvage {
    /// Reads a configuration file that need not be valid JSON.
    pub fn of(bytes: &[u8]) -> Salvage {
        let text = String::from_utf8_lossy(bytes);
        let path = |name| field(&text, name).filter(|path: &PathBuf| path.is_absolute());
        Salvage {
            state_dir: path("stateDir"),
            backup_dir: path("backupDir"),
            log_file: path("logFile"),
            email: field(&text, "email").filter(|email| email::validate(email).is_ok()),
            notify: channels(&text),
        }
    }
}

/// Returns the channels that are valid by themselves.
fn channels(text: &str) -> Vec<Channel> {
    let entries: Vec<Value> = field(text, "notify").unwrap_or_default();
    let mut channels: Vec<Channel> = Vec::new();
    for entry in entries {
        let Ok(channel) = serde_json::from_value::<Channel>(entry) else {
            continue;
        };
        let is_known = channels.iter().any(|known| known.name() == channel.name());
        if !is_known && channel.validate().is_ok() {
            channels.push(channel);
        }
    }
    channels
}

/// Returns the first valid value that follows a field's name. The names in
/// question are those of no other field.
fn field<T: DeserializeOwned>(text: &str, name: &str) -> Option<T> {
    let quoted = format!("\"{name}\"");
    text.match_indices(&quoted).find_map(|(at, _)| {
        let rest = text[at + quoted.len()..].trim_start().strip_prefix(':')?;
        let mut values = serde_json::Deserializer::from_str(rest).into_iter();
        values.next()?.ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_valid_by_itself_is_read_from_a_broken_file() {
        let good = r#"{"stateDir": "/s", "backupDir": "/b", "logFile": "/l",
            "email": {"host": "h", "from": "a@example.org", "to": ["b@example.org"]},
            "notify": [{"kind": "ntfy", "urlFile": "/u"}, {"kind": "fax"}, {"kind": "gotify"}]"#;
        let expected = Salvage::of(format!("{good}}}").as_bytes());
        assert_eq!(expected.state_dir, Some("/s".into()));
        assert_eq!(expected.email.as_ref().unwrap().host, "h");
        let names: Vec<&str> = expected.notify.iter().map(Channel::name).collect();
        assert_eq!(names, ["ntfy"]);
        for broken in [
            format!("{good}, \"stakcs\": []}}"),
            format!("{good}, \"stacks\": [{{\"stopTimeot\": 5}}]}}"),
            format!("{{\"stacks\": [{{\"name\" \"x\"}}], {}", &good[1..]),
            format!("{good},,"),
            format!("// a comment: \"stateDir\"\n{good}"),
        ] {
            assert_eq!(Salvage::of(broken.as_bytes()), expected, "{broken}");
        }
        assert_eq!(Salvage::of(b"\xff").state_dir, None);
        let bad =
            Salvage::of(br#"{"stateDir": "relative", "backupDir": 5, "email": {"host": ""}}"#);
        assert_eq!(bad, Salvage::of(b""));
    }
}
