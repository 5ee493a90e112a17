//! Everything that is specific to Docker: Engines and Compose. Containers,
//! volumes, images and a stack's resolved compose file come out as values; what
//! to do with them is decided elsewhere.
//!
//! What a backup asks of containers, volumes and images goes through the Engine's
//! socket where there is one. Everything else is done by the docker command.
//!
//! An [`Engine`] is an address; each stack names its own. What was found at a socket
//! is kept for the process.

mod address;
mod api;
mod command;
mod compose;
mod compose_config;
mod compose_error;
mod container;
mod control;
mod error;
mod exec;
mod health;
mod http;
mod image;
mod isolation;
mod json;
mod lookup;
mod network;
mod owner;
mod parallel;
mod podman;
mod socket;
mod stand_in;
mod tag;
mod volume;

pub use address::Engine;
pub use command::{compose_plugin, set_compose_plugin};
pub use compose::{
    ComposeProject, DEFAULT_ENV_FILE, Existing, MAIN_COMPOSE_FILES, default_compose_files,
    has_compose_file, is_default_compose_file,
};
pub use compose_config::{ComposeConfig, ConfigService};
pub use container::{Container, Dependency, Health, LABEL_PREFIX, Mount, Status};
pub use control::{
    MadeWith, needs_missing_container, needs_missing_network, needs_taken_address,
    retry_while_unreachable,
};
pub use error::{combine_errors, is_unreachable, was_refused};
pub use exec::{Exec, ExecOptions};
pub use health::{CheckPace, HealthChecks};
pub use image::Image;
pub use network::{Endpoint, Network};
pub use parallel::in_parallel;
pub use stand_in::StandIn;
pub use volume::Volume;
