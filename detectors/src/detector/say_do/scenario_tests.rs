//! Two days of a fleet: what is planted is found, and nothing else.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::baselines::Baselines;
use crate::deviation::Deviation;
use crate::engine::{Engine, Input};
use crate::event::{
    AgentRef, Credential, CredentialKind, Digest, Event, Millis, Origin, Outcome, Place, Resource, Source, Trace, Verb,
};
use crate::rulebook::Rulebook;
use crate::testing::{at, book};

const CONTROL: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/unreported-action/control.toml"));
const SECOND: Millis = 1_000;
const MINUTE: Millis = 60 * SECOND;
const HOUR: Millis = 60 * MINUTE;
const OPERATIONS: [&str; 6] = [
    "ecs:UpdateService",
    "ec2:CreateTags",
    "lambda:UpdateFunctionCode",
    "rds:ModifyDBInstance",
    "iam:AttachRolePolicy",
    "autoscaling:SetDesiredCapacity",
];

/// Numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        i64::try_from((mixed ^ (mixed >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }

    fn percent(&mut self, of_hundred: i64) -> bool {
        self.below(100) < of_hundred
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(i64::try_from(bound).unwrap())).unwrap()
    }
}

/// How much happens.
#[derive(Clone, Copy)]
struct Size {
    agents: usize,
    pairs: usize,
    planted: usize,
    hours: Millis,
    /// How long the audit log fails, half-way.
    outage: Millis,
}

/// A log under construction: events with the time at which they arrive.
struct World {
    dice: Dice,
    size: Size,
    start: Millis,
    number: u128,
    arrivals: Vec<(Millis, Event)>,
    /// Per agent, the actions that explain any effect, or any of an operation: when, and the operation if one is said.
    broad: Vec<Vec<(Millis, &'static str)>>,
    /// How many effects single actions have.
    fan_outs: BTreeSet<usize>,
    /// Actions with one effect, to claim again.
    single: Vec<Event>,
    undeclared: BTreeSet<String>,
    false_claims: BTreeSet<String>,
}

impl World {
    fn new(seed: u64, size: Size) -> Self {
        let mut world = Self {
            dice: Dice(seed),
            size,
            start: at("2026-03-02T00:00:00Z"),
            number: 0,
            arrivals: Vec::new(),
            broad: vec![Vec::new(); size.agents],
            fan_outs: BTreeSet::new(),
            single: Vec::new(),
            undeclared: BTreeSet::new(),
            false_claims: BTreeSet::new(),
        };
        for agent in 0..size.agents {
            let mut first = world.event(agent, world.start - HOUR, "ecs:DescribeServices", "");
            first.verb = Verb::Read;
            world.arrivals.push((first.at, first.clone()));
            let mut seen = world.effect(agent, first.at, "ecs:DescribeServices", "");
            seen.verb = Verb::Read;
            world.arrivals.push((seen.at + MINUTE, seen));
        }
        let mut pairs = 0;
        while pairs < size.pairs {
            let fan_out = world.fan_out();
            pairs += fan_out;
            world.declared(fan_out);
        }
        for _ in 0..size.planted {
            world.plant_effect();
            world.plant_claim();
        }
        world.services();
        world.duplicates();
        world
    }

    fn outage(&self) -> Range<Millis> {
        let middle = self.start + self.size.hours / 2 * HOUR;
        middle..middle + self.size.outage
    }

    fn time(&mut self) -> Millis {
        self.start + self.dice.below(self.size.hours * HOUR)
    }

    fn event(&mut self, agent: usize, at: Millis, action: &str, resource: &str) -> Event {
        self.number += 1;
        Event {
            id: format!("e/{}", self.number),
            digest: Digest(self.number),
            at,
            agent: AgentRef::Registered(format!("agent-{agent}")),
            tool: "deployer".to_owned(),
            action: action.to_owned(),
            verb: Verb::Write,
            resource: Resource { id: resource.to_owned(), ..Resource::default() },
            place: Place {
                account: "222".to_owned(),
                environment: "staging".to_owned(),
                mapped: true,
                ..Place::default()
            },
            outcome: Outcome::Success,
            ..Event::default()
        }
    }

