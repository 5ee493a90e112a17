//! A stack that is updated to another image of the same name, and how whole it is.

use std::fs;

use serde_json::json;

use super::{Ended, Place, Stack, docker, output, succeed};

const BASE: &str = "docker-stack-backup/busybox:1";

pub struct Guarded {
    pub stack: Stack,
    pub place: Place,
    /// What the compose file calls its image.
    pub name: String,
    versions: Vec<String>,
}

impl Guarded {
    /// Starts the stack with the version `one`. There are images of these versions.
    pub fn new(versions: &[&str]) -> Guarded {
        Guarded::in_place(Place::new(), versions)
    }

    pub fn in_place(place: Place, versions: &[&str]) -> Guarded {
        let stack = place.stack("guarded");
        let name = format!("{}:latest", stack.name);
        fs::create_dir(stack.dir.join("conf")).unwrap();
        fs::write(stack.dir.join("conf/version"), "one").unwrap();
        fs::write(stack.dir.join(".env"), format!("IMAGE={name}\n")).unwrap();
        let base = docker(["create", BASE, "true"]);
        for version in versions {
            let change = format!("ENV VERSION={version}");
            let tag = format!("{}:{version}", stack.name);
            docker(["commit", "--change", &change, &base, &tag]);
        }
        docker(["rm", &base]);
        docker(["tag", &format!("{}:one", stack.name), &name]);
        place.config(json!([stack.name]), json!({}));
        let up = output(&mut stack.compose(&["up", "--detach"]));
        up.expect_status(0);
        let versions = versions.iter().map(|version| (*version).to_owned());
        let versions = versions.collect();
        let guarded = Guarded {
            stack,
            place,
            name,
            versions,
        };
        super::wait_until("the stack is healthy", || guarded.health() == "healthy");
        guarded
    }

    fn health(&self) -> String {
        let health = "{{.State.Health.Status}}";
        docker(["inspect", "--format", health, &self.stack.container("app")])
    }

    /// A shell command that updates to a version, with `more` behind it. It is not seen by
    /// a spy.
    pub fn update_to(&self, version: &str, more: &str) -> String {
        let real = succeed("sh", ["-c", "command -v docker"]);
        let export = |name: &str| match std::env::var(name) {
            Ok(value) => format!("export {name}={value}"),
            Err(_) => format!("unset {name}"),
        };
        let [host, config] = ["DOCKER_HOST", "DOCKER_CONFIG"].map(export);
        format!(
            "{host}; {config}; set -e; echo -n {version} >conf/version; {real} tag {}:{version} {}; \
             {real} compose up --detach; {more}",
            self.stack.name, self.name
        )
    }

    /// The arguments of `guard` with a shell command.
    pub fn args<'a>(&'a self, options: &[&'a str], command: &'a str) -> Vec<&'a str> {
        let guard = ["guard", &self.stack.name, "--allow-holes"];
        [&guard[..], options, &["--", "sh", "-c", command]].concat()
    }

    pub fn guard(&self, options: &[&str], command: &str) -> Ended {
        let args = self.args(&[options, &["--json"]].concat(), command);
        output(&mut self.place.program(&args))
    }

    /// The image of the application's container, if it has one.
    fn image_that_runs(&self) -> String {
        let containers = self.stack.container("app");
        let inspect = ["inspect", "--format", "{{.Image}}"];
        match containers.lines().next() {
            Some(first) => docker(inspect.into_iter().chain([first])),
            None => String::new(),
        }
    }

    pub fn image_id(&self, name: &str) -> String {
        docker(["image", "inspect", "--format", "{{.Id}}", name])
    }

    /// The versions of all that an update changes: the container, the name of its image,
    /// the data in the volume and in the directory.
    pub fn generations(&self) -> Vec<String> {
        let version = |of: &str| {
            self.versions
                .iter()
                .find(|version| self.image_id(&format!("{}:{version}", self.stack.name)) == of)
        };
        let known = |of: &str| version(of).cloned().unwrap_or_else(|| of.to_owned());
        let data = self.stack.mountpoint("data").join("version");
        let mut all = vec![
            known(&self.image_that_runs()),
            known(&self.image_id(&self.name)),
            fs::read_to_string(data).unwrap().trim().to_owned(),
            self.stack.read("conf/version"),
        ];
        all.dedup();
        all
    }

    /// Checks that the stack is up, whole, and of one version, which is returned; and that
    /// nothing is left of an update.
    #[track_caller]
    pub fn assert_whole(&self, point: &str) -> String {
        let generations = self.generations();
        assert_eq!(generations.len(), 1, "{point}: {generations:?}");
        assert_eq!(self.stack.running(), ["app:running"], "{point}");
        assert_eq!(self.health(), "healthy", "{point}");
        self.place.assert_no_restore(
            &[self.stack.dir.clone(), self.stack.mountpoint("data")],
            point,
        );
        assert_eq!(self.journalled(), [""; 0], "{point}");
        assert_eq!(self.held(), "", "{point}");
        generations[0].clone()
    }

    pub fn journalled(&self) -> Vec<String> {
        let mut entries = super::names_in(&self.place.state().join("guard"));
        // A half-written entry does not count: nothing was done yet.
        entries.retain(|name| name.ends_with(".json"));
        entries
    }

    /// Names by which images of this stack are held.
    pub fn held(&self) -> String {
        let images = self.versions.iter();
        let images = images.map(|version| format!("{}:{version}", self.stack.name));
        let inspect = ["image", "inspect", "--format", "{{.RepoTags}}"].map(str::to_owned);
        let names = docker(inspect.into_iter().chain(images));
        let held = names.split(['[', ' ', ']', '\n']);
        let held = held.filter(|name| name.starts_with("docker-stack-backup-guard"));
        held.collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let versions = self.versions.iter();
        let names = versions.map(|version| format!("{}:{version}", self.stack.name));
        let names: Vec<String> = names.chain([self.name.clone()]).collect();
        let remove = ["image", "rm", "--force"].map(str::to_owned);
        let mut command = std::process::Command::new("docker");
        // Containers are removed with the stack; until then the images stay for them.
        let _ = command.args(remove.into_iter().chain(names)).output();
    }
}
