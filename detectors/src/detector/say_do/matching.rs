//! Which effect shows which claim.
//!
//! An effect shows one claim at most, and a claim needs one effect. What the ids say holds; beyond that, as many claims
//! as possible are shown, each by the effect that fits it best: an effect goes to a claim that nothing shows yet, the
//! nearest in time first, and where there is none, effects change places to make one. So one effect never shows two
//! claims, and no claim stays alone because another one took its effect.

use std::cmp::Reverse;

use super::{Fit, SayDo, same_request};
use crate::baselines::{Declared, Effect, Kept, MOST_FOLLOWED, Pairing};
use crate::event::{Event, Millis};

/// Most claims or effects that are asked to change places for one event.
const MOST_ASKED: usize = 64;

/// How well an effect shows a claim: by what they say, then by how near they are in time.
type Worth = (Fit, Reverse<u64>);
/// What may be paired: whether it is already, how well it would fit, and its place. The first is the best.
type Candidate = (bool, Reverse<Worth>, usize);

impl SayDo {
    /// Takes in a declared change, or a record of the audit log. `settled` is the time until which effects are.
    pub(crate) fn hear(&self, pairing: &mut Pairing, event: &Event, settled: Millis) {
        if !event.source.is_audit() {
            self.declare(pairing, event, settled);
        } else if self.needs_declaration(event) {
            self.take_effect(pairing, event);
        } else {
            self.note_harmless(pairing, event);
        }
    }

    /// A change was declared. One whose effects may be settled already came too late to be held to.
    fn declare(&self, pairing: &mut Pairing, event: &Event, settled: Millis) {
        let number = pairing.next;
        pairing.next = number.wrapping_add(1);
        let in_time = event.at.saturating_sub(self.before) > settled;
        let claim = in_time && self.is_claim(event);
        for effect in &mut pairing.effects {
            effect.explained = effect.explained || self.explains(event, &effect.event);
            effect.pinned = effect.pinned || same_request(event, &effect.event);
        }
        if pairing.declared.len() >= MOST_FOLLOWED {
            let oldest = pairing.declared.remove(0);
            pairing.lost_until = pairing.lost_until.max(oldest.event.at.saturating_add(self.after));
            pairing.lose(oldest.event);
        }
        pairing.declared.push(Declared { number, event: Kept::of(event), claim, shown: false, covered: None });
        let place = pairing.declared.len() - 1;
        if claim {
            Matching::of(self, pairing).claim_has_come(place);
        }
    }

    /// The audit log shows a change that needs a declaration.
    fn take_effect(&self, pairing: &mut Pairing, event: &Event) {
        let explained = pairing.declared.iter().any(|declared| self.explains(&declared.event, event));
        let pinned = pairing.declared.iter().any(|declared| same_request(&declared.event, event));
        if pairing.effects.len() >= MOST_FOLLOWED {
            // One that is explained only helps to tell claims apart.
            let oldest = pairing.effects.iter().position(|effect| effect.explained).unwrap_or_default();
            let effect = pairing.effects.remove(oldest);
            if !effect.explained {
                pairing.lose(effect.event);
            }
        }
        pairing.effects.push(Effect { event: Kept::of(event), explained, pinned, shows: None, settled: false });
        let place = pairing.effects.len() - 1;
        if explained {
            Matching::of(self, pairing).effect_has_come(place);
        }
    }

    /// The audit log shows what needs no declaration; it may be what was claimed all the same.
    fn note_harmless(&self, pairing: &mut Pairing, event: &Event) {
        let open = pairing.declared.iter_mut().filter(|declared| declared.claim && !declared.shown);
        let fit = |declared: &Declared| {
            let away = event.at.abs_diff(declared.event.at);
            self.shows(&declared.event, event).map(|fit| (fit, Reverse(away), Reverse(declared.number)))
        };
        let best = open.filter_map(|declared| fit(declared).map(|fit| (fit, declared))).max_by_key(|(fit, _)| *fit);
        if let Some((_, declared)) = best {
            declared.shown = true;
        }
    }
}

/// The search for places, over an agent's claims and effects.
struct Matching<'p> {
    rules: &'p SayDo,
    declared: &'p mut [Declared],
    effects: &'p mut [Effect],
    /// Claims or effects that were asked already.
    asked: Vec<usize>,
}

impl<'p> Matching<'p> {
    fn of(rules: &'p SayDo, pairing: &'p mut Pairing) -> Self {
        let Pairing { declared, effects, .. } = pairing;
        Self { rules, declared, effects, asked: Vec::new() }
    }

    /// How well an effect shows a claim, if it may: one that its ids give to an action shows no other.
    fn fit(&self, claim: usize, effect: usize) -> Option<Fit> {
        let (claim, effect) = (self.declared.get(claim)?, self.effects.get(effect)?);
        let fit = self.rules.shows(&claim.event, &effect.event).filter(|_| claim.claim)?;
        (fit == Fit::Sure || !effect.pinned).then_some(fit)
    }

