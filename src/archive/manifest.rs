//! The manifest: what an archive holds and how it was made, as JSON in its
//! first member. It is read back here, too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::archive::tar::{BLOCK_BYTES, Input, Kind, Reader, is_manifest_path};
use crate::config::{Capture, StopMethod};
use crate::engine::Volume;
use crate::outcome::MountCoverage;
use crate::sys::time::OffsetTime;

/// Version of the archive format, see `docs/archive-format.md`.
pub const FORMAT_VERSION: u32 = 1;

/// A longer manifest is not read.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What an archive holds and how it was made; `docs/archive-format.md` describes
/// the fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub format_version: u32,
    pub program_version: String,
    pub stack: String,
    /// Compose's name for the stack.
    pub project: String,
    pub host: String,
    /// Paths of the trees on the host, by their member paths.
    pub trees: BTreeMap<String, String>,
    /// The same paths without symlinks, where they differ. The compose file may
    /// use either path.
    #[serde(default)]
    pub real_trees: BTreeMap<String, String>,
    pub capture: Capture,
    pub stop_method: StopMethod,
    /// What stops and starts the stack. An archive that does not say it is of a Compose
    /// project.
    #[serde(default, skip_serializing_if = "ManifestDriver::is_compose")]
    pub driver: ManifestDriver,
    /// The compose files that are configured, relative to the stack's directory;
    /// absolute outside of it. Empty if Compose finds its file by itself.
    #[serde(default)]
    pub files: Vec<String>,
    /// The environment files that are configured, as `files`.
    #[serde(default)]
    pub env_files: Vec<String>,
    /// When the stop was confirmed: the data did not change after that.
    pub captured: OffsetTime,
    /// Name of the time zone of the machine, if it is known.
    #[serde(default)]
    pub time_zone: Option<String>,
    pub downtime_ms: Option<u64>,
    /// Services, or units, that were running before the stop.
    pub running: Vec<String>,
    /// How many containers of each of these services were running.
    #[serde(default)]
    pub replicas: BTreeMap<String, usize>,
    /// What takes back the effect of hooks that the data was captured under.
    #[serde(default)]
    pub undos: Vec<String>,
    pub images: Vec<ServiceImage>,
    pub volumes: Vec<Volume>,
    pub coverage: Vec<MountCoverage>,
    /// Length of the archive file. A shorter file is truncated.
    pub archive_bytes: u64,
    /// Sum of the sizes of the regular files, holes included.
    pub content_bytes: u64,
    /// Members without the manifest.
    pub member_count: u64,
    pub socket_count: u64,
    pub excluded_count: u64,
    /// Files that changed while they were read. The content of their members
    /// cannot be trusted.
    pub changed_count: u64,
    /// Member paths of the first of these files.
    pub changed: Vec<String>,
    /// Output of `docker compose config --format json`; `null` if the compose file
    /// could not be read.
    pub compose: Value,
}

/// What stops and starts a stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ManifestDriver {
    #[default]
    Compose,
    /// Units of systemd.
    Systemd,
}

impl ManifestDriver {
    fn is_compose(&self) -> bool {
        *self == ManifestDriver::Compose
    }
}

/// The image that a service's container was created from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceImage {
    pub service: String,
    pub reference: String,
    pub id: String,
    pub digests: Vec<String>,
}

/// The fields that tell whether an archive is whole. Both are absent while it is
/// being written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RecordedTotals {
    pub(super) archive_bytes: Option<u64>,
    pub(super) member_count: Option<u64>,
}

/// Reads the manifest's JSON, without the padding. `None` if the first member is
/// not a manifest, or there is no member: another program wrote the archive.
///
/// Reads nothing beyond the manifest, and does not move the file's position.
///
/// # Errors
/// When the file is not a tar file, cannot be read, or ends within the manifest,
/// or when the manifest is too long.
pub fn read_manifest(file: &File) -> Result<Option<Vec<u8>>> {
    manifest_of(Input::File(file))
}

