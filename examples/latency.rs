//! How long alerts take: from the moment at which an event was to be sent, whether or not it could be, to the return of
//! the poll that shows its alert.
//!
//!     cargo run --release --example latency -- --bootstrap 127.0.0.1:19092 --in work --out alerts \
//!         --events work.jsonl --expected alerts.jsonl --rate 20000

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Parser;

use alerts::{Alert, Alerts};
use topic::Topic;

#[path = "common/alerts.rs"]
mod alerts;
#[path = "common/topic.rs"]
mod topic;

/// From here on no more alerts are waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before the first event, so that nothing waits for the reader.
const LEAD: Duration = Duration::from_millis(500);

#[derive(Parser)]
struct Options {
    /// `host:port` of a broker
    #[arg(long)]
    bootstrap: String,
    /// Topic to write the events to
    #[arg(long = "in")]
    input: String,
    /// Topic of the alerts
    #[arg(long)]
    out: String,
    /// Events to send, one a line, numbered from 1 on
    #[arg(long)]
    events: PathBuf,
    /// The alerts that there must be for them, one a line
    #[arg(long)]
    expected: PathBuf,
    /// Events a second
    #[arg(long, default_value_t = 20_000.0)]
    rate: f64,
    /// Seconds whose events do not count
    #[arg(long, default_value_t = 5.0)]
    warm_up: f64,
}

/// When each event is due.
#[derive(Clone, Copy)]
struct Schedule {
    start: Instant,
    rate: f64,
}

impl Schedule {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn due(self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.rate)
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut missing = expected(&options)?;
    let expected = missing.len();
    let alerts = Alerts::open(&options.bootstrap, &options.out, true)?;
    let topic = Topic::open(&options.bootstrap, &options.input)?;
    let events = BufReader::new(File::open(&options.events)?);
    let schedule = Schedule { start: Instant::now() + LEAD, rate: options.rate };
    let sender = thread::spawn(move || send(events, &topic, schedule));
    let counts_from = schedule.start + Duration::from_secs_f64(options.warm_up);
    let (mut latencies, mut last) = (Vec::new(), Instant::now());
    while !missing.is_empty() && (!sender.is_finished() || last.elapsed() < PATIENCE) {
        let alert = alerts.next(Duration::from_millis(20))?;
        let now = Instant::now();
        let Some(alert) = alert.filter(|alert| missing.remove(&alert.identity)) else { continue };
        last = now;
        let due = alert.event.map(|event| schedule.due(event)).filter(|due| *due >= counts_from);
        latencies.extend(due.map(|due| now.saturating_duration_since(due)));
    }
    let worst = sender.join().map_err(|_| anyhow!("the sender panicked"))??;
    latencies.sort_unstable();
    let at = |permille: usize| {
        let index = (latencies.len() * permille / 1_000).min(latencies.len().saturating_sub(1));
        latencies.get(index).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    };
    println!(
        "p50 {:.1} p90 {:.1} p99 {:.1} max {:.1} seen {} expected {expected} sent-late {:.1}",
        at(500),
        at(900),
        at(990),
        at(1_000),
        expected - missing.len(),
        worst.as_secs_f64() * 1e3
    );
    Ok(())
}

/// What tells the alerts apart that there must be.
fn expected(options: &Options) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(&options.expected).with_context(|| options.expected.display().to_string())?;
    text.lines().map(|line| Ok(Alert::parse(line)?.identity)).collect()
}

/// Sends every event when it is due, or as soon as it can be; returns how late the latest was.
fn send(events: impl BufRead, topic: &Topic, schedule: Schedule) -> Result<Duration> {
    let mut worst = Duration::ZERO;
    for (number, event) in (1..).zip(events.lines()) {
        let (event, due) = (event?, schedule.due(number));
        thread::sleep(due.saturating_duration_since(Instant::now()));
        topic.send(&event)?;
        worst = worst.max(due.elapsed());
    }
    topic.finish()?;
    Ok(worst)
}
