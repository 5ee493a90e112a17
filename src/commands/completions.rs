//! `completions`: a script by which a shell asks this program how a command line could go
//! on.

use anyhow::{Context as _, Result};
use clap_complete::env::Shells;

use super::output::print_plain;
use crate::outcome::ExitStatus;

const PROGRAM: &str = env!("CARGO_PKG_NAME");

/// To bash, `web@2026` is three words. This asks for the word as it was typed, and answers
/// with what follows the `@`.
const BASH_TIMES: &str = r#"
_docker_stack_backup() {
    local line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##*[[:space:]]}"
    if [[ $word != *@* ]]; then
        _clap_complete_docker_stack_backup "$@"
        return
    fi
    local -a COMP_WORDS
    read -ra COMP_WORDS <<<"$line"
    local COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
    _clap_complete_docker_stack_backup "$1" "$word" "$3"
    COMPREPLY=("${COMPREPLY[@]#"${word%@*}@"}")
}
complete -o nospace -o bashdefault -F _docker_stack_backup docker-stack-backup
"#;

pub fn completions(shell: clap_complete::Shell) -> Result<ExitStatus> {
    let shells = Shells::builtins();
    let name = shell.to_string();
    let shell = shells
        .completer(&name)
        .with_context(|| format!("cannot write completions for {name}"))?;
    let mut script = Vec::new();
    // The shell finds the program by its name, so an update needs no new script.
    shell.write_registration("COMPLETE", PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    let mut script = String::from_utf8(script)?;
    if name == "bash" {
        script += BASH_TIMES;
    }
    print_plain(&script).map(|()| ExitStatus::Ok)
}
