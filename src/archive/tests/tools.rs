//! Runs the programs that tests need.

use std::process::Output;

use super::*;

pub fn need_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes device nodes, owners and trusted attributes: run it as root"
    );
}

/// Runs a command that must succeed and write nothing to standard error. It is in
/// Debian's `package`.
pub fn run(command: &mut Command, package: &str) -> String {
    let output = run_any(command, package);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors.is_empty(),
        "{command:?}: {}\n{errors}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn run_any(command: &mut Command, package: &str) -> Output {
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command.output().unwrap_or_else(|error| {
        panic!(
            "{command:?}: {error}: this test needs the program; in Debian: apt install {package}"
        )
    })
}
