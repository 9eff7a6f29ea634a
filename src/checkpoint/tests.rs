//! Checkpoints against a real file system, and what is left of them when it fails.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[cfg(feature = "cloud")]
mod cloud;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use arrow::array::{AsArray, StringArray, UInt64Array};
use arrow::datatypes::UInt64Type;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn soon() -> Instant {
    Instant::now() + LONG
}

/// What pieces hold: their numbers and versions.
type State = Vec<(usize, u64)>;

fn place() -> Place {
    Place { group: "tautline-engine".to_owned(), topic: "tautline.events".to_owned(), partition: 3 }
}

fn head(offset: i64) -> Head {
    let (first_book, book) = ("first".to_owned(), "second".to_owned());
    Head { engine: "1".to_owned(), offset, first_book, book, latest: -5, opened: 7, sealed: u64::MAX }
}

fn config(directory: &Path) -> config::Checkpoints {
    config::Checkpoints { url: Location::Directory(directory.to_owned()), ..config::Checkpoints::default() }
}

fn open(directory: &Path) -> Checkpoints {
    Checkpoints::open(&config(directory), Arc::new(Status::new().unwrap())).unwrap()
}

/// Two tables of different columns and lengths; no other piece has the same.
fn tables(number: usize, version: u64, rows: usize) -> Vec<RecordBatch> {
    let column = |values: Vec<u64>| Arc::new(UInt64Array::from(values)) as _;
    let names = StringArray::from_iter_values((0..rows).map(|row| format!("{number}/{version}/{row}")));
    vec![
        RecordBatch::try_from_iter([("number", column(vec![number as u64])), ("version", column(vec![version]))])
            .unwrap(),
        RecordBatch::try_from_iter([("name", Arc::new(names) as _)]).unwrap(),
    ]
}

fn piece(number: usize, version: u64) -> Piece {
    Piece { number, version, tables: Box::new(move || Ok(tables(number, version, 10))) }
}

fn pieces(state: &[(usize, u64)]) -> Vec<Piece> {
    state.iter().map(|(number, version)| piece(*number, *version)).collect()
}

/// Saves and waits until it is done.
fn save(checkpoints: &Checkpoints, offset: i64, pieces: Vec<Piece>) {
    assert!(checkpoints.save(&place(), head(offset), pieces));
    assert!(checkpoints.finish(soon()));
}

fn restore(state: &mut State, found: &[RecordBatch]) -> Result<(), String> {
    let value = |column: usize| found[0].column(column).as_primitive::<UInt64Type>().value(0);
    let (number, version) = (usize::try_from(value(0)).unwrap(), value(1));
    assert_eq!(found, tables(number, version, found[1].num_rows()));
    state.push((number, version));
    Ok(())
}

fn load(checkpoints: &Checkpoints, at_most: i64) -> Option<(i64, State)> {
    let loaded = checkpoints.load(&place(), at_most, soon(), |_| Ok(State::new()), restore).unwrap();
    loaded.map(|(found, state)| {
        assert_eq!(found, head(found.offset));
        (found.offset, state)
    })
}

/// The value of a metric, `None` where it is not told.
fn metric(checkpoints: &Checkpoints, name: &str) -> Option<f64> {
    let text = checkpoints.status.metrics.render().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.map(|value| value.parse().unwrap())
}

fn failures(checkpoints: &Checkpoints) -> f64 {
    metric(checkpoints, "tautline_checkpoint_failures_total").unwrap()
}

fn skipped(checkpoints: &Checkpoints, reason: &str) -> f64 {
    metric(checkpoints, &format!("tautline_checkpoints_skipped_total{{reason=\"{reason}\"}}")).unwrap()
}

fn directory(root: &Path) -> PathBuf {
    root.join("tautline-engine/tautline.events/3")
}

/// The names of the objects that begin like this, in order.
fn objects(root: &Path, start: &str) -> Vec<String> {
    let entries = fs::read_dir(directory(root)).into_iter().flatten();
    let entries = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name.starts_with(start)).collect();
    names.sort();
    names
}

/// The path of the only object that begins like this.
fn object(root: &Path, start: &str) -> PathBuf {
    let names = objects(root, start);
    assert_eq!(names.len(), 1, "{start}: {names:?}");
    directory(root).join(&names[0])
}

fn manifest_at(root: &Path, offset: i64) -> PathBuf {
    object(root, &format!("manifest-{offset:020}"))
}

/// Makes an object look as if it had been written two hours ago.
fn make_old(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(7_200)).unwrap();
}

