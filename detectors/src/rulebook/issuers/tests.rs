#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use super::{FILE, Issuers};
use crate::rulebook::{RuleFile, Signers};
use crate::statement::{Distrust, TYPE, Token};
use crate::testing::{ISSUERS, PERSONS, book_of_statements, claims, faults, jws, key_set};

const TIME: &str = "2026-03-02T08:00:00Z";

fn issuers() -> Issuers {
    book_of_statements(&[]).issuers
}

fn verdict() -> Value {
    claims("v-1", TIME, "verdict", &json!({ "deviation": "x/y/0", "confirmed": true }))
}

fn verified(text: &str) -> Result<Signers, Distrust> {
    issuers().verify(&Token::read(text).unwrap())
}

#[test]
fn a_signature_of_the_issuers_key_is_believed() {
    let signers = verified(&jws(&verdict(), &["k1"])).unwrap();
    assert_eq!(signers, Signers { holders: vec!["mei@example.com".to_owned()], is_signed_in: false });
    let signers = verified(&jws(&verdict(), &["k2", "k1", "k1"])).unwrap();
    assert_eq!(signers.holders, ["mei@example.com", "tom@example.com"], "a key that signs twice is one person");
    let general: Value = serde_json::from_str(&jws(&verdict(), &["k1"])).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let signature = &general["signatures"][0];
    let compact =
        format!("{}.{}.{}", text(&signature["protected"]), text(&general["payload"]), text(&signature["signature"]));
    assert!(verified(&compact).is_ok());
}

#[test]
fn anything_else_is_not() {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut claims = verdict();
        change(&mut claims);
        verified(&jws(&claims, &["k1"]))
    };
    assert_eq!(verified(&verdict().to_string()), Err(Distrust::Unsigned));
    assert_eq!(verified(&jws(&verdict(), &[])), Err(Distrust::Unsigned));
    assert_eq!(changed(&|claims| claims["iss"] = json!("https://other")), Err(Distrust::UnknownIssuer));
    assert_eq!(verified(&jws(&verdict(), &["k3"])), Err(Distrust::UnknownKey));
    assert_eq!(verified(&jws(&verdict(), &["k1", "k3"])), Err(Distrust::UnknownKey), "all must be the issuer's");
    assert_eq!(changed(&|claims| claims["exp"] = claims["iat"].clone()), Err(Distrust::Lifetime));
    assert_eq!(changed(&|claims| claims["exp"] = json!(i64::MAX)), Err(Distrust::Lifetime));
    assert_eq!(changed(&|claims| claims["iat"] = json!(i64::MIN)), Err(Distrust::Lifetime));

    let mut tampered: Value = serde_json::from_str(&jws(&verdict(), &["k1"])).unwrap();
    tampered["payload"] = json!(BASE64.encode(claims("v-2", TIME, "verdict", &verdict()["verdict"]).to_string()));
    assert_eq!(verified(&tampered.to_string()), Err(Distrust::BadSignature));
}

/// A statement whose header is this, with the signature of another.
fn with_header(header: &Value) -> Result<Signers, Distrust> {
    let mut general: Value = serde_json::from_str(&jws(&verdict(), &["k1"])).unwrap();
    general["signatures"][0]["protected"] = json!(BASE64.encode(header.to_string()));
    verified(&general.to_string())
}

#[test]
fn no_other_algorithm_and_no_other_kind_of_token_passes() {
    for alg in ["none", "HS256", "ES256", "RS256", ""] {
        let found = with_header(&json!({ "alg": alg, "kid": "k1", "typ": TYPE }));
        assert_eq!(found, Err(Distrust::UnknownKey), "{alg}");
    }
    assert_eq!(with_header(&json!({ "alg": "EdDSA", "kid": "k1", "typ": "JWT" })), Err(Distrust::WrongType));
    assert_eq!(with_header(&json!({ "alg": "EdDSA", "kid": "k1" })), Err(Distrust::WrongType));
    let critical = json!({ "alg": "EdDSA", "kid": "k1", "typ": TYPE, "crit": ["b64"], "b64": false });
    assert_eq!(with_header(&critical), Err(Distrust::WrongType));
}

