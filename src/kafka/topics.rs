//! Topics read from their beginnings to where they end now, by a reader that is in no group and commits nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tautline_detectors::event::Millis;
use tautline_ingest::Reader;

use super::client::{Complaints, NETWORK_TIMEOUT, SEAL, base, refused};
use super::engine::EngineStage;
use super::pump::now;
use crate::config::Config;
use crate::rules::RulebookStore;

/// How long to wait for a record before asking again.
const POLL: Duration = Duration::from_millis(100);

/// What the records of a topic are.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// A source's.
    Source(Reader),
    /// The log's.
    Log,
    /// A source's that is the log itself, with sealed records of our own between.
    Direct(Reader),
}

/// One record.
pub(crate) struct Taken<'m> {
    pub(crate) topic: &'m str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// The number of its lane: a partition of the log, or all sources together.
    pub(crate) lane: usize,
    pub(crate) shape: &'m Shape,
    pub(crate) payload: &'m [u8],
    pub(crate) received: Millis,
}

impl Taken<'_> {
    /// Topic, partition and offset, for messages.
    pub(crate) fn place(&self) -> String {
        let Self { topic, partition, offset, .. } = self;
        format!("{topic}/{partition}/{offset}")
    }
}

/// The rulebooks with which the log's partitions began, as the engines' group notes them with what it commits; of
/// partitions of which nothing is committed, none.
pub(crate) fn first_books(config: &Config) -> Result<BTreeMap<i32, String>> {
    let mut kafka = base(&config.kafka)?;
    kafka.set("group.id", format!("{}-{}", config.kafka.group, EngineStage::NAME));
    let consumer: BaseConsumer = kafka.create().map_err(|error| refused(error, "consumer"))?;
    let topic = config.log_topic();
    let cannot = || format!("cannot read what is committed of topic `{topic}`");
    let metadata = consumer.fetch_metadata(Some(topic), NETWORK_TIMEOUT).with_context(cannot)?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        list.add_partition(topic, partition.id());
    }
    let committed = consumer.committed_offsets(list, NETWORK_TIMEOUT).with_context(cannot)?;
    let noted = committed.elements().into_iter().filter(|element| !element.metadata().is_empty());
    Ok(noted.map(|element| (element.partition(), element.metadata().to_owned())).collect())
}

/// Some topics.
pub(crate) struct Topics {
    consumer: Arc<BaseConsumer<Complaints>>,
    parts: Vec<Part>,
    lanes: usize,
    /// What opens the seals of our own records, where others write the log.
    store: Option<RulebookStore>,
}

/// A partition of one of them.
struct Part {
    topic: String,
    number: i32,
    shape: Shape,
    lane: usize,
    queue: PartitionQueue<Complaints>,
    /// The first record that is still there, and the end as it was when the topic was opened.
    offsets: (i64, i64),
}

impl ConsumerContext for Complaints {}

impl Topics {
    /// Finds the topics' partitions and ends; each topic is the log or one of the configuration's sources.
    ///
    /// # Errors
    ///
    /// A topic is unknown to the configuration or the broker, or the broker cannot be reached.
    pub(crate) fn open(config: &Config, topics: &[String]) -> Result<Self> {
        let mut kafka = base(&config.kafka)?;
        // No group is joined by this name: partitions are assigned by hand, and nothing is committed.
        kafka.set("group.id", format!("{}-backtest", config.kafka.group));
        kafka.set("isolation.level", "read_committed").set("enable.auto.commit", "false");
        kafka.set("enable.partition.eof", "true").set("auto.offset.reset", "error");
        kafka.set("receive.message.max.bytes", "1000000000").set("queued.max.messages.kbytes", "4096");
        kafka.set("fetch.queue.backoff.ms", "2");
        let consumer = kafka.create_with_context(Complaints::default()).map_err(|error| refused(error, "consumer"))?;
        let store = config.log.direct.then(|| RulebookStore::open(&config.rulebook.store)).transpose()?;
        let mut opened = Self { consumer: Arc::new(consumer), parts: Vec::new(), lanes: 0, store };
        for topic in topics {
            opened.find(topic, &shape(config, topic)?)?;
        }
        let of_sources = opened.parts.iter().filter(|part| matches!(part.shape, Shape::Source(_))).count();
        ensure!(
            of_sources == 0 || of_sources == opened.parts.len(),
            "the log holds what the sources hold: name the log or sources, not both"
        );
        let mut list = TopicPartitionList::new();
        for Part { topic, number, offsets: (begins, _), .. } in &opened.parts {
            list.add_partition_offset(topic, *number, Offset::Offset(*begins))?;
        }
        opened.consumer.assign(&list).context("cannot read the topics")?;
        Ok(opened)
    }

