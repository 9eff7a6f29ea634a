//! What is asked and what is logged are one event.

use std::fs;

use tautline_detectors::deviation::Deviation;
use tautline_detectors::engine::{Engine, Input};
use tautline_detectors::event::{AgentRef, Outcome, Verb};
use tautline_ingest::{Format, Reader};

use super::super::act::{Subject, event, time};
use super::super::authzen;
use super::*;

/// The question that an agent would have asked before what it says it did.
fn question_of(action: &Value) -> Value {
    let data = &action["data"];
    let operation = data["operation"].as_str();
    let arguments = data["arguments"].as_object().cloned().unwrap_or_default();
    let of = |member: &str| -> Value {
        arguments
            .iter()
            .map(|(name, argument)| (name.clone(), argument[member].clone()))
            .filter(|(_, v)| !v.is_null())
            .collect()
    };
    let places = ["account", "cluster", "environment", "namespace", "region"];
    let properties: Value = places.map(|name| (name.to_owned(), data[name].clone())).into_iter().collect();
    let mut context = json!({ "time": action["time"], "reasoning": data["reasoning"], "session": data["session"] });
    if operation.is_some() {
        context["tool"] = data["tool"].clone();
    }
    if let Some(playbook) = data["playbook"].as_object() {
        context["run"] = json!({ "playbook": playbook["id"], "id": playbook.get("run") });
    }
    for name in ["approval", "credential", "origin", "pre_state", "trace"] {
        context[name] = data[name].clone();
    }
    let (agent, target) = (&data["agent"], &data["resource"]);
    json!({
        "subject": {
            "type": "agent", "id": agent["id"],
            "properties": { "identity": agent["identity"], "on_behalf_of": agent["on_behalf_of"] },
        },
        "action": {
            "name": operation.or(data["tool"].as_str()),
            "properties": { "verb": data["verb"], "parameters": of("value"), "origins": of("origin") },
        },
        "resource": {
            "type": target["type"].as_str().unwrap_or_default(), "id": target["id"].as_str().unwrap_or_default(),
            "properties": properties,
        },
        "context": context,
    })
}

fn asked(question: Value, book: &Rulebook) -> Event {
    let request = authzen::Request::read(question).unwrap();
    let at = time(&request, jiff::Timestamp::UNIX_EPOCH).unwrap();
    let subject = Subject::of(&request, book).unwrap();
    event(&request, &subject, ("id", at), &mut redaction::of_examples().unwrap(), book).unwrap()
}

/// The events of all controls that agents themselves told.
fn told() -> Vec<Value> {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let folders = fs::read_dir(rules).unwrap().map(|folder| folder.unwrap().path());
    let files =
        folders.flat_map(|folder| ["fires.jsonl", "silent.jsonl", "history.jsonl"].map(|name| folder.join(name)));
    let texts = files.filter_map(|path| fs::read_to_string(path).ok());
    let lines: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let values = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    values.filter(|value| value["type"] == "tautline.agent.action.v1").collect()
}

/// What a deviation says, but for the ids and how the act ended, which nobody knows before.
fn said(deviations: Vec<Deviation>) -> Vec<(String, String, String, String)> {
    let said = deviations.into_iter().map(|d| (d.control, d.severity.to_string(), d.what, d.counterfactual));
    said.collect()
}

#[test]
fn what_is_asked_is_what_will_be_logged() {
    let (book, mut compared) = (book(false), 0);
    for action in told() {
        let mut redactor = redaction::of_examples().unwrap();
        let bytes = action.to_string();
        let logged =
            redactor.read(bytes.as_bytes(), &Reader::Format(Format::AgentAction), 4_102_444_800_000, &book).pop();
        // How it ended is what nobody knows before.
        let Some(Ok(logged)) = logged else { continue };
        let logged = Event { outcome: Outcome::Unknown, ..logged };
        let asked = asked(question_of(&action), &book);
        let judged =
            |event: &Event| said(Engine::new(Arc::clone(&book)).step(&Input::Event(Box::new(event.clone()))).1);
        assert_eq!(judged(&asked), judged(&logged), "{action}");
        let asked = Event { id: logged.id.clone(), digest: logged.digest, ..asked };
        assert_eq!(asked, logged, "{action}");
        compared += 1;
    }
    assert!(compared > 100, "only {compared} actions were compared");
}

