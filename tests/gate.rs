//! Asking before the act, by the real binary: a running process, and the rules on disk.

use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::broker::{free_port, wait_for};
use crate::e2e::{LONG, Stand};
use crate::support::{root, tautline};

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
