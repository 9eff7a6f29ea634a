//! TLS of the gate: its own certificate, the names in clients' ones, and whom it trusts as a client.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use hyper_rustls::ConfigBuilderExt;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::config::ServerTls;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// How the gate answers handshakes. A certificate of the client's is verified where it has one.
pub(crate) fn server(tls: &ServerTls) -> Result<Arc<ServerConfig>> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider());
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| cannot_read(&tls.key, &error))?;
    let config = builder.with_single_cert(certificates(&tls.cert)?, key);
    Ok(Arc::new(config.with_context(|| format!("`{}` and `{}`", tls.cert.display(), tls.key.display()))?))
}

/// How a server is reached that has a certificate of this authority, or of one that the system trusts.
pub(crate) fn client(ca: Option<&Path>) -> Result<ClientConfig> {
    let Some(ca) = ca else {
        let roots = client_builder()?.with_native_roots();
        return Ok(roots.context("the system trusts nobody: name a file of certificates")?.with_no_client_auth());
    };
    client_of(roots(ca)?)
}

/// How a server is reached that has a certificate of one of these.
pub(crate) fn client_of(roots: RootCertStore) -> Result<ClientConfig> {
    Ok(client_builder()?.with_root_certificates(roots).with_no_client_auth())
}

fn client_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    Ok(ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?)
}

fn roots(path: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).with_context(|| format!("`{}`", path.display()))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| cannot_read(path, &error))?;
    ensure!(!certificates.is_empty(), "no certificate in `{}`", path.display());
    Ok(certificates)
}

fn cannot_read(path: &Path, error: &rustls::pki_types::pem::Error) -> anyhow::Error {
    anyhow!("cannot read `{}`: {error}", path.display())
}

/// The names of a certificate's `subjectAltName` (RFC 5280, 4.2.1.6) that are DNS names, URIs or mail addresses; none where
/// it cannot be read. That it is trusted was verified before.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some((_, SubjectAltName(names)))) = certificate.tbs_certificate().get_extension() else { return Vec::new() };
    let text = |name: &GeneralName| match name {
        GeneralName::DnsName(name) | GeneralName::UniformResourceIdentifier(name) | GeneralName::Rfc822Name(name) => {
            Some(name.as_str().to_owned())
        }
        _ => None,
    };
    names.iter().filter_map(text).collect()
}
