#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use super::*;
use crate::baselines::{Baselines, MOST_FOLLOWED, Waiting};
use crate::engine::{Engine, Input};
use crate::event::{AgentRef, Digest, Origin, Source, Verb};
use crate::testing::{at, book, faults};

const CONTROL: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/unreported-action/control.toml"));
const MINUTE: Millis = 60_000;

fn noon() -> Millis {
    at("2026-03-02T12:00:00Z")
}

/// An engine whose agent has declared something, and been seen by the audit log.
fn engine() -> Engine {
    let mut engine = Engine::new(Arc::new(book(&[("unreported-action/control.toml", CONTROL)])));
    let read = |number, source| Event { source, verb: Verb::Read, ..change(number, "search", 0.0) };
    hear(&mut engine, read(9_001, Source::AgentAction));
    hear(&mut engine, read(9_002, Source::Cloudtrail));
    engine
}

/// A change of `bot`, so many minutes after noon.
fn change(number: u32, action: &str, minute: f64) -> Event {
    #[allow(clippy::cast_possible_truncation)]
    let time = noon() + (minute * 60_000.0) as Millis;
    let place = crate::event::Place { environment: "staging".to_owned(), mapped: true, ..Default::default() };
    Event {
        id: format!("test/{number}"),
        digest: Digest(number.into()),
        at: time,
        agent: AgentRef::Registered("bot".to_owned()),
        action: action.to_owned(),
        verb: Verb::Write,
        place,
        outcome: Outcome::Success,
        ..Event::default()
    }
}

fn said(number: u32, action: &str, resource: &str, minute: f64) -> Event {
    let event = change(number, action, minute);
    Event { tool: "deployer".to_owned(), resource: named(resource), ..event }
}

fn done(number: u32, action: &str, resource: &str, minute: f64) -> Event {
    let origin = Origin { address: "203.0.113.24".to_owned(), ..Origin::default() };
    Event { source: Source::Cloudtrail, origin, resource: named(resource), ..change(number, action, minute) }
}

fn named(id: &str) -> crate::event::Resource {
    crate::event::Resource { id: id.to_owned(), ..Default::default() }
}

fn with_request(event: Event, id: &str) -> Event {
    Event { trace: Some(Trace { request_id: id.to_owned(), ..Trace::default() }), ..event }
}

fn with_trace(event: Event, id: &str) -> Event {
    Event { trace: Some(Trace { trace_id: id.to_owned(), ..Trace::default() }), ..event }
}

fn hear(engine: &mut Engine, event: Event) {
    let found = engine.step(&Input::Event(Box::new(event))).1;
    assert_eq!(found, [], "nothing is found at the event itself");
}

/// Ticks at a minute after noon; the audit log has come as far.
fn tick(engine: &mut Engine, minute: Millis) -> Vec<String> {
    let time = noon() + minute * MINUTE;
    tick_with(engine, minute, Some(time))
}

fn tick_with(engine: &mut Engine, minute: Millis, audited_until: Option<Millis>) -> Vec<String> {
    let found = engine.step(&Input::Tick { at: noon() + minute * MINUTE, audited_until }).1;
    found.iter().map(|one| format!("{} {}", one.event.id, one.evidence[0].what)).collect()
}

/// What is found of these events, heard in this order, when all waiting is over.
fn found_of(events: &[Event]) -> Vec<String> {
    let mut engine = engine();
    events.iter().for_each(|event| hear(&mut engine, event.clone()));
    let mut found: Vec<String> = [60, 90, 120, 180].iter().flat_map(|minute| tick(&mut engine, *minute)).collect();
    assert!(!engine.baselines().has_waiting());
    found.sort();
    found
}

const NOTHING: [&str; 0] = [];
const UPDATE: &str = "ecs:UpdateService";

