//! The decoders as a whole: batches, envelopes, bounds, real records, and inputs that nobody should send.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs::File;
use std::io::{BufRead, BufReader};

use flate2::read::GzDecoder;
use proptest::prelude::*;
use serde_json::{Value, json};
use tautline_detectors::event::{Event, Millis, Source, Verb};
use tautline_ingest::{AHEAD_MAX, BATCH_MAX, EARLIEST, Format, RECORD_MAX, Reason, Rejection, decode};

const SCHEMA: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/agent-action.v1.schema.json"));
const RECORDS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/cloudtrail.jsonl"));

/// 2026-03-03T00:00:00Z, after everything in the test data.
const RECEIVED: Millis = 1_772_496_000_000;

fn action() -> Value {
    serde_json::from_str::<Value>(SCHEMA).unwrap()["examples"][0].take()
}

fn record() -> Value {
    serde_json::from_str(RECORDS.lines().next().unwrap()).unwrap()
}

fn one(bytes: &[u8]) -> Result<Event, Rejection> {
    let mut decoded = decode(bytes, Format::Auto, RECEIVED);
    assert_eq!(decoded.len(), 1);
    decoded.remove(0)
}

fn reason(bytes: impl AsRef<[u8]>) -> Reason {
    let rejection = one(bytes.as_ref()).unwrap_err();
    assert!(!rejection.detail.is_empty() && rejection.detail.len() < 400, "{rejection}");
    rejection.reason
}

/// Real records: `tests/data/README.md` has their origin and licence.
fn real(name: &str) -> Vec<Event> {
    let path = format!("{}/../tests/data/{name}.jsonl.gz", env!("CARGO_MANIFEST_DIR"));
    let file = File::open(&path).expect(&path);
    let rows = BufReader::new(GzDecoder::new(file)).lines();
    rows.map(|row| {
        let row: Value = serde_json::from_str(&row.unwrap()).unwrap();
        one(row["event"].to_string().as_bytes()).unwrap()
    })
    .collect()
}

#[test]
fn every_stratus_record_decodes() {
    let events = real("stratus");
    assert_eq!(events.len(), 142);
    let exposing: Vec<_> =
        events.iter().filter(|event| event.resource.exposes).map(|event| event.action.as_str()).collect();
    assert_eq!(
        exposing,
        ["ec2:AuthorizeSecurityGroupIngress", "ec2:ModifySnapshotAttribute", "iam:UpdateAssumeRolePolicy"]
    );
}

#[test]
fn every_invictus_record_decodes() {
    let events = real("invictus");
    assert_eq!(events.len(), 1_017);
    assert!(
        events.iter().all(|event| !event.principal.id.is_empty() && !event.principal.id.contains(":assumed-role/"))
    );
}

