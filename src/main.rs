mod config;
mod outcome;

fn main() {}
