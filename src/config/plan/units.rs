//! Checks the options of a stack that is made of units of systemd.

use anyhow::{Result, bail, ensure};

use crate::config::StackOptions;
use crate::config::hook::HookOptions;
use crate::config::stack::StopMethod;

/// Kinds of units that can be stopped and started again.
const KINDS: [&str; 4] = [".service", ".socket", ".timer", ".path"];
/// The longest name (systemd.unit(5)).
const NAME_BYTES_MAX: usize = 255;

/// Checks that `units` and `paths` go together, and that nothing is set which only a
/// Compose project has.
pub(super) fn check(own: &StackOptions, defaults: &StackOptions) -> Result<()> {
    if own.units.is_empty() {
        ensure!(
            own.paths.is_empty(),
            "`paths` needs `units`: a stack of Docker Compose has a `path`, and `includeBinds`"
        );
        return Ok(());
    }
    ensure!(
        !own.paths.is_empty(),
        "`units` needs `paths`: the directories that the units write to"
    );
    own.units.iter().try_for_each(|unit| check_name(unit))?;
    ensure!(
        own.stop_timeout != Some(0),
        "`stopTimeout`: 0 leaves the units no time to stop; set a number of seconds, or omit it"
    );
    let of_compose = [
        (
            "path",
            own.path.is_some(),
            "name the directories in `paths`",
        ),
        ("project", own.project.is_some(), "leave it out"),
        ("files", !own.files.is_empty(), "leave it out"),
        ("envFiles", !own.env_files.is_empty(), "leave it out"),
        ("includeBinds", !own.include_binds.is_empty(), "use `paths`"),
        (
            "includeVolumes",
            !own.include_volumes.is_empty(),
            "use `paths`",
        ),
        (
            "stopMethod",
            !matches!(own.stop_method, None | Some(StopMethod::Stop)),
            "units can only be stopped",
        ),
        (
            "drillCheck",
            !own.drill_check.is_empty(),
            "a drill does not start units",
        ),
        (
            "drillSecrets",
            !own.drill_secrets.is_empty(),
            "a drill does not start units",
        ),
    ];
    let set = of_compose.into_iter().find(|(_, is_set, _)| *is_set);
    if let Some((field, _, advice)) = set {
        bail!("`{field}` is for a stack of Docker Compose, and this one has `units`: {advice}");
    }
    let in_service = |hook: &&HookOptions| hook.service.is_some();
    ensure!(
        own.hooks
            .iter()
            .chain(&defaults.hooks)
            .find(in_service)
            .is_none(),
        "`hooks`: a stack with `units` has no services of Docker Compose: set `host` to true, or \
         give the hook of the `defaults` to the stacks that have the service"
    );
    Ok(())
}

/// Checks the name of a unit (systemd.unit(5)).
fn check_name(unit: &str) -> Result<()> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let stem = KINDS.iter().find_map(|kind| unit.strip_suffix(kind));
    let is_valid = unit.len() <= NAME_BYTES_MAX
        && unit.chars().all(is_allowed)
        && !unit.starts_with(['-', '.'])
        && stem.is_some_and(|stem| !stem.is_empty() && !stem.ends_with('@'));
    ensure!(
        is_valid,
        "`units`: {unit:?} is not a unit that can be stopped and started: write its whole name, \
         with {} at its end (`systemctl list-units` shows the names)",
        KINDS.join(" or ")
    );
    Ok(())
}
