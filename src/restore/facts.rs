//! What is known about an archive before its stack is restored.

use std::path::Path;

use crate::archive::Manifest;
use crate::engine::ComposeProject;
use crate::outcome::MountCoverage;
use crate::sys::time::OffsetTime;

/// What is known about the stack in an archive.
pub enum ArchiveFacts {
    /// The archive has a manifest.
    Described(Box<Manifest>),
    /// The archive has none: `tar` made it, or the old script.
    Guessed(Box<GuessedFacts>),
}

/// What the headers of an archive, the configuration and the present stack say
/// about an archive without a manifest. Which services to start is known only
/// once the compose file in the archive can be read.
pub struct GuessedFacts {
    pub stack: String,
    /// The stack as it is configured. The name of the project is `None` if no
    /// container tells it.
    pub compose: ComposeProject,
    /// Member path of the stack's directory; empty if that is the whole archive.
    pub root: String,
    /// When the archive file was last modified.
    pub modified: OffsetTime,
    /// The stack's volumes and its binds outside of its directory.
    pub not_archived: Vec<MountCoverage>,
}

impl ArchiveFacts {
    pub fn stack(&self) -> &str {
        match self {
            ArchiveFacts::Described(manifest) => &manifest.stack,
            ArchiveFacts::Guessed(guessed) => &guessed.stack,
        }
    }

    /// Returns the manifest, if the archive has one.
    pub fn manifest(&self) -> Option<&Manifest> {
        match self {
            ArchiveFacts::Described(manifest) => Some(manifest),
            ArchiveFacts::Guessed(_) => None,
        }
    }

    /// Returns the member paths of the trees in the archive.
    pub fn trees(&self) -> Vec<Vec<u8>> {
        match self {
            ArchiveFacts::Described(manifest) => {
                let trees = manifest.trees.keys();
                trees.map(|tree| tree.clone().into_bytes()).collect()
            }
            ArchiveFacts::Guessed(guessed) => vec![guessed.root.clone().into_bytes()],
        }
    }

    /// Mounts of the stack that stay as they are.
    pub(super) fn not_archived(&self) -> impl Iterator<Item = &MountCoverage> {
        let coverage = match self {
            ArchiveFacts::Described(manifest) => &manifest.coverage,
            ArchiveFacts::Guessed(guessed) => &guessed.not_archived,
        };
        coverage.iter().filter(|coverage| !coverage.archived)
    }
}

impl GuessedFacts {
    /// Returns the name that the stack's directory has in the archive, if it is
    /// not the configured one. The archive may be of another stack then.
    pub(super) fn other_name(&self) -> Option<&Path> {
        let name = Path::new(Path::new(&self.root).file_name()?);
        (Some(name.as_os_str()) != self.compose.dir.file_name()).then_some(name)
    }
}
