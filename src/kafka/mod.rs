//! From Kafka to Kafka: `tautline run`, and stages of one's own.
//!
//! Two stages, each a loop of its own over one consumer and one transactional producer. The *hop* is stateless: it
//! decodes, resolves and redacts the sources' records and appends them to the log under their agents. The *engine* reads the log,
//! one shard a partition. Either commits its outputs and its offsets in one transaction, or neither.

mod batch;
mod client;
mod desk;
mod engine;
mod hop;
mod pump;
mod shards;
mod topics;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tautline_detectors::event::Event;
use tautline_detectors::rulebook::{Issuers, Rulebook};
use tautline_ingest::redact::Redactor;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::checkpoint::Checkpoints;
use crate::cli;
use crate::config::Config;
use crate::gate::{self, Gate, Oracle, Reply, Server};
use crate::http;
use crate::output::dead_letter::Letters;
use crate::redaction;
use crate::rules::{self, RulebookStore, Unreachable};
use crate::signals::Webhook;
use crate::status::Status;

pub use crate::config::Kafka;
pub use crate::connection::{Mechanism, Sasl, Tls};
pub use crate::secret::SecretSource;
pub use batch::{Batch, Batches, Message};
pub use client::{Output, Partition};
pub(crate) use desk::Desk;
pub use desk::Seat;
pub use pump::{Assigned, Record, Stage};
pub use shards::{Shard, Shards};
pub(crate) use topics::{Shape, Taken, Topics, first_books};

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
    /// Where questions are answered before the act.
    desk: Arc<Desk>,
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

    /// Puts a rulebook that was read again into force. One that is refused leaves the one in force where it is.
    fn renew(&self, read: Result<Arc<Rulebook>>) {
        self.status.metrics.rulebook_reload(read.is_ok());
        match read {
            Ok(book) => *self.book.write().unwrap_or_else(PoisonError::into_inner) = book,
            Err(error) => format!("{error:#}").lines().for_each(|line| tracing::error!("rulebook refused: {line}")),
        }
    }

    /// Reads the rulebook's files again whenever somebody asks, and the issuers' keys alone when they are due.
    fn keep_current(&self, asked: &Receiver<()>) {
        loop {
            let due = Issuers::remote(self.book().files()).iter().map(|remote| remote.refresh).min();
            let wait = due.map_or(Duration::MAX, |due| Duration::from_millis(due.unsigned_abs()));
            match asked.recv_timeout(wait) {
                Ok(()) => self.renew(read_book(&self.config, Unreachable::Refuse)),
                Err(RecvTimeoutError::Timeout) => match rules::refreshed(&self.book()).transpose() {
                    Some(read) => self.renew(read.and_then(|book| kept(&self.config, book))),
                    None => tracing::debug!("the issuers' keys are what they were"),
                },
                Err(RecvTimeoutError::Disconnected) => return,
            }
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
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Before anything else: until somebody listens, a SIGHUP ends the process.
    let hangup = runtime.block_on(async { signal(SignalKind::hangup()) })?;
    let book = read_book(&config, Unreachable::TakeKept)?;
    let (redactor, letters) = (redaction::live(&config)?, Letters::new(&config.redaction)?);
    let status = Arc::new(Status::new()?);
    let checkpoints = Arc::new(Checkpoints::open(&config.checkpoints, Arc::clone(&status))?);
    let listener = runtime.block_on(http::bind(config.http.listen))?;
    tracing::info!("metrics, health and live page at http://{}/", listener.local_addr()?);
    let webhook = config.alertmanager.as_ref().map(|section| {
        section.check(&book)?;
        Webhook::new(section, client::sender(&config.kafka)?)
    });
    runtime.spawn(http::serve(listener, Arc::clone(&status), webhook.transpose()?, std::future::pending()));

    let (stop, handle) = (AtomicBool::new(false), runtime.handle().clone());
    let (book, desk) = (RwLock::new(book), Arc::default());
    let shared = Arc::new(Shared { config, book, redactor, letters, status, checkpoints, desk, stop, runtime: handle });
    if let Some(gate) = &shared.config.gate {
        open_gate(gate, &shared)?;
    }
    let mut stages = vec![spawn(engine::EngineStage::NAME, &shared, engine::EngineStage::open)?];
    if !shared.config.log.direct {
        stages.push(spawn("hop", &shared, |shared| Ok(hop::Hop::new(shared)))?);
    }
    let (ask, asked) = mpsc::channel();
    let current = Arc::clone(&shared);
    thread::Builder::new().name("rulebook".to_owned()).spawn(move || current.keep_current(&asked))?;
    runtime.block_on(signals(&ask, hangup))?;
    tracing::info!("stopping: the open batch is finished and committed first");
    shared.stop.store(true, Ordering::Relaxed);
    for stage in stages {
        stage.join().map_err(|_| anyhow::anyhow!("a stage panicked"))?;
    }
    Ok(())
}

impl Oracle for Shared {
    fn book(&self) -> Arc<Rulebook> {
        Shared::book(self)
    }

    fn ask(&self, event: &Event, book: &Arc<Rulebook>) -> Reply {
        let known = self.desk.ask(event, book, !self.config.log.direct);
        known.unwrap_or_else(|| Reply::Known(Box::new(gate::guardrails(book, event))))
    }
}

/// Opens the gate's port, so that a taken one is an error at start-up, and answers there from then on.
fn open_gate(gate: &Gate, shared: &Arc<Shared>) -> Result<()> {
    let listener = shared.runtime.block_on(http::bind(*gate.listen.get_ref()))?;
    let oracle: Arc<dyn Oracle> = Arc::clone(shared) as _;
    let server = Server::open(gate, oracle, shared.redactor.clone(), Arc::clone(&shared.status))?;
    tracing::info!("the gate answers at {}", gate.identifier());
    shared.runtime.spawn(gate::serve(listener, Arc::new(server), gate.tls.clone()));
    Ok(())
}

fn read_book(config: &Config, unreachable: Unreachable) -> Result<Arc<Rulebook>> {
    kept(config, cli::rulebook(&config.rulebook, unreachable)?)
}

/// Keeps a rulebook in the store: nothing may be judged by one that a replay would not find.
fn kept(config: &Config, book: Rulebook) -> Result<Arc<Rulebook>> {
    let book = Arc::new(book);
    RulebookStore::open(&config.rulebook.store)?.keep(&book)?;
    tracing::info!(rulebook = book.hash(), controls = book.controls().count(), "rules are in force");
    Ok(book)
}

/// Returns with SIGTERM or Ctrl-C; every SIGHUP until then asks for the rulebook to be read again.
async fn signals(ask: &Sender<()>, mut hangup: Signal) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            interrupted = tokio::signal::ctrl_c() => return interrupted.context("cannot listen for Ctrl-C"),
            _ = hangup.recv() => ask.send(()).context("nobody reads the rulebook any more")?,
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
