//! Repositories of Borg and restic, to which finished archives are handed over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::de::{self, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};

use super::hook::check_variables;
use super::notify::check_name;
use super::retention::Retention;
use super::{json, retention_or_null};
use crate::sys::secret::check_credential_name;

const DEFAULT_TIME_LIMIT_SECS: u32 = 4 * 3600;
const DEFAULT_CHECK_DAYS: u32 = 30;

/// A repository. There are no secrets in here, only where they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OffsiteRepository {
    pub kind: RepositoryKind,
    /// Tells repositories of one kind apart. Default: the kind.
    pub name: Option<String>,
    /// Where it is, as the program takes it in its environment.
    pub repository: String,
    /// File with the passphrase.
    pub passphrase_file: Option<PathBuf>,
    /// Name of a systemd credential (`LoadCredential=`) with the passphrase. It takes
    /// precedence over `passphrase_file` where systemd passes credentials.
    pub credential: Option<String>,
    /// Further variables for the program.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Variables with secrets: each is read from a file, or a systemd credential.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// `None` removes nothing from the repository.
    #[serde(default, deserialize_with = "retention_or_null")]
    pub retention: Option<Retention>,
    /// Days between two checks of the repository; `None` for no check.
    #[serde(default = "default_check_days")]
    pub check_days: Option<u32>,
    /// How long one run may take for this repository, in seconds.
    #[serde(default = "default_time_limit")]
    pub time_limit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RepositoryKind {
    Borg,
    Restic,
}

fn default_check_days() -> Option<u32> {
    Some(DEFAULT_CHECK_DAYS)
}

fn default_time_limit() -> u32 {
    DEFAULT_TIME_LIMIT_SECS
}

impl RepositoryKind {
    /// Returns the name of the program, which is that of the kind.
    pub fn program(self) -> &'static str {
        match self {
            RepositoryKind::Borg => "borg",
            RepositoryKind::Restic => "restic",
        }
    }
}

impl OffsiteRepository {
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.kind.program())
    }

    /// Checks the settings without reading a file or asking a server.
    fn validate(&self) -> Result<()> {
        check_name(self.name())?;
        ensure!(
            !self.repository.is_empty() && !self.repository.contains('\0'),
            "`repository`: is empty, or has a NUL"
        );
        ensure!(
            !has_password(&self.repository),
            "`repository`: has a password, which everybody who may read the configuration would \
             see; give it to the program in `secrets`, or by a key"
        );
        let has_passphrase = self.passphrase_file.is_some() || self.credential.is_some();
        ensure!(
            has_passphrase || self.kind == RepositoryKind::Borg,
            "needs `passphraseFile` or `credential`, a file or a systemd credential with the \
             password of the repository"
        );
        if let Some(credential) = &self.credential {
            check_credential_name(credential, "`credential`", "`passphraseFile`")?;
        }
        let is_absolute = |path: &PathBuf| path.is_absolute();
        ensure!(
            self.passphrase_file.as_ref().is_none_or(is_absolute),
            "`passphraseFile`: must be an absolute path"
        );
        check_variables(&self.environment, &self.secrets)?;
        ensure!(
            !self
                .retention
                .as_ref()
                .is_some_and(Retention::keeps_nothing),
            "`retention`: keeps nothing; set a rule above 0, or `null` to keep everything"
        );
        ensure!(
            self.check_days != Some(0),
            "`checkDays`: is zero; set a number of days, or `null` for no check"
        );
        ensure!(self.time_limit > 0, "`timeLimit` is zero");
        Ok(())
    }

    /// Returns the directory of a repository on this machine.
    pub fn local_path(&self) -> Option<&Path> {
        let path = Path::new(&self.repository);
        path.is_absolute().then_some(path)
    }
}

/// Whether an address such as `rest:https://user:password@host/` has a password.
fn has_password(address: &str) -> bool {
    let Some((_, rest)) = address.split_once("://") else {
        return false;
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':'))
}

/// Checks the parameters of Borg's chunker (`borg help create`, `--chunker-params`).
pub(super) fn check_chunker(chunker: &str) -> Result<()> {
    let (algorithm, numbers) = chunker.split_once(',').unwrap_or((chunker, ""));
    let count = numbers.split(',').count();
    let are_numbers = numbers
        .split(',')
        .all(|number| number.parse::<u64>().is_ok());
    let is_known = match algorithm {
        "fixed" => (1..=2).contains(&count),
        "buzhash" => count == 4,
        _ => false,
    };
    ensure!(
        is_known && are_numbers,
        "{chunker:?} are not parameters of Borg's chunker: use \"fixed,4096\" for large files \
         that change within, \"buzhash,9,16,12,255\" for small ones, or \
         \"buzhash,19,23,21,4095\", which is Borg's own default"
    );
    Ok(())
}

