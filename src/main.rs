mod config;
#[allow(dead_code)]
mod email;
mod outcome;
#[allow(dead_code, unused_imports)]
mod report;
#[allow(dead_code)]
mod retention;
#[allow(dead_code)]
mod store;

fn main() {}
