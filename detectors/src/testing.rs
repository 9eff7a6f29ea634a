//! What the tests of this crate share: small rulebooks, and events that nothing is wrong with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::event::{AgentRef, Argument, Digest, Event, Millis, Outcome, Place, Run, Source, Verb};
use crate::rulebook::{RuleFile, Rulebook, RulebookError};
use crate::statement::{Approval, TYPE};

const SCHEMA: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/schema.cedarschema"));
const PEOPLE: &str = "[people.\"ana@example.com\"]\nname = \"Ana\"\n";
const AGENT: &str = "[agents.bot]\nclass = \"operator\"\nowner = \"ana@example.com\"\nidentities = [\"role/bot\"]\n\
    environments = [\"staging\"]\nresource_types = [\"*\"]\ntools = [\"*\"]\n";
const ROUTES: &str = "[default]\ncritical = \"page\"\nhigh = \"page\"\nmedium = \"ticket\"\nlow = \"digest\"\n\
    informational = \"digest\"\n";
const CONTROL: &str = "title = \"A test\"\nseverity = \"high\"\nresponse = \"alert\"\n";
const PERMIT: &str =
    "@id(\"known\")\npermit (principal, action, resource) when { principal.class != \"unregistered\" };\n";

pub(crate) fn file(name: &str, text: &str) -> RuleFile {
    RuleFile { name: name.to_owned(), path: format!("rules/{name}"), text: text.to_owned() }
}

/// A rulebook of one operator, `bot`, to whom everything is permitted; `files` replace what is there, or come on top.
pub(crate) fn read(files: &[(&str, &str)]) -> Result<Rulebook, Vec<RulebookError>> {
    let base = [
        ("schema.cedarschema", SCHEMA.to_owned()),
        ("registry/people.toml", PEOPLE.to_owned()),
        ("registry/agents/bot.toml", AGENT.to_owned()),
        ("registry/routes.toml", ROUTES.to_owned()),
        ("base/control.toml", format!("id = \"base\"\n{CONTROL}")),
        ("base/policy.cedar", PERMIT.to_owned()),
    ];
    let kept = base.iter().filter(|(name, _)| files.iter().all(|(other, _)| other != name));
    let files = kept.map(|(name, text)| file(name, text)).chain(files.iter().map(|(name, text)| file(name, text)));
    Rulebook::read(files.collect())
}

pub(crate) fn book(files: &[(&str, &str)]) -> Rulebook {
    read(files).unwrap_or_else(|errors| panic!("{}", texts(&errors).join("\n")))
}

/// What is wrong with a rulebook, as people read it.
pub(crate) fn faults(files: &[(&str, &str)]) -> Vec<String> {
    match read(files) {
        Ok(book) => panic!("nothing is wrong with rulebook {}", book.hash()),
        Err(errors) => texts(&errors),
    }
}

