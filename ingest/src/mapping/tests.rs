#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::json;
use tautline_detectors::event::Digest;

use super::*;

/// 2026-03-03T00:00:00Z.
const RECEIVED: Millis = 1_772_496_000_000;

const FLAT: &str = r#"
name = "flat"
when = { "/type" = "tool_use" }
id = "/id"
time = "/timestamp"
agent = { default = "helper" }
tool = "/name"
verb = { pointer = "/name", words = { bash = "execute", look = "read" }, default = "write" }
session = "/context/session~1id"
on_behalf_of = ["/context/user", "/context/callers"]
credential = "/context/key"
resource = "/input/target"
resource_type = { default = "thing" }
arguments = "/input"
outcome = { pointer = "/failed", words = { true = "failed", false = "success" } }
reason = "/error"
reasoning = "/thought"
"#;

const NESTED: &str = r#"
name = "nested"
when = { "/kind" = 3, "./type" = "call" }
each = "/messages/*/parts/*"
id = "./id"
time = "/at"
agent = "/agent"
tool = "./tool"
verb = "./verb"
"#;

fn mapping(text: &str) -> Mapping {
    toml::from_str(text).unwrap()
}

fn error(text: &str) -> String {
    toml::from_str::<Mapping>(text).unwrap_err().message().to_owned()
}

fn results(mapping: &Mapping, record: &Value) -> Vec<Result<Event, Rejection>> {
    mapping.decode(record.to_string().as_bytes(), RECEIVED)
}

fn one(mapping: &Mapping, record: &Value) -> Result<Event, Rejection> {
    let mut results = results(mapping, record);
    assert_eq!(results.len(), 1, "{results:?}");
    results.remove(0)
}

fn call() -> Value {
    json!({
        "type": "tool_use", "id": "t1", "timestamp": "2026-03-02T09:00:00Z", "name": "bash", "failed": true,
        "error": "exit 1", "input": {"command": "ls", "target": 7}, "thought": "why not",
        "context": {"session/id": "s1", "user": "dana", "callers": ["planner", "helper"], "key": "k-1"},
    })
}

fn nested() -> Value {
    let parts = json!([
        {"type": "text", "text": "hi"},
        {"type": "call", "id": 1, "tool": "get_pods", "verb": "read"},
        {"type": "call", "id": 2, "tool": "delete_pods", "verb": "read"},
        {"type": "call", "id": 3, "tool": "delete_pods", "verb": "erase"},
    ]);
    json!({"kind": 3, "at": 1_772_442_000, "agent": "a", "messages": [{"parts": parts}, {"parts": null}, 7]})
}

#[test]
fn a_record_is_read_as_declared() {
    let event = one(&mapping(FLAT), &call()).unwrap();
    assert!(event.id.starts_with("mapping/flat/s1/t1/"), "{}", event.id);
    assert_eq!(event.source, Source::Mapping);
    assert_eq!(event.at, 1_772_442_000_000);
    assert_eq!(
        (event.principal.claimed_agent.as_str(), event.tool.as_str(), event.verb),
        ("helper", "bash", Verb::Execute)
    );
    assert_eq!((event.resource.kind.as_str(), event.resource.id.as_str()), ("thing", "7"));
    assert_eq!(event.outcome, Outcome::Failed("exit 1".to_owned()));
    assert_eq!(event.principal.on_behalf_of, ["dana", "planner", "helper"]);
    assert!(event.credential.id == "k-1" && event.credential.claimed);
    assert_eq!(event.run.unwrap().session, "s1");
    assert_eq!(event.arguments.len(), 2);
    assert!(event.reasoning.unwrap().digest.starts_with("sha256:"));
    let mut other = call();
    other["name"] = json!("write_file");
    other["failed"] = json!(null);
    let other = one(&mapping(FLAT), &other).unwrap();
    assert_eq!((other.verb, other.outcome), (Verb::Write, Outcome::Unknown));
}

#[test]
fn members_of_a_record_are_events_of_their_own() {
    let results = results(&mapping(NESTED), &nested());
    let events: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    let seen: Vec<_> = events.iter().map(|event| (event.tool.as_str(), event.verb)).collect();
    // That a deletion is a read is not for the agent to say.
    assert_eq!(seen, [("get_pods", Verb::Read), ("delete_pods", Verb::Write)]);
    let refused: Vec<_> =
        results.iter().filter_map(|result| result.as_ref().err()).map(|r| (r.index, r.reason)).collect();
    assert_eq!(refused, [(Some(0), Reason::NotARequest), (Some(3), Reason::InvalidValue)]);
    let mut again = nested();
    again["messages"].as_array_mut().unwrap().insert(0, json!({}));
    assert_eq!(
        one_id(&results),
        one_id(&super::tests::results(&mapping(NESTED), &again)),
        "what is told again is a repeat"
    );
    again["agent"] = json!("b");
    assert_ne!(one_id(&results), one_id(&super::tests::results(&mapping(NESTED), &again)));
}

fn one_id(results: &[Result<Event, Rejection>]) -> (String, Digest) {
    let event = results.iter().find_map(|result| result.as_ref().ok()).unwrap();
    (event.id.clone(), event.digest)
}