#[test]
fn an_effect_is_explained_by_ids_or_by_operation_and_resource_in_the_window() {
    let action = |resource, minute| said(1, UPDATE, resource, minute);
    let effect = |resource, minute| done(2, UPDATE, resource, minute);
    let arn = "arn:aws:ecs:eu-west-1:2:service/payments/checkout";
    for (what, action, effect, fits) in [
        ("equal", action("checkout", 0.0), effect("checkout", 0.1), true),
        ("the service in capitals", said(1, "ECS:UpdateService", "checkout", 0.0), effect("checkout", 0.1), true),
        ("no resource said", action("", 0.0), effect("checkout", 0.1), true),
        ("no resource recorded", action("checkout", 0.0), effect("", 0.1), true),
        ("a name and its ARN", action("checkout", 0.0), effect(arn, 0.1), true),
        ("an ARN and its name", action(arn, 0.0), effect("payments/checkout", 0.1), true),
        ("a part of a name", action("check", 0.0), effect("checkout", 0.1), false),
        ("a name that goes on", action("svc-1", 0.0), effect("svc-12", 0.1), false),
        ("another name behind a dash", action("checkout", 0.0), effect("checkout-api", 0.1), false),
        ("a secret's suffix", action("db/pass", 0.0), effect("arn:aws:sm:secret:db/pass-a1B2c3", 0.1), true),
        ("another resource", action("checkout", 0.0), effect("ledger", 0.1), false),
        ("another operation", said(1, "ecs:StopTask", "checkout", 0.0), effect("checkout", 0.1), false),
        ("a minute before", action("checkout", 1.0), effect("checkout", 0.0), true),
        ("longer before", action("checkout", 1.1), effect("checkout", 0.0), false),
        ("15 minutes after", action("checkout", 0.0), effect("checkout", 15.0), true),
        ("longer after", action("checkout", 0.0), effect("checkout", 15.1), false),
        ("one request", with_request(action("a", 0.0), "r"), with_request(effect("b", 50.0), "r"), true),
        ("one trace", with_trace(said(1, "ecs:StopTask", "a", 0.0), "t"), with_trace(effect("b", 50.0), "t"), true),
        ("no request", with_request(action("a", 0.0), ""), with_request(effect("b", 0.0), ""), false),
    ] {
        let found = found_of(&[action, effect]);
        assert_eq!(!found.contains(&"test/2 undeclared effect".to_owned()), fits, "{what}: {found:?}");
    }
}

#[test]
fn another_account_is_another_resource() {
    let in_account = |event: Event, account: &str| {
        let place = crate::event::Place { account: account.to_owned(), ..event.place.clone() };
        Event { place, ..event }
    };
    let action = in_account(said(1, UPDATE, "checkout", 0.0), "222");
    let effect = done(2, UPDATE, "checkout", 0.1);
    let elsewhere = ["test/1 false claim", "test/2 undeclared effect"];
    assert_eq!(found_of(&[action.clone(), in_account(effect.clone(), "111")]), elsewhere);
    assert_eq!(found_of(&[action.clone(), in_account(effect.clone(), "222")]), NOTHING);
    assert_eq!(found_of(&[action, effect]), NOTHING);
}

#[test]
fn tools_without_an_operation_explain_what_they_name_and_shells_anything() {
    let tool = |tool: &str, resource| Event { tool: tool.to_owned(), ..said(1, tool, resource, 0.0) };
    let effect = done(2, UPDATE, "checkout", 5.0);
    for (what, action, fits) in [
        ("a shell", tool("bash", ""), true),
        ("a shell that says what it did", Event { action: "ecs:StopTask".to_owned(), ..tool("bash", "") }, false),
        ("a tool", tool("restart_service", ""), false),
        ("a tool that names the resource", tool("restart_service", "checkout"), true),
        ("a tool that names another", tool("restart_service", "ledger"), false),
        ("a shell that only reads", Event { verb: Verb::Read, ..tool("bash", "") }, false),
        ("a proposal", Event { verb: Verb::Propose, ..said(1, UPDATE, "checkout", 0.0) }, false),
    ] {
        let found = found_of(&[action, effect.clone()]);
        assert_eq!(!found.contains(&"test/2 undeclared effect".to_owned()), fits, "{what}: {found:?}");
    }
}

