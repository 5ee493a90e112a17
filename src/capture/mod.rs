//! What is to be archived: the trees, opened once ([`Source`]), and a list of
//! everything in them ([`scan`], [`Inventory`]).

mod attributes;
mod exclude;
mod inventory;
mod listing;
mod scan;
mod source;
mod sparse;
#[cfg(test)]
mod tests;

pub use exclude::Exclude;
pub use inventory::{Entry, Inventory, Node};
pub use scan::scan;
pub use source::Source;
pub(crate) use source::{is_gone, open_beneath, open_file_at, stat_handle};
pub use sparse::Extent;

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
