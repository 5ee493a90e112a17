//! A shop: PostgreSQL and Redis in volumes, uploads in a bind, and one archive
//! of it.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::{Ended, Place, Stack, output};

/// The services that run, and ran when it was archived.
pub const RUNNING: [&str; 3] = ["app:running", "cache:running", "db:running"];

pub struct Shop {
    pub stack: Stack,
    pub place: Place,
}

impl Shop {
    /// A shop with 1000 orders and 42 visitors.
    pub fn new() -> Shop {
        let place = Place::new();
        let stack = place.stack("shop");
        // After interpolation, `$$` must be a single dollar sign.
        let env = format!("GREETING=it costs $$5\nAPP_CONTAINER={}-app\n", stack.name);
        fs::write(stack.dir.join(".env"), env).unwrap();
        output(&mut stack.compose(&["up", "--detach", "--wait", "db", "cache", "app"]))
            .expect_status(0);
        place.config(json!([{"name": stack.name}]), json!({}));
        let shop = Shop { stack, place };
        shop.sql(
            "CREATE TABLE orders (id int); INSERT INTO orders SELECT generate_series(1, 1000)",
        );
        shop.redis(&["set", "visitors", "42"]);
        shop.place.run().expect_status(0);
        shop
    }

    pub fn greeting(&self) -> String {
        self.stack.exec("app", &["sh", "-c", "echo \"$GREETING\""])
    }

    pub fn sql(&self, statement: &str) -> String {
        self.stack
            .exec("db", &["psql", "-U", "postgres", "-qtAc", statement])
    }

    pub fn redis(&self, command: &[&str]) -> String {
        self.stack
            .exec("cache", &[&["redis-cli"], command].concat())
    }

    pub fn spoil(&self) {
        self.sql("DROP TABLE orders");
        self.redis(&["del", "visitors"]);
        fs::remove_file(self.stack.dir.join("uploads/picture")).unwrap();
        fs::write(self.stack.dir.join("uploads/new"), "new").unwrap();
    }

    pub fn is_spoilt(&self) -> bool {
        self.redis(&["exists", "visitors"]) == "0"
            && self.sql("SELECT count(*) FROM pg_tables WHERE tablename = 'orders'") == "0"
            && self.stack.dir.join("uploads/new").exists()
            && !self.stack.dir.join("uploads/picture").exists()
    }

    pub fn is_restored(&self) -> bool {
        self.redis(&["get", "visitors"]) == "42"
            && self.sql("SELECT count(*) FROM pg_tables WHERE tablename = 'orders'") == "1"
            && self.sql("SELECT sum(id) FROM orders") == "500500"
            && self.stack.read("uploads/picture") == "first picture\n"
            && !self.stack.dir.join("uploads/new").exists()
    }

    pub fn restore(&self, options: &[&str]) -> Ended {
        let what = [&["restore", self.stack.name.as_str()], options].concat();
        output(&mut self.place.program(&what))
    }

    pub fn running(&self) -> Vec<String> {
        self.stack.running()
    }

    /// The directories that a restore replaces.
    pub fn trees(&self) -> Vec<PathBuf> {
        let volumes = ["db", "cache"].map(|volume| self.stack.mountpoint(volume));
        volumes
            .into_iter()
            .chain([self.stack.dir.clone()])
            .collect()
    }

    #[track_caller]
    pub fn assert_no_traces(&self, point: &str) {
        self.place.assert_no_restore(&self.trees(), point);
    }
}
