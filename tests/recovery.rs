//! What a restart finds: checkpoints, damaged ones, none, or only the end of the log.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::broker::{Tautline, read_committed, shared, wait_for};
use crate::e2e::{LONG, Stand, TICKS, findings, fleet_work, send, unfinished, with_runs};

fn store(stand: &Stand) -> PathBuf {
    stand.directory.path().join(".state/checkpoints")
}

/// The partitions' directories in the store.
fn places(stand: &Stand) -> Vec<PathBuf> {
    let log = store(stand).join(format!("{}-engine", stand.name)).join(stand.topic("events"));
    let mut places: Vec<PathBuf> = fs::read_dir(log).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    places.sort();
    places
}

/// The latest object of a place whose name begins like this.
fn latest(place: &PathBuf, start: &str) -> PathBuf {
    let objects = fs::read_dir(place).unwrap().map(|entry| entry.unwrap());
    let objects = objects.filter(|object| object.file_name().to_str().unwrap().starts_with(start));
    objects.max_by_key(|object| object.metadata().unwrap().modified().unwrap()).unwrap().path()
}

/// The sum of the offsets that the partitions' newest checkpoints go to.
fn checkpointed(stand: &Stand) -> i64 {
    places(stand).iter().filter_map(furthest).sum()
}

fn furthest(place: &PathBuf) -> Option<i64> {
    let names = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_prefix("manifest-")?.split('-').next()?.parse().ok()).max()
}

fn committed(stand: &Stand) -> i64 {
    stand.broker.committed(&format!("{}-engine", stand.name), &stand.topic("events"))
}

/// Waits until so many events were judged since the start, and checkpoints hold all of them.
fn settle(stand: &Stand, tautline: &Tautline, events: f64) {
    wait_for("events to be judged", LONG, || tautline.metric("tautline_events_total", "") >= events);
    wait_for("checkpoints", LONG, || checkpointed(stand) == committed(stand));
}

