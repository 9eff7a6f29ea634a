//! The common work: seven detectors that stream engines can be compared by, over the product's engine and baselines.
//!
//! Guardrails: an observer that writes, an environment outside the agent's team, work outside of office hours. Against
//! the agent's own past: a tool or an environment never used before, a burst of such first uses within ten minutes, an
//! hour of the week in which the agent hardly ever works.

use anyhow::{Context, Result, anyhow, ensure};
use rustc_hash::FxHashMap;
use serde::Deserialize;
use tautline_detectors::baselines::{Cell, Dimension, HOURS_OF_WEEK, Note, Past, Profile, hour_of_week};
use tautline_detectors::detector::{Detector, Sighting, Suspicion};
use tautline_detectors::deviation::Deviation;
use tautline_detectors::engine::{Engine, Input};
use tautline_detectors::event::{AgentRef, Event, Millis, Verb};
use tautline_detectors::rulebook::{RuleFile, Rulebook};

use crate::work_event::WorkEvent;

/// Events from which on an agent's tools and environments are known.
const ENOUGH_FOR_NOVELTY: u64 = 50;
/// First uses in a window that are a burst.
const BURST: u32 = 4;
const WINDOW: Millis = 600_000;
/// Events, and time since the first one, from which on an agent's hours are known.
const ENOUGH_FOR_HOURS: (u64, Millis) = (100, 7 * 86_400_000);

/// The rules in the order of their alerts' lists, with what each adds to an alert's score.
pub(crate) const RULES: [(&str, u32); 7] = [
    ("observer_write", 40),
    ("env_denied", 30),
    ("off_hours", 20),
    ("new_tool", 10),
    ("new_env", 25),
    ("burst", 35),
    ("rare_hour", 15),
];

/// Which account is which environment, and which environments each team may work in.
#[derive(Debug, Deserialize)]
pub(crate) struct Policy {
    pub(crate) accounts: FxHashMap<String, String>,
    pub(crate) teams: FxHashMap<String, Vec<String>>,
}

/// A rulebook of one fleet, whose members are all agents there are, and the seven detectors.
pub(crate) fn rulebook(teams: FxHashMap<String, Vec<String>>) -> Result<Rulebook> {
    let file =
        |name: &str, text: &str| RuleFile { name: name.to_owned(), path: name.to_owned(), text: text.to_owned() };
    let files = vec![
        file("schema.cedarschema", include_str!("../../rules/schema.cedarschema")),
        file("registry/people.toml", "[people.\"ana@example.com\"]\nname = \"Ana\"\n"),
        file(
            "registry/agents/all.toml",
            "[fleets.all]\nclass = \"operator\"\nowner = \"ana@example.com\"\nmembers = [\"*\"]\n",
        ),
        file(
            "work/control.toml",
            "id = \"work\"\ntitle = \"Common work\"\nseverity = \"medium\"\nresponse = \"alert\"\n",
        ),
        file("work/policy.cedar", "@id(\"all\")\npermit (principal, action, resource);\n"),
    ];
    let mut book = Rulebook::read(files).map_err(|errors| anyhow!("{errors:?}"))?;
    let detectors: [Box<dyn Detector>; RULES.len()] = [
        Box::new(ObserverWrite),
        Box::new(EnvironmentDenied { teams }),
        Box::new(OffHours),
        Box::new(NewValue { rule: "new_tool", dimension: Dimension::Tool }),
        Box::new(NewValue { rule: "new_env", dimension: Dimension::Environment }),
        Box::new(Burst),
        Box::new(RareHour),
    ];
    for detector in detectors {
        ensure!(book.add_detector("work", detector), "the control is there");
    }
    Ok(book)
}

/// Makes the parsed record the product's event, in whose principal stands the agent's class.
pub(crate) fn fill(event: &mut Event, work: &WorkEvent<'_>, accounts: &FxHashMap<String, String>) -> Result<()> {
    put(&mut event.id, &work.id);
    if let AgentRef::Registered(agent) = &mut event.agent {
        put(agent, &work.agent);
    } else {
        event.agent = AgentRef::Registered(work.agent.to_string());
    }
    put(&mut event.principal.id, &work.class);
    put(&mut event.resource.id, &work.resource);
    event.at = work.ts_ms;
    event.verb = if work.write { Verb::Write } else { Verb::Read };
    if work.operation.is_empty() {
        put(&mut event.tool, &work.tool);
        put(&mut event.place.environment, &work.place);
    } else {
        put(&mut event.tool, work.tool.strip_suffix(".amazonaws.com").unwrap_or(&work.tool));
        event.tool.push(':');
        event.tool.push_str(&work.operation);
        let environment = accounts.get(&*work.place).with_context(|| format!("account `{}` is unknown", work.place))?;
        put(&mut event.place.environment, environment);
    }
    Ok(())
}

fn put(field: &mut String, text: &str) {
    field.clear();
    field.push_str(text);
}

/// Judges an event. This work learns from what deviates too, as if a person had accepted it at once.
pub(crate) fn judge(engine: &mut Engine, input: &Input) -> Vec<Deviation> {
    let (_, deviations) = engine.step(input);
    if let (Input::Event(event), false) = (input, deviations.is_empty()) {
        engine.step(&Input::Accepted(event.clone()));
    }
    deviations
}