#[test]
fn what_is_saved_is_loaded() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    assert_eq!(load(&checkpoints, i64::MAX), None);
    save(&checkpoints, 100, pieces(&[(0, 1), (1, 1)]));
    save(&checkpoints, 200, pieces(&[(0, 1), (1, 2), (2, 1)]));
    for checkpoints in [checkpoints, open(root.path())] {
        assert_eq!(load(&checkpoints, i64::MAX), Some((200, vec![(0, 1), (1, 2), (2, 1)])));
        assert_eq!(load(&checkpoints, 200), Some((200, vec![(0, 1), (1, 2), (2, 1)])));
        assert_eq!(load(&checkpoints, 199), Some((100, vec![(0, 1), (1, 1)])));
        assert_eq!(load(&checkpoints, 99), None);
        let other = Place { partition: 4, ..place() };
        assert_eq!(checkpoints.load(&other, i64::MAX, soon(), |_| Ok(()), |(), _| Ok(())).unwrap(), None);
        assert!(SkipReason::ALL.iter().all(|reason| skipped(&checkpoints, reason.name()) == 0.0));
    }
}

#[test]
fn a_manifest_of_the_form_before_is_read() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    save(&checkpoints, 1, pieces(&[(0, 1)]));
    let path = manifest_at(root.path(), 1);
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!((&manifest["format"], &manifest["body"]["engine"]), (&2.into(), &serde_json::Value::Null));
    manifest["body"]["engine"] = "0.1.0".into();
    manifest["sha256"] = manifest::checksum(manifest["body"].to_string().as_bytes()).into();
    manifest["format"] = 1.into();
    fs::write(&path, manifest.to_string()).unwrap();
    assert_eq!(load(&checkpoints, i64::MAX), Some((1, vec![(0, 1)])));
}

#[test]
fn odd_names_stay_apart_and_below_the_store() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(&root.path().join("store"));
    for (offset, group) in (1..).zip(["..", "a/b", "a%2Fb", "ä b", "a#1"]) {
        let place = Place { group: group.to_owned(), ..place() };
        assert!(checkpoints.save(&place, head(offset), pieces(&[(0, 0)])));
        assert!(checkpoints.finish(soon()));
        let loaded = checkpoints.load(&place, i64::MAX, soon(), |_| Ok(State::new()), restore).unwrap();
        assert_eq!(loaded, Some((head(offset), vec![(0, 0)])), "{group}");
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn an_unchanged_piece_is_not_written_again_until_the_partition_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = |version| {
        let calls = Arc::clone(&calls);
        let tables = move || {
            calls.fetch_add(1, Ordering::Relaxed);
            Ok(tables(0, version, 10))
        };
        vec![Piece { number: 0, version, tables: Box::new(tables) }, piece(1, version)]
    };
    let called = |offset, version| {
        save(&checkpoints, offset, counted(version));
        calls.swap(0, Ordering::Relaxed)
    };
    assert_eq!(called(1, 5), 1);
    assert_eq!(called(2, 5), 0);
    assert_eq!((called(3, 6), called(4, 6)), (1, 0));
    assert_eq!(objects(root.path(), "piece-0-").len(), 2, "the ones of the manifests that are there");
    checkpoints.forget(&place());
    assert_eq!((called(5, 6), called(6, 6)), (1, 0));
    assert_eq!(load(&checkpoints, 5), Some((5, vec![(0, 6), (1, 6)])));
    assert_eq!(called(7, 6), 1, "versions begin anew with what was loaded");
    assert_eq!(failures(&checkpoints), 0.0);
}

#[test]
fn a_checkpoint_like_the_last_one_is_not_written_but_counts() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    let timestamp = || metric(&checkpoints, "tautline_checkpoint_timestamp_seconds{partition=\"3\"}");
    assert_eq!(timestamp(), None);
    save(&checkpoints, 1, pieces(&[(0, 1)]));
    let names = objects(root.path(), "");
    checkpoints.status.metrics.checkpoints.current(3, SystemTime::UNIX_EPOCH);
    save(&checkpoints, 1, pieces(&[(0, 1)]));
    assert_eq!(objects(root.path(), ""), names);
    assert!(timestamp().unwrap() > 1e9);
    assert!(metric(&checkpoints, "tautline_checkpoint_bytes_total").unwrap() > 1_000.0);
    assert_eq!(metric(&checkpoints, "tautline_checkpoint_seconds_count"), Some(1.0));
    checkpoints.forget(&place());
    save(&checkpoints, 1, pieces(&[(0, 1)]));
    assert_eq!(load(&checkpoints, 1), Some((1, vec![(0, 1)])));
}