#[test]
fn tools_may_be_known_to_do_more_than_they_declare() {
    let listed =
        format!("{}\n[[detector.effects]]\ntools = [\"deploy*\"]\noperations = [\"iam:*\"]\n", before_frameworks());
    let mut engine = Engine::new(Arc::new(book(&[("unreported-action/control.toml", &listed)])));
    for event in [
        said(1, UPDATE, "checkout", 0.0),
        done(2, "iam:PassRole", "role", 0.5),
        done(3, UPDATE, "checkout", 0.5),
        done(4, "ec2:RunInstances", "i", 0.5),
    ] {
        hear(&mut engine, event);
    }
    assert_eq!(tick(&mut engine, 10), ["test/4 undeclared effect"]);
}

fn before_frameworks() -> &'static str {
    CONTROL.split("[[frameworks]]").next().unwrap()
}

#[test]
fn what_needs_no_words_is_not_reported() {
    let service = |event: Event| {
        let credential = crate::event::Credential { kind: CredentialKind::Service, ..Default::default() };
        Event { credential, ..event }
    };
    let by = |event: Event, address: &str| {
        let origin = Origin { address: address.to_owned(), ..Origin::default() };
        Event { origin, ..event }
    };
    let effect = || done(1, "ec2:TerminateInstances", "i-1", 0.0);
    assert_eq!(found_of(&[effect()]), ["test/1 undeclared effect"]);
    assert_eq!(found_of(&[service(effect())]), NOTHING);
    assert_eq!(found_of(&[by(effect(), "autoscaling.amazonaws.com")]), NOTHING);
    assert_eq!(found_of(&[done(1, "redshift:GetClusterCredentials", "", 0.0)]), NOTHING);
    assert_eq!(found_of(&[Event { verb: Verb::Read, ..effect() }]), NOTHING);
    let refused = Event { outcome: Outcome::Denied("no".to_owned()), ..effect() };
    assert_eq!(found_of(&[refused]), ["test/1 undeclared effect"], "an attempt is one, too");
}

#[test]
fn only_what_the_log_must_show_is_a_claim() {
    let action = || said(1, UPDATE, "checkout", 0.0);
    for (what, action, is_claim) in [
        ("done", action(), true),
        ("without an outcome", Event { outcome: Outcome::Unknown, ..action() }, true),
        ("failed", Event { outcome: Outcome::Failed(String::new()), ..action() }, false),
        ("refused", Event { outcome: Outcome::Denied(String::new()), ..action() }, false),
        ("a read", Event { verb: Verb::Read, ..action() }, false),
        ("a tool's name", said(1, "deployer", "checkout", 0.0), false),
        ("a data event", said(1, "s3:PutObject", "b/k", 0.0), false),
        ("another vendor's", said(1, "jira:CreateIssue", "T-1", 0.0), false),
    ] {
        let expected = if is_claim { vec!["test/1 false claim"] } else { Vec::new() };
        assert_eq!(found_of(&[action]), expected, "{what}");
    }
}

#[test]
fn a_claim_is_also_shown_by_what_needs_no_words() {
    let action = said(1, UPDATE, "checkout", 0.0);
    let read = Event { verb: Verb::Read, ..done(2, UPDATE, "checkout", 0.1) };
    assert_eq!(found_of(&[action, read]), NOTHING);
}

#[test]
fn one_effect_shows_one_claim_and_the_nearest() {
    let claims = [said(1, UPDATE, "a", 0.0), said(2, UPDATE, "a", 5.0)];
    for (minute, alone) in [(0.1, "test/2"), (5.1, "test/1"), (4.5, "test/1")] {
        let effect = done(3, UPDATE, "a", minute);
        for order in [[0, 1, 2], [0, 2, 1], [2, 0, 1], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
            let all = [claims[0].clone(), claims[1].clone(), effect.clone()];
            let found = found_of(&order.map(|place| all[place].clone()));
            assert_eq!(found, [format!("{alone} false claim")], "an effect at {minute}, {order:?}");
        }
    }
}