    fn effect(&mut self, agent: usize, at: Millis, action: &str, resource: &str) -> Event {
        let request_id = format!("request-{}", self.number);
        let origin = Origin { address: "203.0.113.24".to_owned(), ..Origin::default() };
        Event {
            source: Source::Cloudtrail,
            tool: String::new(),
            origin,
            trace: Some(Trace { request_id, ..Trace::default() }),
            ..self.event(agent, at, action, resource)
        }
    }

    /// An agent's word arrives at once, or a little later.
    fn say(&mut self, event: Event) {
        let delay = if self.dice.percent(5) { self.dice.below(3 * MINUTE) } else { self.dice.below(5 * SECOND) };
        self.arrivals.push((event.at + delay, event));
    }

    /// The audit log's records arrive 1 to 20 minutes later; during its outage none does.
    fn record(&mut self, event: Event) {
        let arrival = event.at + MINUTE + self.dice.below(19 * MINUTE);
        let outage = self.outage();
        let arrival = if outage.contains(&arrival) { outage.end + self.dice.below(15 * MINUTE) } else { arrival };
        self.arrivals.push((arrival, event));
    }

    /// One mostly, and up to 300.
    fn fan_out(&mut self) -> usize {
        match self.dice.below(1_000) {
            0..900 => 1,
            900..990 => 2 + self.dice.index(19),
            _ => 21 + self.dice.index(280),
        }
    }

    /// One action and its effects.
    fn declared(&mut self, fan_out: usize) {
        self.fan_outs.insert(fan_out);
        let agent = self.dice.index(self.size.agents);
        let at = self.time();
        let operation = OPERATIONS[self.dice.index(OPERATIONS.len())];
        let resource = format!("svc-{}", self.dice.below(400));
        let arn = format!("arn:aws:x:eu-west-1:222:thing/{resource}");
        let shell = self.dice.percent(2);
        let mut action = match (shell, fan_out) {
            (true, _) => self.event(agent, at, "bash", ""),
            (false, 1) => self.event(agent, at, operation, &arn),
            (false, _) => self.event(agent, at, operation, ""),
        };
        if shell {
            action.tool = "bash".to_owned();
        }
        if shell || fan_out > 1 {
            self.broad[agent].push((at, if shell { "" } else { operation }));
        }
        for number in 0..fan_out {
            let name = if fan_out == 1 { resource.clone() } else { format!("{resource}-{number}") };
            let operation = if shell { OPERATIONS[self.dice.index(OPERATIONS.len())] } else { operation };
            let later = self.dice.below(if fan_out == 1 { 20 * SECOND } else { 10 * MINUTE }) - 2 * SECOND;
            let effect = self.effect(agent, at + later, operation, &name);
            if number == 0 && self.dice.percent(20) {
                action.trace.clone_from(&effect.trace);
            }
            self.record(effect);
        }
        if fan_out == 1 && !shell {
            self.single.push(action.clone());
        }
        self.say(action);
    }

    /// Whether an action that names no resource, or not even an operation, explains such an effect.
    fn is_covered(&self, agent: usize, at: Millis, operation: &str) -> bool {
        let covers = |(said, named): &(Millis, &str)| {
            (-MINUTE..=15 * MINUTE).contains(&(at - said)) && (named.is_empty() || *named == operation)
        };
        self.broad[agent].iter().any(covers)
    }

    /// An effect of what the agent does all day, on something that it never named.
    fn plant_effect(&mut self) {
        let (agent, at, operation) = loop {
            let (agent, at) = (self.dice.index(self.size.agents), self.time());
            let operation = OPERATIONS[self.dice.index(OPERATIONS.len())];
            if !self.is_covered(agent, at, operation) {
                break (agent, at, operation);
            }
        };
        let effect = self.effect(agent, at, operation, "svc-secret");
        self.undeclared.insert(effect.id.clone());
        self.record(effect);
    }

