use std::sync::Arc;

use super::*;
use crate::deviation::Deviation;
use crate::engine::{Engine, Input};
use crate::event::Place;
use crate::testing::{book, control, event};

fn engine() -> Engine {
    let rules = "\n[[detector]]\nkind = \"creep\"\nwithin = \"30d\"\nhome = \"7d\"\nenvironments = 1\naccounts = 1\n";
    Engine::new(Arc::new(book(&[("creep/control.toml", &control("creep", rules))])))
}

fn at_place(number: u32, time: &str, environment: &str, account: &str) -> Event {
    let (environment, account) = (environment.to_owned(), account.to_owned());
    Event { place: Place { environment, account, mapped: true, ..Place::default() }, ..event(number, "s3:Get", time) }
}

fn step(engine: &mut Engine, event: Event) -> Vec<Deviation> {
    engine.step(&Input::Event(Box::new(event))).1
}

/// An engine that knows a home of two environments and accounts.
fn at_home() -> Engine {
    let mut engine = engine();
    for (number, environment) in (0..).zip(["a", "b"]) {
        assert_eq!(step(&mut engine, at_place(number, "2026-01-01T09:00:00Z", environment, environment)), []);
    }
    engine
}

#[test]
fn a_second_new_environment_within_the_time_is_creep() {
    let mut engine = at_home();
    assert_eq!(step(&mut engine, at_place(10, "2026-02-01T09:00:00Z", "c", "a")), [], "one new place is no creep");
    let found = step(&mut engine, at_place(11, "2026-02-08T09:00:00Z", "d", "a"));
    assert!(found.iter().any(|d| d.what.contains("environments `c`, `d`")), "{found:?}");
    assert_eq!(step(&mut engine, at_place(12, "2026-02-08T10:00:00Z", "d", "a")), [], "and is reported once");
}

#[test]
fn an_environment_with_its_account_is_one_step() {
    let mut engine = at_home();
    assert_eq!(step(&mut engine, at_place(10, "2026-02-01T09:00:00Z", "c", "c")), []);
    let found = step(&mut engine, at_place(11, "2026-02-08T09:00:00Z", "c", "d"));
    assert!(found.iter().any(|d| d.what.contains("accounts `c`, `d`")), "{found:?}");
}

#[test]
fn places_far_apart_in_time_are_no_creep() {
    let mut engine = at_home();
    assert_eq!(step(&mut engine, at_place(10, "2026-02-01T09:00:00Z", "c", "a")), []);
    assert_eq!(step(&mut engine, at_place(11, "2026-03-10T09:00:00Z", "d", "a")), []);
}

#[test]
fn what_was_refused_or_made_up_is_no_place() {
    let mut engine = at_home();
    let mut refused = at_place(10, "2026-02-01T09:00:00Z", "c", "a");
    refused.outcome = Outcome::Denied("no".to_owned());
    let mut made_up = at_place(11, "2026-02-02T09:00:00Z", "production", "made-up");
    made_up.place.mapped = false;
    step(&mut engine, refused);
    step(&mut engine, made_up);
    assert_eq!(step(&mut engine, at_place(12, "2026-02-03T09:00:00Z", "d", "a")), []);
}

#[test]
fn what_a_person_accepts_is_known() {
    let mut engine = at_home();
    engine.step(&Input::Accepted(Box::new(at_place(10, "2026-01-10T09:00:00Z", "c", "a"))));
    engine.step(&Input::Accepted(Box::new(at_place(11, "2026-01-11T09:00:00Z", "d", "a"))));
    assert_eq!(step(&mut engine, at_place(12, "2026-02-20T09:00:00Z", "d", "a")), []);
}

#[test]
fn memory_is_bounded() {
    let mut engine = at_home();
    for number in 0..600 {
        step(&mut engine, at_place(100 + number, "2026-02-01T09:00:00Z", "a", &number.to_string()));
    }
    assert_eq!(engine.baselines().past("bot").dossier().habits.places.len(), MOST_PLACES);
    assert_eq!(step(&mut engine, at_place(9_000, "2026-02-01T09:00:00Z", "a", "one-more")), []);
}
