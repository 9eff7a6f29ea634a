//! `tautline backtest`, the command: over files, over topics, and what a live run said.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use crate::broker::{produce, wait_for};
use crate::e2e::{Findings, LONG, Stand, TICKS, findings, fleet_work, send, unfinished, with_runs};
use crate::support::{self, RECORDED, lines, root, rows, signed, tautline, tautline_in};

/// The lines of a back-test as JSON, the report last.
fn told(output: &Output) -> Vec<Value> {
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The alerts of a back-test without a comparison, as those of a run are told.
fn alerts(output: &Output) -> Findings {
    let mut found = Findings::new();
    for alert in told(output).iter().filter_map(|line| line.get("alert")) {
        let entry = found.entry(alert["id"].as_str().unwrap().to_owned());
        entry.or_insert((0, alert["score"].to_string())).0 += 1;
    }
    found
}

/// A copy of the shipped rules with the recorded events' registry, and the events.
struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        support::copy(&root().join("rules"), &directory.path().join("rules"));
        for name in ["agents.toml", "estate.toml", "people.toml", "routes.toml"] {
            fs::copy(root().join("tests/data").join(name), directory.path().join(name)).unwrap();
        }
        let paths = "agents = \"agents.toml\"\nestate = \"estate.toml\"\npeople = \"people.toml\"\n";
        fs::write(directory.path().join("tautline.toml"), format!("[rulebook]\n{paths}store = \"store\"\n")).unwrap();
        let events: Vec<Value> = rows("stratus").into_iter().map(|mut row| row["event"].take()).collect();
        fs::write(directory.path().join("events.jsonl"), lines(&events)).unwrap();
        Self { directory }
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.directory.path().join(path)
    }

    /// Another directory of rules, with one text replaced.
    fn other(&self, name: &str, file: &str, from: &str, to: &str) {
        support::copy(&self.path("rules"), &self.path(name));
        let file = self.path(name).join(file);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        tautline_in(self.directory.path(), arguments.iter().copied(), b"")
    }

    /// The deviations of a replay by some rules: severity, score and what is said, by id.
    fn replayed(&self, rules: &str) -> BTreeMap<String, (String, u64, String)> {
        let output = self.run(&["replay", "events.jsonl", "--output", "json", "--rules", rules]);
        let found = support::deviations(&output).into_iter();
        found.map(|found| (found.id, (found.severity.to_string(), found.score.to_bits(), found.what))).collect()
    }
}

#[test]
fn the_difference_names_exactly_the_events_that_change() {
    let site = Site::new();
    site.other("threshold", "unexpected-access/control.toml", "\nservice = 0.01", "\nservice = 0.9");
    site.other("policy", "reach/policy.cedar", "resource.asset == \"identity\"", "resource.asset == \"guardrail\"");
    for rules in ["threshold", "policy"] {
        let arguments = ["backtest", "--from", "events.jsonl", "--rules", rules, "--against", "rules"];
        let output = site.run(&[&arguments[..], &["--output", "json", "--diff", "diff.jsonl"]].concat());
        let told = told(&output);
        let (now, before) = (site.replayed(rules), site.replayed("rules"));
        let mut expected = BTreeMap::new();
        for id in now.keys().chain(before.keys()) {
            let kind = match (now.get(id), before.get(id)) {
                (Some(_), None) => "added",
                (None, Some(_)) => "removed",
                (now, before) if now != before => "changed",
                _ => continue,
            };
            expected.insert(id.clone(), kind);
        }
        assert!(!expected.is_empty(), "`{rules}` changes nothing, so that nothing is shown");
        let (report, changes) = told.split_last().unwrap();
        let kind = |change: &Value| {
            let (kind, finding) = change.as_object().unwrap().iter().next().unwrap();
            let finding = if kind == "changed" { &finding["now"] } else { finding };
            let kind = ["added", "removed", "changed"].into_iter().find(|known| known == kind).unwrap();
            (finding["id"].as_str().unwrap().to_owned(), kind)
        };
        assert_eq!(changes.iter().map(kind).collect::<BTreeMap<_, _>>(), expected);
        let written = fs::read_to_string(site.path("diff.jsonl")).unwrap();
        assert_eq!(written.lines().count(), changes.len(), "the file has them all as well");
        let of = |kind: &str| u64::try_from(expected.values().filter(|known| **known == kind).count()).unwrap();
        for kind in ["added", "removed", "changed"] {
            assert_eq!(report["report"][kind], of(kind));
        }
        let text = String::from_utf8(site.run(&[&arguments[..], &["--examples", "1"]].concat()).stdout).unwrap();
        assert!(text.contains(&format!("only now: {}", of("added"))), "{text}");
    }
}

