//! What is known of the running process: metrics, health, and the latest deviations for the live page.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tautline_detectors::deviation::Deviation;

use crate::metrics::Metrics;

/// Deviations that the live page shows.
const LATEST: usize = 200;
/// A stage that has not gone round its loop for this long is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// One stage of the pipeline, as the health endpoints see it.
#[derive(Clone, Copy, Debug)]
struct StageHealth {
    beat: Instant,
    ready: bool,
}

/// Shared by the pipeline and the web server.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) metrics: Metrics,
    latest: Mutex<VecDeque<Deviation>>,
    stages: Mutex<BTreeMap<&'static str, StageHealth>>,
}

impl Status {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { metrics: Metrics::new()?, latest: Mutex::default(), stages: Mutex::default() })
    }

    /// Notes a deviation that has been sent.
    pub(crate) fn deviation(&self, deviation: Deviation) {
        self.metrics.deviation(&deviation);
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.truncate(LATEST - 1);
        latest.push_front(deviation);
    }

    /// The latest deviations, newest first.
    pub(crate) fn latest(&self) -> Vec<Deviation> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// A stage has gone round its loop.
    pub(crate) fn beat(&self, stage: &'static str, ready: bool) {
        let health = StageHealth { beat: Instant::now(), ready };
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).insert(stage, health);
    }

    /// Stages that are stuck, and stages that are not ready.
    fn failing(&self, fails: impl Fn(&StageHealth) -> bool) -> Vec<&'static str> {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.iter().filter(|(_, health)| fails(health)).map(|(stage, _)| *stage).collect()
    }

    pub(crate) fn stuck(&self) -> Vec<&'static str> {
        self.failing(|health| health.beat.elapsed() > STUCK)
    }

    pub(crate) fn not_ready(&self) -> Vec<&'static str> {
        self.failing(|health| !health.ready || health.beat.elapsed() > STUCK)
    }
}
