#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;

use proptest::prelude::*;
use proptest::test_runner::{Config as Settings, TestRunner};
use serde_json::Value;
use tautline_detectors::deviation::Deviation;
use tautline_detectors::engine::{Engine, Input as EngineInput};
use tautline_detectors::event::Millis;
use tautline_detectors::rulebook::RuleFile;
use tautline_ingest::Format;
use tautline_ingest::log::LogRecord;
use tautline_ingest::redact::Settings as Redaction;

use super::*;
use crate::feed::Feed;
use crate::files::Records;
use crate::rules::Unreachable;
use crate::{check, rules, signing};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn lines_of(path: &str) -> Vec<String> {
    let input = Input::all(&[root(path)]).unwrap().remove(0);
    let (mut lines, mut record) = (Vec::new(), Vec::new());
    let mut records = Records::open(&input, false, &ProgressBar::hidden()).unwrap();
    while records.next_into(&mut record).unwrap() {
        lines.push(String::from_utf8(record.clone()).unwrap());
    }
    lines.retain(|line| !line.is_empty());
    lines
}

/// The recorded events, and the rules with their registry.
fn recorded() -> (Arc<Rulebook>, Vec<String>) {
    let paths = RulebookPaths {
        rules: root("rules"),
        agents: root("tests/data/agents.toml"),
        estate: root("tests/data/estate.toml"),
        people: root("tests/data/people.toml"),
        playbooks: root("rules/example/playbooks.d"),
        ..RulebookPaths::default()
    };
    let rows = ["stratus", "invictus"].into_iter().flat_map(|name| lines_of(&format!("tests/data/{name}.jsonl.gz")));
    let event = |row: String| serde_json::from_str::<Value>(&row).unwrap()["event"].to_string();
    (Arc::new(rules::read(&paths, Unreachable::Refuse).unwrap()), rows.map(event).collect())
}

/// All events of all controls (statements, actions, audit records, shared credentials), and the example rulebook.
fn of_controls() -> (Arc<Rulebook>, Vec<String>) {
    let paths = rules::example_paths(&RulebookPaths { rules: root("rules"), ..RulebookPaths::default() });
    let book = check::signing_for_examples(&rules::read(&paths, Unreachable::Refuse).unwrap()).unwrap();
    let files = book.controls().flat_map(|control| {
        ["history.jsonl", "fires.jsonl", "silent.jsonl"].map(|file| format!("rules/{}/{file}", control.id))
    });
    let files: Vec<String> = files.filter(|file| root(file).exists()).collect();
    let lines = files.iter().flat_map(|file| lines_of(file)).map(|line| signing::example_line(&line).unwrap());
    // Scenarios know nothing of each other, and use the same ids.
    let mut ids = BTreeSet::new();
    let is_new = |line: &String| {
        let read = Reader::default().decode(line.as_bytes(), jiff::Timestamp::now().as_millisecond());
        read.iter().flatten().all(|event| ids.insert(event.id.clone()))
    };
    (Arc::new(book), lines.filter(is_new).collect())
}

fn redactor() -> Redactor {
    Redactor::new(b"tests", Redaction::default()).unwrap()
}

/// The rulebook with one file changed.
fn edited(book: &Rulebook, name: &str, from: &str, to: &str) -> Arc<Rulebook> {
    let edit = |file: &RuleFile| {
        assert!(file.name != name || file.text.contains(from), "{name}");
        let text = if file.name == name { file.text.replace(from, to) } else { file.text.clone() };
        RuleFile { text, ..file.clone() }
    };
    Arc::new(Rulebook::read(book.files().iter().map(edit).collect()).unwrap())
}

/// What a finding is, what is said of it, and the rest.
type Key = (String, (u64, String), (String, Millis));

fn key(finding: &Value) -> Key {
    let text = |name: &str| finding[name].as_str().unwrap().to_owned();
    let score = finding["score"].as_f64().unwrap().to_bits();
    let said = format!("{} {}", text("severity"), text("what"));
    (text("id"), (score, said), (text("summary"), finding["at"].as_i64().unwrap()))
}

fn key_of(deviation: &Deviation) -> Key {
    let Deviation { id, score, severity, what, summary, at, .. } = deviation;
    (id.clone(), (score.to_bits(), format!("{severity} {what}")), (summary.clone(), *at))
}

fn written(directory: &Path, name: &str, lines: &[String]) -> Vec<Input> {
    let path = directory.join(name);
    fs::write(&path, lines.join("\n")).unwrap();
    Input::all(&[path]).unwrap()
}