/// Starts it; gives for each partition the offset of its checkpoint and how many records were replayed from there.
fn restarted(stand: &Stand) -> (Tautline, Vec<(i64, i64)>) {
    let before = stand.log().len();
    let tautline = stand.ready();
    let log = stand.log().split_off(before);
    let number = |line: &str, name: &str| -> i64 {
        let (_, rest) = line.split_once(name).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let taken_over = log.lines().filter(|line| line.contains("memory taken over"));
    let found: Vec<(i64, i64)> =
        taken_over.map(|line| (number(line, " offset="), number(line, " replayed="))).collect();
    assert_eq!(found.len(), 4, "every partition is spoken of once: {log}");
    (tautline, found)
}

#[test]
fn a_restart_replays_what_came_after_the_checkpoint_and_nothing_after_a_clean_stop() {
    let stand = Stand::new("restore", TICKS);
    let events = with_runs(fleet_work(12_000));
    let expected = stand.replayed(&events);
    let tautline = stand.ready();
    send(&stand.topic("source"), &events[..10_000]);
    settle(&stand, &tautline, 10_000.0);
    let held = checkpointed(&stand);
    send(&stand.topic("source"), &events[10_000..]);
    wait_for("more events to be judged", LONG, || tautline.metric("tautline_events_total", "") > 10_500.0);
    tautline.kill();

    let after = committed(&stand) - held;
    let (tautline, found) = restarted(&stand);
    let restored: i64 = found.iter().map(|(offset, _)| offset).sum();
    let replayed: i64 = found.iter().map(|(_, replayed)| replayed).sum();
    assert!(restored >= held && replayed <= after && after < held, "{found:?} of {after} after {held}");
    wait_for("all alerts", LONG, || stand.alerts().len() >= expected.len());
    assert_eq!(tautline.terminate(), Some(0));
    assert_eq!(checkpointed(&stand), committed(&stand), "a clean stop leaves checkpoints of everything");

    let (tautline, found) = restarted(&stand);
    assert!(found.iter().all(|(_, replayed)| *replayed == 0), "{found:?}");
    assert_eq!(tautline.terminate(), Some(0));
    assert!(findings(&stand.alerts()) == expected, "the alerts differ from those of an undisturbed replay");
    assert!(unfinished(&stand.alerts()) > 20, "runs were ended as well");
}

#[test]
fn damaged_checkpoints_are_skipped_and_change_no_alert() {
    let stand = Stand::new("damage", TICKS);
    let events = with_runs(fleet_work(12_000));
    let expected = stand.replayed(&events);
    let tautline = stand.ready();
    for until in [3_000, 6_000] {
        send(&stand.topic("source"), &events[until - 3_000..until]);
        settle(&stand, &tautline, f64::from(u32::try_from(until).unwrap()));
    }
    assert_eq!(tautline.terminate(), Some(0));
    for (number, place) in places(&stand).iter().enumerate() {
        let object = latest(place, if number % 2 == 0 { "piece-" } else { "manifest-" });
        let mut bytes = fs::read(&object).unwrap();
        let middle = bytes.len() / 2;
        if number < 2 {
            bytes.truncate(middle)
        } else {
            bytes[middle] ^= 1
        }
        fs::write(&object, bytes).unwrap();
    }

    let held = checkpointed(&stand);
    let (tautline, found) = restarted(&stand);
    assert!(found.iter().map(|(offset, _)| offset).sum::<i64>() < held, "{found:?}");
    assert!(tautline.metric("tautline_checkpoints_skipped_total", "damaged") >= 4.0);
    let log = stand.log();
    assert!(log.contains("skipped: `piece-") && log.contains("skipped: `manifest-"), "{log}");
    send(&stand.topic("source"), &events[6_000..]);
    wait_for("all alerts", LONG, || stand.alerts().len() >= expected.len());
    assert_eq!(tautline.terminate(), Some(0));
    assert!(findings(&stand.alerts()) == expected, "the alerts differ from those of an undisturbed replay");
}

#[test]
fn a_store_that_fails_stops_nothing_and_is_written_to_when_it_is_back() {
    let stand = Stand::new("no-store", TICKS);
    let events = with_runs(fleet_work(6_000));
    let expected = stand.replayed(&events);
    let tautline = stand.ready();
    send(&stand.topic("source"), &events[..3_000]);
    settle(&stand, &tautline, 3_000.0);
    let before = stand.alerts().len();
    fs::remove_dir_all(store(&stand)).unwrap();
    fs::write(store(&stand), "").unwrap();
    send(&stand.topic("source"), &events[3_000..]);
    wait_for("alerts all the same", LONG, || stand.alerts().len() > before);
    wait_for("failures", LONG, || tautline.metric("tautline_checkpoint_failures_total", "") >= 8.0);
    let complaints = stand.log().matches("no checkpoint, a restart will replay more of the log").count();
    assert!((1..=4).contains(&complaints), "{complaints} lines say it, not one a partition");

    fs::remove_file(store(&stand)).unwrap();
    settle(&stand, &tautline, 6_000.0);
    wait_for("relief", LONG, || stand.log().contains("checkpoints are written again"));
    assert_eq!(tautline.terminate(), Some(0));
    let (tautline, found) = restarted(&stand);
    assert!(found.iter().all(|(_, replayed)| *replayed == 0), "{found:?}");
    assert_eq!(tautline.terminate(), Some(0));
    assert!(findings(&stand.alerts()) == expected, "the alerts differ from those of an undisturbed replay");
}

#[test]
fn a_restart_waits_for_a_store_that_cannot_be_read() {
    let stand = Stand::new("unread", TICKS);
    let events = with_runs(fleet_work(6_000));
    let expected = stand.replayed(&events);
    let tautline = stand.ready();
    send(&stand.topic("source"), &events[..3_000]);
    settle(&stand, &tautline, 3_000.0);
    assert_eq!(tautline.terminate(), Some(0));
    let group = store(&stand).join(format!("{}-engine", stand.name));
    let aside = group.with_extension("aside");
    fs::rename(&group, &aside).unwrap();
    fs::write(&group, "").unwrap();

    let (before, logged) = (stand.alerts().len(), stand.log().len());
    let tautline = stand.start();
    send(&stand.topic("source"), &events[3_000..]);
    let unreadable = || tautline.metric("tautline_checkpoints_skipped_total", "unreadable");
    wait_for("more than one attempt", LONG, || unreadable() >= 2.0);
    let (status, body) = tautline.get("/readyz").unwrap();
    assert_eq!((status, body.contains("engine")), (503, true), "{body}");
    let log = stand.log().split_off(logged);
    assert!(log.contains("is taken over only when its checkpoints can be read"), "{log}");
    assert_eq!(stand.alerts().len(), before, "nobody speaks from a part of the memory");

    fs::remove_file(&group).unwrap();
    fs::rename(&aside, &group).unwrap();
    wait_for("all alerts", LONG, || stand.alerts().len() >= expected.len());
    assert_eq!(tautline.terminate(), Some(0));
    assert!(findings(&stand.alerts()) == expected, "the alerts differ from those of an undisturbed replay");
}

#[test]
fn a_log_that_forgets_by_itself_is_warned_of() {
    let warnings = |stand: &Stand| -> Vec<String> {
        assert_eq!(stand.ready().terminate(), Some(0));
        stand
            .log()
            .lines()
            .filter(|line| line.contains("WARN") && line.contains(" forgets "))
            .map(str::to_owned)
            .collect()
    };
    let own = Stand::new("own-log", "");
    assert_eq!(warnings(&own), [""; 0], "one that it creates keeps everything");
    let existing = Stand::new("existing-log", "");
    existing.broker.create_topic(
        &existing.topic("events"),
        4,
        &[("retention.ms", "3600000"), ("cleanup.policy", "compact")],
    );
    let found = warnings(&existing);
    assert!(found.len() == 1 && found[0].contains("(`retention.ms=3600000`, `cleanup.policy=compact`)"), "{found:?}");
    assert!(found[0].contains("set `retention.ms=-1`"), "{found:?}");
    let direct = Stand::new("direct-log", "[log]\ndirect = true\n");
    assert_eq!(warnings(&direct), [""; 0]);
}

#[test]
fn offsets_that_expired_stop_a_start_until_somebody_decides() {
    let stand = Stand::new("expired", "");
    let events = fleet_work(6_000);
    let expected = stand.replayed(&events);
    let tautline = stand.ready();
    send(&stand.topic("source"), &events[..3_000]);
    settle(&stand, &tautline, 3_000.0);
    assert_eq!(tautline.terminate(), Some(0));
    let (before, group) = (stand.alerts().len(), format!("{}-engine", stand.name));
    shared().delete_group(&group);

    let tautline = stand.start();
    wait_for("a clear error", LONG, || stand.log().contains("has committed nothing: its offsets have expired"));
    assert_eq!(tautline.get("/readyz").unwrap().0, 503);
    assert_eq!(tautline.terminate(), Some(0));
    assert_eq!(stand.alerts().len(), before, "no alert comes twice");

    let (log, topic) = (stand.log(), format!("{}:", stand.topic("events")));
    let advice = log.split(&topic).skip(1).filter_map(|rest| {
        let (partition, rest) = rest.split_once(" --reset-offsets --to-offset ")?;
        Some((partition.parse().unwrap(), rest.split_once(" --execute")?.0.parse().unwrap()))
    });
    let advice: BTreeSet<(i32, i64)> = advice.collect();
    assert!(!advice.is_empty());
    let offset = |place: &PathBuf| place.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let all: Vec<(i32, i64)> = places(&stand).iter().map(|place| (offset(place), furthest(place).unwrap())).collect();
    assert!(advice.iter().all(|told| all.contains(told)), "{advice:?} of {all:?}");
    shared().reset(&group, &stand.topic("events"), &all);
    let (tautline, found) = restarted(&stand);
    assert!(found.iter().all(|(_, replayed)| *replayed == 0), "{found:?}");
    send(&stand.topic("source"), &events[3_000..]);
    wait_for("all alerts", LONG, || stand.alerts().len() >= expected.len());
    assert_eq!(tautline.terminate(), Some(0));
    assert!(findings(&stand.alerts()) == expected, "the alerts differ from those of an undisturbed replay");
}

#[test]
fn without_checkpoints_the_log_teaches_and_one_without_its_beginning_is_said() {
    let stand = Stand::new("forgotten", "");
    let events = fleet_work(6_000);
    let expected = stand.replayed(&events);
    let tautline = stand.ready();
    send(&stand.topic("source"), &events[..3_000]);
    settle(&stand, &tautline, 3_000.0);
    assert_eq!(tautline.terminate(), Some(0));
    fs::remove_dir_all(store(&stand)).unwrap();

    let (tautline, found) = restarted(&stand);
    let replayed: i64 = found.iter().map(|(_, replayed)| replayed).sum();
    assert_eq!(replayed, committed(&stand), "{found:?}");
    assert!(stand.log().contains("no usable checkpoint: the memory is learned anew from the log"));
    send(&stand.topic("source"), &events[3_000..]);
    wait_for("all alerts", LONG, || stand.alerts().len() >= expected.len());
    assert_eq!(tautline.terminate(), Some(0));
    assert!(findings(&stand.alerts()) == expected, "the alerts differ from those of an undisturbed replay");
    assert!(!stand.log().contains("the log has lost records"), "nothing was lost yet");

    fs::remove_dir_all(store(&stand)).unwrap();
    let logged = read_committed(&stand.topic("events")).len();
    shared().delete_records(&stand.topic("events"), 500);
    let (tautline, found) = restarted(&stand);
    assert!(stand.log().contains("ERROR") && stand.log().contains("the log has lost records"), "{}", stand.log());
    let replayed: i64 = found.iter().map(|(_, replayed)| replayed).sum();
    assert!(replayed > 0 && replayed <= i64::try_from(logged).unwrap() - 500, "{found:?}");
    let more = fleet_work(7_000);
    send(&stand.topic("source"), &more[6_000..]);
    wait_for("what is learned anew", LONG, || tautline.metric("tautline_events_total", "") >= 1_000.0);
    assert!(stand.alerts().len() > expected.len(), "what was known is new again");
    assert_eq!(tautline.terminate(), Some(0));
}
