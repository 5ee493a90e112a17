//! What is to be archived: the trees, opened once ([`Source`]), and a list of
//! everything in them ([`scan`], [`Inventory`]).

mod attributes;
mod exclude;
mod fingerprint;
mod inventory;
mod listing;
mod scan;
mod source;
mod sparse;
#[cfg(test)]
mod tests;
mod trust;

pub use exclude::Exclude;
pub use fingerprint::SETTLED_AFTER;
pub(crate) use fingerprint::{Keys, UNSETTLED};
pub use inventory::{Entry, Inventory, Node};
pub use scan::scan;
pub use source::Source;
pub(crate) use source::{is_gone, open_beneath, open_file_at, open_regular_at, stat_handle};
pub use sparse::Extent;
pub use trust::{Trust, sync};
pub(crate) use trust::{await_write, is_trusted};

/// A path for messages: one line whatever is in it. Bytes that are not UTF-8
/// become U+FFFD, control characters and backslashes are escaped.
pub fn display_path(path: &[u8]) -> String {
    let mut shown = String::with_capacity(path.len());
    for character in String::from_utf8_lossy(path).chars() {
        if character.is_control() || character == '\\' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Whether a test run is to do without one of the steps that keep a draft true,
/// and so must fail: `docs/design.md`. Never in the program itself.
pub(crate) fn mutated(step: &str) -> bool {
    cfg!(test) && std::env::var_os("PRECOPY_MUTATION").is_some_and(|wanted| wanted == step)
}
