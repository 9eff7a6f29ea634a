//! What reading costs at least: batches from Kafka, each event parsed, and nothing else.
//!
//!     cargo run --release --example floor -- --bootstrap 127.0.0.1:19092 --in work --events 1000000

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tautline::kafka::Batches;

use process::cpu_seconds;
use work_event::WorkEvent;

#[path = "common/process.rs"]
mod process;
#[path = "common/work_event.rs"]
mod work_event;

const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Parser)]
struct Options {
    /// `host:port` of a broker
    #[arg(long)]
    bootstrap: String,
    /// Topic to read from its start
    #[arg(long = "in")]
    topic: String,
    /// How many events to read
    #[arg(long)]
    events: usize,
    /// Poll one message at a time, for comparison
    #[arg(long)]
    one_by_one: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &options.bootstrap)
        .set("group.id", "floor")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.queue.backoff.ms", "2")
        .set("queued.max.messages.kbytes", "4096")
        .create()?;
    let consumer = Arc::new(consumer);
    let mut batches = Batches::new(&consumer)?;
    assign(&consumer, &batches, &options)?;
    let (start, cpu) = (Instant::now(), cpu_seconds("self")?);
    let (mut events, mut bytes) = (0, 0);
    while events < options.events {
        let read = if options.one_by_one { one(&consumer)? } else { batch(&consumer, &mut batches)? };
        events += read.0;
        bytes += read.1;
    }
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds("self")? - cpu);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let each = cpu * 1e6 / events as f64;
    println!("{events} events, {bytes} bytes of fields, {seconds:.2} s, {each:.3} µs of CPU an event");
    Ok(())
}

fn assign(consumer: &BaseConsumer, batches: &Batches<DefaultConsumerContext>, options: &Options) -> Result<()> {
    let metadata = consumer.fetch_metadata(Some(&options.topic), TIMEOUT)?;
    let topic = metadata.topics().first().context("no such topic")?;
    let mut list = TopicPartitionList::new();
    for partition in topic.partitions() {
        if !options.one_by_one {
            batches.take(&options.topic, partition.id())?;
        }
        list.add_partition_offset(&options.topic, partition.id(), Offset::Beginning)?;
    }
    Ok(consumer.assign(&list)?)
}

/// Reads a batch; returns how many events it has, and how many bytes their fields.
fn batch(consumer: &BaseConsumer, batches: &mut Batches<DefaultConsumerContext>) -> Result<(usize, usize)> {
    if let Some(Err(error)) = consumer.poll(Duration::ZERO) {
        return Err(error.into());
    }
    let batch = batches.read(1_000, Duration::from_millis(20))?;
    let mut bytes = 0;
    for message in batch.runs().flatten() {
        if let Some(error) = message.error() {
            bail!("cannot read: {error}");
        }
        bytes += parse(message.payload())?;
    }
    Ok((batch.count(), bytes))
}

fn one(consumer: &BaseConsumer) -> Result<(usize, usize)> {
    let Some(message) = consumer.poll(Duration::from_millis(20)) else { return Ok((0, 0)) };
    Ok((1, parse(message?.payload().unwrap_or_default())?))
}

/// The bytes of an event's fields: something that needs all of them.
fn parse(payload: &[u8]) -> Result<usize> {
    let event = WorkEvent::parse(payload).map_err(anyhow::Error::msg)?;
    let WorkEvent { id, agent, class, tool, operation, place, resource, ts_ms, write } = event;
    let texts = [id, agent, class, tool, operation, place, resource];
    Ok(texts.iter().map(|text| text.len()).sum::<usize>() + usize::from(write) + usize::from(ts_ms > 0))
}
