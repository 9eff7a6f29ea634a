//! What the gate tells Prometheus about itself.

use std::time::Duration;

use anyhow::Result;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};
use serde_json::Value;

/// What became of an evaluation.
const DECISIONS: [&str; 3] = ["permit", "deny", "error"];

/// Why a request was refused before anything of it was evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    Unauthenticated,
    Forbidden,
    RateLimited,
    Malformed,
    TooLarge,
    Timeout,
}

impl RefusalReason {
    const ALL: [Self; 6] =
        [Self::Unauthenticated, Self::Forbidden, Self::RateLimited, Self::Malformed, Self::TooLarge, Self::Timeout];

    fn name(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate-limited",
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::Timeout => "timeout",
        }
    }
}

/// Counters of the gate.
#[derive(Debug)]
pub(crate) struct GateMetrics {
    requests: IntCounterVec,
    refused: IntCounterVec,
    seconds: Histogram,
}

impl GateMetrics {
    pub(crate) fn new() -> Result<Self> {
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("tautline_gate_requests_total", "Evaluations that the gate was asked for, by decision."),
                &["decision"],
            )?,
            refused: IntCounterVec::new(
                Opts::new("tautline_gate_refused_total", "Requests to the gate that were not evaluated, by reason."),
                &["reason"],
            )?,
            seconds: Histogram::with_opts(
                HistogramOpts::new("tautline_gate_duration_seconds", "From a request's headers to its answer.")
                    .buckets(prometheus::exponential_buckets(0.000_25, 2.0, 14)?),
            )?,
        };
        for decision in DECISIONS {
            metrics.requests.with_label_values(&[decision]);
        }
        for reason in RefusalReason::ALL {
            metrics.refused.with_label_values(&[reason.name()]);
        }
        Ok(metrics)
    }

    pub(crate) fn register(&self, registry: &Registry) -> Result<()> {
        registry.register(Box::new(self.requests.clone()))?;
        registry.register(Box::new(self.refused.clone()))?;
        Ok(registry.register(Box::new(self.seconds.clone()))?)
    }

    /// Counts an evaluation by its answer.
    pub(super) fn answered(&self, answer: &Value) {
        let decision = match answer.get("decision").and_then(Value::as_bool) {
            _ if answer.pointer("/context/error").is_some() => "error",
            Some(true) => "permit",
            _ => "deny",
        };
        self.requests.with_label_values(&[decision]).inc();
    }

    pub(super) fn refused(&self, reason: RefusalReason) {
        self.refused.with_label_values(&[reason.name()]).inc();
    }

    pub(super) fn took(&self, duration: Duration) {
        self.seconds.observe(duration.as_secs_f64());
    }
}
