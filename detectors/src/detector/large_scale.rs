//! Large scale: many small changes are one large one, and a large one needs an approval of its own.

use serde::Deserialize;
use serde_json::Value;

use super::{Detector, Sighting, Suspicion, make_room};
use crate::baselines::{Dossier, HeldApproval, Side, Sum};
use crate::event::{Event, Millis, Outcome};
use crate::glob::Glob;
use crate::rulebook::Limit;

/// Most runs that are summed up at once of what an agent says of itself, and of what the audit log says of it; of each, the
/// oldest makes room. Hours make room for no run.
const MOST_SUMS: usize = 64;
const MINUTE: Millis = 60_000;
const MINUTES_OF_AN_HOUR: i64 = 60;

/// Reports when an action, a run, or an hour changed more resources than a limit allows and no bulk approval covers it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LargeScale {}

/// What an event brings the sums to.
struct Totals {
    action: u32,
    run: u32,
    hour: u32,
}

impl Detector for LargeScale {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let Sighting { event, past, book, .. } = sighting;
        let limit = book.risk.limit(event).filter(|_| counts(event))?;
        let dossier = past.dossier();
        let (span, amount, most) = excess(limit, event, dossier)?;
        let expected = format!("at most {most} in {span}, or a bulk approval that covers as many");
        let what = format!(
            "makes it {amount} resources changed in {span}, beyond limit `{}`, without a bulk approval",
            limit.name
        );
        Some(Suspicion::of_rule(what, "resources", [format!("{amount} in {span}"), expected]))
    }

    fn keep(&self, sighting: Sighting<'_>, dossier: &mut Dossier) {
        let Sighting { event, book, .. } = sighting;
        let Some(limit) = book.risk.limit(event).filter(|_| counts(event)) else { return };
        let (amount, minute) = (resources(event), event.at.div_euclid(MINUTE));
        let is_reported = excess(limit, event, dossier).is_some();
        let mut hour = take_sum(dossier, &limit.name, event, "");
        match hour.minutes.iter_mut().find(|(at, _)| *at == minute) {
            Some((_, so_far)) => *so_far = so_far.saturating_add(amount),
            None => hour.minutes.push((minute, amount)),
        }
        hour.minutes.retain(|(at, _)| *at > minute - MINUTES_OF_AN_HOUR);
        if is_reported {
            hour.reported = Some(event.at);
        }
        dossier.sums.push(hour);
        let run = event.run_or_session();
        if !run.is_empty() {
            let mut sum = take_sum(dossier, &limit.name, event, run);
            let so_far = sum.minutes.first().map_or(0, |(_, amount)| *amount);
            sum.minutes = vec![(minute, so_far.saturating_add(amount))];
            dossier.sums.push(sum);
        }
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

fn counts(event: &Event) -> bool {
    !matches!(event.outcome, Outcome::Denied(_) | Outcome::Failed(_))
}

fn is_of(sum: &Sum, limit: &str, event: &Event, run: &str) -> bool {
    sum.limit == limit && sum.side == Side::of(event) && sum.run == run
}

/// Takes a sum out. A new run makes the one go that was added to longest ago, of the same side: an agent may make up as many
/// as it likes, and must not push out what the audit log knows.
fn take_sum(dossier: &mut Dossier, limit: &str, event: &Event, run: &str) -> Sum {
    if let Some(index) = dossier.sums.iter().position(|sum| is_of(sum, limit, event, run)) {
        return dossier.sums.remove(index);
    }
    let side = Side::of(event);
    if !run.is_empty() {
        make_room(&mut dossier.sums, MOST_SUMS, |sum| sum.side == side && !sum.run.is_empty());
    }
    let (limit, run) = (limit.to_owned(), run.to_owned());
    Sum { limit, side, run, minutes: Vec::new(), reported: None }
}

/// The span in which an event goes beyond a limit, how many it makes it, and the most that are allowed; `None` where a bulk
/// approval covers them, or where it was reported within the hour.
fn excess(limit: &Limit, event: &Event, dossier: &Dossier) -> Option<(&'static str, u32, u32)> {
    let totals = totals(&limit.name, event, dossier);
    let spans = [
        ("one action", totals.action, limit.per_action),
        ("one run", totals.run, limit.per_run),
        ("an hour", totals.hour, limit.per_hour),
    ];
    let is_covered = |amount| dossier.approvals.iter().any(|held| covers(held, event, amount));
    let over = spans.into_iter().find(|(_, amount, most)| amount > most && !is_covered(*amount))?;
    (!was_reported(&limit.name, event, dossier)).then_some(over)
}

fn totals(limit: &str, event: &Event, dossier: &Dossier) -> Totals {
    let action = resources(event);
    let minute = event.at.div_euclid(MINUTE);
    let before = |run: &str, oldest: i64| {
        let sum = dossier.sums.iter().find(|sum| is_of(sum, limit, event, run));
        let minutes = sum.into_iter().flat_map(|sum| &sum.minutes).filter(|(at, _)| *at > oldest && *at <= minute);
        minutes.fold(0_u32, |total, (_, amount)| total.saturating_add(*amount))
    };
    let run = event.run_or_session();
    let in_run = if run.is_empty() { 0 } else { before(run, i64::MIN) };
    Totals {
        action,
        run: action.saturating_add(in_run),
        hour: action.saturating_add(before("", minute - MINUTES_OF_AN_HOUR)),
    }
}

/// Whether this was reported within the hour.
fn was_reported(limit: &str, event: &Event, dossier: &Dossier) -> bool {
    let hour = dossier.sums.iter().find(|sum| is_of(sum, limit, event, ""));
    hour.and_then(|sum| sum.reported).is_some_and(|at| event.at.saturating_sub(at) <= MINUTE * MINUTES_OF_AN_HOUR)
}

/// Whether a bulk approval holds for so many resources.
fn covers(held: &HeldApproval, event: &Event, amount: u32) -> bool {
    let approval = &held.approval;
    let fits = |pattern: &str, text: &str| pattern.is_empty() || Glob::new(pattern).matches(text);
    approval.count > 1
        && amount <= approval.count
        && held.at <= event.at
        && event.at <= held.until
        && fits(&approval.operation, &event.action)
        && fits(&approval.resource, &event.resource.id)
}

/// How many resources an action changes: the longest list among its arguments, and one at least. A list that a decoder cut
/// counts as far as it goes.
pub(super) fn resources(event: &Event) -> u32 {
    let longest = event.arguments.iter().map(|argument| longest_list(&argument.value)).max();
    u32::try_from(longest.unwrap_or_default().max(1)).unwrap_or(u32::MAX)
}

fn longest_list(value: &str) -> usize {
    if !value.starts_with(['[', '{']) {
        return 0;
    }
    match serde_json::from_str::<Value>(value) {
        Ok(Value::Array(items)) => items.len(),
        Ok(Value::Object(members)) => members.values().filter_map(Value::as_array).map(Vec::len).max().unwrap_or(0),
        // It was cut: as many as begin.
        _ => value.matches("},{").count().max(value.matches("\",\"").count()) + 1,
    }
}

#[cfg(test)]
mod tests;
