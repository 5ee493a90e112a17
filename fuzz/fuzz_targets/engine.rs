//! Whatever answers at the Engine's socket: there is a list of containers or an error,
//! soon. Compose's output is read likewise.
#![no_main]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::{LazyLock, Mutex};
use std::thread;

use docker_stack_backup::engine::{ComposeConfig, Engine};
use libfuzzer_sys::fuzz_target;

/// What is answered to each request.
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static ENGINE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let socket = place.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    // SAFETY: no other thread runs yet that reads the environment.
    unsafe { std::env::set_var("DOCKER_HOST", format!("unix://{}", socket.display())) };
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(&ANSWER.lock().unwrap());
        }
    });
    place
});

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&ENGINE);
    *ANSWER.lock().unwrap() = bytes.to_vec();
    let _ = Engine::DEFAULT.containers();
    if let Ok(json) = serde_json::from_slice(bytes) {
        let _ = ComposeConfig::from_json(json);
    }
});
