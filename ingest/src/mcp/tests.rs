#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::json;
use tautline_detectors::event::Verb;

use super::*;
use crate::decode;

/// 2026-03-03T00:00:00Z.
const RECEIVED: i64 = 1_772_496_000_000;

fn request(id: Value) -> Value {
    json!({
        "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {
            "name": "delete_volume", "arguments": {"id": "vol-1", "force": true},
            "_meta": {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
        },
    })
}

fn done(id: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": "gone"}], "isError": false}})
}

fn line(rest: Value) -> Value {
    let mut line = json!({"time": "2026-03-02T09:00:00Z", "session": "s1", "agent": "ops-bot", "server": "storage", "on_behalf_of": ["dana", "planner"]});
    line.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    line
}

fn results(record: &Value, format: Format) -> Vec<Result<Event, Rejection>> {
    decode(record.to_string().as_bytes(), format, RECEIVED)
}

fn one(record: &Value) -> Result<Event, Rejection> {
    let mut results = results(record, Format::Auto);
    assert_eq!(results.len(), 1, "{results:?}");
    results.remove(0)
}

#[test]
fn a_request_with_its_response_is_an_event() {
    let event = one(&line(json!({"request": request(json!(1)), "response": done(json!(1))}))).unwrap();
    assert_eq!(event.source, Source::Mcp);
    assert!(event.id.starts_with("mcp/storage/s1/1/"), "{}", event.id);
    assert_eq!((event.tool.as_str(), event.verb, &event.outcome), ("delete_volume", Verb::Write, &Outcome::Success));
    assert_eq!(event.principal.claimed_agent, "ops-bot");
    assert_eq!(event.principal.on_behalf_of, ["dana", "planner"]);
    assert_eq!((event.resource.kind.as_str(), event.resource.id.as_str()), ("tool", "storage/delete_volume"));
    assert_eq!(event.run.unwrap().session, "s1");
    assert_eq!(event.trace.unwrap().span_id, "00f067aa0ba902b7");
    let mut arguments: Vec<_> = event.arguments.iter().map(|a| (a.name.as_str(), a.value.as_str())).collect();
    arguments.sort_unstable();
    assert_eq!(arguments, [("force", "true"), ("id", "vol-1")]);
}

#[test]
fn a_request_alone_ended_nobody_knows_how_and_a_response_alone_is_none() {
    let alone = one(&line(json!({"message": request(json!(1))}))).unwrap();
    assert_eq!(alone.outcome, Outcome::Unknown);
    assert_eq!(one(&line(request(json!(1)))).unwrap().tool, "delete_volume");
    for none in [done(json!(1)), json!({"jsonrpc": "2.0", "method": "notifications/initialized"})] {
        assert_eq!(one(&line(json!({"message": none}))).unwrap_err().reason, Reason::NotARequest);
        assert_eq!(one(&line(none)).unwrap_err().reason, Reason::NotARequest);
    }
}

#[test]
fn an_array_of_lines_pairs_by_session_and_id() {
    let message = |session: &str, message: Value| {
        let mut line = line(json!({"message": message}));
        line["session"] = json!(session);
        line
    };
    let failed =
        json!({"jsonrpc": "2.0", "id": "1", "error": {"code": -32001, "message": "Permission denied: mallory"}});
    let lines = json!([
        message("a", request(json!(1))),
        message("a", request(json!("1"))),
        message("b", request(json!(1))),
        message("a", failed),
        message("a", done(json!(1))),
        message("a", json!({"jsonrpc": "2.0", "id": 2, "method": "sampling/createMessage", "params": {}})),
        message("a", done(json!(2))),
        7,
    ]);
    let results = results(&lines, Format::Mcp);
    let outcomes: Vec<_> =
        results.iter().filter_map(|result| result.as_ref().ok().map(|event| event.outcome.clone())).collect();
    assert_eq!(outcomes, [Outcome::Success, Outcome::Denied("-32001".to_owned()), Outcome::Unknown]);
    let refused: Vec<_> =
        results.iter().filter_map(|result| result.as_ref().err()).map(|r| (r.index, r.reason)).collect();
    let ignored = Reason::NotARequest;
    let expected = [(3, ignored), (4, ignored), (5, ignored), (6, ignored), (7, Reason::WrongType)];
    assert_eq!(refused, expected.map(|(index, reason)| (Some(index), reason)));
}

