use std::ffi::OsStr;

use jiff::civil::date;
use jiff::tz::Offset;
use proptest::prelude::*;

use super::*;

fn utc(time: DateTime) -> Timestamp {
    Offset::UTC.to_timestamp(time).unwrap()
}

/// Parses `20261123_030000`; a `!` in front means that the archive is not good.
fn archive(text: &str) -> (ArchiveName, bool) {
    let stamp = text.trim_start_matches('!');
    let file_name = format!("a_{stamp}.tar");
    let name = ArchiveName::parse("a", OsStr::new(&file_name)).expect(text);
    (name, !text.starts_with('!'))
}

fn decide_on(archives: &[(ArchiveName, bool)], policy: &Retention, now: DateTime) -> Vec<Decision> {
    let candidates: Vec<Candidate> = archives
        .iter()
        .map(|(name, is_good)| Candidate {
            name,
            time: utc(name.time),
            is_good: *is_good,
            is_foreign: false,
        })
        .collect();
    decide(&candidates, policy, utc(now))
}

/// Checks decisions, given as lines such as
/// `+ 20261123_030000 last 3, daily 2026-11-23`.
fn check(policy: &Retention, now: DateTime, table: &[&str]) {
    let stamp = |line: &&str| line.split(' ').nth(1).unwrap().to_owned();
    let archives: Vec<_> = table.iter().map(|line| archive(&stamp(line))).collect();
    let decisions = decide_on(&archives, policy, now);
    let actual: Vec<String> = table
        .iter()
        .zip(decisions)
        .map(|(line, decision)| {
            let sign = if decision.keep { '+' } else { '-' };
            format!("{sign} {} {}", stamp(line), decision.reasons.join(", "))
        })
        .collect();
    assert_eq!(actual, table);
}

fn days(days: u32) -> Retention {
    Retention {
        keep_days: Some(days),
        ..Retention::default()
    }
}

#[test]
fn the_default_is_28_days() {
    check(
        &Retention::default(),
        date(2026, 11, 23).at(3, 0, 0, 0),
        &[
            "+ 20261123_030000 within 28 days, newest good archive",
            "+ 20261122_030000 within 28 days",
            "+ 20261026_030000 within 28 days",
            "- 20261026_025959 older than 28 days",
            "- 20250101_000000 older than 28 days",
        ],
    );
}

#[test]
fn where_clocks_go_back_age_and_order_are_those_of_the_instants() {
    // In Europe the hour from 2 to 3 came twice on 2026-10-25.
    let archives = [
        ("20261024_031000", "2026-10-24T03:10:00+02:00"),
        ("20261025_025000", "2026-10-25T02:50:00+02:00"),
        ("20261025_021000", "2026-10-25T02:10:00+01:00"),
    ];
    let archives = archives.map(|(name, time)| (archive(name).0, time.parse().unwrap()));
    let decide_at = |now: &str, policy: &Retention| {
        let candidates = archives.each_ref().map(|(name, time)| Candidate {
            name,
            time: *time,
            is_good: true,
            is_foreign: false,
        });
        let decisions = decide(&candidates, policy, now.parse().unwrap());
        decisions
            .into_iter()
            .map(|d| d.reasons.join(", "))
            .collect::<Vec<_>>()
    };
    let last = Retention {
        keep_last: Some(1),
        ..Retention::default()
    };
    assert_eq!(
        decide_at("2026-10-25T02:11:00+01:00", &last),
        [
            "no rule keeps it",
            "no rule keeps it",
            "last 1, newest good archive"
        ]
    );
    // A day has 24 hours: the first archive is exactly one day old.
    assert_eq!(
        decide_at("2026-10-25T02:10:00+01:00", &days(1))[0],
        "within 1 day"
    );
    assert_eq!(
        decide_at("2026-10-25T02:10:01+01:00", &days(1))[0],
        "older than 1 day"
    );
    // Before the hour came again, the last archive is in the future.
    assert_eq!(
        decide_at("2026-10-25T02:55:00+02:00", &last)[1..],
        ["last 1, newest good archive", "dated in the future"]
    );
}

#[test]
fn an_archive_of_another_stack_is_kept_and_pushes_out_no_other() {
    let names = ["20261121_030000", "20261122_030000", "20261123_030000"].map(|n| archive(n).0);
    let decisions = |is_foreign: bool| {
        let candidates: Vec<Candidate> = names
            .iter()
            .map(|name| Candidate {
                name,
                time: utc(name.time),
                is_good: !is_foreign || name != &names[2],
                is_foreign: is_foreign && name == &names[2],
            })
            .collect();
        let policy = Retention {
            keep_last: Some(1),
            ..Retention::default()
        };
        let decisions = decide(&candidates, &policy, utc(NOW));
        decisions
            .into_iter()
            .map(|d| d.reasons.join(", "))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        decisions(true),
        [
            "no rule keeps it",
            "last 1, newest good archive",
            "of another stack"
        ]
    );
    // The control.
    assert_eq!(
        decisions(false)[1..],
        ["no rule keeps it", "last 1, newest good archive"]
    );
}

