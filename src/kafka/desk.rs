//! Where questions are answered before the act: the engines of this process's partitions, between two records.
//!
//! An answer rests on every record of a partition before an offset, and on nothing else: the log's records are committed when
//! the engine reads them, and its memory is a function of them. So it need not wait until the alerts about them are
//! committed as well, and whoever replays the log up to that offset gets the same answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{FairMutex, RwLock};
use tautline_detectors::engine::Engine;
use tautline_detectors::event::Event;
use tautline_detectors::rulebook::Rulebook;

use super::client::Partition;
use crate::gate::{Answer, Reply};
use crate::output::ocsf::Position;

/// An engine, and how far it has come.
#[derive(Debug)]
pub struct Seat {
    /// The engine.
    pub engine: Engine,
    /// Offset of the next record to take.
    pub(super) next: i64,
    /// Offset from which on we speak.
    pub(super) speaks_from: i64,
    /// Whether the replay has come to `speaks_from`.
    pub(super) rebuilt: bool,
}

impl Seat {
    /// Notes that the record at an offset is taken. Returns whether to speak of it: what lies before the last commit has
    /// been spoken of.
    pub fn take(&mut self, offset: i64) -> bool {
        self.next = offset + 1;
        self.rebuilt |= self.next >= self.speaks_from;
        offset >= self.speaks_from
    }
}

/// The seats of all partitions that are ours.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    seats: RwLock<BTreeMap<Partition, Arc<FairMutex<Seat>>>>,
    /// How many partitions the log has, once that is known.
    partitions: RwLock<Option<u32>>,
}

impl Desk {
    /// Says how many partitions the log has.
    pub(super) fn has_partitions(&self, partitions: usize) {
        *self.partitions.write() = u32::try_from(partitions).ok().filter(|partitions| *partitions > 0);
    }

    pub(super) fn knows_partitions(&self) -> bool {
        self.partitions.read().is_some()
    }

    pub(super) fn open(&self, partition: &Partition, seat: &Arc<FairMutex<Seat>>) {
        self.seats.write().insert(partition.clone(), Arc::clone(seat));
    }

    pub(super) fn close(&self, partition: &Partition) {
        self.seats.write().remove(partition);
    }

    /// What the agent's engine says of an act that a rulebook resolved, and what that rests on; `None` where its partition
    /// is not ours, or is still being replayed.
    ///
    /// `keyed` says that the log is keyed by us. Else nobody knows where an agent lies of which nothing was read yet.
    pub(crate) fn ask(&self, event: &Event, book: &Rulebook, keyed: bool) -> Option<Reply> {
        let (partition, seat) = if keyed { self.of_key(&event.agent.key()) } else { self.of_agent(event) }?;
        let mut seat = seat.lock();
        if !seat.rebuilt {
            return None;
        }
        if seat.engine.rulebook().hash() != book.hash() {
            return Some(Reply::JudgedBy(Arc::clone(seat.engine.rulebook())));
        }
        let Partition { topic, number } = partition;
        let position = Some(Position { topic: topic.to_string(), partition: number, offset: seat.next });
        Some(Reply::Known(Box::new(Answer { opinion: seat.engine.ask(event), position })))
    }

    /// The seat of the partition to which librdkafka's partitioner (`consistent_random`) gives a key.
    fn of_key(&self, key: &str) -> Option<(Partition, Arc<FairMutex<Seat>>)> {
        let number = crc32fast::hash(key.as_bytes()).checked_rem((*self.partitions.read())?)?;
        let seats = self.seats.read();
        let seat = seats.iter().find(|(partition, _)| u32::try_from(partition.number) == Ok(number))?;
        Some((seat.0.clone(), Arc::clone(seat.1)))
    }

    /// The seat of the partition in which an agent was read, or, where all are ours, any.
    fn of_agent(&self, event: &Event) -> Option<(Partition, Arc<FairMutex<Seat>>)> {
        let seats = self.seats.read();
        let id = event.agent.registered().unwrap_or_default();
        let knows = |seat: &FairMutex<Seat>| seat.lock().engine.baselines().past(id).profile().is_some();
        let found = seats.iter().find(|(_, seat)| knows(seat)).or_else(|| {
            let all = u32::try_from(seats.len()).ok() == *self.partitions.read();
            seats.iter().next().filter(|_| all)
        })?;
        Some((found.0.clone(), Arc::clone(found.1)))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn keys_go_where_the_producer_sends_them() {
        // zlib's CRC-32, which librdkafka's `consistent` partitioner takes, of the check string of its catalogue entry.
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
    }
}
