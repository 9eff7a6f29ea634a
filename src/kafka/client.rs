//! librdkafka, set up for exactly-once reading and writing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, Statistics};

use super::Shared;
use super::pump::now;
use crate::config::Kafka;
use crate::status::Status;

const NETWORK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for a broker at the start; short, so that a stop is heard meanwhile.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Name of the header that seals a record of our own in a log that others write too.
pub(super) const SEAL: &str = "tautline-seal";

/// A topic and one of its partitions.
pub type Partition = (String, i32);

/// What the group coordinator decided.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// These partitions are ours, with what is committed of each.
    Assigned(BTreeMap<Partition, Committed>),
    /// No partition is ours any more.
    Revoked,
    /// The assignment could not be taken.
    Failed(String),
}

/// What is committed of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Next offset to speak of; `None` where nothing was ever committed.
    pub offset: Option<i64>,
    /// What the stage noted with the offset.
    pub note: String,
}

/// Hears about assignments and statistics.
pub(super) struct Group {
    /// Whether an assigned partition is read from its start, to rebuild its state, and not from what is committed.
    from_start: bool,
    changes: Mutex<Vec<Change>>,
    status: Arc<Status>,
}

impl ClientContext for Group {
    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is asked for, and is no error.
        if !matches!(error, KafkaError::PartitionEOF(_))
            && error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF)
        {
            tracing::warn!("kafka: {error}: {reason}");
        }
    }

    fn stats(&self, statistics: Statistics) {
        for (topic, partitions) in statistics.topics {
            // Of what was read: our commits go past the consumer, through the producer's transactions.
            for (id, partition) in partitions.partitions.into_iter().filter(|(_, p)| p.consumer_lag_stored >= 0) {
                self.status.metrics.lag(&topic, id, partition.consumer_lag_stored);
            }
        }
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let change = if matches!(error, RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
            self.assign(consumer, list).unwrap_or_else(|error| Change::Failed(error.to_string()))
        } else {
            self.status.metrics.forget_lags();
            match consumer.unassign() {
                Ok(()) => Change::Revoked,
                Err(error) => Change::Failed(error.to_string()),
            }
        };
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }
}

impl Group {
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> Result<Change, KafkaError> {
        let mut partitions = BTreeMap::new();
        if list.count() > 0 {
            let committed = consumer.committed_offsets(list.clone(), NETWORK_TIMEOUT)?;
            for element in committed.elements() {
                element.error()?;
                let offset = match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                };
                let note = element.metadata().to_owned();
                partitions.insert((element.topic().to_owned(), element.partition()), Committed { offset, note });
                let start = offset.filter(|_| !self.from_start).map_or(Offset::Beginning, Offset::Offset);
                list.set_partition_offset(element.topic(), element.partition(), start)?;
            }
        }
        consumer.assign(list)?;
        Ok(Change::Assigned(partitions))
    }

    /// What was decided since the last call.
    pub(super) fn changes(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn base(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.brokers);
    config.set("client.id", format!("tautline-{}", kafka.instance));
    config
}

/// A consumer in the group `group`, subscribed to `topics`.
pub(super) fn consumer(
    kafka: &Kafka,
    group: &str,
    topics: &[&str],
    from_start: bool,
    status: &Arc<Status>,
) -> Result<BaseConsumer<Group>> {
    let context = Group { from_start, changes: Mutex::default(), status: Arc::clone(status) };
    let consumer: BaseConsumer<Group> = base(kafka)
        .set("group.id", group)
        .set("session.timeout.ms", kafka.session_timeout_ms.to_string())
        .set("heartbeat.interval.ms", (kafka.session_timeout_ms / 4).max(1).to_string())
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("statistics.interval.ms", "2000")
        // What a batch unpacks to is bounded by this; a record that is over our own bound must still be read to be refused.
        .set("receive.message.max.bytes", "1000000000")
        // The default of a second stops fetching for that long whenever the queue is full.
        .set("fetch.queue.backoff.ms", "2")
        .set("fetch.wait.max.ms", "50")
        .create_with_context(context)
        .context("cannot create a consumer")?;
    consumer.subscribe(topics).context("cannot subscribe")?;
    Ok(consumer)
}

