//! What is known of the running process: metrics, health, and the latest deviations for the live page.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tautline_detectors::deviation::Deviation;
use tautline_detectors::rulebook::{Need, Rulebook};

use crate::census::Census;
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

/// For how many of the agents that were seen a control cannot tell whether anything is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blind {
    pub(crate) control: String,
    /// The source that it needs.
    pub(crate) reason: &'static str,
    pub(crate) agents: usize,
}

/// Shared by the pipeline and the web server.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) metrics: Metrics,
    latest: Mutex<VecDeque<Deviation>>,
    blind: Mutex<Vec<Blind>>,
    stages: Mutex<BTreeMap<&'static str, StageHealth>>,
}

impl Status {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            metrics: Metrics::new()?,
            latest: Mutex::default(),
            blind: Mutex::default(),
            stages: Mutex::default(),
        })
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

    /// Says how many agents there are by what is known of them, and for how many of them controls are blind.
    pub(crate) fn agents(&self, book: &Rulebook, census: &Census) {
        self.metrics.agents(census);
        let told = book.blind(&census.heard).into_iter();
        let blind = |(control, need, agents): (&str, Need, usize)| Blind {
            control: control.to_owned(),
            reason: need.name(),
            agents,
        };
        let blind: Vec<Blind> = told.map(blind).collect();
        self.metrics.blind(&blind);
        *self.blind.lock().unwrap_or_else(PoisonError::into_inner) = blind;
    }

    /// The controls that are blind for any agent.
    pub(crate) fn blind(&self) -> Vec<Blind> {
        let told = self.blind.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().filter(|blind| blind.agents > 0).cloned().collect()
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use tautline_detectors::engine::{Engine, Input};
    use tautline_detectors::event::{AgentRef, Event, Source};

    use super::*;
    use crate::config::RulebookPaths;
    use crate::rules;

    #[test]
    fn a_control_without_its_source_is_blind_and_not_clean() {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
        let paths = rules::example_paths(&RulebookPaths { rules, ..RulebookPaths::default() });
        let book = Arc::new(rules::read(&paths, rules::Unreachable::Refuse).unwrap());
        let status = Status::new().unwrap();
        let mut engine = Engine::new(Arc::clone(&book));
        let mut told = |agent: &str, source: Source| {
            let agent = AgentRef::Registered(agent.to_owned());
            engine.step(&Input::Event(Box::new(Event { source, agent, ..Event::default() })));
            let mut census = Census::default();
            census.add(engine.baselines(), &book.learning);
            status.agents(&book, &census);
            let mut blind = status.blind();
            blind.retain(|blind| ["identity", "unreported-action"].contains(&blind.control.as_str()));
            blind
                .into_iter()
                .map(|blind| format!("{} {} {}", blind.control, blind.reason, blind.agents))
                .collect::<Vec<_>>()
        };
        assert_eq!(told("night-bot", Source::AgentAction), ["identity audit 1", "unreported-action audit 1"]);
        assert_eq!(
            told("restart-bot", Source::Cloudtrail),
            ["identity audit 1", "unreported-action agent-action 1", "unreported-action audit 1"]
        );
        assert_eq!(told("night-bot", Source::Cloudtrail), ["unreported-action agent-action 1"]);
        let metrics = status.metrics.render().unwrap();
        assert!(metrics.contains("tautline_blind{control=\"identity\",reason=\"audit\"} 0"), "told, and not missing");
    }
}