/// A back-test by these rulebooks over lines, behind some that are only learned from.
fn backtest(directory: &Path, books: &[&Arc<Rulebook>], history: &[String], lines: &[String]) -> Backtest {
    let history = if history.is_empty() { Vec::new() } else { written(directory, "history.jsonl", history) };
    Backtest {
        books: books.iter().map(|book| Arc::clone(book)).collect(),
        history,
        past: Past::Files(written(directory, "events.jsonl", lines)),
        reader: Format::Auto.into(),
        redactor: redactor(),
        store: directory.join("store"),
        budget: None,
        examples: 3,
        diff: None,
        json: true,
        progress: false,
    }
}

/// Every finding in the order in which it is told, with so many threads.
fn found(backtest: &Backtest, threads: usize) -> Vec<Key> {
    let mut out = Vec::new();
    backtest.judge(threads, &mut out).unwrap();
    let lines = std::str::from_utf8(&out).unwrap().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| key(&line["alert"])).collect()
}

/// What a replay says of the same.
fn replayed(book: &Arc<Rulebook>, history: &[String], lines: &[String]) -> Vec<Key> {
    let mut feed = Feed::new(Arc::clone(book), redactor(), Format::Auto);
    let received = jiff::Timestamp::now().as_millisecond();
    history.iter().for_each(|line| drop(feed.accept(line.as_bytes(), received)));
    let deviations = lines.iter().flat_map(|line| feed.judge(line.as_bytes(), received).deviations);
    deviations.map(|deviation| key_of(&deviation)).collect()
}

fn sorted(mut keys: Vec<Key>) -> Vec<Key> {
    keys.sort();
    keys
}

#[test]
fn any_number_of_threads_finds_what_a_replay_finds() {
    for (book, lines) in [recorded(), of_controls()] {
        // In any order, with any part of it learned only.
        let strategy = (Just(lines).prop_shuffle(), any::<prop::sample::Index>(), any::<prop::sample::Index>());
        let settings = Settings { cases: 6, failure_persistence: None, ..Settings::default() };
        let run = TestRunner::new(settings).run(&strategy, |(lines, split, length)| {
            let lines = &lines[..lines.len() / 4 + length.index(lines.len() * 3 / 4)];
            let (history, lines) = lines.split_at(split.index(lines.len() / 2));
            let directory = tempfile::tempdir().unwrap();
            let backtest = backtest(directory.path(), &[&book], history, lines);
            let alone = found(&backtest, 1);
            prop_assert!(alone.len() > 20, "so few findings show little");
            for threads in [2, 3, 7] {
                prop_assert_eq!(&found(&backtest, threads), &alone, "{} threads", threads);
            }
            prop_assert_eq!(sorted(alone), sorted(replayed(&book, history, lines)));
            Ok(())
        });
        run.unwrap();
    }
}

/// The differences between two rulebooks, as ids with their kinds.
fn differences(now: &Arc<Rulebook>, before: &Arc<Rulebook>, lines: &[String]) -> Vec<(&'static str, String)> {
    let directory = tempfile::tempdir().unwrap();
    let (_, mut findings) = backtest(directory.path(), &[now, before], &[], lines).judge(3, &mut Vec::new()).unwrap();
    let mut all: Vec<(&str, String)> = findings
        .changes()
        .iter()
        .map(|change| match change {
            Change::Added(finding) => ("added", finding.id.clone()),
            Change::Removed(finding) => ("removed", finding.id.clone()),
            Change::Changed { now, .. } => ("changed", now.id.clone()),
        })
        .collect();
    all.sort();
    all
}

/// The same by two replays.
fn replayed_differences(now: &Arc<Rulebook>, before: &Arc<Rulebook>, lines: &[String]) -> Vec<(&'static str, String)> {
    let all = |book| replayed(book, &[], lines).into_iter().map(|key| (key.0.clone(), key)).collect::<Vec<_>>();
    let (now, before) = (all(now), all(before));
    let get = |side: &[(String, Key)], id: &str| side.iter().find(|(known, _)| known == id).map(|(_, key)| key.clone());
    let mut found = Vec::new();
    for (id, key) in &now {
        match get(&before, id) {
            None => found.push(("added", id.clone())),
            Some(other) if other.1 != key.1 => found.push(("changed", id.clone())),
            Some(_) => {}
        }
    }
    found.extend(before.iter().filter(|(id, _)| get(&now, id).is_none()).map(|(id, _)| ("removed", id.clone())));
    found.sort();
    found
}

