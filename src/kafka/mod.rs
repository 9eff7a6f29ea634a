//! From Kafka to Kafka: `tautline run`, and stages of one's own.
//!
//! Two stages, each a loop of its own over one consumer and one transactional producer. The *hop* is stateless: it
//! decodes, resolves and redacts the sources' records and appends them to the log under their agents. The *engine* reads the log,
//! one shard a partition. Either commits its outputs and its offsets in one transaction, or neither.

mod batch;
mod client;
mod engine;
mod hop;
mod pump;
mod shards;
mod topics;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tautline_detectors::rulebook::Rulebook;
use tautline_ingest::redact::Redactor;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::checkpoint::Checkpoints;
use crate::cli;
use crate::config::Config;
use crate::http;
use crate::output::dead_letter::Letters;
use crate::redaction;
use crate::rules::RulebookStore;
use crate::status::Status;

pub use crate::config::Kafka;
pub use crate::connection::{Mechanism, Sasl, Tls};
pub use crate::secret::SecretSource;
pub use batch::{Batch, Batches, Message};
pub use client::{Output, Partition};
pub use pump::{Assigned, Record, Stage};
pub use shards::{Shard, Shards};
pub(crate) use topics::{Shape, Topics};

/// How long a stage that failed waits at first, and at most, before it starts anew.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What both stages share.
#[derive(Debug)]
struct Shared {
    config: Config,
    /// The rulebook in force.
    book: RwLock<Arc<Rulebook>>,
    redactor: Redactor,
    letters: Letters,
    status: Arc<Status>,
    checkpoints: Arc<Checkpoints>,
    stop: AtomicBool,
    runtime: tokio::runtime::Handle,
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn book(&self) -> Arc<Rulebook> {
        Arc::clone(&self.book.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the rulebook's files again. One that is refused leaves the one in force where it is.
    fn reload(&self) {
        let read = read_book(&self.config);
        self.status.metrics.rulebook_reload(read.is_ok());
        match read {
            Ok(book) => *self.book.write().unwrap_or_else(PoisonError::into_inner) = book,
            Err(error) => format!("{error:#}").lines().for_each(|line| tracing::error!("rulebook refused: {line}")),
        }
    }
}

/// Runs a stage of one's own until `stop` is set, or until it fails; `name` ends its consumer group's name.
///
/// # Errors
///
/// Everything that the product would start the stage anew for: nothing was committed then since the last commit.
pub fn run_stage(name: &'static str, stage: impl Stage, kafka: &Kafka, stop: &AtomicBool) -> Result<()> {
    pump::run(name, stage, kafka, &Arc::new(Status::new()?), stop)
}

/// Runs until SIGTERM or Ctrl-C, then finishes the batch, commits, and leaves the group.
pub(crate) fn run(mut config: Config) -> Result<()> {
    config.check_for_run()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // Before anything else: until somebody listens, a SIGHUP ends the process.
    let hangup = runtime.block_on(async { signal(SignalKind::hangup()) })?;
    let book = RwLock::new(read_book(&config)?);
    let (redactor, letters) = (redaction::live(&config)?, Letters::new(&config.redaction)?);
    let status = Arc::new(Status::new()?);
    let checkpoints = Arc::new(Checkpoints::open(&config.checkpoints, Arc::clone(&status))?);
    let listener = runtime.block_on(http::bind(config.http.listen))?;
    tracing::info!("metrics, health and live page at http://{}/", listener.local_addr()?);
    runtime.spawn(http::serve(listener, Arc::clone(&status), std::future::pending()));

    let (stop, handle) = (AtomicBool::new(false), runtime.handle().clone());
    let shared = Arc::new(Shared { config, book, redactor, letters, status, checkpoints, stop, runtime: handle });
    let mut stages = vec![spawn(engine::EngineStage::NAME, &shared, engine::EngineStage::open)?];
    if !shared.config.log.direct {
        stages.push(spawn("hop", &shared, |shared| Ok(hop::Hop::new(shared)))?);
    }
    runtime.block_on(signals(&shared, hangup))?;
    tracing::info!("stopping: the open batch is finished and committed first");
    shared.stop.store(true, Ordering::Relaxed);
    for stage in stages {
        stage.join().map_err(|_| anyhow::anyhow!("a stage panicked"))?;
    }
    Ok(())
}

/// Reads the rulebook and keeps it in the store: nothing may be judged by one that a replay would not find.
fn read_book(config: &Config) -> Result<Arc<Rulebook>> {
    let book = Arc::new(cli::rulebook(&config.rulebook)?);
    RulebookStore::open(&config.rulebook.store)?.keep(&book)?;
    tracing::info!(rulebook = book.hash(), controls = book.controls().count(), "rules are in force");
    Ok(book)
}

/// Returns with SIGTERM or Ctrl-C; every SIGHUP until then has the rulebook read again.
async fn signals(shared: &Shared, mut hangup: Signal) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            interrupted = tokio::signal::ctrl_c() => return interrupted.context("cannot listen for Ctrl-C"),
            _ = hangup.recv() => shared.reload(),
        }
    }
}

/// Starts a stage's thread. A stage that fails is started anew from what is committed, for ever, later and later.
fn spawn<S: Stage>(
    name: &'static str,
    shared: &Arc<Shared>,
    open: impl Fn(Arc<Shared>) -> Result<S> + Send + 'static,
) -> Result<thread::JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let work = move || {
        let (least, most) = BACK_OFF;
        let mut wait = least;
        while !shared.stopping() {
            shared.status.beat(name, false);
            let started = Instant::now();
            match open(Arc::clone(&shared))
                .and_then(|stage| pump::run(name, stage, &shared.config.kafka, &shared.status, &shared.stop))
            {
                Ok(()) => return,
                Err(error) => tracing::error!(stage = name, wait = ?wait, "stage failed, will start anew: {error:#}"),
            }
            if started.elapsed() > most {
                wait = least;
            }
            sleep(wait, &shared, name);
            wait = (wait * 2).min(most);
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(work).context("cannot start a thread")
}

/// Sleeps in short pieces, so that a stop is heard and the stage is seen to be alive.
fn sleep(wait: Duration, shared: &Shared, name: &'static str) {
    let start = Instant::now();
    while start.elapsed() < wait && !shared.stopping() {
        shared.status.beat(name, false);
        thread::sleep(Duration::from_millis(100));
    }
}
