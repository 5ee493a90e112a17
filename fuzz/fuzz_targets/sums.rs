//! A sums file that is accepted is written as one that is accepted.
#![no_main]

use docker_stack_backup::archive::Sums;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(sums) = Sums::parse(text) {
        let mut written = Vec::new();
        sums.write(&mut written).unwrap();
        let again = Sums::parse(std::str::from_utf8(&written).unwrap()).unwrap();
        assert_eq!(again.member_count(), sums.member_count());
    }
});
