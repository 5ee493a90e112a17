//! Finds the name that was probably meant.

/// Returns the known name that is most similar to an unknown one, if any is similar.
pub fn closest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace(['_', '-'], "");
    let wanted = plain(unknown);
    let is_close = |known: &&str| {
        let known = plain(known);
        strsim::normalized_damerau_levenshtein(&known, &wanted) > 0.6
            || known.starts_with(&wanted)
            || wanted.starts_with(&known)
    };
    known.into_iter().filter(is_close).max_by(|a, b| {
        let score = |known| strsim::normalized_damerau_levenshtein(known, unknown);
        score(a).total_cmp(&score(b))
    })
}

/// Returns the end of a message about an unknown name: `; did you mean `web`?`, or
/// nothing.
pub fn did_you_mean<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    closest(unknown, known).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_name_is_suggested() {
        let known = ["web", "webmail", "stop-method", "db"];
        assert_eq!(closest("wbe", known), Some("web"));
        assert_eq!(closest("webmial", known), Some("webmail"));
        assert_eq!(closest("stop_methd", known), Some("stop-method"));
        assert_eq!(did_you_mean("wbe", known), "; did you mean `web`?");
        assert_eq!(closest("immich", known), None);
        assert_eq!(did_you_mean("immich", known), "");
    }
}
