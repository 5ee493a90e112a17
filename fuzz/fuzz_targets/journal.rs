//! A journal entry that can be read can be written and read again.
#![no_main]

use docker_stack_backup::outcome::RunOutcome;
use docker_stack_backup::stack::journal::JournalEntry;
use docker_stack_backup::sys::state_file::{State, parse, render};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    again::<JournalEntry>(bytes);
    again::<RunOutcome>(bytes);
});

fn again<T: State>(bytes: &[u8]) {
    if let Ok(state) = parse::<T>(bytes) {
        let written = render(&state).unwrap();
        assert!(parse::<T>(&written).is_ok());
    }
}
