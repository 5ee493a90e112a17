//! Everything that is specific to Docker: the Engine and Compose. Containers,
//! volumes, images and a stack's resolved compose file come out as values; what
//! to do with them is decided elsewhere.
//!
//! What a backup asks of containers, volumes and images goes through the Engine's
//! socket where there is one. Everything else is done by the docker command.

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
mod http;
mod image;
mod isolation;
mod json;
mod lookup;
mod network;
mod parallel;
mod podman;
mod socket;
mod stand_in;
mod volume;

pub use command::{compose_plugin, set_compose_plugin, versions};
pub use compose::{
    ComposeProject, Existing, has_compose_file, is_default_compose_file, remove_project,
};
pub use compose_config::{ComposeConfig, ConfigService};
pub use container::{Container, Dependency, Health, LABEL_PREFIX, Mount, Status};
pub use control::{
    MadeWith, compose_containers, containers, containers_of, last_log_lines, made_with,
    needs_missing_container, needs_missing_network, needs_taken_address, pause, remove_containers,
    retry_while_unreachable, start, stop, unpause,
};
pub use error::{combine_errors, is_unreachable, was_refused};
pub use exec::{Exec, ExecOptions};
pub use image::Image;
pub use isolation::isolating_options;
pub use lookup::{images, project_volumes, volumes};
pub use network::{Endpoint, Network, connect, create_network, networks, remove_network};
pub use parallel::in_parallel;
pub use socket::{configured_socket, refuse_podman};
pub use stand_in::StandIn;
pub use volume::{Volume, create_volume, remove_volume};
