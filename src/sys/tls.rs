//! TLS as a client: whom to trust, and errors that a person understands.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// Returns the settings of a client that trusts the system's certificates and those in
/// `ca_file`.
///
/// # Errors
/// When the file cannot be read or has no certificate, or when there is no certificate
/// to trust at all.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let listed = match ca_file {
        Some(path) => read_certificates(path)
            .with_context(|| format!("cannot read caFile {}", path.display()))?,
        None => Vec::new(),
    };
    let provider = Arc::new(ring::default_provider());
    let trust = Trust::new(listed, &provider)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("cannot set up TLS")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = fs::read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| anyhow::anyhow!("{error}"))
        .context("cannot parse the certificates")?;
    ensure!(!certificates.is_empty(), "no PEM certificate in it");
    Ok(certificates)
}

/// Trusts a server whose certificate is listed itself, or signed by an authority. The
/// library has no way to trust a certificate of one's own, which most tools make
/// as if it were an authority's.
#[derive(Debug)]
struct Trust {
    listed: Vec<CertificateDer<'static>>,
    by_authority: Arc<WebPkiServerVerifier>,
}

impl Trust {
    fn new(listed: Vec<CertificateDer<'static>>, provider: &Arc<CryptoProvider>) -> Result<Trust> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(listed.iter().cloned());
        ensure!(
            !roots.is_empty(),
            "this system has no certificates to trust; install ca-certificates, or set caFile"
        );
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        Ok(Trust {
            listed,
            by_authority: verifier.build().context("cannot set up TLS")?,
        })
    }
}

impl ServerCertVerifier for Trust {
    /// A listed certificate is the server's identity, whatever name and dates are in it.
    /// The handshake proves that the server has its key.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.listed.iter().any(|listed| listed == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.by_authority.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

/// Explains a TLS error, and says what to do about it.
pub fn explain(error: &Error) -> String {
    let meaning = match error {
        Error::InvalidCertificate(error) => certificate_meaning(error),
        Error::InvalidMessage(_) => Some("the server does not speak TLS on this port"),
        _ => None,
    };
    match meaning {
        Some(meaning) => format!("{meaning} ({error})"),
        None => format!("TLS: {error}"),
    }
}

fn certificate_meaning(error: &CertificateError) -> Option<&'static str> {
    match error {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some("the server's certificate is for another name; use a name in it")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Some("the server's certificate has expired")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some("the server's certificate is not valid yet; check this host's clock")
        }
        CertificateError::UnknownIssuer | CertificateError::Other(_) => Some(
            "the server's certificate is not trusted; name the file with it, or with its CA, \
             in caFile",
        ),
        _ => None,
    }
}
