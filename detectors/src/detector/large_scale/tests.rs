#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use serde_json::json;

use super::{MOST_SUMS, longest_list};
use crate::engine::{Engine, Input};
use crate::event::{Event, Outcome, Source};
use crate::testing::{approval, argument, at, book_of_statements, change, claims, control, stated};

const RISK: &str = "[[limit]]\nname = \"deletions\"\noperations = [\"*:Delete*\"]\nper_action = 3\nper_run = 5\nper_hour = 8\n\
    [unlisted]\nenvironments = []\npeople = 0\n";

const DETECTORS: &str = "[[detector]]\nkind = \"approval\"\ngrace = \"2m\"\nsettles = \"1h\"\nskew = \"5s\"\n\
    [[detector]]\nkind = \"large-scale\"\n";

fn engine() -> Engine {
    let detector = control("scale", DETECTORS);
    let files = [("scale/control.toml", detector.as_str()), ("approvals/risk.toml", RISK)];
    Engine::new(Arc::new(book_of_statements(&files)))
}

fn delete(number: u32, session: &str, minute: i64) -> Event {
    let mut event = change(number, "s3:DeleteObject", "2026-03-02T08:00:00Z");
    event.at = at("2026-03-02T08:00:00Z") + minute * 60_000;
    event.principal.session = session.to_owned();
    event
}

fn found(engine: &mut Engine, events: impl IntoIterator<Item = Event>) -> Vec<String> {
    let inputs = events.into_iter().map(|event| Input::Event(Box::new(event)));
    inputs.flat_map(|input| engine.step(&input).1).map(|deviation| deviation.evidence[0].observed.clone()).collect()
}

#[test]
fn small_steps_are_summed_over_runs_and_hours() {
    let mut engine = engine();
    assert!(found(&mut engine, (0..5).map(|n| delete(n, "a", 0))).is_empty());
    assert_eq!(found(&mut engine, [delete(5, "a", 1)]), ["6 in one run"]);
    assert!(found(&mut engine, [delete(6, "a", 2)]).is_empty(), "once an hour");
    let mut engine = self::engine();
    let sessions = ["a", "b", "c"].into_iter().cycle();
    let eight: Vec<Event> = (0..8).zip(sessions).map(|(n, session)| delete(n, session, i64::from(n))).collect();
    assert!(found(&mut engine, eight).is_empty());
    assert_eq!(found(&mut engine, [delete(8, "d", 9)]), ["9 in an hour"]);
    assert!(found(&mut engine, (9..12).map(|n| delete(n, "e", 200))).is_empty(), "the hour is over");
}

#[test]
fn one_action_may_be_large_by_itself() {
    let mut event = delete(0, "a", 0);
    event.arguments = vec![argument("objects", &json!([1, 2, 3, 4]).to_string())];
    assert_eq!(found(&mut engine(), [event.clone()]), ["4 in one action"]);
    let refused = Event { outcome: Outcome::Denied(String::new()), ..event.clone() };
    assert!(found(&mut engine(), [refused]).is_empty());
    let mut engine = engine();
    let bulk = approval("s3:Delete*", "", &json!({}), 4);
    let bulk = stated(&claims("a-1", "2026-03-02T07:59:00Z", "approval", &bulk), &["k1"]);
    assert!(found(&mut engine, [bulk, event.clone()]).is_empty(), "covered");
    event.id = "test/9".to_owned();
    event.digest = crate::event::Digest(9);
    assert_eq!(found(&mut engine, [event]), ["8 in one run"], "by an approval of four");
}

#[test]
fn what_agents_say_and_what_the_log_shows_are_summed_apart() {
    let said = |n| Event { source: Source::AgentAction, ..delete(n, "a", 0) };
    assert!(found(&mut engine(), (0..4).map(|n| delete(n, "a", 0)).chain((4..8).map(said))).is_empty());
}

#[test]
fn made_up_runs_take_no_more_than_their_room() {
    let mut engine = engine();
    found(&mut engine, (0..500).map(|n| delete(n, &format!("s-{n}"), i64::from(n) * 10)));
    let hours = 1;
    assert_eq!(engine.baselines().past("bot").dossier().sums.len(), MOST_SUMS + hours);
}

#[test]
fn lists_are_counted_also_where_they_are_cut() {
    assert_eq!(longest_list("plain"), 0);
    assert_eq!(longest_list("[1,2]"), 2);
    assert_eq!(longest_list("{\"items\":[{\"a\":1},{\"a\":2}]}"), 2);
    assert_eq!(longest_list("{\"items\":[{\"a\":1},{\"a\":2},{\"a\":"), 3);
}

#[test]
fn made_up_runs_push_out_nothing_that_the_audit_log_knows() {
    let mut engine = engine();
    assert!(found(&mut engine, (0..5).map(|n| delete(n, "a", 0))).is_empty());
    found(&mut engine, (100..300).map(|n| Event { source: Source::AgentAction, ..delete(n, &format!("s-{n}"), 0) }));
    assert_eq!(found(&mut engine, [delete(5, "a", 0)]), ["6 in one run"]);
}

#[test]
fn of_a_list_that_was_cut_as_many_count_as_there_are() {
    for list in [r#"["one","two","three","fo"#, r#"[{"a":1},{"a":2},{"a":3},{"a""#] {
        let event = Event { arguments: vec![argument("names", list)], ..delete(0, "a", 0) };
        assert_eq!(found(&mut engine(), [event]), ["4 in one action"], "{list}");
    }
}
