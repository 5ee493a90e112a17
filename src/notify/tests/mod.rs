//! Channels against servers of the tests' own.

mod channels;
mod faults;
mod queue;
mod when;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::outcome::{Failure, Phase, StackOutcome, StackStatus, ToldHoles};

pub const SECRET: &str = "t0ps3cret-topic";

/// What a server was sent.
pub struct Got {
    /// Method and target.
    pub line: String,
    pub headers: Vec<String>,
    pub body: String,
}

impl Got {
    #[track_caller]
    pub fn assert_header(&self, header: &str) {
        let has = |line: &String| line.eq_ignore_ascii_case(header);
        assert!(self.headers.iter().any(has), "{header}: {:?}", self.headers);
    }
}

pub struct Server {
    pub port: u16,
    pub requests: Receiver<Got>,
}

/// Starts a server that reads one request on each connection and writes an answer, which
/// may depend on the number of the connection.
pub fn serve(answer: impl Fn(usize) -> String + Send + 'static) -> Server {
    serve_streams(move |number, mut stream, sender| {
        if let Some(got) = read_request(&mut stream) {
            let _ = sender.send(got);
            let _ = stream.write_all(answer(number).as_bytes());
        }
    })
}

/// Starts a server that hands each connection over.
pub fn serve_streams(
    handle: impl Fn(usize, TcpStream, &mpsc::Sender<Got>) + Send + 'static,
) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = mpsc::channel();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            handle(number, stream.unwrap(), &sender);
        }
    });
    Server { port, requests }
}

pub fn read_request(stream: &mut impl Read) -> Option<Got> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim() {
            "" => break,
            header => headers.push(header.to_owned()),
        }
    }
    let length = headers.iter().find_map(|header| {
        let (name, value) = header.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Got {
        line: line.trim_end().trim_end_matches(" HTTP/1.1").to_owned(),
        headers,
        body: String::from_utf8(body).ok()?,
    })
}

pub fn answer(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

pub fn ok(_: usize) -> String {
    answer("200 OK")
}

pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        Place {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn state_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns a channel whose address is `text`, with `more` merged over its settings.
    pub fn channel(&self, kind: &str, text: &str, more: &Value) -> Value {
        let name = more["name"].as_str().unwrap_or(kind);
        let file = self.dir.path().join(format!("{name}.url"));
        fs::write(&file, text).unwrap();
        let mut channel = json!({"kind": kind, "urlFile": file, "timeout": 20});
        for (key, value) in more.as_object().into_iter().flatten() {
            channel[key] = value.clone();
        }
        channel
    }

    pub fn plan(&self, channels: &Value) -> Plan {
        self.plan_with(json!({ "notify": channels }))
    }

    pub fn plan_with(&self, mut config: Value) -> Plan {
        config["stateDir"] = json!(self.dir.path());
        config["logFile"] = Value::Null;
        let config = Config::parse(config.to_string().as_bytes()).unwrap();
        Plan::new(config).unwrap()
    }

    /// Returns the names of the files in the queue.
    pub fn queued(&self) -> Vec<String> {
        let files = crate::sys::state_file::list(&self.dir.path().join("news")).unwrap();
        files.into_iter().map(|(name, _)| name).collect()
    }
}

pub fn url(server: &Server) -> String {
    format!("http://127.0.0.1:{}/{SECRET}", server.port)
}

/// Returns the outcome of a run of these stacks, each with its status.
pub fn run(stacks: &[(&str, StackStatus)]) -> RunOutcome {
    let stacks = stacks.iter().map(|(name, status)| StackOutcome {
        status: *status,
        failures: match status {
            StackStatus::Ok => Vec::new(),
            _ => vec![Failure {
                phase: Phase::Plan,
                message: "the disk is full".to_owned(),
            }],
        },
        ..StackOutcome::not_run(name)
    });
    RunOutcome {
        format_version: crate::outcome::FORMAT_VERSION,
        program_version: "0.1.0".to_owned(),
        host: "nas".to_owned(),
        backup_dir: "/b".into(),
        started: OffsetTime::now(),
        time_zone: None,
        finished: Some(OffsetTime::now()),
        interrupted: None,
        recovered: Vec::new(),
        stacks: stacks.collect(),
        gone: Vec::new(),
        holes: ToldHoles::default(),
        unconfigured: None,
        fail_on_warning: false,
        handovers: Vec::new(),
        pruned: Vec::new(),
        store: None,
        errors: Vec::new(),
        channels: Vec::new(),
        log: vec!["a line of the log".to_owned()],
    }
}

pub fn good() -> RunOutcome {
    run(&[("web", StackStatus::Ok)])
}

pub fn bad() -> RunOutcome {
    run(&[("web", StackStatus::Failed)])
}

/// Tells of a run, without a second attempt.
pub fn tell(plan: &Plan, run: &RunOutcome) -> Vec<ChannelOutcome> {
    prepare(plan, &News::Run(run)).send_with(&[])
}

#[track_caller]
pub fn assert_sent(outcomes: &[ChannelOutcome]) {
    assert!(!outcomes.is_empty());
    for outcome in outcomes {
        assert_eq!(
            (outcome.status, &outcome.error),
            (ChannelStatus::Sent, &None)
        );
    }
}
