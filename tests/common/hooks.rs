//! Hooks for a [`Scene`].

use serde_json::{Value, json};

use super::scene::Scene;

/// Configures the scene's stack with these hooks.
pub fn with_hooks(scene: &Scene, hooks: Vec<Value>) {
    let stack = json!({"name": scene.stack.name, "hooks": hooks});
    scene.place.config(json!([stack]), json!({}));
}

/// A hook that runs a script on the host.
pub fn host_hook(place: &str, script: &str, undo: Option<&str>) -> Value {
    let mut hook = json!({"when": place, "host": true, "command": ["sh", "-c", script]});
    if let Some(undo) = undo {
        hook["undo"] = json!(["sh", "-c", undo]);
    }
    hook
}

/// A hook that puts the service `app` into a maintenance mode, and takes it out again: a
/// file `data/flag` in the stack's directory.
pub fn flag_hook(place: &str) -> Value {
    json!({
        "when": place, "service": "app",
        "command": ["touch", "/data/flag"],
        "undo": ["rm", "-f", "/data/flag"],
    })
}
