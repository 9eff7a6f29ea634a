//! What Tautline tells Prometheus about itself. Every label is bounded.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use tautline_detectors::baselines::{MOST_NOTICES, Waiting};
use tautline_detectors::deviation::{Deviation, LearningState};
use tautline_detectors::engine::Verdict;
use tautline_detectors::event::{Millis, Source};
use tautline_ingest::{Reason, Rejection};

mod quiet;

use crate::census::Census;
use crate::checkpoint::SkipReason;
use crate::gate::GateMetrics;
use crate::status::Blind;
pub(crate) use quiet::QuietMetrics;

/// All metrics, and the registry that they are in.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    events: IntCounterVec,
    dead_letters: IntCounterVec,
    ignored: IntCounter,
    deviations: IntCounterVec,
    revocations: IntCounter,
    agents: IntGaugeVec,
    blind: IntGaugeVec,
    lag: IntGaugeVec,
    latency: Histogram,
    lateness: HistogramVec,
    late: IntCounterVec,
    /// The agents that it names.
    late_agents: Mutex<BTreeSet<String>>,
    commit: Histogram,
    policy_errors: IntCounter,
    pub(crate) checkpoints: CheckpointMetrics,
    pub(crate) gate: GateMetrics,
    rulebook_reloads: IntCounterVec,
    notices: IntGauge,
    notices_full: IntGauge,
    pairing: PairingMetrics,
    pub(crate) quiet: QuietMetrics,
}

/// How many agents are named by how often they were late.
const MOST_LATE_AGENTS: usize = 1_000;
/// What the agents beyond them are called together.
const OTHERS: &str = "(others)";
/// What principals without a registered agent are called together.
pub(crate) const UNREGISTERED: &str = "(unregistered)";

const OUTCOMES: [&str; 3] = ["accepted", "duplicate", "unregistered"];
const RELOADS: [&str; 2] = ["refused", "accepted"];

impl Metrics {
    pub(crate) fn new() -> Result<Self> {
        let metrics = Self {
            registry: Registry::new(),
            events: IntCounterVec::new(
                Opts::new("tautline_events_total", "Events that reached the engine, by source and outcome."),
                &["source", "outcome"],
            )?,
            dead_letters: IntCounterVec::new(
                Opts::new("tautline_dead_letters_total", "Records that could not be read, by reason."),
                &["reason"],
            )?,
            ignored: IntCounter::new(
                "tautline_ignored_total",
                "Members of records that tell of no request by their nature: other spans, other messages.",
            )?,
            deviations: IntCounterVec::new(
                Opts::new("tautline_deviations_total", "Deviations found, by control and severity."),
                &["control", "severity"],
            )?,
            revocations: IntCounter::new("tautline_revocation_requests_total", "Revocation requests sent.")?,
            agents: IntGaugeVec::new(
                Opts::new("tautline_agents", "Registered agents seen, by the state of their baseline."),
                &["state"],
            )?,
            blind: IntGaugeVec::new(
                Opts::new(
                    "tautline_blind",
                    "Registered agents seen of which a control cannot tell, for want of a source.",
                ),
                &["control", "reason"],
            )?,
            lag: IntGaugeVec::new(
                Opts::new("tautline_consumer_lag_records", "Records not yet read, by topic and partition."),
                &["topic", "partition"],
            )?,
            latency: histogram(
                "tautline_detection_latency_seconds",
                "From the record's arrival in Kafka to the commit of what it led to.",
                prometheus::exponential_buckets(0.005, 2.0, 16)?,
            )?,
            lateness: HistogramVec::new(
                HistogramOpts::new(
                    "tautline_event_lateness_seconds",
                    "From the event's own time to its record's arrival in Kafka, by source.",
                )
                .buckets(vec![1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0]),
                &["source"],
            )?,
            late: IntCounterVec::new(
                Opts::new("tautline_late_events_total", "Events more than 30 minutes late, by agent and source."),
                &["agent", "source"],
            )?,
            late_agents: Mutex::default(),
            commit: histogram(
                "tautline_commit_seconds",
                "Duration of a Kafka transaction's commit.",
                prometheus::exponential_buckets(0.001, 2.0, 14)?,
            )?,
            policy_errors: IntCounter::new(
                "tautline_policy_errors_total",
                "Policies that could not be evaluated; each is a deviation too.",
            )?,
            checkpoints: CheckpointMetrics::new()?,
            gate: GateMetrics::new()?,
            notices: IntGauge::new(
                "tautline_unregistered_notices",
                "Reports about unregistered principals that are remembered, in the shard that has most.",
            )?,
            notices_full: IntGauge::new(
                "tautline_unregistered_notices_full",
                "Whether a shard remembers as many of them as it may: what comes beyond is reported every time.",
            )?,
            pairing: PairingMetrics::new()?,
            quiet: QuietMetrics::new()?,
            rulebook_reloads: IntCounterVec::new(
                Opts::new(
                    "tautline_rulebook_reloads_total",
                    "Rulebooks read again on demand, or with new keys of issuers, by result.",
                ),
                &["result"],
            )?,
        };
        metrics.register()?;
        metrics.start_at_zero();
        Ok(metrics)
    }

