//! Break-glass: an emergency override silences some controls for a while, and is never silent itself.

use serde::Deserialize;

use super::{Case, Detector, Found, Hearing, Sighting, Suspicion, duration};
use crate::baselines::{Dossier, HeldOverride};
use crate::deviation::Severity;
use crate::event::{Event, Millis};
use crate::glob::Glob;
use crate::rulebook::{Rulebook, WorkingDays};
use crate::statement::Says;

/// Most overrides that are held of one agent; of more, those that ended first make room.
const MOST_HELD: usize = 16;

/// Takes in overrides, reports each at its first use, and again where nobody reviews it in time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BreakGlass {
    /// How many persons must have signed an override with keys of their own.
    keys: usize,
    /// How long one may hold.
    #[serde(deserialize_with = "duration")]
    longest: Millis,
    /// Controls that one may silence.
    controls: Vec<String>,
    /// Working days within which one that was used must be reviewed.
    review_days: u32,
    /// Holidays of calendar.toml that are no working days.
    holidays: Option<String>,
    /// Days of the week that are working days.
    #[serde(default)]
    working_days: WorkingDays,
    /// How bad the other findings are.
    #[serde(default)]
    severities: Severities,
}

/// How bad the findings are, but for an override's use, which is as bad as the control says. What is not given is as in the
/// rules that are shipped.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Severities {
    without_effect: Severity,
    unreviewed: Severity,
    own_review: Severity,
}

impl Default for Severities {
    fn default() -> Self {
        Self { without_effect: Severity::Critical, unreviewed: Severity::High, own_review: Severity::High }
    }
}

impl BreakGlass {
    /// Why an override that is signed does not hold.
    fn trouble(&self, hearing: &Hearing<'_>) -> Option<String> {
        let (claims, signers) = (hearing.claims, hearing.signers);
        let Says::Override(says) = &claims.says else { return None };
        if signers.holders.len() < self.keys {
            return Some(format!("is signed by {} of {} people", signers.holders.len(), self.keys));
        }
        if !hearing.book.people.contains(&claims.sub) {
            return Some("names nobody of people.toml who answers for it".to_owned());
        }
        if claims.until().saturating_sub(claims.at()) > self.longest {
            return Some("holds for longer than an override may".to_owned());
        }
        if says.reason.trim().is_empty() || says.operations.is_empty() || says.environments.is_empty() {
            return Some("has no reason, or no scope".to_owned());
        }
        let other = says.controls.iter().find(|control| !self.controls.contains(control));
        other.map(|control| format!("is for control `{control}`, which cannot be overridden"))
    }

    fn hold(&self, hearing: &Hearing<'_>, dossier: &mut Dossier) {
        let claims = hearing.claims;
        let Says::Override(says) = &claims.says else { return };
        if dossier.overrides.iter().any(|held| held.id == claims.jti) {
            return;
        }
        if dossier.overrides.len() >= MOST_HELD
            && let Some(index) = (0..MOST_HELD).min_by_key(|index| dossier.overrides.get(*index).map(|held| held.until))
        {
            dossier.overrides.remove(index);
        }
        dossier.overrides.push(HeldOverride {
            id: claims.jti.clone(),
            by: claims.sub.clone(),
            signers: hearing.signers.holders.clone(),
            at: claims.at(),
            until: claims.until(),
            says: says.clone(),
            used: None,
            escalated: false,
        });
    }

    /// Takes in a review: an override that somebody else looked at is done with.
    fn review(&self, hearing: &Hearing<'_>, dossier: &mut Dossier) -> Option<Suspicion> {
        let Says::Review(review) = &hearing.claims.says else { return None };
        let by = &hearing.claims.sub;
        let index = dossier.overrides.iter().position(|held| held.id == review.of)?;
        let held = dossier.overrides.get(index)?;
        let is_own = held.by == *by || held.signers.contains(by);
        if is_own || !hearing.is_by_person() {
            let what =
                format!("is a review of override `{}` by one who gave it, or by nobody who is a person", review.of);
            return Some(suspicion(&what, by, "a person who had no part in it", Some(self.severities.own_review)));
        }
        dossier.overrides.remove(index);
        None
    }
}

impl Detector for BreakGlass {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let Sighting { event, past, .. } = sighting;
        let held = past.dossier().overrides.iter().find(|held| covers(held, event) && held.used.is_none())?;
        let HeldOverride { id, by, signers, says, .. } = held;
        let what = format!(
            "is done under break-glass override `{id}` of `{by}`, signed by {}: {}",
            signers.join(" and "),
            says.reason
        );
        let controls = says.controls.join(", ");
        Some(suspicion(&what, &format!("controls silent: {controls}"), "no emergency", None))
    }

    fn awaits(&self, sighting: Sighting<'_>) -> bool {
        sighting.past.dossier().overrides.iter().any(|held| covers(held, sighting.event))
    }

    fn silences(&self, control: &str, event: &Event, _book: &Rulebook, dossier: &Dossier) -> bool {
        let silent = |held: &HeldOverride| covers(held, event) && held.says.controls.iter().any(|own| own == control);
        dossier.overrides.iter().any(silent)
    }

    fn keep(&self, sighting: Sighting<'_>, dossier: &mut Dossier) {
        let used = dossier.overrides.iter_mut().filter(|held| covers(held, sighting.event) && held.used.is_none());
        used.for_each(|held| held.used = Some(crate::baselines::Kept::of(sighting.event)));
    }

    fn hear(&self, hearing: &Hearing<'_>, dossier: &mut Dossier) -> Option<Suspicion> {
        if let Some(trouble) = self.trouble(hearing) {
            let expected = format!("an override by {} people, for a reason, a scope and a while", self.keys);
            return Some(suspicion(
                &format!("{trouble}, and has no effect"),
                "an override that does not hold",
                &expected,
                Some(self.severities.without_effect),
            ));
        }
        self.hold(hearing, dossier);
        self.review(hearing, dossier)
    }

    fn settle(&self, case: &Case<'_>, dossier: &mut Dossier) -> Vec<Found> {
        let now = case.now.at;
        dossier.overrides.retain(|held| held.used.is_some() || now <= held.until);
        let mut found = Vec::new();
        for held in &mut dossier.overrides {
            let Some(event) = held.used.clone().filter(|_| !held.escalated) else { continue };
            let calendar = &case.book.calendar;
            let working = (&self.working_days, self.holidays.as_deref());
            let due = calendar.after_working_days(held.until, self.review_days, working);
            if now > due {
                held.escalated = true;
                let what = format!(
                    "was done under override `{}`, which nobody has reviewed in {} working days",
                    held.id, self.review_days
                );
                let suspicion = suspicion(
                    &what,
                    "no review",
                    "a review by a person who had no part in it",
                    Some(self.severities.unreviewed),
                );
                found.push(Found { event, suspicion });
            }
        }
        found
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

/// Whether an override holds for an event: a change, at its time and in its scope.
fn covers(held: &HeldOverride, event: &Event) -> bool {
    let any = |patterns: &[String], text: &str| patterns.iter().any(|pattern| Glob::new(pattern).matches(text));
    event.verb.changes()
        && held.at <= event.at
        && event.at <= held.until
        && any(&held.says.operations, &event.action)
        && any(&held.says.environments, &event.place.environment)
}

fn suspicion(what: &str, observed: &str, expected: &str, severity: Option<Severity>) -> Suspicion {
    let seen = [observed, expected].map(str::to_owned);
    Suspicion { severity, ..Suspicion::of_rule(what.to_owned(), "override", seen) }
}

#[cfg(test)]
mod tests;
