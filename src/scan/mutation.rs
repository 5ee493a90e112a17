//! Leaves out a step, so that the tests can be seen to notice.

/// Whether a test run is to do without one of the steps that keep a draft true,
/// and so must fail: `docs/design.md`. Never in the program itself.
pub(crate) fn mutated(step: &str) -> bool {
    cfg!(test) && std::env::var_os("PRECOPY_MUTATION").is_some_and(|wanted| wanted == step)
}