#[test]
fn what_is_no_call_is_left_and_what_is_missing_is_named() {
    let mapping = mapping(FLAT);
    assert_eq!(one(&mapping, &json!({"type": "message"})).unwrap_err().reason, Reason::NotARequest);
    assert_eq!(one(&mapping, &json!(7)).unwrap_err().reason, Reason::WrongType);
    for (name, detail) in [("timestamp", "`time` is missing (`/timestamp`)"), ("name", "`tool` is missing (`/name`)")] {
        let mut call = call();
        call.as_object_mut().unwrap().remove(name);
        let rejection = one(&mapping, &call).unwrap_err();
        assert_eq!((rejection.reason, rejection.detail.as_str()), (Reason::MissingField, detail));
    }
    let with = |name: &str, value: Value| {
        let mut call = call();
        call[name] = value;
        one(&mapping, &call).unwrap_err()
    };
    assert_eq!(with("name", json!({})).detail, "`/name` is neither a string nor a number");
    assert_eq!(with("name", json!("x".repeat(3_000))).reason, Reason::TooLarge);
    assert_eq!(with("context", json!({"callers": vec!["a"; 33]})).reason, Reason::TooLarge);
    assert_eq!(with("context", json!({"user": "a", "callers": vec!["a"; 32]})).reason, Reason::TooLarge);
    assert_eq!(with("timestamp", json!("yesterday")).reason, Reason::InvalidValue);
    assert_eq!(with("timestamp", json!("1999-01-01T00:00:00Z")).reason, Reason::ImplausibleTime);
    assert_eq!(with("input", json!({"x": "x".repeat(ARGUMENTS_MAX)})).reason, Reason::TooLarge);
    let nested = super::tests::mapping(NESTED);
    assert_eq!(one(&nested, &json!({"kind": 2})).unwrap_err().reason, Reason::NotARequest);
    assert_eq!(one(&nested, &json!({"kind": 3})).unwrap_err().reason, Reason::NotARequest);
}

#[test]
fn an_array_is_a_batch_and_what_has_no_id_is_known_by_its_content() {
    let mut other = call();
    other["id"] = json!(null);
    let results = results(&mapping(FLAT), &json!([call(), other, {"type": "usage"}]));
    let [Ok(_), Ok(keyless), Err(none)] = results.as_slice() else { panic!("{results:?}") };
    assert_eq!(keyless.id.rsplit_once('/').unwrap(), ("mapping/flat/s1", String::from(keyless.digest).as_str()));
    assert_eq!(none.index, Some(2));
}

#[test]
fn a_declaration_that_cannot_be_is_refused() {
    let with = |line: &str| error(&format!("{FLAT}{line}"));
    assert_eq!(with("namespace = \"ns\""), "`ns` is no JSON pointer: it begins with `/`, or with `./`");
    assert_eq!(with("namespace = {}"), "neither `pointer` nor `default` is there");
    assert!(with("colour = \"/a\"").starts_with("unknown field `colour`"));
    assert!(error(&FLAT.replace("\"execute\"", "\"run\"")).starts_with("unknown variant `run`"));
    assert_eq!(error("name = \"a\"\nagent = \"/a\"\ntool = \"/t\""), "missing field `time`");
    assert!(with(&format!("namespace = \"{}\"", "/a".repeat(40))).ends_with("goes deeper than 32 steps"));
}

#[test]
fn the_examples_read_what_they_are_for() {
    let all: Value = toml::from_str(include_str!("../../../examples/mappings.toml")).unwrap();
    let mappings: Vec<Mapping> = all["mappings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mapping| self::mapping(&toml::to_string(mapping).unwrap()))
        .collect();
    let lines = include_str!("../../testdata/sessions.jsonl").lines();
    let records: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    for mapping in &mappings {
        let named = records.iter().filter(|line| line["mapping"] == mapping.name);
        let events = named.flat_map(|line| results(mapping, &line["record"])).filter_map(Result::ok);
        let [event] = events.collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(event.at, 1_772_442_000_125, "{}", mapping.name);
        assert!(event.principal.claimed_agent.starts_with(&mapping.name), "{event:?}");
        assert_eq!(
            (event.arguments[0].name.as_str(), event.arguments[0].value.as_str()),
            ("command", "kubectl get pods")
        );
        assert!(event.id.contains("_1/") || event.id.contains("-1/"), "{}", event.id);
    }
    assert_eq!(mappings.len(), records.len());
}

/// Every pointer into a document.
fn pointers(value: &Value, here: &str, out: &mut Vec<String>) {
    out.push(here.to_owned());
    match value {
        Value::Object(members) => members.iter().for_each(|(name, member)| {
            pointers(member, &format!("{here}/{}", name.replace('~', "~0").replace('/', "~1")), out);
        }),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(at, element)| pointers(element, &format!("{here}/{at}"), out));
        }
        _ => {}
    }
}

#[test]
fn a_wrong_type_in_any_field_is_an_event_or_a_rejection() {
    let deep: Value = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let others = [json!(null), json!(true), json!(-7), json!(1e300), json!("text"), json!([1]), json!({"a": 1}), deep];
    for (mapping, record) in [(mapping(FLAT), call()), (mapping(NESTED), nested())] {
        let mut all = Vec::new();
        pointers(&record, "", &mut all);
        for pointer in &all {
            for other in &others {
                let mut record = record.clone();
                *record.pointer_mut(pointer).unwrap() = other.clone();
                for result in results(&mapping, &record) {
                    let said = result.map_or_else(|rejection| rejection.detail, |event| event.id);
                    assert!(!said.is_empty() && said.len() < 8_192, "{said}");
                }
            }
        }
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = call().to_string().replace("\"ls\"", &deep);
    assert_eq!(mapping(FLAT).decode(text.as_bytes(), RECEIVED)[0].as_ref().unwrap_err().reason, Reason::TooDeep);
}
