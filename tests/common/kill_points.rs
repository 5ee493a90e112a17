//! The calls before which a test kills the program.
//!
//! A test that kills at every call of a long run takes minutes. So only a sample
//! of the calls is tried, unless `KILL_POINTS=all`: one of the first sixteen, and every
//! 64th after one of the next 64; and of some tests a third of the kinds of calls. Which
//! ones depends on `KILL_SEED`, so that over time every call has its turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

/// The first call is one of so many, and so is one of a list that is tried.
const STRIDE: usize = 16;
/// Between the calls after the first one.
const LONG_STRIDE: usize = 64;

pub fn is_complete() -> bool {
    std::env::var_os("KILL_POINTS").is_some_and(|value| value == "all")
}

pub fn seed() -> usize {
    match std::env::var("KILL_SEED") {
        Ok(seed) => seed.parse().expect("KILL_SEED is a number"),
        Err(_) => SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |time| time.subsec_nanos() as usize),
    }
}

/// Returns the place of the first point of a sample, from 0. Each sample of one test
/// begins at another place.
fn first() -> usize {
    static SAMPLES: AtomicUsize = AtomicUsize::new(0);
    (seed() + SAMPLES.fetch_add(1, Ordering::Relaxed)) % STRIDE
}

/// Returns the numbers of the calls to kill at, from 1, without an end.
pub fn kill_points() -> Box<dyn Iterator<Item = usize>> {
    if is_complete() {
        return Box::new(1..);
    }
    let first = 1 + first();
    let second = first + STRIDE * (1 + seed() / STRIDE % (LONG_STRIDE / STRIDE));
    eprintln!(
        "killing at calls {first}, {second} and every {LONG_STRIDE}th after (KILL_POINTS=all: at \
         all)"
    );
    Box::new(std::iter::once(first).chain((second..).step_by(LONG_STRIDE)))
}

/// Returns a sample of the numbers of calls to kill at, or of states to look at. The
/// first is always among them.
pub fn sample_of<T>(all: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    let (is_complete, first) = (is_complete(), first());
    let is_chosen = move |place: usize| is_complete || place == 0 || place % STRIDE == first;
    let all = all.into_iter().enumerate();
    all.filter_map(move |(place, one)| is_chosen(place).then_some(one))
}

/// Divides kinds of calls, or cases, into a third that a sample tries, and the others.
/// Each change of the seed chooses another third.
pub fn third_of<T>(all: impl IntoIterator<Item = T>) -> (Vec<T>, Vec<T>) {
    let (is_complete, first) = (is_complete(), seed() % 3);
    let all = all.into_iter().enumerate();
    let (chosen, others): (Vec<_>, Vec<_>) =
        all.partition(|(place, _)| is_complete || place % 3 == first);
    let items = |list: Vec<(usize, T)>| list.into_iter().map(|(_, item)| item).collect();
    (items(chosen), items(others))
}

/// Returns how many points of a kind at least were tried: `count` if all are, and none
/// for certain in a sample.
pub fn if_complete(count: usize) -> usize {
    match is_complete() {
        true => count,
        false => 0,
    }
}
