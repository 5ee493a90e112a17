//! What may be shown of Compose's messages. They quote the files that Compose reads,
//! and a compose file can name any file of the host. So of each message only those
//! words are shown that Compose itself uses or that stand in the stack's own files.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use thiserror::Error;

use crate::sys::paths::open_regular;

/// Words of Compose and of its parsers, sorted.
const VOCABULARY: &str = include_str!("compose_words.txt");
const HIDDEN: &str = "[hidden]";
/// How many lines of a message are shown, counted from its end.
const SHOWN_LINES: usize = 3;
const SHOWN_CHARS: usize = 600;
/// How much of each of the stack's files is looked at.
const LOOKED_AT_BYTES: u64 = 1 << 20;
/// What the Go runtime says when it gets no memory.
const MEMORY_SIGNS: [&str; 4] = [
    "out of memory",
    "cannot allocate memory",
    "pthread_create failed",
    "errno=12",
];

/// Compose could not read a stack's files.
#[derive(Debug, Error)]
#[error("{message}; to see all of Compose's message, run `docker compose config` in {dir}")]
pub(super) struct Unreadable {
    message: String,
    dir: String,
}

/// The words that stand in a stack's own files.
pub(super) struct OwnWords(BTreeSet<String>);

impl OwnWords {
    /// Reads files of a stack. A symlink may lead to a file of the host, so none is
    /// followed; what cannot be read has no words.
    pub(super) fn of<'a>(dir: &Path, files: impl IntoIterator<Item = &'a Path>) -> OwnWords {
        let paths = dir.to_string_lossy().into_owned();
        let names: Vec<String> = files
            .into_iter()
            .flat_map(|file| {
                let path = dir.join(file);
                [read(&path), path.to_string_lossy().into_owned()]
            })
            .collect();
        let texts = names.iter().chain([&paths]);
        OwnWords(
            texts
                .flat_map(|text| words(text))
                .map(str::to_owned)
                .collect(),
        )
    }

    fn knows(&self, word: &str) -> bool {
        let is_of_compose = || {
            let lower = word.to_ascii_lowercase();
            VOCABULARY.split_whitespace().any(|known| known == lower)
        };
        self.0.contains(word) || is_of_compose()
    }

    /// Returns a message without the words that are not known.
    pub(super) fn shown(&self, message: &str) -> String {
        let lines: Vec<&str> = message.lines().filter(|l| !l.trim().is_empty()).collect();
        let lines = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        let mut shown: Vec<&str> = Vec::new();
        let mut is_place = false;
        for token in lines.iter().flat_map(|line| line.split_whitespace()) {
            // A number is shown only where it is the place of an error.
            let is_number = |word: &str| word.bytes().all(|b| b.is_ascii_digit());
            let is_shown =
                words(token).all(|word| self.knows(word) || (is_place && is_number(word)));
            let word = words(token).next().unwrap_or_default();
            is_place = matches!(word, "line" | "column");
            match is_shown {
                true => shown.push(token),
                false if shown.last() == Some(&HIDDEN) => {}
                false => shown.push(HIDDEN),
            }
        }
        let shown = shown.join(" ");
        shown.chars().take(SHOWN_CHARS).collect()
    }

    /// Makes an error of what Compose said when it ended without success.
    pub(super) fn error(&self, dir: &Path, exit: &str, stderr: &str) -> Unreadable {
        let lower = stderr.to_ascii_lowercase();
        let message = match MEMORY_SIGNS.iter().any(|sign| lower.contains(sign)) {
            true => "Compose needed more memory than it may have: does the stack name a file \
                     without an end?"
                .to_owned(),
            false => match self.shown(stderr).as_str() {
                "" => exit.to_owned(),
                shown => format!("{exit}: {shown}"),
            },
        };
        Unreadable {
            message,
            dir: dir.display().to_string(),
        }
    }
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = open_regular(path) {
        // What is missing after an error has no words.
        let _ = file.take(LOOKED_AT_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_within = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '$');
    text.split(move |c| !is_within(c))
        .map(|word| word.trim_matches('-'))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn words_of_foreign_files_are_hidden_and_those_of_the_stack_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("compose.yaml");
        fs::write(
            &file,
            "services:\n  web:\n    imag: nginx\n    env_file: ./secret.env\n",
        )
        .unwrap();
        fs::write(dir.path().join("host"), "root swordfish").unwrap();
        symlink("host", dir.path().join(".env")).unwrap();
        let files = ["compose.yaml", ".env"].map(Path::new);
        let shown = |message: &str| OwnWords::of(dir.path(), files).shown(message);
        let at = dir.path().display();
        for message in [
            "services.web Additional property imag is not allowed",
            "yaml: line 12: mapping values are not allowed in this context",
            "validating PATH/compose.yaml: services.web additional properties 'imag' not allowed",
            "env file PATH/secret.env not found: stat PATH/secret.env: no such file or directory",
            "no configuration file provided: not found",
        ] {
            let message = message.replace("PATH", &at.to_string());
            assert_eq!(shown(&message), message);
        }
        for (message, expected) in [
            (
                "failed to read /etc/shadow: line 1: unexpected character \"$\" in variable name \
                 \"root:$y$j9T$hash:19000:0:9:7:::\\nswordfish is here\"",
                "failed to read [hidden] line 1: unexpected character [hidden] in variable name \
                 [hidden] is [hidden]",
            ),
            // A number may be a PIN.
            (
                "cannot unmarshal !!int `4711` into string",
                "cannot unmarshal [hidden] into string",
            ),
        ] {
            assert_eq!(shown(message), expected);
        }
        // The control: what leads elsewhere has no words of its own, a file has.
        fs::remove_file(dir.path().join(".env")).unwrap();
        fs::write(dir.path().join(".env"), "A=swordfish").unwrap();
        assert_eq!(shown("value swordfish"), "value swordfish");
    }

    #[test]
    fn a_lack_of_memory_is_told_without_the_stack_trace() {
        let words = OwnWords::of(Path::new("/srv/web"), []);
        let said = "fatal error: runtime: out of memory\n\nruntime stack:\nruntime.throw(...)";
        let error = words.error(Path::new("/srv/web"), "exit status 2", said);
        assert!(
            error.to_string().contains("more memory than it may have"),
            "{error}"
        );
        assert!(!error.to_string().contains("runtime"), "{error}");
    }
}