    fn register(&self) -> Result<()> {
        let registry = &self.registry;
        registry.register(Box::new(self.events.clone()))?;
        registry.register(Box::new(self.dead_letters.clone()))?;
        registry.register(Box::new(self.ignored.clone()))?;
        registry.register(Box::new(self.deviations.clone()))?;
        registry.register(Box::new(self.revocations.clone()))?;
        registry.register(Box::new(self.agents.clone()))?;
        registry.register(Box::new(self.blind.clone()))?;
        registry.register(Box::new(self.lag.clone()))?;
        registry.register(Box::new(self.latency.clone()))?;
        registry.register(Box::new(self.lateness.clone()))?;
        registry.register(Box::new(self.late.clone()))?;
        registry.register(Box::new(self.commit.clone()))?;
        registry.register(Box::new(self.policy_errors.clone()))?;
        registry.register(Box::new(self.rulebook_reloads.clone()))?;
        registry.register(Box::new(self.notices.clone()))?;
        registry.register(Box::new(self.notices_full.clone()))?;
        self.pairing.register(registry)?;
        self.quiet.register(registry)?;
        self.gate.register(registry)?;
        self.checkpoints.register(registry)
    }

    /// A counter that is born at one has no increase: all that can be foreseen start at zero.
    fn start_at_zero(&self) {
        for reason in Reason::ALL.into_iter().filter(|reason| *reason != Reason::NotARequest) {
            self.dead_letters.with_label_values(&[reason.name()]);
        }
        for source in Source::ALL {
            for outcome in OUTCOMES {
                self.events.with_label_values(&[source.name(), outcome]);
            }
        }
        for result in RELOADS {
            self.rulebook_reloads.with_label_values(&[result]);
        }
        for state in [LearningState::Learning, LearningState::Active] {
            self.agents.with_label_values(&[state.name()]);
        }
        for side in SIDES {
            self.pairing.waiting.with_label_values(&[side]);
        }
        for reason in SkipReason::ALL {
            self.checkpoints.skipped.with_label_values(&[reason.name()]);
        }
    }

    /// Counts events; there may be very many at once.
    pub(crate) fn events(&self, events: &[(Source, Verdict)]) {
        let mut counts: Vec<((Source, Verdict), u64)> = Vec::new();
        for event in events {
            match counts.iter_mut().find(|(kind, _)| kind == event) {
                Some((_, count)) => *count += 1,
                None => counts.push((*event, 1)),
            }
        }
        for ((source, verdict), count) in counts {
            let outcome = match verdict {
                Verdict::Judged => "accepted",
                Verdict::Repeated => "duplicate",
                Verdict::Unregistered => "unregistered",
                Verdict::Control => continue,
            };
            self.events.with_label_values(&[source.name(), outcome]).inc_by(count);
        }
    }

    pub(crate) fn deviation(&self, deviation: &Deviation) {
        self.deviations.with_label_values(&[deviation.control.as_str(), deviation.severity.name()]).inc();
        if deviation.revocation.is_some() {
            self.revocations.inc();
        }
        if deviation.policy_failed {
            self.policy_errors.inc();
        }
    }

    pub(crate) fn rejected(&self, rejection: &Rejection) {
        if rejection.is_ignored() {
            self.ignored.inc();
        } else {
            self.dead_letters.with_label_values(&[rejection.reason.name()]).inc();
        }
    }

    pub(crate) fn rulebook_reload(&self, accepted: bool) {
        let result = RELOADS.into_iter().nth(usize::from(accepted)).unwrap_or_default();
        self.rulebook_reloads.with_label_values(&[result]).inc();
    }

    /// Says how many agents there are by the state of their baselines, and how much is remembered of unregistered principals,
    /// of the bound that each shard has.
    pub(crate) fn agents(&self, census: &Census) {
        for (state, count) in [(LearningState::Learning, census.learning), (LearningState::Active, census.active)] {
            self.agents.with_label_values(&[state.name()]).set(count);
        }
        self.notices.set(i64::try_from(census.notices).unwrap_or(i64::MAX));
        self.notices_full.set(i64::from(census.notices >= MOST_NOTICES));
    }

