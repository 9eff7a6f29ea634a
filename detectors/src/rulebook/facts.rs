//! What policies see of an event: bounded attributes, computed before, so that decisions can be cached.

use hashbrown::{Equivalent, HashMap};
use rustc_hash::FxBuildHasher;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::registry::Agent;
use super::{Judgement, Rulebook};
use crate::event::{Event, Source, Verb};
use crate::glob;

/// The class of a principal that is in no registry.
pub(super) const UNREGISTERED: &str = "unregistered";

/// What is said of the playbook where none could be.
pub(super) const NOT_APPLICABLE: &str = "not-applicable";

/// Everything a policy can ask about, by reference into the event and the registry.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'e> {
    /// The agent's id; part of the cache key only where a policy names one.
    pub agent: &'e str,
    /// The resource's id; unbounded, so a policy that reads it is never cached.
    pub resource_id: &'e str,
    /// What kind of request it was.
    pub verb: Verb,
    /// Text attributes, in the order of [`TEXTS`].
    pub texts: [&'e str; TEXTS.len()],
    /// Truth attributes, in the order of [`TRUTHS`].
    pub truths: [bool; TRUTHS.len()],
}

/// Text attributes and where the schema has them: `principal.…`, `resource.…` or `context.…`.
pub(super) const TEXTS: [&str; 12] = [
    "principal.class",
    "principal.status",
    "resource.type",
    "resource.asset",
    "resource.data",
    "resource.tier",
    "context.operation",
    "context.environment",
    "context.source",
    "context.window",
    "context.playbook",
    "context.credential",
];

/// Truth attributes and where the schema has them.
pub(super) const TRUTHS: [&str; 11] = [
    "resource.crown_jewel",
    "resource.mapped",
    "context.environment_cleared",
    "context.environment_disputed",
    "context.resource_type_approved",
    "context.tool_approved",
    "context.data_approved",
    "context.exposes",
    "context.changes",
    "context.identity_disputed",
    "context.approval_referenced",
];

/// Which facts any policy reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reads {
    /// The agent's id.
    pub(super) agent: bool,
    /// The resource's id.
    pub(super) resource_id: bool,
    /// Which of [`TEXTS`].
    pub(super) texts: [bool; TEXTS.len()],
    /// Which of [`TRUTHS`].
    pub(super) truths: [bool; TRUTHS.len()],
}

impl Reads {
    /// Takes in what another policy reads.
    pub(super) fn add(&mut self, other: &Self) {
        self.agent |= other.agent;
        self.resource_id |= other.resource_id;
        self.texts.iter_mut().zip(other.texts).for_each(|(ours, theirs)| *ours |= theirs);
        self.truths.iter_mut().zip(other.truths).for_each(|(ours, theirs)| *ours |= theirs);
    }
}

/// The values that a text attribute can have under a rulebook; `None` where it can be any text.
pub(super) fn values(name: &str, book: &Rulebook) -> Option<BTreeSet<String>> {
    let listed = |values: &[&str]| Some(values.iter().map(|value| (*value).to_owned()).collect());
    match name {
        "principal.class" => listed(&["observer", "advisor", "operator", UNREGISTERED]),
        "principal.status" => listed(&["active", "expired", "retired", UNREGISTERED]),
        "resource.asset" => Some(book.vocabulary.assets()),
        "resource.data" => Some(book.vocabulary.data()),
        "resource.tier" => Some(book.estate.tiers()),
        "context.environment" => Some(book.estate.environments()),
        // Statements are heard, not judged.
        "context.source" => {
            let judged = Source::ALL.iter().filter(|source| **source != Source::Statement);
            Some(judged.map(|source| source.name().to_owned()).collect())
        }
        "context.window" => listed(&["freeze", "none", "inside", "outside"]),
        "context.playbook" => listed(&["approved", "unapproved", "none", NOT_APPLICABLE]),
        "context.credential" => listed(&["short-lived", "long-lived", "service", "unknown", "claimed"]),
        _ => None,
    }
}

