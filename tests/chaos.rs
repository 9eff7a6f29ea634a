//! Everything at once: three processes share a log while they are killed, rules change and the broker goes away.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::BaseConsumer;
use serde_json::Value;

use crate::broker::{OwnBroker, Tautline, wait_for};
use crate::determinism::Dice;
use crate::e2e::{Stand, TICKS, findings, fleet_work, unfinished, with_runs};

const EVENTS: usize = 600_000;
const KILLS: usize = 20;
/// Events that come between two kills.
const SLICE: usize = EVENTS / KILLS;
/// Of the log.
const PARTITIONS: usize = 4;
const NAMES: [&str; 3] = ["a", "b", "c"];

/// How long anything may take: many times what it does.
const LIMIT: Duration = Duration::from_secs(300);

/// The processes, and what befalls them.
struct Fleet<'s> {
    stand: &'s Stand,
    processes: Vec<Tautline>,
    dice: Dice,
    /// How many of the killed had judged anything.
    at_work: usize,
    reloads: usize,
    /// How many of them were of a valid rulebook, and which of these each partition has switched to.
    accepted: usize,
    switches: BTreeSet<(i32, Vec<u8>)>,
    log: BaseConsumer,
}

impl Fleet<'_> {
    /// The places of the processes that have partitions of the log.
    fn owners(&self) -> Vec<usize> {
        let log = format!("topic=\"{}\"", self.stand.topic("events"));
        let owns = |process: &Tautline| {
            let metrics = process.get("/metrics").map(|(_, metrics)| metrics).unwrap_or_default();
            metrics.lines().any(|line| line.starts_with("tautline_consumer_lag_records") && line.contains(&log))
        };
        (0..self.processes.len()).filter(|place| owns(&self.processes[*place])).collect()
    }

    /// Kills one that has partitions, and starts it anew, sometimes long enough afterwards for others to take over.
    fn kill(&mut self) {
        wait_for("an owner", LIMIT, || !self.owners().is_empty());
        let owners = self.owners();
        let victim = owners[self.dice.below(owners.len())];
        self.at_work += usize::from(self.processes[victim].metric("tautline_events_total", "") > 0.0);
        self.processes.remove(victim).kill();
        let pause = if self.dice.below(4) == 0 { 8_000 } else { self.dice.below(1_000) };
        std::thread::sleep(Duration::from_millis(u64::try_from(pause).unwrap()));
        self.processes.insert(victim, self.stand.instance(NAMES[victim]));
    }

    /// Changes a control's title, which no alert's id or score depends on, and has everybody read it; once it is broken.
    fn reload(&mut self) {
        // Kills may come between a reload and its switches, but every partition switches to every rulebook.
        self.wait_for_switches();
        self.reloads += 1;
        // Who is only starting would not start with what is broken.
        wait_for("answers", LIMIT, || self.processes.iter().all(|process| process.get("/healthz").is_some()));
        let control = self.stand.directory.path().join("rules/agent-classes/control.toml");
        let (valid, title) = (fs::read_to_string(&control).unwrap(), format!("title = \"Title {}\"", self.reloads));
        let lines = valid.lines().map(|line| if line.starts_with("title") { &title } else { line });
        let changed = lines.collect::<Vec<_>>().join("\n");
        let is_broken = self.reloads == 4;
        fs::write(&control, if is_broken { "severity = \"dire\"" } else { &changed }).unwrap();
        let result = if is_broken { "refused" } else { "accepted" };
        for process in &self.processes {
            let before = process.metric("tautline_rulebook_reloads_total", result);
            process.signal("-HUP");
            wait_for(result, LIMIT, || process.metric("tautline_rulebook_reloads_total", result) > before);
        }
        self.accepted += usize::from(!is_broken);
        if is_broken {
            fs::write(&control, valid).unwrap();
        }
    }

    fn wait_for_switches(&mut self) {
        let start = Instant::now();
        while self.switches.len() < PARTITIONS * self.accepted {
            assert!(start.elapsed() < LIMIT, "{} switches after {} reloads", self.switches.len(), self.accepted);
            if let Some(Ok(record)) = self.log.poll(Duration::from_millis(100))
                && let Some(switch) = record.payload().filter(|payload| payload.starts_with(br#"{"rulebook":"#))
            {
                self.switches.insert((record.partition(), switch.to_owned()));
            }
        }
    }
}

/// Given by `TAUTLINE_CHAOS_SEED`, or by the clock.
fn seed() -> u64 {
    let seed = std::env::var("TAUTLINE_CHAOS_SEED").map(|seed| seed.parse().expect("a seed is a number"));
    let seed = seed.unwrap_or_else(|_| jiff::Timestamp::now().as_second().unsigned_abs());
    eprintln!("TAUTLINE_CHAOS_SEED={seed}");
    seed
}

#[test]
fn kills_new_rules_and_a_broker_that_restarts_change_no_alert() {
    let own = OwnBroker::start();
    let stand = Stand::on(&own.broker, "chaos", TICKS);
    let events = with_runs(fleet_work(EVENTS));
    let expected = stand.replayed(&events);
    let processes = NAMES.map(|name| stand.instance(name));
    let is_ready = |process: &Tautline| process.get("/readyz").is_some_and(|(status, _)| status == 200);
    wait_for("readiness", LIMIT, || processes.iter().all(is_ready));
    let processes = processes.into();
    let log = own.broker.reader(&stand.topic("events"));
    let (dice, switches) = (Dice(seed()), BTreeSet::new());
    let mut fleet = Fleet { stand: &stand, processes, dice, at_work: 0, reloads: 0, accepted: 0, switches, log };
    for (round, slice) in events.chunks(SLICE).enumerate() {
        let records = slice.iter().map(|(key, event)| (key.as_str(), event.as_bytes()));
        own.broker.produce_at(&stand.topic("source"), None, records);
        // Control records and what was aborted count too: it comes a little early rather than late.
        let amid = i64::try_from(round * SLICE + fleet.dice.below(SLICE)).unwrap();
        let group = format!("{}-engine", stand.name);
        wait_for("events to be judged", LIMIT, || own.broker.committed(&group, &stand.topic("events")) >= amid);
        fleet.kill();
        if round % 2 == 0 {
            fleet.reload();
        }
        if round == KILLS / 2 {
            own.restart(Duration::from_millis(u64::try_from(fleet.dice.below(3_000)).unwrap()));
        }
    }
    wait_for("all alerts", LIMIT, || stand.alerts().len() >= expected.len());
    assert!(fleet.at_work * 4 >= KILLS * 3, "only {} kills hit a process at work", fleet.at_work);
    fleet.wait_for_switches();
    assert_eq!((fleet.reloads, fleet.switches.len()), (10, 9 * PARTITIONS));
    fleet.processes.into_iter().for_each(|process| assert_eq!(process.terminate(), Some(0)));

    let alerts = stand.alerts();
    let found = findings(&alerts);
    let ids: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let differing = ids.into_iter().filter(|id| found.get(*id) != expected.get(*id));
    let differing: Vec<_> = differing.map(|id| (id, found.get(id), expected.get(id))).collect();
    let first = &differing[..differing.len().min(10)];
    assert!(differing.is_empty(), "{} alerts differ from those of an undisturbed replay: {first:?}", differing.len());
    assert!(unfinished(&alerts) > 1_000, "only {} runs were ended", unfinished(&alerts));
    every_event_is_logged_once(&stand, &events);
    let revocations = own.broker.read_committed(&stand.topic("revocations"));
    let ids = revocations.iter().map(|set| serde_json::from_slice::<Value>(set).unwrap()["jti"].to_string());
    assert_eq!(ids.collect::<BTreeSet<_>>().len(), revocations.len(), "a revocation was doubled");
    assert!(!revocations.is_empty());
}

fn every_event_is_logged_once(stand: &Stand, events: &[(String, String)]) {
    let log = stand.broker.read_committed(&stand.topic("events"));
    let id =
        |record: &[u8]| Some(String::from_utf8_lossy(record).split_once(r#""id":""#)?.1.split_once('"')?.0.to_owned());
    let logged: Vec<String> = log.iter().filter(|r| r.starts_with(br#"{"event":"#)).map(|r| id(r).unwrap()).collect();
    let distinct: BTreeSet<&String> = logged.iter().collect();
    assert_eq!((logged.len(), distinct.len()), (events.len(), events.len()), "the hop lost or doubled events");
    let ticks = log.iter().filter(|record| record.starts_with(br#"{"tick":"#)).count();
    assert!(ticks > KILLS, "only {ticks} ticks");
}
