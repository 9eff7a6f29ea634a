//! Every control on live input: what each control's own events show, through a real broker.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::broker::{produce, wait_for};
use crate::e2e::{LONG, Stand, TICKS};
use crate::support::{self, entries, file, root, tautline};

/// A key of the tests as the private JSON Web Key that `tautline sign` takes.
fn private_key(stand: &Stand, id: &str) -> String {
    let path = stand.directory.path().join(format!("{id}.jwk"));
    fs::write(&path, support::private_jwk(id).to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A line of a control's events; what is to be signed is signed, by the real command.
fn line(stand: &Stand, line: &str) -> String {
    let Some(read) = line.starts_with("{\"sign\"").then(|| serde_json::from_str::<Value>(line).unwrap()) else {
        return line.to_owned();
    };
    let keys: Vec<String> =
        read["sign"].as_array().unwrap().iter().map(|id| private_key(stand, id.as_str().unwrap())).collect();
    if keys.is_empty() {
        return bare(read["claims"].clone()).to_string();
    }
    let arguments = ["sign", "-"].into_iter().chain(keys.iter().flat_map(|key| ["--key", key.as_str()]));
    let output = tautline(arguments, read["claims"].to_string().as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Claims that nobody signed.
fn bare(mut claims: Value) -> Value {
    for name in ["iat", "exp"] {
        claims[name] = json!(claims[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second());
    }
    claims["approval"]["digest"] = json!("");
    claims
}

/// The past that a control needs, and its first scenario; with the time of its first event.
fn scenario(folder: &Path) -> (String, Vec<String>) {
    let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let fires = text("fires.jsonl");
    let first = fires.split("\n\n").next().unwrap();
    let lines: Vec<String> =
        text("history.jsonl").lines().chain(first.lines()).filter(|l| !l.is_empty()).map(str::to_owned).collect();
    let time = ["\"time\":\"", "\"eventTime\":\"", "\"iat\":\""].into_iter().find_map(|name| lines[0].split_once(name));
    (time.unwrap().1[..20].to_owned(), lines)
}

/// The rules of a stand, with issuers that the tests can sign for.
pub(crate) fn with_test_keys(stand: &Stand) {
    for path in entries(&stand.directory.path().join("rules/example/issuers")) {
        let name = format!("registry/issuers/{}", path.file_name().unwrap().to_str().unwrap());
        let mut set = [file(&name, &fs::read_to_string(&path).unwrap())];
        support::with_test_keys(&mut set);
        fs::write(&path, &set[0].text).unwrap();
    }
}

#[test]
fn every_control_fires_on_live_input() {
    let stand = Stand::new("controls", TICKS);
    with_test_keys(&stand);
    let rules = root().join("rules");
    let folders = entries(&rules).into_iter().filter(|path| path.join("control.toml").exists());
    let (mut scenarios, mut expected) = (Vec::new(), BTreeSet::new());
    for folder in folders {
        expected.insert(folder.file_name().unwrap().to_str().unwrap().to_owned());
        scenarios.push(scenario(&folder));
    }
    scenarios.sort();
    let lines: Vec<String> = scenarios.iter().flat_map(|(_, lines)| lines).map(|l| line(&stand, l)).collect();
    let tautline = stand.ready();
    produce(&stand.topic("source"), lines.iter().map(|line| ("one", line.as_bytes())));

    let fired = || -> BTreeSet<String> {
        let alerts = stand.alerts();
        alerts.iter().map(|alert| alert["metadata"]["event_code"].as_str().unwrap().to_owned()).collect()
    };
    wait_for("an alert of every control", LONG, || {
        let quiet: Vec<String> = expected.difference(&fired()).cloned().collect();
        if !quiet.is_empty() {
            eprintln!("quiet so far: {quiet:?}");
        }
        quiet.is_empty()
    });
    let requests = stand.broker.read_committed(&stand.topic("rollbacks"));
    assert!(!requests.is_empty(), "no rollback was requested");
    let request: Value = serde_json::from_slice(&requests[0]).unwrap();
    assert_eq!(request["class_uid"], 7001);
    assert!(request["command_uid"].as_str().unwrap().starts_with("rollback/"));
    assert_eq!(tautline.terminate(), Some(0));
}

/// What Alertmanager sends of one alert about the agent.
fn notification(starts_at: &str) -> String {
    let labels = json!({"alertname": "HighErrorRate", "agent": "restart-bot"});
    let alert = json!({"status": "firing", "labels": labels, "startsAt": starts_at, "fingerprint": "8f1c"});
    json!({"version": "4", "receiver": "tautline", "status": "firing", "alerts": [alert]}).to_string()
}

#[test]
fn an_alert_of_alertmanager_asks_for_the_change_before_it_to_be_undone() {
    let stand = Stand::new("alertmanager", "");
    with_test_keys(&stand);
    private_key(&stand, "monitoring-1");
    fs::write(stand.directory.path().join("token"), "secret-1").unwrap();
    let section = format!(
        "[alertmanager]\nissuer = \"https://monitoring.example.com\"\ntopic = \"{}\"\ntoken = {{ file = \"token\" }}\n\
         key = {{ file = \"monitoring-1.jwk\" }}\n",
        stand.topic("source")
    );
    fs::write(stand.config(), fs::read_to_string(stand.config()).unwrap() + &section).unwrap();
    let ago = |seconds: i64| jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() - seconds).unwrap();
    let fires = fs::read_to_string(root().join("rules/rollback/fires.jsonl")).unwrap();
    let change = fires.lines().next().unwrap().replace("2026-05-06T09:00:00Z", &ago(120).to_string());

    let tautline = stand.ready();
    produce(&stand.topic("source"), [("one", change.as_bytes())]);
    wait_for("the change", LONG, || stand.broker.read_committed(&stand.topic("events")).len() > 1);
    let (path, alert) = ("/signals/alertmanager", notification(&ago(60).to_string()));
    assert_eq!(tautline.post(path, "secret-2", &alert).unwrap().0, 401);
    // Alertmanager tells of what goes on firing again and again.
    for _ in 0..2 {
        assert_eq!(tautline.post(path, "secret-1", &alert).unwrap(), (200, "1 signals\n".to_owned()));
    }
    let requests = || stand.broker.read_committed(&stand.topic("rollbacks"));
    wait_for("the request", LONG, || !requests().is_empty());
    let request: Value = serde_json::from_slice(&requests()[0]).unwrap();
    assert!(request.to_string().contains("signal `HighErrorRate` came"), "{request}");
    assert_eq!(tautline.terminate(), Some(0));
    assert_eq!(requests().len(), 1, "an alert that is told of twice is one signal");
}
