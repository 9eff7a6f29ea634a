//! Every format but the oldest two: told apart, in its envelopes, and with what nobody should send.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use base64::prelude::{BASE64_STANDARD, Engine as _};
use proptest::prelude::*;
use serde_json::{Value, json};
use tautline_detectors::event::{Event, Millis, Outcome, Source, Verb};
use tautline_ingest::{Format, Reason, Rejection, decode};

const GCP: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/gcp.jsonl"));
const KUBERNETES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/kubernetes.jsonl"));
const AZURE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/azure.jsonl"));
const GITHUB: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/github.jsonl"));
const SPANS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/otlp.json"));
const MCP: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/mcp.jsonl"));
const PAIRS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/ocsf_pairs.jsonl"));

/// 2026-03-03T00:00:00Z, after everything in the test data.
const RECEIVED: Millis = 1_772_496_000_000;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The spans that tell of a call, each as a batch of its own.
fn calls() -> Vec<Value> {
    let batch = lines(SPANS).remove(0);
    let all = batch["resourceSpans"].as_array().unwrap().iter().flat_map(|group| {
        let scopes = group["scopeSpans"].as_array().unwrap().iter();
        scopes.flat_map(|scope| scope["spans"].as_array().unwrap().iter().map(|span| (&group["resource"], span)))
    });
    let batches = all
        .map(|(resource, span)| json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}));
    batches.filter(|batch| results(batch, Format::OtlpJson).iter().all(Result::is_ok)).collect()
}

/// Every record of the test data, with the format and the source that it is of.
fn records() -> Vec<(Format, Source, Value)> {
    let mut all = Vec::new();
    for (format, source, text) in [
        (Format::Gcp, Source::Gcp, GCP),
        (Format::Kubernetes, Source::Kubernetes, KUBERNETES),
        (Format::Azure, Source::Azure, AZURE),
        (Format::Github, Source::Github, GITHUB),
        (Format::Mcp, Source::Mcp, MCP),
    ] {
        all.extend(lines(text).into_iter().map(|record| (format, source, record)));
    }
    all.extend(calls().into_iter().map(|batch| (Format::OtlpJson, Source::Otel, batch)));
    all.extend(lines(PAIRS).into_iter().map(|mut pair| (Format::Ocsf, Source::Ocsf, pair["ocsf"].take())));
    all
}

fn results(record: &Value, format: Format) -> Vec<Result<Event, Rejection>> {
    decode(record.to_string().as_bytes(), format, RECEIVED)
}

fn one(record: &Value, format: Format) -> Result<Event, Rejection> {
    let mut results = results(record, format);
    assert_eq!(results.len(), 1, "{results:?}");
    results.remove(0)
}

#[test]
fn each_format_is_told_apart_and_gives_the_same_as_by_its_name() {
    let mut decoded = 0;
    for (format, source, record) in records() {
        match (one(&record, Format::Auto), one(&record, format)) {
            (Ok(by_look), by_name) => {
                assert_eq!(by_look.source, source);
                let principal = &by_look.principal;
                let who = if source.is_audit() { &principal.id } else { &principal.claimed_agent };
                assert!(!who.is_empty() && !by_look.action.is_empty() && !by_look.id.is_empty());
                assert_eq!(Ok(by_look), by_name);
                decoded += 1;
            }
            (Err(rejection), by_name) => {
                assert_eq!(rejection.reason, Reason::Unsupported, "{rejection}");
                assert_eq!(Err(rejection), by_name);
            }
        }
    }
    assert_eq!(decoded, records().len() - 1, "all but the one that is no audit log");
}

#[test]
fn every_format_says_so_where_a_record_is_of_another() {
    for format in Format::all().filter(|format| *format != Format::Auto) {
        for (other, _, record) in records().into_iter().filter(|(other, ..)| *other != format) {
            let results = results(&record, format);
            assert!(results.iter().all(Result::is_err), "{other} as {format}: {results:?}");
        }
    }
}

