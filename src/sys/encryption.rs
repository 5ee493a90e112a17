//! Encryption with age (age-encryption.org/v1). No other file uses the crate.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use age::stream::StreamWriter;
use age::x25519::{Identity, Recipient};
use age::{DecryptError, Decryptor, Encryptor};
use anyhow::{Context, Result, anyhow, bail, ensure};

/// How an encrypted file begins, as bytes or as text (armor).
const BEGINNINGS: [&[u8]; 2] = [
    b"age-encryption.org/v1\n",
    b"-----BEGIN AGE ENCRYPTED FILE-----",
];
const SECRET_KEY: &str = "AGE-SECRET-KEY-1";

/// Returns whether a file that begins with `head` is encrypted.
pub fn is_encrypted(head: &[u8]) -> bool {
    BEGINNINGS
        .iter()
        .any(|beginning| head.starts_with(beginning))
}

/// The public keys that something is encrypted for. Each of them alone can decrypt it.
pub struct Recipients(Vec<Recipient>);

impl Recipients {
    /// Takes `keys`, and those in `files`, one in a line; a line with `#` is a comment.
    ///
    /// # Errors
    /// When one is no public key of age, or there is none at all.
    pub fn read(keys: &[String], files: &[PathBuf]) -> Result<Recipients> {
        let mut recipients = Vec::new();
        for key in keys {
            recipients.push(recipient(key)?);
        }
        for path in files {
            for (number, line) in key_lines(&read(path)?) {
                let context = || format!("{}, line {number}", path.display());
                recipients.push(recipient(line).with_context(context)?);
            }
        }
        ensure!(
            !recipients.is_empty(),
            "there is no recipient: give --recipient KEY or --recipients-file FILE"
        );
        Ok(Recipients(recipients))
    }

    /// Returns a writer whose data arrives encrypted in `output`. It is complete only when
    /// [`EncryptedWriter::finish`] has returned.
    ///
    /// # Errors
    /// When `output` cannot be written.
    pub fn encrypt<W: Write>(&self, output: W) -> Result<EncryptedWriter<W>> {
        let recipients = self.0.iter().map(|key| key as &dyn age::Recipient);
        let encryptor = Encryptor::with_recipients(recipients)?;
        Ok(EncryptedWriter(encryptor.wrap_output(output)?))
    }
}

fn recipient(key: &str) -> Result<Recipient> {
    let key = key.trim();
    // A secret key must not get into a log.
    ensure!(
        !key.to_uppercase().starts_with(SECRET_KEY),
        "this is a secret key; a recipient is the public key, which begins with age1"
    );
    key.parse().map_err(|_: &str| {
        anyhow!(
            "{key:?} is no public key of age (age1...): keys of SSH and of plugins are taken by \
             the program age alone"
        )
    })
}

/// See [`Recipients::encrypt`].
pub struct EncryptedWriter<W: Write>(StreamWriter<W>);

impl<W: Write> EncryptedWriter<W> {
    /// Writes the end, without which nobody takes the data for complete.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> std::io::Result<W> {
        self.0.finish()
    }
}

impl<W: Write> Write for EncryptedWriter<W> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// The secret keys that may decrypt something.
pub struct Identities(Vec<Identity>);

impl Identities {
    /// Reads files as `age-keygen` writes them.
    ///
    /// # Errors
    /// When one cannot be read, or has something else than secret keys of age.
    pub fn read(files: &[PathBuf]) -> Result<Identities> {
        let mut identities = Vec::new();
        for path in files {
            let text = read(path)?;
            let before = identities.len();
            for (number, line) in key_lines(&text) {
                // The line is not in the message, because it may be a secret.
                let identity = line.parse().map_err(|_: &str| {
                    anyhow!(
                        "{}, line {number}: this is no secret key of age ({SECRET_KEY}...). A key \
                         with a passphrase, of SSH or of a plugin is taken by the program age \
                         alone: `age --decrypt ... | docker-stack-backup restore STACK --from -`",
                        path.display()
                    )
                })?;
                identities.push(identity);
            }
            ensure!(
                identities.len() > before,
                "{} has no secret key of age",
                path.display()
            );
        }
        Ok(Identities(identities))
    }

    /// Returns a reader of what is encrypted in `input`. Each piece is handed out when it is
    /// authenticated, and the end only if nothing is missing.
    ///
    /// # Errors
    /// When `input` is not encrypted, or for none of these keys.
    pub fn decrypt(&self, input: impl Read + Send + 'static) -> Result<Box<dyn Read + Send>> {
        let decryptor = Decryptor::new_buffered(BufReader::new(input)).map_err(explain)?;
        if decryptor.is_scrypt() {
            bail!(
                "it is encrypted with a passphrase, which only the program age can ask for: `age \
                 --decrypt ... | docker-stack-backup restore STACK --from -`"
            );
        }
        let identities = self.0.iter().map(|key| key as &dyn age::Identity);
        Ok(Box::new(decryptor.decrypt(identities).map_err(explain)?))
    }
}

fn explain(error: DecryptError) -> anyhow::Error {
    match error {
        DecryptError::NoMatchingKeys => {
            anyhow!("it is encrypted for others: none of the secret keys fits")
        }
        error => anyhow!("it cannot be decrypted: {error}"),
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read the keys in {}", path.display()))
}

/// Returns the lines that are neither empty nor comments, with their numbers.
fn key_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = (1..).zip(text.lines().map(str::trim));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}
