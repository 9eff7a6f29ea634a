//! librdkafka, set up for exactly-once reading and writing.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::Statistics;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, FutureProducer, Producer, ProducerContext, PurgeConfig,
};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::Shared;
use super::pump::now;
use crate::config::Kafka;
use crate::connection;
use crate::status::Status;

pub(super) const NETWORK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for a broker at the start; short, so that a stop is heard meanwhile.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Name of the header that seals a record of our own in a log that others write too.
pub(super) const SEAL: &CStr = c"tautline-seal";

/// A topic's partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number in it.
    pub number: i32,
}

/// What the group's coordinator decided, to be answered by the pump.
#[derive(Debug)]
pub(super) enum Change {
    /// These partitions come to us.
    Assigned(TopicPartitionList),
    /// These are taken from us.
    Revoked(TopicPartitionList),
}

/// Hears about assignments and statistics.
pub(super) struct Group {
    changes: Mutex<Vec<Change>>,
    closing: AtomicBool,
    status: Arc<Status>,
}

impl ClientContext for Group {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!("kafka: {error}: {reason}");
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
    /// Only notes what was decided: what answers it may take seconds, and must not be done amid a poll.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if self.closing.load(Ordering::Relaxed) {
            // A consumer that closes has no partition to answer for, and nobody to tell of an error.
            let _ = consumer.unassign();
            return;
        }
        let change = if matches!(error, RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
            Change::Assigned(list.clone())
        } else {
            Change::Revoked(list.clone())
        };
        self.lock().push(change);
    }
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, Vec<Change>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are changes to answer.
    pub(super) fn is_changing(&self) -> bool {
        !self.lock().is_empty()
    }

    /// What was decided since the last call.
    pub(super) fn changes(&self) -> Vec<Change> {
        std::mem::take(&mut *self.lock())
    }

    /// The pump answers nothing from here on.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }
}

pub(super) fn base(kafka: &Kafka) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.brokers);
    config.set("client.id", format!("tautline-{}", kafka.instance));
    connection::apply(kafka.tls.as_ref(), kafka.sasl.as_ref(), &mut config)?;
    Ok(config)
}

/// What librdkafka complains of while it goes on trying. A call that fails meanwhile only says that its time was up.
#[derive(Default)]
pub(super) struct Complaints {
    latest: Mutex<Option<String>>,
}

impl ClientContext for Complaints {
    /// Nothing that the log does not say better.
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("kafka: {error}: {reason}");
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug => tracing::debug!("kafka: {facility}: {message}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => tracing::info!("kafka: {facility}: {message}"),
            _ => {
                tracing::warn!("kafka: {facility}: {message}");
                // Without the name of librdkafka's thread.
                let complaint = message.split_once("]: ").map_or(message, |(_, complaint)| complaint);
                *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(complaint.to_owned());
            }
        }
    }
}

impl Complaints {
    /// An error with what its client complained of.
    fn explain(producer: &BaseProducer<Self>, what: &str) -> String {
        // What was complained of waits in a queue to be heard.
        producer.poll(Duration::from_millis(10));
        match &*producer.context().latest.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(complaint) => format!("{what}: {complaint}"),
            None => what.to_owned(),
        }
    }
}

impl ProducerContext for Complaints {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {}
}

/// Tries to reach the broker, with a client that is heard: that of an administrator fails without a reason.
fn reach(kafka: &Kafka) -> Result<()> {
    let producer: BaseProducer<Complaints> =
        base(kafka)?.create_with_context(Complaints::default()).map_err(|error| refused(error, "client"))?;
    let reached = producer.client().fetch_cluster_id(CONNECT_TIMEOUT).is_some();
    ensure!(reached, "{}", Complaints::explain(&producer, "cannot reach the broker"));
    Ok(())
}

/// Why a client cannot be made, without the value of the setting: it may be a secret.
pub(super) fn refused(error: KafkaError, client: &str) -> anyhow::Error {
    match error {
        KafkaError::ClientConfig(_, reason, setting, _) => anyhow!("cannot create a {client}: `{setting}`: {reason}"),
        error => anyhow!("cannot create a {client}: {error}"),
    }
}

/// A consumer in the group `group`, subscribed to `topics`.
pub(super) fn consumer(
    kafka: &Kafka,
    group: &str,
    topics: &[&str],
    status: &Arc<Status>,
) -> Result<BaseConsumer<Group>> {
    let context = Group { changes: Mutex::default(), closing: AtomicBool::new(false), status: Arc::clone(status) };
    let consumer: BaseConsumer<Group> = base(kafka)?
        .set("group.id", group)
        .set("session.timeout.ms", kafka.session_timeout_ms.to_string())
        .set("heartbeat.interval.ms", (kafka.session_timeout_ms / 4).max(1).to_string())
        // Only what moves is taken from one process and given to another.
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("statistics.interval.ms", "2000")
        // What a batch unpacks to is bounded by this; a record that is over our own bound must still be read to be refused.
        .set("receive.message.max.bytes", "1000000000")
        // The default of a second stops fetching for that long whenever the queue is full.
        .set("fetch.queue.backoff.ms", "2")
        // Of each partition. The default, 64 MB, is more memory than the agents need, and cold when it is read at last.
        .set("queued.max.messages.kbytes", "4096")
        .set("fetch.wait.max.ms", "50")
        .create_with_context(context)
        .map_err(|error| refused(error, "consumer"))?;
    consumer.subscribe(topics).context("cannot subscribe")?;
    Ok(consumer)
}

