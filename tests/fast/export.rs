//! Encrypted archives: `export`, and `restore --identity`.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use serde_json::json;

use crate::common::{Ended, Place, output};

/// A store with the frozen archive, and a key.
pub struct Scene {
    pub place: Place,
    pub archive: PathBuf,
    key: Identity,
    key_file: PathBuf,
}

impl Scene {
    pub fn new() -> Scene {
        let place = Place::new();
        place.config(json!([]), json!({}));
        let archive = place.add_frozen_archive("20200101");
        let key = Identity::generate();
        let key_file = place.path("key.txt");
        write_key(&key_file, &key);
        Scene {
            place,
            archive,
            key,
            key_file,
        }
    }

    /// Runs `export`, and returns what it has written.
    pub fn export(&self, args: &[&str]) -> (Ended, Vec<u8>) {
        let path = self.place.path("exported");
        let mut export = self.place.program(&["export"]);
        export.args(args);
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$@\" >\"$OUT\"", "sh"]);
        shell.arg(export.get_program()).args(export.get_args());
        shell.env("OUT", &path);
        let ended = output(&mut shell);
        (ended, fs::read(path).unwrap())
    }

    fn encrypted(&self) -> Vec<u8> {
        let (ended, bytes) = self.export(&["frozen", "-r", &self.key.to_public().to_string()]);
        ended.expect_status(0);
        bytes
    }

    /// Unpacks an encrypted archive into a new directory.
    pub fn unpack(&self, bytes: &[u8], key_file: &Path) -> (Ended, PathBuf) {
        let file = self.place.path("a.tar.age");
        fs::write(&file, bytes).unwrap();
        let out = self.place.path("out");
        let _ = fs::remove_dir_all(&out);
        let mut restore = self.place.program(&["restore"]);
        restore
            .arg(file)
            .arg("-i")
            .arg(key_file)
            .arg("--to")
            .arg(&out);
        (output(&mut restore), out)
    }
}

fn write_key(path: &Path, key: &Identity) {
    let mut file = File::create(path).unwrap();
    writeln!(
        file,
        "# created: today\n{}",
        key.to_string().expose_secret()
    )
    .unwrap();
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn an_exported_archive_is_encrypted_and_comes_back_whole() {
    let scene = Scene::new();
    let plain = fs::read(&scene.archive).unwrap();
    let encrypted = scene.encrypted();
    assert!(contains(&plain, b"services:") && !contains(&encrypted, b"services:"));

    let decryptor = age::Decryptor::new_buffered(&encrypted[..]).unwrap();
    let keys = [&scene.key as &dyn age::Identity];
    let mut decrypted = Vec::new();
    let mut reader = decryptor.decrypt(keys.into_iter()).unwrap();
    reader.read_to_end(&mut decrypted).unwrap();
    assert!(decrypted == plain);

    let (ended, out) = scene.unpack(&encrypted, &scene.key_file);
    ended.expect_status(0);
    let compose = fs::read(out.join("frozen/compose.yaml")).unwrap();
    assert!(compose.starts_with(b"services:"));
}

#[test]
fn a_changed_or_cut_or_exchanged_archive_is_refused() {
    let scene = Scene::new();
    let good = scene.encrypted();
    let mut changed = good.clone();
    let last = changed.len() - 20;
    changed[last] ^= 1;
    // After a whole number of pieces: 64 KiB and 16 bytes each, behind the header.
    let header = good
        .windows(4)
        .position(|window| window == b"\n---")
        .unwrap();
    let header = header + good[header + 1..].iter().position(|b| *b == b'\n').unwrap() + 2;
    let at_a_piece = header + 16 + 65536 + 16;
    assert!(at_a_piece < good.len());
    for (bytes, what) in [
        (&changed[..], "changed"),
        (&good[..good.len() - 1], "cut"),
        (&good[..at_a_piece], "cut between pieces"),
    ] {
        let (ended, _) = scene.unpack(bytes, &scene.key_file);
        assert_eq!(ended.status, 1, "{what}: {}", ended.stderr);
    }
    let other = scene.place.path("other.txt");
    write_key(&other, &Identity::generate());
    for (bytes, key, said) in [
        (&good[..], &other, "none of the secret keys fits"),
        (
            &fs::read(&scene.archive).unwrap()[..],
            &scene.key_file,
            "is not encrypted",
        ),
    ] {
        let ended = scene.unpack(bytes, key).0.expect_status(1);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
    // The control, and the same without the key.
    let (ended, _) = scene.unpack(&good, &scene.key_file);
    ended.expect_status(0);
    let file = scene.place.path("a.tar.age");
    for command in [&["list"][..], &["verify"], &["restore", "--to", "/nowhere"]] {
        let ended = output(scene.place.program(command).arg(&file));
        assert_ne!(ended.status, 0);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains("--identity FILE"), "{command:?}: {said}");
    }
}

#[test]
fn nothing_is_exported_that_is_damaged_or_for_nobody() {
    let scene = Scene::new();
    let public = scene.key.to_public().to_string();
    let secret = scene.key.to_string().expose_secret().to_owned();
    for (args, said) in [
        (&["frozen"][..], "there is no recipient"),
        (&["frozen", "-r", "age1xyz"], "is no public key of age"),
        (&["frozen", "-r", &secret], "this is a secret key"),
        (
            &["frozen", "-R", scene.key_file.to_str().unwrap()],
            "key.txt, line 2",
        ),
        (&["nothing", "-r", &public], "no stack `nothing`"),
    ] {
        let (ended, bytes) = scene.export(args);
        let ended = ended.expect_status(1);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
        assert!(!ended.stderr.contains(&secret), "{}", ended.stderr);
        assert!(bytes.is_empty());
    }
    let mut bytes = fs::read(&scene.archive).unwrap();
    let at = bytes
        .windows(9)
        .position(|window| window == b"services:")
        .unwrap();
    bytes[at] ^= 1;
    fs::write(&scene.archive, bytes).unwrap();
    let (ended, bytes) = scene.export(&["frozen", "-r", &public]);
    assert!(ended.expect_status(1).stderr.contains("is damaged"));
    assert!(bytes.is_empty());
}
