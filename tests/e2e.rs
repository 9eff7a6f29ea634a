//! End to end, against a real broker: nothing lost, nothing doubled, nothing that stops the stream.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::broker::{self, Broker, Tautline, free_port, produce, read_committed, unique, wait_for};
use crate::support::copy;

/// Generous: a loaded machine is slow, and only a stuck process takes as long.
pub(crate) const LONG: Duration = Duration::from_secs(600);
/// 2026-03-02, a Monday, 09:00 UTC.
const MONDAY: i64 = 1_772_442_000_000;

/// One test's topics, configuration and registry.
pub(crate) struct Stand {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) name: String,
    pub(crate) broker: Broker,
    port: u16,
}

impl Stand {
    /// Topics `<name>.source` (4 partitions) and a configuration that reads it; `extra` goes to its end.
    pub(crate) fn new(name: &str, extra: &str) -> Self {
        Self::on(broker::shared(), name, extra)
    }

    /// The same on a broker of one's own.
    pub(crate) fn on(broker: &Broker, name: &str, extra: &str) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let stand = Self { directory, name: unique(name), broker: broker.clone(), port };
        let root = env!("CARGO_MANIFEST_DIR");
        copy(&Path::new(root).join("rules"), &stand.directory.path().join("rules"));
        broker.create_topic(
            &stand.topic("source"),
            4,
            &[("max.message.bytes", "12000000"), ("message.timestamp.after.max.ms", "9223372036854775807")],
        );
        let topic = |name: &str| stand.topic(name);
        let text = format!(
            "[kafka]\nbrokers = \"{}\"\ngroup = \"{}\"\n[[sources]]\ntopic = \"{}\"\n[outputs]\nalerts = \"{}\"\n\
             revocations = \"{}\"\nrollbacks = \"{}\"\ndead_letter = \"{}\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n[rulebook]\n\
             store = \"store\"\n{extra}",
            broker.address,
            stand.name,
            topic("source"),
            topic("alerts"),
            topic("revocations"),
            topic("rollbacks"),
            topic("dead")
        );
        let (log, named) = ("[log]\n", format!("[log]\ntopic = \"{}\"\n", topic("events")));
        let text = if text.contains(log) { text.replace(log, &named) } else { text + &named };
        fs::write(stand.config(), text).unwrap();
        stand
    }

    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("tautline.toml")
    }

    pub(crate) fn start(&self) -> Tautline {
        Tautline::start(&self.config(), self.port)
    }

    /// The same with variables of the environment.
    pub(crate) fn start_with(&self, variables: &[(&str, &str)]) -> Tautline {
        Tautline::start_with(&self.config(), self.port, variables)
    }

    pub(crate) fn ready(&self) -> Tautline {
        let tautline = self.start();
        wait_for("readiness", LONG, || tautline.get("/readyz").is_some_and(|(status, _)| status == 200));
        tautline
    }

    /// Another process of the same group; what it logs goes to `<name>.log`.
    pub(crate) fn instance(&self, name: &str) -> Tautline {
        let (port, config) = (free_port(), self.directory.path().join(format!("{name}.toml")));
        let text = fs::read_to_string(self.config()).unwrap().replace(&self.port.to_string(), &port.to_string());
        fs::write(&config, text.replace("[kafka]\n", &format!("[kafka]\ninstance = \"{name}\"\n"))).unwrap();
        Tautline::start(&config, port)
    }

    pub(crate) fn alerts(&self) -> Vec<Value> {
        let alerts = self.broker.read_committed(&self.topic("alerts"));
        alerts.iter().map(|alert| serde_json::from_slice(alert).unwrap()).collect()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.config().with_extension("log")).unwrap_or_default()
    }

    /// What an undisturbed replay says of the same events: id, score and rulebook of every alert.
    pub(crate) fn replayed(&self, events: &[(String, String)]) -> Findings {
        let file = self.directory.path().join("events.jsonl");
        let lines = events.iter().fold(String::new(), |mut lines, (_, event)| {
            writeln!(lines, "{event}").unwrap();
            lines
        });
        fs::write(&file, lines).unwrap();
        let replay = Command::new(env!("CARGO_BIN_EXE_tautline"))
            .args(["replay", "--output", "json", "--config"])
            .arg(self.config())
            .arg(&file)
            .output()
            .unwrap();
        assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
        let lines = String::from_utf8(replay.stdout).unwrap();
        findings(&lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>())
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let files = fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
            for file in files.filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
                let log = fs::read_to_string(&file).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("the end of {}:\n{}", file.display(), lines[lines.len().saturating_sub(60)..].join("\n"));
            }
        }
    }
}

