//! Alerts, read once they are committed.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde::Deserialize;

const TIMEOUT: Duration = Duration::from_secs(30);

/// An alert of the common work or of the product.
#[derive(Debug)]
pub(crate) struct Alert {
    /// What tells it from every other one; of the common work's all of it.
    pub(crate) identity: String,
    /// Number of the event that it is about; `None` where that is the end of a run, which is no event.
    pub(crate) event: Option<u64>,
}

impl Alert {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            id: Option<&'a str>,
            #[serde(borrow)]
            metadata: Option<Metadata<'a>>,
        }
        #[derive(Deserialize)]
        struct Metadata<'a> {
            uid: &'a str,
            original_event_uid: &'a str,
        }
        let wire: Wire<'_> = serde_json::from_str(text)?;
        let (identity, of) = match (wire.id, wire.metadata) {
            (_, Some(metadata)) => (metadata.uid, metadata.original_event_uid),
            (id, None) => (text, id.context("an alert without an id")?),
        };
        Ok(Self { identity: identity.to_owned(), event: number(of).filter(|_| !of.ends_with("/end")) })
    }
}

/// The number in an event's id.
pub(crate) fn number(id: &str) -> Option<u64> {
    id.split('/').find_map(|part| part.strip_prefix('e')?.parse().ok())
}

/// Alerts of a topic.
pub(crate) struct Alerts(BaseConsumer);

impl Alerts {
    /// Those from the topic's beginning, or those that come from now on.
    pub(crate) fn open(bootstrap: &str, topic: &str, from_now_on: bool) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "bench")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "5")
            .create()?;
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics().first().context("no such topic")?.partitions() {
            let (first, next) = consumer.fetch_watermarks(topic, partition.id(), TIMEOUT)?;
            let from = if from_now_on { next } else { first };
            list.add_partition_offset(topic, partition.id(), Offset::Offset(from))?;
        }
        consumer.assign(&list)?;
        Ok(Self(consumer))
    }

    /// The next one, if it comes in time. A lost connection is made anew meanwhile.
    pub(crate) fn next(&self, wait: Duration) -> Result<Option<Alert>> {
        let message = match self.0.poll(wait) {
            None => return Ok(None),
            Some(Err(error)) if is_lost_connection(&error) => return Ok(None),
            Some(message) => message?,
        };
        let text = std::str::from_utf8(message.payload().unwrap_or_default())?;
        Alert::parse(text).map(Some)
    }
}

fn is_lost_connection(error: &KafkaError) -> bool {
    let lost = [RDKafkaErrorCode::AllBrokersDown, RDKafkaErrorCode::BrokerTransportFailure];
    error.rdkafka_error_code().is_some_and(|code| lost.contains(&code))
}