    /// Half of the false claims repeat one that was true some minutes before.
    fn plant_claim(&mut self) {
        let claim = if self.dice.percent(50) {
            let place = self.dice.index(self.single.len());
            let told = self.single[place].clone();
            let agent = told.agent.registered().unwrap().rsplit('-').next().unwrap().parse().unwrap();
            let later = 3 * MINUTE + self.dice.below(8 * MINUTE);
            let (action, resource) = (told.action, told.resource.id);
            self.event(agent, told.at + later, &action, &resource)
        } else {
            let (agent, at) = (self.dice.index(self.size.agents), self.time());
            let resource = format!("made-up-{}", self.number);
            let operation = OPERATIONS[self.dice.index(OPERATIONS.len())];
            self.event(agent, at, operation, &resource)
        };
        self.false_claims.insert(claim.id.clone());
        self.say(claim);
    }

    /// Services that act on their own, hours after anything was declared.
    fn services(&mut self) {
        for number in 0..self.size.pairs / 50 {
            let (agent, at) = (self.dice.index(self.size.agents), self.time());
            let mut effect = self.effect(agent, at, "ec2:TerminateInstances", &format!("i-{number}"));
            if number % 2 == 0 {
                effect.origin.address = "autoscaling.amazonaws.com".to_owned();
            } else {
                effect.credential = Credential { kind: CredentialKind::Service, ..Credential::default() };
            }
            self.record(effect);
        }
    }

    fn duplicates(&mut self) {
        for _ in 0..self.arrivals.len() / 20 {
            let place = self.dice.index(self.arrivals.len());
            let (arrival, event) = self.arrivals[place].clone();
            let again = arrival + self.dice.below(10 * MINUTE);
            if !event.source.is_audit() || !self.outage().contains(&again) {
                self.arrivals.push((again, event));
            }
        }
    }

    /// The log: events as they arrive, a tick each minute, and some hours in which only the audit log goes on.
    fn log(&self) -> Vec<Input> {
        let mut arrivals = self.arrivals.clone();
        let end = self.start + self.size.hours * HOUR;
        for minute in 0..180 {
            let mut read = arrivals[1].1.clone();
            read.at = end + 15 * MINUTE + minute * MINUTE;
            read.digest = Digest(u128::MAX - u128::try_from(minute).unwrap());
            read.source = Source::Cloudtrail;
            arrivals.push((read.at + MINUTE, read));
        }
        arrivals.sort_by_key(|(arrival, event)| (*arrival, event.digest.0));
        let (mut log, mut audited_until, mut tick) = (Vec::new(), None, arrivals[0].0);
        for (arrival, event) in arrivals {
            while tick + MINUTE <= arrival {
                tick += MINUTE;
                log.push(Input::Tick { at: tick, audited_until });
            }
            if event.source.is_audit() {
                audited_until = audited_until.max(Some(event.at));
            }
            log.push(Input::Event(Box::new(event)));
        }
        log
    }

