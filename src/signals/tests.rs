#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rdkafka::ClientConfig;
use serde_json::Value;
use tautline_detectors::statement::Says;

use super::*;
use crate::http;
use crate::status::Status;

const TOKEN: &str = "a token of Alertmanager's";

/// A webhook whose broker is away.
fn webhook() -> Webhook {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let token = write("token", TOKEN);
    let key = write("key", &Key::new("k-1", [7; 32]).private().to_string());
    let section = format!(
        "issuer = \"https://monitoring\"\ntopic = \"statements\"\ntoken = {{ file = \"{token}\" }}\n\
         key = {{ file = \"{key}\" }}\n"
    );
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", "127.0.0.1:1").set("message.timeout.ms", "100");
    Webhook::new(&toml::from_str(&section).unwrap(), config.create().unwrap()).unwrap()
}

fn alert(status: &str, labels: &Value) -> Value {
    json!({
        "status": status, "labels": labels, "annotations": {}, "startsAt": "2026-03-02T09:00:00.25Z",
        "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "8f1c",
    })
}

fn notification(alerts: &[Value]) -> String {
    json!({
        "version": "4", "groupKey": "{}", "truncatedAlerts": 0, "status": "firing", "receiver": "tautline",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://alertmanager", "alerts": alerts,
    })
    .to_string()
}

fn firing() -> Value {
    alert("firing", &json!({"alertname": "HighErrorRate", "agent": "restart-bot"}))
}

#[test]
fn an_alert_that_fires_and_names_an_agent_is_a_signal() {
    let webhook = webhook();
    let others = [
        alert("resolved", &json!({"alertname": "HighErrorRate", "agent": "restart-bot"})),
        alert("firing", &json!({"alertname": "DiskFull"})),
        alert("firing", &json!({"alertname": "DiskFull", "agent": ""})),
    ];
    let body = notification(&[&[firing()][..], &others].concat());
    let signals = webhook.signals(body.as_bytes()).unwrap();
    assert_eq!(signals.len(), 1);
    let claims = Token::read(&signals[0].statement).unwrap().claims;
    assert_eq!((claims.iss.as_str(), claims.agent.as_str()), ("https://monitoring", "restart-bot"));
    assert!(matches!(&claims.says, Says::Signal(signal) if signal.name == "HighErrorRate"), "{:?}", claims.says);
    // 09:00:01, the end of the second in which the alert began.
    assert_eq!((claims.iat, claims.exp - claims.iat), (1_772_442_001, HOLDS));
    assert_eq!(webhook.signals(body.as_bytes()).unwrap(), signals, "told again, it is the same statement");
}

#[test]
fn what_is_no_notification_says_why() {
    let timeless = notification(&[firing()]).replace("2026-03-02T09", "soon");
    for (body, reason) in [
        ("<html>".to_owned(), "no notification of Alertmanager's"),
        ("{\"version\": \"4\"}".to_owned(), "`alerts`"),
        (notification(&[]).replace("\"4\"", "\"3\""), "version `3`"),
        (timeless, "`startsAt` is no time: `soon"),
        (notification(&[alert("firing", &json!({"agent": "a".repeat(600)}))]), "`agent` has 600 bytes"),
    ] {
        let error = format!("{:#}", webhook().signals(body.as_bytes()).unwrap_err());
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

/// The status of an answer to a notification.
fn posted(address: &str, authorization: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!("POST /signals/alertmanager HTTP/1.0\r\n{authorization}content-length: {length}\r\n\r\n");
    // Whoever refuses a body need not read it to its end.
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn only_who_has_the_token_is_heard_and_told_what_became_of_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let serve = |webhook| {
        let listener = runtime.block_on(http::bind("127.0.0.1:0".parse().unwrap())).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        runtime.spawn(http::serve(listener, Arc::new(Status::new().unwrap()), webhook, std::future::pending()));
        address
    };
    let (with, without) = (serve(Some(webhook())), serve(None));
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let body = notification(&[firing()]);
    assert_eq!(posted(&without, &bearer, &body), "404");
    assert_eq!(posted(&with, "", &body), "401");
    assert_eq!(posted(&with, "Authorization: Bearer another\r\n", &body), "401");
    assert_eq!(posted(&with, &format!("Authorization: Basic {TOKEN}\r\n"), &body), "401");
    assert_eq!(posted(&with, &bearer, "[]"), "400");
    assert_eq!(posted(&with, &bearer, &" ".repeat(2 * 1_024 * 1_024)), "413");
    assert_eq!(posted(&with, &bearer, &notification(&[])), "200", "nothing to write needs no broker");
    assert_eq!(posted(&with, &bearer, &body), "503");
}
