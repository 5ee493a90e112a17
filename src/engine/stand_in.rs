//! Handing the anonymous volumes of a removed container on to the one that Compose
//! makes in its place.

use anyhow::{Context, Result};

use super::address::Engine;
use super::command::{docker, output_lines};

/// Label of a stand-in. Its value is the name.
pub(super) const STAND_IN_LABEL: &str = "docker-stack-backup.stand-in";

/// A container that is never started. Compose takes it for an outdated container of
/// the service, replaces it, and hands its anonymous volumes on.
#[derive(Debug)]
pub struct StandIn<'a> {
    pub project: &'a str,
    pub service: &'a str,
    pub number: u32,
    pub name: &'a str,
    pub image_id: &'a str,
    /// Names of volumes, and where they are mounted.
    pub volumes: Vec<(&'a str, &'a str)>,
}

impl StandIn<'_> {
    /// Creates the container, in place of one that a killed program has left.
    pub fn create(&self, engine: &Engine) -> Result<()> {
        let filter = format!("label={STAND_IN_LABEL}={}", self.name);
        let list = ["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter];
        for id in output_lines(&docker(engine, list).output()?.check()?) {
            docker(engine, ["rm", "--force", &id]).output()?.check()?;
        }
        docker(engine, self.args())
            .output()?
            .check()
            .map(drop)
            .with_context(|| format!("cannot hand the anonymous volumes of {} on", self.name))
    }

    fn args(&self) -> Vec<String> {
        let compose = |label: &str, value: &str| format!("com.docker.compose.{label}={value}");
        let labels = [
            format!("{STAND_IN_LABEL}={}", self.name),
            compose("project", self.project),
            compose("service", self.service),
            compose("container-number", &self.number.to_string()),
            compose("oneoff", "False"),
            // No service has this hash, so the container is outdated.
            compose("config-hash", "stand-in"),
        ];
        let mut args = [
            "create",
            "--pull",
            "never",
            "--network",
            "none",
            "--name",
            self.name,
        ]
        .map(str::to_owned)
        .to_vec();
        for label in labels {
            args.extend(["--label".to_owned(), label]);
        }
        for (name, destination) in &self.volumes {
            let mount = format!("type=volume,source={name},target={destination}");
            args.extend(["--mount".to_owned(), mount]);
        }
        args.extend([self.image_id.to_owned(), "true".to_owned()]);
        args
    }
}