#[test]
fn a_subject_is_an_agent_by_its_id_or_by_an_identity() {
    let book = book(false);
    let of = |kind: &str, id: &str| {
        let question = json!({ "subject": { "type": kind, "id": id }, "action": { "name": "x" }, "resource": { "type": "", "id": "" } });
        Subject::of(&authzen::Request::read(question).unwrap(), &book).map(|subject| subject.agent)
    };
    let role = "arn:aws:iam::222222222222:role/deploy-bot";
    let session = "arn:aws:sts::222222222222:assumed-role/deploy-bot/session";
    assert_eq!(of("agent", "deploy-bot").as_deref(), Some("deploy-bot"));
    assert_eq!(of("agent", "stranger").as_deref(), Some("stranger"), "policies judge those as well");
    for kind in ["identity", "user"] {
        assert_eq!(of(kind, role).as_deref(), Some("deploy-bot"));
        assert_eq!(of(kind, session).as_deref(), Some("deploy-bot"));
        assert_eq!(of(kind, "deploy-bot"), None, "an id is no identity");
    }
}

#[test]
fn an_identity_that_asks_is_the_one_that_acts() {
    let book = book(false);
    let mut question = deletion();
    question["subject"] =
        json!({ "type": "identity", "id": "arn:aws:sts::222222222222:assumed-role/deploy-bot/session-1" });
    let event = asked(question, &book);
    assert_eq!(event.agent, AgentRef::Registered("deploy-bot".to_owned()));
    assert_eq!(event.principal.id, "arn:aws:iam::222222222222:role/deploy-bot");
    assert_eq!(event.principal.session, "session-1");
    assert_eq!((event.tool.as_str(), event.action.as_str(), event.verb), ("aws_cli", "ec2:DeleteVolume", Verb::Write));
    assert_eq!(event.place.environment, "production", "the estate's word counts");
    assert_eq!(event.claimed_environment.as_deref(), Some("staging"));
}

#[test]
fn a_tool_without_an_operation_is_the_action() {
    let book = book(false);
    let event = asked(lookup(), &book);
    assert_eq!((event.tool.as_str(), event.action.as_str()), ("search_logs", "search_logs"));
    let run = event.run.unwrap();
    assert_eq!((run.playbook.as_str(), run.id.as_str(), run.session.as_str()), ("restart-service", "r-1", "inc-1"));
}

#[test]
fn what_cannot_be_is_said() {
    let book = book(false);
    let fault = |pointer: &str, value: Value| {
        let mut question = lookup();
        *question.pointer_mut(pointer).unwrap() = value;
        let request = authzen::Request::read(question).unwrap();
        let at = match time(&request, jiff::Timestamp::UNIX_EPOCH) {
            Ok(at) => at,
            Err(fault) => return fault.message,
        };
        let subject = Subject::of(&request, &book).unwrap();
        event(&request, &subject, ("id", at), &mut redaction::of_examples().unwrap(), &book).unwrap_err().message
    };
    assert_eq!(fault("/context/time", json!("soon")), "`context.time`: `\"soon\"` is no RFC 3339 time");
    assert_eq!(fault("/context/time", json!(17)), "`context.time`: `17` is no RFC 3339 time");
    assert_eq!(fault("/action/properties/parameters", json!(["x"])), "`action.properties.parameters` is no object");
    assert!(fault("/action/properties/verb", json!("fly")).contains("data.verb"));
    assert!(fault("/action/name", json!("")).contains("data.tool"));
    assert!(fault("/context/time", json!("1985-10-26T01:22-07:00")).contains("implausible-time"));
}
