//! Tests with snapshots of a disk image. XFS takes one in a single step, by
//! sharing blocks.

mod power_cut;