#[test]
fn effects_change_places_so_that_no_claim_stays_alone_needlessly() {
    // The first effect is nearer to the second claim, and the second effect is too late for the first.
    let all =
        [said(1, UPDATE, "a", 0.0), said(2, UPDATE, "a", 14.9), done(3, UPDATE, "a", 14.2), done(4, UPDATE, "a", 20.0)];
    for order in [[0, 1, 2, 3], [0, 1, 3, 2], [2, 3, 0, 1], [2, 3, 1, 0], [0, 2, 3, 1], [1, 2, 0, 3], [3, 1, 2, 0]] {
        assert_eq!(found_of(&order.map(|place| all[place].clone())), NOTHING, "{order:?}");
    }
}

#[test]
fn ids_decide_which_claim_an_effect_shows() {
    let first = said(1, UPDATE, "a", 0.0);
    let second = with_request(said(2, UPDATE, "a", 5.0), "r-2");
    let effect = with_request(done(3, UPDATE, "a", 0.1), "r-2");
    for order in [[0, 1, 2], [2, 0, 1], [0, 2, 1], [2, 1, 0]] {
        let all = [first.clone(), second.clone(), effect.clone()];
        let found = found_of(&order.map(|place| all[place].clone()));
        assert_eq!(found, ["test/1 false claim"], "{order:?}");
    }
    let free = done(4, UPDATE, "a", 0.2);
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [0, 3, 1, 2], [3, 1, 2, 0], [1, 3, 2, 0]] {
        let all = [first.clone(), second.clone(), effect.clone(), free.clone()];
        assert_eq!(found_of(&order.map(|place| all[place].clone())), NOTHING, "{order:?}");
    }
}

#[test]
fn one_action_explains_any_number_of_effects() {
    let effects = (0..300).map(|number| done(10 + number, UPDATE, "a", f64::from(number) / 30.0));
    let all: Vec<Event> = std::iter::once(said(1, UPDATE, "", 0.0)).chain(effects).collect();
    assert_eq!(found_of(&all), NOTHING);
}

#[test]
fn an_effect_waits_for_its_declaration_and_no_longer() {
    let mut late = engine();
    hear(&mut late, done(1, UPDATE, "a", 0.0));
    assert_eq!(tick(&mut late, 4), NOTHING);
    hear(&mut late, said(2, UPDATE, "a", 0.0));
    assert_eq!(tick(&mut late, 5), NOTHING);
    let mut later = engine();
    hear(&mut later, done(1, UPDATE, "a", 0.0));
    assert_eq!(tick(&mut later, 5), ["test/1 undeclared effect"]);
    hear(&mut later, said(2, UPDATE, "a", 0.0));
    let found: Vec<String> = [60, 90, 120].iter().flat_map(|minute| tick(&mut later, *minute)).collect();
    assert_eq!(found, NOTHING, "what is declared too late is not held to it either");
}

#[test]
fn a_claim_waits_for_the_audit_log_however_long_it_is_silent() {
    let mut engine = engine();
    hear(&mut engine, said(1, UPDATE, "a", 0.0));
    hear(&mut engine, said(2, UPDATE, "b", 0.0));
    for minute in [30, 60, 300, 3_000] {
        assert_eq!(tick_with(&mut engine, minute, Some(noon() + 44 * MINUTE)), NOTHING, "the log stands still");
        assert_eq!(tick_with(&mut engine, minute, None), NOTHING, "nothing was read of it since a restart");
    }
    assert_eq!(
        engine.baselines().waiting(),
        Waiting { claims: 2, effects: 0, since: Some(noon()), ..Waiting::default() }
    );
    assert_eq!(tick(&mut engine, 3_001), NOTHING, "it comes back");
    hear(&mut engine, done(3, UPDATE, "a", 0.1));
    assert_eq!(tick(&mut engine, 3_030), NOTHING, "its backlog has half an hour");
    assert_eq!(tick(&mut engine, 3_031), ["test/2 false claim"]);
    assert!(!engine.baselines().has_waiting());
}

