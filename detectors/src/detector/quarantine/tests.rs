#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use serde_json::{Value, json};

use super::MOST_TOLD;
use crate::engine::{Engine, Input};
use crate::event::{Event, Source};
use crate::testing::{book_of_statements, change, claims, control, event, faults, stated};

const DETECTOR: &str = "[[detector]]\nkind = \"quarantine\"\n";
const POLICY: &str = "@id(\"x\")\nforbid (principal, action, resource) when { context.operation == \"iam:Bad\" };";

fn engine() -> Engine {
    let (hold, bad) = (control("hold", DETECTOR), control("bad", "quarantine = true\n"));
    let files = [("hold/control.toml", hold.as_str()), ("bad/control.toml", &bad), ("bad/policy.cedar", POLICY)];
    Engine::new(Arc::new(book_of_statements(&files)))
}

fn said(id: &str, kind: &str, time: &str, by: &str, reason: &str) -> Event {
    let mut claims: Value = claims(id, time, kind, &json!({ "reason": reason }));
    claims["sub"] = json!(by);
    stated(&claims, &["k1"])
}

fn found(engine: &mut Engine, event: Event) -> Vec<String> {
    let deviations = engine.step(&Input::Event(Box::new(event))).1;
    deviations.into_iter().map(|deviation| deviation.control).collect()
}

fn write(number: u32, time: &str) -> Event {
    change(number, "ec2:StopInstances", time)
}

#[test]
fn a_person_quarantines_an_agent_and_another_releases_it() {
    let mut engine = engine();
    assert!(found(&mut engine, write(1, "2026-03-02T08:00:00Z")).is_empty());
    let held = said("q-1", "quarantine", "2026-03-02T08:01:00Z", "mei@example.com", "odd");
    assert!(found(&mut engine, held).is_empty());
    assert!(found(&mut engine, event(2, "ec2:Describe", "2026-03-02T08:02:00Z")).is_empty(), "declared reads go on");
    assert!(found(&mut engine, write(3, "2026-03-02T08:00:59Z")).is_empty(), "it was done before");
    assert_eq!(found(&mut engine, write(4, "2026-03-02T08:02:00Z")), ["hold"]);
    assert!(found(&mut engine, write(5, "2026-03-02T08:03:00Z")).is_empty(), "once a day for each operation");
    assert_eq!(found(&mut engine, write(6, "2026-03-03T08:03:00Z")), ["hold"]);
    let learned = engine.baselines().past("bot").profile().unwrap().learned;
    let opinion = engine.ask(&write(7, "2026-03-03T08:04:00Z"));
    assert!(opinion.barred && opinion.is_denied());
    assert!(!engine.ask(&event(8, "ec2:Describe", "2026-03-03T08:04:00Z")).is_denied());
    let barred = engine.ask(&event(9, "iam:Bad", "2026-03-03T08:04:00Z"));
    assert!(barred.barred, "a read that a policy forbids is not declared");
    assert_eq!(learned, 3, "nothing that broke it was learned");

    let own = said("r-0", "release", "2026-03-03T08:05:00Z", "ana@example.com", "fine");
    assert_eq!(found(&mut engine, own), ["hold"], "the owner does not release it");
    let early = said("r-1", "release", "2026-03-02T08:00:00Z", "tom@example.com", "fine");
    found(&mut engine, early);
    assert!(engine.baselines().quarantined().next().is_some(), "a release from before does not count");
    let release = said("r-2", "release", "2026-03-03T08:06:00Z", "tom@example.com", "fine");
    assert!(found(&mut engine, release).is_empty());
    assert!(found(&mut engine, write(10, "2026-03-03T08:07:00Z")).is_empty());
    assert!(!engine.ask(&write(11, "2026-03-03T08:08:00Z")).barred);
}

#[test]
fn who_is_no_person_or_says_no_reason_quarantines_nobody() {
    for (by, reason) in [("bot", "odd"), ("mallory@example.com", "odd"), ("mei@example.com", " ")] {
        let mut engine = engine();
        let held = said("q-1", "quarantine", "2026-03-02T08:01:00Z", by, reason);
        assert_eq!(found(&mut engine, held), ["hold"], "{by} {reason}");
        assert_eq!(engine.baselines().quarantined().count(), 0);
    }
}

#[test]
fn a_control_quarantines_the_agent_but_not_by_somebody_elses_word() {
    let mut engine = engine();
    let mut forged = event(1, "iam:Bad", "2026-03-02T08:00:00Z");
    forged.principal.id = "role/other".to_owned();
    assert_eq!(found(&mut engine, forged), ["bad"]);
    assert_eq!(engine.baselines().quarantined().count(), 0);
    let bad = Event { source: Source::Cloudtrail, ..event(2, "iam:Bad", "2026-03-02T08:00:01Z") };
    assert_eq!(found(&mut engine, bad), ["bad"]);
    let (agent, held) = engine.baselines().quarantined().next().unwrap();
    assert_eq!((agent, held.by.as_str(), held.reason.as_str()), ("bot", "control bad", "bad/test/2/0"));
    assert_eq!(found(&mut engine, write(3, "2026-03-02T08:00:02Z")), ["hold"]);
}

#[test]
fn a_control_that_rests_on_statistics_quarantines_nobody() {
    let odd =
        control("odd", "quarantine = true\n[[detector]]\nkind = \"novelty\"\n[detector.dimensions]\nread = 0.5\n");
    let found = faults(&[("odd/control.toml", &odd)]);
    assert!(found.iter().any(|fault| fault.contains("statistics may not put an agent under quarantine")), "{found:?}");
}

#[test]
fn what_was_told_is_bounded() {
    let mut engine = engine();
    found(&mut engine, said("q-1", "quarantine", "2026-03-02T08:01:00Z", "mei@example.com", "odd"));
    for number in 0..2 * u32::try_from(MOST_TOLD).unwrap() {
        let made_up = change(number, &format!("made:Up{number}"), "2026-03-02T08:02:00Z");
        assert_eq!(found(&mut engine, made_up), ["hold"]);
    }
    assert_eq!(engine.baselines().quarantined().next().unwrap().1.told.len(), MOST_TOLD);
}
