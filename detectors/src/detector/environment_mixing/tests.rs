use std::sync::Arc;

use super::*;
use crate::deviation::Deviation;
use crate::engine::{Engine, Input};
use crate::event::{Principal, Run, Source};
use crate::testing::{book, control, event};

const RULES: &str = "\n[[detector]]\nkind = \"environment-mixing\"\nverbs = [\"write\"]\nidle = \"12h\"\nsettles = \"1h\"\n\
    [detector.groups]\nproduction = [\"production*\"]\nstaging = [\"staging*\"]\ntest = [\"test*\"]\n";

fn engine() -> Engine {
    Engine::new(Arc::new(book(&[("mixing/control.toml", &control("mixing", RULES))])))
}

fn change(number: u32, run: &str, environment: &str, time: &str) -> Event {
    let run = Run { session: "session".to_owned(), id: run.to_owned(), ..Run::default() };
    let mut event = Event { verb: Verb::Write, run: Some(run), ..event(number, "ecs:StopTask", time) };
    environment.clone_into(&mut event.place.environment);
    event
}

fn audited(event: Event) -> Event {
    let principal = Principal { session: "session".to_owned(), ..Principal::default() };
    Event { source: Source::Cloudtrail, run: None, principal, ..event }
}

fn step(engine: &mut Engine, event: Event) -> Vec<Deviation> {
    engine.step(&Input::Event(Box::new(event))).1
}

fn minute(minute: u32) -> String {
    format!("2026-03-02T09:{minute:02}:00Z")
}

/// How many findings each of these changes causes, a minute apart.
fn counts(engine: &mut Engine, changes: &[(&str, &str)]) -> Vec<usize> {
    let changes = (0..).zip(changes);
    changes.map(|(number, (run, place))| step(engine, change(number, run, place, &minute(number))).len()).collect()
}

#[test]
fn a_crossing_is_reported_at_the_event_that_crosses_and_once_a_group() {
    let changes = [("r", "staging-eu"), ("r", "staging"), ("r", "production"), ("r", "staging"), ("r", "test")];
    assert_eq!(counts(&mut engine(), &changes), [0, 0, 1, 0, 1]);
}

#[test]
fn other_runs_and_what_is_in_no_group_mix_with_all() {
    let changes = [("r", "staging"), ("s", "production"), ("r", "shared"), ("r", "sandbox"), ("", "test")];
    assert_eq!(counts(&mut engine(), &changes), [0; 5]);
}

#[test]
fn reads_and_refused_changes_do_not_cross() {
    let mut engine = engine();
    step(&mut engine, change(1, "r", "staging", &minute(1)));
    let read = Event { verb: Verb::Read, ..change(2, "r", "production", &minute(2)) };
    assert_eq!(step(&mut engine, read), []);
    let refused = Event { outcome: Outcome::Denied("no".to_owned()), ..change(3, "r", "production", &minute(3)) };
    assert_eq!(step(&mut engine, refused), []);
}

#[test]
fn both_words_about_one_crossing_are_one_finding() {
    let mut engine = engine();
    let mut found = Vec::new();
    for (number, environment) in (1..).zip(["staging", "production"]) {
        let said = change(number, "r", environment, &minute(number));
        let done = Event { digest: crate::event::Digest(100 + u128::from(number)), ..audited(said.clone()) };
        found.extend(step(&mut engine, said));
        found.extend(step(&mut engine, done));
    }
    assert_eq!(found.len(), 1);
    let other = audited(Event { action: "ecs:DeleteService".to_owned(), ..change(9, "", "test", &minute(9)) });
    assert_eq!(step(&mut engine, other).len(), 1, "another crossing");
}

#[test]
fn a_run_without_a_change_for_long_has_ended() {
    let mut engine = engine();
    step(&mut engine, change(1, "r", "staging", "2026-03-02T09:00:00Z"));
    assert_eq!(step(&mut engine, change(2, "r", "production", "2026-03-03T09:00:00Z")), []);
    assert_eq!(engine.baselines().past("bot").dossier().habits.runs.len(), 1);
}

#[test]
fn memory_is_bounded() {
    let mut engine = engine();
    for number in 0..300 {
        step(&mut engine, change(number, &format!("r{number}"), "staging", "2026-03-02T09:00:00Z"));
    }
    assert_eq!(engine.baselines().past("bot").dossier().habits.runs.len(), MOST_RUNS);
}

#[test]
fn made_up_runs_push_out_nothing_that_the_audit_log_knows() {
    let mut engine = engine();
    assert_eq!(step(&mut engine, audited(change(0, "", "staging", &minute(0)))), []);
    for number in 1..200 {
        step(&mut engine, change(number, &format!("made-up-{number}"), "staging", &minute(1)));
    }
    assert_eq!(step(&mut engine, audited(change(200, "", "production", &minute(2)))).len(), 1);
}
