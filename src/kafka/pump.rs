//! The loop of a stage: read batches, let the stage work on them, write and commit in one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use arrayvec::ArrayVec;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};
use tautline_detectors::event::Millis;

use super::batch::{Batches, Message};
use super::client::{Change, Group, NETWORK_TIMEOUT, Output, Partition, Writer, is_outdated};
use crate::config::Kafka;
use crate::status::Status;

/// Most messages to read at once.
const MOST_READ: usize = 1_000;
/// Most records that a stage is given at once.
const MOST_GIVEN: usize = 32;
/// Most bytes to write in one transaction, about: one record may be a batch of thousands.
const MOST_OUTPUT: usize = 64 * 1_024 * 1_024;
/// How long to wait for a batch to fill.
const POLL: Duration = Duration::from_millis(20);

/// A partition that has come to this process, with what is known of it.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// Number of the partition within this run of the stage, from 0 on; no other ever has it.
    pub slot: usize,
    /// Its topic and its number there.
    pub partition: Partition,
    /// Offset of the first record that is still there.
    pub begins: i64,
    /// Next offset to speak of; `None` where nothing was ever committed.
    pub committed: Option<i64>,
    /// What the stage noted with it.
    pub note: String,
}

/// One record, as a stage sees it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'m> {
    /// Number of its partition.
    pub slot: usize,
    /// Its partition.
    pub partition: &'m Partition,
    /// Its place there.
    pub offset: i64,
    /// When the broker or the producer says it was written; far in the future where neither does. Never our own clock: a
    /// rebuild must see what was seen before.
    pub timestamp: Millis,
    /// Its value.
    pub payload: &'m [u8],
    /// For what is seldom asked of it: its headers.
    pub message: Message<'m>,
}

/// What a stage does with records. An error drops everything since the last commit, and the stage with it.
pub trait Stage {
    /// Topics to read.
    fn topics(&self) -> Vec<&str>;

    /// A partition is ours from here on; says from which offset to read it.
    ///
    /// # Errors
    ///
    /// It cannot be taken over, and the stage not go on.
    fn assigned(&mut self, assigned: Assigned) -> Result<i64>;

    /// A partition is ours no longer. All that was read of it is committed.
    fn revoked(&mut self, slot: usize);

    /// Takes some records of one partition, in order; what is to be written goes to `outputs`. Several at once, so that a
    /// stage can have the memory that the later ones need fetched while it works on the earlier ones.
    ///
    /// # Errors
    ///
    /// The stage cannot go on.
    fn records(&mut self, records: &[Record<'_>], outputs: &mut Vec<Output>) -> Result<()>;

    /// What was read is about to be committed; also called when nothing was.
    ///
    /// # Errors
    ///
    /// The stage cannot go on.
    fn before_commit(&mut self, _outputs: &mut Vec<Output>) -> Result<()> {
        Ok(())
    }

    /// What to note with a partition's next offset; `None` if it is not to be committed, for what was read is not new.
    fn note(&self, slot: usize, next: i64) -> Option<String>;

    /// It has been committed: what was held back for this may be said.
    fn committed(&mut self) {}

    /// All that was taken is committed; called after every round, also one in which nothing came.
    fn idle(&mut self) {}

    /// Whether everything that is ours has caught up with what is committed.
    fn ready(&self) -> bool {
        true
    }
}

/// Runs a stage until it is told to stop, or fails.
pub(super) fn run<S: Stage>(
    name: &'static str,
    stage: S,
    kafka: &Kafka,
    status: &Arc<Status>,
    stop: &AtomicBool,
) -> Result<()> {
    let group = format!("{}-{name}", kafka.group);
    let writer = Writer::open(kafka, &format!("{group}-{}", kafka.instance))?;
    let consumer = Arc::new(super::client::consumer(kafka, &group, &stage.topics(), status)?);
    let mut batches = Batches::new(&consumer)?;
    let mut pump = Pump { name, stage, status, writer, consumer, slots: Vec::new(), outputs: Vec::new(), written: 0 };
    while !stop.load(Ordering::Relaxed) {
        pump.gather(&mut batches, kafka)?;
        pump.commit()?;
        pump.stage.idle();
        pump.rebalance(&batches)?;
        status.beat(name, pump.stage.ready());
    }
    let ours = pump.slots.iter().enumerate().filter(|(_, slot)| slot.next.is_some());
    ours.for_each(|(slot, _)| pump.stage.revoked(slot));
    Ok(())
}

struct Pump<'s, S> {
    name: &'static str,
    stage: S,
    status: &'s Status,
    writer: Writer,
    consumer: Arc<BaseConsumer<Group>>,
    /// Every partition that ever was ours.
    slots: Vec<Slot>,
    /// What is to be written with the next commit, and about how many bytes that is.
    outputs: Vec<Output>,
    written: usize,
}

struct Slot {
    partition: Partition,
    /// Next offset to take; `None` while the partition is not ours.
    next: Option<i64>,
    /// Whether records were taken since the last commit.
    read: bool,
}

impl<S: Stage> Pump<'_, S> {
    /// Reads until a batch's size or its time is up, or the group changes.
    fn gather(&mut self, batches: &mut Batches<Group>, kafka: &Kafka) -> Result<()> {
        let (start, mut records) = (Instant::now(), 0);
        while records < kafka.batch_records && start.elapsed() < kafka.commit_interval() && !self.changes()? {
            let batch = batches.read(MOST_READ.min(kafka.batch_records - records), POLL)?;
            records += batch.count();
            for run in batch.runs() {
                self.take(run)?;
            }
        }
        Ok(())
    }

