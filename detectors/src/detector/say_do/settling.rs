//! When waiting ends, and what is said then.

use super::SayDo;
use crate::baselines::{Declared, Effect, Heard, Kept, Pairing, Profile};
use crate::event::{Event, Millis};

/// How often the same agent's flood is reported.
const LOST_AGAIN: Millis = 60 * 60_000;

/// What stayed alone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Unpaired {
    /// An effect that no declared action explains.
    Effect(Kept),
    /// A declared action that the audit log does not show.
    Claim(Kept),
    /// An effect of an agent that never declared anything.
    Undeclared(Kept),
    /// A declared action of an agent that the audit log has never seen.
    Unaudited(Kept),
    /// The first of those that can be paired no more since that was last reported, and how many there were in all.
    Lost(Kept, u32),
}

impl Unpaired {
    /// The event that it is about.
    pub(crate) fn event(&self) -> &Event {
        match self {
            Self::Effect(event)
            | Self::Claim(event)
            | Self::Undeclared(event)
            | Self::Unaudited(event)
            | Self::Lost(event, _) => event,
        }
    }
}

/// What a tick says of time.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The time.
    pub at: Millis,
    /// How far the audit log has come.
    pub audited_until: Option<Millis>,
}

impl SayDo {
    /// Whether a tick changes anything of what waits.
    pub(crate) fn is_due(&self, profile: &Profile, pairing: &Pairing, now: Now) -> bool {
        is_lost_due(pairing, now)
            || pairing.effects.iter().any(|effect| self.is_settled(effect, now))
            || pairing.declared.iter().any(|declared| {
                (declared.covered.is_none() && self.is_covered(declared, now))
                    || self.is_over(declared, profile.heard, now)
            })
    }

    /// Ends what has waited long enough. Returns what stayed alone, in the order of its arrival.
    pub(crate) fn settle(&self, profile: &mut Profile, pairing: &mut Pairing, now: Now) -> Vec<Unpaired> {
        let heard = profile.heard;
        let mut found = Vec::new();
        for declared in &mut pairing.declared {
            if declared.covered.is_none() && self.is_covered(declared, now) {
                declared.covered = Some(now.at);
            }
        }
        for declared in pairing.declared.extract_if(.., |declared| self.is_over(declared, heard, now)) {
            if declared.claim && !declared.shown && declared.covered.is_some() {
                found.extend(claim(profile, declared.event));
            }
        }
        for effect in self.settle_effects(profile, pairing, now) {
            // It may have been declared by what made room.
            if effect.event.at <= pairing.lost_until {
                pairing.lose(effect.event);
            } else {
                found.extend(alone(profile, effect.event));
            }
        }
        if is_lost_due(pairing, now) {
            pairing.lost_reported = now.at;
            found.extend(pairing.first_lost.take().map(|event| Unpaired::Lost(event, pairing.lost)));
        }
        found
    }

    /// Ends the waiting of effects. Returns those that nothing explains.
    fn settle_effects(&self, profile: &mut Profile, pairing: &mut Pairing, now: Now) -> Vec<Effect> {
        for effect in pairing.effects.iter_mut().filter(|effect| self.is_settled(effect, now)) {
            effect.settled = true;
            profile.settled = profile.settled.max(effect.event.at);
        }
        // What shows a claim may have to leave it to an effect that comes later, for one that only it can show.
        let claims = pairing.declared.iter().filter(|declared| declared.claim);
        let first = claims.map(|declared| declared.event.at).min();
        let is_needed = |at: Millis| first.is_some_and(|first| at >= first.saturating_sub(self.before));
        let is_over = |effect: &mut Effect| effect.settled && !(effect.explained && is_needed(effect.event.at));
        let over = pairing.effects.extract_if(.., is_over);
        over.filter(|effect| !effect.explained).collect()
    }

    /// Whether an effect's declaration is not waited for any longer from now on.
    fn is_settled(&self, effect: &Effect, now: Now) -> bool {
        !effect.settled && now.at >= effect.event.at.saturating_add(self.patience)
    }

    /// Whether the audit log has come so far that every effect of an action is in it.
    fn is_covered(&self, declared: &Declared, now: Now) -> bool {
        let last = declared.event.at.saturating_add(self.after).saturating_add(self.lateness);
        now.audited_until.is_some_and(|until| until >= last)
    }

    /// Whether a declared action has nothing to wait for any longer: once the audit log has come past it, what is left of
    /// a backlog had its time, too. Where no audit log was ever heard, nothing will come.
    fn is_over(&self, declared: &Declared, heard: Heard, now: Now) -> bool {
        let unheard = now.audited_until.is_none() && !heard.has(Heard::AUDITED);
        let since = declared
            .covered
            .or_else(|| unheard.then(|| declared.event.at.saturating_add(self.after).saturating_add(self.lateness)));
        since.is_some_and(|since| now.at >= since.saturating_add(self.lateness))
    }
}

/// Whether it is to be said that some can be paired no more.
fn is_lost_due(pairing: &Pairing, now: Now) -> bool {
    pairing.first_lost.is_some() && now.at >= pairing.lost_reported.saturating_add(LOST_AGAIN)
}

/// What to say of a claim that nothing shows.
fn claim(profile: &mut Profile, event: Kept) -> Option<Unpaired> {
    if profile.heard.has(Heard::AUDITED) {
        return Some(Unpaired::Claim(event));
    }
    let known = profile.heard.has(Heard::KNOWN_UNAUDITED);
    profile.heard.add(Heard::KNOWN_UNAUDITED);
    (!known).then_some(Unpaired::Unaudited(event))
}

/// What to say of an effect that nothing explains.
fn alone(profile: &mut Profile, event: Kept) -> Option<Unpaired> {
    if profile.heard.has(Heard::DECLARED) {
        return Some(Unpaired::Effect(event));
    }
    let known = profile.heard.has(Heard::KNOWN_UNDECLARED);
    profile.heard.add(Heard::KNOWN_UNDECLARED);
    (!known).then_some(Unpaired::Undeclared(event))
}
