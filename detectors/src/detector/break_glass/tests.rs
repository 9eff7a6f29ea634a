#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use serde_json::{Value, json};

use super::MOST_HELD;
use crate::engine::{Engine, Input};
use crate::event::Event;
use crate::testing::{at, book_of_statements, change, claims, control, stated};

const DETECTOR: &str =
    "[[detector]]\nkind = \"break-glass\"\nkeys = 2\nlongest = \"4h\"\ncontrols = [\"writes\"]\nreview_days = 2\n";
const POLICY: &str = "@id(\"x\")\nforbid (principal, action == Action::\"write\", resource);";

fn engine() -> Engine {
    let (glass, writes) = (control("glass", DETECTOR), control("writes", ""));
    let files =
        [("glass/control.toml", glass.as_str()), ("writes/control.toml", &writes), ("writes/policy.cedar", POLICY)];
    Engine::new(Arc::new(book_of_statements(&files)))
}

fn body() -> Value {
    json!({ "reason": "down", "controls": ["writes"], "operations": ["ecs:*"], "environments": ["production"] })
}

fn given(id: &str, body: &Value, keys: &[&str]) -> Event {
    stated(&claims(id, "2026-03-02T08:00:00Z", "override", body), keys)
}

fn found(engine: &mut Engine, event: Event) -> Vec<String> {
    let deviations = engine.step(&Input::Event(Box::new(event))).1;
    deviations.into_iter().map(|deviation| deviation.control).collect()
}

#[test]
fn an_override_by_two_silences_its_controls_in_its_scope_and_pages_once() {
    let mut engine = engine();
    assert!(found(&mut engine, given("o-1", &body(), &["k1", "k2"])).is_empty());
    assert_eq!(found(&mut engine, change(1, "ecs:StopTask", "2026-03-02T08:10:00Z")), ["glass"], "the first use pages");
    assert!(found(&mut engine, change(2, "ecs:StopTask", "2026-03-02T08:11:00Z")).is_empty());
    assert_eq!(found(&mut engine, change(3, "s3:PutObject", "2026-03-02T08:12:00Z")), ["writes"], "another operation");
    assert_eq!(found(&mut engine, change(4, "ecs:StopTask", "2026-03-02T09:00:01Z")), ["writes"], "it is over");
    assert_eq!(found(&mut engine, change(5, "ecs:StopTask", "2026-03-02T07:59:59Z")), ["writes"], "it had not begun");
    assert_eq!(engine.baselines().past("bot").profile().unwrap().learned, 0, "an emergency teaches nothing");
}

#[test]
fn one_key_or_one_persons_two_signatures_do_nothing() {
    for keys in [&["k1"][..], &["k1", "k1"]] {
        let mut engine = engine();
        assert_eq!(found(&mut engine, given("o-1", &body(), keys)), ["glass"], "{keys:?}");
        assert_eq!(found(&mut engine, change(1, "ecs:StopTask", "2026-03-02T08:10:00Z")), ["writes"]);
    }
}

#[test]
fn an_override_must_have_a_reason_a_scope_an_end_and_controls_that_yield() {
    for (name, value) in [
        ("reason", json!("")),
        ("operations", json!([])),
        ("environments", json!([])),
        ("controls", json!(["writes", "glass"])),
    ] {
        let mut body = body();
        body[name] = value;
        assert_eq!(found(&mut engine(), given("o-1", &body, &["k1", "k2"])), ["glass"], "{name}");
    }
    let mut long = claims("o-1", "2026-03-02T08:00:00Z", "override", &body());
    long["exp"] = json!(long["iat"].as_i64().unwrap() + 4 * 3_600 + 1);
    assert_eq!(found(&mut engine(), stated(&long, &["k1", "k2"])), ["glass"]);
}

#[test]
fn a_use_that_nobody_reviews_escalates_once_and_a_review_by_another_ends_it() {
    for reviewed in [false, true] {
        let mut engine = engine();
        found(&mut engine, given("o-1", &body(), &["k1", "k2"]));
        found(&mut engine, change(1, "ecs:StopTask", "2026-03-02T08:10:00Z"));
        let review = |id: &str, by: &str| {
            let mut claims =
                claims(id, "2026-03-03T08:00:00Z", "review", &json!({ "override": "o-1", "finding": "fine" }));
            claims["sub"] = json!(by);
            stated(&claims, &["k1"])
        };
        assert_eq!(found(&mut engine, review("r-1", "mei@example.com")), ["glass"], "her own");
        if reviewed {
            assert!(found(&mut engine, review("r-2", "ana@example.com")).is_empty());
        }
        let mut tick = |time| engine.step(&Input::Tick { at: at(time), audited_until: None }).1.len();
        assert_eq!(tick("2026-03-04T09:00:00Z"), 0, "two working days are not over");
        assert_eq!(tick("2026-03-04T09:00:01Z"), usize::from(!reviewed));
        assert_eq!(tick("2026-03-09T09:00:00Z"), 0);
    }
}

#[test]
fn overrides_are_bounded() {
    let mut engine = engine();
    for number in 0..MOST_HELD + 4 {
        found(&mut engine, given(&format!("o-{number}"), &body(), &["k1", "k2"]));
    }
    assert_eq!(engine.baselines().past("bot").dossier().overrides.len(), MOST_HELD);
}