#[test]
fn each_format_is_told_apart() {
    let bare = record().to_string();
    let envelope = json!({"detail-type": "AWS API Call via CloudTrail", "source": "aws.ec2", "detail": record()});
    assert_eq!(one(action().to_string().as_bytes()).unwrap().source, Source::AgentAction);
    let event = one(bare.as_bytes()).unwrap();
    assert_eq!(event.source, Source::Cloudtrail);
    assert_eq!(one(envelope.to_string().as_bytes()).unwrap(), event);
    assert_eq!(one(format!("\n {bare}\n").as_bytes()).unwrap(), event);
    assert_eq!(reason("{}"), Reason::UnknownFormat);
    assert_eq!(
        reason(r#"{"detail-type": "EC2 Instance State-change Notification", "detail": {}}"#),
        Reason::Unsupported
    );
    assert_eq!(reason(r#"{"detail": {}}"#), Reason::MissingField);
    let forced = |value: Value, format| decode(value.to_string().as_bytes(), format, RECEIVED).remove(0);
    assert_eq!(forced(action(), Format::Cloudtrail).unwrap_err().reason, Reason::UnknownFormat);
    assert_eq!(forced(record(), Format::AgentAction).unwrap_err().reason, Reason::MissingField);
}

#[test]
fn a_batch_yields_its_good_members_and_names_the_bad_one() {
    let mut bad = record();
    bad["eventID"] = json!(5);
    let batch = json!({"Records": [record(), bad, 7, record()]}).to_string();
    let decoded = decode(batch.as_bytes(), Format::Cloudtrail, RECEIVED);
    assert_eq!(decoded.iter().filter(|result| result.is_ok()).count(), 2);
    let rejections: Vec<_> = decoded.iter().filter_map(|result| result.as_ref().err()).collect();
    assert_eq!(rejections.iter().map(|r| r.index).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert!(rejections.iter().all(|rejection| rejection.reason == Reason::WrongType));
    assert_eq!(decoded[0].as_ref().unwrap(), &one(record().to_string().as_bytes()).unwrap());
}

#[test]
fn an_array_is_a_batch_of_records_each_of_its_own_format() {
    let records = json!([action(), record(), {"Records": [record(), 7]}, [record()], {}]);
    let decoded = decode(records.to_string().as_bytes(), Format::Auto, RECEIVED);
    let sources: Vec<_> = decoded.iter().map(|result| result.as_ref().map(|event| event.source).ok()).collect();
    let cloudtrail = Some(Source::Cloudtrail);
    assert_eq!(sources, [Some(Source::AgentAction), cloudtrail, cloudtrail, None, None, None]);
    let refused: Vec<_> = decoded.into_iter().filter_map(Result::err).map(|r| (r.index, r.reason)).collect();
    assert_eq!(refused, [(Some(3), Reason::WrongType), (Some(4), Reason::WrongType), (Some(5), Reason::UnknownFormat)]);
}

#[test]
fn what_tells_formats_apart_stands_once_wherever_the_record_stands() {
    let twice = record().to_string().replacen('{', r#"{"eventVersion":"1.0","eventVersion":"1.0","#, 1);
    let batch = format!(r#"{{"Records":[{twice}]}}"#);
    for text in [twice, batch] {
        let rejection = one(text.as_bytes()).unwrap_err();
        assert_eq!(rejection.reason, Reason::InvalidValue);
        assert!(rejection.detail.contains("`eventVersion` is there twice"), "{rejection}");
    }
}

#[test]
fn a_digest_covers_every_byte_of_the_event() {
    let event = one(record().to_string().as_bytes()).unwrap();
    assert!(!event.digest.is_empty());
    let mut other = record();
    other["somethingNew"] = json!(1);
    let other = one(other.to_string().as_bytes()).unwrap();
    assert_eq!(other.id, event.id);
    assert_ne!(other.digest, event.digest);
}

#[test]
fn a_digest_is_kept_for_long_and_stays_the_same() {
    let id = "00000000-0000-4000-8000-000000000001";
    let text = format!(
        r#"{{"eventVersion":"1.11","eventID":"{id}","eventTime":"2026-03-02T08:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject"}}"#
    );
    let digest = |text: &str| String::from(one(text.as_bytes()).unwrap().digest);
    assert_eq!(digest(&text), "781fcebab26592f3324149d24cf14b5c");
    assert_ne!(digest(&text.replace("8000-000000000001", "8000-000000000002")), digest(&text));
}

#[test]
fn an_implausible_time_is_refused_and_its_bounds_are_inside() {
    let at = |millis: Millis| {
        let mut action = action();
        action["time"] = json!(jiff::Timestamp::from_millisecond(millis).unwrap().to_string());
        one(action.to_string().as_bytes())
    };
    assert!(at(EARLIEST).is_ok());
    assert!(at(RECEIVED + AHEAD_MAX).is_ok());
    let early = at(EARLIEST - 1).unwrap_err();
    assert_eq!(early.reason, Reason::ImplausibleTime);
    assert_eq!(early.detail, "`1999-12-31T23:59:59.999Z` is before `2000-01-01T00:00:00Z`");
    let late = at(RECEIVED + AHEAD_MAX + 1).unwrap_err();
    assert_eq!(late.reason, Reason::ImplausibleTime);
    assert!(late.detail.contains("is more than 15 minutes after its receipt at `2026-03-03T00:00:00Z`"), "{late}");
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_record() {
    for record in [action().to_string(), format!("[{}]", action())] {
        assert_eq!(one(format!("\u{feff}{record}").as_bytes()), one(record.as_bytes()));
    }
    assert_eq!(reason("\u{feff}"), Reason::Empty);
}

#[test]
fn hostile_bytes_are_refused_with_their_reason() {
    let deep = |open: &str, n: usize| open.repeat(n);
    assert_eq!(reason(""), Reason::Empty);
    assert_eq!(reason(" \n"), Reason::Empty);
    assert_eq!(reason(r#"{"Records": []}"#), Reason::Empty);
    assert_eq!(reason(b"{\"a\": \"\xff\"}"), Reason::NotUtf8);
    assert_eq!(reason("{"), Reason::NotJson);
    assert_eq!(reason("{} {}"), Reason::NotJson);
    assert_eq!(reason("null"), Reason::WrongType);
    assert_eq!(reason("[]"), Reason::Empty);
    assert_eq!(reason("[[]]"), Reason::WrongType);
    assert_eq!(reason(deep("[", 5_000_000)), Reason::NotJson);
    assert_eq!(reason(format!(r#"{{"x": {}"#, deep("[", 5_000_000))), Reason::NotJson);
    assert_eq!(reason(format!(r#"{{"Records": [{}]}}"#, vec!["1"; BATCH_MAX + 1].join(","))), Reason::TooLarge);
    assert_eq!(reason(vec![b' '; RECORD_MAX + 1]), Reason::TooLarge);
}

#[test]
fn deep_nesting_inside_a_record_never_overflows_the_stack() {
    let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let policy = |depth| record().to_string().replace(r#""vol-0f00""#, &format!(r#"{{"Principal":{}}}"#, nest(depth)));
    assert!(one(policy(100).as_bytes()).is_ok());
    assert_eq!(reason(policy(1_000_000)), Reason::TooDeep);
    let ignored = format!(r#"{{"x":{},"eventSource":5}}"#, nest(1_000_000));
    assert_eq!(reason(ignored), Reason::WrongType);
    let argument = action().to_string().replace(r#"{"value":false"#, &format!(r#"{{"value":{}"#, nest(1_000)));
    assert!(one(argument.as_bytes()).is_ok());
}

#[test]
fn ten_megabytes_in_one_field_are_refused() {
    let huge = "x".repeat(10_000_000);
    let mut agent = action();
    agent["data"]["tool"] = json!(huge);
    assert_eq!(reason(agent.to_string()), Reason::TooLarge);
    let mut cloud = record();
    cloud["userAgent"] = json!(huge);
    assert_eq!(reason(cloud.to_string()), Reason::TooLarge);
    cloud["userAgent"] = json!({ huge: 1 });
    assert_eq!(reason(cloud.to_string()), Reason::WrongType);
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

/// Puts every other JSON type in the place of every value; returns how often the document was still good.
fn mutate(document: &Value) -> (usize, usize) {
    let others = [
        json!(null),
        json!(true),
        json!(-7),
        json!(1e300),
        json!("text"),
        json!([]),
        json!([1]),
        json!({}),
        json!({"a": 1}),
    ];
    let mut all = Vec::new();
    pointers(document, "", &mut all);
    let (mut good, mut bad) = (0, 0);
    for pointer in &all {
        for other in &others {
            let mut document = document.clone();
            *document.pointer_mut(pointer).unwrap() = other.clone();
            for result in decode(document.to_string().as_bytes(), Format::Auto, RECEIVED) {
                match result {
                    Ok(_) => good += 1,
                    Err(rejection) => {
                        assert!(!rejection.detail.is_empty() && !rejection.reason.name().is_empty());
                        bad += 1;
                    }
                }
            }
        }
    }
    (good, bad)
}

#[test]
fn a_wrong_type_in_any_field_is_an_event_or_a_rejection() {
    let (good, bad) = mutate(&action());
    assert!(good > 100 && bad > 200, "{good} {bad}");
    for line in RECORDS.lines() {
        let (good, bad) = mutate(&serde_json::from_str(line).unwrap());
        assert!(good > 0 && bad > 0, "{line}");
    }
    mutate(&json!({"Records": [record()]}));
    mutate(&json!({"detail-type": "AWS API Call via CloudTrail", "detail": record()}));
}

#[test]
fn formats_are_configured_by_name() {
    for format in Format::all() {
        assert_eq!(format.to_string().parse(), Ok(format));
        assert_eq!(serde_json::from_value::<Format>(json!(format.name())).unwrap(), format);
    }
    let error = "syslog".parse::<Format>().unwrap_err();
    assert!(error.starts_with("unknown format `syslog`, expected one of auto, agent-action, cloudtrail"), "{error}");
}

#[test]
fn a_verb_of_the_schema_is_a_verb_of_the_core() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let verbs = schema.pointer("/properties/data/properties/verb/enum").unwrap().as_array().unwrap();
    for verb in verbs.iter().filter(|verb| !verb.is_null()) {
        let mut action = action();
        action["data"]["verb"] = verb.clone();
        // An operation's own name would overrule a verb that does not fit it.
        action["data"].as_object_mut().unwrap().remove("operation");
        assert_eq!(one(action.to_string().as_bytes()).unwrap().verb.name(), verb.as_str().unwrap());
    }
    assert_eq!(Verb::default().name(), schema.pointer("/properties/data/properties/verb/default").unwrap());
}

#[test]
fn an_agents_word_does_not_make_a_change_a_read() {
    let verb = |operation: &str, verb: &str| {
        let mut action = action();
        action["data"]["operation"] = json!(operation);
        action["data"]["verb"] = json!(verb);
        one(action.to_string().as_bytes()).unwrap().verb
    };
    assert_eq!(verb("iam:AttachUserPolicy", "read"), Verb::Write);
    assert_eq!(verb("IAM:AttachUserPolicy", "propose"), Verb::Write);
    for operation in
        ["iam:attachrolepolicy", "iam::AttachRolePolicy", "AttachRolePolicy", "kubectl:delete", "iam attach-role"]
    {
        assert_eq!(verb(operation, "read"), Verb::Write, "{operation}");
    }
    for operation in ["ec2:DescribeVolumes", "kubectl:get", "pods.list", "search_logs", "github:pulls.get"] {
        assert_eq!(verb(operation, "read"), Verb::Read, "{operation}");
    }
    assert_eq!(verb("github:pulls.create", "propose"), Verb::Propose);
}

#[test]
fn a_second_action_under_a_used_id_is_a_second_event() {
    let mut other = action();
    other["data"]["tool"] = json!("another");
    let (first, second) = (one(action().to_string().as_bytes()).unwrap(), one(other.to_string().as_bytes()).unwrap());
    assert_ne!(first.id, second.id);
    assert_eq!(first.id, one(action().to_string().as_bytes()).unwrap().id);
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512), received: Millis) {
        for format in Format::all() {
            prop_assert!(!decode(&bytes, format, received).is_empty());
        }
    }

    #[test]
    fn damaged_records_decode_or_are_refused(
        which in 0_usize..10,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        received: Millis,
    ) {
        let record = RECORDS.lines().nth(which).map_or_else(|| action().to_string(), str::to_owned);
        let mut bytes = record.into_bytes();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        for result in decode(&bytes, Format::Auto, received) {
            prop_assert!(!result.map_or_else(|rejection| rejection.detail, |event| event.id).is_empty());
        }
    }
}
