#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;
use tautline_detectors::event::{Argument, Digest, Verb};

use super::*;
use crate::{BATCH_MAX, decode};

const BINARY: &[u8] = include_bytes!("../../testdata/otlp.binpb");
const TEXT: &str = include_str!("../../testdata/otlp.json");

/// 2026-03-03T00:00:00Z, after everything in the test data.
const RECEIVED: Millis = 1_772_496_000_000;

/// A batch of one span with these attributes, as JSON.
fn batch(attributes: &Value) -> Value {
    let attributes: Vec<Value> = attributes
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| json!({"key": key, "value": value.as_str().map_or(value.clone(), |text| json!({"stringValue": text}))}))
        .collect();
    let span = json!({
        "traceId": "4BF92F3577B34DA6A3CE929D0E0E4736", "spanId": "00f067aa0ba902b7", "name": "execute_tool scale",
        "startTimeUnixNano": 1_772_442_000_000_000_000_u64, "attributes": attributes,
    });
    json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
}

fn read(batch: &Value) -> Result<Event, Rejection> {
    let mut results = decode(batch.to_string().as_bytes(), Format::Auto, RECEIVED);
    assert_eq!(results.len(), 1, "{results:?}");
    results.remove(0)
}

fn one(attributes: Value) -> Result<Event, Rejection> {
    read(&batch(&attributes))
}

fn reason(attributes: Value) -> Reason {
    one(attributes).unwrap_err().reason
}

/// What both encodings must give alike: everything but what their bytes are known by.
fn told(bytes: &[u8], format: Format) -> Vec<Result<Event, Rejection>> {
    let results = decode(bytes, format, RECEIVED).into_iter();
    let bare = |event: Event| {
        assert!(!event.digest.is_empty());
        Event { id: event.id.rsplit_once('/').unwrap().0.to_owned(), digest: Digest::default(), ..event }
    };
    results.map(|result| result.map(bare)).collect()
}