#[test]
fn envelopes_give_what_is_in_them() {
    let bare: Vec<_> = lines(AZURE).iter().map(|record| one(record, Format::Azure)).collect();
    assert_eq!(results(&json!({"records": lines(AZURE)}), Format::Auto), bare);
    assert_eq!(results(&json!(lines(AZURE)), Format::Azure), bare);
    let bare: Vec<_> = lines(KUBERNETES).iter().map(|record| one(record, Format::Kubernetes)).collect();
    let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": lines(KUBERNETES)});
    assert_eq!(results(&list, Format::Auto), bare);
    let entry = lines(GCP).remove(0);
    let push =
        json!({"message": {"data": BASE64_STANDARD.encode(entry.to_string()), "messageId": "7"}, "subscription": "s"});
    assert_eq!(one(&push, Format::Auto), one(&entry, Format::Gcp));
    let broken = json!({"message": {"data": "%%%"}, "subscription": "s"});
    assert_eq!(one(&broken, Format::Auto).unwrap_err().reason, Reason::InvalidValue);
    assert_eq!(one(&json!({"records": []}), Format::Auto).unwrap_err().reason, Reason::Empty);
}

#[test]
fn one_insert_id_may_name_two_events() {
    let grants: Vec<Event> = lines(GCP).iter().filter_map(|entry| one(entry, Format::Gcp).ok()).collect();
    let grants: Vec<_> = grants.into_iter().filter(|event| event.action.ends_with("SetIAMPolicy")).collect();
    assert_eq!(grants.len(), 2);
    let (first, second) = (&grants[0], &grants[1]);
    assert!(first.id.ends_with("/ivg77odhkvt") && second.id.ends_with("/ivg77odhkvt"));
    assert_ne!(first.digest, second.digest);
    assert!(grants.iter().all(|event| event.verb == Verb::PermissionChange && event.outcome == Outcome::Success));
}

#[test]
fn what_has_no_key_of_its_own_is_known_by_its_content() {
    let mut keyless = lines(GITHUB).remove(0);
    keyless["_document_id"].take();
    let first = one(&keyless, Format::Github).unwrap();
    assert_eq!(first.id, one(&keyless, Format::Github).unwrap().id);
    keyless["actor"] = json!("eve");
    assert_ne!(first.id, one(&keyless, Format::Github).unwrap().id);
}

