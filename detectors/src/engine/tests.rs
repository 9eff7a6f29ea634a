#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use arrow::array::RecordBatch;

use super::*;
use crate::baselines::MOST_NOTICES;
use crate::event::{Argument, Digest, Place, Principal, Reasoning, Run, Source, Verb};
use crate::rulebook::{MOST_DECISIONS, Trust};
use crate::testing::{at, book, control, event, in_run};

const NOON: &str = "2026-03-02T12:00:00Z";
const WRITES: &str =
    "@id(\"writes\") @message(\"is a write\")\nforbid (principal, action == Action::\"write\", resource);";

fn engine(files: &[(&str, &str)]) -> Engine {
    Engine::new(Arc::new(book(files)))
}

/// An engine to which every write is a deviation of severity high.
fn no_writes() -> Engine {
    engine(&[("extra/control.toml", &control("extra", "")), ("extra/policy.cedar", WRITES)])
}

fn write(number: u32, time: &str) -> Event {
    Event { verb: Verb::Write, ..event(number, "ecs:StopTask", time) }
}

fn step(engine: &mut Engine, event: &Event) -> (Verdict, Vec<Deviation>) {
    engine.step(&Input::Event(Box::new(event.clone())))
}

fn one(engine: &mut Engine, event: &Event) -> Deviation {
    let (_, mut deviations) = step(engine, event);
    assert_eq!(deviations.len(), 1, "{deviations:?}");
    deviations.remove(0)
}

#[test]
fn trust_falls_with_the_score_and_comes_back_with_time() {
    let mut engine = no_writes();
    let first = one(&mut engine, &write(1, NOON));
    assert!((first.trust.before - 100.0).abs() < 1e-9);
    assert!((first.trust.after - engine.rulebook().trust.of(first.score)).abs() < 1e-9);
    let same_time = one(&mut engine, &write(2, NOON));
    assert!((same_time.trust.before - first.trust.after).abs() < 1e-9);
    let later = one(&mut engine, &write(3, "2026-03-05T12:00:00Z"));
    assert!(
        (later.trust.before - engine.rulebook().trust.of(first.score)).abs() < 1e-6,
        "after three days half of the evidence is left"
    );
}

#[test]
fn trust_comes_back_as_the_rulebook_in_force_says() {
    let files = [("extra/control.toml", &*control("extra", "")), ("extra/policy.cedar", WRITES)];
    let mut engine = engine(&files);
    let first = one(&mut engine, &write(1, NOON));
    let faster = ("trust.toml", "[trust]\nhalf_life = \"36h\"\n");
    engine.step(&Input::Rulebook(Arc::new(book(&[&files[..], &[faster]].concat()))));
    let later = one(&mut engine, &write(2, "2026-03-05T12:00:00Z"));
    let left = engine.rulebook().trust.of(first.score / 4.0);
    assert!((later.trust.before - left).abs() < 1e-6, "{} and not {left}", later.trust.before);
}

#[test]
fn an_agent_learns_for_as_long_as_the_rulebook_says() {
    let state = |trust: &str| {
        let files = [("extra/control.toml", &*control("extra", "")), ("extra/policy.cedar", WRITES)];
        let mut engine = engine(&[&files[..], &[("trust.toml", trust)]].concat());
        (0..9).for_each(|number| drop(step(&mut engine, &event(number, "ecs:DescribeTasks", NOON))));
        step(&mut engine, &event(9, "ecs:DescribeTasks", "2026-03-03T13:00:00Z"));
        one(&mut engine, &write(10, "2026-03-03T13:00:00Z")).agent.state
    };
    assert_eq!(state(""), LearningState::Learning);
    assert_eq!(state("[learning]\nevents = 10\n"), LearningState::Active);
    assert_eq!(state("[learning]\ntime = \"1d\"\nhours = 2\n"), LearningState::Active);
    assert_eq!(state("[learning]\ntime = \"1d\"\nhours = 3\n"), LearningState::Learning);
    assert_eq!(state("[learning]\ntime = \"26h\"\nhours = 2\n"), LearningState::Learning);
}