#[test]
fn nobody_waits_for_the_writer() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    let (release, released) = channel::<()>();
    let tables = Box::new(move || {
        released.recv().unwrap();
        Ok(tables(0, 1, 10))
    });
    assert!(checkpoints.save(&place(), head(1), vec![Piece { number: 0, version: 1, tables }]));
    assert!(!checkpoints.save(&place(), head(2), pieces(&[(0, 2)])), "one after the other");
    assert!(checkpoints.save(&Place { partition: 4, ..place() }, head(1), pieces(&[(0, 1)])));
    assert!(!checkpoints.finish(Instant::now() + Duration::from_millis(50)));
    release.send(()).unwrap();
    assert!(checkpoints.finish(soon()));
    save(&checkpoints, 3, pieces(&[(0, 3)]));
    assert_eq!(load(&checkpoints, i64::MAX), Some((3, vec![(0, 3)])));
}

#[test]
fn a_writer_that_stands_still_is_a_failure() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints { patience: Duration::from_millis(200), ..open(root.path()) };
    let hangs = |number| {
        let (release, released) = channel::<()>();
        let tables = move || {
            released.recv().unwrap();
            Ok(tables(number, 1, 10))
        };
        (release, Piece { number, version: 1, tables: Box::new(tables) })
    };
    let ((first, one), (second, other)) = (hangs(0), hangs(1));
    std::thread::sleep(Duration::from_millis(250));
    assert!(checkpoints.save(&place(), head(1), vec![one, other]));
    let refused = || assert!(!checkpoints.save(&place(), head(2), pieces(&[(0, 2)])));
    refused();
    assert_eq!(failures(&checkpoints), 0.0, "it has only begun");
    std::thread::sleep(Duration::from_millis(250));
    refused();
    refused();
    assert_eq!(failures(&checkpoints), 2.0);
    first.send(()).unwrap();
    wait_until(|| !objects(root.path(), "piece-0-").is_empty());
    std::thread::sleep(Duration::from_millis(50));
    refused();
    assert_eq!(failures(&checkpoints), 2.0, "it goes on");
    second.send(()).unwrap();
    assert!(checkpoints.finish(soon()));
    save(&checkpoints, 3, pieces(&[(0, 3)]));
    assert_eq!(failures(&checkpoints), 2.0);
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let end = soon();
    while !done() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_piece_that_cannot_be_laid_out_fails_alone() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    save(&checkpoints, 1, pieces(&[(0, 1), (1, 1)]));
    let names = objects(root.path(), "");
    let broken = Box::new(|| Err(ArrowError::ComputeError("no".to_owned())));
    save(&checkpoints, 2, vec![piece(0, 2), Piece { number: 1, version: 2, tables: broken }]);
    assert_eq!(failures(&checkpoints), 1.0);
    assert_eq!(objects(root.path(), ""), names, "what was written of it is deleted");
    save(&checkpoints, 3, pieces(&[(0, 2), (1, 1)]));
    assert_eq!(load(&checkpoints, 3), Some((3, vec![(0, 2), (1, 1)])));
}

#[test]
fn a_writer_that_died_is_told_and_blocks_nobody() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    let dies = Box::new(|| panic!("as told"));
    assert!(checkpoints.save(&place(), head(1), vec![Piece { number: 0, version: 1, tables: dies }]));
    assert!(checkpoints.finish(soon()));
    while checkpoints.save(&place(), head(2), pieces(&[(0, 2)])) {
        assert!(checkpoints.finish(soon()));
    }
    assert!(failures(&checkpoints) >= 1.0);
}

/// Flips a bit in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
}

#[test]
fn a_damaged_checkpoint_makes_way_for_an_older_one() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 10] = [
        ("damaged", |root| truncate(&object(root, "piece-1-2-"))),
        ("damaged", |root| flip(&object(root, "piece-1-2-"))),
        ("damaged", |root| fs::write(object(root, "piece-1-2-"), "").unwrap()),
        ("missing", |root| fs::remove_file(object(root, "piece-1-2-")).unwrap()),
        ("damaged", |root| truncate(&manifest_at(root, 200))),
        ("damaged", |root| flip(&manifest_at(root, 200))),
        ("damaged", |root| fs::write(manifest_at(root, 200), "").unwrap()),
        ("newer", |root| {
            let text = fs::read_to_string(manifest_at(root, 200)).unwrap();
            fs::write(manifest_at(root, 200), text.replacen("\"format\":2", "\"format\":3", 1)).unwrap();
        }),
        ("newer", |root| fs::write(manifest_at(root, 200), "{\"format\":3,\"other\":[]}").unwrap()),
        ("damaged", |root| fs::copy(manifest_at(root, 100), manifest_at(root, 200)).map(drop).unwrap()),
    ];
    for (at, (reason, damage)) in cases.into_iter().enumerate() {
        let root = tempfile::tempdir().unwrap();
        let checkpoints = open(root.path());
        save(&checkpoints, 100, pieces(&[(0, 1), (1, 1)]));
        save(&checkpoints, 200, pieces(&[(0, 1), (1, 2)]));
        damage(root.path());
        assert_eq!(load(&checkpoints, i64::MAX), Some((100, vec![(0, 1), (1, 1)])), "case {at}");
        assert_eq!(skipped(&checkpoints, reason), 1.0, "case {at}");
        fs::remove_file(manifest_at(root.path(), 100)).unwrap();
        assert_eq!(load(&checkpoints, i64::MAX), None, "case {at}");
        assert_eq!(skipped(&checkpoints, reason), 2.0, "case {at}");
    }
}

