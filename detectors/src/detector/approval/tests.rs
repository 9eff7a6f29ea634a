#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use serde_json::{Value, json};

use super::{MOST_HELD, MOST_WAITING};
use crate::baselines::Baselines;
use crate::engine::{Engine, Input};
use crate::event::{Event, Outcome, Source};
use crate::testing::{approval, argument, at, book_of_statements, change, claims, control, stated};

const DETECTOR: &str = "[[detector]]\nkind = \"approval\"\ngrace = \"2m\"\nsettles = \"1h\"\nskew = \"5s\"\n";
const RISK: &str = "[unlisted]\nenvironments = [\"production\"]\npeople = 1\n";

fn engine() -> Engine {
    with_risk(RISK)
}

fn with_risk(risk: &str) -> Engine {
    let detector = control("approvals", DETECTOR);
    let files = [("approvals/control.toml", detector.as_str()), ("approvals/risk.toml", risk)];
    Engine::new(Arc::new(book_of_statements(&files)))
}

fn step(engine: &mut Engine, event: &Event) -> Vec<String> {
    engine.step(&Input::Event(Box::new(event.clone()))).1.into_iter().map(|deviation| deviation.what).collect()
}

fn tick(engine: &mut Engine, time: &str) -> Vec<String> {
    let input = Input::Tick { at: at(time), audited_until: None };
    engine.step(&input).1.into_iter().map(|deviation| deviation.what).collect()
}

fn approved(id: &str, time: &str, by: &str) -> Event {
    let mut claims = claims(id, time, "approval", &approval("ecs:StopTask", "task/1", &json!({ "force": true }), 1));
    claims["sub"] = json!(by);
    stated(&claims, &["k1"])
}

fn stop(number: u32, time: &str) -> Event {
    let mut event = change(number, "ecs:StopTask", time);
    event.resource.id = "task/1".to_owned();
    event.arguments = vec![argument("force", "true")];
    event
}

#[test]
fn an_approval_is_for_one_change() {
    let mut engine = engine();
    assert_eq!(step(&mut engine, &approved("a-1", "2026-03-02T08:00:00Z", "mei@example.com")), Vec::<String>::new());
    assert!(step(&mut engine, &stop(1, "2026-03-02T08:10:00Z")).is_empty());
    assert!(tick(&mut engine, "2026-03-02T08:20:00Z").is_empty());
    assert!(step(&mut engine, &stop(2, "2026-03-02T08:30:00Z")).is_empty(), "it waits");
    assert!(tick(&mut engine, "2026-03-02T08:31:00Z").is_empty(), "for as long as the grace is");
    let found = tick(&mut engine, "2026-03-02T08:33:00Z");
    assert_eq!(found, ["has approval `a-1`, which was used up, and needs one by a person"]);
    assert!(tick(&mut engine, "2026-03-02T08:34:00Z").is_empty(), "and is reported once");
}

#[test]
fn both_sides_of_a_change_are_one_change() {
    let mut engine = engine();
    let said = |number, time| Event { source: Source::AgentAction, ..stop(number, time) };
    step(&mut engine, &said(1, "2026-03-02T08:10:00Z"));
    step(&mut engine, &stop(2, "2026-03-02T08:10:05Z"));
    assert_eq!(tick(&mut engine, "2026-03-02T08:20:00Z").len(), 1);
    step(&mut engine, &stop(3, "2026-03-02T08:21:00Z"));
    assert!(tick(&mut engine, "2026-03-02T08:30:00Z").is_empty(), "the audit log is late, and was told of already");
    step(&mut engine, &stop(4, "2026-03-02T09:30:00Z"));
    assert_eq!(tick(&mut engine, "2026-03-02T09:40:00Z").len(), 1, "this is another");
    step(&mut engine, &approved("a-1", "2026-03-02T10:00:00Z", "mei@example.com"));
    step(&mut engine, &said(5, "2026-03-02T10:10:00Z"));
    step(&mut engine, &stop(6, "2026-03-02T10:10:05Z"));
    assert!(tick(&mut engine, "2026-03-02T10:20:00Z").is_empty(), "one approval for both");
}