impl<'e> Facts<'e> {
    /// What is true of this event under this rulebook. What none of its policies reads is left empty: decisions are
    /// cached by exactly what they depend on.
    pub fn of(event: &'e Event, agent: Option<&'e Agent>, book: &'e Rulebook) -> Self {
        let reads = book.reads();
        Self {
            agent: if reads.agent { agent.map_or("", |agent| &agent.id) } else { "" },
            resource_id: if reads.resource_id { &event.resource.id } else { "" },
            verb: event.verb,
            texts: texts(event, agent, book, &reads.texts),
            truths: truths(event, agent, book, &reads.truths),
        }
    }
}

/// The texts that are read, in the order of [`TEXTS`].
fn texts<'e>(
    event: &'e Event,
    agent: Option<&'e Agent>,
    book: &Rulebook,
    read: &[bool; TEXTS.len()],
) -> [&'e str; TEXTS.len()] {
    let mut read = read.iter();
    let mut of = |text: &dyn Fn() -> &'e str| if read.next() == Some(&true) { text() } else { "" };
    [
        of(&|| agent.map_or(UNREGISTERED, |agent| agent.class.name())),
        of(&|| agent.map_or(UNREGISTERED, |agent| agent.status(event.at))),
        of(&|| &event.resource.kind),
        of(&|| &event.resource.asset),
        of(&|| &event.resource.data),
        of(&|| &event.place.tier),
        of(&|| &event.action),
        of(&|| &event.place.environment),
        of(&|| event.source.name()),
        of(&|| window(event, agent, book)),
        of(&|| playbook(event, agent)),
        of(&|| credential(event)),
    ]
}

/// The truths that are read, in the order of [`TRUTHS`].
fn truths(event: &Event, agent: Option<&Agent>, book: &Rulebook, read: &[bool; TRUTHS.len()]) -> [bool; TRUTHS.len()] {
    let (place, resource) = (&event.place, &event.resource);
    let approved = |list: fn(&Agent) -> &[glob::Glob], text: &str| agent.is_some_and(|a| glob::any(list(a), text));
    let mut read = read.iter();
    let mut of = |truth: &dyn Fn() -> bool| read.next() == Some(&true) && truth();
    [
        of(&|| place.crown_jewel),
        of(&|| place.mapped),
        of(&|| approved(|a| &a.environments, &place.environment)),
        of(&|| {
            let claim = event.claimed_environment.as_ref();
            place.disputed || claim.is_some_and(|claim| place.mapped && *claim != place.environment)
        }),
        of(&|| approved(|a| &a.resource_types, &resource.kind)),
        of(&|| event.tool.is_empty() || approved(|a| &a.tools, &event.tool)),
        of(&|| resource.data.is_empty() || approved(|a| &a.data, &resource.data)),
        of(&|| resource.exposes),
        of(&|| event.verb.changes()),
        of(&|| identity_disputed(event, agent, book)),
        of(&|| event.approval.is_some()),
    ]
}

fn window(event: &Event, agent: Option<&Agent>, book: &Rulebook) -> &'static str {
    let id = agent.map_or("", |agent| &agent.id);
    if book.calendar.is_frozen(event.at, &event.place.environment, id) {
        return "freeze";
    }
    match agent.and_then(|agent| agent.in_window(event.at)) {
        None => "none",
        Some(true) => "inside",
        Some(false) => "outside",
    }
}

/// Whether the event is part of an approved workflow. Audit logs know no playbooks.
fn playbook(event: &Event, agent: Option<&Agent>) -> &'static str {
    let Some(agent) = agent.filter(|agent| !agent.playbooks.is_empty() && !event.source.is_audit()) else {
        return NOT_APPLICABLE;
    };
    match event.run.as_ref().map(|run| run.playbook.as_str()).filter(|id| !id.is_empty()) {
        None => "none",
        Some(id) if agent.playbooks.iter().any(|known| known == id) => "approved",
        Some(_) => "unapproved",
    }
}

fn credential(event: &Event) -> &'static str {
    use crate::event::CredentialKind::{LongLived, Service, ShortLived, Unknown};
    match event.credential.kind {
        _ if event.credential.claimed => "claimed",
        Unknown => "unknown",
        ShortLived => "short-lived",
        LongLived => "long-lived",
        Service => "service",
    }
}