#[test]
fn an_exception_takes_away_exactly_what_it_is_for() {
    let site = Site::new();
    let output = site.run(&["replay", "events.jsonl", "--output", "json"]);
    let found = support::deviations(&output);
    let first = found.iter().find(|found| found.control == "reach").unwrap();
    let (agent, action) = (&first.agent.id, &first.event.action);
    let hidden: BTreeSet<&str> = found
        .iter()
        .filter(|found| found.control == "reach" && found.agent.id == *agent && found.event.action == *action)
        .map(|found| found.id.as_str())
        .collect();
    fs::create_dir(site.path("before")).unwrap();
    for name in ["agents.toml", "estate.toml", "people.toml", "routes.toml"] {
        fs::copy(site.path(name), site.path("before").join(name)).unwrap();
    }
    let paths = "agents = \"agents.toml\"\nestate = \"estate.toml\"\npeople = \"people.toml\"\nrules = \"../rules\"\n\
        playbooks = \"../rules/example/playbooks.d\"\n";
    fs::write(site.path("before/tautline.toml"), format!("[rulebook]\n{paths}")).unwrap();
    let exception = format!(
        "longest = \"9999d\"\n[exceptions.drill]\ncontrol = \"reach\"\nagent = \"{agent}\"\noperations = [\"{action}\"]\n\
         by = \"ops@example.com\"\nwhy = \"a drill\"\nsince = \"2015-01-01T00:00:00Z\"\nuntil = \"2035-01-01T00:00:00Z\"\n"
    );
    fs::write(site.path("exceptions.toml"), exception).unwrap();
    let output = site.run(&["backtest", "--from", "events.jsonl", "--output", "json", "--against", "before"]);
    let told = told(&output);
    let (report, changes) = told.split_last().unwrap();
    let removed: BTreeSet<&str> = changes.iter().map(|change| change["removed"]["id"].as_str().unwrap()).collect();
    assert_eq!(removed, hidden, "{changes:?}");
    assert_eq!([&report["report"]["added"], &report["report"]["changed"]], [0, 0]);
}