#[test]
fn a_broken_rule_weighs_what_its_severity_does() {
    let score = |severity: &str| {
        let detector = format!("[[detector]]\nkind = \"unmapped-place\"\nseverity = \"{severity}\"\n");
        let mut engine = engine(&[("extra/control.toml", &control("extra", &detector))]);
        let place = Place { account: "1".to_owned(), ..Place::default() };
        one(&mut engine, &Event { place, ..event(1, "ecs:DescribeTasks", NOON) }).score
    };
    let scores = Trust::default();
    for severity in Severity::ALL {
        assert_eq!(score(severity.name()).to_bits(), scores.score(severity).to_bits(), "{severity}");
    }
}

#[test]
fn what_comes_late_does_not_bring_trust_back() {
    let mut engine = no_writes();
    let first = one(&mut engine, &write(1, NOON));
    let late = one(&mut engine, &write(2, "2025-12-01T12:00:00Z"));
    assert!(late.trust.after < first.trust.after);
    let next = one(&mut engine, &write(3, NOON));
    assert!(next.trust.before <= late.trust.after + 1e-9, "{} after {}", next.trust.before, late.trust.after);
}

#[test]
fn one_event_moves_trust_once_however_many_controls_it_breaks() {
    let other = WRITES.replace("@id", "@severity(\"critical\") @id");
    let mut engine = engine(&[
        ("one/control.toml", &control("one", "")),
        ("one/policy.cedar", WRITES),
        ("two/control.toml", &control("two", "")),
        ("two/policy.cedar", &other),
    ]);
    let (_, found) = step(&mut engine, &write(1, NOON));
    assert_eq!(found.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["one/test/1/0", "two/test/1/0"]);
    assert_eq!(found[0].trust, found[1].trust);
    let trust = &engine.rulebook().trust;
    assert!((found[0].trust.after - trust.of(trust.score(Severity::Critical))).abs() < 1e-9);
}

#[test]
fn a_repeat_changes_nothing_and_other_content_under_the_same_id_is_judged() {
    let mut engine = no_writes();
    one(&mut engine, &write(1, NOON));
    let seen = engine.baselines().past("bot").profile().unwrap().clone();
    assert_eq!(step(&mut engine, &write(1, NOON)), (Verdict::Repeated, Vec::new()));
    assert_eq!(*engine.baselines().past("bot").profile().unwrap(), seen);
    let other = Event { digest: Digest(99), action: "ecs:DeleteService".to_owned(), ..write(1, NOON) };
    assert!(one(&mut engine, &other).summary.contains("ecs:DeleteService"));
}

#[test]
fn only_what_did_not_deviate_and_was_not_refused_is_learned() {
    let mut engine = no_writes();
    let learned = |engine: &Engine| engine.baselines().past("bot").profile().unwrap().learned;
    step(&mut engine, &event(1, "ecs:DescribeTasks", NOON));
    assert_eq!(learned(&engine), 1);
    step(&mut engine, &write(2, NOON));
    assert_eq!(learned(&engine), 1);
    step(&mut engine, &Event { outcome: Outcome::Denied("no".to_owned()), ..event(3, "ecs:ListTasks", NOON) });
    assert_eq!(learned(&engine), 1);
    assert_eq!(engine.baselines().past("bot").cell(Dimension::Read, "ecs:ListTasks").count, 0);
    engine.step(&Input::Accepted(Box::new(write(4, NOON))));
    assert_eq!(learned(&engine), 2, "what a person accepts is learned, whatever it is");
    assert_eq!(engine.baselines().past("bot").cell(Dimension::Change, "ecs:StopTask").count, 1);
}

#[test]
fn the_memory_of_values_is_bounded_whatever_an_agent_makes_up() {
    let mut engine = engine(&[]);
    for number in 0..2_000 {
        step(&mut engine, &event(number, &format!("made-up:Get{number}"), NOON));
    }
    let values = engine.baselines().snapshot().unwrap().iter().map(|table| table.num_rows()).sum::<usize>();
    assert!(values < 1_100, "{values} rows");
    assert!(engine.baselines().known_values() < 1_100, "{} texts", engine.baselines().known_values());
    assert_eq!(engine.baselines().past("bot").cell(Dimension::Read, "made-up:Get0").count, 1);
    assert_eq!(engine.baselines().past("bot").cell(Dimension::Read, "made-up:Get1999").count, 0);
}

