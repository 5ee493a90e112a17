//! Names of images: giving them, and taking them away.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::address::Engine;
use super::command::docker;

impl Engine {
    /// Lets a name stand for this image, whatever it stood for before.
    pub fn tag_image(&self, id: &str, reference: &str) -> Result<()> {
        docker(self, ["image", "tag", id, reference])
            .output()?
            .check()
            .map(drop)
            .with_context(|| format!("cannot name the image {id} {reference}"))
    }

    /// Returns the id of the image that a name stands for; `None` if there is none.
    pub fn image_id(&self, reference: &str) -> Result<Option<String>> {
        let found = self.images(&BTreeSet::from([reference.to_owned()]))?;
        Ok(found.into_iter().next().map(|image| image.id))
    }

    /// Takes a name away. It is no error if there is none. The Engine removes an image
    /// that has lost its last name and has no container.
    pub fn untag_image(&self, reference: &str) -> Result<()> {
        if self.image_id(reference)?.is_none() {
            return Ok(());
        }
        docker(self, ["image", "rm", "--no-prune", reference])
            .output()?
            .check()
            .map(drop)
            .with_context(|| format!("cannot take the name {reference} from its image"))
    }
}
