//! The manifest of the archive, and the layout with room for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::state::Cycle;
use crate::archive::{self, Layout, Manifest, ManifestDriver, ManifestSlot, ServiceImage};
use crate::engine::Container;
use crate::scan::Inventory;
use crate::stack::running;
use crate::sys::paths;
use crate::sys::time::{OffsetTime, zone_name};

/// Room in the manifest for what is only known once the archive is written.
const MANIFEST_SLACK_BYTES: usize = 8 << 10;

impl Cycle<'_> {
    pub(super) fn layout(&self, inventory: &Inventory, manifest: &Manifest) -> Result<Layout> {
        // Hooks that run later add their undos.
        let undos = self
            .stack
            .hooks
            .iter()
            .filter_map(|hook| hook.undo.as_ref());
        let undos = serde_json::to_vec_pretty(&undos.map(ToString::to_string).collect::<Vec<_>>())?;
        let reserve =
            serde_json::to_vec_pretty(manifest)?.len() + 2 * undos.len() + MANIFEST_SLACK_BYTES;
        let reserved_bytes = *self.manifest_bytes.get_or_init(|| reserve as u64);
        let slot = ManifestSlot {
            name: format!("{}.manifest.json", self.stack.name),
            reserved_bytes,
            mtime_s: manifest.captured.timestamp().as_second(),
        };
        Ok(Layout::new(inventory, &slot))
    }

    /// The room for the manifest was reserved with the first layout. The survey
    /// that the second plan made may need more.
    pub(super) fn check_manifest_fits(&self) -> Result<()> {
        let needed = serde_json::to_vec_pretty(&self.manifest())?.len() + MANIFEST_SLACK_BYTES / 2;
        match self.manifest_bytes.get() {
            Some(reserved) if needed as u64 > *reserved => {
                bail!("the compose file grew too much during the backup; nothing was stopped")
            }
            _ => Ok(()),
        }
    }

    /// Returns the manifest with the numbers of what is archived.
    pub(super) fn manifest_of(&self, inventory: &Inventory) -> Manifest {
        Manifest {
            content_bytes: inventory.content_bytes(),
            member_count: inventory.member_count(),
            socket_count: inventory.socket_count(),
            excluded_count: inventory.excluded_count(),
            ..self.manifest()
        }
    }

    /// Returns the manifest with what is known before the archive is written.
    pub(super) fn manifest(&self) -> Manifest {
        let survey = &self.survey;
        let image = |container: &Container| ServiceImage {
            service: container.service.clone(),
            reference: container.image_reference.clone(),
            id: container.image_id.clone(),
            digests: survey
                .images
                .iter()
                .find(|image| image.id == container.image_id)
                .map(|image| image.repo_digests.clone())
                .unwrap_or_default(),
        };
        let mut images: Vec<ServiceImage> = survey.containers.iter().map(image).collect();
        images.sort();
        images.dedup();
        let by_prefix = |at: &dyn Fn(&Path) -> PathBuf| -> BTreeMap<String, String> {
            let trees = survey.trees.iter();
            trees
                .map(|tree| (tree.prefix.clone(), at(&tree.path).display().to_string()))
                .collect()
        };
        let trees = by_prefix(&Path::to_owned);
        let mut real_trees = by_prefix(&paths::without_symlinks);
        real_trees.retain(|prefix, path| trees[prefix] != *path);
        Manifest {
            format_version: archive::FORMAT_VERSION,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            stack: self.stack.name.clone(),
            project: survey.project.clone(),
            host: self.context.host.to_owned(),
            trees,
            real_trees,
            capture: self.stack.capture,
            stop_method: survey.stop_method,
            driver: match self.stack.is_of_units() {
                true => ManifestDriver::Systemd,
                false => ManifestDriver::Compose,
            },
            files: self.stack.compose.relative(&self.stack.compose.files),
            env_files: self.stack.compose.relative(&self.stack.compose.env_files),
            captured: OffsetTime::now(),
            time_zone: zone_name(),
            downtime_ms: None,
            running: survey.services(),
            replicas: running::replicas(&survey.running),
            undos: self.entry.pending(),
            images,
            volumes: survey.volumes.clone(),
            coverage: survey.coverage.clone(),
            archive_bytes: 0,
            content_bytes: 0,
            member_count: 0,
            socket_count: 0,
            excluded_count: 0,
            changed_count: 0,
            changed: Vec::new(),
            compose: survey
                .config
                .as_ref()
                .map(|config| config.json.clone())
                .unwrap_or_default(),
        }
    }
}

/// Writes the manifest to its place in the archive.
pub(super) fn write_manifest(
    layout: &Layout,
    archive: &File,
    manifest: &mut Manifest,
) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(manifest)?;
    if json.len() as u64 > layout.manifest_bytes_max() {
        // Very long names do not fit; the number of changed files stays.
        manifest.changed.clear();
        json = serde_json::to_vec_pretty(manifest)?;
    }
    archive::write_manifest(layout, archive, &json)
}
