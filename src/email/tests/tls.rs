//! TLS with certificates of one's own, and what somebody puts in front of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

/// Makes a certificate as people make one: for another name, and like an authority's.
fn own_certificate(dir: &Path) -> Arc<ServerConfig> {
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
                     -subj /CN=nas -keyout own.key -out own.pem";
    let made = Command::new("openssl")
        .args(arguments.split_whitespace())
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
    Arc::new(config)
}

/// Answers every command well, until the connection ends. Returns the lines.
fn converse(stream: &mut (impl Read + Write)) -> Vec<String> {
    let mut lines = Vec::new();
    let mut reader = BufReader::new(stream);
    let mut in_body = false;
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|length| length > 0) {
        let text = line.trim_end().to_owned();
        line.clear();
        if in_body && text != "." {
            continue;
        }
        in_body = text == "DATA";
        let answer = match in_body {
            true => "354 go on\r\n",
            false => "250 ok\r\n",
        };
        lines.push(text);
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            break;
        }
        let _ = reader.get_mut().flush();
    }
    lines
}

/// Starts a server that upgrades by STARTTLS, and writes `injected` behind its reply to
/// that. Returns its port and the lines that it gets by TLS.
fn starttls(config: Arc<ServerConfig>, injected: &'static str) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, lines) = mpsc::channel();
    let serve = move |mut stream: TcpStream| -> Option<()> {
        stream.write_all(b"220 ready\r\n").ok()?;
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        stream
            .write_all(b"250-localhost\r\n250 STARTTLS\r\n")
            .ok()?;
        reader.read_line(&mut line).ok()?;
        let reply = format!("220 go on\r\n{injected}");
        stream.write_all(reply.as_bytes()).ok()?;
        let connection = ServerConnection::new(config.clone()).ok()?;
        let mut tls = StreamOwned::new(connection, stream);
        for line in converse(&mut tls) {
            let _ = sender.send(line);
        }
        Some(())
    };
    thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.unwrap());
        }
    });
    (port, lines)
}

fn try_send(
    port: u16,
    encryption: Encryption,
    ca_file: Option<PathBuf>,
) -> Result<(), Undelivered> {
    let config = Email {
        encryption,
        ca_file,
        timeout: 5,
        ..config("localhost", port)
    };
    send_with(&config, None, saying("subject", "body\n"))
}

#[test]
fn a_certificate_of_ones_own_is_trusted_if_ca_file_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = own_certificate(dir.path());
    let other = tempfile::tempdir().unwrap();
    own_certificate(other.path());
    let (port, lines) = starttls(server, "");
    let own = |dir: &Path| Some(dir.join("own.pem"));
    for ca_file in [None, own(other.path())] {
        let error = error_of(try_send(port, Encryption::Starttls, ca_file));
        assert!(
            error.contains("is not trusted; name the file with it"),
            "{error}"
        );
        assert_eq!(lines.try_iter().count(), 0, "nothing is sent to it");
    }
    try_send(port, Encryption::Starttls, own(dir.path())).unwrap();
    let lines: Vec<String> = lines.iter().take(5).collect();
    assert_eq!(lines[1], "MAIL FROM:<backup@example.org>");
    assert_eq!(lines[4], ".");
}

#[test]
fn replies_that_were_put_in_front_of_tls_end_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = own_certificate(dir.path());
    let ca_file = Some(dir.path().join("own.pem"));
    let (port, lines) = starttls(server.clone(), "250 fine\r\n250 fine\r\n");
    let error = error_of(try_send(port, Encryption::Starttls, ca_file.clone()));
    assert!(
        error.contains("cannot start TLS: the server sent data before TLS began"),
        "{error}"
    );
    assert_eq!(lines.try_iter().count(), 0);
    // The control.
    let (port, _lines) = starttls(server, "");
    try_send(port, Encryption::Starttls, ca_file).unwrap();
}