#[test]
fn where_no_audit_log_is_read_nothing_waits_for_ever() {
    let mut engine = Engine::new(Arc::new(book(&[("unreported-action/control.toml", CONTROL)])));
    hear(&mut engine, said(1, UPDATE, "a", 0.0));
    assert_eq!(engine.baselines().waiting(), Waiting::default(), "nothing to wait for");
    assert_eq!(tick_with(&mut engine, 74, None), NOTHING);
    assert!(engine.baselines().has_waiting());
    assert_eq!(tick_with(&mut engine, 75, None), NOTHING);
    assert!(!engine.baselines().has_waiting());
}

#[test]
fn an_agent_that_never_declares_or_is_never_seen_is_reported_once() {
    let fresh = || Engine::new(Arc::new(book(&[("unreported-action/control.toml", CONTROL)])));
    let mut silent = fresh();
    hear(&mut silent, done(1, UPDATE, "a", 0.0));
    hear(&mut silent, done(2, UPDATE, "b", 0.0));
    assert_eq!(tick(&mut silent, 10), ["test/1 undeclared agent"]);
    hear(&mut silent, done(3, UPDATE, "c", 11.0));
    assert_eq!(tick(&mut silent, 20), NOTHING);
    hear(&mut silent, said(4, UPDATE, "d", 21.0));
    hear(&mut silent, done(5, UPDATE, "e", 21.0));
    assert_eq!(tick(&mut silent, 30), ["test/5 undeclared effect"], "from its first word on it has words");

    let mut accepted = fresh();
    accepted.step(&Input::Accepted(Box::new(done(1, UPDATE, "a", 0.0))));
    hear(&mut accepted, done(2, UPDATE, "b", 0.0));
    assert_eq!(tick(&mut accepted, 10), NOTHING, "a person accepted that it declares nothing");

    let mut unseen = fresh();
    hear(&mut unseen, said(1, UPDATE, "a", 0.0));
    hear(&mut unseen, said(2, UPDATE, "b", 0.0));
    let found: Vec<String> = [60, 90, 120].iter().flat_map(|minute| tick(&mut unseen, *minute)).collect();
    assert_eq!(found, ["test/1 unaudited agent"]);
}

#[test]
fn more_than_can_be_followed_is_said_and_neither_passed_nor_reported_one_by_one() {
    let most = u32::try_from(MOST_FOLLOWED).unwrap();
    let mut engine = engine();
    for number in 0..most + 10 {
        hear(&mut engine, said(number, UPDATE, &format!("svc/{number}"), 0.0));
    }
    assert_eq!(engine.baselines().waiting().lost, 10);
    assert_eq!(tick(&mut engine, 1), ["test/0 too many changes"]);
    hear(&mut engine, done(most + 20, UPDATE, "svc/3", 0.1));
    hear(&mut engine, done(most + 21, UPDATE, "unknown", 0.1));
    assert_eq!(tick(&mut engine, 10), NOTHING, "either may have been declared by what made room");
    assert_eq!(engine.baselines().waiting().lost, 12);
    hear(&mut engine, done(most + 22, UPDATE, "unknown", 16.0));
    assert_eq!(tick(&mut engine, 30), [format!("test/{} undeclared effect", most + 22)]);
    assert_eq!(tick(&mut engine, 60), NOTHING);
    let said = engine.step(&Input::Tick { at: noon() + 61 * MINUTE, audited_until: None }).1;
    assert_eq!(said[0].event.id, format!("test/{}", most + 20), "an hour later, of the first since");
    assert_eq!(said[0].evidence[0].observed, "12 so far that cannot be paired");
    assert_eq!(said.len(), 1);

    let mut flooded = self::engine();
    for number in 0..most + 2 {
        hear(&mut flooded, done(number, UPDATE, &format!("svc/{number}"), 0.0));
    }
    let found = tick(&mut flooded, 10);
    assert_eq!(found.len(), MOST_FOLLOWED + 1);
    assert_eq!(found[MOST_FOLLOWED], "test/0 too many changes");
}

