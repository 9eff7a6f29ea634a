//! The detectors that stream engines can be compared by, over the product's own pipeline, engine and baselines: see
//! `docs/performance.md`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use rustc_hash::FxHashMap;
use tautline::kafka::{Assigned, Kafka, Output, Record, Shards, Stage, run_stage};
use tautline_detectors::deviation::Deviation;
use tautline_detectors::engine::Input;
use tautline_detectors::rulebook::Rulebook;

use work::Policy;
use work_event::WorkEvent;

#[path = "common/work.rs"]
mod work;
#[path = "common/work_event.rs"]
mod work_event;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Checkpoints are not taken more often than this.
const SECOND: Duration = Duration::from_secs(1);
/// Transactions are committed at least this often, as in the product: alerts do not wait for checkpoints.
const MOST_COMMIT_MS: u64 = 100;

#[derive(Parser)]
struct Options {
    /// `host:port` of a broker
    #[arg(long)]
    bootstrap: String,
    /// Topic of the events, keyed by agent
    #[arg(long = "in")]
    input: String,
    /// Topic of the alerts
    #[arg(long)]
    out: String,
    /// Accounts and teams, JSON
    #[arg(long)]
    policy: PathBuf,
    /// Only exactly-once is to be had
    #[arg(long, default_value = "eos")]
    guarantee: String,
    /// How far checkpoints are apart; transactions, too, if it is less than 100
    #[arg(long, default_value_t = 1_000)]
    commit_ms: u64,
    /// Processes are what scales, not threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Where checkpoints are kept
    #[arg(long)]
    state_dir: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if options.guarantee != "eos" {
        bail!("`{}` is not what this does: it commits exactly once (`eos`)", options.guarantee);
    }
    let text = fs::read_to_string(&options.policy).with_context(|| format!("{}", options.policy.display()))?;
    let Policy { accounts, teams } = serde_json::from_str(&text)?;
    let name = options.state_dir.file_name().context("`--state-dir` has no name")?.to_string_lossy().into_owned();
    let interval = Duration::from_millis(options.commit_ms).max(SECOND);
    let stage = Work {
        input: options.input,
        out: options.out.into(),
        accounts,
        book: Arc::new(work::rulebook(teams)?),
        shards: Shards::open(&name, &options.state_dir.to_string_lossy(), interval)?,
        events: Vec::new(),
    };
    let kafka = Kafka {
        brokers: options.bootstrap,
        group: name,
        commit_interval_ms: options.commit_ms.min(MOST_COMMIT_MS),
        batch_records: 1_000_000,
        ..Kafka::default()
    };
    static STOP: AtomicBool = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.spawn(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        terminate.recv().await;
        STOP.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    });
    run_stage("work", stage, &kafka, &STOP)
}

struct Work {
    input: String,
    out: Arc<str>,
    accounts: FxHashMap<String, String>,
    book: Arc<Rulebook>,
    shards: Shards,
    /// The events under way; their memory is used again for the next ones.
    events: Vec<Input>,
}

impl Stage for Work {
    fn topics(&self) -> Vec<&str> {
        vec![&self.input]
    }

    fn assigned(&mut self, assigned: Assigned) -> Result<i64> {
        self.shards.take_over(assigned, self.book.hash(), |_| Ok(Arc::clone(&self.book)))
    }

    fn revoked(&mut self, slot: usize) {
        self.shards.give_up(slot);
    }

    fn records(&mut self, records: &[Record<'_>], outputs: &mut Vec<Output>) -> Result<()> {
        let Some(Record { slot, .. }) = records.first() else { return Ok(()) };
        self.events.resize_with(self.events.len().max(records.len()), || Input::Event(Box::default()));
        for (record, event) in records.iter().zip(&mut self.events) {
            let work = WorkEvent::parse(record.payload).map_err(|error| anyhow!(error))?;
            let Input::Event(event) = event else { continue };
            work::fill(event, &work, &self.accounts)?;
        }
        let shard = self.shards.get_mut(*slot).context("records of a partition that is not ours")?;
        let mut seat = shard.seat();
        seat.engine.look_ahead(self.events.iter().take(records.len()));
        for (record, event) in records.iter().zip(&self.events) {
            let speaks = seat.take(record.offset);
            let deviations = work::judge(&mut seat.engine, event);
            if speaks && !deviations.is_empty() {
                outputs.push(alert(&self.out, record, &deviations));
            }
        }
        Ok(())
    }

    fn note(&self, slot: usize, next: i64) -> Option<String> {
        self.shards.note(slot, next)
    }

    fn idle(&mut self) {
        self.shards.save_when_due();
    }

    fn ready(&self) -> bool {
        self.shards.ready()
    }
}

fn alert(topic: &Arc<str>, record: &Record<'_>, deviations: &[Deviation]) -> Output {
    Output {
        topic: Arc::clone(topic),
        partition: Some(record.partition.number),
        key: deviations.first().map(|deviation| deviation.agent.id.clone()).unwrap_or_default(),
        payload: work::alert(deviations).into_bytes(),
        timestamp: record.timestamp,
        seal: None,
    }
}
