//! Servers that misbehave.

use std::process::Command;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

/// Tells of a failure on a channel with this server, and returns the error. The message
/// stays queued.
#[track_caller]
fn error_of(server: &Server) -> String {
    error_with(&url(server), &json!({}))
}

#[track_caller]
fn error_with(text: &str, more: &Value) -> String {
    let place = Place::new();
    let channel = place.channel("ntfy", text, more);
    let plan = place.plan(&json!([channel]));
    let begun = Instant::now();
    let outcomes = tell(&plan, &bad());
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(outcomes[0].status, ChannelStatus::Waiting);
    assert_eq!(place.queued(), ["0000000001-ntfy"]);
    let error = outcomes[0].error.clone().unwrap();
    assert!(!error.contains(SECRET), "{error}");
    let queued = fs::read_to_string(place.state_dir().join("news/0000000001-ntfy.json")).unwrap();
    assert!(
        !queued.contains(SECRET) && queued.contains("the disk is full"),
        "{queued}"
    );
    error
}

#[test]
fn a_refusal_is_told_with_the_answer_but_without_the_address() {
    for (status, expected) in [
        ("500 Oops", "the server said 500 Internal Server Error: ok"),
        ("404 No", "the server said 404 Not Found: ok"),
        ("429 Slow down", "the server said 429 Too Many Requests: ok"),
    ] {
        let server = serve(move |_| answer(status));
        let error = error_of(&server);
        assert_eq!(
            error,
            format!("cannot reach http://127.0.0.1:{}: {expected}", server.port)
        );
    }
    // A server that quotes the address.
    let server = serve(|_| {
        let text = format!("no topic {SECRET} here, see /{SECRET}?x");
        format!(
            "HTTP/1.1 404 No\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        )
    });
    assert!(error_of(&server).contains("no topic *** here, see ***?x"));
}

#[test]
fn a_server_that_hangs_or_dribbles_is_given_up() {
    let server = serve_streams(|_, stream, _| {
        thread::spawn(move || {
            sleep(Duration::from_secs(60));
            drop(stream);
        });
    });
    let error = error_with(&url(&server), &json!({"timeout": 1}));
    assert!(error.ends_with(": no answer within 1 s"), "{error}");
    let server = serve_streams(|_, mut stream, _| {
        thread::spawn(move || {
            for byte in b"HTTP/1.1 2".iter().cycle() {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                sleep(Duration::from_millis(200));
            }
        });
    });
    let error = error_with(&url(&server), &json!({"timeout": 1}));
    assert!(error.ends_with(": no answer within 1 s"), "{error}");
}

#[test]
fn an_answer_without_an_end_is_a_success() {
    let server = serve_streams(|_, mut stream, _| {
        thread::spawn(move || {
            read_request(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nok");
            sleep(Duration::from_secs(60));
        });
    });
    let place = Place::new();
    let channel = place.channel("ntfy", &url(&server), &json!({}));
    assert_sent(&tell(&place.plan(&json!([channel])), &bad()));
}

#[test]
fn what_is_no_http_is_refused_and_bounded() {
    let garbage = serve(|_| "220 mail ready\r\n\r\n".to_owned());
    let error = error_of(&garbage);
    assert!(
        error.ends_with("the server's answer is not one of HTTP"),
        "{error}"
    );
    // A head and a body without end.
    let endless = serve_streams(|_, mut stream, _| {
        read_request(&mut stream);
        let line = [b"X-Long: ".as_slice(), &[b'x'; 60_000], b"\r\n"].concat();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(&line).is_ok() {}
    });
    error_of(&endless);
    let endless = serve_streams(|_, mut stream, _| {
        read_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 500 No\r\n\r\n");
        while stream.write_all(&[b'y'; 60_000]).is_ok() {}
    });
    let error = error_of(&endless);
    assert!(error.contains("yyy") && error.len() < 500, "{error}");
}

#[test]
fn a_redirect_is_not_followed() {
    let other = serve(ok);
    let target = format!("http://localhost:{}/{SECRET}", other.port);
    let server = serve(move |_| {
        format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n")
    });
    let error = error_of(&server);
    assert!(
        error.contains("the server redirects to localhost (302 Found), which is not followed"),
        "{error}"
    );
    assert!(server.requests.try_recv().is_ok());
    assert!(other.requests.try_recv().is_err());
}

#[test]
fn a_server_that_is_away_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = error_with(&format!("http://127.0.0.1:{port}/{SECRET}"), &json!({}));
    assert!(error.to_lowercase().contains("refused"), "{error}");
    let error = error_with(
        &format!("https://no-such-host.invalid/{SECRET}"),
        &json!({"timeout": 5}),
    );
    assert!(
        error.starts_with("cannot reach https://no-such-host.invalid: "),
        "{error}"
    );
}

#[test]
fn a_server_that_comes_back_gets_the_message_in_the_same_run() {
    // The second one is never waited for, but makes time for a busy machine.
    const SHORT: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(60)];
    let server = serve(|number| match number {
        0 => answer("503 Busy"),
        _ => answer("200 OK"),
    });
    let place = Place::new();
    let channel = place.channel("ntfy", &url(&server), &json!({}));
    let plan = place.plan(&json!([channel]));
    let begun = Instant::now();
    assert_sent(&prepare(&plan, &News::Run(&bad())).send_with(&SHORT));
    assert!(begun.elapsed() >= SHORT[0]);
    assert_eq!(server.requests.try_iter().count(), 2);
    // The control: what will not change is not tried again.
    let server = serve(|_| answer("403 No"));
    let channel = place.channel("ntfy", &url(&server), &json!({"when": "always"}));
    let plan = place.plan(&json!([channel]));
    let outcomes = prepare(&plan, &News::Run(&bad())).send_with(&SHORT);
    assert_eq!(outcomes[0].status, ChannelStatus::Waiting);
    assert_eq!(server.requests.try_iter().count(), 1);
}