#[test]
fn a_manifest_of_another_partition_is_not_taken() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    save(&checkpoints, 100, pieces(&[(0, 1)]));
    fs::rename(directory(root.path()), directory(root.path()).with_file_name("4")).unwrap();
    let other = Place { partition: 4, ..place() };
    assert_eq!(checkpoints.load(&other, i64::MAX, soon(), |_| Ok(()), |(), _| Ok(())).unwrap(), None);
    assert_eq!(skipped(&checkpoints, "damaged"), 1.0);
}

#[test]
fn what_the_memory_refuses_makes_way_and_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    save(&checkpoints, 100, pieces(&[(0, 1), (1, 1)]));
    save(&checkpoints, 200, pieces(&[(0, 2), (1, 2)]));
    save(&checkpoints, 300, pieces(&[(0, 3), (1, 3)]));
    let start = |head: &Head| if head.offset == 300 { Err("unknown rulebook".to_owned()) } else { Ok(State::new()) };
    let add = |state: &mut State, found: &[RecordBatch]| {
        restore(state, found)?;
        if state.contains(&(1, 2)) { Err("impossible".to_owned()) } else { Ok(()) }
    };
    let loaded = checkpoints.load(&place(), i64::MAX, soon(), start, add).unwrap();
    assert_eq!(loaded, Some((head(100), vec![(0, 1), (1, 1)])));
    assert_eq!(skipped(&checkpoints, "refused"), 2.0);
}

#[test]
fn a_store_that_cannot_be_reached_fails_until_it_is_back() {
    let root = tempfile::tempdir().unwrap();
    let store = root.path().join("store");
    let checkpoints = open(&store);
    save(&checkpoints, 1, pieces(&[(0, 1)]));
    let aside = root.path().join("aside");
    fs::rename(&store, &aside).unwrap();
    fs::write(&store, "no directory").unwrap();

    let error = checkpoints.load(&place(), i64::MAX, soon(), |_| Ok(State::new()), restore).unwrap_err();
    assert!(format!("{error:#}").contains("cannot list `tautline-engine/tautline.events/3`"), "{error:#}");
    assert_eq!(skipped(&checkpoints, "unreadable"), 1.0);
    save(&checkpoints, 2, pieces(&[(0, 2)]));
    save(&checkpoints, 3, pieces(&[(0, 3)]));
    assert_eq!(failures(&checkpoints), 2.0);

    fs::remove_file(&store).unwrap();
    fs::rename(&aside, &store).unwrap();
    assert_eq!(load(&checkpoints, i64::MAX), Some((1, vec![(0, 1)])));
    save(&checkpoints, 4, pieces(&[(0, 4)]));
    assert_eq!(load(&checkpoints, i64::MAX), Some((4, vec![(0, 4)])));
    assert_eq!(failures(&checkpoints), 2.0);
}

#[test]
fn an_object_that_cannot_be_read_is_no_reason_to_say_that_there_is_none() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    save(&checkpoints, 1, pieces(&[(0, 1)]));
    // A socket is there, and cannot be opened as a file, not even by root. Its path may not be as long as a manifest's.
    let socket = root.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fs::rename(&socket, manifest_at(root.path(), 1)).unwrap();
    let error = checkpoints.load(&place(), i64::MAX, soon(), |_| Ok(State::new()), restore).unwrap_err();
    assert!(format!("{error:#}").contains("cannot be read"), "{error:#}");
    assert_eq!(skipped(&checkpoints, "unreadable"), 1.0);
}

#[test]
fn a_store_that_is_too_slow_is_one_that_cannot_be_read() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    save(&checkpoints, 1, pieces(&[(0, 1), (1, 1)]));
    let until = Instant::now() + Duration::from_millis(100);
    let slow = |state: &mut State, found: &[RecordBatch]| {
        std::thread::sleep(Duration::from_millis(200));
        restore(state, found)
    };
    let error = checkpoints.load(&place(), i64::MAX, until, |_| Ok(State::new()), slow).unwrap_err();
    assert!(format!("{error:#}").contains("cannot be read: the store is too slow"), "{error:#}");
    assert_eq!(load(&checkpoints, i64::MAX), Some((1, vec![(0, 1), (1, 1)])));
}

