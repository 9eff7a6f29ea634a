//! What `scripts/bench` measures with: topics, the alerts that there must be, the cost of working a topic off, and the
//! time of a restart.

use std::fs;
use std::io::{self, BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Parser, Subcommand};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tautline_detectors::engine::{Engine, Input};

use alerts::{Alert, Alerts};
use process::cpu_seconds;
use topic::Topic;
use work::Policy;
use work_event::WorkEvent;

#[path = "common/alerts.rs"]
mod alerts;
#[path = "common/process.rs"]
mod process;
#[path = "common/topic.rs"]
mod topic;
#[path = "common/work.rs"]
mod work;
#[path = "common/work_event.rs"]
mod work_event;

const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a process may do nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long no further alert must come once all that are expected are there.
const SILENCE: Duration = Duration::from_secs(1);
const PARTITIONS: i32 = 4;

#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Create topics that are not there yet
    Create {
        #[arg(long)]
        bootstrap: String,
        topics: Vec<String>,
    },
    /// Do the common work in this process: events from standard input, alerts to standard output
    Expect {
        #[arg(long)]
        policy: PathBuf,
    },
    /// Wait until a process has worked off a topic; print µs of CPU an event, events/s, and MB of memory at most
    Drain {
        #[arg(long)]
        bootstrap: String,
        /// The process's consumer group
        #[arg(long)]
        group: String,
        #[arg(long = "in")]
        input: String,
        #[arg(long)]
        out: String,
        /// How many events there are
        #[arg(long)]
        events: i64,
        #[arg(long)]
        pid: u32,
        /// The alerts that there must be, one a line
        #[arg(long)]
        expected: PathBuf,
    },
    /// Send an event, start a process, and print how many ms it takes until the event's alert is there
    Restart {
        #[arg(long)]
        bootstrap: String,
        #[arg(long = "in")]
        input: String,
        #[arg(long)]
        out: String,
        /// File of the event
        #[arg(long)]
        event: PathBuf,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Options::parse().task {
        Task::Create { bootstrap, topics } => create(&bootstrap, &topics),
        Task::Expect { policy } => expect(&policy),
        Task::Drain { bootstrap, group, input, out, events, pid, expected } => {
            let drained = drain(&bootstrap, &group, (&input, events), pid)?;
            check_alerts(&bootstrap, &out, &expected)?;
            println!("{drained}");
            Ok(())
        }
        Task::Restart { bootstrap, input, out, event, command } => {
            restart((&bootstrap, &input, &out), &fs::read_to_string(event)?, &command)
        }
    }
}

fn create(bootstrap: &str, topics: &[String]) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
    let new = topics.iter().map(|topic| NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1)));
    let (new, options) = (new.collect::<Vec<_>>(), AdminOptions::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for result in runtime.block_on(admin.create_topics(&new, &options))? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, error)) => bail!("cannot create `{topic}`: {error}"),
        }
    }
    topics.iter().try_for_each(|topic| wait_for_leaders(bootstrap, topic))
}