#[test]
fn the_newest_good_archive_is_kept_even_if_no_rule_keeps_it() {
    check(
        &days(7),
        date(2026, 11, 23).at(3, 0, 0, 0),
        &[
            "- !20260103_030000 incomplete or damaged, older than 7 days",
            "+ 20260102_030000 newest good archive",
            "- 20260101_030000 older than 7 days",
        ],
    );
}

#[test]
fn keep_last_orders_archives_of_the_same_second_by_suffix() {
    let policy = Retention {
        keep_last: Some(2),
        ..Retention::default()
    };
    check(
        &policy,
        date(2026, 11, 23).at(12, 0, 0, 0),
        &[
            "- 20261123_030000 no rule keeps it",
            "- 20261123_030000-2 no rule keeps it",
            "+ 20261123_030000-3 last 2",
            "+ 20261123_030000-10 last 2, newest good archive",
            "- 20261122_030000 no rule keeps it",
        ],
    );
}

#[test]
fn the_newest_of_each_period_is_kept() {
    let policy = Retention {
        keep_daily: Some(2),
        keep_weekly: Some(2),
        keep_monthly: Some(2),
        keep_yearly: Some(2),
        ..Retention::default()
    };
    check(
        &policy,
        date(2026, 1, 2).at(12, 0, 0, 0),
        &[
            "+ 20260102_030000 daily 2026-01-02, weekly 2026-W01, monthly 2026-01, \
             yearly 2026, newest good archive",
            "- 20260102_010000 no rule keeps it",
            // No archive was made on 2026-01-01; the day before counts instead.
            "+ 20251231_030000 daily 2025-12-31, monthly 2025-12, yearly 2025",
            // Week 1 of 2026 began on 2025-12-29.
            "- 20251229_030000 no rule keeps it",
            "+ 20251228_030000 weekly 2025-W52",
            "- 20241228_030000 no rule keeps it",
        ],
    );
}

#[test]
fn weeks_are_iso_weeks() {
    let policy = Retention {
        keep_weekly: Some(3),
        ..Retention::default()
    };
    check(
        &policy,
        date(2027, 1, 11).at(12, 0, 0, 0),
        &[
            "+ 20270111_030000 weekly 2027-W02, newest good archive",
            "+ 20270110_030000 weekly 2027-W01",
            "- 20270104_030000 no rule keeps it",
            "+ 20270103_030000 weekly 2026-W53",
            "- 20261228_030000 no rule keeps it",
            "- 20261227_030000 no rule keeps it",
        ],
    );
}

#[test]
fn an_incomplete_archive_does_not_take_the_place_of_a_good_one() {
    let policy = Retention {
        keep_days: Some(2),
        keep_last: Some(1),
        keep_daily: Some(1),
        ..Retention::default()
    };
    check(
        &policy,
        date(2026, 11, 23).at(3, 0, 0, 0),
        &[
            "+ !20261123_030000 incomplete or damaged, within 2 days",
            "+ !20261122_030000 incomplete or damaged, within 2 days",
            "- !20261120_030000 incomplete or damaged, older than 2 days, no other rule keeps it",
            "+ 20261119_030000 last 1, daily 2026-11-19, newest good archive",
            "- 20261118_030000 older than 2 days, no other rule keeps it",
        ],
    );
}

#[test]
fn nothing_is_removed_while_no_archive_is_good() {
    check(
        &days(1),
        date(2026, 11, 23).at(3, 0, 0, 0),
        &[
            "+ !20261123_030000 incomplete or damaged, within 1 day, no good archive",
            "+ !20200101_030000 incomplete or damaged, no good archive",
        ],
    );
}

#[test]
fn an_archive_from_the_future_pushes_out_no_other() {
    let policy = Retention {
        keep_last: Some(1),
        ..Retention::default()
    };
    check(
        &policy,
        date(2026, 11, 23).at(3, 0, 0, 0),
        &[
            "+ 20380119_031407 dated in the future",
            "+ 20261123_030000 last 1, newest good archive",
            "- 20261122_030000 no rule keeps it",
        ],
    );
}

#[test]
fn a_policy_of_zeros_keeps_nothing() {
    assert!(days(0).keeps_nothing());
    assert!(!days(1).keeps_nothing());
    assert!(!Retention::default().keeps_nothing());
    let zero_and_one = Retention {
        keep_yearly: Some(1),
        ..days(0)
    };
    assert!(!zero_and_one.keeps_nothing());
    check(
        &days(0),
        date(2026, 11, 23).at(3, 0, 0, 0),
        &[
            "+ 20261123_030000 newest good archive",
            "- 20261122_030000 no rule keeps it",
        ],
    );
}