    /// Serves the consumer's own events; says whether the group has changed.
    fn changes(&self) -> Result<bool> {
        match self.consumer.poll(Duration::ZERO) {
            Some(Ok(_)) => bail!("a record came past the batches"),
            Some(Err(error)) => self.pass(error)?,
            None => {}
        }
        Ok(self.consumer.context().is_changing())
    }

    /// Takes messages of one partition.
    fn take<'b>(&mut self, mut run: impl Iterator<Item = Message<'b>>) -> Result<()> {
        loop {
            let messages: ArrayVec<Message<'b>, MOST_GIVEN> = run.by_ref().take(MOST_GIVEN).collect();
            let Some(first) = messages.first() else { return Ok(()) };
            for code in messages.iter().filter_map(Message::error) {
                self.pass(KafkaError::MessageConsumption(code))?;
            }
            if let Some(slot) = self.slot(first.topic(), first.partition()) {
                self.give(slot, &messages)?;
            }
            if self.written >= MOST_OUTPUT {
                self.commit()?;
            }
        }
    }

    /// Gives the stage what is new in some messages.
    fn give(&mut self, number: usize, messages: &[Message<'_>]) -> Result<()> {
        let Some(slot) = self.slots.get_mut(number) else { return Ok(()) };
        let Some(mut next) = slot.next else { return Ok(()) };
        let mut records: ArrayVec<Record<'_>, MOST_GIVEN> = ArrayVec::new();
        // A pause during a read has its messages fetched once more.
        for message in messages.iter().filter(|message| message.error().is_none()) {
            if message.offset() >= next {
                next = message.offset() + 1;
                records.push(record(number, &slot.partition, *message));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let before = self.outputs.len();
        self.stage.records(&records, &mut self.outputs)?;
        self.written += self.outputs.iter().skip(before).map(|output| output.payload.len()).sum::<usize>();
        slot.next = Some(next);
        slot.read = true;
        Ok(())
    }

    fn slot(&self, topic: &str, number: i32) -> Option<usize> {
        self.slots.iter().position(|slot| slot.partition.number == number && *slot.partition.topic == *topic)
    }

    /// Lets an error go by that librdkafka recovers from by itself.
    fn pass(&self, error: KafkaError) -> Result<()> {
        ensure!(is_passing(&error), anyhow::Error::new(error).context("cannot read"));
        tracing::warn!(stage = self.name, "{error}");
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.stage.before_commit(&mut self.outputs)?;
        let mut offsets = self.offsets(|slot| slot.read)?;
        if offsets.count() == 0 && !self.outputs.is_empty() {
            // With no offset, the group would not be asked whether these partitions are still ours.
            offsets = self.offsets(|_| true)?;
        }
        self.slots.iter_mut().for_each(|slot| slot.read = false);
        if offsets.count() > 0 || !self.outputs.is_empty() {
            self.write(&offsets)?;
            self.outputs.clear();
            self.written = 0;
            self.stage.committed();
        }
        Ok(())
    }

    /// The next offsets of our partitions that `of` picks, as far as they are to be committed.
    fn offsets(&self, of: impl Fn(&Slot) -> bool) -> Result<TopicPartitionList> {
        let mut offsets = TopicPartitionList::new();
        for (number, slot) in self.slots.iter().enumerate().filter(|(_, slot)| of(slot)) {
            if let Some((next, note)) = slot.next.and_then(|next| Some((next, self.stage.note(number, next)?))) {
                let mut element = offsets.add_partition(&slot.partition.topic, slot.partition.number);
                element.set_offset(Offset::Offset(next))?;
                element.set_metadata(note);
            }
        }
        Ok(offsets)
    }

    /// Writes and commits; once more where the group meanwhile counts another generation, of which the consumer is just
    /// being told. What it gives away it gives away only when we say so: until then our partitions are ours in every one.
    fn write(&self, offsets: &TopicPartitionList) -> Result<()> {
        let start = Instant::now();
        let mut written = self.writer.commit(&self.outputs, offsets, &self.consumer);
        while written.as_ref().is_err_and(is_outdated) && start.elapsed() < NETWORK_TIMEOUT {
            tracing::info!(stage = self.name, "the group has gone on: committing once more");
            thread::sleep(POLL);
            written = self.writer.commit(&self.outputs, offsets, &self.consumer);
        }
        self.status.metrics.commit(start.elapsed());
        written
    }

    /// Answers what the group's coordinator decided. Nothing that was read is uncommitted then.
    fn rebalance(&mut self, batches: &Batches<Group>) -> Result<()> {
        for change in self.consumer.context().changes() {
            match change {
                Change::Assigned(partitions) => self.assign(partitions, batches)?,
                Change::Revoked(partitions) => self.revoke(&partitions)?,
            }
        }
        Ok(())
    }

    fn assign(&mut self, mut partitions: TopicPartitionList, batches: &Batches<Group>) -> Result<()> {
        tracing::info!(stage = self.name, partitions = partitions.count(), "partitions assigned");
        if partitions.count() > 0 {
            let committed = self.consumer.committed_offsets(partitions.clone(), NETWORK_TIMEOUT)?;
            for element in committed.elements() {
                element.error()?;
                let from = self.take_over(&element)?;
                partitions.set_partition_offset(element.topic(), element.partition(), Offset::Offset(from))?;
                batches.take(element.topic(), element.partition())?;
            }
        }
        self.consumer.incremental_assign(&partitions).context("cannot take the assigned partitions")
    }

    /// Has the stage take a partition over; returns the offset to read it from.
    fn take_over(&mut self, element: &TopicPartitionListElem<'_>) -> Result<i64> {
        let partition = Partition { topic: element.topic().into(), number: element.partition() };
        let (begins, _) = self.consumer.fetch_watermarks(&partition.topic, partition.number, NETWORK_TIMEOUT)?;
        let committed = element.offset().to_raw().filter(|offset| *offset >= 0);
        let slot = self.slot(&partition.topic, partition.number).unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(Slot { partition: partition.clone(), next: None, read: false });
        }
        let note = element.metadata().to_owned();
        let from = self.stage.assigned(Assigned { slot, partition, begins, committed, note })?;
        self.own(slot, Some(from));
        Ok(from)
    }

    fn own(&mut self, slot: usize, next: Option<i64>) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.next = next;
        }
    }

    fn revoke(&mut self, partitions: &TopicPartitionList) -> Result<()> {
        ensure!(!self.consumer.assignment_lost(), "the group has given this process up: its partitions are others'");
        tracing::info!(stage = self.name, partitions = partitions.count(), "partitions revoked");
        for element in partitions.elements() {
            let slot = self.slot(element.topic(), element.partition()).context("a partition that is not ours")?;
            self.own(slot, None);
            self.stage.revoked(slot);
        }
        self.status.metrics.forget_lags();
        self.consumer.incremental_unassign(partitions).context("cannot give up the revoked partitions")
    }
}

fn record<'m>(slot: usize, partition: &'m Partition, message: Message<'m>) -> Record<'m> {
    Record {
        slot,
        partition,
        offset: message.offset(),
        timestamp: message.timestamp().unwrap_or(Millis::MAX),
        payload: message.payload(),
        message,
    }
}

impl<S> Drop for Pump<'_, S> {
    /// A change that nobody has answered would keep the consumer from closing for ever. It wants nothing any more first,
    /// or it might join anew with the answer, and keep the group waiting for a member that is gone.
    fn drop(&mut self) {
        self.consumer.context().close();
        self.consumer.unsubscribe();
        let none = TopicPartitionList::new();
        let _ = self.consumer.incremental_assign(&none);
        let _ = self.consumer.incremental_unassign(&none);
    }
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
