use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::*;
use crate::sys::secret::OUTPUT_LINES;

fn command(argv: &[&str]) -> HookCommand {
    HookCommand {
        target: HookTarget::Host,
        user: None,
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        timeout_secs: 10,
        environment: BTreeMap::new(),
        secrets: BTreeMap::new(),
    }
}

fn run(command: &HookCommand) -> Ended {
    let context = HookContext {
        stack: "web",
        engine: &Engine::default(),
        project: "web_project",
        dir: Path::new("/opt/web"),
        phase: "finally",
        archive: Some(Path::new("/b/web.tar")),
        status: Some("ok"),
    };
    match ReadyCommand::prepare(command, &context) {
        Ok(ready) => ready.run(&Signals::default()),
        Err(error) => Ended::not_begun(&error),
    }
}

#[test]
fn a_host_command_gets_the_documented_environment_and_no_other() {
    let mut env = command(&["env"]);
    env.environment.insert("MODE".to_owned(), "fast".to_owned());
    let mut lines = run(&env).output;
    lines.sort();
    let home = lines.iter().find(|line| line.starts_with("HOME="));
    let path = lines.iter().find(|line| line.starts_with("PATH="));
    let expected = [
        "DOCKER_STACK_BACKUP_ARCHIVE=/b/web.tar",
        "DOCKER_STACK_BACKUP_DIRECTORY=/opt/web",
        "DOCKER_STACK_BACKUP_PHASE=finally",
        "DOCKER_STACK_BACKUP_PROJECT=web_project",
        "DOCKER_STACK_BACKUP_STACK=web",
        "DOCKER_STACK_BACKUP_STATUS=ok",
        home.unwrap(),
        "MODE=fast",
        path.unwrap(),
        "PWD=/",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_secret_reaches_the_command_and_not_the_report() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, "s3cret\n").unwrap();
    let script = "test \"$KEY\" = s3cret && echo \"it is $KEY\"";
    let mut sh = command(&["sh", "-c", script]);
    let source = file.display().to_string();
    sh.secrets.insert("KEY".to_owned(), source);
    let ended = run(&sh);
    assert_eq!(ended.error, None);
    assert_eq!(ended.output, ["it is ***"]);
    // What cannot be read keeps the command from running.
    for (source, expected) in [
        ("/nonexistent/x", "/nonexistent/x"),
        ("x", "LoadCredential=x"),
    ] {
        sh.secrets.insert("KEY".to_owned(), source.to_owned());
        let error = run(&sh).error.unwrap();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn only_the_last_lines_are_reported_each_cut() {
    let script = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo line $i; echo; done; \
                  printf '%01000d\\n' 0 >&2; exit 3";
    let ended = run(&command(&["sh", "-c", script]));
    assert_eq!(ended.output.len(), OUTPUT_LINES);
    assert_eq!(ended.output[0], "line 12");
    assert_eq!(ended.output[9].len(), 300 + " [cut]".len());
    let error = ended.error.unwrap();
    assert!(error.starts_with("exit status 3: line 12; "), "{error}");
}

#[test]
fn a_command_that_hangs_ends_at_its_limit_and_an_unknown_user_or_program_is_an_error() {
    let mut sleep = command(&["sh", "-c", "echo before; sleep 60 & sleep 60"]);
    sleep.timeout_secs = 1;
    let began = Instant::now();
    let ended = run(&sleep);
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(
        ended.error.as_deref(),
        Some("still running after 1 s, killed: before")
    );
    sleep.user = Some("nobody-has-this-name".to_owned());
    let error = run(&sleep).error.unwrap();
    assert!(error.contains("there is no user"), "{error}");
    let error = run(&command(&["/nonexistent/program"])).error.unwrap();
    assert!(error.contains("cannot start"), "{error}");
}

#[test]
fn a_failed_undo_says_what_to_do_by_hand() {
    let entry: JournalEntry = serde_json::from_value(serde_json::json!({
        "formatVersion": 2, "stack": "web", "project": "web",
        "compose": {"dir": "/opt/web", "name": null, "files": [], "envFiles": []},
        "stopMethod": "stop", "stopTimeoutSecs": null, "startTimeoutSecs": 1,
        "since": "2026-11-23T03:00:00+01:00", "step": "up", "containers": [],
    }))
    .unwrap();
    let mut by_hand_of = command(&["php", "occ", "it's"]);
    assert_eq!(by_hand(&by_hand_of, &entry), r"php occ 'it'\''s'");
    by_hand_of.target = HookTarget::Service("app".to_owned());
    by_hand_of.user = Some("www-data".to_owned());
    let expected = r"docker compose -p web exec --user www-data app php occ 'it'\''s'";
    assert_eq!(by_hand(&by_hand_of, &entry), expected);
}

#[test]
fn undos_run_in_reverse_order_and_what_fails_stays_in_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::of(dir.path());
    let log = dir.path().join("log");
    let script = format!("echo $0 >>{}; test $0 != second", log.display());
    let pending = ["first", "second", "third"].map(|name| PendingUndo {
        when: HookPlace::BeforeStop,
        command: command(&["sh", "-c", &script, name]),
        hook: None,
    });
    let mut entry: JournalEntry = serde_json::from_value(serde_json::json!({
        "formatVersion": 2, "stack": "web", "project": "web",
        "compose": {"dir": "/", "name": null, "files": [], "envFiles": []},
        "stopMethod": "stop", "stopTimeoutSecs": null, "startTimeoutSecs": 1,
        "since": "2026-11-23T03:00:00+01:00", "step": "up", "containers": [],
    }))
    .unwrap();
    entry.undos = pending.to_vec();
    journal.begin(&entry, None).unwrap();
    let mut told = Vec::new();
    undo_all(&mut entry, &journal, &mut |outcome| told.push(outcome)).unwrap();
    assert_eq!(fs::read_to_string(&log).unwrap(), "third\nsecond\nfirst\n");
    let failed: Vec<bool> = told.iter().map(|outcome| outcome.error.is_some()).collect();
    assert_eq!(failed, [false, true, false]);
    assert_eq!(entry.undos, pending[1..2]);
    let found = journal.found().unwrap().remove(0).entry.unwrap();
    assert_eq!(found.undos, entry.undos);
    // When it succeeds, nothing is left.
    entry.undos[0].command.argv = vec!["true".to_owned()];
    undo_all(&mut entry, &journal, &mut |_| {}).unwrap();
    assert!(journal.found().unwrap().is_empty());
}
