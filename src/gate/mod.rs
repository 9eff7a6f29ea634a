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

use std::sync::Arc;

use serde::Serialize;
use tautline_detectors::deviation::Deviation;
use tautline_detectors::engine::{Engine, Input};
use tautline_detectors::event::{Event, Millis};
use tautline_detectors::rulebook::Rulebook;

pub use client::Client;
pub(crate) use command::{Ask, Target, is_permit, offline, write};
pub(crate) use config::Gate;
pub(crate) use metrics::GateMetrics;
pub(crate) use server::{Server, check, serve};

/// Where an answer about an agent comes from.
pub(crate) trait Oracle: Send + Sync {
    /// The rulebook in force.
    fn book(&self) -> Arc<Rulebook>;

    /// Judges one event by guardrails and, where this instance owns the agent's shard, by its behaviour. Nothing is learned.
    fn ask(&self, event: &Event) -> Answer;
}

/// What is known of an act.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// Hash of the rulebook that judged it.
    pub(crate) rulebook: String,
    /// What would be reported; what only shadowed controls find is not in it.
    pub(crate) deviations: Vec<Deviation>,
    /// The agent's trust, 0 to 100; `None` where its behaviour is not available here.
    pub(crate) trust: Option<f64>,
    /// Whether too little is known of the agent yet.
    pub(crate) learning: Option<bool>,
    /// That the agent may do nothing for now.
    pub(crate) quarantine: Option<Quarantine>,
    /// What the knowledge of its behaviour rests on.
    pub(crate) position: Option<Position>,
}

/// That an agent may do nothing but look, until a responder releases it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quarantine {
    /// Since when.
    pub(crate) since: Millis,
    /// The control, or the person, that set it.
    pub(crate) by: String,
    /// Why.
    pub(crate) reason: String,
}

/// How far the log was read: the state rests on every record before this offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Position {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// What any instance can say of an act, knowing nothing of the agent's past: which policies it breaks.
pub(crate) fn guardrails(book: &Arc<Rulebook>, event: &Event) -> Answer {
    let (_, mut deviations) = Engine::new(Arc::clone(book)).step(&Input::Event(Box::new(event.clone())));
    deviations.retain(|deviation| deviation.policy.is_some());
    Answer { rulebook: book.hash().to_owned(), deviations, ..Answer::default() }
}