    /// Finds the partitions of a topic. Their queues must be there before they are assigned.
    fn find(&mut self, topic: &str, shape: &Shape) -> Result<()> {
        let cannot = || format!("cannot read topic `{topic}`");
        let metadata = self.consumer.fetch_metadata(Some(topic), NETWORK_TIMEOUT).with_context(cannot)?;
        let numbers: Vec<i32> =
            metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
        ensure!(!numbers.is_empty(), "there is no topic `{topic}`");
        for number in numbers {
            let offsets = self.consumer.fetch_watermarks(topic, number, NETWORK_TIMEOUT).with_context(cannot)?;
            let queue = self.consumer.split_partition_queue(topic, number).with_context(cannot)?;
            let of_sources = |part: &&Part| matches!((&part.shape, shape), (Shape::Source(_), Shape::Source(_)));
            let lane = self.parts.iter().find(of_sources).map_or(self.lanes, |part| part.lane);
            self.lanes = self.lanes.max(lane + 1);
            self.parts.push(Part { topic: topic.to_owned(), number, shape: shape.clone(), lane, queue, offsets });
        }
        Ok(())
    }

    /// How many lanes there are.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Hands over all records: those of a partition in their order, and among partitions the one that was written first.
    pub(crate) fn each(&self, mut handle: impl FnMut(&Taken<'_>) -> Result<()>) -> Result<()> {
        let mut heads = BTreeMap::new();
        for (at, part) in self.parts.iter().enumerate() {
            heads.extend(self.next(part)?.map(|message| ((written(&message), at), (part, message, 0))));
        }
        while let Some(((received, at), (part, message, opened))) = heads.pop_first() {
            let payload = message.payload().unwrap_or_default();
            let seal = self.opened(part, &message).filter(|seal| *seal > opened);
            let shape = if seal.is_some() { &Shape::Log } else { &part.shape };
            let (topic, partition, offset) = (part.topic.as_str(), part.number, message.offset());
            handle(&Taken { topic, partition, offset, lane: part.lane, shape, payload, received })?;
            let opened = seal.unwrap_or(opened);
            heads.extend(self.next(part)?.map(|message| ((written(&message), at), (part, message, opened))));
        }
        Ok(())
    }

    /// The next record of a partition; `None` at the end.
    fn next<'p>(&self, part: &'p Part) -> Result<Option<BorrowedMessage<'p>>> {
        let (start, (begins, ends)) = (Instant::now(), part.offsets);
        if begins >= ends {
            return Ok(None);
        }
        loop {
            match part.queue.poll(POLL) {
                Some(Ok(message)) => return Ok((message.offset() < ends).then_some(message)),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                Some(Err(error)) => return Err(error).with_context(|| format!("cannot read topic `{}`", part.topic)),
                None => {
                    // Serves the client's own events; no record comes this way.
                    self.consumer.poll(Duration::ZERO);
                    let waited = start.elapsed() < NETWORK_TIMEOUT;
                    ensure!(waited, "partition {} of `{}` does not come to its end", part.number, part.topic);
                }
            }
        }
    }

    /// The number of the seal of a record of our own in a log that others write too.
    fn opened(&self, part: &Part, message: &BorrowedMessage<'_>) -> Option<u64> {
        let store = self.store.as_ref().filter(|_| matches!(part.shape, Shape::Direct(_)))?;
        let name = SEAL.to_str().ok()?;
        let seal = message.headers()?.iter().filter(|header| header.key == name).last()?.value?;
        let seal = std::str::from_utf8(seal).ok()?;
        store.open_seal(seal, &part.topic, part.number, message.payload().unwrap_or_default())
    }
}

/// When the broker or the producer says a record was written; a record cannot be from after now.
fn written(message: &BorrowedMessage<'_>) -> Millis {
    message.timestamp().to_millis().unwrap_or(Millis::MAX).min(now())
}

fn shape(config: &Config, topic: &str) -> Result<Shape> {
    let source = config.sources.iter().find(|source| source.topic == topic).map(|source| source.reader.clone());
    match source {
        Some(reader) if config.log.direct => Ok(Shape::Direct(reader)),
        Some(reader) => Ok(Shape::Source(reader)),
        None if topic == config.log_topic() => Ok(Shape::Log),
        None => Err(anyhow!("`{topic}` is neither the log nor one of the `[[sources]]`: its format is not known")),
    }
}
