//! The result of a comparison, and its text.

use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    pub archive: String,
    /// Number of members that are the same on the host.
    pub same_count: u64,
    /// Sorted by path.
    pub differences: Vec<Difference>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Member path; a directory's ends with a slash.
    pub path: String,
    pub change: Change,
    /// What differs, if the member is on both sides.
    pub aspects: Vec<Aspect>,
}

/// What happened to a member since the archive was made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    Added,
    Removed,
    Changed,
}

/// One property of a member that differs.
#[derive(Debug, PartialEq, Serialize)]
pub struct Aspect {
    pub what: String,
    /// The value in the archive. `None` if there is none, or if it is not shown.
    pub archive: Option<String>,
    /// The value on the host. `None` if there is none, or if it is not shown.
    pub now: Option<String>,
}

impl Aspect {
    pub(super) fn new(what: &str, archive: impl Into<String>, now: impl Into<String>) -> Aspect {
        Aspect {
            what: what.to_owned(),
            archive: Some(archive.into()),
            now: Some(now.into()),
        }
    }

    /// A property whose values are not shown.
    pub(super) fn without_values(what: impl Into<String>) -> Aspect {
        Aspect {
            what: what.into(),
            archive: None,
            now: None,
        }
    }
}

impl Diff {
    /// Returns a line for each difference: `+` is only on the host, `-` only in
    /// the archive, `~` differs.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for difference in &self.differences {
            let sign = match difference.change {
                Change::Added => '+',
                Change::Removed => '-',
                Change::Changed => '~',
            };
            text.push_str(&format!("{sign} {}", difference.path));
            let aspects: Vec<String> = difference.aspects.iter().map(aspect_text).collect();
            if !aspects.is_empty() {
                text.push_str(&format!(": {}", aspects.join(", ")));
            }
            text.push('\n');
        }
        let count = |change| {
            let is_counted = |difference: &&Difference| difference.change == change;
            self.differences.iter().filter(is_counted).count()
        };
        text + &format!(
            "{} added, {} removed, {} changed, {} the same\n",
            count(Change::Added),
            count(Change::Removed),
            count(Change::Changed),
            self.same_count
        )
    }
}

fn aspect_text(aspect: &Aspect) -> String {
    match (&aspect.archive, &aspect.now) {
        (None, None) => aspect.what.clone(),
        (archive, now) => {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
            format!("{} {} -> {}", aspect.what, shown(archive), shown(now))
        }
    }
}
