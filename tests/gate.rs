//! Asking before the act, by the real binary: a running process, and the rules on disk.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::Message;
use serde_json::{Value, json};
use tautline::gate::Client;

use crate::broker::{Tautline, free_port, produce, wait_for};
use crate::controls::with_test_keys;
use crate::e2e::{self, LONG, Stand};
use crate::support::{self, root, tautline};

const TOKEN: &str = "a-token-of-the-tests-only";

/// `restart-bot` looks something up, and `deploy-bot` deletes in production what is not its own.
const LOOKUP: [&str; 8] =
    ["--agent", "restart-bot", "--action", "search_logs", "--resource", "checkout-api", "--verb", "read"];
const DELETION: [&str; 12] = [
    "--agent",
    "deploy-bot",
    "--action",
    "ec2:DeleteVolume",
    "--resource",
    "vol-1",
    "--resource-type",
    "AWS::EC2::Volume",
    "--account",
    "111111111111",
    "--tool",
    "aws_cli",
];

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// `tautline gate` against a running gate.
fn ask(url: &str, token: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tautline"));
    command.args(["gate", "--output", "json", "--url", url]).args(arguments).current_dir(root());
    command.env("TAUTLINE_GATE_TOKEN", token).stdin(Stdio::null()).output().unwrap()
}

fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

#[test]
fn a_running_process_answers_before_the_act() {
    let port = free_port();
    let gate = format!(
        "[gate]\nlisten = \"127.0.0.1:{port}\"\n[[gate.client]]\nname = \"tests\"\ntoken = {{ env = \"GATE_TOKEN\" }}\nagents = [\"*\"]\n"
    );
    let stand = Stand::new("gate", &gate);
    let running = stand.start_with(&[("GATE_TOKEN", TOKEN)]);
    wait_for("readiness", LONG, || running.get("/readyz").is_some_and(|(status, _)| status == 200));
    let url = format!("http://127.0.0.1:{port}");
    let permitted = ask(&url, TOKEN, &LOOKUP);
    assert_eq!(permitted.status.code(), Some(0), "{}{}", text(&permitted.stdout), text(&permitted.stderr));
    assert_eq!(answer(&permitted)["decision"], true);
    let denied = ask(&url, TOKEN, &DELETION);
    assert_eq!(denied.status.code(), Some(1), "{}", text(&denied.stderr));
    assert!(answer(&denied)["context"]["reasons"].to_string().contains("environment-boundaries"));
    let stranger = ask(&url, "another-token-of-nobody", &LOOKUP);
    assert_eq!(stranger.status.code(), Some(2));
    assert!(text(&stranger.stderr).contains("it answers 401"), "{}", text(&stranger.stderr));
    assert!((running.metric("tautline_gate_requests_total", "deny") - 1.0).abs() < f64::EPSILON);
    assert!(running.metric("tautline_events_total", "") < 1.0, "asking is no event");
    assert_eq!(running.terminate(), Some(0));
    let log = stand.log();
    assert!(!log.contains(TOKEN), "{log}");
    assert_eq!(ask(&url, TOKEN, &LOOKUP).status.code(), Some(2), "nobody is there any more");
}

#[test]
fn a_token_that_is_not_there_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("tautline.toml");
    let gate = "[[sources]]\ntopic = \"x\"\n[[gate.client]]\nname = \"ci\"\ntoken = { env = \"NOT_SET_ANYWHERE\" }\nagents = []\n";
    fs::write(&config, gate).unwrap();
    let output = tautline(["run", "--config", config.to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(2));
    let expected = format!("{}:5: variable `NOT_SET_ANYWHERE` is not set", config.display());
    assert!(text(&output.stderr).contains(&expected), "{}", text(&output.stderr));
}

#[test]
fn offline_the_rules_on_disk_decide() {
    let offline =
        |arguments: &[&str]| tautline(["gate", "--offline"].into_iter().chain(arguments.iter().copied()), b"");
    let permitted = offline(&LOOKUP);
    assert_eq!(permitted.status.code(), Some(0), "{}", text(&permitted.stderr));
    assert!(
        text(&permitted.stdout).starts_with("permit (behaviour unavailable, rulebook "),
        "{}",
        text(&permitted.stdout)
    );
    let denied = offline(&DELETION);
    assert_eq!(denied.status.code(), Some(1));
    let told = text(&denied.stdout);
    assert!(
        told.starts_with("deny (") && told.contains("environment-boundaries: ") && told.contains("would comply: "),
        "{told}"
    );
    let request = json!({
        "subject": { "type": "agent", "id": "restart-bot" }, "resource": { "type": "", "id": "" },
        "action": { "name": "search_logs", "properties": { "verb": "read" } },
    });
    let piped = tautline(["gate", "--offline", "--output", "json", "-"], request.to_string().as_bytes());
    assert_eq!((piped.status.code(), &answer(&piped)["decision"]), (Some(0), &json!(true)));
}

