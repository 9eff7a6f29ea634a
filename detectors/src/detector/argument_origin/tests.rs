#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use super::*;
use crate::deviation::Deviation;
use crate::engine::{Engine, Input};
use crate::event::{Source, Verb};
use crate::testing::{book, control, event};

const TIME: &str = "2026-03-02T09:00:00Z";
const USER: Option<ArgumentOrigin> = Some(ArgumentOrigin::UserRequest);
const TOOL: Option<ArgumentOrigin> = Some(ArgumentOrigin::ToolOutput);

fn engine() -> Engine {
    let rules = "\n[[detector]]\nkind = \"argument-origin\"\np_value = 0.05\n";
    Engine::new(Arc::new(book(&[("origins/control.toml", &control("origins", rules))])))
}

fn change(number: u32, value: &str, origin: Option<ArgumentOrigin>) -> Event {
    let argument = Argument { name: "image".to_owned(), value: value.to_owned(), origin };
    Event { verb: Verb::Write, arguments: vec![argument], ..event(number, "ecs:UpdateService", TIME) }
}

fn found(engine: &mut Engine, event: Event) -> Vec<Deviation> {
    engine.step(&Input::Event(Box::new(event))).1
}

fn with_habit(origin: Option<ArgumentOrigin>, times: u32) -> Engine {
    let mut engine = engine();
    for number in 0..times {
        assert_eq!(found(&mut engine, change(number, &format!("v{number}"), origin)), []);
    }
    engine
}

#[test]
fn a_value_from_a_tool_surprises_where_none_ever_was() {
    let mut engine = with_habit(USER, 20);
    let found = found(&mut engine, change(100, "evil", TOOL));
    assert_eq!(found.len(), 1);
    let evidence = &found[0].evidence[0];
    assert_eq!((evidence.sample, evidence.p_value), (20, Some(0.5 / 21.0)));
    assert!(!format!("{found:?}").contains("evil"), "values do not leave memory");
}

#[test]
fn a_little_past_an_unknown_origin_and_other_arguments_surprise_nobody() {
    assert_eq!(found(&mut with_habit(USER, 5), change(100, "x", TOOL)), []);
    assert_eq!(found(&mut with_habit(None, 50), change(100, "x", TOOL)), []);
    let other = Event { action: "ecs:RunTask".to_owned(), ..change(100, "x", TOOL) };
    assert_eq!(found(&mut with_habit(USER, 50), other), []);
}

#[test]
fn a_step_that_takes_it_from_a_tool_and_a_known_value_are_usual() {
    assert_eq!(found(&mut with_habit(TOOL, 50), change(100, "new", TOOL)), []);
    assert_eq!(found(&mut with_habit(USER, 20), change(100, "v7", TOOL)), []);
}

#[test]
fn reads_and_audit_records_do_not_count() {
    let mut engine = with_habit(USER, 20);
    assert_eq!(found(&mut engine, Event { verb: Verb::Read, ..change(100, "x", TOOL) }), []);
    assert_eq!(found(&mut engine, Event { source: Source::Cloudtrail, ..change(101, "x", TOOL) }), []);
}

#[test]
fn what_was_reported_is_neither_reported_again_nor_learned_until_a_person_accepts_it() {
    let mut engine = with_habit(USER, 20);
    assert_eq!(found(&mut engine, change(100, "x", TOOL)).len(), 1);
    assert_eq!(found(&mut engine, change(101, "x", TOOL)), []);
    assert_eq!(found(&mut engine, change(102, "y", TOOL)).len(), 1, "the repeat was not learned");
    engine.step(&Input::Accepted(Box::new(change(103, "x", TOOL))));
    assert_eq!(found(&mut engine, change(104, "z", TOOL)), []);
}

#[test]
fn memory_is_bounded_and_forgets_what_is_not_used() {
    let mut engine = with_habit(USER, 20);
    for number in 0..300 {
        let mut event = change(1_000 + number, "v", USER);
        event.arguments[0].name = format!("made-up-{number}");
        found(&mut engine, event);
    }
    for number in 0..100 {
        found(&mut engine, change(2_000 + number, &number.to_string(), USER));
    }
    let habits = &engine.baselines().past("bot").dossier().habits.arguments;
    assert_eq!((habits.len(), habits.last().unwrap().values.len()), (MOST_ARGUMENTS, MOST_VALUES));
}
