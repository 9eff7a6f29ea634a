#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use serde_json::json;

use crate::engine::{Engine, Input};
use crate::event::{AgentRef, Event};
use crate::testing::{approval, at, book_of_statements, change, claims, control, event, stated};

const APPROVALS: &str = "[[detector]]\nkind = \"approval\"\ngrace = \"10m\"\nsettles = \"1h\"\nskew = \"1m\"\n";
const RISK: &str = "[[rule]]\nenvironments = [\"production\"]\npeople = 1\n[unlisted]\nenvironments = []\npeople = 0\n";
const NOVELTY: &str = "[[detector]]\nkind = \"novelty\"\n[detector.dimensions]\nread = 0.999\n";
const SECRETS: &str = "@id(\"secrets\")\nforbid (principal, action, resource) when { resource.data == \"secrets\" };";

fn engine(more: &[(&str, &str)]) -> Engine {
    let (approvals, habit) = (control("approvals", APPROVALS), control("habit", NOVELTY));
    let secrets = control("secrets", "");
    let mut files = vec![
        ("approvals/control.toml", approvals.as_str()),
        ("approvals/risk.toml", RISK),
        ("habit/control.toml", &habit),
        ("secrets/control.toml", &secrets),
        ("secrets/policy.cedar", SECRETS),
    ];
    files.retain(|(name, _)| more.iter().all(|(other, _)| name != other));
    files.extend_from_slice(more);
    let mut engine = Engine::new(Arc::new(book_of_statements(&files)));
    engine.step(&Input::Accepted(Box::new(event(0, "ec2:DescribeVolumes", "2026-03-01T00:00:00Z"))));
    engine
}

fn asked(engine: &mut Engine, event: &Event) -> Vec<(String, bool)> {
    let opinion = engine.ask(event);
    let objections = opinion.objections.iter();
    objections.map(|objection| (objection.deviation.control.clone(), objection.denies)).collect()
}

#[test]
fn what_is_asked_is_what_would_be_found_and_nothing_is_learned() {
    let mut engine = engine(&[]);
    let mut secret = event(1, "secretsmanager:GetSecretValue", "2026-03-02T09:00:00Z");
    secret.resource.data = "secrets".to_owned();
    let before = engine.baselines().snapshot().unwrap();
    let opinion = engine.ask(&secret);
    assert!(opinion.is_denied() && (opinion.trust - 100.0).abs() < 1e-9);
    assert_eq!(asked(&mut engine, &secret), [("secrets".to_owned(), true)]);
    let first = event(2, "s3:GetObject", "2026-03-02T09:00:00Z");
    assert_eq!(asked(&mut engine, &first), [("habit".to_owned(), false)], "statistics advise");
    assert!(!engine.ask(&first).is_denied());
    assert_eq!(engine.baselines().snapshot().unwrap(), before, "asking leaves no trace");

    let asked: Vec<_> = [&secret, &first].map(|event| engine.ask(event).objections).concat();
    let asked: Vec<_> = asked.into_iter().map(|objection| objection.deviation).collect();
    let found: Vec<_> = [secret, first].map(|event| engine.step(&Input::Event(Box::new(event))).1).concat();
    let told = |deviations: &[crate::deviation::Deviation]| {
        deviations.iter().map(|d| (d.id.clone(), d.score, d.summary.clone())).collect::<Vec<_>>()
    };
    assert_eq!(told(&asked), told(&found));
}

#[test]
fn what_was_reported_is_told_to_whoever_asks_all_the_same() {
    let mut engine = engine(&[]);
    let first = |number| event(number, "s3:GetObject", "2026-03-02T09:00:00Z");
    assert_eq!(engine.step(&Input::Event(Box::new(first(1)))).1.len(), 1);
    assert!(engine.step(&Input::Event(Box::new(first(2)))).1.is_empty(), "reported once");
    assert_eq!(asked(&mut engine, &first(3)), [("habit".to_owned(), false)]);
    assert!(engine.ask(&first(3)).trust < 100.0);
}

#[test]
fn an_act_that_lacks_an_approval_is_denied_until_it_has_one() {
    let mut engine = engine(&[]);
    let mut act = change(1, "ec2:StopInstances", "2026-03-02T09:00:00Z");
    act.source = crate::event::Source::AgentAction;
    act.resource.id = "i-1".to_owned();
    let opinion = engine.ask(&act);
    assert!(opinion.is_denied());
    let wanted = opinion.wanted.unwrap();
    assert_eq!((wanted.people, wanted.approval.irreversible), (1, true));
    let body = approval("ec2:StopInstances", "i-1", &json!({}), 1);
    let given = claims("a-1", "2026-03-02T08:59:00Z", "approval", &body);
    assert!(engine.step(&Input::Event(Box::new(stated(&given, &["k1"])))).1.is_empty());
    let opinion = engine.ask(&act);
    assert_eq!((opinion.is_denied(), opinion.wanted), (false, None));
    assert!(!engine.ask(&act).is_denied(), "asking does not use it up");
}

#[test]
fn a_control_says_itself_what_its_findings_mean() {
    let advises = control("secrets", "gate = \"advise\"\n");
    let denies = control("habit", &format!("gate = \"deny\"\n{NOVELTY}"));
    let mut engine = engine(&[("secrets/control.toml", &advises), ("habit/control.toml", &denies)]);
    let mut act = event(1, "s3:GetObject", "2026-03-02T09:00:00Z");
    assert_eq!(asked(&mut engine, &act), [("habit".to_owned(), true)]);
    act.resource.data = "secrets".to_owned();
    let found = asked(&mut engine, &act);
    assert!(found.contains(&("secrets".to_owned(), false)), "{found:?}");
}

#[test]
fn a_stranger_and_an_agent_of_which_nothing_is_known_are_answered() {
    let mut engine = engine(&[]);
    let mut act = event(1, "ec2:DescribeVolumes", "2026-03-02T09:00:00Z");
    act.agent = AgentRef::Unregistered("role/other".to_owned());
    let opinion = engine.ask(&act);
    assert!(opinion.is_denied(), "nothing permits it");
    assert_eq!(opinion.objections[0].deviation.agent.class, "unregistered");
    let mut fresh = Engine::new(Arc::clone(engine.rulebook()));
    assert!(!fresh.ask(&event(1, "ec2:DescribeVolumes", "2026-03-02T09:00:00Z")).is_denied());
    assert_eq!(fresh.baselines().iter().count(), 0);
}

#[test]
fn trials_and_exceptions_object_to_nothing() {
    let trial = control("secrets", "mode = \"shadow\"\n");
    let mut engine = engine(&[("secrets/control.toml", &trial)]);
    let mut act = event(1, "ec2:DescribeVolumes", "2026-03-02T09:00:00Z");
    act.resource.data = "secrets".to_owned();
    assert!(asked(&mut engine, &act).is_empty());
    assert!(engine.hushed().is_empty(), "nothing is counted for a question");
    assert_eq!(engine.baselines().past("bot").profile().unwrap().last_seen, at("2026-03-01T00:00:00Z"));
}

#[test]
fn an_agent_that_wakes_is_told_of_and_may_act() {
    let dormant = control("asleep", "[[detector]]\nkind = \"dormant\"\nafter = \"30d\"\n");
    let mut engine = engine(&[("asleep/control.toml", &dormant)]);
    let act = event(1, "ec2:DescribeVolumes", "2026-06-02T09:00:00Z");
    assert_eq!(asked(&mut engine, &act), [("asleep".to_owned(), false)], "else it could never wake");
}
