//! News across processes: what one command could not send, another one sends.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use docker_stack_backup::config::Config;
use docker_stack_backup::config::plan::Plan;
use docker_stack_backup::last_run;
use serde_json::{Value, json};

use crate::common::{Place, output, wait_until};

const SECRET: &str = "t0ps3cret-topic";

/// A server that takes one request on each connection, and lets the test answer it.
struct Server {
    listener: TcpListener,
}

impl Server {
    fn new() -> Server {
        Server {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        }
    }

    fn url(&self) -> String {
        let port = self.listener.local_addr().unwrap().port();
        format!("http://127.0.0.1:{port}/{SECRET}")
    }

    /// Waits for a request. Returns its body, and the connection for the answer.
    fn request(&self) -> (String, TcpStream) {
        let (stream, _) = self.listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.trim().to_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        (String::from_utf8(body).unwrap(), stream)
    }

    /// Answers all requests from now on with this status. Returns their bodies.
    fn answer_all(self, status: &'static str) -> Receiver<String> {
        let (sender, bodies) = mpsc::channel();
        thread::spawn(move || {
            loop {
                let (body, stream) = self.request();
                answer(stream, status);
                if sender.send(body).is_err() {
                    return;
                }
            }
        });
        bodies
    }
}

fn answer(mut stream: TcpStream, status: &str) {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).unwrap();
}

/// Writes a configuration with one channel, and returns the file with its address.
fn configure(place: &Place, url: &str, more: Value) -> PathBuf {
    let file = place.path("url");
    fs::write(&file, url).unwrap();
    let mut channel = json!({"kind": "ntfy", "urlFile": file, "timeout": 5, "when": "always"});
    for (key, value) in more.as_object().unwrap() {
        channel[key] = value.clone();
    }
    place.config(json!(["web"]), json!({ "notify": [channel] }));
    file
}

/// Leaves the outcome of a run that was killed, of which `recover` tells.
fn leave_killed_run(place: &Place) {
    let config = Config::load(&place.path("config.json")).unwrap();
    let plan = Plan::new(config).unwrap();
    fs::create_dir_all(place.state()).unwrap();
    last_run::save(&plan, &mut last_run::begin(&plan));
}

fn queued(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.path("state/news"));
    let paths = entries
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.collect();
    paths.sort();
    paths
}

#[test]
fn what_recover_could_not_send_is_sent_by_a_later_command() {
    let place = Place::new();
    let away = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = away.local_addr().unwrap().port();
    drop(away);
    let url = configure(
        &place,
        &format!("https://127.0.0.1:{port}/{SECRET}"),
        json!({}),
    );
    // An address that is refused is not tried again at once, so the test is quick.
    fs::write(&url, format!("ftp://{SECRET}")).unwrap();
    leave_killed_run(&place);
    let ended = output(&mut place.program(&["recover", "--json"])).expect_status(2);
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["channels"][0]["status"], "waiting");
    let shown = output(&mut place.program(&["report"]))
        .expect_status(0)
        .stdout;
    assert!(
        shown.starts_with("ntfy: 1 message waiting since "),
        "{shown}"
    );
    assert!(shown.contains("\n  ntfy: not sent yet: "), "{shown}");
    assert!(shown.contains("ntfy not reached"), "{shown}");

    let files = queued(&place);
    assert_eq!(files.len(), 1);
    let mut all = ended.stdout + &ended.stderr + &shown;
    for file in [
        &files[0],
        &place.path("state/last-run.json"),
        &place.path("log"),
    ] {
        all += &fs::read_to_string(file).unwrap();
    }
    assert!(!all.contains(SECRET), "{all}");
    assert!(all.contains("cannot use the channel's address"), "{all}");

    let server = Server::new();
    fs::write(&url, server.url()).unwrap();
    let bodies = server.answer_all("200 OK");
    let send = || output(&mut place.program(&["report", "--send-queued"])).expect_status(0);
    send();
    let body = bodies.recv().unwrap();
    assert!(body.contains("the run was interrupted: killed"), "{body}");
    assert_eq!(queued(&place), Vec::<PathBuf>::new());
    // The controls: it is sent once, and the queue is no trouble any more.
    send();
    assert!(bodies.try_recv().is_err());
    let shown = output(&mut place.program(&["report"]))
        .expect_status(0)
        .stdout;
    assert!(!shown.contains("waiting"), "{shown}");
}