#[test]
fn a_piece_that_vanished_is_written_anew() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    save(&checkpoints, 1, pieces(&[(0, 1), (1, 1)]));
    fs::remove_dir_all(directory(root.path())).unwrap();
    save(&checkpoints, 2, pieces(&[(0, 1), (1, 2)]));
    assert_eq!(failures(&checkpoints), 1.0);
    save(&checkpoints, 3, pieces(&[(0, 1), (1, 2)]));
    assert_eq!(failures(&checkpoints), 1.0);
    assert_eq!(load(&checkpoints, i64::MAX), Some((3, vec![(0, 1), (1, 2)])));
}

#[test]
fn the_newest_checkpoints_and_the_first_are_kept_with_what_they_name() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    for offset in 1..=20 {
        // The second piece changes at every fifth checkpoint.
        save(&checkpoints, offset, pieces(&[(0, offset.cast_unsigned()), (1, offset.cast_unsigned() / 5)]));
        let kept = usize::try_from(offset.min(4)).unwrap();
        assert_eq!(objects(root.path(), "manifest-").len(), kept);
        assert_eq!(objects(root.path(), "piece-0-").len(), kept);
        for offset in (1..=offset).rev().take(3).chain([1]) {
            let version = offset.cast_unsigned();
            assert_eq!(load(&open(root.path()), offset), Some((offset, vec![(0, version), (1, version / 5)])));
        }
    }
    assert_eq!(objects(root.path(), "piece-1-").len(), 3);
    assert_eq!(failures(&checkpoints), 0.0);
}

/// The offsets of the checkpoints that are there.
fn offsets(root: &Path) -> Vec<i64> {
    objects(root, "manifest-").iter().map(|name| manifest::offset(name).unwrap()).collect()
}

fn make_all_old(root: &Path) {
    objects(root, "manifest-").iter().for_each(|name| make_old(&directory(root).join(name)));
}

#[test]
fn one_of_more_than_an_hour_ago_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    let save = |offset: i64| save(&checkpoints, offset, pieces(&[(0, offset.cast_unsigned())]));
    (1..=9).for_each(save);
    assert_eq!(offsets(root.path()), [1, 7, 8, 9], "the first is on its way");
    make_old(&manifest_at(root.path(), 1));
    (10..=19).for_each(save);
    assert_eq!(offsets(root.path()), [1, 7, 17, 18, 19]);
    make_old(&manifest_at(root.path(), 7));
    save(20);
    assert_eq!(offsets(root.path()), [7, 17, 18, 19, 20], "the first has made way");
    make_all_old(root.path());
    (21..=30).for_each(save);
    assert_eq!(offsets(root.path()), [20, 21, 28, 29, 30], "never more than one of each");
    offsets(root.path()).iter().for_each(|offset| {
        assert_eq!(load(&checkpoints, *offset), Some((*offset, vec![(0, offset.cast_unsigned())])));
    });
}

#[test]
fn who_goes_back_to_another_version_finds_a_checkpoint_of_it() {
    let root = tempfile::tempdir().unwrap();
    let checkpoints = open(root.path());
    for offset in 1..=30 {
        let engine = if offset <= 10 { "0.9" } else { "1.0" }.to_owned();
        assert!(checkpoints.save(&place(), Head { engine, ..head(offset) }, pieces(&[(0, offset.cast_unsigned())])));
        assert!(checkpoints.finish(soon()));
        if offset == 20 {
            make_all_old(root.path());
        }
    }
    assert_eq!(offsets(root.path()), [10, 20, 21, 28, 29, 30]);
    let engine = |found: &Head| Ok(found.engine.clone());
    let found = checkpoints.load(&place(), 10, soon(), engine, |_, _| Ok(())).unwrap();
    assert_eq!(found.unwrap().1, "0.9");
}

#[test]
fn what_others_wrote_is_left_to_them_for_a_while() {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (open(root.path()), open(root.path()));
    for offset in 1..=3 {
        save(&old, offset, pieces(&[(0, offset.cast_unsigned())]));
    }
    save(&old, 50, pieces(&[(0, 50)]));
    let leftovers = ["piece-0-9-x.arrows", "piece-0-9-x.part", "manifest-00000000000000000009-x.part", "README"];
    leftovers.iter().for_each(|name| fs::write(directory(root.path()).join(name), "x").unwrap());
    for offset in 4..=7 {
        save(&new, offset, pieces(&[(1, 1)]));
    }
    assert_eq!(
        objects(root.path(), "manifest-000").len(),
        3 + 1 + 1 + 1,
        "ours, the first, one that goes further, a leftover"
    );
    assert_eq!(objects(root.path(), "piece-0-").len(), 4 + 2, "left to their own writers");
    assert_eq!(load(&open(root.path()), i64::MAX), Some((50, vec![(0, 50)])));

    objects(root.path(), "").iter().for_each(|name| make_old(&directory(root.path()).join(name)));
    save(&new, 8, pieces(&[(1, 1)]));
    assert_eq!(objects(root.path(), "manifest-").len(), 3);
    assert_eq!(objects(root.path(), "piece-0-"), [""; 0]);
    assert_eq!(objects(root.path(), "piece-1-").len(), 1, "old, but named");
    assert_eq!(objects(root.path(), "README").len(), 1, "not ours at all");
    assert_eq!(load(&new, i64::MAX), Some((8, vec![(1, 1)])));
    assert_eq!(failures(&new), 0.0);
}

