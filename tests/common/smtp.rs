//! A real mail server for tests: Exim on loopback ports of its own, with
//! STARTTLS, TLS and AUTH, certificates of a throw-away CA, and a maildir.
//!
//! Needs root, `exim4` and `openssl`. Nothing outside a temporary directory
//! is used, and any number of servers can run side by side.
#![allow(dead_code)]

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long a busy machine may take to start the server, or to deliver a mail.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running server; dropped, it is killed and its files are removed.
///
/// It is known as `localhost`. Mail to `example.org` needs a log-in, mail to
/// `open.example.org` does not, and mail to other domains is refused.
pub struct SmtpServer {
    pub port_starttls: u16,
    pub port_tls: u16,
    /// TLS with a certificate that expired in 2021.
    pub port_tls_expired: u16,
    pub user: String,
    pub password: String,
    /// The certificate of the CA that signed the server's.
    pub ca_file: PathBuf,
    dir: TempDir,
    child: Child,
}

impl SmtpServer {
    pub fn start() -> SmtpServer {
        let dir = tempfile::tempdir().expect("create directory");
        // Exim works under its own user, also where it delivers: of a process
        // that it starts anew it takes the privileges away, for its
        // configuration is not the installed one.
        set_mode(dir.path(), 0o755);
        for name in ["log", "mail"] {
            let path = dir.path().join(name);
            fs::create_dir(&path).expect("create directory");
            set_mode(&path, 0o777);
        }
        make_certificates(dir.path());

        // Another process may take a port between choosing and listening.
        for _ in 0..5 {
            let [port_starttls, port_tls, port_tls_expired] = free_ports();
            let ports = [port_starttls, port_tls, port_tls_expired];
            let mut child = start_exim(dir.path(), ports);
            if wait_until_listening(&mut child, ports) {
                return SmtpServer {
                    port_starttls,
                    port_tls,
                    port_tls_expired,
                    user: "backup".to_owned(),
                    password: "correct-horse-battery".to_owned(),
                    ca_file: dir.path().join("ca.pem"),
                    dir,
                    child,
                };
            }
            kill_group(&mut child);
        }
        panic!("exim4 does not start:\n{}", log_of(dir.path()));
    }

    /// A file with the password, as `passwordFile` wants it.
    pub fn password_file(&self) -> PathBuf {
        let path = self.dir.path().join("password");
        fs::write(&path, format!("{}\n", self.password)).expect("write password");
        path
    }

    /// All mails delivered so far, in no order; one a recipient, each with an
    /// `Envelope-to` header.
    pub fn messages(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.dir.path().join("mail/new")) else {
            return Vec::new(); // made with the first delivery
        };
        let path = |entry: std::io::Result<fs::DirEntry>| entry.expect("read maildir").path();
        entries
            .map(|entry| fs::read_to_string(path(entry)).expect("read mail"))
            .collect()
    }

    /// Waits for that many mails: the server delivers after it has answered.
    pub fn wait_for_messages(&self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let messages = self.messages();
            if messages.len() >= count {
                return messages;
            }
            let log = || log_of(self.dir.path());
            assert!(Instant::now() < deadline, "mail is late:\n{}", log());
            sleep(Duration::from_millis(50));
        }
    }

    /// What the server logged, for assertions and for failures.
    pub fn log(&self) -> String {
        log_of(self.dir.path())
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        kill_group(&mut self.child);
    }
}

/// Ends the server and its child processes, and waits for them. A connection
/// still being served would write a log into the directory just removed.
fn kill_group(child: &mut Child) {
    let group = Pid::from_raw(i32::try_from(child.id()).expect("a pid is an i32"));
    let _ = killpg(group, Signal::SIGKILL);
    let _ = child.wait();
    // The wait is limited, because zombies count too if no process reaps them.
    let deadline = Instant::now() + Duration::from_millis(500);
    while killpg(group, None).is_ok() && Instant::now() < deadline {
        sleep(Duration::from_millis(10));
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("find a free port"));
    listeners.map(|listener| listener.local_addr().expect("local address").port())
}