/// The alert of an event's deviations; its `id` comes first.
pub(crate) fn alert(deviations: &[Deviation]) -> String {
    let Some(Deviation { event, .. }) = deviations.first() else { return String::new() };
    let broken: Vec<&(&str, u32)> =
        RULES.iter().filter(|(rule, _)| deviations.iter().any(|deviation| deviation.what == *rule)).collect();
    let text = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        r#"{{"id":{},"agent":{},"ts":{},"tool":{},"env":{},"resource":{},"rules":[{}],"score":{}}}"#,
        text(&event.id),
        text(event.agent.registered().unwrap_or_default()),
        event.at,
        text(&event.tool),
        text(&event.place.environment),
        text(&event.resource.id),
        broken.iter().map(|(rule, _)| text(rule)).collect::<Vec<_>>().join(","),
        broken.iter().map(|(_, weight)| weight).sum::<u32>()
    )
}

fn found(rule: &str) -> Option<Suspicion> {
    Some(Suspicion {
        what: rule.to_owned(),
        evidence: Vec::new(),
        counterfactual: String::new(),
        remember: Vec::new(),
        severity: None,
        rollback: None,
    })
}

#[derive(Debug)]
struct ObserverWrite;

impl Detector for ObserverWrite {
    fn assess(&self, Sighting { event, .. }: Sighting<'_>) -> Option<Suspicion> {
        // The principal of this work's events is the agent's class.
        if event.principal.id == "observer" && event.verb.changes() { found("observer_write") } else { None }
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct EnvironmentDenied {
    teams: FxHashMap<String, Vec<String>>,
}

impl Detector for EnvironmentDenied {
    fn assess(&self, Sighting { event, .. }: Sighting<'_>) -> Option<Suspicion> {
        let team = event.agent.registered().and_then(|agent| self.teams.get(agent.get(..3)?));
        if team.is_some_and(|allowed| allowed.contains(&event.place.environment)) { None } else { found("env_denied") }
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct OffHours;

impl Detector for OffHours {
    fn assess(&self, Sighting { event, .. }: Sighting<'_>) -> Option<Suspicion> {
        let (of_week, _) = hour_of_week(event.at);
        if of_week < 5 * 24 && (8..18).contains(&(of_week % 24)) { None } else { found("off_hours") }
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

/// How many first uses of tools and environments an event is.
fn first_uses(sighting: Sighting<'_>) -> u32 {
    let is_first = |dimension| u32::from(is_first_use(sighting, dimension));
    is_first(Dimension::Tool) + is_first(Dimension::Environment)
}

fn is_first_use(sighting: Sighting<'_>, dimension: Dimension) -> bool {
    let is_new = sighting.observed.iter().any(|seen| seen.dimension == dimension && seen.cell == Cell::default());
    is_new && sighting.past.profile().is_some_and(|profile| profile.learned >= ENOUGH_FOR_NOVELTY)
}

#[derive(Debug)]
struct NewValue {
    rule: &'static str,
    dimension: Dimension,
}

impl Detector for NewValue {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        if is_first_use(sighting, self.dimension) { found(self.rule) } else { None }
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Burst;

impl Burst {
    /// Behind those of the hours.
    const NOTE: u32 = HOURS_OF_WEEK as u32;

    /// The event's window, and how many first uses came in it before.
    fn before(sighting: Sighting<'_>) -> (u32, u32) {
        let window = u32::try_from(sighting.event.at.div_euclid(WINDOW)).unwrap_or_default();
        let note = sighting.past.note(Self::NOTE);
        (window, if note.count == window { note.withheld } else { 0 })
    }
}

impl Detector for Burst {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let new = first_uses(sighting);
        if new == 0 {
            return None;
        }
        let (_, before) = Self::before(sighting);
        if before < BURST && before + new >= BURST { found("burst") } else { None }
    }

    fn note(&self, sighting: Sighting<'_>, notes: &mut Vec<Note>) {
        let new = first_uses(sighting);
        if new > 0 {
            let (window, before) = Self::before(sighting);
            notes.push(Note { number: Self::NOTE, cell: Cell { count: window, withheld: before + new } });
        }
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct RareHour;

impl RareHour {
    /// The hour of week, and how many events came in it.
    fn known(past: Past<'_>, at: Millis) -> (u32, u32) {
        let hour = u32::try_from(hour_of_week(at).0).unwrap_or_default();
        (hour, past.note(hour).count)
    }
}

impl Detector for RareHour {
    fn assess(&self, Sighting { event, past, .. }: Sighting<'_>) -> Option<Suspicion> {
        let (enough, long_enough) = ENOUGH_FOR_HOURS;
        let is_known = |profile: &&Profile| {
            profile.learned >= enough && event.at.saturating_sub(profile.first_seen) >= long_enough
        };
        let learned = past.profile().filter(is_known)?.learned;
        let (_, count) = Self::known(past, event.at);
        if (u64::from(count) + 1) * 250 < learned + HOURS_OF_WEEK as u64 { found("rare_hour") } else { None }
    }

    fn note(&self, Sighting { event, past, .. }: Sighting<'_>, notes: &mut Vec<Note>) {
        let (number, count) = Self::known(past, event.at);
        notes.push(Note { number, cell: Cell { count: count + 1, withheld: 0 } });
    }

    fn is_statistical(&self) -> bool {
        false
    }
}
