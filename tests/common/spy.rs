//! Logs the program's requests to Docker in their order, and can interfere with
//! them. It consists of a `docker` on PATH and a proxy of the Engine's socket.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use docker_stack_backup::engine::compose_plugin;

use super::{Place, succeed};

/// With this exit status the hook lets a request to the Engine through.
const PASS: i32 = 77;

impl Place {
    /// Logs each docker command and each request to the Engine's socket, runs
    /// `hook`, and then passes the call on. A request is logged as the
    /// equivalent command; inspections of single containers are left out.
    /// `hook` is a shell fragment, with the pids of the program in `$PARENT` (the run's
    /// and its worker's) and the number of this call in `$COUNT`.
    pub fn spy(&self, hook: &str) -> Spy {
        let dir = self.path("spy");
        let plugins = dir.join("cli-plugins");
        fs::create_dir_all(&plugins).unwrap();
        let real = succeed("sh", ["-c", "command -v docker"]);
        let log = dir.join("log");
        let script = format!(
            "#!/bin/bash\n[ -n \"$SPY_PARENT\" ] || . '{envs}'\n\
             while [[ $1 = --host || $1 = --context || $1 = --config ]]; do shift 2; done\n\
             PARENT=${{SPY_PARENT:-$PPID}}\nexport DOCKER_HOST=$SPY_HOST\n\
             mapfile -d '' WORDS 2>/dev/null </proc/$PARENT/cmdline\n\
             if [ \"${{WORDS[1]}}\" = worker ]; then\n\
             read -r _ _ _ WATCH _ </proc/$PARENT/stat; PARENT=\"$WATCH $PARENT\"; fi\n\
             exec 9>>'{lock}'; flock 9\necho \"$*\" >>'{log}'\n\
             COUNT=$(grep -c '' '{log}')\n\
             docker() {{ '{real}' \"$@\"; }}\n{hook}\nexec 9>&-\n\
             [ -z \"$SPY_PARENT\" ] || exit {PASS}\n\
             [ \"$1\" != compose ] || \
             DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND=docker exec '{plugin}' \"$@\"\n\
             exec '{real}' \"$@\"\n",
            plugin = compose_plugin().expect("Compose is installed"),
            lock = dir.join("lock").display(),
            envs = dir.join("envs").display(),
            log = log.display(),
        );
        let program = dir.join("docker");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        // The program starts the plugin as it starts docker.
        let _ = fs::hard_link(&program, plugins.join("docker-compose"));
        Spy {
            dir,
            log,
            relays: true,
        }
    }
}

pub struct Spy {
    dir: PathBuf,
    log: PathBuf,
    relays: bool,
}

impl Spy {
    /// Makes the program use only docker commands, as it must when a docker
    /// context is set.
    pub fn without_socket(self) -> Spy {
        Spy {
            relays: false,
            ..self
        }
    }

    /// Puts the spy on the command's PATH and in front of its Engine.
    pub fn watch<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let own = |name: &str| {
            let set = command.get_envs().find(|(known, _)| *known == name);
            match set {
                Some((_, value)) => value.map(|value| value.to_str().unwrap().to_owned()),
                None => std::env::var(name).ok(),
            }
        };
        let path = own("PATH").unwrap();
        let host = own("DOCKER_HOST").unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
        let envs: Vec<_> = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        if !self.relays {
            // The script sets DOCKER_HOST again.
            command
                .env_remove("DOCKER_HOST")
                .env("DOCKER_CONTEXT", "elsewhere");
        } else if let Some(engine) = host.strip_prefix("unix://") {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let socket = self.dir.join(format!("{count}.sock"));
            let listener = UnixListener::bind(&socket).unwrap();
            let relay = Relay {
                hook: self.dir.join("docker"),
                engine: engine.into(),
                envs: envs.clone(),
            };
            // The thread runs until the tests end.
            thread::spawn(move || relay.serve(&listener));
            command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        }
        // The program hands no variables on.
        let exports: String = envs
            .iter()
            .map(|(name, value)| (name.to_str().unwrap(), value.to_str().unwrap()))
            .chain([("SPY_HOST", host.as_str()), ("PATH", path.as_str())])
            .map(|(name, value)| format!("export {name}='{value}'\n"))
            .collect();
        fs::write(self.dir.join("envs"), exports).unwrap();
        command.env("DOCKER_CONFIG", &self.dir);
        command.env("PATH", format!("{}:{path}", self.dir.display()))
    }

    /// The calls so far, their arguments joined by spaces.
    pub fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    pub fn clear(&self) {
        fs::write(&self.log, "").unwrap();
    }
}