#[test]
fn a_process_that_is_killed_while_it_sends_loses_nothing() {
    let place = Place::new();
    let server = Server::new();
    configure(&place, &server.url(), json!({}));
    leave_killed_run(&place);
    // The server has the message, and its answer never comes.
    let mut child = place
        .program(&["recover"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (first, stream) = server.request();
    assert_eq!(queued(&place).len(), 1, "it is queued before it is sent");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(stream);
    assert_eq!(queued(&place).len(), 1);
    // The run is told as ended; the message is sent again by whatever comes next.
    let mut child = place.program(&["report", "--send-queued"]).spawn().unwrap();
    let (second, stream) = server.request();
    assert_eq!(first, second);
    answer(stream, "200 OK");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(queued(&place), Vec::<PathBuf>::new());
    let bodies = server.answer_all("200 OK");
    output(&mut place.program(&["recover"])).expect_status(0);
    assert!(bodies.try_recv().is_err(), "the same run is not told again");
}

#[test]
fn two_processes_do_not_send_the_same_message() {
    let place = Place::new();
    let server = Server::new();
    configure(&place, &server.url(), json!({}));
    leave_killed_run(&place);
    let mut first = place
        .program(&["recover"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (_, stream) = server.request();
    let mut second = place.program(&["report", "--send-queued"]).spawn().unwrap();
    wait_until("the second process has opened the lock", || {
        let fds = fs::read_dir(format!("/proc/{}/fd", second.id()));
        fds.into_iter().flatten().flatten().any(|fd| {
            fs::read_link(fd.path()).is_ok_and(|path| path.ends_with("state/sending.lock"))
        })
    });
    answer(stream, "200 OK");
    assert!(first.wait().unwrap().code().is_some());
    assert_eq!(second.wait().unwrap().code(), Some(0));
    let bodies = server.answer_all("200 OK");
    assert!(bodies.try_recv().is_err());
    assert_eq!(queued(&place), Vec::<PathBuf>::new());
}

#[test]
fn a_test_tries_every_channel_and_fails_if_one_does() {
    let place = Place::new();
    let (good, bad) = (Server::new(), Server::new());
    let file = |name: &str, text: String| {
        fs::write(place.path(name), text).unwrap();
        place.path(name)
    };
    let channels = json!([
        {"kind": "ntfy", "urlFile": file("bad", bad.url())},
        {"kind": "gotify", "urlFile": file("good", good.url())},
        {"kind": "webhook", "urlFile": "/nowhere/url"},
    ]);
    place.config(json!(["web"]), json!({ "notify": channels }));
    let sent = good.answer_all("200 OK");
    let refused = bad.answer_all("403 Forbidden");
    let ended = output(&mut place.program(&["report", "--test"])).expect_status(1);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(
        lines[0].starts_with("FAILED  ntfy: cannot reach http://127.0.0.1:"),
        "{lines:?}"
    );
    assert!(
        lines[0].ends_with("the server said 403 Forbidden"),
        "{lines:?}"
    );
    assert_eq!(
        lines[1],
        "ok      gotify: the server has accepted the test message"
    );
    assert!(
        lines[2]
            .starts_with("FAILED  webhook: cannot read the channel's address from /nowhere/url"),
        "{lines:?}"
    );
    assert!(sent.recv().unwrap().contains("TEST on "));
    refused.recv().unwrap();
    assert!(!ended.stdout.contains(SECRET) && !ended.stderr.contains(SECRET));
    assert_eq!(queued(&place), Vec::<PathBuf>::new());
    // The control: with the good one alone it succeeds.
    let channels = json!([{"kind": "gotify", "urlFile": place.path("good")}]);
    place.config(json!(["web"]), json!({ "notify": channels }));
    output(&mut place.program(&["report", "--test"])).expect_status(0);
    place.config(json!(["web"]), json!({}));
    let ended = output(&mut place.program(&["report", "--test"])).expect_status(1);
    assert!(
        ended
            .stderr
            .contains("neither `email` nor `notify` is configured"),
        "{}",
        ended.stderr
    );
}
