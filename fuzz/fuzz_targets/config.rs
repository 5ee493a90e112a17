//! A configuration gives a plan or an error.
#![no_main]

use docker_stack_backup::config::Config;
use docker_stack_backup::config::plan::Plan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(config) = Config::parse(bytes) {
        let _ = Plan::new(config);
    }
});