/// Returns the problems of all repositories, one a line.
pub fn problems(repositories: &[OffsiteRepository]) -> Vec<String> {
    let mut names = BTreeSet::new();
    let mut problems = Vec::new();
    for (i, repository) in repositories.iter().enumerate() {
        let name = repository.name();
        let unique = match names.insert(name) {
            true => Ok(()),
            false => Err(anyhow::anyhow!(
                "there is another repository `{name}`: give each a `name` of its own"
            )),
        };
        let context = || format!("`handover[{i}]` ({name})");
        if let Err(error) = repository.validate().and(unique).with_context(context) {
            problems.push(format!("{error:#}"));
        }
    }
    problems
}

/// Reads the list of repositories, each of which is an object.
pub fn repositories<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<OffsiteRepository>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Entry(#[serde(deserialize_with = "repository")] OffsiteRepository);

    let entries = Vec::<Entry>::deserialize(deserializer)?;
    Ok(entries.into_iter().map(|Entry(entry)| entry).collect())
}

fn repository<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsiteRepository, D::Error> {
    let expected = "an object with `kind` and `repository`";
    json::object(deserializer, expected)?
        .ok_or_else(|| de::Error::invalid_type(Unexpected::Unit, &expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(fields: &str) -> String {
        let json = format!(r#"{{"kind": "borg", "repository": "/srv/borg", {fields}}}"#);
        match serde_json::from_str::<OffsiteRepository>(&json) {
            Ok(repository) => problems(&[repository]).join("\n"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_reason() {
        for fine in [
            r#""timeLimit": 60"#,
            r#""retention": {"keepDaily": 7}, "checkDays": null"#,
            r#""retention": null, "secrets": {"X": "credential", "Y": "/run/y"}"#,
            r#""name": "nas", "passphraseFile": "/run/borg""#,
        ] {
            assert_eq!(problems_of(fine), "", "{fine}");
        }
        for (fields, expected) in [
            (r#""passphraseFile": "borg""#, "`passphraseFile`: must be"),
            (r#""credential": "a/b""#, "for a path use `passphraseFile`"),
            (r#""name": "../x""#, "`name`"),
            (r#""environment": {"A B": "x"}"#, "not the name"),
            (r#""secrets": {"A": "dir/x"}"#, "neither the absolute path"),
            (r#""retention": {"keepDaily": 0}"#, "keeps nothing"),
            (r#""checkDays": 0"#, "`null` for no check"),
            (r#""timeLimit": 0"#, "`timeLimit` is zero"),
            (r#""passphrase": "secret""#, "unknown field `passphrase`"),
        ] {
            let found = problems_of(fields);
            assert!(found.contains(expected), "{fields}: {found}");
        }
    }

    #[test]
    fn a_password_in_an_address_and_a_restic_repository_without_one_are_refused() {
        let of = |json: &str| problems(&serde_json::from_str::<Vec<_>>(json).unwrap()).join("\n");
        let restic = |repository: &str, more: &str| {
            of(&format!(
                r#"[{{"kind": "restic", "repository": "{repository}"{more}}}]"#
            ))
        };
        let file = r#", "passphraseFile": "/run/restic""#;
        assert!(restic("/srv/restic", "").contains("needs `passphraseFile`"));
        for fine in ["/srv/a:b@c", "sftp:me@nas:stacks", "rest:https://me@nas/x"] {
            assert_eq!(restic(fine, file), "", "{fine}");
        }
        let refused = restic("rest:https://me:hunter2@nas/x", file);
        assert!(refused.contains("has a password"), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
        let twice =
            r#"[{"kind": "borg", "repository": "/a"}, {"kind": "borg", "repository": "/b"}]"#;
        assert!(of(twice).contains("there is another repository `borg`"));
    }

    #[test]
    fn parameters_of_a_chunker_are_those_that_borg_takes() {
        for fine in ["fixed,4096", "fixed,4096,512", "buzhash,9,16,12,255"] {
            check_chunker(fine).unwrap();
        }
        for wrong in [
            "",
            "fixed",
            "fixed,x",
            "buzhash,9,16",
            "default",
            "fixed,1 --x",
        ] {
            check_chunker(wrong).unwrap_err();
        }
    }
}
