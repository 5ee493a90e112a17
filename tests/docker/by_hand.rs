//! Restores whole stacks with only `tar` and `docker`. The commands are those
//! of docs/restore.md, with the names replaced.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::mixed::Mixed;
use crate::common::shop::Shop;
use crate::common::{Place, Stack, output};

/// The commands of docs/restore.md.
fn commands() -> String {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/restore.md");
    let document = fs::read_to_string(document).unwrap();
    let after = document.split("To restore by hand").nth(1).unwrap();
    let block = after.split("```").nth(1).unwrap();
    let commands = block.strip_prefix("console\n").unwrap();
    for word in [EXAMPLE.archive, EXAMPLE.dir, EXAMPLE.volume, EXAMPLE.bind] {
        assert!(commands.contains(word), "docs/restore.md has no {word}");
    }
    commands.to_owned()
}

struct Example {
    archive: &'static str,
    dir: &'static str,
    volume: &'static str,
    bind: &'static str,
}

const EXAMPLE: Example = Example {
    archive: "/var/backups/docker/web/web_20261124_031500.tar",
    dir: "/opt/stacks",
    volume: "web_data",
    bind: "/srv/scans",
};

/// Runs the commands for this stack. If the stack does not exist, the commands
/// that move it away are skipped.
fn restore_by_hand(place: &Place, stack: &Stack, volumes: &[&str], binds: &[&Path]) {
    let volumes: Vec<String> = volumes
        .iter()
        .map(|volume| format!("{}_{volume}", stack.project))
        .collect();
    let binds: Vec<&str> = binds.iter().map(|bind| bind.to_str().unwrap()).collect();
    let is_there = stack.dir.exists();
    let moves_away = |line: &&str| line.ends_with(" down") || line.contains("mv ");
    let commands = commands();
    assert_eq!(commands.lines().filter(moves_away).count(), 3);
    let commands: Vec<&str> = commands
        .lines()
        .filter(|line| is_there || !moves_away(line))
        .collect();
    let script = commands
        .join("\n")
        // Longer names come first, because they contain the shorter ones.
        .replace(EXAMPLE.archive, "$ARCHIVE")
        .replace(EXAMPLE.dir, "$STACKS")
        .replace(EXAMPLE.volume, &volumes.join(" "))
        .replace(EXAMPLE.bind, &binds.join(" "))
        .replace("web", &stack.name);
    let mut shell = Command::new("bash");
    shell.args(["-euxc", &script]);
    shell.env("ARCHIVE", place.archive(&stack.name));
    shell.env("STACKS", stack.dir.parent().unwrap());
    let ended = output(&mut shell).expect_status(0);
    // Compose must accept the volumes as its own.
    assert!(!ended.stderr.contains("already exists"), "{}", ended.stderr);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn databases_are_restored_by_the_documented_commands() {
    let shop = Shop::new();
    let restore = || restore_by_hand(&shop.place, &shop.stack, &["db", "cache"], &[]);
    shop.spoil();
    assert!(shop.is_spoilt());
    restore();
    assert!(shop.is_restored());
    shop.stack.remove();
    // A new machine has no directory of stacks.
    fs::remove_dir_all(shop.stack.dir.parent().unwrap()).unwrap();
    restore();
    assert!(shop.is_restored());
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn volumes_and_binds_are_restored_by_the_documented_commands() {
    let mixed = Mixed::new();
    let outside = mixed.place.path("outside");
    let binds = [outside.join("dir"), outside.join("secret")];
    let binds = [binds[0].as_path(), binds[1].as_path()];
    let restore = || restore_by_hand(&mixed.place, &mixed.stack, &["data", "repos"], &binds);
    mixed.change();
    mixed.assert_changed("before");
    restore();
    mixed.assert_archived("over what had changed");
    mixed.remove();
    mixed.assert_gone("before");
    fs::create_dir(outside.join("repos")).unwrap();
    restore();
    mixed.assert_archived("over nothing");
}
