//! The loop of a stage: read a batch, let the stage work on it, write and commit it in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::{Offset, Timestamp};
use tautline_detectors::event::Millis;

use super::client::{Change, Committed, Group, Output, Partition, SEAL, Writer};
use crate::config::Kafka;
use crate::status::Status;

/// Most bytes to write in one batch, about: one record may be a batch of thousands.
const MOST_OUTPUT: usize = 64 * 1_024 * 1_024;
/// How long to wait for a record when there is none.
const POLL: Duration = Duration::from_millis(20);

/// One record, as a stage sees it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'m> {
    /// The topic it is in.
    pub topic: &'m str,
    /// The topic's partition.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// When the broker or the producer says it was written; far in the future where neither does. Never our own clock: a
    /// rebuild must see what was seen before.
    pub timestamp: Millis,
    /// Its value.
    pub payload: &'m [u8],
    /// Header of a record of our own.
    pub seal: Option<&'m str>,
}

/// What a stage does with records. An error drops everything since the last commit, and the stage with it.
pub trait Stage {
    /// Consumer group and, with the instance, the transactional id.
    fn group(&self) -> String;

    /// Topics to read.
    fn topics(&self) -> Vec<&str>;

    /// Whether assigned partitions are read from their start, to rebuild their state.
    fn rebuilds(&self) -> bool;

    /// These partitions, and no others, are ours from here on.
    fn assigned(&mut self, partitions: BTreeMap<Partition, Committed>) -> Result<()>;

    /// Takes one record; what is to be written goes to `outputs`.
    fn record(&mut self, record: Record<'_>, outputs: &mut Vec<Output>) -> Result<()>;

    /// The end of a partition has been reached, for now.
    fn at_end(&mut self, _partition: Partition) {}

    /// The batch is about to be committed.
    fn before_commit(&mut self, _outputs: &mut Vec<Output>) -> Result<()> {
        Ok(())
    }

    /// What to commit of a partition whose next offset is `next`; `None` while its state is being rebuilt.
    fn to_commit(&self, partition: &Partition, next: i64) -> Option<Committed>;

    /// The batch has been committed: what was held back for this may be said.
    fn committed(&mut self);

    /// Whether everything that is ours has caught up with what is committed.
    fn ready(&self) -> bool;
}

/// Runs a stage until it is told to stop, or fails.
pub(super) fn run<S: Stage>(
    name: &'static str,
    stage: S,
    kafka: &Kafka,
    status: &Arc<Status>,
    stop: &AtomicBool,
) -> Result<()> {
    let group = stage.group();
    let writer = Writer::open(kafka, &format!("{group}-{}", kafka.instance))?;
    let consumer = super::client::consumer(kafka, &group, &stage.topics(), stage.rebuilds(), status)?;
    let pump = Pump { name, stage, kafka, status, stop, writer, consumer, next: BTreeMap::new(), outputs: Vec::new() };
    pump.run()
}

struct Pump<'s, S> {
    name: &'static str,
    stage: S,
    kafka: &'s Kafka,
    status: &'s Status,
    stop: &'s AtomicBool,
    writer: Writer,
    consumer: BaseConsumer<Group>,
    /// Next offset of each partition that the open batch read.
    next: BTreeMap<Partition, i64>,
    outputs: Vec<Output>,
}

impl<S: Stage> Pump<'_, S> {
    fn run(mut self) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            self.gather()?;
            self.commit()?;
            self.status.beat(self.name, self.stage.ready());
        }
        Ok(())
    }

    /// Reads until the batch is full or its time is up.
    fn gather(&mut self) -> Result<()> {
        let kafka = self.kafka;
        let start = Instant::now();
        let (mut records, mut written, mut counted) = (0, 0, 0);
        while records < kafka.batch_records && written < MOST_OUTPUT && start.elapsed() < kafka.commit_interval() {
            let polled = self.consumer.poll(POLL);
            // Before the record, which may be the first of a partition that this very poll brought.
            rebalance(self.name, self.consumer.context(), &mut self.stage, &mut self.next, &mut self.outputs)?;
            let read = match polled {
                None => false,
                Some(Ok(message)) => {
                    take(&message, &mut self.stage, &mut self.next, &mut self.outputs)?;
                    true
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    for topic in self.stage.topics().into_iter().map(str::to_owned).collect::<Vec<_>>() {
                        self.stage.at_end((topic, partition));
                    }
                    false
                }
                Some(Err(error)) if is_passing(&error) => {
                    tracing::warn!(stage = self.name, "{error}");
                    false
                }
                Some(Err(error)) => return Err(error).context("cannot read"),
            };
            records += usize::from(read);
            let new = self.outputs.get(counted..).unwrap_or_default();
            written += new.iter().map(|output| output.payload.len()).sum::<usize>();
            counted = self.outputs.len();
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.stage.before_commit(&mut self.outputs)?;
        let mut offsets = TopicPartitionList::new();
        for (partition, next) in std::mem::take(&mut self.next) {
            if let Some(Committed { offset: Some(offset), note }) = self.stage.to_commit(&partition, next) {
                let mut element = offsets.add_partition(&partition.0, partition.1);
                element.set_offset(Offset::Offset(offset))?;
                element.set_metadata(note);
            }
        }
        if offsets.count() == 0 && self.outputs.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        self.writer.commit(&self.outputs, &offsets, &self.consumer)?;
        self.status.metrics.commit(start.elapsed());
        self.outputs.clear();
        self.stage.committed();
        Ok(())
    }
}

/// Takes in what the coordinator decided. A batch that is open when partitions change is dropped: whoever owns them next
/// starts from what is committed.
fn rebalance<S: Stage>(
    name: &str,
    group: &Group,
    stage: &mut S,
    next: &mut BTreeMap<Partition, i64>,
    outputs: &mut Vec<Output>,
) -> Result<()> {
    for change in group.changes() {
        next.clear();
        outputs.clear();
        match change {
            Change::Assigned(partitions) => {
                tracing::info!(stage = name, partitions = partitions.len(), "partitions assigned");
                stage.assigned(partitions)?;
            }
            Change::Revoked => {
                tracing::info!(stage = name, "partitions revoked");
                stage.assigned(BTreeMap::new())?;
            }
            Change::Failed(error) => bail!("cannot take the assigned partitions: {error}"),
        }
    }
    Ok(())
}

fn take<S: Stage>(
    message: &BorrowedMessage<'_>,
    stage: &mut S,
    next: &mut BTreeMap<Partition, i64>,
    outputs: &mut Vec<Output>,
) -> Result<()> {
    let timestamp = match message.timestamp() {
        Timestamp::CreateTime(at) | Timestamp::LogAppendTime(at) if at > 0 => at,
        _ => Millis::MAX,
    };
    let seals = message.headers().into_iter().flat_map(|headers| headers.iter()).filter(|header| header.key == SEAL);
    let seal = seals.last().and_then(|header| std::str::from_utf8(header.value?).ok());
    let record = Record {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp,
        payload: message.payload().unwrap_or_default(),
        seal,
    };
    stage.record(record, outputs)?;
    next.insert((record.topic.to_owned(), record.partition), record.offset + 1);
    Ok(())
}

/// Errors that librdkafka recovers from by itself.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
        )
    )
}

/// The wall clock, for the shell only.
pub(super) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}
