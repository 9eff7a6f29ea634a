//! What a partition's memory is when it is taken over, given up and taken over again.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use tautline_detectors::engine::Input;
use tautline_detectors::event::{AgentRef, Event};
use tautline_detectors::rulebook::RuleFile;

use super::*;

fn book() -> Arc<Rulebook> {
    book_with(&[])
}

fn book_with(more: &[(&str, &str)]) -> Arc<Rulebook> {
    let file =
        |name: &str, text: &str| RuleFile { name: name.to_owned(), path: name.to_owned(), text: text.to_owned() };
    let schema = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/rules/schema.cedarschema"));
    let permit = "@id(\"x\")\npermit (principal, action, resource) when { principal.class != \"unregistered\" };";
    let files = [
        file("schema.cedarschema", schema),
        file("base/control.toml", "id = \"base\"\ntitle = \"A test\"\nseverity = \"high\"\nresponse = \"alert\"\n"),
        file("base/policy.cedar", permit),
    ];
    let more = more.iter().map(|(name, text)| file(name, text));
    Arc::new(Rulebook::read(files.into_iter().chain(more).collect()).unwrap())
}

/// Shards whose checkpoints are always due.
fn shards(directory: &Path) -> Shards {
    Shards::open("group", directory.to_str().unwrap(), Duration::ZERO).unwrap()
}

fn take(shards: &mut Shards, slot: usize, begins: i64, committed: Option<i64>) -> Result<i64> {
    let partition = Partition { topic: "log".into(), number: i32::try_from(slot).unwrap() };
    let assigned = Assigned { slot, partition, begins, committed, note: String::new() };
    let book = book();
    shards.take_over(assigned, book.hash(), |_| Ok(Arc::clone(&book)))
}

/// Has a shard judge an event of a stranger at each of these offsets; each is remembered.
fn judge(shards: &mut Shards, slot: usize, offsets: std::ops::Range<i64>) {
    let shard = shards.get_mut(slot).unwrap();
    for offset in offsets {
        let mut seat = shard.seat();
        seat.take(offset);
        let agent = AgentRef::Unregistered(format!("stranger-{offset}"));
        seat.engine.step(&Input::Event(Box::new(Event { agent, ..Event::default() })));
    }
}

fn remembered(shards: &Shards, slot: usize) -> usize {
    shards.get(slot).unwrap().seat().engine.baselines().notices()
}

#[test]
fn what_is_given_up_is_taken_over_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let mut before = shards(root.path());
    assert_eq!(take(&mut before, 0, 0, None).unwrap(), 0);
    judge(&mut before, 0, 0..10);
    before.give_up(0);
    let mut after = shards(root.path());
    assert_eq!(take(&mut after, 0, 0, Some(10)).unwrap(), 10);
    assert!(after.ready());
    assert_eq!(remembered(&after, 0), 10);
}

#[test]
fn all_that_is_given_up_at_once_waits_as_long_as_one() {
    let root = tempfile::tempdir().unwrap();
    let mut shards = shards(root.path());
    for slot in 0..3 {
        take(&mut shards, slot, 0, None).unwrap();
        judge(&mut shards, slot, 0..10);
    }
    let (release, released) = std::sync::mpsc::channel::<()>();
    let hangs = move || {
        let _ = released.recv();
        Ok(Vec::new())
    };
    let place = Place { group: "other".to_owned(), topic: "log".to_owned(), partition: 0 };
    let (book, engine) = (String::new(), String::new());
    let head = Head { engine, offset: 1, first_book: book.clone(), book, latest: 0, opened: 0, sealed: 0 };
    assert!(shards.checkpoints.save(&place, head, vec![Piece { number: 0, version: 0, tables: Box::new(hangs) }]));
    let started = Instant::now();
    (0..3).for_each(|slot| shards.give_up(slot));
    assert!((LAST_CHECKPOINTS..LAST_CHECKPOINTS * 2).contains(&started.elapsed()), "{:?}", started.elapsed());
    drop(release);
}

#[test]
fn checkpoints_that_cannot_be_read_are_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let mut before = shards(root.path());
    take(&mut before, 0, 0, None).unwrap();
    judge(&mut before, 0, 0..10);
    before.give_up(0);
    let (group, aside) = (root.path().join("group"), root.path().join("aside"));
    fs::rename(&group, &aside).unwrap();
    fs::write(&group, "no directory").unwrap();
    let mut after = shards(root.path());
    let error = format!("{:#}", take(&mut after, 0, 0, Some(10)).unwrap_err());
    assert!(error.starts_with("`group/log/0` is taken over only when its checkpoints can be read: "), "{error}");
    assert!(!after.ready());
    fs::remove_file(&group).unwrap();
    fs::rename(&aside, &group).unwrap();
    assert_eq!(take(&mut after, 0, 0, Some(10)).unwrap(), 10);
    assert_eq!(remembered(&after, 0), 10);
}