#[test]
fn whoever_cannot_read_a_manifest_deletes_no_piece() {
    let root = tempfile::tempdir().unwrap();
    let (owner, zombie) = (open(root.path()), open(root.path()));
    let aged = |state: &[(usize, u64)], offset| {
        save(&owner, offset, pieces(state));
        objects(root.path(), "piece-").iter().for_each(|name| make_old(&directory(root.path()).join(name)));
    };
    aged(&[(0, 1), (1, 1)], 10);
    let listed = zombie.store.list(&zombie.store.directory(&place())).unwrap();
    aged(&[(0, 1), (1, 2)], 11);
    // As if its owner had deleted it after it was listed.
    fs::remove_file(manifest_at(root.path(), 10)).unwrap();
    let writer = Writer::new(Arc::clone(&zombie.store), Arc::clone(&zombie.status));
    let standing = writer::Standing { own: "", offset: 5, engine: "1", full: false };
    writer.clean(&mut writer::Known::default(), &place(), &listed, &standing).unwrap();
    assert_eq!(objects(root.path(), "piece-").len(), 3);
    assert_eq!(load(&zombie, i64::MAX), Some((11, vec![(0, 1), (1, 2)])));
}

#[test]
fn a_checkpoint_that_cannot_be_written_still_makes_room() {
    let root = tempfile::tempdir().unwrap();
    let dead = open(root.path());
    save(&dead, 1, pieces(&[(0, 1)]));
    for number in 0..5 {
        let name = format!("piece-{number}-9-x.arrows");
        fs::write(directory(root.path()).join(&name), "of one that died").unwrap();
        make_old(&directory(root.path()).join(&name));
    }
    fs::write(directory(root.path()).join("piece-9-9-y.arrows"), "of one that is at it").unwrap();
    let checkpoints = open(root.path());
    let broken = Box::new(|| Err(ArrowError::ComputeError("no".to_owned())));
    save(&checkpoints, 2, vec![Piece { number: 0, version: 2, tables: broken }]);
    assert_eq!(failures(&checkpoints), 1.0);
    assert_eq!(objects(root.path(), "piece-").len(), 2, "what a manifest names, and what is new");
    assert_eq!(load(&checkpoints, i64::MAX), Some((1, vec![(0, 1)])));
}

#[test]
fn what_was_just_written_is_kept_among_any_others() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory(root.path())).unwrap();
    let others = (0..3).map(|other| manifest::name(9, &format!("z{other}")));
    others.for_each(|name| fs::write(directory(root.path()).join(name), "no manifest").unwrap());
    let checkpoints = open(root.path());
    save(&checkpoints, 9, pieces(&[(0, 1)]));
    assert_eq!(objects(root.path(), "manifest-").len(), 3);
    assert_eq!(load(&checkpoints, i64::MAX), Some((9, vec![(0, 1)])));
}

#[test]
fn pieces_of_a_manifest_that_cannot_be_understood_are_kept() {
    let root = tempfile::tempdir().unwrap();
    let (newer, checkpoints) = (open(root.path()), open(root.path()));
    save(&newer, 1, pieces(&[(0, 1)]));
    let text = fs::read_to_string(manifest_at(root.path(), 1)).unwrap();
    fs::write(manifest_at(root.path(), 1), text.replacen("\"format\":2", "\"format\":3", 1)).unwrap();
    make_old(&object(root.path(), "piece-0-1-"));
    save(&checkpoints, 2, pieces(&[(0, 2)]));
    save(&checkpoints, 3, pieces(&[(0, 3)]));
    assert_eq!(objects(root.path(), "piece-0-").len(), 3);
    save(&checkpoints, 4, pieces(&[(0, 4)]));
    assert_eq!(objects(root.path(), "piece-0-").len(), 3, "its manifest has made way, and so may it");
}

