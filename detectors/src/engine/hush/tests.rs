#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use crate::baselines::Baselines;
use crate::engine::{Engine, Hush, Input};
use crate::event::Event;
use crate::rulebook::Rulebook;
use crate::testing::{at, book, change, control, event};

const POLICY: &str = "@id(\"x\")\nforbid (principal, action == Action::\"write\", resource);";
const NOVELTY: &str = "[[detector]]\nkind = \"novelty\"\n[detector.dimensions]\nchange = 0.999\nread = 0.999\n";
const BURST: &str =
    "[[detector]]\nkind = \"burst\"\nleast_windows = 1\n[detector.rates.requests]\np_value = 0.01\nleast = 20\n";

fn exception(control: &str, operations: &str) -> String {
    format!(
        "longest = \"30d\"\n[exceptions.move]\ncontrol = \"{control}\"\nagent = \"bot\"\noperations = [{operations:?}]\n\
         by = \"ana@example.com\"\nwhy = \"the move\"\nsince = \"2026-03-02T00:00:00Z\"\nuntil = \"2026-03-03T00:00:00Z\"\n"
    )
}

fn rules(extra: &str, exceptions: &str) -> Arc<Rulebook> {
    let extra = control("extra", extra);
    let mut files = vec![("extra/control.toml", extra.as_str()), ("extra/policy.cedar", POLICY)];
    if !exceptions.is_empty() {
        files.push(("registry/exceptions.toml", exceptions));
    }
    Arc::new(book(&files))
}

/// What is reported of an event, and why what is not is not.
fn told(engine: &mut Engine, event: Event) -> (usize, Vec<Hush>) {
    let reported = engine.step(&Input::Event(Box::new(event))).1.len();
    (reported, engine.hushed().iter().map(|hushed| hushed.why.clone()).collect())
}

#[test]
fn what_an_exception_hides_is_counted_teaches_nothing_and_floods_nobody_when_it_ends() {
    let mut engine = Engine::new(rules("", &exception("extra", "ec2:*")));
    for number in 0..10_000 {
        let minute = number / 100;
        let time = format!("2026-03-02T{:02}:{:02}:00Z", minute / 60, minute % 60);
        let hidden = (0, vec![Hush::Exception("move".to_owned())]);
        assert_eq!(told(&mut engine, change(number, "ec2:DeleteVolume", &time)), hidden);
    }
    let past = engine.baselines().past("bot").profile().unwrap().clone();
    assert_eq!((past.learned, past.evidence), (0, 0.0), "nothing is learned, and trust does not move");
    let excused: Vec<_> = engine.baselines().excused().collect();
    assert_eq!(excused, [("move", at("2026-03-02T01:39:00Z"))], "when it was last of use is known");
    let tick = Input::Tick { at: at("2026-03-04T00:00:00Z"), audited_until: None };
    assert!(engine.step(&tick).1.is_empty(), "its end releases nothing");
    assert_eq!(told(&mut engine, change(10_001, "ec2:DeleteVolume", "2026-03-03T00:00:00Z")), (1, vec![]));
    let late = (0, vec![Hush::Exception("move".to_owned())]);
    assert_eq!(told(&mut engine, change(10_002, "ec2:DeleteVolume", "2026-03-02T23:59:59Z")), late, "what comes late");
    assert_eq!(told(&mut engine, change(10_003, "s3:DeleteBucket", "2026-03-02T23:59:59Z")), (1, vec![]));
}

#[test]
fn what_was_expected_for_a_while_is_news_again_afterwards() {
    let mut engine = Engine::new(rules(NOVELTY, &exception("extra", "s3:*")));
    engine.step(&Input::Accepted(Box::new(event(1, "ec2:DescribeVolumes", "2026-03-01T00:00:00Z"))));
    let hidden = (0, vec![Hush::Exception("move".to_owned())]);
    assert_eq!(told(&mut engine, event(2, "s3:GetObject", "2026-03-02T01:00:00Z")), hidden);
    assert_eq!(told(&mut engine, event(3, "s3:GetObject", "2026-03-02T02:00:00Z")), hidden);
    assert_eq!(told(&mut engine, event(4, "s3:GetObject", "2026-03-03T01:00:00Z")), (1, vec![]));
    assert_eq!(told(&mut engine, event(5, "s3:GetObject", "2026-03-03T02:00:00Z")), (0, vec![]), "once, as ever");
}

#[test]
fn a_window_that_was_expected_is_not_reported_when_the_exception_ends_within_it() {
    let mut engine = Engine::new(rules(BURST, &exception("extra", "*")));
    for day in 1..=2 {
        let time = format!("2026-02-{day:02}T00:00:00Z");
        engine.step(&Input::Accepted(Box::new(event(day, "ec2:DescribeVolumes", &time))));
    }
    let mut hushed = 0;
    for number in 10..100 {
        let (reported, why) = told(&mut engine, event(number, "ec2:DescribeVolumes", "2026-03-02T23:59:59Z"));
        assert_eq!(reported, 0);
        hushed += why.len();
    }
    assert_eq!(hushed, 1, "one burst, hidden once");
    assert_eq!(told(&mut engine, event(100, "ec2:DescribeVolumes", "2026-03-02T23:59:58Z")), (0, vec![]));
}

#[test]
fn a_control_on_trial_finds_what_it_would_and_does_nothing() {
    let (trial, earnest) = (rules(&format!("mode = \"shadow\"\n{NOVELTY}"), ""), rules(NOVELTY, ""));
    let events = [
        change(1, "ec2:DeleteVolume", "2026-03-02T01:00:00Z"),
        event(2, "s3:GetObject", "2026-03-02T01:00:00Z"),
        event(3, "s3:GetObject", "2026-03-02T01:01:00Z"),
        change(4, "ec2:DeleteVolume", "2026-03-02T01:02:00Z"),
    ];
    let run = |book: &Arc<Rulebook>| {
        let mut engine = Engine::resume(Arc::clone(book), Baselines::default());
        let known = event(0, "ec2:DescribeVolumes", "2026-03-01T00:00:00Z");
        engine.step(&Input::Accepted(Box::new(known)));
        let (mut reported, mut hushed) = (Vec::new(), Vec::new());
        for event in &events {
            reported.extend(engine.step(&Input::Event(Box::new(event.clone()))).1.into_iter().map(|d| (d.id, d.score)));
            let found = engine.hushed().iter().inspect(|hushed| assert_eq!(hushed.why, Hush::Shadow));
            hushed.extend(found.map(|hushed| (hushed.deviation.id.clone(), hushed.deviation.score)));
        }
        let profile = engine.baselines().past("bot").profile().unwrap().clone();
        (reported, hushed, profile.learned, profile.evidence > 0.0)
    };
    let (reported, hushed, learned, evidence) = run(&trial);
    assert_eq!((reported.len(), evidence), (0, false), "no alert, and trust does not move");
    let (alerts, none, also_learned, _) = run(&earnest);
    assert!(alerts.len() >= 4 && none.is_empty());
    assert_eq!((hushed, learned), (alerts, also_learned), "the counts are those of its alerts to come");
}