    /// Says for how many agents each control is blind, and for want of what. Controls that are no more go.
    pub(crate) fn blind(&self, blind: &[Blind]) {
        self.blind.reset();
        for Blind { control, reason, agents } in blind {
            let agents = i64::try_from(*agents).unwrap_or(i64::MAX);
            self.blind.with_label_values(&[control.as_str(), reason]).set(agents);
        }
    }

    /// Says what waits for its counterpart in each shard, and for how long its audit log has been silent meanwhile.
    pub(crate) fn pairing(&self, shards: &[(Waiting, Duration)]) {
        let sum = |of: fn(&Waiting) -> usize| {
            i64::try_from(shards.iter().map(|(waiting, _)| of(waiting)).sum::<usize>()).unwrap_or(i64::MAX)
        };
        for (side, waiting) in SIDES.into_iter().zip([sum(|waiting| waiting.claims), sum(|waiting| waiting.effects)]) {
            self.pairing.waiting.with_label_values(&[side]).set(waiting);
        }
        self.pairing.lost.set(sum(|waiting| waiting.lost));
        let silence = shards.iter().map(|(_, silence)| silence.as_secs()).max().unwrap_or_default();
        self.pairing.silence.set(silence.cast_signed());
    }

    pub(crate) fn lag(&self, topic: &str, partition: i32, records: i64) {
        self.lag.with_label_values(&[topic, &partition.to_string()]).set(records);
    }

    pub(crate) fn forget_lags(&self) {
        self.lag.reset();
    }

    pub(crate) fn latencies(&self, latencies: impl Iterator<Item = Duration>) {
        let local = self.latency.local();
        latencies.for_each(|latency| local.observe(latency.as_secs_f64()));
    }

    /// How late events were, in milliseconds, and of which agents and sources those are that were too late.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn lateness(&self, all: &[(Source, Millis)], late: &[(String, Source)]) {
        for source in Source::ALL {
            let mut of_source = all.iter().filter(|(of, _)| *of == source).peekable();
            if of_source.peek().is_some() {
                let local = self.lateness.with_label_values(&[source.name()]).local();
                of_source.for_each(|(_, lateness)| local.observe(*lateness.max(&0) as f64 / 1e3));
            }
        }
        let mut agents = self.late_agents.lock().unwrap_or_else(PoisonError::into_inner);
        for (agent, source) in late {
            let named = agents.contains(agent) || agents.len() < MOST_LATE_AGENTS && agents.insert(agent.clone());
            self.late.with_label_values(&[if named { agent } else { OTHERS }, source.name()]).inc();
        }
    }

    pub(crate) fn commit(&self, duration: Duration) {
        self.commit.observe(duration.as_secs_f64());
    }

    /// The exposition text.
    pub(crate) fn render(&self) -> Result<String> {
        let mut bytes = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut bytes)?;
        Ok(String::from_utf8(bytes)?)
    }
}

/// What is told about the pairing of declared actions with the audit log.
#[derive(Debug)]
struct PairingMetrics {
    waiting: IntGaugeVec,
    lost: IntGauge,
    silence: IntGauge,
}

/// What waits for its counterpart: a declared action, or an effect in the audit log.
const SIDES: [&str; 2] = ["declared", "effect"];

impl PairingMetrics {
    fn new() -> Result<Self> {
        Ok(Self {
            waiting: IntGaugeVec::new(
                Opts::new(
                    "tautline_pairing_waiting",
                    "Declared actions that the audit log has not shown yet, and effects in it that were not declared yet.",
                ),
                &["side"],
            )?,
            lost: IntGauge::new(
                "tautline_pairing_lost",
                "Changes of agents with too many at once that cannot be paired, as long as any of theirs wait.",
            )?,
            silence: IntGauge::new(
                "tautline_audit_silence_seconds",
                "For how long declared actions have waited for the audit log and nothing of it came, in the shard where that is longest.",
            )?,
        })
    }

    fn register(&self, registry: &Registry) -> Result<()> {
        registry.register(Box::new(self.waiting.clone()))?;
        registry.register(Box::new(self.lost.clone()))?;
        registry.register(Box::new(self.silence.clone()))?;
        Ok(())
    }
}

/// What is told about checkpoints.
#[derive(Debug)]
pub(crate) struct CheckpointMetrics {
    timestamp: IntGaugeVec,
    failures: IntCounter,
    skipped: IntCounterVec,
    bytes: IntCounter,
    seconds: Histogram,
}

