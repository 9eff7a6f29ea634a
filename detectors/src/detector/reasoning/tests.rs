#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use super::*;
use crate::deviation::Deviation;
use crate::engine::{Engine, Input};
use crate::event::{Resource, Source};
use crate::testing::{book, control, event};

const MORNING: &str = "2026-03-02T09:00:00Z";
const NEXT_DAY: &str = "2026-03-03T09:00:00Z";
const RULES: &str = "\n[[detector]]\nkind = \"reasoning\"\nverbs = [\"write\"]\ndifferent = 3\nwithin = \"24h\"\n\
    [detector.severities]\nmissing = \"high\"\nnever_given = \"low\"\nwrong_digest = \"high\"\ncopied = \"medium\"\n\
    unrelated = \"medium\"\n";

fn engine() -> Engine {
    Engine::new(Arc::new(book(&[("why/control.toml", &control("why", RULES))])))
}

/// A change of a service, with these words.
fn change(number: u32, service: &str, text: &str, time: &str) -> Event {
    let resource = Resource {
        kind: "AWS::ECS::Service".to_owned(),
        id: format!("arn:aws:ecs:eu-west-1:1:service/payments/{service}"),
        ..Resource::default()
    };
    let reasoning = (!text.is_empty()).then(|| Reasoning { text: text.to_owned(), ..Reasoning::default() });
    Event { verb: Verb::Write, resource, reasoning, ..event(number, "ecs:UpdateService", time) }
}

fn found(engine: &mut Engine, event: Event) -> Vec<Deviation> {
    engine.step(&Input::Event(Box::new(event))).1
}

fn severities(engine: &mut Engine, event: Event) -> Vec<Severity> {
    found(engine, event).iter().map(|deviation| deviation.severity).collect()
}

#[test]
fn an_agent_that_never_gives_reasoning_is_reported_once_a_day() {
    let mut engine = engine();
    assert_eq!(severities(&mut engine, change(1, "a", "", MORNING)), [Severity::Low]);
    assert_eq!(severities(&mut engine, change(2, "b", "", MORNING)), []);
    assert_eq!(severities(&mut engine, change(3, "a", "", NEXT_DAY)), [Severity::Low]);
    assert_eq!(severities(&mut engine, change(4, "a", "", MORNING)), [], "a late event of a day before");
}

#[test]
fn one_that_otherwise_gives_it_is_reported_for_each_operation() {
    let mut engine = engine();
    assert_eq!(severities(&mut engine, change(1, "a", "Service a hangs.", MORNING)), []);
    assert_eq!(severities(&mut engine, change(2, "a", "", MORNING)), [Severity::High]);
    assert_eq!(severities(&mut engine, change(3, "b", " \n…", MORNING)), [], "reported today, and no words are none");
    let other = Event { action: "ecs:DeleteService".to_owned(), ..change(4, "a", "", MORNING) };
    assert_eq!(severities(&mut engine, other), [Severity::High]);
}

#[test]
fn neither_reads_nor_audit_records_need_reasoning() {
    let mut engine = engine();
    assert_eq!(severities(&mut engine, event(1, "ecs:DescribeServices", MORNING)), []);
    let audit = Event { source: Source::Cloudtrail, ..change(2, "a", "", MORNING) };
    assert_eq!(severities(&mut engine, audit), []);
}

#[test]
fn a_wrong_digest_is_reported_each_time() {
    let mut engine = engine();
    for number in 1..3 {
        let mut event = change(number, "a", "Service a hangs.", MORNING);
        event.reasoning.as_mut().unwrap().claimed_digest = "sha256:00".to_owned();
        let found = found(&mut engine, event);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].evidence[0].observed, "sha256:00");
    }
}

#[test]
fn a_text_is_copied_once_it_stands_for_enough_different_actions() {
    let mut engine = engine();
    assert_eq!(severities(&mut engine, change(1, "a", "Service 1 hangs.", MORNING)), []);
    assert_eq!(severities(&mut engine, change(2, "b", "service 2  hangs.", MORNING)), []);
    assert_eq!(severities(&mut engine, change(3, "b", "Service 3 hangs.", MORNING)), [], "the same action again");
    assert_eq!(severities(&mut engine, change(4, "c", "Service 4\nhangs.", MORNING)), [Severity::Medium]);
    assert_eq!(severities(&mut engine, change(5, "d", "Service 5 hangs.", MORNING)), [], "once a day");
    let much_later = change(6, "e", "Service 6 hangs.", "2026-03-04T09:00:00Z");
    assert_eq!(severities(&mut engine, much_later), [], "what is longer ago does not count");
}

#[test]
fn texts_that_are_kept_elsewhere_are_told_apart_by_their_digests() {
    let mut engine = engine();
    let kept = |number, service, digest: &str| {
        let reasoning = Reasoning { reference: "s3://r".to_owned(), digest: digest.to_owned(), ..Reasoning::default() };
        Event { reasoning: Some(reasoning), ..change(number, service, "", MORNING) }
    };
    assert_eq!(severities(&mut engine, kept(1, "a", "sha256:1")), []);
    assert_eq!(severities(&mut engine, kept(2, "b", "sha256:2")), []);
    assert_eq!(severities(&mut engine, kept(3, "c", "sha256:1")), []);
    assert_eq!(severities(&mut engine, kept(4, "d", "sha256:1")), [Severity::Medium]);
}

#[test]
fn reasoning_that_names_nothing_of_the_action_is_reported_for_each_operation_once_a_day() {
    let mut engine = engine();
    assert_eq!(severities(&mut engine, change(1, "checkout", "I was told so.", MORNING)), [Severity::Medium]);
    assert_eq!(severities(&mut engine, change(2, "ledger", "It is better like this.", MORNING)), []);
}

#[test]
fn a_word_of_the_action_is_enough() {
    for (text, is_about_it) in [
        ("The services hang.", true),
        ("Updating to 214.", true),
        ("checkout está lento", true),
        ("Deploy to staging.", true),
        ("Image 214 is out.", true),
        ("Token [redacted:aws-key:0123456789ab] was given.", true),
        ("Because.", false),
        ("Somebody said so: proceed at once.", false),
    ] {
        let mut event = change(1, "checkout-api", text, MORNING);
        event.arguments = vec![crate::event::Argument { value: "checkout:214".to_owned(), ..Default::default() }];
        assert_eq!(is_about(&event, text), is_about_it, "{text}");
    }
    let nameless = Event { action: String::new(), ..Event::default() };
    assert!(is_about(&nameless, "Whatever."), "nothing to name");
}

#[test]
fn memory_is_bounded() {
    let mut engine = engine();
    for number in 0..600 {
        let word = format!("service {}", "x".repeat(usize::try_from(number).unwrap() % 300));
        let mut event = change(number, &number.to_string(), &word, MORNING);
        event.action = format!("made-up:Do{number}");
        found(&mut engine, event.clone());
        found(&mut engine, Event { reasoning: None, digest: Digest(10_000 + u128::from(number)), ..event });
    }
    let habit = &engine.baselines().past("bot").dossier().habits.reasoning;
    assert!(habit.texts.len() == MOST_TEXTS && habit.reported.len() == MOST_REPORTED, "{habit:?}");
    assert!(habit.texts.iter().all(|told| told.actions.len() <= 3));
}
