//! Containers of the Engines of other stacks: they may write to a stack's data, too.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::config::plan::StackPlan;
use crate::engine::{Container, Engine};
use crate::sys::threads::spawn_or_run;

/// How long another Engine may take to answer a request.
const LIMIT: Duration = Duration::from_secs(5);
/// The same while the stack is down. The Engine has answered right before the stop.
const LIMIT_WHILE_DOWN: Duration = Duration::from_secs(2);

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
        Neighbours::within(LIMIT, stack)
    }

    /// Does the same while the stack is down, and waits less long.
    pub fn while_down(stack: &StackPlan) -> Neighbours {
        Neighbours::within(LIMIT_WHILE_DOWN, stack)
    }

    /// Asks all of them at the same time, so that several that hang cost no more than one.
    fn within(limit: Duration, stack: &StackPlan) -> Neighbours {
        let podman = Engine::system_podman();
        // Beside units it is asked anyway.
        let asks_podman = stack.is_of_units() && stack.compose.engine.is_default();
        let engines = stack.other_engines.iter();
        // Containers of another machine write nothing here.
        let engines = engines.filter(|engine| engine.socket().is_some());
        let engines = engines.filter(|engine| !(asks_podman && engine.is_same(&podman)));
        let answers: Vec<_> = thread::scope(|scope| {
            let asked = engines.map(|engine| {
                let span = tracing::Span::current();
                let ask = move || span.in_scope(|| engine.containers_within(limit));
                (engine, spawn_or_run(scope, ask))
            });
            let asked: Vec<_> = asked.collect();
            let answers = asked.into_iter();
            answers
                .map(|(engine, asked)| (engine, asked.join()))
                .collect()
        });
        let mut found = Neighbours::default();
        for (engine, answer) in answers {
            found.add(engine, answer);
        }
        found
    }

    /// Whether all of them have answered.
    pub fn have_answered(&self) -> bool {
        self.warnings.is_empty()
    }

    fn add(&mut self, engine: &Engine, answer: Result<Vec<Container>>) {
        match answer {
            Ok(containers) if engine.is_of_root() => self.containers.extend(containers),
            Ok(containers) => self.of_users.extend(containers),
            Err(error) => self.warnings.push(format!(
                "cannot ask the Engine of another stack whether its containers write to the \
                 data: {error:#}"
            )),
        }
    }
}
