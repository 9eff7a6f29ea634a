#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::*;

const SCHEMA: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/agent-action.v1.schema.json"));

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn example() -> Value {
    schema()["examples"][0].take()
}

fn minimal() -> Value {
    json!({
        "specversion": "1.0", "type": TYPE, "id": "1", "source": "urn:r", "time": "2026-03-02T09:15:04Z",
        "data": {"agent": {"id": "a"}, "tool": "t"}
    })
}

/// The rejection of the minimal action with one member set.
fn refused(pointer: &str, value: Value) -> Rejection {
    let mut action = minimal();
    set(&mut action, pointer, value);
    decode(&action.to_string()).unwrap_err()
}

fn set(action: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    action.pointer_mut(parent).unwrap()[name] = value;
}

#[test]
fn the_example_of_the_schema_fills_every_field() {
    let event = decode(&example().to_string()).unwrap();
    assert_eq!(event.id, "agent/https://agents.example.com/runtime/eu/7f0c2c1e-0001");
    assert_eq!(event.at, 1_772_442_904_250);
    assert_eq!(event.principal.id, "arn:aws:iam::111122223333:role/storage-janitor");
    assert_eq!(event.principal.session, "run-42");
    assert_eq!(event.principal.claimed_agent, "storage-janitor");
    assert_eq!(event.principal.on_behalf_of, ["ada@example.com", "platform-orchestrator"]);
    assert_eq!((event.tool.as_str(), event.action.as_str()), ("delete_volume", "ec2:DeleteVolume"));
    assert_eq!((event.resource.kind.as_str(), event.resource.id.as_str()), ("AWS::EC2::Volume", "vol-0f00"));
    assert_eq!(event.claimed_environment.as_deref(), Some("staging"));
    assert_eq!(event.place.environment, "", "an agent's claim is not the estate's word");
    assert_eq!(event.run.unwrap().playbook, "reclaim-volumes");
    assert_eq!(event.arguments[0].value, "vol-0f00");
    assert_eq!(event.arguments[0].origin, Some(ArgumentOrigin::ToolOutput));
    assert_eq!(event.arguments[1].value, "false");
    assert_eq!(event.approval.as_deref(), Some("CHG-1042"));
    assert_eq!(event.pre_state.as_deref(), Some("s3://states/checkout-api/41"));
    assert!(event.credential.claimed);
    assert_eq!(event.credential.issued_at, Some(1_772_442_000_000));
    assert_eq!(event.trace.unwrap().request_id, "req-EXAMPLE-1");
    assert_eq!(event.outcome, Outcome::Denied("UnauthorizedOperation".to_owned()));
}

#[test]
fn the_smallest_action_is_a_write_with_unknown_outcome() {
    let event = decode(&minimal().to_string()).unwrap();
    assert_eq!((event.action.as_str(), event.verb, &event.outcome), ("t", Verb::Write, &Outcome::Unknown));
    assert_eq!((event.run, event.reasoning, event.approval, event.trace), (None, None, None, None));
}

#[test]
fn what_the_schema_requires_is_required() {
    fn walk(schema: &Value, path: &str, seen: &mut usize) {
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap();
            let mut action = example();
            action.pointer_mut(path).unwrap().as_object_mut().unwrap().remove(name).unwrap();
            let rejection = decode(&action.to_string()).unwrap_err();
            let field = format!("{path}/{name}").trim_start_matches('/').replace('/', ".");
            assert_eq!(rejection.detail, format!("`{field}` is missing"));
            assert_eq!(rejection.reason, Reason::MissingField);
            *seen += 1;
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(property, &format!("{path}/{name}"), seen);
        }
    }
    let mut seen = 0;
    walk(&schema(), "", &mut seen);
    assert_eq!(seen, 11);
}

#[test]
fn the_example_of_the_schema_has_every_property() {
    fn walk(schema: &Value, example: &Value, path: &str) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            assert!(example.get(name).is_some(), "{path}.{name}");
            walk(property, &example[name], &format!("{path}.{name}"));
        }
    }
    walk(&schema(), &example(), "");
}

#[test]
fn a_wrong_type_is_named_with_its_path_and_never_quoted() {
    for (pointer, value, detail) in [
        ("/data/agent/id", json!(5), "`data.agent.id` is integer, not a string,"),
        ("/data/agent", json!(["a"]), "`data.agent` is sequence, not an object,"),
        ("/data/verb", json!({"read": null}), "`data.verb` is map, not a string,"),
        ("/data/arguments", json!({"x": {"value": 1, "origin": 2}}), "`data.arguments.x.origin` is integer, not"),
        ("/data/arguments", json!({"x": "secret"}), "`data.arguments.x` is string, not an object,"),
        ("/data/reasoning", json!("secret, expected `x`"), "`data.reasoning` is string, not an object,"),
        ("/data/agent/on_behalf_of", json!(["a", true]), "`data.agent.on_behalf_of[1]` is boolean, not a string,"),
        ("/data/credential", json!({"mfa": "secret"}), "`data.credential.mfa` is string, not a boolean,"),
        ("/time", json!(1.5), "`time` is floating point, not a string,"),
    ] {
        let rejection = refused(pointer, value);
        assert_eq!(rejection.reason, Reason::WrongType, "{rejection}");
        assert!(rejection.detail.starts_with(detail), "{rejection}");
        assert!(!rejection.detail.contains("secret"), "{rejection}");
    }
}