/// Waits until every partition of a new topic can be read.
fn wait_for_leaders(bootstrap: &str, topic: &str) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
    let start = Instant::now();
    let unready = |partition: &i32| consumer.fetch_watermarks(topic, *partition, TIMEOUT).is_err();
    while let Some(partition) = (0..PARTITIONS).find(unready) {
        ensure!(start.elapsed() < TIMEOUT, "partition {partition} of `{topic}` has no leader");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn expect(policy: &Path) -> Result<()> {
    let Policy { accounts, teams } = serde_json::from_str(&fs::read_to_string(policy)?)?;
    let mut engine = Engine::new(Arc::new(work::rulebook(teams)?));
    let (mut input, mut out) = (Input::Event(Box::default()), BufWriter::new(io::stdout().lock()));
    for line in io::stdin().lock().lines() {
        let line = line?;
        let parsed = WorkEvent::parse(line.as_bytes()).map_err(|error| anyhow!(error))?;
        if let Input::Event(event) = &mut input {
            work::fill(event, &parsed, &accounts)?;
        }
        let deviations = work::judge(&mut engine, &input);
        if !deviations.is_empty() {
            writeln!(out, "{}", work::alert(&deviations))?;
        }
    }
    Ok(out.flush()?)
}

/// Waits until the group has committed all events. CPU time counts from the process's start, the rate from the first
/// commit on, for a consumer group takes its time to form.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn drain(bootstrap: &str, group: &str, (topic, events): (&str, i64), pid: u32) -> Result<String> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("group.id", group).create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(topic, 0, PARTITIONS - 1);
    let (mut first, mut latest) = ((Instant::now(), 0), (Instant::now(), 0));
    while latest.1 < events {
        thread::sleep(Duration::from_millis(20));
        // A coordinator that is only coming up says nothing; how long that may last is bounded below.
        let committed = committed(&consumer, partitions.clone()).unwrap_or(latest.1);
        if committed > latest.1 {
            latest = (Instant::now(), committed);
        }
        // Where one commit is most of all there is, the time to it counts.
        if first.1 == 0 && committed <= events / 2 {
            first = latest;
        }
        ensure!(Path::new(&format!("/proc/{pid}")).exists(), "process {pid} has ended");
        ensure!(latest.0.elapsed() < PATIENCE, "{committed} of {events} events after {PATIENCE:?} without another");
    }
    let cpu = cpu_seconds(&pid.to_string())? * 1e6 / events as f64;
    let rate = (latest.1 - first.1) as f64 / (latest.0 - first.0).as_secs_f64();
    Ok(format!("{cpu:.2} {rate:.0} {}", peak_kilobytes(pid)? / 1_024))
}

/// How many records lie before the committed offsets.
fn committed(consumer: &BaseConsumer, partitions: TopicPartitionList) -> Result<i64> {
    let committed = consumer.committed_offsets(partitions, TIMEOUT)?;
    let offsets = committed.elements().into_iter().map(|element| match element.offset() {
        Offset::Offset(next) => next,
        _ => 0,
    });
    Ok(offsets.sum())
}

fn peak_kilobytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no peak")?;
    Ok(peak.trim().trim_end_matches(" kB").parse()?)
}

/// Holds the topic's alerts against those expected: every one must be there, once, and nothing else.
fn check_alerts(bootstrap: &str, topic: &str, expected: &Path) -> Result<()> {
    let text = fs::read_to_string(expected)?;
    let mut expected = text.lines().map(Alert::parse).collect::<Result<Vec<_>>>()?;
    // Runs that the input leaves open end with the process that judges it, not in a log that goes on.
    expected.retain(|alert| alert.event.is_some());
    let mut expected: Vec<String> = expected.into_iter().map(|alert| alert.identity).collect();
    let mut found = Vec::new();
    let alerts = Alerts::open(bootstrap, topic, false)?;
    while let Some(alert) = alerts.next(if found.len() < expected.len() { TIMEOUT } else { SILENCE })? {
        if alert.event.is_some() {
            found.push(alert.identity);
        }
    }
    expected.sort_unstable();
    found.sort_unstable();
    let differs = found.iter().zip(&expected).find(|(found, expected)| found != expected);
    ensure!(
        found == expected,
        "{} alerts in `{topic}`, not the {} of one process over the same events; the first that differ: {differs:?}",
        found.len(),
        expected.len()
    );
    Ok(())
}

fn restart((bootstrap, input, out): (&str, &str, &str), event: &str, command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no command")?;
    let event = event.trim();
    let expected = event.split('"').find_map(alerts::number).context("an event without a number")?;
    let alerts = Alerts::open(bootstrap, out, true)?;
    let topic = Topic::open(bootstrap, input)?;
    topic.send(event)?;
    topic.finish()?;
    let start = Instant::now();
    let mut process = Command::new(program).args(arguments).spawn()?;
    let alert = alerts.next(PATIENCE);
    let took = start.elapsed();
    process.kill()?;
    process.wait()?;
    let alert = alert?.context("no alert came")?;
    ensure!(alert.event == Some(expected), "not the alert of event {expected}: {alert:?}");
    println!("{}", took.as_millis());
    Ok(())
}
