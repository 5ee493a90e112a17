//! Compares the metadata of a member with that of a file on the host.

use std::collections::HashMap;

use super::present::PresentFiles;
use super::report::Aspect;
use crate::archive::{Kind, Member};
use crate::scan::Node;
use crate::sys::format::{display_path, instant};

/// Returns what differs, apart from contents and hard links.
pub(super) fn differing(present: &PresentFiles<'_>, member: &Member, index: usize) -> Vec<Aspect> {
    let inventory = &present.inventory;
    let entry = &inventory.entries[present.first_link(index)];
    let (kind, device) = kind_of(entry.node);
    if member.kind != kind {
        return vec![Aspect::new("type", member.kind.name(), kind.name())];
    }
    let mut aspects = Vec::new();
    let mut compare = |what: &str, archive: String, now: String| {
        if archive != now {
            aspects.push(Aspect::new(what, archive, now));
        }
    };
    if let Node::File { bytes, .. } = entry.node {
        compare("size", member.file_bytes.to_string(), bytes.to_string());
    }
    if kind == Kind::Symlink {
        let target = inventory.symlink_target(entry.node);
        compare("target", display_path(&member.link), display_path(target));
    } else {
        let mode = |mode: u32| format!("{mode:04o}");
        compare("mode", mode(member.mode & 0o7777), mode(entry.mode.into()));
    }
    if let Some((major, minor)) = device {
        let (was_major, was_minor) = member.device;
        compare(
            "device",
            format!("{was_major}:{was_minor}"),
            format!("{major}:{minor}"),
        );
    }
    compare(
        "owner",
        format!("{}:{}", member.uid, member.gid),
        format!("{}:{}", entry.uid, entry.gid),
    );
    // Archives of other programs may have whole seconds only.
    let now_ns = match member.mtime_ns {
        0 => 0,
        _ => entry.mtime_ns,
    };
    compare(
        "mtime",
        instant(member.mtime_s, member.mtime_ns),
        instant(entry.mtime_s, now_ns),
    );
    let archived: HashMap<&[u8], &[u8]> = member
        .attributes
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .collect();
    aspects.extend(differing_attributes(
        &archived,
        &inventory.attributes(entry).collect(),
    ));
    aspects
}

fn differing_attributes(
    archived: &HashMap<&[u8], &[u8]>,
    present: &HashMap<&[u8], &[u8]>,
) -> Vec<Aspect> {
    let names = archived.keys().chain(present.keys());
    let mut names: Vec<&[u8]> = names
        .filter(|name| archived.get(**name) != present.get(**name))
        .copied()
        .collect();
    names.sort_unstable();
    names.dedup();
    let word = |is_set: bool| if is_set { "set" } else { "none" };
    let aspect = |name: &[u8]| {
        let what = format!("attribute {}", display_path(name));
        match (archived.contains_key(name), present.contains_key(name)) {
            (true, true) => Aspect::without_values(what),
            (archived, present) => Aspect::new(&what, word(archived), word(present)),
        }
    };
    names.into_iter().map(aspect).collect()
}

fn kind_of(node: Node) -> (Kind, Option<(u32, u32)>) {
    match node {
        Node::Directory => (Kind::Directory, None),
        Node::File { .. } => (Kind::File, None),
        Node::HardLink { .. } => (Kind::HardLink, None),
        Node::Symlink { .. } => (Kind::Symlink, None),
        Node::Fifo => (Kind::Fifo, None),
        Node::CharDevice { major, minor } => (Kind::CharDevice, Some((major, minor))),
        Node::BlockDevice { major, minor } => (Kind::BlockDevice, Some((major, minor))),
    }
}
