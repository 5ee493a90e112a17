//! The password: reads it, and keeps it out of errors.

use std::path::Path;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::config::Email;
use crate::sys::secret::SecretSource;

/// A user and a password. It has no `Debug`, so that it cannot be printed by
/// mistake.
pub struct Secret {
    pub user: String,
    password: String,
}

impl Secret {
    /// Reads the password from the file or the systemd credential.
    /// `credentials_dir` is systemd's `$CREDENTIALS_DIRECTORY`.
    pub fn load(config: &Email, user: &str, credentials_dir: Option<&Path>) -> Result<Secret> {
        let source = SecretSource {
            what: "the mail password",
            file: config.password_file.as_deref(),
            credential: config.password_credential.as_deref(),
            fields: ["email.passwordFile", "email.passwordCredential"],
        };
        Ok(Secret {
            user: user.to_owned(),
            password: source.read(credentials_dir)?,
        })
    }

    /// Returns what the mechanism PLAIN sends (RFC 4616).
    pub fn plain(&self) -> String {
        BASE64.encode(format!("\0{}\0{}", self.user, self.password))
    }

    /// Returns what the mechanism LOGIN sends, in its order.
    pub fn login(&self) -> [String; 2] {
        [&self.user, &self.password].map(|text| BASE64.encode(text))
    }

    /// Replaces the password in `text`, in plain form and as it is encoded for
    /// the server. A server may quote the line that it rejects in its answer.
    pub fn redact(&self, text: &str) -> String {
        let [_, login] = self.login();
        [self.plain(), login, self.password.clone()]
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}
