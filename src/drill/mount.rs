//! Rewrites the mounts of a service for a throw-away project: from the archive, or
//! empty, or left out. Pure.

use serde_json::{Map, Value, json};

use super::copy::CopyLocation;
use super::resolved::{engine_volume, text, volume_tree};
use super::shape::Shape;
use super::volumes::volume_name;
use crate::archive::Manifest;

const VOLUME: Shape = Shape::Fields(&[
    ("read_only", Shape::Scalar),
    ("source", Shape::Scalar),
    ("target", Shape::Scalar),
    ("type", Shape::Scalar),
    (
        "volume",
        Shape::Fields(&[("nocopy", Shape::Scalar), ("subpath", Shape::Scalar)]),
    ),
]);

/// Without `propagation`, which would show mounts of the container to the host.
const BIND: Shape = Shape::Fields(&[
    (
        "bind",
        Shape::Fields(&[
            ("create_host_path", Shape::Scalar),
            ("selinux", Shape::Scalar),
        ]),
    ),
    ("read_only", Shape::Scalar),
    ("source", Shape::Scalar),
    ("target", Shape::Scalar),
    ("type", Shape::Scalar),
]);

const TMPFS: Shape = Shape::Fields(&[
    ("read_only", Shape::Scalar),
    ("target", Shape::Scalar),
    (
        "tmpfs",
        Shape::Fields(&[("mode", Shape::Scalar), ("size", Shape::Scalar)]),
    ),
    ("type", Shape::Scalar),
]);

const IMAGE: Shape = Shape::Fields(&[
    ("image", Shape::Fields(&[("subpath", Shape::Scalar)])),
    ("read_only", Shape::Scalar),
    ("source", Shape::Scalar),
    ("target", Shape::Scalar),
    ("type", Shape::Scalar),
]);

/// Where mounts come from.
pub struct MountSource<'a> {
    pub manifest: &'a Manifest,
    pub project: &'a str,
    /// Finds the copy of a path of the host.
    pub copy: &'a dyn Fn(&str) -> CopyLocation,
}

impl MountSource<'_> {
    /// Returns a mount of the copy, or `None` if there is nothing to mount. Adds the
    /// volume to `volumes` if it is one. `note` is called with what is amiss.
    pub fn mount(
        &self,
        value: &Value,
        volumes: &mut Map<String, Value>,
        mut note: impl FnMut(&str),
    ) -> Option<Value> {
        let (source, target) = (text(value, "source"), text(value, "target"));
        match text(value, "type") {
            "volume" => {
                if !source.is_empty() {
                    let name = volume_name(self.project, source);
                    let tree = volume_tree(self.manifest, source);
                    let config = match self.manifest.trees.contains_key(&tree) {
                        true => json!({"name": name, "external": true}),
                        false => {
                            let real = engine_volume(self.manifest, source);
                            note(&format!(
                                "an empty volume at {target}, the archive does not hold {real}"
                            ));
                            json!({"name": name})
                        }
                    };
                    volumes.insert(source.to_owned(), config);
                }
                VOLUME.copy(value)
            }
            "bind" => {
                let path = match (self.copy)(source) {
                    CopyLocation::Present(path) => path,
                    CopyLocation::Absent(path) => {
                        note(&format!(
                            "empty at {target}, the archive does not hold {source}"
                        ));
                        path
                    }
                    CopyLocation::Outside(why) => {
                        note(&format!("nothing at {target}, {why}"));
                        return None;
                    }
                };
                let mut copied = BIND.copy(value)?;
                copied["source"] = path.display().to_string().into();
                Some(copied)
            }
            "tmpfs" => TMPFS.copy(value),
            "image" => IMAGE.copy(value),
            kind => {
                note(&format!("nothing at {target}, which is a {kind}"));
                None
            }
        }
    }
}
