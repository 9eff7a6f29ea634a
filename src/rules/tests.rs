#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde_json::json;

use super::*;
use crate::signing::Key;

/// An issuer's key set on the network: the id of its key, or nothing but errors.
struct Server {
    address: String,
    key: Arc<Mutex<Option<&'static str>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let key = Arc::new(Mutex::new(Some("one")));
        let answers = Arc::clone(&key);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.read(&mut [0; 4_096]);
                let (status, body) = match *answers.lock().unwrap_or_else(PoisonError::into_inner) {
                    Some(id) => ("200 OK", json!({ "keys": [Key::new(id, [1; 32]).public()] }).to_string()),
                    None => ("503 Service Unavailable", String::new()),
                };
                let length = body.len();
                // Whoever has gone needs no answer.
                let _ =
                    write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
            }
        });
        Self { address, key }
    }

    fn answer(&self, key: Option<&'static str>) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }
}

/// The shipped rules, with one issuer that keeps its keys there.
fn paths(directory: &Path, server: &Server) -> RulebookPaths {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/example");
    for name in ["people.toml", "calendar.toml", "routes.toml"] {
        fs::copy(example.join(name), directory.join(name)).unwrap();
    }
    let entry = format!(
        "[issuers.console]\niss = \"https://console\"\nsays = [\"approval\"]\njwks = \"http://{}/keys\"\n",
        server.address
    );
    fs::write(directory.join("issuers.toml"), entry).unwrap();
    RulebookPaths {
        rules: example.parent().unwrap().to_owned(),
        agents: example.join("agents.d"),
        estate: example.join("estate.toml"),
        people: directory.join("people.toml"),
        playbooks: example.join("playbooks.d"),
        store: directory.join("store"),
    }
}

#[test]
fn keys_are_fetched_refreshed_and_remembered() {
    let (directory, server) = (tempfile::tempdir().unwrap(), Server::start());
    let paths = paths(directory.path(), &server);
    let read = |unreachable| read(&paths, unreachable).map_err(|errors| refused(&errors).to_string());
    let mut store = RulebookStore::open(&paths.store).unwrap();

    server.answer(None);
    let error = read(Unreachable::TakeKept).unwrap_err();
    assert!(error.contains("issuers.toml:4: cannot fetch `http://"), "nothing is remembered yet: {error}");
    server.answer(Some("one"));
    let one = Arc::new(read(Unreachable::TakeKept).unwrap());
    store.keep(&one).unwrap();
    assert!(refreshed(&one).unwrap().is_none(), "the same keys are the same rulebook");

    server.answer(Some("two"));
    let two = Arc::new(refreshed(&one).unwrap().unwrap());
    assert_ne!(one.hash(), two.hash());
    store.keep(&two).unwrap();
    let found = RulebookStore::open(&paths.store).unwrap().find(one.hash()).unwrap();
    assert_eq!(found.files(), one.files(), "a replay finds the keys of then");

    server.answer(None);
    assert!(format!("{:#}", refreshed(&two).unwrap_err()).contains("503"));
    assert!(read(Unreachable::Refuse).is_err());
    assert_eq!(read(Unreachable::TakeKept).unwrap().hash(), two.hash());
    store.keep(&one).unwrap();
    assert_eq!(read(Unreachable::TakeKept).unwrap().hash(), one.hash(), "those that were in force last");
}

#[test]
fn a_url_that_may_not_be_fetched_and_keys_in_two_places_are_errors() {
    let (directory, server) = (tempfile::tempdir().unwrap(), Server::start());
    let paths = paths(directory.path(), &server);
    let issuers = directory.path().join("issuers.toml");
    let error = || refused(&read(&paths, Unreachable::TakeKept).unwrap_err()).to_string();
    fs::create_dir(directory.path().join("issuers")).unwrap();
    let file = directory.path().join("issuers/console.json");
    fs::write(&file, "{\"keys\":[]}").unwrap();
    assert!(error().contains("issuers.toml:4: `registry/issuers/console.json` has keys for this issuer, too"));
    fs::remove_file(file).unwrap();
    fs::write(&issuers, fs::read_to_string(&issuers).unwrap().replace("127.0.0.1", "idp.example.com")).unwrap();
    assert!(error().contains("does not begin with `https://`"), "{}", error());
}