#[test]
fn a_replay_that_is_broken_off_goes_on_where_it_was() {
    let root = tempfile::tempdir().unwrap();
    let mut killed = shards(root.path());
    assert_eq!(take(&mut killed, 0, 0, Some(100)).unwrap(), 0);
    judge(&mut killed, 0, 0..39);
    assert!(!killed.ready() && killed.note(0, 39).is_none());
    killed.save_when_due();
    assert!(killed.checkpoints.finish(Instant::now() + Duration::from_secs(60)));
    judge(&mut killed, 0, 39..50);

    let mut stopped = shards(root.path());
    assert_eq!(take(&mut stopped, 0, 0, Some(100)).unwrap(), 39);
    assert!(!stopped.ready());
    assert_eq!(remembered(&stopped, 0), 39);
    judge(&mut stopped, 0, 39..70);
    stopped.give_up(0);

    let mut again = shards(root.path());
    assert_eq!(take(&mut again, 0, 0, Some(100)).unwrap(), 70);
    judge(&mut again, 0, 70..99);
    assert!(!again.get_mut(0).unwrap().seat().take(99), "silent up to what is committed");
    assert!(again.ready());
    assert!(again.get_mut(0).unwrap().seat().take(100));
    assert_eq!(remembered(&again, 0), 99);
}

#[test]
fn offsets_that_expired_are_told_from_a_partition_that_is_new() {
    let root = tempfile::tempdir().unwrap();
    let mut idle = shards(root.path());
    take(&mut idle, 0, 0, None).unwrap();
    take(&mut idle, 1, 7, None).unwrap();
    idle.save_when_due();
    [0, 1].iter().for_each(|slot| idle.give_up(*slot));
    let mut before = shards(root.path());
    assert_eq!((take(&mut before, 0, 0, None).unwrap(), take(&mut before, 1, 7, None).unwrap()), (0, 7));
    judge(&mut before, 0, 0..10);
    before.give_up(0);

    let mut after = shards(root.path());
    let error = format!("{:#}", take(&mut after, 0, 0, None).unwrap_err());
    assert!(error.contains("has a checkpoint up to offset 10, but the group `group` has committed nothing"), "{error}");
    assert!(error.contains("--group group --topic log:0 --reset-offsets --to-offset 10 --execute"), "{error}");
    assert_eq!(take(&mut after, 0, 0, Some(10)).unwrap(), 10, "as the message says");
    fs::remove_dir_all(root.path().join("group/log/0")).unwrap();
    assert_eq!(take(&mut after, 0, 0, None).unwrap(), 0, "as it also says");
}

#[test]
fn of_a_log_with_its_start_nothing_is_lost_before_anything_is_committed() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("group"), "no directory").unwrap();
    let mut shards = shards(root.path());
    assert_eq!(take(&mut shards, 0, 0, None).unwrap(), 0);
    let error = format!("{:#}", take(&mut shards, 0, 5, None).unwrap_err());
    assert!(error.contains("is taken over only when its checkpoints can be listed"), "{error}");
}

#[test]
fn a_switch_that_does_not_come_back_is_sent_again_with_the_next_tick() {
    let root = tempfile::tempdir().unwrap();
    let mut shards = shards(root.path());
    take(&mut shards, 0, 0, None).unwrap();
    let shard = shards.get_mut(0).unwrap();
    let present = book();
    assert!(!shard.has_to_switch(present.hash(), true));
    let asked = [false, false, true, false].map(|tick| shard.has_to_switch("other", tick));
    assert_eq!(asked, [true, false, true, false]);
    assert!(shard.has_to_switch("third", false));
    assert!(!shard.has_to_switch(present.hash(), false));
}

#[test]
fn a_silent_audit_log_is_told_once_when_it_falls_silent_and_once_when_it_is_back() {
    let root = tempfile::tempdir().unwrap();
    let mut shards = shards(root.path());
    take(&mut shards, 0, 0, None).unwrap();
    let shard = shards.get_mut(0).unwrap();
    let control = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/rules/unreported-action/control.toml"));
    shard.seat().engine.step(&Input::Rulebook(book_with(&[("unreported-action/control.toml", control)])));
    let minute = 60_000;
    (shard.taken_over, shard.audited_until) = (0, Some(60 * minute));
    let claims_since = |since| Waiting { claims: 1, since, ..Waiting::default() };
    let silence = |shard: &Shard, since, now| shard.audit_silence(&claims_since(since), now * minute) / minute;
    assert_eq!(silence(shard, None, 200), 0, "nothing waits");
    assert_eq!(silence(shard, Some(50 * minute), 85), 25, "since the latest record");
    assert_eq!(silence(shard, Some(80 * minute), 85), 5, "since the first claim");
    assert_eq!(silence(shard, Some(80 * minute), 70), 0, "a clock that goes wrong");
    shard.audited_until = None;
    assert_eq!(silence(shard, Some(-minute), 85), 85, "since the shard was taken over");
    let told = [5, 30, 31, 90, 30, 5].map(|minutes| shard.has_fallen_silent(minutes * minute));
    assert_eq!(told, [None, None, Some(true), None, Some(false), None]);
    shard.seat().engine.step(&Input::Rulebook(book()));
    assert_eq!(shard.has_fallen_silent(90 * minute), None, "without the control nothing is to be said");
}
