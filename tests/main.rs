//! One binary for all tests of the whole.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::too_many_lines
)]

mod acceptance;
mod approvals;
mod backtest;
mod broker;
mod chaos;
mod cli;
mod connection;
mod controls;
mod determinism;
mod e2e;
mod gate;
mod golden;
mod hushed;
mod issuers;
mod privacy;
mod recovery;
mod support;
mod tidy;
