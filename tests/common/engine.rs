//! A private Docker Engine, which a test can kill and start again.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::api::Api;
use super::{PATIENCE, Place, Stack, output};

const IMAGE: &str = "docker-stack-backup/busybox:1";

/// A private dockerd with its own containerd, data, network namespace and
/// cgroup. Dropping it removes all of it, whatever state it is in.
pub struct Engine {
    dir: PathBuf,
    cgroup: String,
    daemon: Option<Child>,
    /// Holds the network namespace, which must outlive a killed daemon as the
    /// host's would.
    network: Child,
}

impl Engine {
    pub fn start(place: &Place) -> Engine {
        Engine::with_settings(place, "{}")
    }

    /// Starts an Engine whose `daemon.json` is `settings`.
    pub fn with_settings(place: &Place, settings: &str) -> Engine {
        let dir = place.path("engine");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("daemon.json"), settings).unwrap();
        let mut network = Command::new("unshare");
        network.args(["--net", "sh", "-c"]);
        network.arg("ip link set lo up && echo && exec sleep infinity");
        let mut network = network.stdout(Stdio::piped()).spawn().unwrap();
        // The shell prints a line once the namespace exists.
        let mut line = [0];
        std::io::Read::read_exact(network.stdout.as_mut().unwrap(), &mut line).unwrap();
        let name = place.path("").file_name().unwrap().to_owned();
        let mut engine = Engine {
            dir,
            cgroup: format!("dsbtest-{}", name.to_str().unwrap().trim_start_matches('.')),
            daemon: None,
            network,
        };
        engine.restart();
        engine.load_image(IMAGE);
        engine
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }

    pub fn pid(&self) -> i32 {
        self.daemon.as_ref().expect("the daemon runs").id() as i32
    }

    /// Starts the daemon, which must not be running, and waits until it
    /// answers.
    pub fn restart(&mut self) {
        self.launch();
        let began = Instant::now();
        while Api::of(Some(&self.host()))
            .get("/containers/json")
            .is_none()
        {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(began.elapsed() < PATIENCE, "{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn launch(&mut self) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let log = self.dir.join("log");
        let log = File::options().append(true).create(true).open(log).unwrap();
        // A killed daemon leaves its pid file, and another process may have that
        // pid by now.
        let _ = fs::remove_file(self.dir.join("pid"));
        let path = |name: &str| self.dir.join(name).display().to_string();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.network.id()))
            .args(["dockerd", "--data-root", &path("data")])
            .args(["--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args([
                "--host",
                &self.host(),
                "--config-file",
                &path("daemon.json"),
            ])
            .args(["--containerd-namespace", &self.cgroup])
            .args([
                "--containerd-plugins-namespace",
                &format!("{}-plugins", self.cgroup),
            ])
            .args(["--cgroup-parent", &format!("/{}", self.cgroup)])
            .args([
                "--iptables=false",
                "--ip6tables=false",
                "--shutdown-timeout",
                "3",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0);
        // PATH may lack the sbin directories, where dockerd may be.
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        self.daemon = Some(command.spawn().unwrap());
    }

    /// Sends SIGKILL, as the kernel does when memory is short. Containers keep
    /// running.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Waits for a daemon that a hook has killed.
    pub fn reap(&mut self) {
        let mut daemon = self.daemon.take().expect("the daemon ran");
        daemon.wait().unwrap();
    }

    pub fn docker(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(args).env("DOCKER_HOST", self.host());
        command
    }

    #[track_caller]
    pub fn up(&self, stack: &Stack) {
        let mut command = stack.compose(&["up", "--detach", "--wait"]);
        output(command.env("DOCKER_HOST", self.host())).expect_status(0);
    }

    /// `service:state` of a stack's containers, sorted; empty while the daemon
    /// does not run.
    pub fn states(&self, stack: &Stack) -> Vec<String> {
        Api::of(Some(&self.host())).states(&stack.project)
    }

    /// Copies an image from the Engine that the tests share.
    pub fn load_image(&self, image: &str) {
        let mut save = Command::new("docker");
        let mut save = save
            .args(["save", image])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut load = self.docker(&["load", "--quiet"]);
        let load = load
            .stdin(save.stdout.take().unwrap())
            .stdout(Stdio::null())
            .status();
        assert!(load.unwrap().success() && save.wait().unwrap().success());
    }

    /// Processes of this Engine. Each has the Engine's directory on its command
    /// line.
    fn processes(&self) -> HashSet<i32> {
        let exec = self.dir.join("exec").display().to_string();
        let listing = fs::read_dir("/proc").unwrap().flatten();
        let pids = listing.filter_map(|item| item.file_name().to_str()?.parse().ok());
        let is_ours = |pid: &i32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&exec)
        };
        pids.filter(is_ours).collect()
    }

    fn wait_for_the_end(&self, limit: Duration) -> bool {
        let began = Instant::now();
        while !self.processes().is_empty() {
            if began.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        true
    }

    fn mounts(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let ours = points.filter(|point| Path::new(point).starts_with(&self.dir));
        // The last mount comes first, because it may be inside of an earlier one.
        ours.map(str::to_owned).rev().collect()
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let fields = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let hierarchies = fields.filter(|fields| fields[2].starts_with("cgroup"));
        let ours = hierarchies.map(|fields| Path::new(fields[1]).join(&self.cgroup));
        ours.filter(|dir| dir.exists()).collect()
    }

    /// Processes, mounts and cgroups of this Engine.
    pub fn traces(&self) -> Vec<String> {
        let processes = self
            .processes()
            .into_iter()
            .map(|pid| format!("process {pid}"));
        let mounts = self
            .mounts()
            .into_iter()
            .map(|mount| format!("mount {mount}"));
        let cgroups = self.cgroups().into_iter();
        let cgroups = cgroups.map(|dir| format!("cgroup {}", dir.display()));
        processes.chain(mounts).chain(cgroups).collect()
    }

    fn signal(&self, signal: Signal) {
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Kills all processes in the Engine's cgroups; only containers run in
    /// these.
    fn kill_containers(&self) {
        for dir in self.cgroups() {
            for dir in sub_dirs(&dir) {
                let processes = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                for pid in processes.lines().filter_map(|line| line.parse().ok()) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
    }

    /// Ends the Engine and removes its mounts and cgroups. Can be called at any
    /// moment.
    fn clear(&mut self) {
        self.kill_containers();
        if let Some(mut daemon) = self.daemon.take() {
            // The daemon ends its containerd, and containerd ends the shims.
            let _ = kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM);
            self.wait_for_the_end(Duration::from_secs(10));
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for _ in 0..3 {
            self.signal(Signal::SIGKILL);
            self.kill_containers();
            if self.wait_for_the_end(Duration::from_secs(3)) {
                break;
            }
        }
        let _ = self.network.kill();
        let _ = self.network.wait();
        for mount in self.mounts() {
            output(Command::new("umount").arg("--lazy").arg(mount));
        }
        let began = Instant::now();
        while !self.cgroups().is_empty() && began.elapsed() < Duration::from_secs(5) {
            for dir in self.cgroups() {
                // The deepest comes first, because only an empty cgroup can be
                // removed.
                for dir in sub_dirs(&dir).iter().rev() {
                    let _ = fs::remove_dir(dir);
                }
            }
        }
    }
}

/// A directory and all below it, parents first.
fn sub_dirs(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    for item in fs::read_dir(dir).into_iter().flatten().flatten() {
        if item.path().is_dir() {
            all.extend(sub_dirs(&item.path()));
        }
    }
    all
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.clear();
        let traces = self.traces();
        if !traces.is_empty() {
            let _ = writeln!(std::io::stderr(), "left behind: {traces:#?}");
            assert!(std::thread::panicking(), "the Engine left something behind");
        }
    }
}
