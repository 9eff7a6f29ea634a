//! Trust: from which history on a baseline counts, what a broken rule weighs, and one number per agent, the decayed
//! evidence against it.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use serde::Deserialize;

use super::toml_file::TomlFile;
use super::{RuleFile, RulebookError, parse_duration};
use crate::baselines::Profile;
use crate::deviation::{LearningState, Severity, TrustChange};
use crate::event::Millis;

/// Where the numbers stand. A rulebook without them has those that held before there was such a file.
const FILE: &str = "trust.toml";

/// The most that anything weighs, so that no sum of evidence overflows.
const HEAVIEST: f64 = 1_000.0;

/// From which history on an agent's baseline counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learning {
    /// So many events learned from are enough.
    events: u64,
    /// So long a time is enough, in which the agent was active in so many hours.
    time: Millis,
    hours: u32,
}

impl Default for Learning {
    fn default() -> Self {
        Self { events: 1_000, time: 7 * 24 * 3_600_000, hours: 7 }
    }
}

impl Learning {
    /// Whether an agent is still learning.
    pub fn state(&self, profile: &Profile) -> LearningState {
        let hours = || profile.hours().map(|(_, count)| count).sum::<u32>();
        let is_long = profile.learned_until.saturating_sub(profile.first_seen) >= self.time;
        let is_enough = profile.learned >= self.events || (is_long && hours() >= self.hours);
        if is_enough { LearningState::Active } else { LearningState::Learning }
    }
}

/// What evidence does to trust.
#[derive(Clone, Debug, PartialEq)]
pub struct Trust {
    /// After so long, evidence weighs half.
    half_life: Millis,
    /// So much evidence halves the trust.
    halving_evidence: f64,
    /// What a broken rule of each severity weighs.
    scores: BTreeMap<Severity, f64>,
}

impl Default for Trust {
    fn default() -> Self {
        let scores = Severity::ALL.into_iter().zip([0.5, 1.0, 3.0, 6.0, 9.0]).collect();
        Self { half_life: 3 * 24 * 3_600_000, halving_evidence: 12.0, scores }
    }
}

impl Trust {
    /// The score of a broken rule, commensurate with −log10 of a p-value.
    pub fn score(&self, severity: Severity) -> f64 {
        self.scores.get(&severity).copied().unwrap_or_default()
    }

    /// Trust from 0 to 100 that an amount of evidence leaves.
    pub fn of(&self, evidence: f64) -> f64 {
        100.0 * (-evidence / self.halving_evidence).exp2()
    }

    /// What is left at a time of the evidence against an agent.
    #[expect(clippy::cast_precision_loss, reason = "spans of time are far below 2^52 ms")]
    pub(crate) fn evidence(&self, profile: &Profile, at: Millis) -> f64 {
        // Late events do not bring back what has decayed.
        let elapsed = at.saturating_sub(profile.evidence_at).max(0) as f64;
        profile.evidence * (-elapsed / self.half_life as f64).exp2()
    }

    /// What it does to trust that evidence grows.
    pub(crate) fn change(&self, before: f64, after: f64) -> TrustChange {
        TrustChange { before: self.of(before), after: self.of(after) }
    }
}

/// Reads what a rulebook says of learning and of trust.
pub(super) fn read(files: &[RuleFile], errors: &mut Vec<RulebookError>) -> (Learning, Trust) {
    let (mut learning, mut trust) = (Learning::default(), Trust::default());
    let Some(file) = files.iter().find(|file| file.name == FILE) else { return (learning, trust) };
    let mut toml = TomlFile::parse(file, errors);
    let mut section = toml.section("learning", errors);
    learning.events = section.take("events", errors).map_or(learning.events, NonZeroU64::get);
    learning.time = section.take("time", errors).map_or(learning.time, |Span(time)| time);
    learning.hours = section.take("hours", errors).map_or(learning.hours, NonZeroU32::get);
    section.finish(errors);
    let mut section = toml.section("trust", errors);
    trust.half_life = section.take("half_life", errors).map_or(trust.half_life, |Span(time)| time);
    trust.halving_evidence =
        section.take("halving_evidence", errors).map_or(trust.halving_evidence, |Weight(weight)| weight);
    section.finish(errors);
    let mut section = toml.section("scores", errors);
    for (severity, score) in &mut trust.scores {
        *score = section.take(severity.name(), errors).map_or(*score, |Weight(weight)| weight);
    }
    section.finish(errors);
    toml.finish(errors);
    (learning, trust)
}

/// A length of time, more than none.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Span(Millis);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_duration(&text).map(Self)
    }
}

/// An amount of evidence, more than none.
#[derive(Deserialize)]
#[serde(try_from = "f64")]
struct Weight(f64);