/// What is remembered but for the notices about unregistered principals.
fn of_registered(engine: &Engine) -> Vec<RecordBatch> {
    let is_notices = |table: &RecordBatch| table.schema_ref().metadata()["tautline.table"] == "notices";
    engine.baselines().snapshot().unwrap().into_iter().filter(|table| !is_notices(table)).collect()
}

#[test]
fn a_million_made_up_agents_push_nothing_out_and_grow_nothing() {
    // What policies read of it is made up too, so that no decision is known.
    let operations = "@id(\"x\")\nforbid (principal, action, resource) when\n\
        { context.operation == \"ecs:X\" || resource.type == \"X\" || context.environment == \"x\" };";
    let playbook = "[playbooks.p]\ntitle = \"P\"\nidle = \"1h\"\nsteps = [{ id = \"a\", operations = [\"ecs:*\"] }]\n";
    let mut engine = engine(&[
        ("extra/control.toml", &control("extra", "")),
        ("extra/policy.cedar", WRITES),
        ("made-up/control.toml", &control("made-up", "")),
        ("made-up/policy.cedar", operations),
        ("registry/playbooks/p.toml", playbook),
    ]);
    step(&mut engine, &event(1, "ecs:DescribeTasks", NOON));
    step(&mut engine, &in_run(event(2, "ecs:ListTasks", NOON), "p", "r-1"));
    one(&mut engine, &write(3, NOON));
    let (before, values) = (of_registered(&engine), engine.baselines().known_values());
    let mut undisturbed = Engine::resume(Arc::clone(engine.rulebook()), engine.baselines().clone());

    let mut stranger = event(0, "", NOON);
    for number in 0..1_000_000_u32 {
        stranger.digest = Digest(u128::from(number) + 1_000);
        stranger.agent = AgentRef::Unregistered(format!("made-up-{number}"));
        stranger.principal.claimed_agent = format!("made-up-{number}");
        stranger.action = format!("made-up:Do{number}");
        stranger.tool = format!("tool-{number}");
        stranger.resource.kind = format!("Made::Up::{number}");
        stranger.place.environment = format!("made-up-{number}");
        stranger.run = Some(Run { session: number.to_string(), playbook: number.to_string(), id: number.to_string() });
        let (verdict, found) = engine.step(&Input::Event(Box::new(stranger.clone())));
        assert_eq!((verdict, found.len()), (Verdict::Unregistered, 1), "number {number} is reported");
    }
    assert_eq!(engine.baselines().notices(), MOST_NOTICES);
    assert_eq!((engine.baselines().iter().count(), engine.baselines().known_values()), (1, values));
    assert!(engine.decisions.len() <= MOST_DECISIONS, "{} decisions", engine.decisions.len());
    assert_eq!(of_registered(&engine), before);
    for (number, operation) in [(4, "ecs:DescribeTasks"), (5, "ecs:StopTask")] {
        let next = Event { verb: Verb::Write, ..event(number, operation, "2026-03-02T12:05:00Z") };
        assert_eq!(step(&mut engine, &next), step(&mut undisturbed, &next));
    }
    assert_eq!(of_registered(&engine), of_registered(&undisturbed));
}

#[test]
fn a_revocation_is_asked_for_once_and_never_on_another_identitys_word() {
    let revoke = control("extra", "").replace("alert", "revoke");
    let mut engine = engine(&[("extra/control.toml", &revoke), ("extra/policy.cedar", WRITES)]);
    let of_session = |number: u32, session: &str, identity: &str| Event {
        run: Some(Run { session: session.to_owned(), ..Run::default() }),
        principal: Principal { id: identity.to_owned(), claimed_agent: "bot".to_owned(), ..Principal::default() },
        ..write(number, NOON)
    };
    let asked = |engine: &mut Engine, event: &Event| one(engine, event).revocation.map(|subject| subject.key());
    assert_eq!(asked(&mut engine, &of_session(1, "s-1", "role/bot")).as_deref(), Some("session s-1 of bot"));
    assert_eq!(asked(&mut engine, &of_session(2, "s-1", "role/bot")), None);
    assert_eq!(asked(&mut engine, &of_session(3, "s-2", "role/bot")).as_deref(), Some("session s-2 of bot"));
    assert_eq!(asked(&mut engine, &of_session(4, "s-3", "role/somebody")), None);
    assert_eq!(asked(&mut engine, &of_session(5, "", "role/bot")), None);
    let audit = Event {
        source: Source::Cloudtrail,
        principal: Principal { id: "role/bot".to_owned(), session: "s-9".to_owned(), ..Principal::default() },
        ..write(6, NOON)
    };
    assert_eq!(asked(&mut engine, &audit).as_deref(), Some("session s-9 of role/bot"));
}

