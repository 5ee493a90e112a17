use super::*;

fn sh(script: &str) -> Program {
    Program::new("sh", ["-c", script])
}

#[test]
fn output_and_exit_status_are_returned() {
    let output = sh("echo out; echo err >&2; exit 3").output().unwrap();
    assert_eq!(output.exit, Exit::Failure(3));
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(
        output.check().unwrap_err().to_string(),
        "`sh -c echo out; echo err >&2; exit 3`: exit status 3: err"
    );
}

#[test]
fn a_program_gets_its_directory_with_symlinks_in_pwd() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::fs::create_dir(dir.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", &link).unwrap();
    let printed = Program::new("printenv", ["PWD"]).current_dir(&link);
    let printed = printed.output().unwrap().stdout;
    assert_eq!(printed, format!("{}\n", link.display()).into_bytes());
}

#[test]
fn a_program_that_exceeds_its_limit_is_killed_with_its_children() {
    let began = Instant::now();
    let output = sh("sleep 30 & sleep 30")
        .limit(Duration::from_millis(200))
        .output()
        .unwrap();
    assert_eq!(output.exit, Exit::TimedOut(Duration::from_millis(200)));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_interrupted_program_gets_sigterm_and_later_sigkill() {
    // Sends the signal once the script runs.
    let ends = |script: &str| {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        let program = sh(&script.replace("RUNS", runs.to_str().unwrap()));
        let signals = Signals::default();
        let began = Instant::now();
        let output = thread::scope(|scope| {
            scope.spawn(|| {
                while !runs.exists() && began.elapsed() < SIGTERM_GRACE {
                    thread::sleep(POLL_INTERVAL);
                }
                signals.record(Signal::SIGTERM as i32);
            });
            program.interruptible_by(&signals).output().unwrap()
        });
        (output.exit, began.elapsed())
    };
    let (exit, took) = ends("touch RUNS; sleep 30 & sleep 30");
    assert_eq!(exit, Exit::Interrupted);
    assert!(took < SIGTERM_GRACE, "{took:?}");
    let (exit, took) = ends("trap 'exit 0' TERM; touch RUNS; sleep 30 & wait");
    assert_eq!(exit, Exit::Interrupted);
    assert!(took < SIGTERM_GRACE, "{took:?}");
    let (exit, took) = ends("trap '' TERM; touch RUNS; sleep 30 & sleep 30");
    assert_eq!(exit, Exit::Interrupted);
    assert!(
        (SIGTERM_GRACE..SIGTERM_GRACE * 2).contains(&took),
        "{took:?}"
    );
    // The control: without a signal the program ends by itself.
    let output = sh("exit 0")
        .interruptible_by(&Signals::default())
        .output()
        .unwrap();
    assert_eq!(output.exit, Exit::Success);
}

#[test]
fn a_process_left_behind_with_open_pipes_is_not_waited_for() {
    let began = Instant::now();
    let output = sh("echo out; setsid sleep 20 & exit 0").output().unwrap();
    assert_eq!(output.exit, Exit::Success);
    assert_eq!(output.stdout, b"out\n");
    // The control: its output was waited for.
    assert!((OUTPUT_WAIT..OUTPUT_WAIT * 2).contains(&began.elapsed()));
}

#[test]
fn a_missing_program_is_named_in_the_error() {
    let error = Program::new("no-such-program", ["x"]).output().unwrap_err();
    assert!(format!("{error:#}").starts_with(
        "cannot start `no-such-program` (is it installed, and on PATH?): No such file or directory"
    ));
}
