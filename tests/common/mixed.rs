//! A stack with data in every place where services keep it, and one archive of
//! it. All data carries the name of its generation, so a mix of generations
//! shows.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::json;

use super::{Ended, Place, Stack, output};

pub const RUNNING: [&str; 1] = ["forge:running"];

/// Parts that have all data of the stack, each named in another way.
pub const PARTS: [&str; 6] = [
    "conf/*.ini",
    "inside/generation",
    "data",
    "forge:/outside",
    "repos",
    "/etc/secret",
];

pub struct Mixed {
    pub stack: Stack,
    pub place: Place,
}

impl Mixed {
    /// Starts the stack with data of the generation "archived", and archives
    /// it.
    pub fn new() -> Mixed {
        let place = Place::new();
        let stack = place.stack("mixed");
        let outside = place.path("outside");
        fs::write(
            stack.dir.join(".env"),
            format!("OUTSIDE={}\n", outside.display()),
        )
        .unwrap();
        let binds = json!([outside.join("dir"), outside.join("secret")]);
        let options =
            json!({"name": stack.name, "includeBinds": binds, "includeVolumes": ["repos"]});
        place.config(json!([options]), json!({}));
        let mixed = Mixed { stack, place };
        mixed.make();
        mixed.place.run().expect_status(0);
        mixed
    }

    /// Creates the data of the generation "archived" and starts the stack.
    fn make(&self) {
        for dir in ["conf", "inside"] {
            fs::create_dir_all(self.stack.dir.join(dir)).unwrap();
        }
        for dir in ["dir", "repos"] {
            fs::create_dir_all(self.place.path("outside").join(dir)).unwrap();
        }
        output(&mut self.stack.compose(&["create"])).expect_status(0);
        self.write("archived");
        let data = self.stack.mountpoint("data");
        fs::write(data.join("original"), "one file, two names").unwrap();
        fs::hard_link(data.join("original"), data.join("other name")).unwrap();
        self.stack.up();
    }

    fn generation_files(&self) -> Vec<PathBuf> {
        let outside = self.place.path("outside");
        let mut files = vec![
            self.stack.dir.join("conf/app.ini"),
            self.stack.dir.join("inside/generation"),
            outside.join("dir/generation"),
            outside.join("repos/generation"),
            outside.join("secret"),
        ];
        let data = self.volumes().contains("_data");
        files.extend(data.then(|| self.stack.mountpoint("data").join("generation")));
        files
    }

    /// The generation of each tree; `None` for a tree that does not exist.
    pub fn generation_of_each(&self) -> Vec<Option<String>> {
        let files = self.generation_files().into_iter();
        files.map(|file| fs::read_to_string(file).ok()).collect()
    }

    fn write(&self, generation: &str) {
        for file in self.generation_files() {
            fs::write(file, format!("{generation}\n")).unwrap();
        }
    }

    /// Changes the data to the generation "changed", which also adds and
    /// removes files.
    pub fn change(&self) {
        self.write("changed");
        let data = self.stack.mountpoint("data");
        fs::write(data.join("added"), "").unwrap();
        let _ = fs::remove_file(data.join("other name"));
        let ids = output(&mut self.stack.compose(&["restart", "--timeout", "1"]));
        ids.expect_status(0);
    }

    /// Removes the stack and its data, including the data outside of its
    /// directory.
    pub fn remove(&self) {
        self.stack.remove();
        fs::remove_dir_all(self.place.path("outside")).unwrap();
        fs::create_dir(self.place.path("outside")).unwrap();
    }

    /// Every generation found on disk, in the running service, and in the data
    /// that the service read when it started.
    pub fn generations(&self) -> Vec<String> {
        let mut all: Vec<String> = self.generation_of_each().into_iter().flatten().collect();
        if !self.stack.running().is_empty() {
            let all_mounts = "cat /etc/app.ini /*/generation /etc/secret /seen";
            all.push(self.stack.exec("forge", &["sh", "-c", all_mounts]));
        }
        let mut words: Vec<String> = all
            .iter()
            .flat_map(|text| text.lines().map(str::to_owned))
            .collect();
        words.sort();
        words.dedup();
        words
    }

    /// Checks that all data is of the generation "archived" and the service
    /// runs.
    #[track_caller]
    pub fn assert_archived(&self, point: &str) {
        assert_eq!(self.generations(), ["archived"], "{point}");
        assert_eq!(self.generation_files().len(), 6, "{point}");
        assert_eq!(self.stack.running(), RUNNING, "{point}");
        let data = self.stack.mountpoint("data");
        assert!(!data.join("added").exists(), "{point}");
        let [one, other] = ["original", "other name"].map(|name| {
            let metadata = fs::metadata(data.join(name)).unwrap();
            (metadata.ino(), metadata.nlink())
        });
        assert_eq!((one, one.1), (other, 2), "{point}");
    }

    #[track_caller]
    pub fn assert_changed(&self, point: &str) {
        assert_eq!(self.generations(), ["changed"], "{point}");
        assert_eq!(self.stack.running(), RUNNING, "{point}");
        assert!(self.stack.mountpoint("data").join("added").exists());
    }

    /// Checks that no container, no volume and no data is left.
    #[track_caller]
    pub fn assert_gone(&self, point: &str) {
        assert_eq!(self.generations(), [""; 0], "{point}");
        assert_eq!(self.stack.states(), [""; 0], "{point}");
        assert_eq!(self.volumes(), "", "{point}");
        assert!(!self.stack.dir.exists(), "{point}");
        let outside = fs::read_dir(self.place.path("outside")).unwrap();
        assert_eq!(outside.count(), 0, "{point}");
    }

    pub fn restore(&self, options: &[&str]) -> Ended {
        let what = [&["restore", self.stack.name.as_str()], options].concat();
        output(&mut self.place.program(&what))
    }

    /// The trees that a restore replaces.
    pub fn trees(&self) -> Vec<PathBuf> {
        let outside = self.place.path("outside");
        let mut trees = vec![
            self.stack.dir.clone(),
            outside.join("dir"),
            outside.join("repos"),
            outside.join("secret"),
        ];
        let data = self.volumes().contains("_data");
        trees.extend(data.then(|| self.stack.mountpoint("data")));
        trees
    }

    /// Names of the project's volumes.
    fn volumes(&self) -> String {
        let filter = format!("label=com.docker.compose.project={}", self.stack.project);
        let mut list = self.stack.docker();
        let list = list.args(["volume", "ls", "--quiet", "--filter", &filter]);
        output(list).expect_status(0).stdout
    }
}