#[test]
fn an_unregistered_agent_is_reported_once_for_each_policy_and_has_no_trust_to_lose() {
    let mut engine = no_writes();
    let stranger = |number: u32, name: &str| Event {
        agent: AgentRef::Unregistered(name.to_owned()),
        ..event(number, "ecs:StopTask", NOON)
    };
    let found = one(&mut engine, &stranger(1, "eve"));
    assert_eq!((found.agent.id.as_str(), found.agent.class.as_str()), ("unregistered/eve", "unregistered"));
    assert_eq!(found.trust.before.to_bits(), found.trust.after.to_bits());
    assert_eq!(step(&mut engine, &stranger(2, "eve")), (Verdict::Unregistered, Vec::new()));
    one(&mut engine, &stranger(3, "mallory"));
    let audit = Event { source: Source::Cloudtrail, ..stranger(4, "a person") };
    assert_eq!(step(&mut engine, &audit), (Verdict::Unregistered, Vec::new()), "the cloud's own records of people");
    assert_eq!(engine.baselines().iter().count(), 0);
}

#[test]
fn a_tick_ends_idle_runs_once_in_the_order_of_agents_and_runs() {
    let playbook = "[playbooks.p]\ntitle = \"P\"\nidle = \"1h\"\nsteps = [{ id = \"a\", operations = [\"ecs:A\"] }, { id = \"b\", operations = [\"ecs:B\"] }]\n";
    let files = [
        ("extra/control.toml", &*control("extra", "[[detector]]\nkind = \"playbook\"\n")),
        ("registry/playbooks/p.toml", playbook),
    ];
    let mut engine = engine(&files);
    for (number, run, time) in [(1, "r2", NOON), (2, "r1", NOON), (3, "r3", "2026-03-02T12:30:00Z")] {
        assert_eq!(step(&mut engine, &in_run(event(number, "ecs:A", time), "p", run)).1, []);
    }
    let tick = |engine: &mut Engine, time: &str| engine.step(&Input::Tick { at: at(time), audited_until: None }).1;
    assert_eq!(tick(&mut engine, "2026-03-02T13:00:00Z"), [], "an hour is not more than an hour");
    let ended = tick(&mut engine, "2026-03-02T13:00:01Z");
    assert_eq!(ended.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["extra/test/2/end/0", "extra/test/1/end/0"]);
    assert!(ended[0].summary.contains("r1") && ended[0].summary.contains('b'), "{}", ended[0].summary);
    assert_eq!(tick(&mut engine, "2026-03-02T13:00:01Z"), []);
    assert_eq!(tick(&mut engine, "2026-03-03T00:00:00Z").len(), 1);
}

#[test]
fn a_new_rulebook_judges_from_its_record_on() {
    let mut engine = no_writes();
    let strict = engine.rulebook().hash().to_owned();
    assert_eq!(one(&mut engine, &write(1, NOON)).rulebook, strict);
    let lax = Arc::new(book(&[]));
    assert_eq!(engine.step(&Input::Rulebook(Arc::clone(&lax))), (Verdict::Control, Vec::new()));
    assert_eq!(step(&mut engine, &write(2, NOON)), (Verdict::Judged, Vec::new()), "no decision of the old one stays");
    assert_eq!(engine.rulebook().hash(), lax.hash());
    assert_ne!(lax.hash(), strict);
}

#[test]
fn a_deviation_holds_no_argument_and_no_reasoning() {
    let argument = Argument { name: "password".to_owned(), value: "hunter2".to_owned(), origin: None };
    let reasoning = Reasoning { text: "hunter2".to_owned(), digest: "sha256:1".to_owned(), ..Reasoning::default() };
    let told = Event { arguments: vec![argument], reasoning: Some(reasoning), ..write(1, NOON) };
    let found = one(&mut no_writes(), &told);
    assert!(!format!("{found:?}").contains("hunter2"));
    assert_eq!(found.event.arguments[0].name, "password");
    assert_eq!(found.event.reasoning.unwrap().digest, "sha256:1");
}