#[test]
fn a_log_of_messages_is_paired_under_auto_too_and_hides_nothing_of_another_format() {
    let messages = [request(json!(1)), done(json!(1))].map(|message| line(json!({"message": message})));
    for array in [json!(messages), json!([7, messages[0], {}, messages[1]])] {
        let outcomes = |format| results(&array, format).into_iter().flatten().map(|event| event.outcome).collect();
        let [auto, named]: [Vec<Outcome>; 2] = [Format::Auto, Format::Mcp].map(outcomes);
        assert_eq!((auto.as_slice(), named), (&[Outcome::Success][..], auto.clone()));
    }
    let trail: Value =
        serde_json::from_str(include_str!("../../testdata/cloudtrail.jsonl").lines().next().unwrap()).unwrap();
    for mixed in [json!([messages[0], trail, messages[1]]), json!([trail, messages[0], messages[1]])] {
        let sources: Vec<_> = results(&mixed, Format::Auto).into_iter().flatten().map(|event| event.source).collect();
        assert!(sources.len() == 2 && sources.contains(&Source::Mcp), "{sources:?}");
    }
}

#[test]
fn how_a_call_ended_is_the_responses_to_say() {
    let ended =
        |response: Value| one(&line(json!({"request": request(json!(1)), "response": response}))).map(|e| e.outcome);
    let failed = json!({"id": 1, "result": {"isError": true, "content": [{"type": "text", "text": "denied"}]}});
    assert_eq!(ended(failed), Ok(Outcome::Failed("tool_error".to_owned())));
    let unknown = json!({"id": 1, "error": {"code": -32602, "message": "Unknown tool"}});
    assert_eq!(ended(unknown), Ok(Outcome::Failed("-32602".to_owned())));
    assert_eq!(ended(json!(null)), Ok(Outcome::Unknown));
}

#[test]
fn an_unusable_response_does_not_hide_the_call() {
    let unusable = [
        done(json!("1")),
        done(json!(null)),
        done(json!({})),
        json!({"id": null, "error": {"code": -32700, "message": "parse error"}}),
        json!({"id": 1}),
        json!({"id": 1, "result": "done"}),
        json!({"id": 1, "result": {"isError": "no"}}),
        json!({"id": 1, "error": "boom"}),
        json!({"id": 1, "error": {"code": 1, "message": {}}}),
        json!({}),
        json!([]),
        json!("gone"),
        json!(7),
    ];
    for response in unusable {
        let event = one(&line(json!({"request": request(json!(1)), "response": response}))).unwrap();
        assert_eq!((event.tool.as_str(), event.outcome), ("delete_volume", Outcome::Unknown), "{response}");
        let lines = [request(json!(1)), response.clone()].map(|message| line(json!({"message": message})));
        let results = results(&json!(lines), Format::Mcp);
        assert_eq!(results[0].as_ref().unwrap().outcome, Outcome::Unknown, "{response}");
        assert!(results[1].is_err(), "{response}");
    }
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let without = |name: &str| {
        let mut line = line(json!({"message": request(json!(1))}));
        line.as_object_mut().unwrap().remove(name);
        one(&line).unwrap_err()
    };
    for name in ["time", "session", "agent"] {
        assert_eq!(without(name).detail, format!("`{name}` is missing"));
    }
    for (id, reason) in [
        (json!(null), Reason::MissingField),
        (json!({}), Reason::WrongType),
        (json!("x".repeat(5_000)), Reason::TooLarge),
    ] {
        assert_eq!(one(&line(json!({"message": request(id)}))).unwrap_err().reason, reason);
    }
    let both = json!({"message": request(json!(1)), "request": request(json!(1))});
    assert_eq!(one(&line(both)).unwrap_err().reason, Reason::InvalidValue);
    let mut large = request(json!(1));
    large["params"]["arguments"] = json!({"text": "x".repeat(ARGUMENTS_MAX)});
    assert_eq!(one(&line(json!({"message": large}))).unwrap_err().reason, Reason::TooLarge);
}
