mod config;
mod coverage;
mod docker;
mod journal;
mod lifecycle;
mod logging;
mod outcome;
mod plan;
mod process;
mod quiet;
#[allow(dead_code)]
mod retention;
#[allow(dead_code)]
mod store;

fn main() {}