#[test]
fn both_encodings_of_the_official_sdk_tell_the_same() {
    let events = told(BINARY, Format::OtlpProto);
    assert_eq!(events, told(BINARY, Format::Auto));
    assert_eq!(events, told(TEXT.as_bytes(), Format::OtlpJson));
    assert_eq!(events, told(TEXT.as_bytes(), Format::Auto));
    let seen: Vec<_> = events
        .iter()
        .map(|result| match result {
            Ok(event) => {
                (event.principal.claimed_agent.as_str(), event.tool.as_str(), event.verb, event.outcome.name())
            }
            Err(rejection) => ("", rejection.reason.name(), Verb::Write, ""),
        })
        .collect();
    let ignored = ("", "not-a-request", Verb::Write, "");
    let expected = [
        ignored,
        ignored,
        ("ops-agents", "get_deployment", Verb::Read, "success"),
        ("deploy-bot", "scale_deployment", Verb::Write, "success"),
        ("deploy-bot", "bash", Verb::Execute, "denied"),
        ("triage-bot", "create_issue", Verb::Write, "failed"),
        ignored,
        ignored,
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_span_of_a_tool_gives_everything_it_says() {
    let events: Vec<Event> = told(BINARY, Format::OtlpProto).into_iter().filter_map(Result::ok).collect();
    let [_, scale, bash, issue] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(scale.source, Source::Otel);
    assert!(scale.id.starts_with("otel/4bf92f3577b34da6a3ce929d0e0e47"));
    assert_eq!(scale.at, 1_772_442_003_000);
    assert_eq!((scale.resource.kind.as_str(), scale.resource.id.as_str()), ("tool", "scale_deployment"));
    assert_eq!(scale.principal.on_behalf_of, ["dana@example.com"]);
    assert_eq!(scale.run.as_ref().unwrap().session, "conv_5j66UpCpwteGg4YSxUnt7lPY");
    let argument = |name: &str, value: &str| Argument { name: name.to_owned(), value: value.to_owned(), origin: None };
    let mut arguments = scale.arguments.clone();
    arguments.sort_by(|a, b| a.name.cmp(&b.name));
    let expected = [("deployment", "ledger"), ("labels", r#"["a","b"]"#), ("replicas", "3"), ("wait", "true")];
    assert_eq!(arguments, expected.map(|(name, value)| argument(name, value)));
    assert_eq!(bash.arguments, [argument("command", "kubectl get pods -n ledger")]);
    assert_eq!((bash.place.cluster.as_str(), bash.place.namespace.as_str()), ("prod-1", "ledger"));
    assert_eq!(bash.outcome, Outcome::Denied("PermissionError".to_owned()));
    assert_eq!(issue.resource.id, "mcp.example.com/create_issue");
    assert_eq!(issue.run.as_ref().unwrap().session, "191c4850af6c49e08843a3f6c80e5046");
    assert_eq!(issue.arguments, [argument("title", "Grüße")]);
    assert_eq!(issue.trace.as_ref().unwrap().span_id.len(), 16);
}

#[test]
fn a_repeat_is_one_event_and_another_origin_is_another() {
    let attributes = json!({"gen_ai.tool.name": "scale", "gen_ai.agent.id": "a"});
    let first = one(attributes.clone()).unwrap();
    assert_eq!(first, one(attributes.clone()).unwrap());
    let mut moved = batch(&attributes);
    let service = json!({"key": "service.name", "value": {"stringValue": "other"}});
    moved["resourceSpans"][0]["resource"] = json!({"attributes": [service]});
    let second = read(&moved).unwrap();
    assert_ne!((&first.id, first.digest), (&second.id, second.digest));
}

/// What a batch's members are, by both encodings: their agents, or why there is none.
fn agents(batch: &Value) -> Vec<Result<String, String>> {
    let short = |(at, result): (usize, Result<Event, Rejection>)| match result {
        Ok(event) => Ok(event.principal.claimed_agent),
        Err(rejection) => {
            assert_eq!(rejection.index, Some(at));
            Err(rejection.detail)
        }
    };
    let read = |bytes: &[u8], format| told(bytes, format).into_iter().enumerate().map(short).collect::<Vec<_>>();
    let agents = read(batch.to_string().as_bytes(), Format::OtlpJson);
    assert_eq!(read(&as_proto(batch), Format::OtlpProto), agents);
    agents
}

fn attribute(name: &str, value: Value) -> Value {
    json!({"key": name, "value": value})
}

#[test]
fn a_bad_resource_is_the_end_of_those_spans_alone_that_need_it() {
    let service = |value: Value| attribute("service.name", value);
    let named = service(json!({"stringValue": "svc"}));
    for (bad, why) in [
        (
            vec![service(json!({"arrayValue": {"values": []}}))],
            "attribute `service.name` is neither a string nor a number",
        ),
        (vec![service(json!({"bytesValue": "c3Zj"}))], "attribute `service.name` is neither a string nor a number"),
        (vec![service(json!({"stringValue": "x".repeat(3_000)}))], "attribute `service.name`: longer than 2048 bytes"),
        (vec![named.clone(), named.clone()], "attribute `service.name` is there twice"),
    ] {
        let mut batch = batch(&json!({"gen_ai.tool.name": "scale"}));
        let mut spans = batch["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
        spans.extend([spans[0].clone(), spans[0].clone()]);
        spans[1]["name"] = json!("GET /");
        let good = json!({"resource": {"attributes": [named]}, "scopeSpans": [{"spans": [spans[0]]}]});
        let bad = json!({"resource": {"attributes": bad}, "scopeSpans": [{"spans": spans}]});
        batch["resourceSpans"] = json!([good, bad, good]);
        let (svc, why) = (Ok("svc".to_owned()), Err(format!("the span's resource: {why}")));
        let none = Err("a span of no tool's execution".to_owned());
        assert_eq!(agents(&batch), [svc.clone(), why.clone(), none, why, svc]);
    }
}

#[test]
fn a_group_that_is_none_is_the_end_of_no_other() {
    let mut text = batch(&json!({"gen_ai.agent.id": "a"}));
    let (group, binary) = (text["resourceSpans"][0].clone(), as_proto(&text));
    text["resourceSpans"] = json!([7, group, {"scopeSpans": [7, group["scopeSpans"][0]]}, {"scopeSpans": 7}, group]);
    let is_read = |bytes: &[u8], format| told(bytes, format).iter().map(Result::is_ok).collect::<Vec<_>>();
    assert_eq!(is_read(text.to_string().as_bytes(), Format::OtlpJson), [false, true, false, true, false, true]);
    // A group of which a scope is cut off, or a scope of which a span is.
    for damaged in [field(1, b"\x12\x05x"), field(1, &field(2, b"\x12\x05x"))] {
        let bytes = [&binary[..], &damaged, &binary].concat();
        assert_eq!(is_read(&bytes, Format::OtlpProto), [true, false, true]);
    }
}

#[test]
fn a_span_has_the_agent_and_the_place_of_its_resource_unless_it_says_otherwise() {
    let resource = json!({
        "service.name": "svc", "gen_ai.agent.name": "crew", "deployment.environment.name": "staging",
        "cloud.account.id": "123", "cloud.region": "eu-west-1", "k8s.cluster.name": "prod-1", "k8s.namespace.name": "ledger",
    });
    let inherits = |own: Value| {
        let mut batch = batch(&own);
        let given = self::batch(&resource)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"].clone();
        batch["resourceSpans"][0]["resource"] = json!({"attributes": given});
        assert_eq!(agents(&batch).len(), 1);
        read(&batch).unwrap()
    };
    let event = inherits(json!({}));
    assert_eq!(event.principal.claimed_agent, "crew");
    assert_eq!(event.claimed_environment.as_deref(), Some("staging"));
    let place = ["123", "eu-west-1", "prod-1", "ledger"];
    let places = |place: &Place| [&place.account, &place.region, &place.cluster, &place.namespace].map(String::clone);
    assert_eq!(places(&event.place), place);
    let own = inherits(json!({
        "gen_ai.agent.id": "a", "deployment.environment": "production", "cloud.account.id": "9", "cloud.region": "r",
        "k8s.cluster.name": "c", "k8s.namespace.name": "n",
    }));
    assert_eq!(own.principal.claimed_agent, "a");
    assert_eq!(own.claimed_environment.as_deref(), Some("production"));
    assert_eq!(places(&own.place), ["9", "r", "c", "n"]);
}

#[test]
fn bytes_are_no_text() {
    for name in ["gen_ai.agent.id", "enduser.id", "session.id", "gen_ai.tool.name", "k8s.cluster.name"] {
        let mut attributes = json!({"gen_ai.agent.name": "a"});
        attributes[name] = json!({"bytesValue": "c2VjcmV0"});
        let why = format!("attribute `{name}` is neither a string nor a number");
        assert_eq!(agents(&batch(&attributes)), [Err(why)]);
    }
    let inside = json!({"kvlistValue": {"values": [attribute("file", json!({"bytesValue": "c2VjcmV0cw=="}))]}});
    let event = one(json!({"gen_ai.agent.id": "a", "gen_ai.tool.call.arguments": inside})).unwrap();
    assert_eq!(event.arguments[0].value, r#"{"bytes":7}"#);
}

#[test]
fn what_makes_no_event_is_named() {
    assert_eq!(reason(json!({"gen_ai.operation.name": "chat"})), Reason::NotARequest);
    assert_eq!(reason(json!({"mcp.method.name": "tools/list"})), Reason::NotARequest);
    assert_eq!(reason(json!({})), Reason::MissingField);
    assert_eq!(reason(json!({"gen_ai.agent.id": {"arrayValue": {}}})), Reason::WrongType);
    assert_eq!(reason(json!({"gen_ai.agent.id": "x".repeat(3_000)})), Reason::TooLarge);
    assert_eq!(reason(json!({"gen_ai.agent.id": 7})), Reason::WrongType);
    assert_eq!(one(json!({"gen_ai.agent.id": {"intValue": 7}})).unwrap().principal.claimed_agent, "7");
    assert_eq!(one(json!({"gen_ai.agent.id": {"intValue": "7"}})).unwrap().principal.claimed_agent, "7");
    let deep = (0..40).fold(json!({"stringValue": "x"}), |inner, _| json!({"arrayValue": {"values": [inner]}}));
    assert_eq!(reason(json!({"gen_ai.agent.id": "a", "gen_ai.tool.call.arguments": deep})), Reason::TooDeep);
    let large = json!({"stringValue": "x".repeat(ARGUMENTS_MAX + 1)});
    assert_eq!(reason(json!({"gen_ai.agent.id": "a", "gen_ai.tool.call.arguments": large})), Reason::TooLarge);
    let mut twice = batch(&json!({"gen_ai.agent.id": "a"}));
    let span = &mut twice["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    let attribute = span["attributes"][0].clone();
    span["attributes"].as_array_mut().unwrap().push(attribute);
    assert_eq!(read(&twice).unwrap_err().detail, "attribute `gen_ai.agent.id` is there twice");
}

#[test]
fn an_id_is_hexadecimal_and_not_zero() {
    let with = |name: &str, id: &str| {
        let mut batch = batch(&json!({"gen_ai.agent.id": "a"}));
        batch["resourceSpans"][0]["scopeSpans"][0]["spans"][0][name] = json!(id);
        read(&batch)
    };
    assert!(
        with("spanId", "00F067AA0BA902B7").unwrap().id.starts_with("otel/4bf92f3577b34da6a3ce929d0e0e4736/00f067aa")
    );
    for id in ["", "0000000000000000", "AAAAAAAAAAE=", "00f067aa0ba902b", "00f067aa0ba902bg"] {
        assert_eq!(with("spanId", id).unwrap_err().reason, Reason::InvalidValue, "{id}");
    }
}

#[test]
fn a_batch_is_bounded() {
    let spans = vec!["{}"; BATCH_MAX + 1].join(",");
    let text = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
    let results = decode(text.as_bytes(), Format::OtlpJson, RECEIVED);
    assert!(matches!(results.as_slice(), [Err(rejection)] if rejection.reason == Reason::TooLarge), "{results:?}");
    let spans = field(2, b"").repeat(BATCH_MAX + 1);
    let binary = field(1, &field(2, &spans));
    let results = decode(&binary, Format::OtlpProto, RECEIVED);
    assert!(matches!(results.as_slice(), [Err(rejection)] if rejection.reason == Reason::TooLarge), "{results:?}");
    // An array of batches is no way around it.
    let batch = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#, vec!["{}"; 40_000].join(","));
    let results = decode(format!("[{batch},{batch},{batch}]").as_bytes(), Format::OtlpJson, RECEIVED);
    assert_eq!(results.len(), BATCH_MAX + 1);
    assert_eq!(results.last().unwrap().as_ref().unwrap_err().reason, Reason::TooLarge);
    assert_eq!(
        decode(br#"{"resourceSpans":[]}"#, Format::Auto, RECEIVED)[0].as_ref().unwrap_err().reason,
        Reason::Empty
    );
}

#[test]
fn damaged_protobuf_decodes_or_is_refused() {
    let whole = decode(BINARY, Format::OtlpProto, RECEIVED);
    for cut in 0..BINARY.len() {
        let results = decode(&BINARY[..cut], Format::OtlpProto, RECEIVED);
        assert!((1..whole.len()).contains(&results.len()), "{cut}: {results:?}");
        assert!(results.iter().all(|result| result.is_err() || whole.contains(result)), "{cut}: {results:?}");
    }
    for at in 0..BINARY.len() {
        for byte in [0, 1, 0x0a, 0x7f, 0x80, 0xff] {
            let mut bytes = BINARY.to_vec();
            bytes[at] = byte;
            for format in [Format::OtlpProto, Format::Auto] {
                for result in decode(&bytes, format, RECEIVED) {
                    assert!(!result.map_or_else(|rejection| rejection.detail, |event| event.id).is_empty());
                }
            }
        }
    }
}

#[test]
fn nesting_does_not_overflow_the_stack() {
    let mut value = b"\x0a\x01x".to_vec();
    for _ in 0..20_000 {
        let list = [&[0x0a][..], &varint(value.len()), &value].concat();
        value = [&[0x2a][..], &varint(list.len()), &list].concat();
    }
    let attribute = [&b"\x0a\x1agen_ai.tool.call.arguments\x12"[..], &varint(value.len()), &value].concat();
    let span = [&[0x4a][..], &varint(attribute.len()), &attribute].concat();
    let scope = [&[0x12][..], &varint(span.len()), &span].concat();
    let group = [&[0x12][..], &varint(scope.len()), &scope].concat();
    let bytes = [&[0x0a][..], &varint(group.len()), &group].concat();
    assert_eq!(decode(&bytes, Format::Auto, RECEIVED)[0].as_ref().unwrap_err().reason, Reason::TooDeep);
}

/// A value of protobuf, of the same in JSON.
fn value_as_proto(value: &Value) -> Vec<u8> {
    let (kind, inner) = value.as_object().unwrap().iter().next().unwrap();
    let list = |each: fn(&Value) -> Vec<u8>| {
        let elements = inner["values"].as_array().unwrap().iter();
        elements.flat_map(|element| field(1, &each(element))).collect::<Vec<u8>>()
    };
    match kind.as_str() {
        "stringValue" => field(1, inner.as_str().unwrap().as_bytes()),
        "boolValue" => vec![2 << 3, u8::from(inner.as_bool().unwrap())],
        "intValue" => [&[3 << 3][..], &varint(inner.as_str().unwrap().parse::<usize>().unwrap())].concat(),
        "doubleValue" => [&[4 << 3 | 1][..], &inner.as_f64().unwrap().to_le_bytes()].concat(),
        "arrayValue" => field(5, &list(value_as_proto)),
        "bytesValue" => field(7, &STANDARD.decode(inner.as_str().unwrap()).unwrap()),
        _ => field(6, &list(pair_as_proto)),
    }
}

fn pair_as_proto(pair: &Value) -> Vec<u8> {
    [field(1, pair["key"].as_str().unwrap().as_bytes()), field(2, &value_as_proto(&pair["value"]))].concat()
}

/// The bytes of a batch that [`batch`] made, or of several such groups.
fn as_proto(batch: &Value) -> Vec<u8> {
    let groups = batch["resourceSpans"].as_array().unwrap().iter().map(|group| {
        let attributes = group["resource"]["attributes"].as_array().into_iter().flatten();
        let resource = attributes.flat_map(|pair| field(1, &pair_as_proto(pair))).collect::<Vec<u8>>();
        let spans = group["scopeSpans"][0]["spans"].as_array().unwrap().iter();
        let scope = spans.flat_map(|span| field(2, &span_as_proto(span))).collect::<Vec<u8>>();
        field(1, &[field(1, &resource), field(2, &scope)].concat())
    });
    groups.collect::<Vec<_>>().concat()
}

fn span_as_proto(span: &Value) -> Vec<u8> {
    let id = |name: &str, digits: usize| {
        let number = u128::from_str_radix(span[name].as_str().unwrap(), 16).unwrap();
        number.to_be_bytes()[16 - digits / 2..].to_vec()
    };
    let time = span["startTimeUnixNano"].as_u64().unwrap().to_le_bytes();
    let attributes = span["attributes"].as_array().unwrap().iter().flat_map(|pair| field(9, &pair_as_proto(pair)));
    let parts = [
        field(1, &id("traceId", 32)),
        field(2, &id("spanId", 16)),
        field(5, span["name"].as_str().unwrap().as_bytes()),
        [&[7 << 3 | 1][..], &time].concat(),
        attributes.collect(),
    ];
    parts.concat()
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        ".{0,20}".prop_map(|text| json!({"stringValue": text})),
        any::<bool>().prop_map(|flag| json!({"boolValue": flag})),
        ".{0,20}".prop_map(|text| json!({"bytesValue": STANDARD.encode(text)})),
        (0..i64::MAX).prop_map(|number| json!({"intValue": number.to_string()})),
        any::<f64>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(|number| json!({"doubleValue": number})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let pairs = prop::collection::btree_map(".{0,5}", inner.clone(), 0..3).prop_map(|members| {
            let pairs: Vec<Value> = members.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
            json!({"kvlistValue": {"values": pairs}})
        });
        let list = prop::collection::vec(inner, 0..3).prop_map(|values| json!({"arrayValue": {"values": values}}));
        prop_oneof![pairs, list]
    })
}

proptest! {
    #[test]
    fn the_same_spans_tell_the_same_in_both_encodings(
        attributes in prop::collection::btree_map(prop::sample::select(READ.to_vec()), values(), 0..8),
        arguments in values(),
    ) {
        let mut attributes: serde_json::Map<String, Value> =
            attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        attributes.insert(ARGUMENTS.to_owned(), arguments);
        attributes.insert(AGENT[0].to_owned(), json!({"stringValue": "a"}));
        let batch = batch(&Value::Object(attributes));
        let reasons = |results: Vec<Result<Event, Rejection>>| {
            results.into_iter().map(|result| result.map_err(|rejection| rejection.reason)).collect::<Vec<_>>()
        };
        let binary = reasons(told(&as_proto(&batch), Format::OtlpProto));
        prop_assert_eq!(binary, reasons(told(batch.to_string().as_bytes(), Format::OtlpJson)));
    }
}

fn field(number: u8, inner: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(inner.len()), inner].concat()
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}
