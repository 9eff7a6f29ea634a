//! Reasoning: why an agent did something, in its own words, where there are none or where they cannot be the reason.

use serde::Deserialize;

use super::{Clue, Detector, Sighting, Suspicion, duration};
use crate::baselines::{Dossier, ReasoningHabit, ToldText};
use crate::deviation::Severity;
use crate::event::{Digest, Event, Millis, REDACTED, Reasoning, Verb};

/// Most texts of an agent that are remembered; the one that was not given for longest makes room.
const MOST_TEXTS: usize = 32;
/// Most reports of a day that are remembered; what comes beyond is reported each time.
const MOST_REPORTED: usize = 256;
const DAY: Millis = 24 * 3_600_000;
/// Shorter words must be given exactly.
const STEM: usize = 4;
/// Letters that the ending of an inflected word may differ in.
const ENDING: usize = 2;

/// Reports actions without reasoning, and those whose reasoning is not the text that its digest is of, is the same for
/// everything, or has nothing to do with the action.
///
/// But for a wrong digest, each finding is reported once a day for each agent and operation (or text).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReasoningGiven {
    /// Actions that need reasoning.
    verbs: Vec<Verb>,
    /// The same text for so many different actions (operation and resource) is copied.
    different: u8,
    /// How long such actions are counted together.
    #[serde(deserialize_with = "duration")]
    within: Millis,
    severities: Severities,
}

/// How bad each finding is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Severities {
    /// As bad as the control says where it is not given.
    missing: Option<Severity>,
    never_given: Severity,
    wrong_digest: Severity,
    copied: Severity,
    unrelated: Severity,
}

/// What is wrong with the reasoning of an action.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    WrongDigest,
    Missing,
    NeverGiven,
    /// For so many different actions.
    Copied(usize, Digest),
    Unrelated,
}

