//! What is found and not reported: findings of controls on trial, and what an exception expects.

use super::Finding;
use crate::detector::Memory;
use crate::deviation::Deviation;
use crate::event::Event;
use crate::rulebook::{Control, Mode, Rulebook};

/// Why a finding is not reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hush {
    /// Its control is on trial.
    Shadow,
    /// An exception expects it: the exception's id.
    Exception(String),
}

impl Hush {
    /// Why a control's finding about an agent's event is not reported, if it is not.
    pub(super) fn of(book: &Rulebook, control: &Control, agent: &str, event: &Event) -> Option<Self> {
        if let Some(exception) = book.exceptions.covering(&control.id, agent, event) {
            return Some(Self::Exception(exception.id.clone()));
        }
        (control.mode == Mode::Shadow).then_some(Self::Shadow)
    }

    /// What is remembered of the finding. A control on trial remembers as it would in earnest: its counts are those of its
    /// alerts to come. What was expected for a while is news again afterwards, but for a window that it had its part in.
    pub(super) fn remembers(&self, memory: &Memory) -> bool {
        match self {
            Self::Shadow => true,
            Self::Exception(_) => matches!(memory, Memory::Burst(_)),
        }
    }
}

/// What was found and is not reported.
#[derive(Clone, Debug, PartialEq)]
pub struct Hushed {
    /// Why not.
    pub why: Hush,
    /// What would have been reported.
    pub deviation: Deviation,
}

/// The controls whose findings about an event an exception expects: to them it is as if it had not happened.
pub(super) fn excused<'b>(book: &Rulebook, found: &[Finding<'b>], agent: &str, event: &Event) -> Vec<&'b str> {
    let is_excused = |control: &Control| matches!(Hush::of(book, control, agent, event), Some(Hush::Exception(_)));
    found.iter().map(|finding| finding.control).filter(|control| is_excused(control)).map(|c| c.id.as_str()).collect()
}

#[cfg(test)]
mod tests;
