use std::sync::Arc;

use super::*;
use crate::deviation::Deviation;
use crate::engine::{Engine, Input};
use crate::event::{Outcome, Resource};
use crate::testing::{at, book, control, event};

const START: &str = "2026-03-02T00:00:00Z";

fn engine() -> Engine {
    let rules = "\n[[detector]]\nkind = \"read-habit\"\ndata = [\"secrets\"]\nleast_windows = 3\n\
        reads = { p_value = 1e-4, least = 20 }\nresources = { p_value = 1e-4, least = 8 }\n";
    Engine::new(Arc::new(book(&[("reads/control.toml", &control("reads", rules))])))
}

fn read(number: u32, window: i64, id: &str, data: &str) -> Event {
    let resource = Resource { id: id.to_owned(), data: data.to_owned(), ..Resource::default() };
    Event { at: at(START) + window * WINDOW, resource, ..event(number, "secretsmanager:GetSecretValue", START) }
}

fn step(engine: &mut Engine, event: Event) -> Vec<Deviation> {
    engine.step(&Input::Event(Box::new(event))).1
}

/// An engine of an agent that read two secrets, thrice, in each of thirty windows.
fn with_habit() -> Engine {
    let mut engine = engine();
    for number in 0..90 {
        let id = (number % 2).to_string();
        assert_eq!(step(&mut engine, read(number, i64::from(number) / 3, &id, "secrets")), []);
    }
    engine
}

fn reported(engine: &mut Engine, events: impl Iterator<Item = Event>) -> Vec<Deviation> {
    events.flat_map(|event| step(engine, event)).collect()
}

#[test]
fn many_reads_of_the_same_are_volume_and_are_reported_once_a_window() {
    let mut engine = with_habit();
    let many = (0..60).map(|number| read(1_000 + number, 40, "0", "secrets"));
    let found = reported(&mut engine, many);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found.iter().all(|d| d.what.contains("reads 20") || d.what.contains("reads 2")), "{found:?}");
    let closed = engine.baselines().past("bot").dossier().habits.reads.closed_reads;
    step(&mut engine, read(2_000, 50, "0", "secrets"));
    let after = engine.baselines().past("bot").dossier().habits.reads.closed_reads;
    assert_eq!(closed, after, "what was reported is not learned");
}

#[test]
fn many_resources_are_breadth() {
    let mut engine = with_habit();
    let many = (0..15).map(|number| read(1_000 + number, 40, &number.to_string(), "secrets"));
    let found = reported(&mut engine, many);
    assert!(found.len() == 1 && found.iter().all(|d| d.what.contains("resources")), "{found:?}");
}

#[test]
fn other_data_little_history_and_what_comes_late_are_silent() {
    let many = |data: &'static str, window| (0..60).map(move |number| read(1_000 + number, window, "0", data));
    assert_eq!(reported(&mut with_habit(), many("logs", 40)), []);
    assert_eq!(reported(&mut with_habit(), many("secrets", 5)), []);
    assert_eq!(reported(&mut engine(), many("secrets", 40)), []);
    let changes = many("secrets", 40).map(|event| Event { verb: Verb::Write, ..event });
    assert_eq!(reported(&mut with_habit(), changes), []);
}

#[test]
fn refused_reads_count_too() {
    let refused = |event| Event { outcome: Outcome::Denied(String::new()), ..event };
    let many = (0..60).map(|number| refused(read(1_000 + number, 40, "0", "secrets")));
    assert_eq!(reported(&mut with_habit(), many).len(), 1);
}

#[test]
fn memory_is_bounded() {
    let mut engine = engine();
    reported(&mut engine, (0..2_000).map(|number| read(number, 0, &number.to_string(), "secrets")));
    assert_eq!(engine.baselines().past("bot").dossier().habits.reads.resources.len(), MOST_RESOURCES);
}
