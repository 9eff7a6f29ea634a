//! Certificates: ours, and those of clients.

use std::fs;
use std::process::Command;

use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::super::client::Client;
use super::*;

/// Certificates of an authority, of the gate, of a client that it knows, and of one that has another name.
fn certificates(directory: &Path) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"));
    for (name, names) in [
        ("gate", "IP:127.0.0.1"),
        ("known", "URI:spiffe://example.com/proxies/one,DNS:proxy.example.com"),
        ("other", "URI:spiffe://example.com/proxies/two"),
    ] {
        fs::write(directory.join("extension"), format!("subjectAltName={names}")).unwrap();
        openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(&format!(
            "x509 -req -in {name}.csr -out {name}.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extension"
        ));
    }
}

/// How a client with a certificate of its own asks.
fn with_certificate(directory: &Path, name: &str) -> Http {
    let pem = |name: String| CertificateDer::from_pem_file(directory.join(name)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pem("ca.pem".to_owned())).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join(format!("{name}.key"))).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config =
        builder.with_root_certificates(roots).with_client_auth_cert(vec![pem(format!("{name}.pem"))], key).unwrap();
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().build();
    legacy::Client::builder(TokioExecutor::new()).build(connector)
}

#[tokio::test]
async fn a_certificate_by_one_of_its_names_or_a_token_lets_in() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let path = |name: &str| directory.path().join(name).display().to_string();
    let gate = format!(
        "tls = {{ cert = \"{}\", key = \"{}\", client_ca = \"{}\" }}\n[[gate.client]]\nname = \"proxy\"\n\
         certificate = \"spiffe://example.com/proxies/one\"\nagents = [\"*\"]\n",
        path("gate.pem"),
        path("gate.key"),
        path("ca.pem")
    );
    let stand = start(book(false), &gate, Box::new(trusting)).await;
    let asked = async |name: &str| {
        let uri = format!("https://{}/access/v1/evaluation", stand.address);
        let request = Request::post(uri).header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::from(lookup().to_string()))).unwrap();
        with_certificate(directory.path(), name).request(request).await.unwrap().status().as_u16()
    };
    assert_eq!(asked("known").await, 200);
    assert_eq!(asked("other").await, 401, "trusted, and nobody who may ask");
    let url = format!("https://{}", stand.address);
    let ca = directory.path().join("ca.pem");
    let by_token = Client::new(&url, Some(TOKEN), Some(&ca)).unwrap();
    assert_eq!(by_token.ask(&lookup()).await.unwrap()["decision"], true);
    let untrusting = Client::new(&url, Some(TOKEN), Some(&directory.path().join("other.pem"))).unwrap();
    assert!(format!("{:#}", untrusting.ask(&lookup()).await.unwrap_err()).contains("cannot be reached"));
    let plain = Client::new(&url.replace("https", "http"), Some(TOKEN), None).unwrap();
    assert!(tokio::time::timeout(LONG, plain.ask(&lookup())).await.unwrap().is_err(), "nothing without TLS");
    let told = Client::new("http://pdp.example.com", Some(TOKEN), None).unwrap_err().to_string();
    assert!(told.contains("only on this machine itself"), "no token in clear: {told}");
}

#[test]
fn certificates_that_cannot_be_used_are_named_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let path = |name: &str| directory.path().join(name).display().to_string();
    let faults = |cert: &str, key: &str| {
        let tls = format!("tls = {{ cert = \"{}\", key = \"{}\" }}", path(cert), path(key));
        super::super::check(&configured(&format!("[gate]\n{tls}\n{}", clients(directory.path())))).join("\n")
    };
    assert_eq!(faults("gate.pem", "gate.key"), "");
    assert!(faults("gate.pem", "known.key").contains("gate.pem"), "a key of another certificate");
    assert!(faults("no.pem", "gate.key").contains("no.pem"));
    assert!(faults("gate.key", "gate.key").contains("gate.key"));
}
