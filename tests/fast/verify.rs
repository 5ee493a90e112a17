//! `verify` of an archive whose sums are missing or unreadable.

use std::fs;
use std::path::Path;

use crate::common::{Place, output};
use serde_json::json;

#[test]
fn missing_sums_are_created_only_for_an_intact_archive() {
    let place = Place::new();
    place.config(json!([]), json!({}));
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archives/format-1.tar");
    let dir = place.store().join("frozen");
    fs::create_dir_all(&dir).unwrap();
    let archive = dir.join("frozen_20200101_000000.tar");
    let sums = archive.with_extension("sums");
    let bytes = fs::read(&frozen).unwrap();
    let verify = |what: &str, status| {
        let ended = output(&mut place.program(&["verify", what])).expect_status(status);
        ended.stdout
    };
    // A truncated archive gets no sums.
    fs::write(&archive, &bytes[..bytes.len() / 2]).unwrap();
    verify("frozen", 2);
    assert!(!sums.exists());
    fs::write(&archive, &bytes).unwrap();
    let said = verify("frozen", 0);
    assert!(said.contains("sums were created now"), "{said}");
    // They equal the sums that a run writes together with an archive.
    assert_eq!(
        fs::read_to_string(&sums).unwrap(),
        fs::read_to_string(frozen.with_extension("sums-2")).unwrap()
    );
    let said = verify("frozen", 0);
    assert!(!said.contains("sums"), "{said}");
    // Only the sums reveal this damage.
    let at = bytes.windows(6).rposition(|six| six == b"zzzzzz").unwrap();
    let mut damaged = bytes.clone();
    damaged[at] = b'y';
    fs::write(&archive, &damaged).unwrap();
    let said = verify("frozen", 2);
    assert!(
        said.contains("frozen/dir/large: its data is damaged"),
        "{said}"
    );
    // Damaged sums are reported and not replaced.
    fs::write(&sums, "damaged").unwrap();
    let said = verify("frozen", 0);
    assert!(said.contains("remove the file"), "{said}");
    assert_eq!(fs::read_to_string(&sums).unwrap(), "damaged");
    // Nothing is written outside of the store.
    let outside = place.path("frozen_20200101_000000.tar");
    fs::copy(&frozen, &outside).unwrap();
    let said = verify(outside.to_str().unwrap(), 0);
    assert!(
        said.contains("it has no .sums file") && !said.contains("were created"),
        "{said}"
    );
    assert!(!outside.with_extension("sums").exists());
}