#[test]
fn two_people_are_two_people() {
    let two = "[[rule]]\noperations = [\"ecs:Stop*\"]\npeople = 2\n[unlisted]\nenvironments = []\npeople = 0\n";
    for (second, expected) in [("tom@example.com", None), ("mei@example.com", Some("has an approval by 1 of 2 people"))]
    {
        let mut engine = with_risk(two);
        step(&mut engine, &approved("a-1", "2026-03-02T08:00:00Z", "mei@example.com"));
        step(&mut engine, &approved("a-2", "2026-03-02T08:01:00Z", second));
        step(&mut engine, &stop(1, "2026-03-02T08:10:00Z"));
        let found = tick(&mut engine, "2026-03-02T08:20:00Z");
        assert_eq!(found.first().is_some_and(|what| what.starts_with(expected.unwrap_or("-"))), expected.is_some());
    }
}

#[test]
fn what_was_executed_must_be_what_was_approved() {
    let cases: [(&str, Value, Option<&str>); 6] = [
        ("true", json!({ "force": true }), None),
        ("false", json!({ "force": true }), Some("is not what approval `a-1` is for, in `force`")),
        ("true", json!({}), Some("is not what approval `a-1` is for, in `force`")),
        ("true", json!({ "force": "true" }), None),
        ("[redacted:key:0011]", json!({ "force": true }), Some("is approved, but the audit log does not show `force`")),
        (
            "true",
            json!({ "force": true, "reason": "x" }),
            Some("is approved, but the audit log does not show `reason`"),
        ),
    ];
    for (executed, parameters, expected) in cases {
        let mut engine = engine();
        let approval = approval("ecs:StopTask", "task/1", &parameters, 1);
        step(&mut engine, &stated(&claims("a-1", "2026-03-02T08:00:00Z", "approval", &approval), &["k1"]));
        let mut event = stop(1, "2026-03-02T08:10:00Z");
        event.arguments = vec![argument("force", executed)];
        let found = step(&mut engine, &event);
        assert_eq!(found.len(), usize::from(expected.is_some()), "{executed} {parameters}: {found:?}");
        assert!(found.iter().all(|what| what.starts_with(expected.unwrap_or_default())), "{found:?}");
        assert!(tick(&mut engine, "2026-03-02T08:20:00Z").is_empty(), "said once");
    }
}

#[test]
fn what_waits_for_an_approval_is_not_learned() {
    let mut engine = engine();
    step(&mut engine, &stop(1, "2026-03-02T08:10:00Z"));
    let learned = |engine: &Engine| engine.baselines().past("bot").profile().unwrap().learned;
    assert_eq!(learned(&engine), 0);
    let refused = Event { outcome: Outcome::Denied(String::new()), ..stop(2, "2026-03-02T08:11:00Z") };
    step(&mut engine, &refused);
    assert_eq!(tick(&mut engine, "2026-03-02T08:20:00Z").len(), 1, "what was refused changed nothing");
}

#[test]
fn who_waits_too_much_is_reported_at_once_and_approvals_are_bounded() {
    let mut engine = engine();
    for number in 0..u32::try_from(MOST_WAITING).unwrap() + 3 {
        let mut event = stop(number, "2026-03-02T08:10:00Z");
        event.resource.id = format!("task/{number}");
        step(&mut engine, &event);
    }
    assert_eq!(tick(&mut engine, "2026-03-02T08:10:01Z").len(), 3, "the oldest");
    for number in 0..MOST_HELD + 5 {
        step(&mut engine, &approved(&format!("a-{number}"), "2026-03-02T08:00:00Z", "mei@example.com"));
    }
    assert_eq!(engine.baselines().past("bot").dossier().approvals.len(), MOST_HELD);
}

#[test]
fn the_same_statement_again_is_no_second_approval() {
    let mut engine = engine();
    let first = approved("a-1", "2026-03-02T08:00:00Z", "mei@example.com");
    step(&mut engine, &first);
    step(&mut engine, &stop(1, "2026-03-02T08:10:00Z"));
    // The same claims in another JWS: the id counts.
    let again = Event { digest: crate::event::Digest(99), ..first };
    step(&mut engine, &again);
    step(&mut engine, &stop(2, "2026-03-02T08:11:00Z"));
    assert_eq!(tick(&mut engine, "2026-03-02T08:20:00Z").len(), 1);
}