#[test]
fn two_writers_at_once_leave_only_whole_checkpoints() {
    let root = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..2_u32 {
            let root = root.path();
            scope.spawn(move || {
                let checkpoints = open(root);
                for round in 0..20_u32 {
                    let state = [(0, u64::from(round)), (1, u64::from(round / 7))];
                    // Every other offset is the same for both.
                    save(&checkpoints, i64::from(round * 2 + writer * (round % 2)), pieces(&state));
                }
                assert_eq!(failures(&checkpoints), 0.0);
            });
        }
    });
    let checkpoints = open(root.path());
    assert_eq!(load(&checkpoints, i64::MAX), Some((39, vec![(0, 19), (1, 2)])));
    for name in objects(root.path(), "manifest-") {
        let offset = manifest::offset(&name).unwrap();
        let round = offset.cast_unsigned() / 2;
        assert_eq!(load(&checkpoints, offset), Some((offset, vec![(0, round), (1, round / 7)])));
    }
    assert!(SkipReason::ALL.iter().all(|reason| skipped(&checkpoints, reason.name()) == 0.0));
}

/// The variable that tells a test that it runs in a child process, and where it may write.
const CHILD: &str = "TAUTLINE_TEST_CHILD";

/// Runs a shell script that ends in this test program; `$1` is the directory, `$2` the program.
fn in_child(directory: &Path, script: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(directory).arg(std::env::current_exe().unwrap());
    shell.env(CHILD, directory).status().unwrap().success()
}

/// On a real file system of 64 KiB where one may be mounted, else below the kernel's limit for the length of a file.
#[test]
fn a_full_disk_costs_nothing_but_the_checkpoint() {
    let Some(root) = std::env::var_os(CHILD).map(PathBuf::from) else {
        let root = tempfile::tempdir().unwrap();
        let test = "exec \"$2\" --exact checkpoint::tests::a_full_disk_costs_nothing_but_the_checkpoint --nocapture";
        let mounted = |then: &str| {
            let script = format!("mount -t tmpfs -o size=64k tmpfs \"$1\" && {then}");
            format!("exec unshare --user --map-root-user --mount sh -c '{script}' sh \"$1\" \"$2\"")
        };
        let may_mount = in_child(root.path(), &mounted("true"));
        let limited = format!("trap '' XFSZ; ulimit -f 64; {test}");
        assert!(in_child(root.path(), &if may_mount { mounted(test) } else { limited }));
        return;
    };
    let small = fs::write(root.join("probe"), vec![0; 1 << 20]).unwrap_err();
    let is_full = small.kind() == std::io::ErrorKind::StorageFull;
    fs::remove_file(root.join("probe")).unwrap();
    let checkpoints = open(&root);
    let large = || Piece { number: 1, version: 9, tables: Box::new(|| Ok(tables(1, 9, 100_000))) };
    save(&checkpoints, 1, pieces(&[(0, 1), (1, 1)]));
    let names = objects(&root, "");
    for offset in 2..5 {
        save(&checkpoints, offset, vec![piece(0, offset.cast_unsigned()), large()]);
        assert_eq!(objects(&root, ""), names, "what was written of it is deleted");
        assert_eq!(load(&open(&root), i64::MAX), Some((1, vec![(0, 1), (1, 1)])));
    }
    assert_eq!(failures(&checkpoints), 3.0);
    save(&checkpoints, 5, pieces(&[(0, 5), (1, 5)]));
    assert_eq!(failures(&checkpoints), 3.0);
    assert_eq!(load(&checkpoints, i64::MAX), Some((5, vec![(0, 5), (1, 5)])));

    // Old checkpoints are a luxury where there is no room for new ones.
    (11..15).for_each(|offset| save(&checkpoints, offset, pieces(&[(0, offset.cast_unsigned())])));
    assert_eq!(offsets(&root), [1, 12, 13, 14]);
    save(&checkpoints, 15, vec![piece(0, 15), large()]);
    assert_eq!(offsets(&root), if is_full { vec![12, 13, 14] } else { vec![1, 12, 13, 14] });

    // What a process left that died is no reason to stay full for ever.
    let left = directory(&root).join("piece-7-7-x.arrows");
    assert!(fs::write(&left, vec![0; 1 << 20]).is_err());
    save(&checkpoints, 16, pieces(&[(0, 16), (1, 16)]));
    make_old(&left);
    save(&checkpoints, 17, pieces(&[(0, 17), (1, 17)]));
    assert!(!left.exists());
    save(&checkpoints, 18, pieces(&[(0, 18), (1, 18)]));
    assert_eq!(load(&checkpoints, i64::MAX), Some((18, vec![(0, 18), (1, 18)])));
}