/// Alert ids, each with how often it came and its exact score.
pub(crate) type Findings = BTreeMap<String, (u32, String)>;

pub(crate) fn findings(alerts: &[Value]) -> Findings {
    let mut findings = Findings::new();
    for alert in alerts {
        let score = alert["unmapped"]["tautline"]["deviation"]["score"].to_string();
        let entry = findings.entry(alert["finding_info"]["uid"].as_str().unwrap().to_owned());
        entry.or_insert((0, score)).0 += 1;
    }
    findings
}

/// An agent action of `agent`, the `number`th of its kind.
fn action(agent: &str, number: usize, at: i64, tool: &str, operation: &str, verb: &str, account: &str) -> String {
    let time = jiff::Timestamp::from_millisecond(at).unwrap();
    json!({
        "specversion": "1.0", "type": "tautline.agent.action.v1", "source": "/tests", "id": format!("{agent}-{number}"),
        "time": time.to_string(),
        "data": {
            "agent": { "id": agent }, "session": format!("s{}", number / 100), "tool": tool, "operation": operation,
            "verb": verb, "account": account, "resource": { "type": "AWS::ECS::Service", "id": format!("svc-{}", number % 7) },
            "outcome": { "status": "success" },
        }
    })
    .to_string()
}

/// Work of a fleet of agents over some days, with something wrong now and then; keyed by agent.
pub(crate) fn fleet_work(events: usize) -> Vec<(String, String)> {
    let agents = ["triage-bot", "change-advisor", "deploy-bot", "night-bot", "ci-runner-7", "nobody-knows-me"];
    let operations = ["ecs:DescribeServices", "ecs:DescribeTasks", "logs:FilterLogEvents", "ecs:ListTasks"];
    (0..events)
        .map(|number| {
            let agent = agents[number % agents.len()];
            let at = MONDAY + i64::try_from(number).unwrap() * 3_000;
            // Staging, but where something is wrong: production, a write, a new service.
            let (operation, verb, account) = match number % 997 {
                13 | 512 => ("ecs:UpdateService", "write", "222222222222"),
                400 => ("ecs:DescribeServices", "read", "111111111111"),
                700 => ("iam:AttachRolePolicy", "write", "222222222222"),
                _ => (operations[number / agents.len() % operations.len()], "read", "222222222222"),
            };
            let account = if agent.starts_with("night") || agent.starts_with("ci") { "333333333333" } else { account };
            (agent.to_owned(), action(agent, number, at, "aws_cli", operation, verb, account))
        })
        .collect()
}

/// The same, with runs of a playbook that end after their first step. Whichever tick ends one, the alert is the same; the
/// last ones are followed by enough of the events' time for a replay to end them.
pub(crate) fn with_runs(mut events: Vec<(String, String)>) -> Vec<(String, String)> {
    let until = events.len().saturating_sub(1_500);
    let looks = events.iter_mut().take(until).enumerate().filter(|(_, (_, event))| event.contains("\"ecs:Describe"));
    for (number, (_, event)) in looks.filter(|(number, _)| number % 97 == 0) {
        let run = json!({ "id": "restart-service", "run": format!("run-{number}") });
        *event = event.replacen("\"data\":{", &format!("\"data\":{{\"playbook\":{run},"), 1);
    }
    events
}

/// How many of these alerts are of runs that stopped short.
pub(crate) fn unfinished(alerts: &[Value]) -> usize {
    alerts.iter().filter(|alert| alert.to_string().contains("ended without required step")).count()
}

/// For a [`Stand`] whose runs are to be ended while a test looks on.
pub(crate) const TICKS: &str = "[log]\ntick_seconds = 1\n";

pub(crate) fn send(topic: &str, events: &[(String, String)]) {
    produce(topic, events.iter().map(|(key, event)| (key.as_str(), event.as_bytes())));
}