fn any_archives() -> impl Strategy<Value = Vec<(ArchiveName, bool)>> {
    // Whole hours of four years; the last weeks are in the future.
    prop::collection::btree_map(0..35_000_i64, prop::bool::weighted(0.8), 0..40).prop_map(|map| {
        map.into_iter()
            .map(|(hours, is_good)| {
                let time = date(2023, 1, 1).at(0, 0, 0, 0) + SignedDuration::from_hours(hours);
                (ArchiveName::new("a", time), is_good)
            })
            .collect()
    })
}

fn any_policy() -> impl Strategy<Value = Retention> {
    let count = || prop::option::of(0..12_u32);
    (count(), count(), count(), count(), count(), count()).prop_map(|counts| Retention {
        keep_days: counts.0.map(|days| days * 40),
        keep_last: counts.1,
        keep_daily: counts.2,
        keep_weekly: counts.3,
        keep_monthly: counts.4,
        keep_yearly: counts.5,
    })
}

const NOW: DateTime = DateTime::constant(2026, 11, 23, 3, 0, 0, 0);

/// Returns one rule of the policy, by number.
fn rule(policy: &mut Retention, number: usize) -> &mut Option<u32> {
    match number {
        0 => &mut policy.keep_days,
        1 => &mut policy.keep_last,
        2 => &mut policy.keep_daily,
        3 => &mut policy.keep_weekly,
        4 => &mut policy.keep_monthly,
        _ => &mut policy.keep_yearly,
    }
}

proptest! {
    /// Invariant I6.
    #[test]
    fn the_newest_good_archive_is_never_removed(
        archives in any_archives(), policy in any_policy(),
    ) {
        let decisions = decide_on(&archives, &policy, NOW);
        for is_past in [true, false] {
            let newest = (0..archives.len())
                .filter(|&i| archives[i].1 && (archives[i].0.time <= NOW || !is_past))
                .max_by_key(|&i| &archives[i].0);
            prop_assert!(newest.is_none_or(|i| decisions[i].keep));
        }
    }

    #[test]
    fn a_greater_number_keeps_at_least_as_many_archives(
        archives in any_archives(), policy in any_policy(), number in 0..6_usize,
    ) {
        // A rule that is set switches the default off, so it is set in both.
        let mut less = policy;
        rule(&mut less, number).get_or_insert(1);
        let mut more = less.clone();
        *rule(&mut more, number) = rule(&mut less, number).map(|n| n + 3);
        let less = decide_on(&archives, &less, NOW);
        let more = decide_on(&archives, &more, NOW);
        for (less, more) in less.iter().zip(&more) {
            prop_assert!(more.keep || !less.keep);
        }
    }

    #[test]
    fn the_order_of_the_archives_does_not_matter(
        (archives, shuffled) in any_archives().prop_flat_map(|archives| {
            let shuffled = Just(archives.clone()).prop_shuffle();
            (Just(archives), shuffled)
        }),
        policy in any_policy(),
    ) {
        let decisions = decide_on(&archives, &policy, NOW);
        let shuffled_decisions = decide_on(&shuffled, &policy, NOW);
        for (archive, decision) in shuffled.iter().zip(shuffled_decisions) {
            let index = archives.iter().position(|a| a == archive).unwrap();
            prop_assert_eq!(&decision, &decisions[index]);
        }
    }

    #[test]
    fn pruning_again_removes_nothing_more(archives in any_archives(), policy in any_policy()) {
        let decisions = decide_on(&archives, &policy, NOW);
        let kept: Vec<_> = archives
            .iter()
            .zip(decisions)
            .filter(|(_, decision)| decision.keep)
            .map(|(archive, _)| archive.clone())
            .collect();
        prop_assert!(decide_on(&kept, &policy, NOW).iter().all(|d| d.keep));
    }

    #[test]
    fn incomplete_archives_change_nothing_for_good_ones(
        archives in any_archives(), policy in any_policy(),
    ) {
        let good: Vec<_> = archives.iter().filter(|a| a.1).cloned().collect();
        let decisions = decide_on(&archives, &policy, NOW);
        let among_good = decide_on(&good, &policy, NOW);
        let for_good: Vec<_> = archives.iter().zip(decisions).filter(|(a, _)| a.1).collect();
        for ((_, decision), among_good) in for_good.iter().zip(among_good) {
            prop_assert_eq!(decision, &among_good);
        }
    }

    #[test]
    fn every_decision_has_a_reason(archives in any_archives(), policy in any_policy()) {
        let decisions = decide_on(&archives, &policy, NOW);
        prop_assert!(decisions.iter().all(|decision| !decision.reasons.is_empty()));
        let none_is_good = archives.iter().all(|archive| !archive.1);
        prop_assert!(!none_is_good || decisions.iter().all(|decision| decision.keep));
    }
}