#[test]
fn what_cannot_be_asked_is_neither_yes_nor_no() {
    for (arguments, input, says) in [
        (&["gate", "--offline", "-"][..], "{", "not JSON"),
        (&["gate", "--offline", "-"], "{}", "missing field `subject`"),
        (
            &["gate", "--offline", "--rules", "/nowhere", "--agent", "a", "--action", "b", "--resource", "c"],
            "",
            "/nowhere",
        ),
        (&["gate", "--url", "http://127.0.0.1:1", "-"], "{}", "cannot be reached"),
        (&["gate", "--url", "http://pdp.example.com", "-"], "{}", "only on this machine itself"),
        (&["gate"], "", "required"),
        (&["gate", "--agent", "a"], "", "--action"),
        (&["gate", "no.json"], "", "cannot read `no.json`"),
    ] {
        let output = tautline(arguments.iter().copied(), input.as_bytes());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(says), "{says}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}

/// A stand with a gate that two processes may have, whose console the tests can sign for.
struct Gated {
    stand: Stand,
    gates: [u16; 2],
}

impl Gated {
    fn new(name: &str) -> Self {
        let gates = [free_port(), free_port()];
        let stand = Stand::new(name, "[log]\ntick_seconds = 1\n");
        let token = stand.directory.path().join("token");
        fs::write(&token, TOKEN).unwrap();
        let [own, peer] = gates;
        let section = format!(
            "[gate]\nlisten = \"127.0.0.1:{own}\"\npeers = [\"http://127.0.0.1:{peer}\"]\npeer_token = {{ file = {token:?} }}\n\
             forward_timeout_ms = 5000\n[[gate.client]]\nname = \"tests\"\ntoken = {{ file = {token:?} }}\nagents = [\"*\"]\nrequests_per_second = 100000\n"
        );
        let text = fs::read_to_string(stand.config()).unwrap();
        fs::write(stand.config(), text + &section).unwrap();
        with_test_keys(&stand);
        Self { stand, gates }
    }

    /// The other process, with the ports of the two gates exchanged.
    fn other(&self) -> Tautline {
        let [own, peer] = self.gates.map(|port| format!("127.0.0.1:{port}"));
        let text = fs::read_to_string(self.stand.config()).unwrap();
        let text = text.replace(&own, "OWN").replace(&peer, &own).replace("OWN", &peer);
        let (config, port) = (self.stand.directory.path().join("other.toml"), free_port());
        let http = text.lines().skip_while(|line| *line != "[http]").nth(1).unwrap().to_owned();
        let text = text.replace(&http, &format!("listen = \"127.0.0.1:{port}\""));
        fs::write(&config, text.replace("[kafka]\n", "[kafka]\ninstance = \"other\"\n")).unwrap();
        Tautline::start(&config, port)
    }

    fn ask(&self, gate: usize, arguments: &[&str]) -> Option<Value> {
        let output = ask(&format!("http://127.0.0.1:{}", self.gates[gate]), TOKEN, arguments);
        (output.status.code() != Some(2)).then(|| answer(&output))
    }

    /// Has the console state something of `restart-bot`.
    fn state(&self, id: &str, kind: &str) {
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({
            "iss": "https://console.example.com", "jti": id, "sub": "mei.chen@example.com", "iat": now, "exp": now + 3_600,
            "agent": "restart-bot", kind: { "reason": "odd calls" },
        });
        let statement = support::signed(&claims, &["console-1"]);
        produce(&self.stand.topic("source"), [("restart-bot", statement.as_bytes())]);
    }
}

/// `restart-bot` puts something forward, which it may.
const PROPOSAL: [&str; 8] =
    ["--agent", "restart-bot", "--action", "search_logs", "--resource", "checkout-api", "--verb", "propose"];

fn is_held(answer: Option<Value>) -> bool {
    answer.is_some_and(|answer| {
        answer["decision"] == false && answer["context"]["quarantine"]["by"] == "mei.chen@example.com"
    })
}

fn is_permitted(answer: Option<Value>) -> bool {
    answer.is_some_and(|answer| answer["decision"] == true)
}

#[test]
fn a_quarantine_is_heard_at_once_and_outlives_restarts_and_owners() {
    let gated = Gated::new("quarantine");
    let first = gated.stand.ready();
    assert!(is_permitted(gated.ask(0, &PROPOSAL)));
    gated.state("q-1", "quarantine");
    let stated = Instant::now();
    wait_for("a denial", LONG, || is_held(gated.ask(0, &PROPOSAL)));
    // Much of this is the tests' own command; the time is asserted nowhere, for machines are slow.
    eprintln!("from the statement's sending to the first denial: {:?}", stated.elapsed());
    assert!(is_permitted(gated.ask(0, &LOOKUP)), "declared reads go on");
    wait_for("the metric", LONG, || first.metric("tautline_quarantined_agents", "") > 0.0);
    assert_eq!(first.terminate(), Some(0));

    let again = gated.stand.ready();
    assert!(is_held(gated.ask(0, &PROPOSAL)), "a restart");
    let other = gated.other();
    wait_for("the other process", LONG, || other.get("/readyz").is_some_and(|(status, _)| status == 200));
    for gate in [0, 1] {
        wait_for("either to answer", LONG, || is_held(gated.ask(gate, &PROPOSAL)));
    }
    assert_eq!(again.terminate(), Some(0));
    wait_for("another owner", LONG, || is_held(gated.ask(1, &PROPOSAL)));

    gated.state("r-1", "release");
    wait_for("a release", LONG, || is_permitted(gated.ask(1, &PROPOSAL)));
    assert_eq!(other.terminate(), Some(0));
}

#[test]
fn whoever_is_asked_answers_by_the_behaviour_that_another_process_knows() {
    let gated = Gated::new("forwarding");
    let first = gated.stand.ready();
    let other = gated.other();
    wait_for("the other process", LONG, || other.get("/readyz").is_some_and(|(status, _)| status == 200));
    let topic = gated.stand.topic("events");
    let agents = ["restart-bot", "deploy-bot", "triage-bot", "change-advisor", "night-bot", "cluster-bot"];
    let mut owners = BTreeSet::new();
    for agent in agents {
        let arguments = ["--agent", agent, "--action", "search_logs", "--resource", "x", "--verb", "read"];
        let mut positions = Vec::new();
        for gate in [0, 1] {
            wait_for("behaviour", LONG, || {
                let known = gated
                    .ask(gate, &arguments)
                    .filter(|answer| answer["context"]["position"]["topic"] == topic.as_str());
                positions.extend(known.iter().map(|answer| answer["context"]["position"]["partition"].clone()));
                known.is_some()
            });
        }
        assert_eq!(positions[0], positions[1], "`{agent}` lies in one partition, whoever is asked");
        owners.insert(positions[0].to_string());
    }
    assert!(owners.len() > 1, "agents of several partitions, else nothing was forwarded: {owners:?}");
    assert_eq!(other.terminate(), Some(0));
    assert_eq!(first.terminate(), Some(0));
}

#[test]
fn an_agent_is_asked_for_where_its_events_are() {
    let gated = Gated::new("partitions");
    let running = gated.stand.ready();
    let agents = ["restart-bot", "deploy-bot", "triage-bot", "change-advisor"];
    let events: Vec<String> = agents
        .map(|agent| {
            json!({
                "specversion": "1.0", "type": "tautline.agent.action.v1", "id": agent, "source": "tests",
                "time": "2026-03-02T09:00:00Z", "data": { "agent": { "id": agent }, "tool": "search_logs", "verb": "read" },
            })
            .to_string()
        })
        .into();
    produce(&gated.stand.topic("source"), events.iter().map(|event| ("one", event.as_bytes())));
    wait_for("all events", LONG, || running.metric("tautline_events_total", "accepted") > 3.5);
    let reader = gated.stand.broker.reader(&gated.stand.topic("events"));
    let mut places = std::collections::BTreeMap::new();
    wait_for("the log", LONG, || {
        while let Some(Ok(message)) = reader.poll(Duration::from_millis(200)) {
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            places.insert(key, message.partition());
        }
        agents.iter().all(|agent| places.contains_key(*agent))
    });
    for agent in agents {
        let arguments = ["--agent", agent, "--action", "search_logs", "--resource", "x", "--verb", "read"];
        let answer = gated.ask(0, &arguments).unwrap();
        assert_eq!(answer["context"]["position"]["partition"], places[agent], "{agent}: {answer}");
    }
    assert_eq!(running.terminate(), Some(0));
}

/// Asks a gate over and over until `stop`, and gives what was asked and answered.
fn ask_until(url: &str, stop: &AtomicBool) -> Vec<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Client::new(url, Some(TOKEN), None).unwrap();
    let agents = ["restart-bot", "deploy-bot", "triage-bot", "change-advisor", "night-bot"];
    let acts = [("search_logs", "read"), ("ecs:UpdateService", "write"), ("custom:Deploy", "execute")];
    let mut kept = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (agent, (action, verb)) = (agents[number % agents.len()], acts[number / agents.len() % acts.len()]);
        let request = json!({
            "subject": { "type": "agent", "id": agent }, "action": { "name": action, "properties": { "verb": verb } },
            "resource": { "type": "AWS::ECS::Service", "id": "checkout-api", "properties": { "account": "222222222222" } },
            "context": { "tool": "aws_cli" },
        });
        let answer = runtime.block_on(client.ask(&request)).unwrap();
        kept.push(json!({ "request": request, "answer": answer }));
        // As many as a log of this size is asked again in a moment.
        std::thread::sleep(Duration::from_millis(4));
    }
    kept
}

