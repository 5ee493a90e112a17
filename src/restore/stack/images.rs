//! The images that a restore needs on this machine.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;

use crate::archive::ServiceImage;
use crate::engine::Engine;

/// What to do about missing images.
pub(super) const ADVICE: &str = "pull or load them, or give --no-start";

/// Returns a message that names the images that this machine does not have, or
/// `None` if it has all.
///
/// # Errors
/// When the Engine cannot be asked.
pub(super) fn missing_images<'a>(
    engine: &Engine,
    images: impl IntoIterator<Item = &'a ServiceImage>,
) -> Result<Option<String>> {
    let mut missing = Vec::new();
    for image in images {
        if engine
            .images(&BTreeSet::from([image.reference.clone()]))?
            .is_empty()
        {
            missing.push(described(image));
        }
    }
    missing.dedup();
    Ok(match missing.as_slice() {
        [] => None,
        missing => Some(format!(
            "images are missing on this machine: {}",
            missing.join("; ")
        )),
    })
}

/// Names an image with its digests, by which exactly this image can be pulled.
fn described(image: &ServiceImage) -> String {
    let origin = match image.digests.as_slice() {
        [] if image.id.is_empty() => String::new(),
        [] => format!(" (built here, id {})", image.id),
        digests => format!(" ({})", digests.join(", ")),
    };
    format!("{} of service {}{origin}", image.reference, image.service)
}

/// Adds the services that `services` depend on: Compose creates their
/// containers, too.
pub(super) fn with_dependencies(services: Vec<String>, compose: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut rest = services;
    while let Some(service) = rest.pop() {
        let needed = compose
            .get("services")
            .and_then(|services| services.get(&service)?.get("depends_on")?.as_object());
        if all.insert(service) {
            rest.extend(needed.into_iter().flat_map(|needed| needed.keys().cloned()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_with_their_digests() {
        let image = |id: &str, digests: &[&str]| ServiceImage {
            service: "db".to_owned(),
            reference: "postgres:17".to_owned(),
            id: id.to_owned(),
            digests: digests.iter().map(|text| (*text).to_owned()).collect(),
        };
        let id = "sha256:1111";
        let named = [
            (id, &["postgres@sha256:2222"][..], " (postgres@sha256:2222)"),
            (
                id,
                &["a@sha256:3", "b@sha256:3"],
                " (a@sha256:3, b@sha256:3)",
            ),
            (id, &[], " (built here, id sha256:1111)"),
            // An image that is known from a compose file only.
            ("", &[], ""),
        ];
        for (id, digests, origin) in named {
            let expected = format!("postgres:17 of service db{origin}");
            assert_eq!(described(&image(id, digests)), expected);
        }
    }
}
