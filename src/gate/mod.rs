//! Before the act: whoever enforces asks whether an agent may do what it is about to do.
//!
//! The decision point of the OpenID AuthZEN Authorization API 1.0 (final, 11 January 2026). What is asked becomes the event
//! that the agent would report (`act`), is judged by the same rulebook and the same baselines ([`Oracle`]), and is answered with
//! the reasons (`decision`). Asking teaches nobody anything.

mod access;
mod act;
mod authzen;
mod client;
mod command;
mod config;
mod decision;
mod forward;
mod metrics;
mod server;
#[cfg(test)]
mod tests;
mod tls;
mod verify;

use std::sync::Arc;

use tautline_detectors::engine::{Engine, Opinion};
use tautline_detectors::event::Event;
use tautline_detectors::rulebook::Rulebook;

use crate::output::ocsf::Position;

pub use client::Client;
pub(crate) use command::{Ask, Target, is_permit, offline, write};
pub(crate) use config::Gate;
pub(crate) use metrics::GateMetrics;
pub(crate) use server::{Server, check, serve};
pub(crate) use verify::verify;

/// Where an answer about an agent comes from.
pub(crate) trait Oracle: Send + Sync {
    /// The rulebook in force.
    fn book(&self) -> Arc<Rulebook>;

    /// Judges one event, resolved by a rulebook: by behaviour too, where this instance owns the agent's shard. Nothing is
    /// learned.
    fn ask(&self, event: &Event, book: &Arc<Rulebook>) -> Reply;
}

/// What an oracle says.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// What is known of the act.
    Known(Box<Answer>),
    /// The agent's shard is judged by another rulebook: an event that this one resolved is to be asked about.
    JudgedBy(Arc<Rulebook>),
}

/// What is known of an act.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// What the engine says of it.
    pub(crate) opinion: Opinion,
    /// What the knowledge of the agent's behaviour rests on: every record before this one. `None` where only the guardrails
    /// are known here.
    pub(crate) position: Option<Position>,
}

/// What any instance can say of an act, knowing nothing of the agent's past: which rules it breaks. Whether it has the
/// approval that it wants is not known.
pub(crate) fn guardrails(book: &Arc<Rulebook>, event: &Event) -> Answer {
    let mut opinion = Engine::new(Arc::clone(book)).ask(event);
    opinion.objections.retain(|objection| !objection.lacks_approval);
    Answer { opinion, position: None }
}
