//! Messages in batches, by librdkafka's `rd_kafka_consume_batch_queue`, which the `rdkafka` crate does not offer.

#![expect(unsafe_code, reason = "librdkafka is C")]

use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::bindings::{
    rd_kafka_consume_batch_queue, rd_kafka_header_get_last, rd_kafka_message_destroy, rd_kafka_message_headers,
    rd_kafka_message_t, rd_kafka_message_timestamp, rd_kafka_queue_destroy, rd_kafka_queue_forward,
    rd_kafka_queue_get_partition, rd_kafka_queue_new, rd_kafka_queue_t, rd_kafka_timestamp_type_t, rd_kafka_topic_name,
};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

/// A queue of its own beside a consumer's, which then brings events only.
///
/// The consumer must not ask for the ends of partitions (`enable.partition.eof`): librdkafka 2.12 counts one as a record
/// when it reads a batch, and skips the next record after a rebalance.
pub struct Batches<C: ConsumerContext> {
    queue: NonNull<rd_kafka_queue_t>,
    /// Those of the latest batch.
    messages: Vec<*mut rd_kafka_message_t>,
    /// Whose queue it is; must go last.
    consumer: Arc<BaseConsumer<C>>,
}

impl<C: ConsumerContext> Batches<C> {
    /// A queue with nothing in it.
    ///
    /// # Errors
    ///
    /// librdkafka has no memory for it.
    pub fn new(consumer: &Arc<BaseConsumer<C>>) -> Result<Self> {
        // SAFETY: the client is alive, for we hold the consumer.
        let queue = unsafe { rd_kafka_queue_new(consumer.client().native_ptr()) };
        let queue = NonNull::new(queue).context("cannot create a queue")?;
        Ok(Self { queue, messages: Vec::new(), consumer: Arc::clone(consumer) })
    }

    /// Has a partition's messages come here from its next assignment on; the end of an assignment ends that.
    ///
    /// # Errors
    ///
    /// The partition's name is none.
    pub fn take(&self, topic: &str, partition: i32) -> Result<()> {
        let name = CString::new(topic)?;
        // SAFETY: client and name are alive; both queues are, and librdkafka counts its own references to them.
        unsafe {
            let from = rd_kafka_queue_get_partition(self.consumer.client().native_ptr(), name.as_ptr(), partition);
            ensure!(!from.is_null(), "no queue of partition {partition} of `{topic}`");
            rd_kafka_queue_forward(from, self.queue.as_ptr());
            rd_kafka_queue_destroy(from);
        }
        Ok(())
    }

    /// Waits until there are `most` messages or the time is up.
    ///
    /// # Errors
    ///
    /// None that librdkafka documents; those of partitions are messages.
    pub fn read(&mut self, most: usize, wait: Duration) -> Result<Batch<'_>> {
        self.messages.clear();
        self.messages.reserve(most);
        let wait = i32::try_from(wait.as_millis())?;
        // SAFETY: there is room for `most` pointers, and as many as are returned were written. They are ours from here on.
        unsafe {
            let queue = self.queue.as_ptr();
            let count = rd_kafka_consume_batch_queue(queue, wait, self.messages.as_mut_ptr(), most);
            self.messages.set_len(usize::try_from(count).context("cannot read")?);
        }
        Ok(Batch { messages: &mut self.messages })
    }
}

impl<C: ConsumerContext> Drop for Batches<C> {
    fn drop(&mut self) {
        // SAFETY: it is ours, no batch is left that borrows us, and the client is still alive.
        unsafe { rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// Messages that were read at once; given back when dropped.
pub struct Batch<'q> {
    messages: &'q mut Vec<*mut rd_kafka_message_t>,
}

impl Batch<'_> {
    /// How many messages it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.messages.len()
    }

