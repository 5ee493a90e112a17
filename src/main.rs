mod config;
mod docker;
mod journal;
mod lifecycle;
mod outcome;
mod process;

fn main() {}