#[test]
fn the_difference_of_two_rulebooks_is_exactly_what_changes() {
    let (book, lines) = of_controls();
    for (name, from, to) in [
        // A threshold, a policy more, one less, another severity, a window of what is found late.
        ("off-hours/control.toml", "p_value = 0.01", "p_value = 0.2"),
        (
            "reach/policy.cedar",
            "@id(\"network\")",
            "@id(\"all\") @severity(\"low\") forbid (principal, action, resource);\n\n@id(\"network\")",
        ),
        ("change-windows/policy.cedar", "context.window == \"outside\"", "context.window == \"freeze\""),
        ("agent-classes/control.toml", "severity = \"critical\"", "severity = \"high\""),
        ("unreported-action/control.toml", "lateness = \"30m\"", "lateness = \"45m\""),
        // The registry: who it is, and where.
        ("registry/agents/platform.toml", "[agents.night-bot]", "[agents.day-bot]"),
        ("registry/estate.toml", "environment = \"staging\"", "environment = \"testing\""),
    ] {
        let other = edited(&book, name, from, to);
        let found = differences(&other, &book, &lines);
        assert_eq!(found, replayed_differences(&other, &book, &lines), "{name}");
        assert!(!found.is_empty(), "{name}: nothing changes, so nothing was shown");
    }
    assert_eq!(differences(&book, &book, &lines), []);
}

#[test]
fn what_a_log_holds_is_judged_as_it_was_resolved_or_resolved_again() {
    let (book, lines) = of_controls();
    let mut redactor = redactor();
    let received = jiff::Timestamp::now().as_millisecond();
    let read = lines.iter().flat_map(|line| redactor.read(line.as_bytes(), &Format::Auto.into(), received, &book));
    let logged = read.flatten().map(|event| {
        let record = LogRecord::Event { event: Box::new(event), resolved_by: book.hash().to_owned() };
        String::from_utf8(record.to_bytes().unwrap()).unwrap()
    });
    let logged: Vec<String> = logged.collect();
    let moved = edited(&book, "registry/estate.toml", "environment = \"staging\"", "environment = \"testing\"");
    for book in [&book, &moved] {
        let directory = tempfile::tempdir().unwrap();
        let of_log = Backtest {
            past: Past::LogFiles(written(directory.path(), "log.jsonl", &logged)),
            ..backtest(directory.path(), &[book], &[], &lines)
        };
        // Without ticks and told uses of credentials, which a log has as records.
        let mut engine = Engine::new(Arc::clone(book));
        let judged = lines.iter().flat_map(|line| {
            let read = redactor.read(line.as_bytes(), &Format::Auto.into(), received, book);
            read.into_iter()
                .flatten()
                .flat_map(|event| engine.step(&EngineInput::Event(Box::new(event))).1)
                .collect::<Vec<_>>()
        });
        let judged: Vec<Key> = judged.map(|deviation| key_of(&deviation)).collect();
        assert!(judged.len() > 50);
        assert_eq!(sorted(found(&of_log, 3)), sorted(judged));
    }
}

#[test]
fn pages_are_counted_by_day_and_team_and_held_against_budgets() {
    let (book, lines) = of_controls();
    let directory = tempfile::tempdir().unwrap();
    let run = |budget, pages: &str| {
        let book = edited(&book, "registry/routes.toml", "pages_per_day = 3", pages);
        let backtest = Backtest { budget, json: true, ..backtest(directory.path(), &[&book], &[], &lines) };
        let mut out = Vec::new();
        let kept = backtest.run(&mut out).unwrap();
        let report = std::str::from_utf8(&out).unwrap().lines().last().unwrap();
        (kept, serde_json::from_str::<Value>(report).unwrap()["report"].take())
    };
    let (kept, report) = run(None, "pages_per_day = 3");
    assert!(!kept);
    let now = &report["now"];
    let sum =
        |table: &Value| table.as_object().unwrap().values().map(|row| row["pages"].as_u64().unwrap()).sum::<u64>();
    for table in ["controls", "agents", "teams", "days"] {
        assert_eq!(sum(&now[table]), now["all"]["pages"].as_u64().unwrap(), "{table}");
    }
    let worst = now["days"].as_object().unwrap().values().map(|day| day["pages"].as_u64().unwrap()).max().unwrap();
    let all = &report["budgets"][0];
    assert_eq!(
        (all["most"].as_u64(), all["worst"][1].as_u64(), &all["over"]),
        (Some(3), Some(worst), &Value::Bool(true))
    );
    // The example's security team has a budget of its own.
    let security = &report["budgets"][1];
    assert_eq!(security["team"], "security");
    let bearable = u32::try_from(worst).unwrap();
    let of_security = security["worst"][1].as_u64().unwrap();
    for (budget, kept) in [(bearable, true), (bearable - 1, false)] {
        let most = format!("pages_per_day = {of_security}");
        let book = edited(&book, "registry/routes.toml", "pages_per_day = 2", &most);
        let backtest = Backtest { budget: Some(budget), ..backtest(directory.path(), &[&book], &[], &lines) };
        assert_eq!(backtest.run(&mut Vec::new()).unwrap(), kept, "{budget}");
    }
    let (_, report) = run(Some(0), "pages_per_day = 1000");
    assert_eq!(report["budgets"][0]["most"], 0, "what is given goes before what is declared");
}