    /// Its messages in order, in runs of one partition.
    pub fn runs(&self) -> impl Iterator<Item = impl Iterator<Item = Message<'_>>> {
        let runs = self.messages.chunk_by(|one, next| partition(*one) == partition(*next));
        runs.map(|run| run.iter().filter_map(|raw| NonNull::new(*raw)).map(Message::of))
    }
}

/// What tells the partitions of a batch's messages apart.
fn partition(message: *mut rd_kafka_message_t) -> (*const (), i32) {
    // SAFETY: only a batch calls this, with a message of its own.
    unsafe { ((*message).rkt.cast(), (*message).partition) }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: it is ours, given back once, and nothing that borrows us is left.
            unsafe { rd_kafka_message_destroy(message) }
        }
    }
}

/// One message of a batch: a record, or an error of a partition.
#[derive(Clone, Copy, Debug)]
pub struct Message<'b> {
    raw: NonNull<rd_kafka_message_t>,
    batch: PhantomData<&'b ()>,
}

impl<'b> Message<'b> {
    fn of(raw: NonNull<rd_kafka_message_t>) -> Self {
        Self { raw, batch: PhantomData }
    }

    /// What is wrong, where it is no record.
    #[must_use]
    pub fn error(&self) -> Option<RDKafkaErrorCode> {
        // SAFETY: the message lives as long as its batch. Brokers have codes that the enumeration does not know.
        let code = unsafe { (&raw const (*self.raw.as_ptr()).err).cast::<i32>().read() };
        (code != 0).then(|| RDKafkaRespErr::try_from(code).map_or(RDKafkaErrorCode::Unknown, RDKafkaErrorCode::from))
    }

    /// Its topic; empty where an error is not of one.
    #[must_use]
    pub fn topic(&self) -> &'b str {
        // SAFETY: the message lives as long as its batch, and holds its topic, whose name ends with a zero.
        let name = unsafe {
            let topic = (*self.raw.as_ptr()).rkt;
            if topic.is_null() { c"" } else { CStr::from_ptr(rd_kafka_topic_name(topic)) }
        };
        name.to_str().unwrap_or_default()
    }

    /// The topic's partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        // SAFETY: the message lives as long as its batch.
        unsafe { (*self.raw.as_ptr()).partition }
    }

    /// Its place there.
    #[must_use]
    pub fn offset(&self) -> i64 {
        // SAFETY: the message lives as long as its batch.
        unsafe { (*self.raw.as_ptr()).offset }
    }

    /// Its value; empty where it has none.
    #[must_use]
    pub fn payload(&self) -> &'b [u8] {
        // SAFETY: the message lives as long as its batch, and its value has this length.
        unsafe {
            let (payload, len) = ((*self.raw.as_ptr()).payload, (*self.raw.as_ptr()).len);
            if payload.is_null() { &[] } else { std::slice::from_raw_parts(payload.cast::<u8>(), len) }
        }
    }

    /// When the broker or the producer says it was written, in milliseconds.
    #[must_use]
    pub fn timestamp(&self) -> Option<i64> {
        let mut kind = rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message lives as long as its batch.
        let at = unsafe { rd_kafka_message_timestamp(self.raw.as_ptr(), &raw mut kind) };
        (at > 0).then_some(at)
    }

    /// The last header of this name, if it is text.
    #[must_use]
    pub fn header(&self, name: &CStr) -> Option<&'b str> {
        let (mut headers, mut value, mut size) = (ptr::null_mut(), ptr::null(), 0);
        // SAFETY: the message lives as long as its batch, and holds its headers, whose value has this length.
        let value = unsafe {
            let none = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
            if rd_kafka_message_headers(self.raw.as_ptr(), &raw mut headers) != none
                || rd_kafka_header_get_last(headers, name.as_ptr(), &raw mut value, &raw mut size) != none
                || value.is_null()
            {
                return None;
            }
            std::slice::from_raw_parts(value.cast::<u8>(), size)
        };
        std::str::from_utf8(value).ok()
    }
}
