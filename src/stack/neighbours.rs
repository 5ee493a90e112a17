//! Containers of the Engines of other stacks: they may write to a stack's data, too.

use std::time::Duration;

use crate::config::plan::StackPlan;
use crate::engine::{Container, Engine};

/// How long another Engine may take to list its containers. A stack may be down
/// meanwhile.
const LIMIT: Duration = Duration::from_secs(5);

/// What the other Engines say.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// Containers of Engines of root.
    pub containers: Vec<Container>,
    /// Containers of Engines of users. What a user's Engine says must not keep another
    /// stack from being backed up.
    pub of_users: Vec<Container>,
    /// Why an Engine could not be asked.
    pub warnings: Vec<String>,
}

impl Neighbours {
    /// Asks the Engines of the other stacks.
    pub fn of(stack: &StackPlan) -> Neighbours {
        let mut found = Neighbours::default();
        let podman = Engine::system_podman();
        for engine in &stack.other_engines {
            // Beside units it is asked anyway.
            let is_own =
                stack.is_of_units() && stack.compose.engine.is_default() && engine.is_same(&podman);
            if !is_own {
                found.ask(engine);
            }
        }
        found
    }

    fn ask(&mut self, engine: &Engine) {
        if engine.socket().is_none() {
            // Containers of another machine write nothing here.
            return;
        }
        match engine.containers_within(LIMIT) {
            Ok(containers) if engine.is_of_root() => self.containers.extend(containers),
            Ok(containers) => self.of_users.extend(containers),
            Err(error) => self.warnings.push(format!(
                "cannot ask the Engine of another stack whether its containers write to the \
                 data: {error:#}"
            )),
        }
    }
}
