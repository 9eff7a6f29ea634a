//! Keys that issuers keep at a URL, under a running process.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::broker::wait_for;
use crate::e2e::{LONG, Stand};
use crate::support::private_jwk;

/// Serves a key set with one key of this id, or an error where there is none.
fn serve(id: &Arc<Mutex<Option<&'static str>>>) -> String {
    let (listener, id) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::clone(id));
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4_096]);
            let body = id.lock().unwrap().map(|id| json!({ "keys": [public(private_jwk(id))] }).to_string());
            let status = if body.is_some() { "200 OK" } else { "500 Internal Server Error" };
            let body = body.unwrap_or_default();
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}", body.len());
            let _ = write!(stream, "{head}\r\n\r\n{body}");
        }
    });
    address
}

fn public(mut jwk: Value) -> Value {
    jwk.as_object_mut().unwrap().remove("d");
    jwk["alg"] = json!("EdDSA");
    jwk
}

#[test]
fn an_issuer_that_cannot_be_reached_stops_neither_a_process_nor_a_start() {
    let stand = Stand::new("jwks", "");
    let id = Arc::new(Mutex::new(Some("console-1")));
    let issuers = stand.directory.path().join("rules/example/issuers.toml");
    let url = format!("jwks = \"http://{}/keys\"", serve(&id));
    let text = fs::read_to_string(&issuers).unwrap();
    fs::write(&issuers, text.replace("keys = \"console.json\"", &url)).unwrap();
    fs::remove_file(stand.directory.path().join("rules/example/issuers/console.json")).unwrap();

    let tautline = stand.ready();
    let reloaded = |result: &str| tautline.metric("tautline_rulebook_reloads_total", result) > 0.0;
    *id.lock().unwrap() = None;
    tautline.signal("-HUP");
    wait_for("the refusal", LONG, || reloaded("refused"));
    assert!(stand.log().contains("rulebook refused: ") && stand.log().contains("cannot fetch"), "{}", stand.log());
    *id.lock().unwrap() = Some("console-2");
    tautline.signal("-HUP");
    wait_for("the new key", LONG, || reloaded("accepted"));
    assert_eq!(tautline.terminate(), Some(0));

    *id.lock().unwrap() = None;
    let tautline = stand.ready();
    assert!(stand.log().contains("the keys that were fetched last count"), "{}", stand.log());
    assert_eq!(tautline.terminate(), Some(0));
}