/// The fields that a record and its OCSF twin should agree on.
fn told(event: &Event) -> [(&'static str, String); 13] {
    let place = &event.place;
    [
        ("at", event.at.to_string()),
        ("action", event.action.clone()),
        ("verb", event.verb.name().to_owned()),
        ("principal", event.principal.id.clone()),
        ("session", event.principal.session.clone()),
        ("resource type", event.resource.kind.clone()),
        ("resource", event.resource.id.clone()),
        ("account", place.account.clone()),
        ("region and namespace", format!("{} {}", place.region, place.namespace)),
        ("credential", format!("{} {:?} {:?}", event.credential.id, event.credential.kind, event.credential.mfa)),
        ("origin", format!("{} {}", event.origin.address, event.origin.user_agent)),
        ("outcome", format!("{:?}", event.outcome)),
        ("request", event.trace.as_ref().map(|trace| trace.request_id.clone()).unwrap_or_default()),
    ]
}

/// Where twins may differ, and why.
const JUSTIFIED: [(&str, &str); 2] = [
    // CloudTrail has only reads and writes, and the vocabulary says what is a change of permissions; OCSF's class says so.
    ("iam:CreateUser", "verb"),
    // OCSF has no word for whether a sign-in reads or writes; it changes nothing.
    ("signin:ConsoleLogin", "verb"),
];

/// Where the published examples differ from their twins beyond that, and why.
const PUBLISHED: [(&str, &str); 10] = [
    // The twin's credential id was taken out, and with it goes the kind; its request id was made anonymous.
    ("iam:CreateUser", "credential"),
    ("iam:CreateUser", "request"),
    // Before 1.0 the mapping had no request data, which name the user.
    ("iam:CreateUser", "resource"),
    // Times, accounts and ids of the twin were made anonymous, and those of the record were not.
    ("directconnect:DescribeDirectConnectGateways", "at"),
    ("directconnect:DescribeDirectConnectGateways", "principal"),
    ("directconnect:DescribeDirectConnectGateways", "account"),
    ("directconnect:DescribeDirectConnectGateways", "credential"),
    ("directconnect:DescribeDirectConnectGateways", "request"),
    ("signin:ConsoleLogin", "at"),
    // The record has no request id, for which the twin has two quotes.
    ("signin:ConsoleLogin", "request"),
];

fn differences(pair: &Value, justified: &[(&str, &str)]) -> Vec<String> {
    let (raw, twin) = (one(&pair["raw"], Format::Auto).unwrap(), one(&pair["ocsf"], Format::Ocsf).unwrap());
    let pairs = told(&raw).into_iter().zip(told(&twin));
    let differing = pairs.filter(|(ours, theirs)| ours != theirs && !justified.contains(&(&raw.action, ours.0)));
    differing.map(|((name, ours), (_, theirs))| format!("{}: {name}: `{ours}`, twin `{theirs}`", raw.action)).collect()
}

#[test]
fn a_record_and_its_ocsf_twin_tell_the_same() {
    let differences: Vec<_> = lines(PAIRS).iter().flat_map(|pair| differences(pair, &JUSTIFIED)).collect();
    assert!(differences.is_empty(), "{differences:#?}");
}

/// The published examples (<https://github.com/ocsf/examples>) state no licence and are not in here. `OCSF_PAIRS` names a
/// file of lines `{"raw": …, "ocsf": …}` made of them.
#[test]
fn the_published_pairs_tell_the_same() {
    let Ok(path) = std::env::var("OCSF_PAIRS") else { return };
    let justified = [JUSTIFIED.as_slice(), &PUBLISHED].concat();
    let pairs = lines(&std::fs::read_to_string(path).unwrap());
    let differences: Vec<_> = pairs.iter().flat_map(|pair| differences(pair, &justified)).collect();
    assert!(!pairs.is_empty() && differences.is_empty(), "{differences:#?}");
}

/// Every pointer into a document.
fn pointers(value: &Value, here: &str, out: &mut Vec<String>) {
    out.push(here.to_owned());
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                pointers(member, &format!("{here}/{}", name.replace('~', "~0").replace('/', "~1")), out);
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                pointers(element, &format!("{here}/{index}"), out);
            }
        }
        _ => {}
    }
}

#[test]
fn a_wrong_type_in_any_field_is_an_event_or_a_rejection() {
    let others =
        [json!(null), json!(true), json!(-7), json!(1e300), json!("text"), json!([1]), json!({}), json!({"a": 1})];
    for (format, _, record) in records() {
        let mut all = Vec::new();
        pointers(&record, "", &mut all);
        for pointer in &all {
            for other in &others {
                let mut record = record.clone();
                *record.pointer_mut(pointer).unwrap() = other.clone();
                for result in results(&record, format).into_iter().chain(results(&record, Format::Auto)) {
                    let said = result.map_or_else(|rejection| rejection.detail, |event| event.id);
                    assert!(!said.is_empty() && said.len() < 8_192, "{said}");
                }
            }
        }
    }
}

#[test]
fn nothing_huge_or_deep_is_kept() {
    let (huge, deep) = ("x".repeat(300_000), format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)));
    for (format, _, record) in records() {
        let mut all = Vec::new();
        pointers(&record, "", &mut all);
        for pointer in all.iter().filter(|pointer| !pointer.is_empty()) {
            let mut record = record.clone();
            *record.pointer_mut(pointer).unwrap() = json!("HERE");
            for value in [format!("\"{huge}\""), deep.clone()] {
                let text = record.to_string().replacen("\"HERE\"", &value, 1);
                for result in decode(text.as_bytes(), format, RECEIVED) {
                    let kept = result.map_or_else(|r| r.detail.len(), |e| serde_json::to_string(&e).unwrap().len());
                    assert!(kept < 65_536, "{format} {pointer}: {kept}");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn damaged_records_decode_or_are_refused(
        which in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        received: Millis,
    ) {
        let all = records();
        let (format, _, record) = &all[which.index(all.len())];
        let mut bytes = record.to_string().into_bytes();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        for format in [*format, Format::Auto] {
            for result in decode(&bytes, format, received) {
                prop_assert!(!result.map_or_else(|rejection| rejection.detail, |event| event.id).is_empty());
            }
        }
    }
}
