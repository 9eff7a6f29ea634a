//! The pure core of Tautline: events in, deviations out.
//!
//! Nothing in this crate reads a clock, a file, a socket or a random number; all time comes from events. The same log
//! gives the same deviations, ids and scores under any batching, interleaving of agents or restart.

pub mod baselines;
pub mod detector;
pub mod deviation;
pub mod engine;
pub mod event;
pub mod glob;
pub mod response;
pub mod rulebook;
pub mod statement;
pub mod stats;
#[cfg(test)]
mod testing;
