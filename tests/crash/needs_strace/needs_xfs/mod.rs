//! Tests on a disk that is copied in one step, by sharing its blocks.

mod power_cut;