/// Reads the manifest at the front of a stream. Also returns everything that was
/// read, which a [`Reader`] of the same archive needs again.
///
/// # Errors
/// As of [`read_manifest`].
pub fn read_manifest_of_stream(stream: impl Read + Send) -> Result<(Option<Vec<u8>>, Vec<u8>)> {
    let mut recorder = Recorder {
        stream,
        read: Vec::new(),
    };
    let bounded = (&mut recorder).take(MANIFEST_BYTES_MAX);
    let manifest = manifest_of(Input::Stream(Box::new(bounded)))?;
    Ok((manifest, recorder.read))
}

fn manifest_of(input: Input<'_>) -> Result<Option<Vec<u8>>> {
    // A larger buffer would read ahead.
    let mut reader = Reader::with_buffer(input, BLOCK_BYTES as usize)?;
    if reader.is_at_end()? {
        return Ok(None);
    }
    // Other members are not parsed: they may hold what this program refuses.
    let headers = reader.next_headers()?;
    let Some(headers) = headers.filter(|headers| is_manifest_path(headers.path())) else {
        return Ok(None);
    };
    let member = reader.parse(headers)?;
    if member.kind != Kind::File || member.extents.is_some() {
        return Ok(None);
    }
    ensure!(
        member.stored_bytes <= MANIFEST_BYTES_MAX,
        "the manifest has {} bytes; at most {MANIFEST_BYTES_MAX} are read",
        member.stored_bytes
    );
    let mut json = vec![0; member.stored_bytes as usize];
    let mut got = 0;
    while got < json.len() {
        got += reader
            .read_data(&mut json[got..])
            .context("cannot read the manifest")?;
    }
    json.truncate(json.trim_ascii_end().len());
    Ok(Some(json).filter(|json| !is_of_another_program(json)))
}

/// Whether a member that is called like a manifest is sound JSON, but no manifest:
/// it has fields, and none that tells whose the archive is or how long.
fn is_of_another_program(json: &[u8]) -> bool {
    let known = ["formatVersion", "stack", "archiveBytes", "memberCount"];
    match serde_json::from_slice(json) {
        Ok(Value::Object(fields)) => {
            !fields.is_empty() && !known.iter().any(|known| fields.contains_key(*known))
        }
        Ok(_) => true,
        Err(_) => false,
    }
}

/// Whose an archive is, of when, and whether it is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Whether the archive has its end: a whole number of blocks, two blocks of
    /// zeros at the end, and the length recorded in its manifest. Without a
    /// manifest, a cut after a kilobyte of zeros in a member is not noticed.
    pub complete: bool,
    /// The stack in the manifest. `None` if another program made the archive.
    pub stack: Option<String>,
    pub captured: Option<OffsetTime>,
}

/// Reads the end and the manifest of an archive.
///
/// # Errors
/// When the file's end cannot be read. A manifest that cannot be read makes the
/// archive incomplete.
pub fn identify(file: &File) -> io::Result<Identity> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Recorded {
        archive_bytes: Option<u64>,
        stack: Option<String>,
        captured: Option<String>,
    }
    let bytes = file.metadata()?.len();
    let recorded: Option<Recorded> = match read_manifest(file) {
        Ok(None) => Some(Recorded::default()),
        Ok(Some(json)) => serde_json::from_slice(&json).ok(),
        Err(_) => None,
    };
    let has_its_length = |recorded: &Recorded| {
        recorded
            .archive_bytes
            .is_none_or(|recorded| recorded == bytes)
    };
    let complete = has_end(file, bytes)? && recorded.as_ref().is_some_and(has_its_length);
    let recorded = recorded.unwrap_or_default();
    Ok(Identity {
        complete,
        stack: recorded.stack,
        captured: recorded.captured.and_then(|time| time.parse().ok()),
    })
}

fn has_end(file: &File, bytes: u64) -> io::Result<bool> {
    const END_BYTES: u64 = 2 * BLOCK_BYTES;
    if !bytes.is_multiple_of(BLOCK_BYTES) || bytes < END_BYTES {
        return Ok(false);
    }
    let mut end = [1; END_BYTES as usize];
    file.read_exact_at(&mut end, bytes - END_BYTES)?;
    Ok(end.iter().all(|byte| *byte == 0))
}

/// Keeps a copy of everything that is read.
struct Recorder<R> {
    stream: R,
    read: Vec<u8>,
}

impl<R: Read> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.stream.read(buffer)?;
        self.read.extend_from_slice(&buffer[..got]);
        Ok(got)
    }
}