/// Whether an agent introduced itself as one, under an identity that the registry does not give it.
fn identity_disputed(event: &Event, agent: Option<&Agent>, book: &Rulebook) -> bool {
    let (Some(agent), false) = (agent, event.source.is_audit() || event.principal.id.is_empty()) else {
        return false;
    };
    book.registry.by_identity(&event.principal.id).is_none_or(|owner| owner.id != agent.id)
}

/// Decisions by exactly what they depend on. Bounded; emptied with every change of the rulebook.
#[derive(Debug, Default)]
pub struct DecisionCache {
    decisions: HashMap<Key, Arc<Judgement>, FxBuildHasher>,
}

/// More combinations than this are no longer the bounded facts of a real fleet: start anew.
pub(crate) const MOST_DECISIONS: usize = 65_536;

impl DecisionCache {
    /// The judgement of these facts, from the cache where they were judged before.
    pub fn judge(&mut self, book: &Rulebook, facts: &Facts<'_>) -> Arc<Judgement> {
        if book.reads().resource_id {
            return Arc::new(book.judge(facts));
        }
        let key = KeyRef(facts);
        if let Some(judgement) = self.decisions.get(&key) {
            return Arc::clone(judgement);
        }
        if self.decisions.len() >= MOST_DECISIONS {
            self.decisions.clear();
        }
        let judgement = Arc::new(book.judge(facts));
        self.decisions.insert(key.to_owned(), Arc::clone(&judgement));
        judgement
    }

    /// How many decisions are kept.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.decisions.len()
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Key {
    agent: Box<str>,
    verb: Verb,
    texts: [Box<str>; TEXTS.len()],
    truths: [bool; TRUTHS.len()],
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(&self.agent, self.verb, self.texts.iter().map(AsRef::as_ref), &self.truths, state);
    }
}

struct KeyRef<'k>(&'k Facts<'k>);

impl KeyRef<'_> {
    fn to_owned(&self) -> Key {
        let KeyRef(facts) = self;
        Key { agent: facts.agent.into(), verb: facts.verb, texts: facts.texts.map(Box::from), truths: facts.truths }
    }
}

impl Hash for KeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let KeyRef(facts) = self;
        hash(facts.agent, facts.verb, facts.texts.into_iter(), &facts.truths, state);
    }
}

/// Hashes a key; most texts are empty.
fn hash<'t>(
    agent: &str,
    verb: Verb,
    texts: impl Iterator<Item = &'t str>,
    truths: &[bool; TRUTHS.len()],
    state: &mut impl Hasher,
) {
    (agent, verb).hash(state);
    texts.enumerate().filter(|(_, text)| !text.is_empty()).for_each(|text| text.hash(state));
    state.write_u32(truths.iter().fold(0, |bits, truth| bits << 1 | u32::from(*truth)));
}

/// Most texts are empty, and comparing nothing with nothing is slow: some `memcmp`s take an assist of the processor over
/// the dangling pointer of an empty string.
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b)
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        let KeyRef(facts) = self;
        *facts.agent == *key.agent
            && facts.verb == key.verb
            && facts.truths == key.truths
            && facts.texts.iter().zip(&key.texts).all(|(a, b)| is_same(a, b))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{book, control, event};

    /// Policies over every attribute that the schema has.
    const POLICIES: &str = r#"