/// One record to write.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The topic to write to.
    pub topic: Arc<str>,
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
    producer: BaseProducer<Complaints>,
}

impl Writer {
    /// `id` is stable across restarts, so that this process fences the one before it.
    pub(super) fn open(kafka: &Kafka, id: &str) -> Result<Self> {
        let producer: BaseProducer<Complaints> = base(kafka)?
            .set("transactional.id", id)
            // Readers wait for the end of every open transaction, that of a killed process too.
            .set("transaction.timeout.ms", "10000")
            .set("message.timeout.ms", "10000")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "200000")
            .create_with_context(Complaints::default())
            .map_err(|error| refused(error, "producer"))?;
        producer
            .init_transactions(CONNECT_TIMEOUT)
            .with_context(|| Complaints::explain(&producer, "cannot reach the broker to begin transactions"))?;
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
            // After the metadata, which is nobody's once they are lost: offsets would be committed for whoever has them.
            ensure!(!consumer.assignment_lost(), "the group has given this process up: its partitions are others'");
            self.producer
                .send_offsets_to_transaction(offsets, &group, NETWORK_TIMEOUT)
                .context("cannot send offsets")?;
            self.drain();
            self.producer.commit_transaction(NETWORK_TIMEOUT).context("cannot commit the transaction")
        });
        if committed.is_err() {
            // An abort waits out its time for reports that nobody has fetched.
            self.producer.purge(PurgeConfig::default().queue());
            self.drain();
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
                record = record.headers(OwnedHeaders::new().insert(Header { key: SEAL.to_str()?, value: Some(seal) }));
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

/// A producer of single records outside of any transaction, which gives up in time for whoever waits for an answer.
pub(super) fn sender(kafka: &Kafka) -> Result<FutureProducer> {
    let mut config = base(kafka)?;
    config.set("enable.idempotence", "true").set("message.timeout.ms", "5000");
    config.create().map_err(|error| refused(error, "producer"))
}

/// Whether offsets were refused because the group meanwhile counts another generation than the consumer knew.
pub(super) fn is_outdated(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref().and_then(KafkaError::rdkafka_error_code);
    code == Some(RDKafkaErrorCode::IllegalGeneration)
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
        topic(&config.outputs.rollbacks, 1),
        topic(&config.outputs.dead_letter, 1),
    ];
    if !config.log.direct {
        // The baselines are rebuilt from it: it must not forget by itself.
        topics.push(topic(&config.log.topic, config.log.partitions).set("retention.ms", "-1"));
    }
    reach(&config.kafka)?;
    let admin: AdminClient<DefaultClientContext> =
        base(&config.kafka)?.create().map_err(|error| refused(error, "client"))?;
    let options = AdminOptions::new().request_timeout(Some(CONNECT_TIMEOUT));
    let created = shared.runtime.block_on(admin.create_topics(&topics, &options)).context("cannot create topics")?;
    for result in created {
        match result {
            Ok(topic) => tracing::info!("created topic `{topic}`"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, error)) => bail!("cannot create topic `{topic}`: {error}"),
        }
    }
    match shared.runtime.block_on(log_config(&admin, config.log_topic(), &options)) {
        Ok(found) => warn_of_forgetting(config.log_topic(), config.log.direct, &found),
        Err(error) => tracing::warn!("not known how long topic `{}` keeps its records: {error:#}", config.log_topic()),
    }
    Ok(())
}

/// How many partitions the log has; 0 where it does not exist.
pub(super) fn log_partitions(shared: &Shared) -> Result<usize> {
    let consumer: BaseConsumer = base(&shared.config.kafka)?.create().map_err(|error| refused(error, "client"))?;
    let topic = shared.config.log_topic();
    let metadata = consumer.fetch_metadata(Some(topic), NETWORK_TIMEOUT)?;
    Ok(metadata.topics().iter().find(|found| found.name() == topic).map_or(0, |found| found.partitions().len()))
}

/// The settings of a topic that make it forget.
async fn log_config(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
    options: &AdminOptions,
) -> Result<Vec<(&'static str, String)>> {
    let described = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], options).await?;
    let described = described.into_iter().next().context("no answer")??;
    let value = |name| described.get(name)?.value.clone();
    let forgets = |name: &'static str, value: &String| match name {
        "cleanup.policy" => value != "delete",
        _ => value != "-1",
    };
    let settings = ["retention.ms", "retention.bytes", "cleanup.policy"];
    let found = settings.into_iter().filter_map(|name| Some((name, value(name)?)));
    Ok(found.filter(|(name, value)| forgets(name, value)).collect())
}

/// An existing topic is taken as it is; one that forgets by itself takes a part of the memory with it.
fn warn_of_forgetting(topic: &str, direct: bool, found: &[(&str, String)]) {
    if found.is_empty() {
        return;
    }
    let found: Vec<String> = found.iter().map(|(name, value)| format!("`{name}={value}`")).collect();
    let found = found.join(", ");
    if direct {
        tracing::warn!(
            "the log is the source `{topic}`, which forgets ({found}): without a valid checkpoint, agents begin again with \
             what is still there"
        );
    } else {
        tracing::warn!(
            "the log `{topic}` forgets ({found}): without a valid checkpoint, agents begin again with what is still there; \
             set `retention.ms=-1`, `retention.bytes=-1` and `cleanup.policy=delete`"
        );
    }
}
