#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use serde_json::json;

use super::MOST_WATCHED;
use crate::deviation::Deviation;
use crate::engine::{Engine, Input};
use crate::event::{Event, Outcome, Source};
use crate::testing::{at, book_of_statements, change, claims, control, stated};

const DETECTOR: &str = "[[detector]]\nkind = \"rollback\"\nwatch = \"1h\"\nacknowledge = \"15m\"\nforget = \"7d\"\n\
    environments = [\"production\"]\ndenials = 2\n";
const OPERATIONS: &str = "[operations.\"ecs:StopTask\"]\ninverse = \"ecs:RunTask\"\n";

fn engine() -> Engine {
    let detector = control("undo", DETECTOR);
    let files = [("undo/control.toml", detector.as_str()), ("approvals/operations.toml", OPERATIONS)];
    Engine::new(Arc::new(book_of_statements(&files)))
}

fn stop(number: u32, time: &str, resource: &str) -> Event {
    let mut event = change(number, "ecs:StopTask", time);
    event.resource.id = resource.to_owned();
    event.place.team = "payments".to_owned();
    event
}

fn signal(id: &str, time: &str, resource: &str) -> Event {
    stated(&claims(id, time, "signal", &json!({ "name": "Errors", "resource": resource })), &["k1"])
}

fn found(engine: &mut Engine, event: Event) -> Vec<Deviation> {
    engine.step(&Input::Event(Box::new(event))).1
}

fn tick(engine: &mut Engine, time: &str) -> usize {
    engine.step(&Input::Tick { at: at(time), audited_until: None }).1.len()
}

#[test]
fn a_sign_after_a_change_asks_for_its_undoing_once() {
    let mut engine = engine();
    found(&mut engine, stop(1, "2026-03-02T08:00:00Z", "task/1"));
    found(&mut engine, stop(2, "2026-03-02T08:05:00Z", "task/2"));
    let request = found(&mut engine, signal("s-1", "2026-03-02T08:10:00Z", "task/1")).remove(0);
    let rollback = request.rollback.unwrap();
    assert_eq!((rollback.id.as_str(), rollback.operation.as_deref()), ("rollback/test/1", Some("ecs:RunTask")));
    assert_eq!(rollback.notify, ["ana@example.com", "payments"]);
    assert!(found(&mut engine, signal("s-2", "2026-03-02T08:11:00Z", "task/1")).is_empty(), "asked for already");
    let latest = found(&mut engine, signal("s-3", "2026-03-02T08:12:00Z", "")).remove(0);
    assert_eq!(latest.rollback.unwrap().id, "rollback/test/2", "no resource: the latest change");
}

#[test]
fn a_request_must_be_acknowledged() {
    for (restored, time, said, late) in [(true, "08:20", 0, 0), (false, "08:20", 1, 0), (true, "08:40", 0, 1)] {
        let mut engine = engine();
        found(&mut engine, stop(1, "2026-03-02T08:00:00Z", "task/1"));
        found(&mut engine, signal("s-1", "2026-03-02T08:10:00Z", ""));
        assert_eq!(tick(&mut engine, "2026-03-02T08:19:00Z"), 0);
        if late > 0 {
            assert_eq!(tick(&mut engine, "2026-03-02T08:26:00Z"), 1, "nobody acknowledged");
        }
        let body = json!({ "rollback": "rollback/test/1", "restored": restored, "note": "n" });
        let claims = claims("k-1", &format!("2026-03-02T{time}:00Z"), "acknowledgement", &body);
        assert_eq!(found(&mut engine, stated(&claims, &["k1"])).len(), said);
        assert_eq!(tick(&mut engine, "2026-03-02T09:30:00Z"), 0, "done with");
    }
}

#[test]
fn refusals_after_a_change_are_a_sign() {
    let mut engine = engine();
    let refused =
        |number| Event { outcome: Outcome::Denied(String::new()), ..stop(number, "2026-03-02T08:10:00Z", "x") };
    assert!(found(&mut engine, refused(1)).is_empty(), "there was no change");
    found(&mut engine, stop(2, "2026-03-02T08:00:00Z", "task/1"));
    assert!(found(&mut engine, refused(3)).is_empty());
    let request = found(&mut engine, refused(4)).remove(0);
    assert_eq!(request.rollback.unwrap().id, "rollback/test/2");
    assert!(found(&mut engine, refused(5)).is_empty());
}

#[test]
fn the_agents_word_counts_where_the_audit_log_never_saw_it() {
    let mut engine = engine();
    let said = Event {
        source: Source::AgentAction,
        pre_state: Some("s3://states/1".to_owned()),
        ..stop(1, "2026-03-02T08:00:00Z", "task/1")
    };
    found(&mut engine, said.clone());
    let rollback = found(&mut engine, signal("s-1", "2026-03-02T08:10:00Z", "")).remove(0).rollback.unwrap();
    assert_eq!(rollback.pre_state.as_deref(), Some("s3://states/1"));
    found(&mut engine, Event { verb: crate::event::Verb::Read, ..stop(2, "2026-03-02T08:11:00Z", "") });
    found(&mut engine, Event { id: "test/3".to_owned(), digest: crate::event::Digest(3), ..said });
    assert!(
        found(&mut engine, signal("s-2", "2026-03-02T08:12:00Z", "")).is_empty(),
        "now the audit log would show it"
    );
}

#[test]
fn watched_changes_are_bounded_and_open_requests_stay() {
    let mut engine = engine();
    found(&mut engine, stop(0, "2026-03-02T08:00:00Z", "task/0"));
    found(&mut engine, signal("s-1", "2026-03-02T08:00:30Z", "task/0"));
    for number in 1..u32::try_from(MOST_WATCHED).unwrap() + 9 {
        found(&mut engine, stop(number, "2026-03-02T08:01:00Z", &format!("task/{number}")));
    }
    let changes = &engine.baselines().past("bot").dossier().changes;
    assert_eq!(changes.len(), MOST_WATCHED);
    assert!(changes[0].requested.is_some());
}
