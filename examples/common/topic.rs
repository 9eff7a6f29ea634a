//! Topics to write events to.

use std::time::Duration;

use anyhow::{Result, bail};
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde::Deserialize;

/// How long everything that was sent may take to arrive.
const LAST: Duration = Duration::from_secs(60);

/// Writes events, keyed by their agents.
pub(crate) struct Topic {
    producer: BaseProducer,
    name: String,
}

impl Topic {
    pub(crate) fn open(bootstrap: &str, name: &str) -> Result<Self> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .create()?;
        Ok(Self { producer, name: name.to_owned() })
    }

    /// Sends an event, waiting for room where there is none.
    pub(crate) fn send(&self, event: &str) -> Result<()> {
        let key = key(event)?;
        let mut record = BaseRecord::to(&self.name).key(&key).payload(event);
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((error, returned)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    record = returned;
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => bail!("cannot write to `{}`: {error}", self.name),
            }
        }
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    pub(crate) fn finish(&self) -> Result<()> {
        Ok(self.producer.flush(LAST)?)
    }
}

/// Whose event it is: what an agent action says, or the session of the role that a CloudTrail record names.
fn key(event: &str) -> Result<String> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Wire<'a> {
        #[serde(borrow)]
        agent: Agent<'a>,
        #[serde(borrow)]
        data: Data<'a>,
        #[serde(borrow, rename = "userIdentity")]
        identity: Identity<'a>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Data<'a> {
        #[serde(borrow)]
        agent: Agent<'a>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Agent<'a> {
        id: &'a str,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Identity<'a> {
        arn: &'a str,
    }
    let Wire { agent, data, identity } = serde_json::from_str(event)?;
    let session = identity.arn.rsplit('/').next().unwrap_or_default();
    let named = [agent.id, data.agent.id, session].into_iter().find(|name| !name.is_empty());
    Ok(named.unwrap_or_default().to_owned())
}
