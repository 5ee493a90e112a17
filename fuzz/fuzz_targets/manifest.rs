//! A manifest is found and checked, whatever the bytes are. What is accepted names
//! nothing outside of its stack.
#![no_main]

use docker_stack_backup::archive::{Manifest, read_manifest_of_stream};
use docker_stack_backup::restore::{check_manifest, tree_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    if let Ok((Some(json), head)) = read_manifest_of_stream(bytes) {
        assert!(bytes.starts_with(&head));
        check(&json);
    }
});

fn check(json: &[u8]) {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(json) else {
        return;
    };
    if check_manifest(&manifest).is_err() {
        return;
    }
    assert!(!manifest.stack.contains('/') && manifest.stack != "..");
    for path in manifest.trees.values() {
        if let Some(member) = tree_of(&manifest, path) {
            assert!(member.starts_with(&manifest.stack), "{member}");
            assert!(member.split('/').all(|part| part != ".."), "{member}");
        }
    }
}
