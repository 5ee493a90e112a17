//! Reports of invented runs, in files by subject.

use super::*;
use crate::outcome::{
    ArchiveOutcome, FORMAT_VERSION, Failure, LastDrill, MountCoverage, MountKind, Phase, PhaseTime,
    PrunedStack, RemovedArchive, RunOutcome, StackOutcome, StackStatus, StoreUsage, ToldHoles,
};
use crate::sys::time::OffsetTime;

mod any;
mod interrupted;
mod stacks;
mod subject;
mod warnings;

const GIB: u64 = 1 << 30;

fn time(text: &str) -> OffsetTime {
    format!("2026-11-23T{text}+01:00").parse().unwrap()
}

fn run(stacks: Vec<StackOutcome>) -> RunOutcome {
    RunOutcome {
        format_version: FORMAT_VERSION,
        program_version: "0.1.0".to_owned(),
        host: "nas".to_owned(),
        backup_dir: "/mnt/backup".into(),
        started: time("03:00:00"),
        time_zone: None,
        finished: Some(time("03:12:41")),
        interrupted: None,
        recovered: Vec::new(),
        stacks,
        gone: Vec::new(),
        holes: ToldHoles::default(),
        unconfigured: None,
        fail_on_warning: false,
        handovers: Vec::new(),
        pruned: Vec::new(),
        store: Some(StoreUsage {
            archive_count: 84,
            archive_bytes: 340 * GIB,
            file_system_total_bytes: 3725 * GIB,
            file_system_available_bytes: 2500 * GIB,
        }),
        errors: Vec::new(),
        channels: Vec::new(),
        log: Vec::new(),
    }
}

fn ok(stack: &str, archive_bytes: u64) -> StackOutcome {
    let path = format!("/mnt/backup/{stack}/{stack}_20261123_030000.tar");
    let phase = |(phase, duration_ms)| PhaseTime { phase, duration_ms };
    StackOutcome {
        stack: stack.to_owned(),
        project: Some(stack.to_owned()),
        status: StackStatus::Ok,
        failures: Vec::new(),
        warnings: Vec::new(),
        services: vec!["server".to_owned(), "database".to_owned()],
        archive: Some(ArchiveOutcome {
            path: path.into(),
            archive_bytes,
            content_bytes: archive_bytes - archive_bytes / 50,
            member_count: archive_bytes / 100_000,
            socket_count: 0,
            excluded_count: 0,
            changed_count: 0,
            crash_consistent: false,
        }),
        downtime_ms: Some(48_320),
        healthy_ms: Some(48_350),
        capture: None,
        hooks: Vec::new(),
        not_undone: Vec::new(),
        phases: [
            (Phase::Plan, 312),
            (Phase::Measure, 1_204),
            (Phase::Stop, 10_377),
            (Phase::Quiet, 88),
            (Phase::Archive, 185_000),
            (Phase::Start, 20_102),
            (Phase::Finish, 3_960),
        ]
        .map(phase)
        .to_vec(),
        coverage: vec![mount(
            MountKind::Directory,
            &format!("/srv/stacks/{stack}"),
            None,
        )],
        drilled: None,
        damaged: Vec::new(),
        newest_good: None,
    }
}

fn drill(stack: &str, problems: &[&str]) -> LastDrill {
    LastDrill {
        archive: format!("/mnt/backup/{stack}/{stack}_20261101_030000.tar").into(),
        time: time("01:30:00"),
        time_zone: None,
        problems: problems.iter().map(|text| (*text).to_owned()).collect(),
        skipped: None,
        skipped_later: None,
    }
}

fn failed(stack: &str, status: StackStatus, failures: &[(Phase, &str)]) -> StackOutcome {
    let failure = |(phase, message): &(Phase, &str)| Failure {
        phase: *phase,
        message: (*message).to_owned(),
    };
    StackOutcome {
        status,
        failures: failures.iter().map(failure).collect(),
        archive: None,
        ..ok(stack, 0)
    }
}

fn not_run(stack: &str) -> StackOutcome {
    StackOutcome {
        downtime_ms: None,
        healthy_ms: None,
        capture: None,
        phases: Vec::new(),
        coverage: Vec::new(),
        ..failed(stack, StackStatus::NotRun, &[])
    }
}

/// Returns a mount that is archived unless there is a reason why not.
fn mount(kind: MountKind, name: &str, reason: Option<&str>) -> MountCoverage {
    MountCoverage {
        kind,
        name: name.to_owned(),
        used_by: vec!["server:/data".to_owned()],
        archived: reason.is_none(),
        reason: reason.map(str::to_owned),
        ignored: false,
        is_new: false,
    }
}

fn pruned(stack: &str, removed_archives: &[(&str, u64)]) -> PrunedStack {
    let removed = |(stamp, archive_bytes): &(&str, u64)| RemovedArchive {
        path: format!("/mnt/backup/{stack}/{stack}_{stamp}.tar").into(),
        archive_bytes: *archive_bytes,
        reason: "older than 28 days".to_owned(),
    };
    PrunedStack {
        stack: stack.to_owned(),
        kept_count: 28,
        removed: removed_archives.iter().map(removed).collect(),
        error: None,
    }
}

fn three() -> Vec<StackOutcome> {
    vec![
        ok("immich", 11 * GIB),
        ok("paperless", GIB),
        ok("vaultwarden", GIB / 300),
    ]
}

#[test]
fn an_outcome_read_back_from_json_has_the_same_report() {
    let run = run(three());
    let json = serde_json::to_string(&run).unwrap();
    let back: RunOutcome = serde_json::from_str(&json).unwrap();
    assert_eq!(run_text(&back, None), run_text(&run, None));
    assert!(json.contains("\"archiveBytes\""));
}
