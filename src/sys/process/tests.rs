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

#[test]
fn a_program_gets_only_the_environment_that_it_is_given() {
    let printed = Program::new("env", [""; 0]).only_env([("A", "b".into())]);
    assert_eq!(printed.output().unwrap().stdout, b"A=b\n");
    // The control.
    let inherited = Program::new("env", [""; 0]).output().unwrap().stdout;
    assert!(String::from_utf8_lossy(&inherited).contains("PATH="));
}

#[test]
fn a_program_that_needs_too_much_memory_or_prints_too_much_ends() {
    let script = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}";
    let output = sh(script).memory_limit(100 << 20).output().unwrap();
    assert!(output.failure().is_some(), "{:?}", output.exit);
    // The control.
    assert_eq!(sh(script).output().unwrap().stdout, b"200000000\n");
    let output = sh("yes").output().unwrap();
    assert_eq!(output.exit, Exit::TooMuchOutput);
    assert!(output.stdout.len() <= OUTPUT_LIMIT);
}

#[test]
fn options_that_need_not_be_shown_are_given_but_not_shown() {
    let output = Program::with_options("sh", ["-c".into(), "echo $0; exit 1".into()], ["x"]);
    let output = output.output().unwrap();
    assert_eq!(output.stdout, b"x\n");
    assert_eq!(
        output.check().unwrap_err().to_string(),
        "`sh x`: exit status 1"
    );
}

#[test]
fn a_program_inherits_no_file_whatever_its_number() {
    // The duplicates are inheritable; the last one is beyond what is marked one by one.
    let file = tempfile::tempfile().unwrap();
    let low = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_DUPFD(100)).unwrap();
    let high = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_DUPFD(900)).unwrap();
    let script =
        format!("for fd in {low} {high}; do test ! -e /proc/self/fd/$fd || echo $fd; done");
    let seen = |program: Program| String::from_utf8(program.output().unwrap().stdout).unwrap();
    assert_eq!(seen(sh(&script).inherits_nothing()), "");
    assert_eq!(seen(sh(&script)), format!("{low}\n{high}\n"), "the control");
}