fn texts(errors: &[RulebookError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// A `control.toml` with detectors.
pub(crate) fn control(id: &str, rest: &str) -> String {
    format!("id = \"{id}\"\n{CONTROL}{rest}")
}

/// The milliseconds of `2026-03-02T09:00:00Z`.
pub(crate) fn at(time: &str) -> Millis {
    time.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// An action of `bot` at a place that it is cleared for.
pub(crate) fn event(number: u32, action: &str, time: &str) -> Event {
    Event {
        id: format!("test/{number}"),
        digest: Digest(number.into()),
        at: at(time),
        agent: AgentRef::Registered("bot".to_owned()),
        action: action.to_owned(),
        verb: Verb::Read,
        place: Place { environment: "staging".to_owned(), mapped: true, ..Place::default() },
        outcome: Outcome::Success,
        ..Event::default()
    }
}

/// The same as a part of a playbook's run.
pub(crate) fn in_run(event: Event, playbook: &str, run: &str) -> Event {
    let run = Run { session: String::new(), playbook: playbook.to_owned(), id: run.to_owned() };
    Event { run: Some(run), ..event }
}

/// A change of `bot` that the audit log shows, in production.
pub(crate) fn change(number: u32, action: &str, time: &str) -> Event {
    Event {
        source: Source::Cloudtrail,
        verb: Verb::Write,
        place: Place { environment: "production".to_owned(), mapped: true, ..Place::default() },
        ..event(number, action, time)
    }
}

pub(crate) fn argument(name: &str, value: &str) -> Argument {
    Argument { name: name.to_owned(), value: value.to_owned(), origin: None }
}

/// Three persons, of whom Ana owns `bot`, and an issuer that may state anything with the keys `k1` and `k2`, of which Mei
/// and Tom hold one each.
pub(crate) const PERSONS: &str = "[people.\"ana@example.com\"]\nname = \"Ana\"\n[people.\"mei@example.com\"]\nname = \"Mei\"\n\
    [people.\"tom@example.com\"]\nname = \"Tom\"\n";
pub(crate) const ISSUERS: &str = "[issuers.all]\niss = \"https://all\"\nkeys = \"all.json\"\n\
    says = [\"approval\", \"override\", \"review\", \"signal\", \"acknowledgement\", \"verdict\", \"quarantine\", \"release\"]\n\
    [issuers.all.holders]\nk1 = \"mei@example.com\"\nk2 = \"tom@example.com\"\n";

fn key(id: &str) -> SigningKey {
    SigningKey::from_bytes(&Sha256::digest(id).into())
}

/// A key set with the public keys of these ids.
pub(crate) fn key_set(ids: &[&str]) -> String {
    let jwk = |id: &&str| {
        let x = BASE64.encode(key(id).verifying_key().as_bytes());
        json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": id, "x": x })
    };
    json!({ "keys": ids.iter().map(jwk).collect::<Vec<_>>() }).to_string()
}

/// A rulebook in which [`ISSUERS`] are believed.
pub(crate) fn book_of_statements(files: &[(&str, &str)]) -> Rulebook {
    let set = key_set(&["k1", "k2"]);
    let known = [
        ("registry/people.toml", PERSONS),
        ("registry/issuers.toml", ISSUERS),
        ("registry/issuers/all.json", set.as_str()),
    ];
    let kept = known.into_iter().filter(|(name, _)| files.iter().all(|(other, _)| other != name));
    book(&kept.chain(files.iter().copied()).collect::<Vec<_>>())
}

/// Claims about `bot`, by Mei, for an hour.
pub(crate) fn claims(id: &str, time: &str, kind: &str, body: &Value) -> Value {
    let seconds = at(time) / 1_000;
    json!({
        "iss": "https://all", "jti": id, "sub": "mei@example.com", "agent": "bot", "iat": seconds,
        "exp": seconds + 3_600, kind: body,
    })
}

/// The claim of an approval, with its digest.
pub(crate) fn approval(operation: &str, resource: &str, parameters: &Value, count: u32) -> Value {
    let approval = Approval {
        requester: "bot".to_owned(),
        operation: operation.to_owned(),
        resource: resource.to_owned(),
        parameters: parameters.as_object().cloned().unwrap_or_default(),
        digest: String::new(),
        count,
        irreversible: true,
    };
    let digest = approval.digest();
    serde_json::to_value(Approval { digest, ..approval }).unwrap()
}

/// A JWS over claims in the general JSON serialization, by keys of these ids.
pub(crate) fn jws(claims: &Value, ids: &[&str]) -> String {
    let payload = BASE64.encode(claims.to_string());
    let signature = |id: &&str| {
        let header = BASE64.encode(json!({ "alg": "EdDSA", "kid": id, "typ": TYPE }).to_string());
        let signature = key(id).sign(format!("{header}.{payload}").as_bytes()).to_bytes();
        json!({ "protected": header, "signature": BASE64.encode(signature) })
    };
    json!({ "payload": payload, "signatures": ids.iter().map(signature).collect::<Vec<_>>() }).to_string()
}

/// A statement as an event.
pub(crate) fn stated(claims: &Value, ids: &[&str]) -> Event {
    let text = jws(claims, ids);
    Event {
        id: format!("all/{}", claims["jti"].as_str().unwrap()),
        digest: Digest::of(text.as_bytes()),
        source: Source::Statement,
        at: claims["iat"].as_i64().unwrap() * 1_000,
        agent: AgentRef::Registered("bot".to_owned()),
        statement: Some(text),
        ..Event::default()
    }
}
