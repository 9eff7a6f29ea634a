//! Tautline keeps AI agents on a taut line while they work on cloud production.
//!
//! This package is the shell: every input and output. What is judged and learned is in `tautline-detectors`, what bytes
//! mean in `tautline-ingest`. The library is for stages of one's own over Kafka, see [`kafka::run_stage`], and for
//! enforcement points of one's own, see [`gate::Client`].

mod backtest;
mod census;
mod check;
mod checkpoint;
mod cli;
mod config;
mod connection;
mod credential_uses;
mod demo;
mod explain;
mod feed;
mod files;
pub mod gate;
mod http;
mod jwks;
pub mod kafka;
mod metrics;
mod mutation;
mod output;
mod redaction;
mod replay;
mod rules;
mod secret;
mod signals;
mod signing;
mod status;

pub use cli::main;