#[test]
fn every_answer_holds_when_the_log_is_asked_again_whatever_was_reloaded_meanwhile() {
    const RELOADS: u32 = 100;
    let gated = Gated::new("verify");
    let running = gated.stand.ready();
    let url = format!("http://127.0.0.1:{}", gated.gates[0]);
    let control = gated.stand.directory.path().join("rules/unexpected-access/control.toml");
    let text = fs::read_to_string(&control).unwrap();
    let other = text.replace("read = 0.001", "read = 0.02");
    assert_ne!(text, other);
    let events = e2e::fleet_work(40_000);
    let stop = AtomicBool::new(false);
    let mut kept = Vec::new();
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..4).map(|_| scope.spawn(|| ask_until(&url, &stop))).collect();
        for (number, part) in (1..=RELOADS).zip(events.chunks(events.len() / RELOADS as usize)) {
            e2e::send(&gated.stand.topic("source"), part);
            fs::write(&control, if number % 2 == 1 { &other } else { &text }).unwrap();
            running.signal("-HUP");
            wait_for("a reload", LONG, || {
                running.metric("tautline_rulebook_reloads_total", "accepted") >= f64::from(number)
            });
        }
        stop.store(true, Ordering::Relaxed);
        kept = askers.into_iter().flat_map(|asker| asker.join().unwrap()).collect();
    });
    assert_eq!(running.terminate(), Some(0));

    let books: BTreeSet<String> = kept.iter().map(|kept| kept["answer"]["context"]["rulebook"].to_string()).collect();
    assert_eq!(books.len(), 2, "both rulebooks answered");
    assert!(kept.iter().all(|kept| kept["answer"]["context"]["position"].is_object()), "by behaviour, all of them");
    let file = gated.stand.directory.path().join("answers.jsonl");
    let verify = |kept: &[Value]| {
        fs::write(&file, support::lines(kept)).unwrap();
        let config = gated.stand.config();
        let named = ["--config", config.to_str().unwrap(), "--verify", file.to_str().unwrap()];
        tautline(["gate"].into_iter().chain(named), b"")
    };
    let output = verify(&kept);
    let report = text_of(&output);
    eprintln!("{} answers: {}", kept.len(), report.lines().last().unwrap_or_default());
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report.ends_with(&format!(
        "{0} answers: {0} the same, 0 differ, 0 rest on no place in `{1}`\n",
        kept.len(),
        gated.stand.topic("events")
    )));
    let wrong = kept.iter_mut().next().unwrap();
    wrong["answer"]["decision"] = json!(wrong["answer"]["decision"] == false);
    let output = verify(&kept[..10]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text_of(&output).contains("line 1: answered "), "{}", text_of(&output));
}

fn text_of(output: &Output) -> String {
    format!("{}{}", text(&output.stderr), text(&output.stdout))
}