impl CheckpointMetrics {
    fn new() -> Result<Self> {
        Ok(Self {
            timestamp: IntGaugeVec::new(
                Opts::new(
                    "tautline_checkpoint_timestamp_seconds",
                    "When the memory was as in the latest durable checkpoint, since 1970, by partition.",
                ),
                &["partition"],
            )?,
            failures: IntCounter::new(
                "tautline_checkpoint_failures_total",
                "Checkpoints that could not be written or hang, or old ones that could not be deleted.",
            )?,
            skipped: IntCounterVec::new(
                Opts::new(
                    "tautline_checkpoints_skipped_total",
                    "Checkpoints, or lists of them, that could not be restored from, by reason.",
                ),
                &["reason"],
            )?,
            bytes: IntCounter::new("tautline_checkpoint_bytes_total", "Bytes written to checkpoints.")?,
            seconds: histogram(
                "tautline_checkpoint_seconds",
                "Time that it took to write a checkpoint.",
                prometheus::exponential_buckets(0.001, 2.0, 16)?,
            )?,
        })
    }

    fn register(&self, registry: &Registry) -> Result<()> {
        registry.register(Box::new(self.timestamp.clone()))?;
        registry.register(Box::new(self.failures.clone()))?;
        registry.register(Box::new(self.skipped.clone()))?;
        registry.register(Box::new(self.bytes.clone()))?;
        registry.register(Box::new(self.seconds.clone()))?;
        Ok(())
    }

    /// A checkpoint of so many bytes was written.
    pub(crate) fn written(&self, bytes: u64, duration: Duration) {
        self.bytes.inc_by(bytes);
        self.seconds.observe(duration.as_secs_f64());
    }

    /// The latest checkpoint of a partition holds its memory as it was at `taken`.
    pub(crate) fn current(&self, partition: i32, taken: SystemTime) {
        let since = taken.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.timestamp.with_label_values(&[partition.to_string()]).set(since.as_secs().cast_signed());
    }

    /// A partition is no longer ours.
    pub(crate) fn forget(&self, partition: i32) {
        // One without a checkpoint has nothing to remove.
        let _ = self.timestamp.remove_label_values(&[partition.to_string()]);
    }

    pub(crate) fn failed(&self) {
        self.failures.inc();
    }

    pub(crate) fn skipped(&self, reason: SkipReason) {
        self.skipped.with_label_values(&[reason.name()]).inc();
    }
}

fn histogram(name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram> {
    Ok(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_told_over_all_shards_and_the_longest_silence_counts() {
        let metrics = Metrics::new().unwrap();
        let told = |line: &str| metrics.render().unwrap().lines().any(|told| told == line);
        assert!(told("tautline_pairing_waiting{side=\"declared\"} 0"), "told from the start");
        let waiting = |claims, effects, lost| Waiting { claims, effects, lost, ..Waiting::default() };
        metrics.pairing(&[
            (waiting(3, 1, 0), Duration::from_secs(90)),
            (waiting(4, 0, 2), Duration::from_secs(4_000)),
            (waiting(0, 0, 0), Duration::ZERO),
        ]);
        for line in [
            "tautline_pairing_waiting{side=\"declared\"} 7",
            "tautline_pairing_waiting{side=\"effect\"} 1",
            "tautline_pairing_lost 2",
            "tautline_audit_silence_seconds 4000",
        ] {
            assert!(told(line), "{line}");
        }
        metrics.pairing(&[]);
        assert!(told("tautline_audit_silence_seconds 0") && told("tautline_pairing_lost 0"));
    }

    #[test]
    fn lateness_is_told_by_source_and_of_so_many_agents() {
        let metrics = Metrics::new().unwrap();
        let mut late: Vec<_> =
            (0..MOST_LATE_AGENTS + 2).map(|agent| (format!("agent-{agent:04}"), Source::Cloudtrail)).collect();
        metrics.lateness(&[(Source::Cloudtrail, 2_000_000), (Source::Cloudtrail, -5), (Source::Gcp, 1_000)], &late);
        late.truncate(1);
        metrics.lateness(&[], &late);
        let told = metrics.render().unwrap();
        for line in [
            "tautline_event_lateness_seconds_bucket{source=\"cloudtrail\",le=\"1800\"} 1",
            "tautline_event_lateness_seconds_sum{source=\"cloudtrail\"} 2000",
            "tautline_event_lateness_seconds_count{source=\"gcp\"} 1",
            "tautline_late_events_total{agent=\"agent-0000\",source=\"cloudtrail\"} 2",
            "tautline_late_events_total{agent=\"(others)\",source=\"cloudtrail\"} 2",
        ] {
            assert!(told.lines().any(|told| told == line), "{line}");
        }
    }
}