#[test]
fn a_process_killed_in_the_middle_loses_and_doubles_nothing() {
    let stand = Stand::new("kill", "");
    let events = fleet_work(100_000);
    let expected = stand.replayed(&events);
    assert!(expected.len() > 400, "only {} alerts to look for", expected.len());
    send(&stand.topic("source"), &events);

    for stop_after in [20_000.0, 45_000.0] {
        let tautline = stand.start();
        // A restart steps what is committed in silence, and counts only what it speaks of.
        wait_for("events to be judged", LONG, || tautline.metric("tautline_events_total", "") > stop_after);
        tautline.kill();
    }
    assert!(findings(&stand.alerts()).len() < expected.len(), "killed too late to show anything");
    let tautline = stand.start();
    wait_for("all alerts", LONG, || stand.alerts().len() >= expected.len());
    assert_eq!(tautline.terminate(), Some(0));

    assert!(findings(&stand.alerts()) == expected, "the alerts differ from those of an undisturbed replay");
    let log = read_committed(&stand.topic("events"));
    let logged = log.iter().filter(|record| record.starts_with(br#"{"event":"#)).count();
    assert_eq!(logged, events.len(), "the hop lost or doubled events");
    let revocations = read_committed(&stand.topic("revocations"));
    let ids: Vec<String> =
        revocations.iter().map(|set| text(&serde_json::from_slice::<Value>(set).unwrap()["jti"])).collect();
    assert!(!ids.is_empty());
    assert_eq!(ids.len(), ids.iter().collect::<std::collections::BTreeSet<_>>().len(), "a revocation was doubled");
}

#[test]
fn a_process_that_joins_and_dies_takes_no_more_than_its_share_and_loses_nothing() {
    let stand = Stand::new("join", "");
    let events = fleet_work(60_000);
    let expected = stand.replayed(&events);
    let first = stand.ready();
    send(&stand.topic("source"), &events[..20_000]);
    wait_for("events to be judged", LONG, || first.metric("tautline_events_total", "") > 5_000.0);
    let second = stand.instance("second");
    send(&stand.topic("source"), &events[20_000..30_000]);
    wait_for("its share", LONG, || second.get("/readyz").is_some_and(|(status, _)| status == 200));
    // Only now: the first may have judged everything before it gave its share away.
    send(&stand.topic("source"), &events[30_000..40_000]);
    wait_for("events to be judged", LONG, || second.metric("tautline_events_total", "") > 0.0);
    send(&stand.topic("source"), &events[40_000..]);
    second.kill();
    wait_for("all alerts", LONG, || stand.alerts().len() >= expected.len());
    assert_eq!(first.terminate(), Some(0));

    assert!(findings(&stand.alerts()) == expected, "the alerts differ from those of an undisturbed replay");
    let log = stand.log();
    assert!(!log.contains("stage failed"), "what stayed was disturbed");
    assert_eq!(log.matches("partitions revoked").count(), 2, "each stage gives up a share, once");
}

#[test]
fn a_process_that_was_frozen_speaks_no_more_of_what_others_took_over() {
    let stand = Stand::new("freeze", "");
    let events = fleet_work(30_000);
    let expected = stand.replayed(&events);
    let first = stand.ready();
    let second = stand.instance("second");
    wait_for("its share", LONG, || second.get("/readyz").is_some_and(|(status, _)| status == 200));
    send(&stand.topic("source"), &events[..20_000]);
    wait_for("events to be judged", LONG, || first.metric("tautline_events_total", "") > 1_000.0);
    let assignments = || {
        let log = fs::read_to_string(stand.directory.path().join("second.log")).unwrap();
        log.matches("partitions assigned").count()
    };
    let before = assignments();
    first.signal("-STOP");
    // Both of its stages get what was the first's.
    wait_for("the rest", LONG, || assignments() >= before + 2);
    send(&stand.topic("source"), &events[20_000..]);
    first.signal("-CONT");
    wait_for("all alerts", LONG, || stand.alerts().len() >= expected.len());
    assert_eq!((first.terminate(), second.terminate()), (Some(0), Some(0)));
    assert!(findings(&stand.alerts()) == expected, "the alerts differ from those of an undisturbed replay");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn bad_records_go_to_the_dead_letters_and_the_stream_goes_on() {
    let stand = Stand::new("bad", "[redaction]\ndead_letters = \"plain\"\n");
    let tautline = stand.ready();
    let good = |number| action("triage-bot", number, MONDAY, "aws_cli", "ecs:UpdateService", "write", "222222222222");
    let base: Value = serde_json::from_str(&good(0)).unwrap();
    let wrong = |pointer: &str, value: Value| {
        let mut event = base.clone();
        *event.pointer_mut(pointer).unwrap() = value;
        event.to_string().into_bytes()
    };
    let mut large = base.clone();
    large["data"]["arguments"] = json!({ "text": { "value": "x".repeat(10_000_000) } });
    let deep =
        format!(r#""tool":"aws_cli","arguments":{{"x":{{"value":{}{}}}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("not-json", b"garbage".to_vec()),
        ("too-large", large.to_string().into_bytes()),
        ("wrong-type", [b"[".repeat(100_000), b"]".repeat(100_000)].concat()),
        ("too-large", good(0).replace(r#""tool":"aws_cli""#, &deep).into_bytes()),
        ("not-utf8", vec![0xff, 0xfe, 0x00]),
        ("empty", Vec::new()),
        ("wrong-type", wrong("/data/agent/id", json!(7))),
        ("wrong-type", wrong("/data/tool", json!({ "name": "x" }))),
        ("wrong-type", wrong("/id", json!([1]))),
        ("implausible-time", wrong("/time", json!("1970-01-01T00:00:00Z"))),
        ("implausible-time", wrong("/time", json!("2100-01-01T00:00:00Z"))),
        ("invalid-value", wrong("/time", json!("yesterday"))),
    ];
    for (number, (_, record)) in bad.iter().enumerate() {
        produce(&stand.topic("source"), [("k", record.as_slice()), ("k", good(number).as_bytes())]);
    }
    wait_for("the good events' alerts", LONG, || stand.alerts().len() >= bad.len());
    wait_for("the dead letters", LONG, || read_committed(&stand.topic("dead")).len() >= bad.len());

    let letters: Vec<Value> =
        read_committed(&stand.topic("dead")).iter().map(|letter| serde_json::from_slice(letter).unwrap()).collect();
    assert_eq!(letters.len(), bad.len());
    for (letter, (reason, record)) in letters.iter().zip(&bad) {
        assert_eq!(letter["reason"], *reason, "{}", letter["detail"]);
        assert_eq!(letter["topic"], stand.topic("source"));
        assert_eq!(letter["length"], record.len());
        assert_eq!(letter["truncated"], record.len() > 512 * 1_024);
        assert!(letter["partition"].is_i64() && letter["offset"].is_i64());
        assert_eq!(letter["sha256"].as_str().unwrap().len(), 64);
    }
    let counted: f64 = tautline.metric("tautline_dead_letters_total", "");
    assert!((counted - f64::from(u32::try_from(bad.len()).unwrap())).abs() < 0.5, "{counted} counted");
    assert_eq!(tautline.terminate(), Some(0));
}

#[test]
fn records_made_to_break_it_do_not() {
    let stand = Stand::new("hostile", "");
    let tautline = stand.ready();
    let source = stand.topic("source");
    // A batch of nothing but bad members has one letter, with its bytes once.
    let batch = format!("{{\"Records\":[{}0]}}", "0,".repeat(65_000));
    produce(&source, [("k", batch.as_bytes())]);
    // A producer's clock is nobody's word for when a record arrived.
    let violation =
        |number| action("triage-bot", number, MONDAY, "aws_cli", "ecs:UpdateService", "write", "222222222222");
    broker::shared().produce_at(&source, Some(4_102_444_800_000), [("k", violation(1).as_bytes())]);
    let late: Value = serde_json::from_str(&violation(2)).unwrap();
    let ahead = {
        let mut ahead = late;
        ahead["time"] = json!("2099-12-31T23:59:00Z");
        ahead.to_string()
    };
    broker::shared().produce_at(&source, Some(4_102_444_800_000), [("k", ahead.as_bytes())]);
    // As many and as long names as are let through: the alert must still fit into a record.
    let mut large: Value = serde_json::from_str(&violation(3)).unwrap();
    let name = |number: usize| format!("{}{number}", "\u{1}".repeat(500));
    large["data"]["arguments"] = (0..200).map(|number| (name(number), json!({ "value": "SECRET" }))).collect();
    large["data"]["resource"]["id"] = json!("https://user:SECRET@example.com/x?token=SECRET");
    large["data"]["outcome"] = json!({ "status": "failed", "reason": "SECRET" });
    produce(&source, [("k", large.to_string().as_bytes()), ("k", violation(4).as_bytes())]);

    let of_classes =
        || stand.alerts().iter().filter(|alert| alert["metadata"]["event_code"] == "agent-classes").count();
    wait_for("the violations' alerts", LONG, || of_classes() >= 3);
    let letters: Vec<Value> =
        read_committed(&stand.topic("dead")).iter().map(|letter| serde_json::from_slice(letter).unwrap()).collect();
    assert_eq!(letters.len(), 2, "{letters:?}");
    let of_batch = letters.iter().find(|letter| letter["length"] == batch.len()).unwrap();
    assert_eq!((of_batch["rejected"].as_u64(), of_batch["members"].as_array().unwrap().len()), (Some(65_001), 100));
    assert!(letters.iter().any(|letter| letter["reason"] == "implausible-time"));
    assert!(stand.alerts().iter().all(|alert| !alert.to_string().contains("SECRET")), "a secret left by an alert");
    assert_eq!(tautline.terminate(), Some(0));
}

#[test]
fn a_new_rulebook_switches_in_the_log_and_a_restart_judges_by_both() {
    let stand = Stand::new("switch", "");
    let first = action("triage-bot", 1, MONDAY, "aws_cli", "ecs:UpdateService", "write", "222222222222");
    let second = action("triage-bot", 2, MONDAY + 1_000, "aws_cli", "ecs:UpdateService", "write", "222222222222");
    let tautline = stand.ready();
    produce(&stand.topic("source"), [("k", first.as_bytes())]);
    wait_for("the first alert", LONG, || !stand.alerts().is_empty());
    assert_eq!(tautline.terminate(), Some(0));
    let before = stand.alerts().len();

    let control = stand.directory.path().join("rules/agent-classes/control.toml");
    let text = fs::read_to_string(&control).unwrap();
    fs::write(&control, text.replace("severity = \"critical\"", "severity = \"high\"")).unwrap();
    let tautline = stand.ready();
    wait_for("the switch", LONG, || {
        let log = read_committed(&stand.topic("events"));
        log.iter().filter(|record| record.starts_with(br#"{"rulebook":"#)).count() == 1
    });
    produce(&stand.topic("source"), [("k", second.as_bytes())]);
    wait_for("the second alert", LONG, || stand.alerts().len() > before);
    tautline.kill();

    let tautline = stand.ready();
    assert_eq!(tautline.terminate(), Some(0));
    let classes: Vec<Value> =
        stand.alerts().into_iter().filter(|alert| alert["metadata"]["event_code"] == "agent-classes").collect();
    assert_eq!(classes.len(), 2, "the restart doubled an alert");
    let severity = |alert: &Value| alert["severity"].as_str().unwrap().to_owned();
    assert_eq!([severity(&classes[0]), severity(&classes[1])], ["Critical", "High"]);
    let hash = |alert: &Value| alert["finding_info"]["analytic"]["version"].clone();
    assert_ne!(hash(&classes[0]), hash(&classes[1]));
}

#[test]
fn a_rulebook_is_read_again_on_demand_and_a_broken_one_changes_nothing() {
    let stand = Stand::new("reload", "");
    let write = |number| action("triage-bot", number, MONDAY, "aws_cli", "ecs:UpdateService", "write", "222222222222");
    let classes = || {
        let mut alerts = stand.alerts();
        alerts.retain(|alert| alert["metadata"]["event_code"] == "agent-classes");
        alerts
    };
    let tautline = stand.ready();
    let control = stand.directory.path().join("rules/agent-classes/control.toml");
    let text = fs::read_to_string(&control).unwrap();
    let reload = |text: &str, result: &str| {
        fs::write(&control, text).unwrap();
        tautline.signal("-HUP");
        wait_for(result, LONG, || tautline.metric("tautline_rulebook_reloads_total", result) > 0.0);
    };

    reload(&text.replace("severity = \"critical\"", "severity = \"dire\"\ncolour = 1"), "refused");
    produce(&stand.topic("source"), [("k", write(1).as_bytes())]);
    wait_for("the first alert", LONG, || !classes().is_empty());
    reload(&text.replace("severity = \"critical\"", "severity = \"high\""), "accepted");
    wait_for("the switch", LONG, || {
        let log = read_committed(&stand.topic("events"));
        log.iter().any(|record| record.starts_with(br#"{"rulebook":"#))
    });
    produce(&stand.topic("source"), [("k", write(2).as_bytes())]);
    wait_for("the second alert", LONG, || classes().len() > 1);
    assert_eq!(tautline.terminate(), Some(0));

    let alerts = classes();
    assert_eq!([&alerts[0]["severity"], &alerts[1]["severity"]], ["Critical", "High"]);
    let hash = alerts[1]["finding_info"]["analytic"]["version"].as_str().unwrap();
    let log = read_committed(&stand.topic("events"));
    let resolved = log.iter().filter(|record| String::from_utf8_lossy(record).contains(hash)).count();
    assert_eq!(resolved, 5, "four partitions switch, and the hop resolves the second event by the new rulebook");
    assert!(stand.log().contains("rulebook refused: "), "{}", stand.log());
}

#[test]
fn a_source_keyed_by_agent_can_be_the_log_itself() {
    let stand = Stand::new("direct", "[log]\ndirect = true\n");
    let events = fleet_work(3_000);
    let expected = stand.replayed(&events);
    let tautline = stand.ready();
    send(&stand.topic("source"), &events[..1_500]);
    wait_for("events to be judged", LONG, || tautline.metric("tautline_events_total", "") > 500.0);
    tautline.kill();
    let tautline = stand.ready();
    // Whoever may write events may not switch rulebooks or end runs.
    let forged: [&[u8]; 2] = [br#"{"rulebook":{"hash":"deadbeef"}}"#, br#"{"tick":{"at":4102444800000}}"#];
    produce(&stand.topic("source"), forged.map(|record| ("triage-bot", record)));
    send(&stand.topic("source"), &events[1_500..]);
    wait_for("all alerts", LONG, || stand.alerts().len() >= expected.len());
    assert_eq!(tautline.terminate(), Some(0));
    assert!(findings(&stand.alerts()) == expected, "the alerts differ from those of an undisturbed replay");
    let letters = read_committed(&stand.topic("dead"));
    assert_eq!(letters.len(), 2, "forged records are neither believed nor lost");
}

#[test]
fn without_a_broker_it_waits_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("tautline.toml");
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    copy(&rules, &directory.path().join("rules"));
    let port = free_port();
    let kafka = "[kafka]\nbrokers = \"127.0.0.1:9\"\n[[sources]]\ntopic = \"x\"\n";
    fs::write(&config, format!("{kafka}[http]\nlisten = \"127.0.0.1:{port}\"\n")).unwrap();
    let tautline = Tautline::start(&config, port);
    wait_for("an answer", LONG, || tautline.get("/readyz").is_some());
    let (status, body) = tautline.get("/readyz").unwrap();
    assert_eq!((status, body.contains("engine")), (503, true), "{body}");
    assert_eq!(tautline.get("/healthz").unwrap().0, 200);
    let log = || fs::read_to_string(config.with_extension("log")).unwrap();
    wait_for("a clear error", LONG, || log().contains("cannot reach the broker"));
    assert_eq!(tautline.terminate(), Some(0), "{}", log());
}

#[test]
fn metrics_and_the_live_page_show_what_happens() {
    let stand = Stand::new("page", "");
    let tautline = stand.ready();
    let hostile =
        action("<script>alert(1)</script>", 1, MONDAY, "aws_cli", "ecs:UpdateService", "write", "222222222222");
    produce(&stand.topic("source"), [("k", hostile.as_bytes())]);
    wait_for("the deviation", LONG, || tautline.metric("tautline_deviations_total", "agent-classes") > 0.0);
    let (status, page) = tautline.get("/").unwrap();
    assert_eq!(status, 200);
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
    assert!(tautline.metric("tautline_detection_latency_seconds_count", "") > 0.0);
    assert!(tautline.metric("tautline_event_lateness_seconds_count", "") > 0.0);
    assert!(tautline.metric("tautline_commit_seconds_count", "") > 0.0);
    let notices = || tautline.metric("tautline_unregistered_notices", "");
    wait_for("what was reported of a stranger", LONG, || notices() > 0.0);
    let reported = tautline.metric("tautline_deviations_total", "");
    assert!((notices() - reported).abs() < 0.5, "{} notices of {reported} reports", notices());
    assert!(tautline.get("/metrics").unwrap().1.contains("tautline_unregistered_notices_full 0"));
    for name in
        ["tautline_events_total", "tautline_agents", "tautline_dead_letters_total", "tautline_consumer_lag_records"]
    {
        wait_for(name, LONG, || tautline.get("/metrics").is_some_and(|(_, metrics)| metrics.contains(name)));
    }
    assert_eq!(tautline.terminate(), Some(0), "{}", stand.log());
}