/// Starts a server with a certificate of its own for `localhost`, made as people make it.
fn serve_tls(dir: &Path) -> Server {
    let made = Command::new("openssl")
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30".split(' '))
        .args("-subj /CN=nas -keyout own.key -out own.pem".split(' '))
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let certificate = CertificateDer::from_pem_file(dir.join("own.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("own.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    serve_streams(move |_, stream, sender| {
        let connection = ServerConnection::new(config.clone()).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        if let Some(got) = read_request(&mut stream) {
            sender.send(got).unwrap();
            let _ = stream.write_all(answer("200 OK").as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    })
}

#[test]
fn a_certificate_in_ca_file_is_trusted_and_no_other() {
    let place = Place::new();
    let dir = tempfile::tempdir().unwrap();
    let server = serve_tls(dir.path());
    let other = tempfile::tempdir().unwrap();
    drop(serve_tls(other.path()));
    let text = format!("https://localhost:{}/{SECRET}", server.port);
    for more in [json!({}), json!({"caFile": other.path().join("own.pem")})] {
        let error = error_with(&text, &more);
        assert!(
            error.contains("the server's certificate is not trusted"),
            "{error}"
        );
    }
    let more = json!({"caFile": dir.path().join("own.pem")});
    let channel = place.channel("ntfy", &text, &more);
    assert_sent(&tell(&place.plan(&json!([channel])), &bad()));
    assert_eq!(
        server.requests.recv().unwrap().line,
        format!("POST /{SECRET}")
    );
    // A server that does not speak TLS.
    let plain = serve_streams(|_, mut stream, _| {
        let _ = stream.write_all(answer("400 Bad Request").as_bytes());
        let _ = stream.read(&mut [0; 1024]);
    });
    let error = error_with(
        &format!("https://localhost:{}/{SECRET}", plain.port),
        &json!({}),
    );
    assert!(error.contains("does not speak TLS on this port"), "{error}");
}

#[test]
fn an_address_that_cannot_be_used_is_explained_without_showing_it() {
    for (text, expected) in [
        (
            "t0ps3cret-topic",
            "its first line does not begin with https:// or http://",
        ),
        (
            "ftp://host/t0ps3cret-topic",
            "its first line does not begin with https:// or http://",
        ),
        ("https:///t0ps3cret-topic", "its first line is not a URL"),
        (
            "https://host/x\nt0ps3cret-topic",
            "line 2 is not a header field, NAME: VALUE",
        ),
        (
            "https://host/x\nA B: t0ps3cret-topic",
            "the address or its header fields are not valid",
        ),
        ("", "it is empty"),
    ] {
        let error = error_with(text, &json!({}));
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_channel_that_hangs_before_it_is_reached_ends_a_test_of_all_channels() {
    let server = serve(|_| answer("200 OK"));
    let place = Place::new();
    let hangs = place.channel(
        "ntfy",
        &url(&server),
        &json!({"timeout": 1, "name": "hangs"}),
    );
    let works = place.channel("ntfy", &url(&server), &json!({"name": "works"}));
    let plan = place.plan(&json!([hangs, works]));
    let file = hangs["urlFile"].as_str().unwrap();
    fs::remove_file(file).unwrap();
    mkfifo(file, Mode::S_IRWXU).unwrap();
    let tested = test(&plan, None);
    let [(_, hanging), (_, working)] = &tested[..] else {
        panic!("{tested:?}")
    };
    let error = hanging.as_ref().unwrap_err().to_string();
    assert_eq!(error, "it was not done in time");
    assert!(working.is_ok(), "{working:?}");
}