impl TryFrom<f64> for Weight {
    type Error = String;

    fn try_from(weight: f64) -> Result<Self, String> {
        if weight > 0.0 && weight <= HEAVIEST {
            return Ok(Self(weight));
        }
        Err(format!("`{weight}` is no amount of evidence: write a number above 0, {HEAVIEST} at most"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;
    use crate::rulebook::Rulebook;
    use crate::testing::{at, book, faults};

    const NOON: &str = "2026-03-02T12:00:00Z";
    const LATER: &str = "2026-03-05T12:00:00Z";

    fn profile(evidence: f64) -> Profile {
        let mut profile = Profile::default();
        (profile.evidence, profile.evidence_at) = (evidence, at(NOON));
        profile
    }

    #[test]
    fn evidence_halves_and_never_grows_by_itself() {
        let trust = Trust::default();
        assert!((trust.evidence(&profile(8.0), at(LATER)) - 4.0).abs() < 1e-9);
        assert!((trust.evidence(&profile(8.0), 0) - 8.0).abs() < 1e-9, "what comes late brings nothing back");
        assert!((trust.of(0.0) - 100.0).abs() < 1e-9);
        assert!((trust.of(12.0) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_rulebook_says_how_trust_decays_and_what_rules_weigh() {
        let text = "[trust]\nhalf_life = \"36h\"\nhalving_evidence = 6\n\n[scores]\nhigh = 4.5\n";
        let trust = book(&[(FILE, text)]).trust;
        assert!((trust.evidence(&profile(8.0), at(LATER)) - 2.0).abs() < 1e-9);
        assert!((trust.of(12.0) - 25.0).abs() < 1e-9);
        let scores = Severity::ALL.map(|severity| trust.score(severity));
        assert_eq!(scores, [0.5, 1.0, 3.0, 4.5, 9.0], "what is not given stays as it is");
    }

    #[test]
    fn a_rulebook_says_how_long_agents_learn() {
        // 400 events in six days, none of them counted as an active hour.
        let mut profile = Profile::default();
        (profile.learned, profile.learned_until) = (400, 6 * 24 * 3_600_000);
        let (learning, active) = (LearningState::Learning, LearningState::Active);
        for (text, expected) in [
            ("", learning),
            ("[learning]\nevents = 400\n", active),
            ("[learning]\nevents = 401\n", learning),
            ("[learning]\ntime = \"6d\"\n", learning),
            ("[learning]\ntime = \"6d\"\nhours = 1\n", learning),
        ] {
            assert_eq!(book(&[(FILE, text)]).learning.state(&profile), expected, "{text}");
        }
    }

    #[test]
    fn what_is_shipped_is_what_holds_where_nothing_is_said() {
        let shipped = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/trust.toml"));
        let whole = shipped.replace("# informational", "informational");
        for text in [shipped, &whole] {
            let book = book(&[(FILE, text)]);
            assert_eq!((book.learning, book.trust), (Learning::default(), Trust::default()));
        }
    }

    #[test]
    fn a_rulebook_that_judged_before_there_was_such_a_file_is_read_again() {
        let book = book(&[]);
        let kept = Rulebook::read_kept(book.files().to_vec()).map(|book| (book.learning, book.trust));
        assert_eq!(kept, Ok((Learning::default(), Trust::default())));
    }

    #[test]
    fn faults_are_named_all_at_once() {
        let text = "[learning]\nevents = 0\ntime = \"0d\"\nhours = -7\nweeks = 2\n\n[trust]\nhalf_life = 3\n\
            halving_evidence = inf\n\n[scores]\nlow = 0\nmedium = nan\nhigh = 1e9\nsevere = 7\n\n[learnings]\nhours = 1\n";
        let found = faults(&[(FILE, text)]);
        for (line, says) in [
            (2, "`events`: invalid value: integer `0`"),
            (3, "`time`: `0d` is not a duration: write"),
            (4, "`hours`: invalid value: integer `-7`"),
            (5, "unknown key `weeks`"),
            (8, "`half_life`: invalid type: integer `3`"),
            (9, "`halving_evidence`: `inf` is no amount of evidence: write"),
            (12, "`low`: `0` is no amount"),
            (13, "`medium`: `NaN` is no amount"),
            (14, "`high`: `1000000000` is no amount"),
            (15, "unknown key `severe`"),
            (17, "unknown section `learnings`"),
        ] {
            let place = format!("rules/{FILE}:{line}: {says}");
            assert!(found.iter().any(|fault| fault.starts_with(&place)), "{place}: {found:#?}");
        }
        assert_eq!(found.len(), 11, "{found:#?}");
        assert!(faults(&[(FILE, "trust = 3\n")])[0].contains("`trust` must be a table"));
    }
}