#[test]
fn approvals_outlive_a_restart() {
    let mut engine = engine();
    step(&mut engine, &approved("a-1", "2026-03-02T08:00:00Z", "mei@example.com"));
    step(&mut engine, &stop(1, "2026-03-02T08:10:00Z"));
    let memory = Baselines::restore(&engine.baselines().snapshot().unwrap()).unwrap();
    let mut again = Engine::resume(Arc::clone(engine.rulebook()), memory);
    step(&mut again, &stop(2, "2026-03-02T08:11:00Z"));
    assert_eq!(tick(&mut again, "2026-03-02T08:20:00Z").len(), 1, "used up before");
}

#[test]
fn what_is_found_later_of_an_event_has_an_id_of_its_own() {
    let detectors = format!("{DETECTOR}[[detector]]\nkind = \"large-scale\"\n");
    let detector = control("approvals", &detectors);
    let limit =
        "[[limit]]\nname = \"stops\"\noperations = [\"ecs:Stop*\"]\nper_action = 9\nper_run = 9\nper_hour = 1\n";
    let risk = format!("{limit}{RISK}");
    let files = [("approvals/control.toml", detector.as_str()), ("approvals/risk.toml", risk.as_str())];
    let mut engine = Engine::new(Arc::new(book_of_statements(&files)));
    let mut inputs = vec![Input::Event(Box::new(stop(1, "2026-03-02T08:10:00Z")))];
    inputs.push(Input::Event(Box::new(stop(2, "2026-03-02T08:10:01Z"))));
    inputs.push(Input::Tick { at: at("2026-03-02T08:20:00Z"), audited_until: None });
    let mut ids: Vec<String> = inputs.iter().flat_map(|input| engine.step(input).1).map(|found| found.id).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
}

#[test]
fn what_enough_people_approved_for_exactly_this_change_silences_what_it_clears() {
    let clears = DETECTOR.trim_end().to_owned() + "\nclears = { controls = [\"never\"], people = 2 }\n";
    let policy = "@id(\"x\")\nforbid (principal, action == Action::\"write\", resource);";
    let (approvals, never) = (control("approvals", &clears), control("never", ""));
    let files = [
        ("approvals/control.toml", approvals.as_str()),
        ("approvals/risk.toml", "[unlisted]\nenvironments = []\npeople = 0\n"),
        ("never/control.toml", &never),
        ("never/policy.cedar", policy),
    ];
    let book = Arc::new(book_of_statements(&files));
    let body = approval("ec2:StopInstances", "i-1", &json!({ "force": true }), 1);
    let by = |id: &str, sub: &str| {
        let mut given = claims(id, "2026-03-02T08:59:00Z", "approval", &body);
        given["sub"] = json!(sub);
        stated(&given, &["k1"])
    };
    let mut act = change(1, "ec2:StopInstances", "2026-03-02T09:00:00Z");
    (act.resource.id, act.arguments) = ("i-1".to_owned(), vec![argument("force", "true")]);
    let found = |persons: &[&str], act: &Event| {
        let mut engine = Engine::new(Arc::clone(&book));
        for (id, person) in persons.iter().enumerate() {
            assert!(engine.step(&Input::Event(Box::new(by(&id.to_string(), person)))).1.is_empty());
        }
        engine.step(&Input::Event(Box::new(act.clone()))).1.len()
    };
    let two = ["mei@example.com", "tom@example.com"];
    assert_eq!(found(&two, &act), 0);
    assert_eq!(found(&two[..1], &act), 1, "one is not enough");
    let denied = Event { outcome: Outcome::Denied("no".to_owned()), ..act.clone() };
    assert_eq!(found(&two, &denied), 0, "nor is an approved attempt that fails");
    let mut other = act.clone();
    other.arguments = vec![argument("force", "false")];
    assert_eq!(found(&two, &other), 1, "another parameter");
    other.arguments.clear();
    assert_eq!(found(&two, &other), 1, "what cannot be verified is not cleared");
}