#[test]
fn what_is_no_statement_is_refused_without_quoting_it() {
    let nine: Vec<&str> = vec!["k1"; 9];
    let crowded = jws(&verdict(), &nine);
    let mut nobody = verdict();
    nobody["sub"] = json!("");
    for text in ["", "a.b", "eyJhbGciOiJub25lIn0..", "eyJ!.e30.x", "{}", "[]", &crowded, &nobody.to_string()] {
        let error = Token::read(text).unwrap_err();
        assert!(!error.is_empty() && !error.contains("eyJ"), "{text}: {error}");
    }
}

#[test]
fn every_fault_of_the_issuers_is_named() {
    let issuers = ISSUERS.replace("\"verdict\"", "\"gossip\"").replace("tom@example.com", "eve@example.com");
    let issuers = issuers.replace("keys = \"all.json\"", "keys = \"none.json\"\nlongest = \"soon\"");
    let files = [("registry/people.toml", PERSONS), ("registry/issuers.toml", issuers.as_str())];
    let found = faults(&files);
    for word in ["gossip", "eve@example.com", "none.json", "soon"] {
        assert!(found.iter().any(|fault| fault.contains(word)), "{word}: {found:?}");
    }
    let set = key_set(&["k1"]).replace("EdDSA", "HS256");
    let files =
        [("registry/people.toml", PERSONS), ("registry/issuers.toml", ISSUERS), ("registry/issuers/all.json", &set)];
    assert!(faults(&files)[0].contains("has no key that can be used"), "who can check must not be able to sign");
}

#[test]
fn keys_at_a_url_are_a_file_of_the_rulebook() {
    let issuers = ISSUERS.replace("keys = \"all.json\"", "jwks = \"https://all/keys\"\nrefresh = \"5m\"");
    let file = RuleFile { name: FILE.to_owned(), path: "issuers.toml".to_owned(), text: issuers.clone() };
    let remote = Issuers::remote(std::slice::from_ref(&file)).remove(0);
    assert_eq!((remote.url.as_str(), remote.refresh), ("https://all/keys", 300_000));
    assert_eq!(remote.error("x".to_owned()).to_string(), "issuers.toml:3: x");
    let set = remote.file(key_set(&["k1"]));
    assert_eq!((set.name.as_str(), set.path.as_str()), ("registry/issuers/all.json", "https://all/keys"));

    let book = |keys: &str| book_of_statements(&[(FILE, &issuers), (&set.name, keys)]);
    let (old, new) = (book(&set.text), book(&key_set(&["k2"])));
    assert!(old.issuers.verify(&Token::read(&jws(&verdict(), &["k1"])).unwrap()).is_ok());
    assert!(new.issuers.verify(&Token::read(&jws(&verdict(), &["k1"])).unwrap()).is_err());
    assert_ne!(old.hash(), new.hash(), "what was fetched is part of what a rulebook is called");
}

#[test]
fn faults_of_keys_at_a_url_are_named() {
    let faults_with = |keys: &str| {
        let issuers = ISSUERS.replace("keys = \"all.json\"", keys);
        faults(&[("registry/people.toml", PERSONS), (FILE, &issuers)]).join("\n")
    };
    assert!(
        faults_with("jwks = \"https://all/keys\"").contains("toml:3: the keys at `https://all/keys` are not there")
    );
    assert!(faults_with("").contains("issuer `all` needs either `keys`"));
    assert!(faults_with("jwks = \"https://all/\"\nkeys = \"all.json\"").contains("needs either"));
    assert!(faults_with("jwks = \"https://all/\"\nrefresh = \"soon\"").contains("`soon`"));
    assert!(faults_with("jwks = \"https://all/\"\nrefresh = \"5s\"").contains("at least `1m`"));
    assert!(faults_with("keys = \"all.json\"\nrefresh = \"5m\"").contains("is for keys at a URL"));
}