/// One record to write.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The topic to write to.
    pub topic: String,
    /// A partition, where the key does not decide.
    pub partition: Option<i32>,
    /// Its key.
    pub key: String,
    /// Its value.
    pub payload: Vec<u8>,
    /// Time of the record it came from, so that latency is measured from there.
    pub timestamp: i64,
    /// Header of a record of our own in a log that others write too.
    pub seal: Option<String>,
}

/// A producer that writes in transactions.
pub(super) struct Writer {
    producer: BaseProducer,
}

impl Writer {
    /// `id` is stable across restarts, so that this process fences the one before it.
    pub(super) fn open(kafka: &Kafka, id: &str) -> Result<Self> {
        let producer: BaseProducer = base(kafka)
            .set("transactional.id", id)
            // Readers wait for the end of every open transaction, that of a killed process too.
            .set("transaction.timeout.ms", "10000")
            .set("message.timeout.ms", "10000")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "200000")
            .create()
            .context("cannot create a producer")?;
        producer.init_transactions(CONNECT_TIMEOUT).context("cannot reach the broker to begin transactions")?;
        Ok(Self { producer })
    }

    /// Writes the outputs and commits the offsets, or neither; on an error nothing is visible to who reads committed.
    pub(super) fn commit(
        &self,
        outputs: &[Output],
        offsets: &TopicPartitionList,
        consumer: &BaseConsumer<Group>,
    ) -> Result<()> {
        self.producer.begin_transaction().context("cannot begin a transaction")?;
        let committed = self.write(outputs).and_then(|()| {
            let group = consumer.group_metadata().context("the consumer has no group")?;
            self.producer
                .send_offsets_to_transaction(offsets, &group, NETWORK_TIMEOUT)
                .context("cannot send offsets")?;
            self.drain();
            self.producer.commit_transaction(NETWORK_TIMEOUT).context("cannot commit the transaction")
        });
        if committed.is_err() {
            // The error that led here says more than that of the abort.
            let _ = self.producer.abort_transaction(NETWORK_TIMEOUT);
        }
        committed
    }

    fn write(&self, outputs: &[Output]) -> Result<()> {
        for output in outputs {
            let mut record = BaseRecord::to(&output.topic)
                .key(&output.key)
                .payload(&output.payload)
                .timestamp(output.timestamp.min(now()));
            if let Some(partition) = output.partition {
                record = record.partition(partition);
            }
            if let Some(seal) = &output.seal {
                record = record.headers(OwnedHeaders::new().insert(Header { key: SEAL, value: Some(seal) }));
            }
            while let Err((error, returned)) = self.producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(error).with_context(|| format!("cannot write to `{}`", output.topic));
                }
                record = returned;
                self.producer.poll(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Waits until nothing is in flight: `commit_transaction` would do so in slices of 100 ms that it waits out.
    fn drain(&self) {
        let start = Instant::now();
        while self.producer.in_flight_count() > 0 && start.elapsed() < NETWORK_TIMEOUT {
            self.producer.poll(Duration::from_millis(5));
        }
    }
}

/// Creates those of our own topics that do not exist. The sources' are somebody else's.
pub(super) fn create_topics(shared: &Shared) -> Result<()> {
    let config = &shared.config;
    // As many replicas as the broker's own default says.
    let topic = |name, partitions| NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
    let mut topics = vec![
        topic(&config.outputs.alerts, config.log.partitions),
        // One partition: the order in which access is taken away is one order.
        topic(&config.outputs.revocations, 1),
        topic(&config.outputs.dead_letter, 1),
    ];
    if !config.log.direct {
        // The baselines are rebuilt from it: it must not forget by itself.
        topics.push(topic(&config.log.topic, config.log.partitions).set("retention.ms", "-1"));
    }
    let admin: AdminClient<DefaultClientContext> = base(&config.kafka).create().context("cannot create a client")?;
    let options = AdminOptions::new().request_timeout(Some(CONNECT_TIMEOUT));
    let created = shared.runtime.block_on(admin.create_topics(&topics, &options)).context("cannot reach the broker")?;
    for result in created {
        match result {
            Ok(topic) => tracing::info!("created topic `{topic}`"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, error)) => bail!("cannot create topic `{topic}`: {error}"),
        }
    }
    Ok(())
}
