//! Key sets that issuers keep at a URL (JSON Web Key Sets, RFC 7517, section 5), fetched over HTTPS.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, header};
use serde_json::Value;
use url::{Host, Url};

/// How long a fetch may take.
const LONGEST: Duration = Duration::from_secs(10);

/// The most bytes that a key set may have.
const LARGEST: usize = 256 * 1_024;

/// Where a key set may be fetched from: nobody on the way may put keys of their own in its place.
pub(crate) fn address(text: &str) -> Result<Url> {
    let url = Url::parse(text).with_context(|| format!("`{text}` is no URL"))?;
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_here => Ok(url),
        _ => bail!("`{text}` does not begin with `https://`, and is not on this machine"),
    }
}

/// Fetches a key set. No redirect is followed: it would lead to keys that nobody has named.
pub(crate) fn fetch(url: &Url) -> Result<String> {
    let work = || -> Result<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(get(url.clone()))
    };
    // A thread of its own: within a runtime nobody may wait for another one.
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("the fetch panicked"))?
}

async fn get(url: Url) -> Result<String> {
    let client = Client::builder().timeout(LONGEST).redirect(Policy::none()).build()?;
    let mut response =
        client.get(url).header(header::ACCEPT, "application/jwk-set+json, application/json").send().await?;
    ensure!(response.status() == StatusCode::OK, "the answer is {}", response.status());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        ensure!(body.len() + chunk.len() <= LARGEST, "the answer has more than {LARGEST} bytes");
        body.extend_from_slice(&chunk);
    }
    let read: Value = serde_json::from_slice(&body).context("the answer is no JSON")?;
    ensure!(read.get("keys").is_some_and(Value::is_array), "the answer is no JSON Web Key Set: it has no `keys`");
    String::from_utf8(body).context("the answer is not UTF-8")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// What comes of a server's answer to one request.
    fn fetched(answer: String) -> Result<String, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = address(&format!("http://{}/keys", listener.local_addr().unwrap())).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4_096]);
            // Who has read enough hangs up.
            let _ = stream.write_all(answer.as_bytes());
        });
        let result = fetch(&url).map_err(|error| format!("{error:#}"));
        server.join().unwrap();
        result
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[test]
    fn only_https_is_fetched_and_what_is_on_this_machine() {
        for text in ["https://idp.example.com/keys", "http://127.0.0.1:8080/keys", "http://localhost/", "http://[::1]/"]
        {
            assert!(address(text).is_ok(), "{text}");
        }
        for text in
            ["http://idp.example.com/keys", "file:///etc/keys", "idp.example.com", "http://127.0.0.1.example.com/"]
        {
            let error = format!("{:#}", address(text).unwrap_err());
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn a_key_set_is_fetched_and_anything_else_is_an_error() {
        assert_eq!(fetched(ok(r#"{"keys":[]}"#)).unwrap(), r#"{"keys":[]}"#);
        let elsewhere = "HTTP/1.1 302 Found\r\nlocation: https://idp.example.com/\r\ncontent-length: 0\r\n\r\n";
        for (answer, reason) in [
            (elsewhere.to_owned(), "302"),
            ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned(), "503"),
            (ok("<html>"), "no JSON"),
            (ok("{}"), "no `keys`"),
            (ok(&format!("{{\"keys\":[\"{}\"]}}", "x".repeat(LARGEST))), "more than"),
        ] {
            let error = fetched(answer).unwrap_err();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