#[test]
fn a_store_is_a_directory_or_a_known_url() {
    let location = |text: &str| Location::try_from(text.to_owned());
    assert!(matches!(location("a/b c"), Ok(Location::Directory(path)) if path == Path::new("a/b c")));
    assert!(matches!(location("file:///a%20b"), Ok(Location::Directory(path)) if path == Path::new("/a b")));
    for text in ["", "s3://", "ftp://host/x", "https://example.com/x", "memory:///", "file://host/x", "://"] {
        let error = location(text).unwrap_err();
        assert!(error.contains(&format!("`{text}` is no place for files")), "{error}");
    }
    for text in ["s3://bucket/path", "gs://bucket", "az://container/path"] {
        match location(text) {
            Ok(found) => assert!(cfg!(feature = "cloud") && matches!(found, Location::Cloud(_))),
            Err(error) => assert!(!cfg!(feature = "cloud") && error.contains("--features cloud"), "{error}"),
        }
    }
}

#[test]
fn the_configuration_names_the_line_of_a_bad_url() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("tautline.toml");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        config::Config::read(&path, true)
    };
    let error = read("[checkpoints]\ninterval_seconds = 5\nurl = \"ftp://host/x\"\n").unwrap_err().to_string();
    assert!(error.contains("tautline.toml:3: `ftp://host/x` is no place for files"), "{error}");
    let config = read("[checkpoints]\nurl = \"x\"\n").unwrap().checkpoints;
    assert!(matches!(config.url, Location::Directory(found) if found == root.path().join("x")));
    let none = read("[checkpoints]\ninterval_seconds = 0\n").unwrap().check_for_run().unwrap_err().to_string();
    assert!(none.contains("`checkpoints.interval_seconds` must be at least 1"), "{none}");
    let status = Arc::new(Status::new().unwrap());
    fs::write(root.path().join("file"), "").unwrap();
    let error = Checkpoints::open(&self::config(&root.path().join("file/below")), status).unwrap_err();
    assert!(format!("{error:#}").contains("see `checkpoints.url`: cannot create `"), "{error:#}");
}

/// The objects of three checkpoints, and what each holds.
#[derive(Debug)]
struct Fixture {
    objects: BTreeMap<String, Vec<u8>>,
    states: BTreeMap<i64, State>,
    /// The objects that each rests on.
    needs: BTreeMap<i64, Vec<String>>,
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        let checkpoints = open(root.path());
        let states: BTreeMap<i64, State> =
            [(10, vec![(0, 1), (1, 1)]), (20, vec![(0, 1), (1, 2), (2, 1)]), (30, vec![(0, 1), (1, 3), (2, 1)])].into();
        states.iter().for_each(|(offset, state)| save(&checkpoints, *offset, pieces(state)));
        let names = objects(root.path(), "");
        let read = |name: &String| (name.clone(), fs::read(directory(root.path()).join(name)).unwrap());
        let needs = states.iter().map(|(offset, state)| {
            let pieces = state.iter().map(|(number, version)| format!("piece-{number}-{version}-"));
            let starts: Vec<String> = pieces.chain([format!("manifest-{offset:020}")]).collect();
            let needed = names.iter().filter(|name| starts.iter().any(|start| name.starts_with(start)));
            (*offset, needed.cloned().collect())
        });
        Fixture { objects: names.iter().map(read).collect(), needs: needs.collect(), states }
    })
}

/// One act of damage to the objects.
fn damage(objects: &mut BTreeMap<String, Vec<u8>>, (kind, which, at, bit): (u8, Index, Index, u8)) {
    let names: Vec<String> = objects.keys().cloned().collect();
    let name = names[which.index(names.len())].clone();
    let other = objects[&names[at.index(names.len())]].clone();
    let bytes = objects.get_mut(&name).unwrap();
    let at = at.index(bytes.len() + 1);
    match kind {
        0 | 1 if at < bytes.len() => bytes[at] ^= 1 << bit,
        0..3 => bytes.truncate(at),
        3 => bytes.insert(at, bit),
        4 => *bytes = other,
        _ => drop(objects.remove(&name)),
    }
}

proptest! {
    #[test]
    fn no_damage_ever_gives_a_wrong_memory(
        damages in prop::collection::vec((0..6_u8, any::<Index>(), any::<Index>(), 0..8_u8), 1..5),
        at_most in 5..40_i64,
    ) {
        let fixture = fixture();
        let mut objects = fixture.objects.clone();
        for act in damages {
            if !objects.is_empty() {
                damage(&mut objects, act);
            }
        }
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory(root.path())).unwrap();
        objects.iter().for_each(|(name, bytes)| fs::write(directory(root.path()).join(name), bytes).unwrap());

        let loaded = load(&open(root.path()), at_most);
        let whole = |offset: &i64| fixture.needs[offset].iter().all(|name| objects.get(name) == fixture.objects.get(name));
        let expected = fixture.states.range(..=at_most).rev().find(|(offset, _)| whole(offset));
        prop_assert_eq!(loaded, expected.map(|(offset, state)| (*offset, state.clone())));
    }
}