struct Relay {
    hook: PathBuf,
    engine: PathBuf,
    envs: Vec<(std::ffi::OsString, std::ffi::OsString)>,
}

impl Relay {
    fn serve(&self, listener: &UnixListener) {
        thread::scope(|scope| {
            for client in listener.incoming() {
                scope.spawn(move || {
                    let client = client.unwrap();
                    // When one side closes the connection, the other side is closed
                    // too.
                    let _ = self.relay(&client);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
    }

    fn relay(&self, client: &UnixStream) -> std::io::Result<()> {
        let pid = rustix::net::sockopt::socket_peercred(client)?.pid;
        let pid = pid.as_raw_nonzero().get();
        let mut engine: Option<UnixStream> = None;
        while let Some(request) = read_request(client) {
            if let Some(call) = as_command(&request)
                && let Some(refusal) = self.refusal(&call, pid)
            {
                let body = serde_json::json!({ "message": refusal }).to_string();
                let head = "HTTP/1.1 500 Internal Server Error\r\nContent-Length:";
                write!(&mut &*client, "{head} {}\r\n\r\n{body}", body.len())?;
                continue;
            }
            let engine = match &mut engine {
                Some(engine) => engine,
                none => {
                    let connected = UnixStream::connect(&self.engine)?;
                    let (mut from, mut to) = (connected.try_clone()?, client.try_clone()?);
                    thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                    none.insert(connected)
                }
            };
            engine.write_all(request.as_bytes())?;
        }
        if let Some(engine) = engine {
            engine.shutdown(Shutdown::Both)?;
        }
        Ok(())
    }

    /// The hook's error message, if the hook refuses the call.
    fn refusal(&self, call: &str, pid: i32) -> Option<String> {
        let errors = tempfile::NamedTempFile::new().unwrap();
        // The errors go to a file, because background processes of the hook would
        // keep a pipe open.
        let status = Command::new(&self.hook)
            .args(call.split(' '))
            .envs(self.envs.iter().map(|(name, value)| (name, value)))
            .env("SPY_PARENT", pid.to_string())
            .env("SPY_HOST", format!("unix://{}", self.engine.display()))
            .env("PATH", self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(errors.path()).unwrap())
            .status()
            .unwrap();
        let said = fs::read_to_string(errors.path()).unwrap();
        (status.code() != Some(PASS)).then_some(said)
    }

    fn path(&self) -> String {
        let path = std::env::var("PATH").unwrap();
        format!(
            "{}:{path}",
            self.hook.parent().unwrap_or(Path::new("/")).display()
        )
    }
}

fn read_request(mut client: &UnixStream) -> Option<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match client.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return None,
        }
    }
    let mut request = String::from_utf8(request).ok()?;
    let length = request
        .split_once("Content-Length: ")
        .map_or(0, |(_, rest)| rest.lines().next().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    client.read_exact(&mut body).ok()?;
    request.push_str(&String::from_utf8(body).ok()?);
    Some(request)
}

/// The equivalent docker command.
fn as_command(request: &str) -> Option<String> {
    let target = request.split(' ').nth(1).unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["", _, "containers", "json"] => Some("ps --all".to_owned()),
        ["", _, "containers", _, "json"] | ["", _, "exec", _, "json"] | ["", "_ping"] => None,
        ["", _, "containers", id, "exec"] => Some(format!("exec --detach {id}")),
        ["", _, "exec", id, "start"] => Some(format!("exec start {id}")),
        ["", _, "volumes"] => Some("volume ls".to_owned()),
        ["", _, "volumes", name] => Some(format!("volume inspect {name}")),
        ["", _, "networks", name] => Some(format!("network inspect {name}")),
        ["", _, "images", .., "json"] => Some("image inspect".to_owned()),
        ["", _, "containers", id, verb] => Some(match query.strip_prefix("t=") {
            Some(seconds) => format!("{verb} --time {seconds} {id}"),
            None => format!("{verb} {id}"),
        }),
        _ => panic!("no docker command is known for {request}"),
    }
}