fn start_exim(dir: &Path, ports: [u16; 3]) -> Child {
    let config = dir.join("exim.conf");
    fs::write(&config, exim_config(dir, ports)).expect("write configuration");
    Command::new("exim4")
        .args(["-bdf", "-C"])
        .arg(&config)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(fs::File::create(dir.join("stdout")).expect("create stdout"))
        .stderr(fs::File::create(dir.join("stderr")).expect("create stderr"))
        .spawn()
        .expect("start exim4 (apt-get install exim4-daemon-light)")
}

fn wait_until_listening(child: &mut Child, ports: [u16; 3]) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if child.try_wait().expect("wait for exim4").is_some() {
            return false;
        }
        if ports
            .iter()
            .all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
        {
            return true;
        }
        sleep(Duration::from_millis(50));
    }
    false
}

fn log_of(dir: &Path) -> String {
    let mut all = String::new();
    for name in ["stderr", "log/mainlog", "log/rejectlog", "log/paniclog"] {
        let text = fs::read_to_string(dir.join(name)).unwrap_or_default();
        let _ = writeln!(all, "--- {name}\n{text}"); // a String takes all
    }
    all
}

fn exim_config(dir: &Path, [starttls, tls, expired]: [u16; 3]) -> String {
    let dir = dir.display();
    format!(
        r#"
primary_hostname = localhost
local_interfaces = 127.0.0.1
daemon_smtp_ports = {starttls} : {tls} : {expired}
tls_on_connect_ports = {tls} : {expired}
tls_advertise_hosts = *
tls_certificate = {dir}/${{if eq{{$received_port}}{{{expired}}}{{expired}}{{server}}}}.pem
tls_privatekey = {dir}/server.key
auth_advertise_hosts = ${{if def:tls_in_cipher{{*}}}}
spool_directory = {dir}/spool
log_file_path = {dir}/log/%slog
pid_file_path = {dir}/exim.pid
keep_environment =
host_lookup =
rfc1413_hosts =
deliver_drop_privilege = true
acl_smtp_rcpt = recipient

begin acl
recipient:
  accept domains = open.example.org
  deny !authenticated = *
       message = log in first
  accept domains = example.org
  deny message = no such mailbox here

begin routers
all:
  driver = accept
  transport = maildir

begin transports
maildir:
  driver = appendfile
  maildir_format
  directory = {dir}/mail
  envelope_to_add

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{backup}}}}{{eq{{$auth3}}{{correct-horse-battery}}}}}}}}
  server_set_id = $auth2
"#
    )
}

/// `ca.pem`, `server.pem` (for `localhost`), `expired.pem` and `server.key`.
fn make_certificates(dir: &Path) {
    fs::write(
        dir.join("ca.cnf"),
        "[ca]\ndefault_ca = d\n[d]\ndatabase = index\nserial = serial\nnew_certs_dir = .\n\
         policy = p\ndefault_md = sha256\n[p]\ncommonName = supplied\n",
    )
    .expect("write ca.cnf");
    fs::write(
        dir.join("extensions"),
        "subjectAltName = DNS:localhost\nbasicConstraints = CA:FALSE\n",
    )
    .expect("write extensions");
    fs::write(dir.join("index"), "").expect("write index");
    fs::write(dir.join("serial"), "01\n").expect("write serial");
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for arguments in [
        format!("req -x509 {new_key} -days 30 -subj /CN=test-CA -keyout ca.key -out ca.pem"),
        format!("req {new_key} -subj /CN=localhost -keyout server.key -out server.csr"),
        sign("-days 30 -out server.pem"),
        "req -new -key server.key -subj /CN=expired -out expired.csr".to_owned(),
        sign("-startdate 20200101000000Z -enddate 20210101000000Z -out expired.pem")
            .replace("server.csr", "expired.csr"),
    ] {
        openssl(dir, &arguments);
    }
    set_mode(&dir.join("server.key"), 0o644);
}

fn sign(arguments: &str) -> String {
    "ca -batch -notext -config ca.cnf -cert ca.pem -keyfile ca.key -extfile extensions \
     -in server.csr "
        .to_owned()
        + arguments
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("start openssl");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}:\n{stderr}");
}
