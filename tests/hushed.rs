//! What is found and not alerted: exceptions and controls on trial, by the real binary and a real broker.

use std::fs;

use serde_json::{Value, json};

use crate::broker::{produce, wait_for};
use crate::e2e::{LONG, Stand};

/// An observer's change, which `agent-classes` forbids.
fn change(number: u32, time: &str) -> String {
    json!({
        "specversion": "1.0", "type": "tautline.agent.action.v1", "id": format!("h-{number}"), "source": "tests", "time": time,
        "data": {
            "agent": { "id": "triage-bot" }, "tool": "aws_cli", "operation": "ecs:UpdateService", "verb": "write",
            "account": "222222222222", "resource": { "type": "AWS::ECS::Service", "id": format!("service-{number}") },
        },
    })
    .to_string()
}

fn of_control<'a>(alerts: &'a [Value], control: &str) -> Vec<&'a Value> {
    alerts.iter().filter(|alert| alert["metadata"]["event_code"] == control).collect()
}

#[test]
fn what_an_exception_hid_is_counted_and_is_no_flood_when_it_ends() {
    const HIDDEN: u32 = 10_000;
    let stand = Stand::new("exception", "");
    let exceptions = "longest = \"90d\"\n[exceptions.migration]\ncontrol = \"agent-classes\"\nagent = \"triage-bot\"\n\
        operations = [\"ecs:*\"]\nby = \"mei.chen@example.com\"\nwhy = \"the migration\"\nsince = \"2026-03-01T00:00:00Z\"\n\
        until = \"2026-03-03T00:00:00Z\"\n";
    fs::write(stand.directory.path().join("rules/example/exceptions.toml"), exceptions).unwrap();
    let running = stand.ready();
    let hidden: Vec<String> = (0..HIDDEN)
        .map(|number| change(number, &format!("2026-03-02T{:02}:{:02}:00Z", number / 600, number / 10 % 60)))
        .collect();
    produce(&stand.topic("source"), hidden.iter().map(|event| ("k", event.as_bytes())));
    let counted =
        |why: &str| running.metric("tautline_hushed_total", &format!("control=\"agent-classes\",why=\"{why}\""));
    wait_for("all that is hidden", LONG, || counted("exception") >= f64::from(HIDDEN));
    let next = change(HIDDEN, "2026-03-03T00:00:01Z");
    produce(&stand.topic("source"), [("k", next.as_bytes())]);
    let alerts = || stand.alerts();
    wait_for("the alert of the next one", LONG, || !of_control(&alerts(), "agent-classes").is_empty());
    let alerts = alerts();
    let told = of_control(&alerts, "agent-classes");
    assert_eq!(told.len(), 1, "nothing of what was hidden");
    assert!(told[0]["finding_info"]["uid"].as_str().unwrap().contains("h-10000"), "{}", told[0]);
    assert!((counted("exception") - f64::from(HIDDEN)).abs() < f64::EPSILON);
    assert_eq!(running.terminate(), Some(0));
}

#[test]
fn a_control_on_trial_counts_and_does_not_alert() {
    let stand = Stand::new("shadow", "");
    let control = stand.directory.path().join("rules/agent-classes/control.toml");
    let text = fs::read_to_string(&control).unwrap();
    fs::write(&control, text.replace("response = ", "mode = \"shadow\"\nresponse = ")).unwrap();
    let running = stand.ready();
    let events: Vec<String> = (0..20).map(|number| change(number, "2026-03-02T09:00:00Z")).collect();
    produce(&stand.topic("source"), events.iter().map(|event| ("k", event.as_bytes())));
    let counted = || running.metric("tautline_hushed_total", "control=\"agent-classes\",why=\"shadow\"");
    wait_for("all of them", LONG, || counted() >= 20.0);
    assert!(of_control(&stand.alerts(), "agent-classes").is_empty());
    assert!(stand.broker.read_committed(&stand.topic("revocations")).is_empty(), "and nothing follows");
    assert_eq!(running.terminate(), Some(0));
}
