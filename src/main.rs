#[allow(dead_code, unused_imports)] // The cycle that calls it comes next.
mod archive;
#[allow(dead_code, unused_imports)]
mod capture;
mod config;
mod outcome;

fn main() {}