    /// How far apart a claim and an effect are in time.
    fn apart(&self, claim: usize, effect: usize) -> u64 {
        let times = self.declared.get(claim).zip(self.effects.get(effect));
        times.map_or(u64::MAX, |(claim, effect)| claim.event.at.abs_diff(effect.event.at))
    }

    /// The effect that shows a claim, as far as it is still followed.
    fn effect_of(&self, claim: usize) -> Option<usize> {
        let number = self.declared.get(claim)?.number;
        self.effects.iter().position(|effect| effect.shows == Some(number))
    }

    /// The claim that an effect shows, as far as it is still followed.
    fn claim_of(&self, effect: usize) -> Option<usize> {
        let number = self.effects.get(effect)?.shows?;
        self.declared.iter().position(|declared| declared.number == number)
    }

    fn assign(&mut self, claim: usize, effect: usize) {
        if let (Some(claim), Some(effect)) = (self.declared.get_mut(claim), self.effects.get_mut(effect)) {
            claim.shown = true;
            effect.shows = Some(claim.number);
        }
    }

    /// Whether this was not asked yet, and there is still time to ask.
    fn may_ask(&mut self, place: usize) -> bool {
        let fresh = self.asked.len() < MOST_ASKED && !self.asked.contains(&place);
        if fresh {
            self.asked.push(place);
        }
        fresh
    }

    /// How well an effect shows a claim, better ones greater.
    fn worth(&self, claim: usize, effect: usize) -> Option<Worth> {
        Some((self.fit(claim, effect)?, Reverse(self.apart(claim, effect))))
    }

    /// The claims that an effect may show, those first that nothing shows, then the best. What has ids shows only theirs.
    fn claims_for(&self, effect: usize) -> Vec<Candidate> {
        let fitting = self
            .declared
            .iter()
            .enumerate()
            .filter_map(|(claim, declared)| Some((declared.shown, Reverse(self.worth(claim, effect)?), claim)));
        let mut fitting: Vec<_> = fitting.collect();
        if fitting.iter().any(|(_, Reverse((fit, _)), _)| *fit == Fit::Sure) {
            fitting.retain(|(_, Reverse((fit, _)), _)| *fit == Fit::Sure);
        }
        fitting.sort_unstable();
        fitting
    }

    /// The effects that may show a claim, those first that show none, then the best.
    fn effects_for(&self, claim: usize) -> Vec<Candidate> {
        let fitting =
            self.effects.iter().enumerate().filter_map(|(effect, known)| {
                Some((known.shows.is_some(), Reverse(self.worth(claim, effect)?), effect))
            });
        let mut fitting: Vec<_> = fitting.collect();
        fitting.sort_unstable();
        fitting
    }

    /// Gives an effect a claim to show, if one can be shown then that was not before.
    fn place_effect(&mut self, effect: usize) -> bool {
        for (taken, _, claim) in self.claims_for(effect) {
            if !self.may_ask(claim) {
                continue;
            }
            let other = if taken { self.effect_of(claim).filter(|other| *other != effect) } else { None };
            if !taken || other.is_some_and(|other| self.place_effect(other)) {
                self.assign(claim, effect);
                return true;
            }
        }
        false
    }

    /// Gives a claim an effect that shows it, if no other claim stays alone for it.
    fn place_claim(&mut self, claim: usize) -> bool {
        for (taken, _, effect) in self.effects_for(claim) {
            if !self.may_ask(effect) {
                continue;
            }
            let other = if taken { self.claim_of(effect).filter(|other| *other != claim) } else { None };
            if !taken || other.is_some_and(|other| self.place_claim(other)) {
                self.assign(claim, effect);
                return true;
            }
        }
        false
    }

    /// An effect has come. Where its ids name a claim that another one only seems to show, it takes its place.
    fn effect_has_come(&mut self, effect: usize) {
        if self.place_effect(effect) {
            return;
        }
        for (_, Reverse((fit, _)), claim) in self.claims_for(effect) {
            let other = self.effect_of(claim).filter(|other| *other != effect);
            let Some(other) = other.filter(|other| fit == Fit::Sure && self.fit(claim, *other) != Some(fit)) else {
                continue;
            };
            self.effects.get_mut(other).into_iter().for_each(|other| other.shows = None);
            self.assign(claim, effect);
            return;
        }
    }

    /// A claim has come. Where all that could show it show others, it takes the place of one that fits less.
    fn claim_has_come(&mut self, claim: usize) {
        if self.place_claim(claim) {
            return;
        }
        for (_, Reverse(worth), effect) in self.effects_for(claim) {
            let Some(other) = self.claim_of(effect).filter(|other| self.worth(*other, effect) < Some(worth)) else {
                continue;
            };
            self.declared.get_mut(other).into_iter().for_each(|other| other.shown = false);
            self.assign(claim, effect);
            return;
        }
    }
}
