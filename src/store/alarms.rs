//! Warnings about a stack's archives as a whole: the newest good one is too old, or much
//! smaller than those before it. Pure.

use crate::config::MaxAge;
use crate::config::plan::StackPlan;
use crate::sys::format::{human_bytes, human_duration};
use crate::sys::time::OffsetTime;

/// How many archives the newest one is compared with. One that was small by chance must
/// not hide the next, so the middle one of their sizes counts.
const COMPARED_COUNT: usize = 7;

/// Returns what is to be said about a stack's good archives. `newest` is when the newest
/// was begun, and `sizes` has their lengths in bytes, the oldest first.
pub fn warnings(
    stack: &StackPlan,
    newest: Option<&OffsetTime>,
    sizes: &[u64],
    now: &OffsetTime,
) -> Vec<String> {
    let too_old = stack.max_age.as_ref();
    let too_old = too_old.and_then(|max_age| too_old_warning(max_age, newest, now));
    let shrunk = shrunk_warning(stack.size_drop, sizes);
    too_old.into_iter().chain(shrunk).collect()
}

/// Warns if the newest good archive is too old. One that is dated in the future is not:
/// the clock is told elsewhere.
pub fn too_old_warning(
    max_age: &MaxAge,
    newest: Option<&OffsetTime>,
    now: &OffsetTime,
) -> Option<String> {
    let Some(newest) = newest else {
        return Some(format!("there is no good archive (`maxAge` is {max_age})"));
    };
    let age = now.duration_since(newest);
    (age > max_age.duration()).then(|| {
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(0);
        format!(
            "the newest good archive is {} old, from {} (`maxAge` is {max_age})",
            human_duration(age_ms),
            newest.strftime("%F %H:%M")
        )
    })
}

fn shrunk_warning(size_drop: u32, sizes: &[u64]) -> Option<String> {
    let (newest, before) = sizes.split_last()?;
    let mut before = before[before.len().saturating_sub(COMPARED_COUNT)..].to_vec();
    before.sort_unstable();
    let usual = *before.get(before.len() / 2)?;
    let lost = u128::from(usual.checked_sub(*newest)?) * 100;
    (lost > u128::from(usual) * u128::from(size_drop)).then(|| {
        format!(
            "the newest archive has {}, {} % less than the {} that those before it have \
             (`sizeDrop` is {size_drop})",
            human_bytes(*newest),
            lost / u128::from(usual),
            human_bytes(usual)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_that_is_too_old_or_missing_causes_a_warning() {
        let max_age = MaxAge::try_from("2d".to_owned()).unwrap();
        let now = "2026-11-24T03:00:00Z".parse().unwrap();
        let warning = |newest: Option<&str>| {
            let newest: Option<OffsetTime> = newest.map(|text| text.parse().unwrap());
            too_old_warning(&max_age, newest.as_ref(), &now)
        };
        assert_eq!(warning(Some("2026-11-22T03:00:00Z")), None);
        assert_eq!(warning(Some("2027-01-01T00:00:00Z")), None);
        assert_eq!(
            warning(Some("2026-11-22T02:00:00Z")).unwrap(),
            "the newest good archive is 2 d 1 h old, from 2026-11-22 02:00 (`maxAge` is 2d)"
        );
        let none = "there is no good archive (`maxAge` is 2d)";
        assert_eq!(warning(None).unwrap(), none);
    }

    #[test]
    fn an_archive_much_smaller_than_those_before_it_causes_a_warning() {
        let warns = |size_drop: u32, sizes: &[u64]| shrunk_warning(size_drop, sizes).is_some();
        assert!(!warns(50, &[]) && !warns(50, &[0]) && !warns(50, &[0, 0]));
        assert!(!warns(50, &[1000, 500]) && warns(50, &[1000, 499]));
        assert!(!warns(50, &[500, 1000]), "it has grown");
        assert!(!warns(100, &[1000, 0]), "100 never warns");
        // One small archive among those before does not hide the next.
        assert!(warns(50, &[1000, 1000, 10, 10]));
        // It is the usual size after some time.
        assert!(!warns(50, &[1000, 1000, 1000, 10, 10, 10, 10, 10]));
        assert!(!warns(50, &[u64::MAX, u64::MAX]) && warns(50, &[u64::MAX, 1]));
        assert_eq!(
            shrunk_warning(50, &[2 << 20, 1 << 10]).unwrap(),
            "the newest archive has 1.0 KiB, 99 % less than the 2.0 MiB that those before it \
             have (`sizeDrop` is 50)"
        );
    }
}
