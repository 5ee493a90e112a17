//! The Engine's API, for what tests ask all the time: a docker command takes twenty times
//! as long to start.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

const PROJECT: &str = "com.docker.compose.project";

/// An Engine at a Unix socket.
pub struct Api {
    socket: String,
}

impl Api {
    /// The Engine at `unix://SOCKET`, or that of the tests.
    #[track_caller]
    pub fn of(host: Option<&str>) -> Api {
        let host = host.map(str::to_owned);
        let host = host.or_else(|| std::env::var("DOCKER_HOST").ok());
        let host = host.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
        let socket = host.strip_prefix("unix://");
        let socket = socket.unwrap_or_else(|| panic!("the tests need a Unix socket, not {host}"));
        Api {
            socket: socket.to_owned(),
        }
    }

    /// Sends a request. Returns the status and the body.
    pub fn request(
        &self,
        method: &str,
        target: &str,
        body: &str,
    ) -> std::io::Result<(u16, Vec<u8>)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        // In version 1.0 of HTTP the answer ends with the connection.
        write!(
            stream,
            "{method} {target} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no HTTP: {}", String::from_utf8_lossy(&answer)));
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Ok((
            status.unwrap_or_else(|| panic!("no HTTP: {head}")),
            answer.split_off(end + 4),
        ))
    }

    /// What a request answers, which must succeed.
    #[track_caller]
    fn json(&self, method: &str, target: &str, body: &str) -> Value {
        let (status, answer) = self.request(method, target, body).unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(status < 300, "{method} {target}: {status}: {text}");
        serde_json::from_slice(&answer).unwrap()
    }

    /// What is there, if the Engine runs and has it.
    pub fn get(&self, target: &str) -> Option<Value> {
        let (status, answer) = self.request("GET", target, "").ok()?;
        let is_there = status == 200;
        is_there.then(|| serde_json::from_slice(&answer).unwrap())
    }

    /// Removes something, if it is there.
    pub fn delete(&self, target: &str) {
        let _ = self.request("DELETE", target, "");
    }

    /// The containers with a label; none while the Engine does not run.
    pub fn containers(&self, label: &str) -> Vec<Value> {
        let found = self.get(&format!("/containers/json?all=1&{}", filter(label)));
        items(found.unwrap_or_default())
    }

    /// `service:state` of a project's containers, sorted; none while the Engine does not
    /// run.
    pub fn states(&self, project: &str) -> Vec<String> {
        let listed = self.containers(&format!("{PROJECT}={project}"));
        // Not from the list, which lags behind a stop or start.
        let inspected = listed.iter().filter_map(|container| {
            let id = container["Id"].as_str().unwrap();
            self.get(&format!("/containers/{id}/json"))
        });
        let state = |container: Value| {
            let service = container["Config"]["Labels"]["com.docker.compose.service"].as_str();
            let status = container["State"]["Status"].as_str().unwrap();
            format!("{}:{status}", service.unwrap_or_default())
        };
        let mut states: Vec<String> = inspected.map(state).collect();
        states.sort();
        states
    }

    /// Removes the containers, volumes and networks with a label.
    pub fn remove_all(&self, label: &str) {
        for container in self.containers(label) {
            let id = container["Id"].as_str().unwrap();
            self.delete(&format!("/containers/{id}?force=1&v=1"));
        }
        let volumes = self.get(&format!("/volumes?{}", filter(label)));
        for volume in items(volumes.unwrap_or_default()["Volumes"].take()) {
            let name = volume["Name"].as_str().unwrap();
            self.delete(&format!("/volumes/{name}?force=1"));
        }
        let networks = self.get(&format!("/networks?{}", filter(label)));
        for network in items(networks.unwrap_or_default()) {
            self.delete(&format!("/networks/{}", network["Id"].as_str().unwrap()));
        }
    }

    /// Runs a command in a container. Returns its exit status, its stdout and its stderr.
    #[track_caller]
    pub fn exec(&self, container: &str, command: &[&str]) -> (i64, String, String) {
        let options = json!({"AttachStdout": true, "AttachStderr": true, "Cmd": command});
        let create = format!("/containers/{container}/exec");
        let exec = self.json("POST", &create, &options.to_string());
        let id = exec["Id"].as_str().unwrap();
        let start = json!({"Detach": false, "Tty": false}).to_string();
        let (_, stream) = self
            .request("POST", &format!("/exec/{id}/start"), &start)
            .unwrap();
        let (stdout, stderr) = demultiplexed(&stream);
        let ended = self.json("GET", &format!("/exec/{id}/json"), "");
        (ended["ExitCode"].as_i64().unwrap(), stdout, stderr)
    }
}

/// The part of a query that asks for a label.
fn filter(label: &str) -> String {
    let filters = json!({ "label": [label] }).to_string();
    let encoded = filters.bytes().map(|byte| format!("%{byte:02X}"));
    format!("filters={}", encoded.collect::<String>())
}

fn items(list: Value) -> Vec<Value> {
    match list {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// Each frame has a byte for the stream, three of nothing, and four for its length.
fn demultiplexed(mut stream: &[u8]) -> (String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let [kind, 0, 0, 0, a, b, c, d, rest @ ..] = stream {
        let (frame, next) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        match kind {
            2 => stderr.extend(frame),
            _ => stdout.extend(frame),
        }
        stream = next;
    }
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&stdout), text(&stderr))
}