impl Detector for ReasoningGiven {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let Sighting { event, past, .. } = sighting;
        let fault = self.fault(event, &past.dossier().habits.reasoning)?;
        let (what, observed, expected) = fault.words(event);
        Some(Suspicion {
            what,
            evidence: vec![Clue {
                what: "reasoning".to_owned(),
                observed,
                expected: expected.to_owned(),
                p_value: None,
                sample: 0,
            }],
            counterfactual: format!("the same with {expected}"),
            remember: Vec::new(),
            severity: self.severity(fault),
            rollback: None,
        })
    }

    fn follow(&self, event: &Event, _learnable: bool, dossier: &mut Dossier) {
        if !self.applies(event) {
            return;
        }
        let habit = &mut dossier.habits.reasoning;
        let fault = self.fault(event, habit);
        let day = event.at.div_euclid(DAY);
        if day > habit.day {
            (habit.day, habit.reported) = (day, Vec::new());
        }
        if let Some(key) = fault.and_then(|fault| fault.key(event))
            && habit.reported.len() < MOST_REPORTED
        {
            habit.reported.push(key);
        }
        if let Some(reasoning) = reasoning(event) {
            habit.given = true;
            self.tell(habit, text_digest(reasoning), event);
        }
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

impl ReasoningGiven {
    /// Whether the event is an action that needs reasoning: audit logs know none.
    fn applies(&self, event: &Event) -> bool {
        !event.source.is_audit() && self.verbs.contains(&event.verb)
    }

    fn severity(&self, fault: Fault) -> Option<Severity> {
        Some(match fault {
            Fault::WrongDigest => self.severities.wrong_digest,
            Fault::Missing => return self.severities.missing,
            Fault::NeverGiven => self.severities.never_given,
            Fault::Copied(..) => self.severities.copied,
            Fault::Unrelated => self.severities.unrelated,
        })
    }

    /// What is wrong and was not reported today.
    fn fault(&self, event: &Event, habit: &ReasoningHabit) -> Option<Fault> {
        if !self.applies(event) {
            return None;
        }
        let Some(reasoning) = reasoning(event) else {
            let fault = if habit.given { Fault::Missing } else { Fault::NeverGiven };
            return (!fault.was_reported(event, habit)).then_some(fault);
        };
        if !reasoning.claimed_digest.is_empty() {
            return Some(Fault::WrongDigest);
        }
        let copied = self.copied(event, text_digest(reasoning), habit);
        let unrelated = (!is_about(event, &reasoning.text)).then_some(Fault::Unrelated);
        copied.into_iter().chain(unrelated).find(|fault| !fault.was_reported(event, habit))
    }

    /// Whether this text is given for one different action too many.
    fn copied(&self, event: &Event, text: Digest, habit: &ReasoningHabit) -> Option<Fault> {
        let told = habit.texts.iter().find(|told| told.text == text && self.is_fresh(told, event.at))?;
        let different = told.actions.len() + usize::from(!told.actions.contains(&action(event)));
        (different >= usize::from(self.different)).then_some(Fault::Copied(different, text))
    }

    fn is_fresh(&self, told: &ToldText, at: Millis) -> bool {
        at.saturating_sub(told.since) <= self.within
    }

    /// Remembers what a text was given for.
    fn tell(&self, habit: &mut ReasoningHabit, text: Digest, event: &Event) {
        let known = habit.texts.iter().position(|told| told.text == text).map(|at| habit.texts.remove(at));
        if habit.texts.len() >= MOST_TEXTS {
            habit.texts.remove(0);
        }
        let known = known.filter(|told| self.is_fresh(told, event.at));
        let mut told = known.unwrap_or_else(|| ToldText { text, since: event.at, actions: Vec::new() });
        let action = action(event);
        if told.actions.len() < usize::from(self.different) && !told.actions.contains(&action) {
            told.actions.push(action);
        }
        habit.texts.push(told);
    }
}

impl Fault {
    /// What it is remembered by on the day that it was reported; nothing for what is reported each time.
    fn key(self, event: &Event) -> Option<Digest> {
        match self {
            Self::WrongDigest => None,
            Self::NeverGiven => Some(Digest::of(b"never given")),
            Self::Missing => Some(Digest::of(format!("missing {}", event.action).as_bytes())),
            Self::Copied(_, text) => Some(text),
            Self::Unrelated => Some(Digest::of(format!("unrelated {}", event.action).as_bytes())),
        }
    }

    fn was_reported(self, event: &Event, habit: &ReasoningHabit) -> bool {
        let is_today = event.at.div_euclid(DAY) <= habit.day;
        is_today && self.key(event).is_some_and(|key| habit.reported.contains(&key))
    }

    /// What is wrong, what was seen, and what was expected.
    fn words(self, event: &Event) -> (String, String, &'static str) {
        match self {
            Self::WrongDigest => (
                "comes with another digest than that of its reasoning".to_owned(),
                event.reasoning.as_ref().map_or_else(String::new, |reasoning| reasoning.claimed_digest.clone()),
                "the digest of the reasoning's own text",
            ),
            Self::Missing => (
                "comes without reasoning, which this agent otherwise gives".to_owned(),
                "none, or no word of it".to_owned(),
                "the reasoning for this action",
            ),
            Self::NeverGiven => (
                "comes without reasoning, as everything that this agent does".to_owned(),
                "none".to_owned(),
                "the reasoning for this action",
            ),
            Self::Copied(different, _) => (
                format!("has the reasoning of {different} different actions, word for word"),
                format!("the same text for {different} different actions"),
                "a reason for this action alone",
            ),
            Self::Unrelated => (
                "has reasoning that names nothing of what it does".to_owned(),
                "no word of the operation, the resource, its type, its environment or an argument".to_owned(),
                "reasoning that says what is done to what",
            ),
        }
    }
}

/// The reasoning of an event, if there is any: a text without a letter or digit is none.
fn reasoning(event: &Event) -> Option<&Reasoning> {
    let given = |reasoning: &&Reasoning| {
        let Reasoning { text, reference, digest, .. } = reasoning;
        let is_kept_elsewhere = text.is_empty() && !(reference.is_empty() && digest.is_empty());
        is_kept_elsewhere || text.chars().any(char::is_alphanumeric)
    };
    event.reasoning.as_ref().filter(given)
}

/// The digest of a text, whatever its case, numbers and white space; of one that is kept elsewhere what stands for it.
fn text_digest(reasoning: &Reasoning) -> Digest {
    if reasoning.text.is_empty() {
        let stand_in = if reasoning.digest.is_empty() { &reasoning.reference } else { &reasoning.digest };
        return Digest::of(stand_in.as_bytes());
    }
    let without_digits: String = reasoning.text.to_lowercase().chars().filter(|c| !c.is_numeric()).collect();
    let words: Vec<&str> = without_digits.split_whitespace().collect();
    Digest::of(words.join(" ").as_bytes())
}

fn action(event: &Event) -> Digest {
    Digest::of(format!("{}\n{}", event.action, event.resource.id).as_bytes())
}

/// Whether a text has a word of what the event acts on. One that is kept elsewhere, or of which something is redacted,
/// cannot be held against it.
fn is_about(event: &Event, text: &str) -> bool {
    if text.is_empty() || text.contains(REDACTED) {
        return true;
    }
    let (resource, place) = (&event.resource, &event.place);
    // Of an ARN only the part after the account.
    let own_name = resource.id.rsplit(':').next().unwrap_or_default();
    let claimed = event.claimed_environment.as_deref().unwrap_or_default();
    let named = [own_name, &resource.kind, &event.action, &event.tool, &place.environment, claimed];
    let values = event.arguments.iter().map(|argument| argument.value.as_str());
    let mut acts_on = named.into_iter().chain(values).flat_map(words).peekable();
    let told: Vec<String> = words(text).collect();
    acts_on.peek().is_none() || acts_on.any(|word| told.iter().any(|other| is_same_word(&word, other)))
}

/// The words of a text in lower case; `UpdateService` are two.
fn words(text: &str) -> impl Iterator<Item = String> {
    let runs = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|run| !run.is_empty());
    runs.flat_map(|run| run.as_bytes().chunk_by(|a, b| !(a.is_ascii_lowercase() && b.is_ascii_uppercase())))
        .map(|word| String::from_utf8_lossy(word).to_ascii_lowercase())
        .filter(|word| word.len() > 2)
}

/// Whether two words are the same but for their endings, as `restart` and `restarting`, `update` and `updated`.
fn is_same_word(one: &str, other: &str) -> bool {
    let common = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let shorter = one.len().min(other.len());
    one == other || (common >= STEM && common + ENDING >= shorter)
}

#[cfg(test)]
mod tests;