@id("texts") forbid (principal, action, resource) when {
  principal.class == "b" && resource.type == "a" || resource.asset == "b" && resource.data == "a"
  || resource.tier == "b" && context.operation == "b" || context.environment == "a" && context.source == "b"
};
@id("more") forbid (principal, action, resource) when {
  context.window == "b" && context.playbook == "a" || context.credential == "b" && principal.class == "a" && principal.status == "b"
};
@id("truths") forbid (principal, action, resource) when {
  resource.crown_jewel && !resource.mapped || context.environment_cleared && context.environment_disputed
  || context.resource_type_approved && !context.tool_approved && context.data_approved
};
@id("others") forbid (principal, action == Action::"write", resource) when {
  context.exposes && context.changes || context.identity_disputed && !context.approval_referenced
};"#;
    const OF_AN_AGENT: &str =
        "@id(\"agent\") forbid (principal == Agent::\"b\", action == Action::\"read\", resource);";
    const OF_A_RESOURCE: &str = "@id(\"resource\") forbid (principal, action, resource) when { resource.id == \"b\" };";

    fn with(policies: &str) -> Rulebook {
        book(&[("extra/control.toml", &control("extra", "")), ("extra/policy.cedar", policies)])
    }

    type Drawn = (String, String, bool, [bool; TEXTS.len()], [bool; TRUTHS.len()]);

    fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
        let id = || prop_oneof![Just("a".to_owned()), Just("b".to_owned())];
        // Few enough to meet again, and to differ in one thing only.
        prop::collection::vec(
            (id(), id(), any::<bool>(), any::<[bool; TEXTS.len()]>(), any::<[bool; TRUTHS.len()]>()),
            1..3,
        )
        .prop_map(|drawn| {
            let flips = drawn.iter().flat_map(|(agent, resource, write, texts, truths)| {
                let text = (0..TEXTS.len()).map(|at| {
                    let mut texts = *texts;
                    texts[at] = !texts[at];
                    (agent.clone(), resource.clone(), *write, texts, *truths)
                });
                let truth = (0..TRUTHS.len()).map(|at| {
                    let mut truths = *truths;
                    truths[at] = !truths[at];
                    (agent.clone(), resource.clone(), *write, *texts, truths)
                });
                let ids = [("a", "b"), ("b", "a"), ("b", "b")]
                    .map(|(agent, resource)| (agent.to_owned(), resource.to_owned(), !*write, *texts, *truths));
                text.chain(truth).chain(ids)
            });
            drawn.iter().cloned().chain(flips).chain(drawn.iter().cloned()).collect()
        })
    }

    fn agrees(policies: &str, drawn: &[Drawn]) -> Result<(), TestCaseError> {
        let book = with(policies);
        let mut cache = DecisionCache::default();
        for (agent, resource_id, write, texts, truths) in drawn {
            let verb = if *write { Verb::Write } else { Verb::Read };
            let texts = texts.map(|text| if text { "a" } else { "b" });
            let facts = Facts { agent, resource_id, verb, texts, truths: *truths };
            prop_assert_eq!(&*cache.judge(&book, &facts), &book.judge(&facts));
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_cached_decision_is_the_decision(drawn in drawn()) {
            agrees(POLICIES, &drawn)?;
            agrees(&format!("{POLICIES}{OF_AN_AGENT}"), &drawn)?;
            agrees(&format!("{POLICIES}{OF_AN_AGENT}{OF_A_RESOURCE}"), &drawn)?;
        }
    }

    #[test]
    fn a_decision_is_judged_once() {
        let book = with(POLICIES);
        let mut cache = DecisionCache::default();
        let first = event(1, "s3:GetObject", "2026-03-02T09:00:00Z");
        let mut other = first.clone();
        other.resource.id = "other".to_owned();
        let agent = book.registry.by_id("bot");
        let judged = cache.judge(&book, &Facts::of(&first, agent, &book));
        assert!(Arc::ptr_eq(&judged, &cache.judge(&book, &Facts::of(&other, agent, &book))), "no policy reads the id");
        other.verb = Verb::Write;
        assert!(!Arc::ptr_eq(&judged, &cache.judge(&book, &Facts::of(&other, agent, &book))));
    }

    #[test]
    fn what_no_policy_reads_is_left_empty() {
        let condition = "forbid (principal, action, resource) when { context.exposes && resource.type == \"x\" };";
        let book = with(&format!("@id(\"x\") {condition}"));
        let mut event = event(1, "s3:GetObject", "2026-03-02T09:00:00Z");
        event.resource.kind = "x".to_owned();
        event.resource.id = "y".to_owned();
        event.resource.exposes = true;
        let facts = Facts::of(&event, book.registry.by_id("bot"), &book);
        // The class is read by the permit of the tests' own rulebook.
        let texts: Vec<&str> = facts.texts.into_iter().filter(|text| !text.is_empty()).collect();
        assert_eq!(texts, ["operator", "x"]);
        assert_eq!(facts.truths.iter().filter(|truth| **truth).count(), 1, "{facts:?}");
        assert_eq!((facts.agent, facts.resource_id), ("", ""));
    }
}
