//! What is true of an agent for long, such as whom it acts as, and is reported now and then instead of with every event.

use crate::baselines::{Cell, Note, Past};
use crate::event::{Digest, Millis};

const HOUR: Millis = 3_600_000;

/// When something of this name was noted of the agent, if it was.
pub(super) fn noted(past: Past<'_>, name: &str) -> Option<Millis> {
    match past.note(number(name)) {
        Cell { count: 0, .. } => None,
        Cell { count, .. } => Some(Millis::from(count) * HOUR),
    }
}

/// The note that it was then. Hours suffice, and never less than one is kept: none is nothing.
pub(super) fn note(name: &str, at: Millis) -> Note {
    let hours = u32::try_from(at.div_euclid(HOUR)).unwrap_or_default().max(1);
    Note { number: number(name), cell: Cell { count: hours, withheld: 0 } }
}

/// Whether it was not noted within this time before `at`.
pub(super) fn is_due(past: Past<'_>, name: &str, at: Millis, again: Millis) -> bool {
    noted(past, name).is_none_or(|before| at.saturating_sub(before) >= again)
}

fn number(name: &str) -> u32 {
    let number = Digest::of(name.as_bytes()).0 % u128::from(Note::NUMBERS);
    u32::try_from(number).unwrap_or_default()
}
