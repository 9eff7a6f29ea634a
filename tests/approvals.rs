//! Approved against executed, on what a cloud recorded: the approval of exactly that is silent, of anything else is not.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tautline_detectors::engine::{Engine, Input};
use tautline_detectors::event::{Event, Outcome};
use tautline_detectors::rulebook::Rulebook;
use tautline_detectors::statement::Approval;
use tautline_ingest::resolve::resolve;
use tautline_ingest::{Format, decode};

use crate::support::{edit, file, root, rows, rule_files, signed, text, with_test_keys};

const RECEIVED: i64 = 4_102_444_800_000;

/// The shipped rules with the recorded events' registry, where every change needs an approval by a person whom the
/// console signs in.
fn book() -> Arc<Rulebook> {
    let mut files = rule_files();
    for (name, path) in [
        ("registry/agents/recorded.toml", "tests/data/agents.toml"),
        ("registry/estate.toml", "tests/data/estate.toml"),
        ("registry/people.toml", "tests/data/people.toml"),
        ("registry/routes.toml", "tests/data/routes.toml"),
        ("registry/issuers/console.json", "rules/example/issuers/console.json"),
    ] {
        files.push(file(name, &text(path)));
    }
    let issuers = text("rules/example/issuers.toml");
    let console = issuers.split("\n\n").find(|entry| entry.contains("[issuers.console]")).unwrap();
    files.push(file("registry/issuers.toml", console));
    with_test_keys(&mut files);
    edit(
        &mut files,
        "approvals/risk.toml",
        "environments = [\"production\"]\npeople = 1",
        "environments = [\"*\"]\npeople = 1",
    );
    Arc::new(Rulebook::read(files).unwrap_or_else(|errors| panic!("{errors:?}")))
}

/// One recorded change an operation that needs one approval, with parameters that the log shows whole.
fn changes(book: &Rulebook) -> BTreeMap<String, Event> {
    let mut changes = BTreeMap::new();
    for row in rows("stratus").into_iter().chain(rows("invictus")) {
        let Ok(mut event) = decode(row["event"].to_string().as_bytes(), Format::Cloudtrail, RECEIVED).remove(0) else {
            continue;
        };
        resolve(&mut event, book);
        let is_whole = |value: &str| value.len() < 1_000 && !value.contains("HIDDEN") && !value.contains("***");
        let fits = book.risk.people(&event) == 1
            && event.agent.registered().is_some()
            && !matches!(event.outcome, Outcome::Denied(_) | Outcome::Failed(_))
            && !event.arguments.is_empty()
            && event.arguments.iter().all(|argument| is_whole(&argument.value));
        if fits {
            changes.entry(event.action.clone()).or_insert(event);
        }
    }
    changes
}

fn parameters(event: &Event) -> Map<String, Value> {
    let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    event.arguments.iter().map(|argument| (argument.name.clone(), value(&argument.value))).collect()
}

/// What the control says of a change for which exactly these parameters are approved.
fn judged(book: &Arc<Rulebook>, event: &Event, parameters: Map<String, Value>) -> Vec<String> {
    let approval = Approval {
        requester: "somebody".to_owned(),
        operation: event.action.clone(),
        resource: event.resource.id.clone(),
        parameters,
        digest: String::new(),
        count: 1,
        irreversible: true,
    };
    let approval = Approval { digest: approval.digest(), ..approval };
    let seconds = event.at / 1_000 - 60;
    let claims = json!({
        "iss": "https://console.example.com", "jti": "apr-1", "sub": "reviewer@example.com", "agent": event.agent.registered(),
        "iat": seconds, "exp": seconds + 3_600, "approval": approval,
    });
    let mut stated = decode(signed(&claims, &["console-1"]).as_bytes(), Format::Statement, RECEIVED).remove(0).unwrap();
    resolve(&mut stated, book);
    let mut engine = Engine::new(Arc::clone(book));
    let tick = Input::Tick { at: event.at + 3_600_000, audited_until: None };
    let inputs = [Input::Event(Box::new(stated)), Input::Event(Box::new(event.clone())), tick];
    let found = inputs.iter().flat_map(|input| engine.step(input).1);
    found.filter(|deviation| deviation.control == "approvals").map(|deviation| deviation.what).collect()
}

/// The value with something in it changed.
fn mutated(value: &Value) -> Value {
    match value {
        Value::Bool(truth) => json!(!truth),
        Value::Number(number) => json!(number.as_f64().unwrap() + 1.0),
        Value::String(text) => json!(format!("{text}x")),
        Value::Null => json!("x"),
        Value::Array(items) => items.iter().chain([&json!("x")]).cloned().collect(),
        Value::Object(members) => {
            let mut members = members.clone();
            members.insert("x".to_owned(), json!("x"));
            members.into()
        }
    }
}

#[test]
fn one_changed_field_is_caught_and_nothing_else() {
    assert!(root().join("tests/data/stratus.jsonl.gz").exists());
    let book = book();
    let operations: toml::Table = text("rules/approvals/operations.toml").parse().unwrap();
    let ignored: Vec<&str> = operations["ignored"].as_array().unwrap().iter().filter_map(toml::Value::as_str).collect();
    let changes = changes(&book);
    assert!(changes.len() >= 20, "only {}: {:?}", changes.len(), changes.keys());
    for (operation, event) in &changes {
        let approved = parameters(event);
        assert_eq!(judged(&book, event, approved.clone()), Vec::<String>::new(), "{operation}: as approved");
        let says_something = |value: &Value| ![json!({}), json!([]), json!(""), Value::Null].contains(value);
        for (name, _) in approved.iter().filter(|(_, value)| says_something(value)) {
            let mut other = approved.clone();
            other[name] = mutated(&approved[name]);
            let found = judged(&book, event, other);
            assert_eq!(found, [format!("is not what approval `apr-1` is for, in `{name}`")], "{operation}: {name}");

            let mut fewer = event.clone();
            fewer.arguments.retain(|argument| argument.name != *name);
            let found = judged(&book, &fewer, approved.clone());
            assert!(
                found.len() == 1 && found[0].contains("cannot be verified"),
                "{operation} without {name}: {found:?}"
            );

            let mut unasked = approved.clone();
            unasked.remove(name);
            if !ignored.contains(&name.as_str()) {
                let found = judged(&book, event, unasked);
                let expected = format!("is not what approval `apr-1` is for, in `{name}`");
                assert_eq!(found, [expected], "{operation}: {name} unasked");
            }
        }
    }
}
