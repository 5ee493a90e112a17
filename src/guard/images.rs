//! The images of a stack's containers: holding them while an update runs, and letting
//! their names stand for them again.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::engine::{Container, Engine};
use crate::outcome::{ImageChange, ImageName};

/// The names that hold images. A prune leaves alone what has a name.
const HOLDING_NAME: &str = "docker-stack-backup-guard";

/// An image that containers were made from, under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldImage {
    /// What the compose file calls it.
    pub reference: String,
    pub id: String,
    /// A name of this program for it.
    pub hold: String,
    pub services: Vec<String>,
}

/// Returns the images of a stack's containers. Nothing is held yet.
///
/// # Errors
/// When one of them is gone, or one name would have to stand for two of them.
pub fn of_containers(
    engine: &Engine,
    containers: &[Container],
    token: &str,
) -> Result<Vec<HeldImage>> {
    let mut images: Vec<HeldImage> = Vec::new();
    for container in containers.iter().filter(|container| !container.one_off) {
        let (reference, id) = (&container.image_reference, &container.image_id);
        let hold = format!("{HOLDING_NAME}:{token}-{}", images.len());
        match images
            .iter_mut()
            .find(|image| image.reference == *reference)
        {
            None => images.push(HeldImage {
                reference: reference.clone(),
                id: id.clone(),
                hold,
                services: vec![container.service.clone()],
            }),
            Some(image) if image.id == *id => {
                if !image.services.contains(&container.service) {
                    image.services.push(container.service.clone());
                }
            }
            Some(image) => bail!(
                "{} and {} run from two images of the same name, {reference}, which can be put back \
                 for one of them only: recreate the older container first (`docker compose up -d`)",
                image.services.join(", "),
                container.service
            ),
        }
    }
    check_present(engine, &images)?;
    Ok(images)
}

/// # Errors
/// Names the first image that the Engine does not have.
fn check_present(engine: &Engine, images: &[HeldImage]) -> Result<()> {
    for image in images {
        ensure!(
            engine.image_id(&image.id)?.is_some(),
            "the image of {} is gone ({}, {}), so its container could not be made again",
            image.services.join(", "),
            image.reference,
            image.id
        );
    }
    Ok(())
}

/// Gives the images names of this program.
///
/// # Errors
/// When one cannot be named.
pub fn hold(engine: &Engine, images: &[HeldImage]) -> Result<()> {
    images
        .iter()
        .try_for_each(|image| engine.tag_image(&image.id, &image.hold))
}

/// Lets the names of the compose file stand for the images again.
///
/// # Errors
/// When one of the images is gone. No name was changed then.
pub fn put_back(engine: &Engine, images: &[HeldImage]) -> Result<()> {
    check_present(engine, images)
        .context("pull or load it, then run `docker-stack-backup recover`")?;
    for image in images.iter().filter(|image| is_name(&image.reference)) {
        if engine.image_id(&image.reference)?.as_ref() != Some(&image.id) {
            tracing::info!(
                image = image.reference,
                id = image.id,
                "naming the old image"
            );
            engine.tag_image(&image.id, &image.reference)?;
        }
    }
    Ok(())
}

/// Takes the names of this program away again. Returns warnings.
///
/// An image that lost its last name would be removed. Therefore the name is first given to
/// the image that is used now, and the old image stays as an update leaves it: without a
/// name.
pub fn release(engine: &Engine, images: &[HeldImage]) -> Vec<String> {
    let release = |image: &HeldImage| -> Result<()> {
        if engine.image_id(&image.hold)?.is_none() {
            return Ok(());
        }
        if engine.image_id(&image.reference)?.is_some() {
            engine.tag_image(&image.reference, &image.hold)?;
        }
        engine.untag_image(&image.hold)
    };
    let errors = images.iter().filter_map(|image| release(image).err());
    errors.map(|error| format!("{error:#}")).collect()
}

/// Whether an image can be given this name: it is no id, and has no digest.
fn is_name(reference: &str) -> bool {
    let is_id = reference.len() >= 12 && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
    !reference.contains('@') && !reference.starts_with("sha256:") && !is_id
}

/// Compares the images of the services.
pub fn changes(before: &[HeldImage], after: &[Container]) -> Vec<ImageChange> {
    let name = |reference: &str, id: &str| ImageName {
        reference: reference.to_owned(),
        id: id.to_owned(),
    };
    let mut changes: BTreeMap<&str, (Option<ImageName>, Option<ImageName>)> = BTreeMap::new();
    for image in before {
        for service in &image.services {
            changes.entry(service).or_default().0 = Some(name(&image.reference, &image.id));
        }
    }
    for container in after.iter().filter(|container| !container.one_off) {
        let image = name(&container.image_reference, &container.image_id);
        changes.entry(&container.service).or_default().1 = Some(image);
    }
    let change = |(service, (before, after)): (&str, _)| ImageChange {
        service: service.to_owned(),
        before,
        after,
    };
    changes.into_iter().map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(service: &str, reference: &str, id: &str) -> Container {
        Container::from_json(serde_json::json!({
            "Id": service, "Name": format!("/p-{service}-1"), "Image": id,
            "State": {"Status": "running", "ExitCode": 0},
            "Config": {"Image": reference, "Labels": {"com.docker.compose.service": service}},
            "HostConfig": {},
        }))
    }

    #[test]
    fn an_id_or_a_digest_is_no_name() {
        for name in [
            "nginx",
            "nginx:1.27",
            "ghcr.io/a/b:latest",
            "web-app",
            "cafe",
        ] {
            assert!(is_name(name), "{name}");
        }
        for other in [
            "sha256:0123456789ab",
            "0123456789ab",
            "nginx@sha256:01",
            "nginx:1@sha256:01",
        ] {
            assert!(!is_name(other), "{other}");
        }
    }

    #[test]
    fn services_are_compared_by_name() {
        let held = HeldImage {
            reference: "app:1".to_owned(),
            id: "a".to_owned(),
            hold: String::new(),
            services: vec!["app".to_owned(), "gone".to_owned()],
        };
        let after = [container("app", "app:2", "b"), container("new", "x", "c")];
        let changes = changes(&[held], &after);
        let ids = |image: &Option<ImageName>| image.as_ref().map(|image| image.id.clone());
        let found: Vec<_> = changes
            .iter()
            .map(|change| (&*change.service, ids(&change.before), ids(&change.after)))
            .collect();
        let some = |id: &str| Some(id.to_owned());
        assert_eq!(
            found,
            [
                ("app", some("a"), some("b")),
                ("gone", some("a"), None),
                ("new", None, some("c")),
            ]
        );
    }
}
