//! The password: reads it, and keeps it out of errors.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::commands::Auth;

use crate::config::Email;

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
        let path = password_path(config, credentials_dir)?;
        let context = || format!("cannot read the mail password from {}", path.display());
        let text = fs::read_to_string(&path).with_context(context)?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let password = line.strip_suffix('\r').unwrap_or(line);
        ensure!(!password.is_empty(), "{}: it is empty", context());
        Ok(Secret {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    pub fn credentials(&self) -> Credentials {
        Credentials::new(self.user.clone(), self.password.clone())
    }

    /// Replaces the password in `text`, in plain form and as it is encoded for
    /// the server. A server may quote the line that it rejects in its answer.
    pub fn redact(&self, text: &str) -> String {
        let encoded = |mechanism, challenge| {
            let auth = Auth::new(mechanism, self.credentials(), challenge);
            let line = auth.map(|auth| auth.to_string()).unwrap_or_default();
            line.split_whitespace().last().unwrap_or("").to_owned()
        };
        let secrets = [
            encoded(Mechanism::Plain, None),
            encoded(Mechanism::Login, Some("Password:".to_owned())),
            self.password.clone(),
        ];
        secrets
            .iter()
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}

/// Returns the path of the password. A systemd unit uses the credential. The same
/// configuration tried in a shell uses the file.
fn password_path(config: &Email, credentials_dir: Option<&Path>) -> Result<PathBuf> {
    match (
        &config.password_credential,
        credentials_dir,
        &config.password_file,
    ) {
        (Some(name), Some(dir), _) => Ok(dir.join(name)),
        (_, _, Some(path)) => Ok(path.clone()),
        (Some(name), None, None) => bail!(
            "cannot find the mail password: CREDENTIALS_DIRECTORY is not set; \
             the systemd unit needs LoadCredential={name}:..."
        ),
        (None, _, None) => {
            bail!("email.user needs email.passwordFile or email.passwordCredential")
        }
    }
}