#[test]
fn a_value_that_cannot_be_is_named() {
    for (pointer, value, detail) in [
        ("/data/verb", json!("destroy"), "`data.verb`: `destroy` is none of read, write, propose, execute"),
        (
            "/data/credential",
            json!({"kind": "service"}),
            "`data.credential.kind`: `service` is none of short-lived, long",
        ),
        ("/data/outcome", json!({"status": "ok"}), "`data.outcome.status`: `ok` is none of"),
        ("/data/agent/id", json!(""), "`data.agent.id`: empty"),
        ("/time", json!("yesterday"), "`time`: `yesterday` is no RFC 3339 time"),
    ] {
        let rejection = refused(pointer, value);
        assert_eq!(rejection.reason, Reason::InvalidValue, "{rejection}");
        assert!(rejection.detail.starts_with(detail), "{rejection}");
    }
}

#[test]
fn what_is_over_a_bound_is_refused_with_the_bound() {
    let many: Value =
        (0..=ARGUMENTS_MAX).map(|i| (i.to_string(), json!({"value": 0}))).collect::<serde_json::Map<_, _>>().into();
    let value = json!({"x": {"value": "y".repeat(ARGUMENT_MAX)}});
    for (pointer, value, detail) in [
        ("/id", json!("x".repeat(2_049)), "`id`: longer than 2048 bytes"),
        ("/data/reasoning", json!({"text": "x".repeat(65_537)}), "`data.reasoning.text`: longer than 65536 bytes"),
        ("/data/arguments", value, "`data.arguments.x.value`: longer than 65536 bytes"),
        ("/data/arguments", many, "`data.arguments"),
        ("/data/agent/on_behalf_of", json!(vec!["x"; 33]), "`data.agent.on_behalf_of"),
    ] {
        let rejection = refused(pointer, value);
        assert_eq!(rejection.reason, Reason::TooLarge, "{rejection}");
        assert!(rejection.detail.starts_with(detail), "{rejection}");
    }
}

#[test]
fn another_type_or_version_is_unsupported_whatever_else_is_wrong_with_it() {
    let mut action = minimal();
    action["type"] = json!("com.example.other");
    assert_eq!(decode(&action.to_string()).unwrap_err().reason, Reason::Unsupported);
    action["data"] = json!("anything");
    let rejection = decode(&action.to_string()).unwrap_err();
    assert_eq!(rejection.detail, format!("`type` is `com.example.other`, not `{TYPE}`"));
    assert_eq!(refused("/specversion", json!("0.3")).reason, Reason::Unsupported);
}

#[test]
fn a_member_written_twice_is_refused() {
    let twice = minimal().to_string().replace(r#""tool":"t""#, r#""tool":"t","tool":"u""#);
    assert_eq!(decode(&twice).unwrap_err().detail, "`data.tool` is there twice");
    let argument =
        minimal().to_string().replace(r#""tool":"t""#, r#""tool":"t","arguments":{"x":{"value":1},"x":{"value":2}}"#);
    let rejection = decode(&argument).unwrap_err();
    assert_eq!(rejection.reason, Reason::InvalidValue);
    assert!(rejection.detail.contains("member `x` twice"), "{rejection}");
}

#[test]
fn the_trace_falls_back_on_a_valid_traceparent() {
    let mut action = minimal();
    action["traceparent"] = json!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    action["data"]["trace"] = json!({"span_id": "AAAAAAAAAAAAAAAA"});
    let trace = decode(&action.to_string()).unwrap().trace.unwrap();
    assert_eq!(trace.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(trace.span_id, "aaaaaaaaaaaaaaaa");
    action["traceparent"] = json!("nonsense");
    assert_eq!(decode(&action.to_string()).unwrap().trace.unwrap().trace_id, "");
}

#[test]
fn the_digest_of_a_text_is_computed_and_an_empty_reasoning_is_none() {
    let mut action = minimal();
    action["data"]["reasoning"] = json!({"text": "abc"});
    let reasoning = decode(&action.to_string()).unwrap().reasoning.unwrap();
    assert_eq!(reasoning.digest, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    action["data"]["reasoning"] = json!({"text": "abc", "digest": reasoning.digest.to_uppercase()});
    assert_eq!(decode(&action.to_string()).unwrap().reasoning.unwrap(), reasoning);
    action["data"]["reasoning"] = json!({"text": "abc", "digest": "sha256:00"});
    let disputed = decode(&action.to_string()).unwrap().reasoning.unwrap();
    assert_eq!((&disputed.digest, disputed.claimed_digest.as_str()), (&reasoning.digest, "sha256:00"));
    action["data"]["reasoning"] = json!({"text": ""});
    action["data"]["approval"] = json!("");
    let event = decode(&action.to_string()).unwrap();
    assert_eq!((event.reasoning, event.approval), (None, None));
}