    fn planted(&self) -> BTreeMap<String, String> {
        let effects = self.undeclared.iter().map(|id| (id.clone(), "undeclared effect".to_owned()));
        effects.chain(self.false_claims.iter().map(|id| (id.clone(), "false claim".to_owned()))).collect()
    }
}

fn fleet(agents: usize) -> Arc<Rulebook> {
    let entry = |agent| {
        format!(
            "[agents.agent-{agent}]\nclass = \"operator\"\nowner = \"ana@example.com\"\nidentities = [\"role/a-{agent}\"]\n\
             environments = [\"staging\"]\nresource_types = [\"*\"]\ntools = [\"*\"]\n"
        )
    };
    let registry: String = (0..agents).map(entry).collect();
    Arc::new(book(&[("registry/agents/fleet.toml", &registry), ("unreported-action/control.toml", CONTROL)]))
}

/// What was found, by the event's id; each once.
fn by_event(found: &[Deviation]) -> BTreeMap<String, String> {
    let kinds: BTreeMap<_, _> = found.iter().map(|d| (d.event.id.clone(), d.evidence[0].what.clone())).collect();
    assert_eq!(kinds.len(), found.len(), "something was found twice");
    kinds
}

/// Holds what is found of a world against what was planted in it.
fn is_what_was_planted(found: &[Deviation], world: &World) {
    let (found, planted) = (by_event(found), world.planted());
    let missed: Vec<_> = planted.iter().filter(|(id, _)| !found.contains_key(*id)).collect();
    let invented: Vec<_> = found.iter().filter(|(id, _)| !planted.contains_key(*id)).collect();
    assert!(missed.is_empty() && invented.is_empty(), "missed {missed:?}, invented {invented:?}");
    assert_eq!(found, planted);
    assert_eq!(planted.len(), 2 * world.size.planted);
}

#[test]
fn a_hundred_undeclared_effects_and_false_claims_among_100_000_pairs_are_found_and_none_is_invented() {
    let world = World::new(1, Size { agents: 40, pairs: 100_000, planted: 100, hours: 48, outage: 0 });
    assert_eq!((world.fan_outs.first(), world.fan_outs.last()), (Some(&1), Some(&300)));
    let mut engine = Engine::new(fleet(world.size.agents));
    let found: Vec<Deviation> = world.log().iter().flat_map(|input| engine.step(input).1).collect();
    is_what_was_planted(&found, &world);
    assert!(!engine.baselines().has_waiting(), "in the end nothing waits");
}

#[test]
fn an_hour_without_the_audit_log_is_waited_out_and_brings_no_false_finding() {
    let world = World::new(2, Size { agents: 10, pairs: 20_000, planted: 30, hours: 24, outage: HOUR });
    let outage = world.outage();
    let mut engine = Engine::new(fleet(world.size.agents));
    let (mut found, mut waiting) = (Vec::new(), Vec::new());
    for input in world.log() {
        let deviations = engine.step(&input).1;
        if let Input::Tick { at, .. } = input {
            // What the log had come past before it failed is decided half an hour later at the latest.
            let is_blind = (outage.start + 31 * MINUTE..outage.end + 30 * MINUTE).contains(&at);
            assert!(!is_blind || deviations.iter().all(|found| found.evidence[0].what != "false claim"));
            waiting.extend((at == outage.start || at == outage.end).then(|| engine.baselines().waiting()));
        }
        found.extend(deviations);
    }
    is_what_was_planted(&found, &world);
    let since = waiting[1].since.unwrap();
    assert!(since < outage.start && waiting[1].claims > 2 * waiting[0].claims, "claims wait: {waiting:?}");
    assert!(!engine.baselines().has_waiting(), "in the end nothing waits");
}

fn small(seed: u64) -> (World, Size) {
    let size = Size { agents: 3, pairs: 120, planted: 6, hours: 4, outage: 0 };
    (World::new(seed, size), size)
}

fn deviations(found: &[Deviation]) -> Vec<String> {
    found.iter().map(|one| format!("{one:?}")).collect()
}

#[test]
fn a_restart_at_any_record_changes_nothing() {
    for seed in 0..3 {
        let (world, size) = small(seed);
        let log = world.log();
        let mut once = Engine::new(fleet(size.agents));
        let found: Vec<Deviation> = log.iter().flat_map(|input| once.step(input).1).collect();
        assert!(found.len() >= 8, "so few deviations show little");
        let mut restarted = Engine::new(fleet(size.agents));
        let mut again = Vec::new();
        for input in &log {
            let baselines = Baselines::restore(&restarted.baselines().snapshot().unwrap()).unwrap();
            restarted = Engine::resume(Arc::clone(restarted.rulebook()), baselines);
            again.extend(restarted.step(input).1);
        }
        assert_eq!(deviations(&again), deviations(&found));
        assert_eq!(restarted.baselines().snapshot().unwrap(), once.baselines().snapshot().unwrap());
    }
}

#[test]
fn agents_are_paired_each_for_itself() {
    let (world, size) = small(7);
    let log = world.log();
    let mut together = Engine::new(fleet(size.agents));
    let found: Vec<Deviation> = log.iter().flat_map(|input| together.step(input).1).collect();
    for agent in 0..size.agents {
        let id = format!("agent-{agent}");
        let is_of = |input: &&Input| match input {
            Input::Event(event) => event.agent.registered() == Some(&id),
            _ => true,
        };
        let mut alone = Engine::new(fleet(size.agents));
        let of_agent: Vec<Deviation> = log.iter().filter(is_of).flat_map(|input| alone.step(input).1).collect();
        let expected: Vec<Deviation> = found.iter().filter(|one| one.agent.id == id).cloned().collect();
        assert_eq!(deviations(&of_agent), deviations(&expected));
    }
}