#[test]
fn a_rulebook_is_compared_with_a_whole_configuration_or_with_one_of_the_store() {
    let site = Site::new();
    support::copy(&site.path("rules"), &site.path("before/rules"));
    for name in ["estate.toml", "people.toml", "routes.toml", "tautline.toml"] {
        fs::copy(site.path(name), site.path("before").join(name)).unwrap();
    }
    let agents = fs::read_to_string(site.path("agents.toml")).unwrap();
    fs::write(site.path("before/agents.toml"), agents.replace("class = \"operator\"", "class = \"observer\"")).unwrap();
    let compared = |against: &str| {
        let arguments = ["backtest", "--from", "events.jsonl", "--output", "json", "--against", against];
        told(&site.run(&arguments)).pop().unwrap()["report"].take()
    };
    let report = compared("before");
    assert!(report["removed"].as_u64().unwrap() > 0, "what an observer did is an operator's to do: {report}");
    let book = tautline_detectors::rulebook::Rulebook::read(support::example_files()).unwrap();
    fs::create_dir(site.path("store")).unwrap();
    fs::write(site.path("store").join(format!("{}.json", book.hash())), json!(book.files()).to_string()).unwrap();
    assert_eq!(compared(book.hash())["against"], book.hash());
    let unknown = site.run(&["backtest", "--from", "events.jsonl", "--against", &"0".repeat(64)]);
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn too_many_pages_fail_and_so_does_what_cannot_be_read() {
    let site = Site::new();
    let code = |arguments: &[&str]| {
        let output = site.run(&[&["backtest"], arguments].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (over, text, _) = code(&["--from", "events.jsonl", "--budget", "1"]);
    assert_eq!(over, Some(1), "{text}");
    assert!(text.contains("budget, 1 pages a day: exceeded: ") && text.contains("; worst 20"), "{text}");
    assert_eq!(code(&["--from", "events.jsonl", "--budget", "100000"]).0, Some(0));
    assert_eq!(code(&["--from", "events.jsonl"]).0, Some(0), "nothing is declared, so nothing is exceeded");
    fs::write(site.path("garbage.jsonl"), "garbage\n").unwrap();
    let (none, _, error) = code(&["--from", "garbage.jsonl"]);
    assert_eq!((none, error.contains("no event could be read")), (Some(2), true), "{error}");
    for wrong in [&["--from", "nowhere.jsonl"][..], &["--from", "events.jsonl", "topic:x"], &["--from", "topic:x"]] {
        assert_eq!(code(wrong).0, Some(2), "{wrong:?}");
    }
}

#[test]
fn a_past_is_learned_first() {
    let past: Vec<Value> = rows("invictus").into_iter().map(|mut row| row["event"].take()).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("past.jsonl");
    fs::write(&file, lines(&past)).unwrap();
    let path = file.to_str().unwrap();
    let common = ["--output", "json"].into_iter().chain(RECORDED);
    let replay = tautline(common.clone().chain(["replay", path, "--history", path]), b"");
    let backtest = tautline(common.chain(["backtest", "--from", path, "--history", path]), b"");
    let expected: Findings =
        support::deviations(&replay).into_iter().map(|found| (found.id, (1, json!(found.score).to_string()))).collect();
    assert_eq!(alerts(&backtest), expected);
    assert_eq!(told(&backtest).pop().unwrap()["report"]["learned"], past.len());
}

/// What an agent's role did, by the audit log, with a key that another one uses too.
fn audited(agent: &str, id: &str, time: &str, name: &str) -> (String, String) {
    let account = "222222222222";
    let event = json!({
        "eventVersion": "1.11", "eventID": id, "eventTime": time,
        "eventSource": "ecs.amazonaws.com", "eventName": name, "awsRegion": "eu-west-1",
        "sourceIPAddress": "203.0.113.24", "userAgent": "Boto3/1.42.9", "readOnly": name.starts_with("Describe"),
        "recipientAccountId": account,
        "requestParameters": { "cluster": "payments", "service": "checkout-api" },
        "userIdentity": {
            "type": "AssumedRole", "accountId": account, "accessKeyId": "ASIAEXAMPLE0SHARED01",
            "arn": format!("arn:aws:sts::{account}:assumed-role/{agent}/s-1"),
            "sessionContext": {
                "sessionIssuer": { "type": "Role", "arn": format!("arn:aws:iam::{account}:role/{agent}") },
            },
        },
    });
    (agent.to_owned(), event.to_string())
}

/// A fleet's work, in which two agents use one key, one of them changes something that it does not declare, and somebody
/// signs in another's name.
fn work(events: usize) -> Vec<(String, String)> {
    let seconds = 1_772_442_000;
    let claims = json!({
        "iss": "https://monitoring.example.com", "jti": "forged", "sub": "alertmanager", "agent": "deploy-bot",
        "iat": seconds, "exp": seconds + 3_600, "signal": { "name": "HighErrorRate" },
    });
    let mut all = vec![
        audited("deploy-bot", "one", "2026-03-02T09:00:00Z", "UpdateService"),
        audited("restart-bot", "two", "2026-03-02T09:00:00Z", "DescribeServices"),
        ("deploy-bot".to_owned(), signed(&claims, &["monitoring-1"])),
    ];
    all.extend(with_runs(fleet_work(events)));
    // The audit log has come further than what it lacks.
    all.push(audited("deploy-bot", "last", "2026-03-04T09:00:00Z", "DescribeServices"));
    all
}

/// A back-test with a stand's configuration.
fn backtest(stand: &Stand, arguments: &[&str]) -> Output {
    let config = stand.config();
    let common = ["backtest", "--output", "json", "--config", config.to_str().unwrap(), "--from"];
    tautline(common.into_iter().chain(arguments.iter().copied()), b"")
}

/// Waits until ticks end nothing any more; what waits for an audit log that is silent goes on waiting.
fn settle(stand: &Stand) {
    wait_for("the last alert", LONG, || {
        let before = stand.alerts().len();
        std::thread::sleep(Duration::from_secs(5));
        stand.alerts().len() == before
    });
}

/// What is in one only, or other there.
fn difference(one: &Findings, other: &Findings) -> Vec<String> {
    let ids = one.keys().chain(other.keys()).filter(|id| one.get(*id) != other.get(*id));
    ids.map(|id| format!("{id}: {:?}, {:?}", one.get(id), other.get(id))).collect()
}

#[test]
fn over_the_log_it_says_what_the_live_run_said() {
    let stand = Stand::new("backtest", TICKS);
    let events = work(20_000);
    let tautline = stand.ready();
    // What two agents do in the same millisecond has no order.
    send(&stand.topic("source"), &events[..1]);
    std::thread::sleep(Duration::from_millis(20));
    send(&stand.topic("source"), &events[1..]);
    let expected = stand.replayed(&events);
    wait_for("all alerts", LONG, || findings(&stand.alerts()).len() >= expected.len());
    settle(&stand);
    assert_eq!(tautline.terminate(), Some(0));
    let live = findings(&stand.alerts());
    for says in ["also of agent `", "forged-statements/", "unreported-action/"] {
        assert!(stand.alerts().iter().any(|alert| alert.to_string().contains(says)), "no alert shows `{says}`");
    }
    assert!(unfinished(&stand.alerts()) > 10);

    let log = format!("topic:{}", stand.topic("events"));
    assert_eq!(difference(&alerts(&backtest(&stand, &[&log])), &live), Vec::<String>::new(), "to the live run");
    let source = format!("topic:{}", stand.topic("source"));
    assert_eq!(difference(&alerts(&backtest(&stand, &[&source])), &expected), Vec::<String>::new(), "to a replay");

    let mut dumps: BTreeMap<i32, Vec<Vec<u8>>> = BTreeMap::new();
    for (partition, record) in stand.broker.read_partitions(&stand.topic("events")) {
        dumps.entry(partition).or_default().push(record);
    }
    let files: Vec<String> =
        dumps.keys().map(|number| format!("{}/{number}.jsonl", stand.directory.path().display())).collect();
    for (file, records) in files.iter().zip(dumps.values()) {
        fs::write(file, records.join(&b'\n')).unwrap();
    }
    let arguments: Vec<&str> = files.iter().map(String::as_str).chain(["--format", "log"]).collect();
    assert_eq!(difference(&alerts(&backtest(&stand, &arguments)), &live), Vec::<String>::new(), "dumped");

    let both = backtest(&stand, &[&log, &source]);
    assert_eq!(both.status.code(), Some(2), "each event would be there twice");

    // Nothing was committed, and nothing is new in the topics.
    assert_eq!(stand.broker.committed(&format!("{}-backtest", stand.name), &stand.topic("events")), 0);
    assert_eq!(findings(&stand.alerts()), live);
}

#[test]
fn over_a_log_that_others_write_it_says_what_the_live_run_said() {
    let stand = Stand::new("backtest-direct", "[log]\ndirect = true\ntick_seconds = 1\n");
    let events = work(5_000);
    let tautline = stand.ready();
    send(&stand.topic("source"), &events);
    // What only looks like a tick ends nothing.
    let forged = json!({ "tick": { "at": 4_102_444_800_000_i64 } }).to_string();
    produce(&stand.topic("source"), [("deploy-bot", forged.as_bytes())]);
    wait_for("runs to end", LONG, || unfinished(&stand.alerts()) > 5);
    settle(&stand);
    assert_eq!(tautline.terminate(), Some(0));
    let source = format!("topic:{}", stand.topic("source"));
    let found = alerts(&backtest(&stand, &[&source]));
    assert_eq!(difference(&found, &findings(&stand.alerts())), Vec::<String>::new());
}

#[test]
fn a_dead_policy_is_warned_of_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    support::copy(&root().join("rules"), &directory.path().join("rules"));
    let policy = directory.path().join("rules/reach/policy.cedar");
    let before = fs::read_to_string(&policy).unwrap();
    let more = "\n@id(\"typo\")\nforbid (principal, action, resource)\nwhen { resource.asset == \"netwrok\" };\n\
        \n@id(\"twice\")\nforbid (principal, action, resource)\nwhen { context.exposes && context.changes };\n";
    fs::write(&policy, format!("{before}{more}")).unwrap();
    let line = |id: &str| 1 + fs::read_to_string(&policy).unwrap().lines().position(|line| line.contains(id)).unwrap();
    let expected = [
        format!("rules/reach/policy.cedar:{}: policy `reach/typo` can never match", line("typo")),
        format!("rules/reach/policy.cedar:{}: policy `reach/twice` never speaks", line("twice")),
    ];
    let check = |arguments: &[&str]| {
        let output = tautline_in(Path::new(directory.path()), arguments.iter().copied(), b"");
        assert_eq!(output.status.code(), Some(0), "these are no errors");
        String::from_utf8(output.stdout).unwrap()
    };
    let (text, json) = (check(&["check", "--bless"]), check(&["check", "--output", "json"]));
    for warning in expected {
        assert!(text.contains(&format!("warning: {warning}")), "{text}");
        assert!(json.contains(&warning), "{json}");
    }
}
