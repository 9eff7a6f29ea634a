//! Metrics of what is found and not reported, and of agents under quarantine.

use anyhow::Result;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tautline_detectors::engine::{Hush, Hushed};
use tautline_detectors::event::Millis;
use tautline_detectors::rulebook::{Mode, Rulebook};

use crate::census::Census;

/// What is counted and not alerted.
#[derive(Debug)]
pub(crate) struct QuietMetrics {
    hushed: IntCounterVec,
    exceptions: IntGaugeVec,
    quarantined: IntGauge,
}

impl QuietMetrics {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            hushed: IntCounterVec::new(
                Opts::new(
                    "tautline_hushed_total",
                    "Deviations that are not alerted, by control: those of controls on trial (shadow), and those that an \
                     exception expects.",
                ),
                &["control", "why"],
            )?,
            exceptions: IntGaugeVec::new(
                Opts::new(
                    "tautline_exception_used_timestamp_seconds",
                    "When each exception in force last hid anything, or began.",
                ),
                &["exception"],
            )?,
            quarantined: IntGauge::new("tautline_quarantined_agents", "Agents under quarantine.")?,
        })
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<()> {
        registry.register(Box::new(self.hushed.clone()))?;
        registry.register(Box::new(self.exceptions.clone()))?;
        Ok(registry.register(Box::new(self.quarantined.clone()))?)
    }

    /// Counts what was not reported.
    pub(crate) fn hushed(&self, hushed: &Hushed) {
        self.hushed.with_label_values(&[hushed.deviation.control.as_str(), why(&hushed.why)]).inc();
    }

    /// Says when the exceptions that are in force were last of use, as the shards know it, and how many agents are under
    /// quarantine.
    pub(crate) fn state(&self, book: &Rulebook, now: Millis, census: &Census) {
        self.exceptions.reset();
        for exception in book.exceptions.iter().filter(|exception| (exception.since..exception.until).contains(&now)) {
            let used = census.excused.get(&exception.id).copied().unwrap_or(Millis::MIN).max(exception.since);
            self.exceptions.with_label_values(&[exception.id.as_str()]).set(used / 1_000);
        }
        self.quarantined.set(i64::try_from(census.quarantined).unwrap_or(i64::MAX));
        // A counter that is born at one has no increase.
        for control in book.controls().filter(|control| control.mode == Mode::Shadow) {
            self.hushed.with_label_values(&[control.id.as_str(), why(&Hush::Shadow)]);
        }
    }
}

fn why(hush: &Hush) -> &'static str {
    match hush {
        Hush::Shadow => "shadow",
        Hush::Exception(_) => "exception",
    }
}
