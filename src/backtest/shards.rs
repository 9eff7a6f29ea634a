//! Engines in threads: the agents of a lane are spread over several, each of which is judged by every rulebook.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use tautline_detectors::engine::{Engine, Input};
use tautline_detectors::rulebook::Rulebook;

use super::report::Finding;

/// Rounds that the threads may be behind.
const MOST_BEHIND: usize = 2;
/// Inputs for which an engine looks ahead.
const AHEAD: usize = 32;

/// Something for an engine to step over.
#[derive(Debug)]
pub(super) struct Task {
    /// Which event it belongs to, in the order of reading.
    pub(super) position: u64,
    /// The only rulebook that it is for; `None` where it is for all.
    pub(super) side: Option<usize>,
    /// Whether what is found is to be told.
    pub(super) speaks: bool,
    pub(super) input: Input,
}

/// What a rulebook found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) position: u64,
    /// What led to it: a tick before the event, the event, its use of a credential.
    phase: u8,
    /// The number of the rulebook.
    pub(super) side: usize,
    pub(super) finding: Finding,
}

impl Found {
    /// Their order, which does not depend on who found what when; findings of one agent stay in the order they came.
    fn key(&self) -> (u64, usize, u8, &str) {
        (self.position, self.side, self.phase, &self.finding.agent)
    }
}

/// The tasks of one round, for each engine of a thread.
type Round = Vec<Vec<Task>>;

/// All engines.
#[derive(Debug)]
pub(super) struct Shards {
    lanes: usize,
    of_a_lane: usize,
    threads: Vec<Worker>,
    /// The tasks of the round to come, by engine.
    tasks: Vec<Vec<Task>>,
    behind: usize,
}

#[derive(Debug)]
struct Worker {
    rounds: SyncSender<Round>,
    found: Receiver<Vec<Found>>,
    thread: JoinHandle<()>,
}

impl Shards {
    /// Starts as many threads as given, with at least one engine a lane and one a thread, for each rulebook.
    pub(super) fn start(books: &[Arc<Rulebook>], lanes: usize, threads: usize) -> Result<Self> {
        let of_a_lane = threads.div_ceil(lanes.max(1)).max(1);
        let engines = lanes * of_a_lane;
        let worker = |number: usize| {
            let mine = (number..engines).step_by(threads).count();
            let engines: Vec<Vec<Engine>> =
                (0..mine).map(|_| books.iter().map(|book| Engine::new(Arc::clone(book))).collect()).collect();
            let (rounds, inbox) = sync_channel(MOST_BEHIND + 1);
            let (outbox, found) = sync_channel(MOST_BEHIND + 1);
            let work = move || work(engines, &inbox, &outbox);
            let thread = thread::Builder::new().name(format!("backtest-{number}")).spawn(work)?;
            Ok(Worker { rounds, found, thread })
        };
        let threads = (0..threads).map(worker).collect::<Result<_>>().context("cannot start a thread")?;
        let tasks = (0..engines).map(|_| Vec::new()).collect();
        Ok(Self { lanes, of_a_lane, threads, tasks, behind: 0 })
    }

    /// Has the engine of this hash in a lane step over something.
    pub(super) fn give(&mut self, lane: usize, hash: u64, task: Task) {
        let many = u64::try_from(self.of_a_lane).unwrap_or(1);
        let shard = usize::try_from(hash % many).unwrap_or_default();
        if let Some(tasks) = self.tasks.get_mut(lane % self.lanes.max(1) * self.of_a_lane + shard) {
            tasks.push(task);
        }
    }

    /// Has all engines of a lane step over something.
    pub(super) fn give_all(&mut self, lane: usize, task: &Task) {
        for shard in 0..self.of_a_lane {
            let Task { position, side, speaks, ref input } = *task;
            let hash = u64::try_from(shard).unwrap_or_default();
            self.give(lane, hash, Task { position, side, speaks, input: input.clone() });
        }
    }

    /// Lets the engines work on what they were given; returns what the round found that is due now, in order.
    pub(super) fn round(&mut self) -> Result<Vec<Found>> {
        let many = self.threads.len();
        for (number, worker) in self.threads.iter().enumerate() {
            let mine = self.tasks.iter_mut().skip(number).step_by(many).map(std::mem::take);
            worker.rounds.send(mine.collect()).map_err(|_| anyhow!("an engine has failed"))?;
        }
        self.behind += 1;
        if self.behind > MOST_BEHIND { self.collect() } else { Ok(Vec::new()) }
    }

    /// What is still to be found.
    pub(super) fn finish(mut self) -> Result<Vec<Found>> {
        let mut found = self.round()?;
        while self.behind > 0 {
            found.extend(self.collect()?);
        }
        for Worker { rounds, thread, .. } in self.threads {
            drop(rounds);
            thread.join().map_err(|_| anyhow!("an engine has failed"))?;
        }
        Ok(found)
    }

    fn collect(&mut self) -> Result<Vec<Found>> {
        self.behind -= 1;
        let mut found = Vec::new();
        for worker in &self.threads {
            found.extend(worker.found.recv().map_err(|_| anyhow!("an engine has failed"))?);
        }
        found.sort_by(|a, b| a.key().cmp(&b.key()));
        Ok(found)
    }
}

/// What a thread does: a round after the other, until nobody gives any more or nobody listens.
fn work(mut engines: Vec<Vec<Engine>>, inbox: &Receiver<Round>, outbox: &SyncSender<Vec<Found>>) {
    while let Ok(round) = inbox.recv() {
        let mut found = Vec::new();
        for (engines, tasks) in engines.iter_mut().zip(round) {
            for (side, engine) in engines.iter_mut().enumerate() {
                let mine: Vec<&Task> = tasks.iter().filter(|task| task.side.is_none_or(|only| only == side)).collect();
                for some in mine.chunks(AHEAD) {
                    engine.look_ahead(some.iter().map(|task| &task.input));
                    some.iter().for_each(|task| step(engine, task, side, &mut found));
                }
            }
        }
        if outbox.send(found).is_err() {
            return;
        }
    }
}

fn step(engine: &mut Engine, task: &Task, side: usize, found: &mut Vec<Found>) {
    let deviations = engine.step(&task.input).1;
    if task.speaks {
        let phase = match task.input {
            Input::Tick { .. } => 0,
            Input::CredentialUse(_) => 2,
            Input::Event(_) | Input::Accepted(_) | Input::Rulebook(_) => 1,
        };
        let finding = |deviation| Finding::of(deviation, engine.rulebook());
        let of = |deviation| Found { position: task.position, phase, side, finding: finding(deviation) };
        found.extend(deviations.iter().map(of));
    }
}