#[test]
fn a_flood_of_claims_takes_no_more_memory_and_hides_no_effect_unsaid() {
    let most = u32::try_from(MOST_FOLLOWED).unwrap();
    let mut engine = engine();
    for hour in 0..4 {
        let (first, start) = (hour * 10 * most, f64::from(hour) * 60.0);
        for number in 0..2 * most {
            hear(&mut engine, said(first + number, UPDATE, &format!("svc/{number}"), start));
        }
        hear(&mut engine, done(first + 2 * most, "iam:CreateUser", "mallory", start + 1.0));
        for number in 0..2 * most {
            hear(&mut engine, said(first + 3 * most + number, UPDATE, &format!("svc/{number}"), start + 2.0));
        }
        let profile = engine.baselines().past("bot").profile().unwrap().pairing.clone().unwrap();
        assert_eq!((profile.declared.len(), profile.effects.len()), (MOST_FOLLOWED, 1));
        // The log stands still, and all claims go on waiting.
        let minute = Millis::from(hour) * 60 + 8;
        let found = tick_with(&mut engine, minute, Some(noon()));
        let oldest = if hour == 0 { 0 } else { first - 6 * most };
        assert_eq!(found, [format!("test/{oldest} too many changes")]);
    }
}

#[test]
fn a_rulebook_without_the_control_lets_everything_go() {
    let mut engine = engine();
    hear(&mut engine, said(1, UPDATE, "a", 0.0));
    engine.step(&Input::Rulebook(Arc::new(book(&[]))));
    assert!(engine.baselines().has_waiting());
    assert_eq!(tick(&mut engine, 1), NOTHING);
    assert!(!engine.baselines().has_waiting());
}

#[test]
fn what_waits_is_restored() {
    let mut engine = engine();
    for number in 0..u32::try_from(MOST_FOLLOWED).unwrap() + 1 {
        hear(&mut engine, said(number, UPDATE, &number.to_string(), 0.0));
    }
    hear(&mut engine, with_request(done(9_100, UPDATE, "7", 0.1), "r"));
    hear(&mut engine, done(9_101, UPDATE, "unknown", 99.0));
    tick(&mut engine, 50);
    let tables = engine.baselines().snapshot().unwrap();
    let restored = Baselines::restore(&tables).unwrap();
    let profile = |baselines: &Baselines| baselines.past("bot").profile().unwrap().clone();
    assert_eq!(profile(&restored).pairing, profile(engine.baselines()).pairing);
    assert_eq!(
        (profile(&restored).heard, profile(&restored).settled),
        (profile(engine.baselines()).heard, noon() + 6_000)
    );
    assert_eq!(restored.snapshot().unwrap(), tables);
}

#[test]
fn a_finding_holds_no_contents() {
    let mut engine = engine();
    let reasoning = crate::event::Reasoning { text: "hunter2".to_owned(), ..Default::default() };
    let argument = crate::event::Argument { name: "p".to_owned(), value: "hunter2".to_owned(), origin: None };
    let action = Event { reasoning: Some(reasoning), arguments: vec![argument], ..said(1, UPDATE, "a", 0.0) };
    hear(&mut engine, action);
    assert!(!format!("{:?}", engine.baselines().snapshot().unwrap()).contains("hunter2"));
    let found: Vec<_> = [60, 90, 120]
        .iter()
        .flat_map(|minute| {
            engine.step(&Input::Tick { at: noon() + minute * MINUTE, audited_until: Some(noon() + minute * MINUTE) }).1
        })
        .collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, "unreported-action/test/1/0");
    assert!(!format!("{found:?}").contains("hunter2"));
}

#[test]
fn what_is_wrong_with_the_parameters_is_said() {
    let control = |from: &str, to: &str| {
        let text = CONTROL.replace(from, to);
        assert_ne!(text, CONTROL);
        faults(&[("unreported-action/control.toml", &text)]).join("\n")
    };
    assert!(control("after = \"15m\"", "after = \"soon\"").contains("`soon` is not a duration"));
    assert!(control("patience =", "pateince =").contains("pateince"));
}
