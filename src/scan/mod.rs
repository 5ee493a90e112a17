//! What is to be archived: the trees, opened once ([`Source`]), and a list of
//! everything in them ([`scan`], [`Inventory`]).

mod attributes;
mod exclude;
mod fingerprint;
mod inventory;
mod listing;
pub(crate) mod mutation;
mod shared;
mod source;
mod sparse;
#[cfg(test)]
mod tests;
mod trust;
mod walk;

pub use exclude::Exclude;
pub use fingerprint::SETTLED_AFTER;
pub(crate) use fingerprint::{Keys, UNSETTLED};
pub use inventory::{Entry, Inventory, Node};
pub use source::Source;
pub(crate) use source::{is_gone, open_beneath, open_file_at, open_regular_at, stat_handle};
pub use sparse::Extent;
pub use trust::{Trust, sync};
pub(crate) use trust::{await_write, is_trusted};
pub use walk::scan;
