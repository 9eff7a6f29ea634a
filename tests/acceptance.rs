//! The measure of the detectors on recorded events: what a real attacker did is found, what a real operator does is let be.
//!
//! The agent is an operator whose past are the Invictus rows that are no detonation; it is cleared for everything that it
//! does there. Every Stratus technique is then replayed as that agent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tautline_detectors::deviation::Deviation;
use tautline_ingest::{Format, decode};

use crate::support::{RECORDED, deviations, lines, rows, tautline};

/// 2024-01-01: the past is of 2023, the techniques are of 2024.
const RECENT: i64 = 1_704_067_200_000;
const RECEIVED: i64 = 1_772_496_000_000;
/// Controls that only say that something is new or comes at an odd hour.
const HABIT: [&str; 2] = ["unexpected-access", "off-hours"];

/// Every technique, and the operations that are its own (the others in its rows prepare it, or look around).
const TECHNIQUES: [(&str, &[&str]); 18] = [
    ("aws.credential-access.ec2-get-password-data", &["GetPasswordData"]),
    ("aws.credential-access.secretsmanager-batch-retrieve-secrets", &["BatchGetSecretValue"]),
    ("aws.credential-access.ssm-retrieve-securestring-parameters", &["GetParameters"]),
    ("aws.defense-evasion.cloudtrail-event-selectors", &["PutEventSelectors"]),
    ("aws.defense-evasion.dns-delete-logs", &["DeleteResolverQueryLogConfig"]),
    ("aws.defense-evasion.vpc-remove-flow-logs", &["DeleteFlowLogs"]),
    ("aws.execution.ec2-launch-unusual-instances", &["RunInstances"]),
    ("aws.execution.ssm-send-command", &["SendCommand"]),
    ("aws.exfiltration.ec2-security-group-open-port-22-ingress", &["AuthorizeSecurityGroupIngress"]),
    ("aws.exfiltration.ec2-share-ebs-snapshot", &["ModifySnapshotAttribute"]),
    ("aws.impact.bedrock-invoke-model", &["InvokeModel"]),
    ("aws.lateral-movement.ec2-instance-connect", &["SendSSHPublicKey"]),
    ("aws.persistence.iam-backdoor-role", &["UpdateAssumeRolePolicy"]),
    ("aws.persistence.iam-create-admin-user", &["AttachUserPolicy", "CreateAccessKey", "CreateUser"]),
    ("aws.persistence.iam-create-user-login-profile", &["CreateLoginProfile"]),
    ("aws.persistence.lambda-layer-extension", &["UpdateFunctionConfiguration"]),
    ("aws.persistence.rolesanywhere-create-trust-anchor", &["CreateTrustAnchor"]),
    ("aws.privilege-escalation.iam-update-user-login-profile", &["UpdateLoginProfile"]),
];

/// The operator's past: every Invictus row that is no detonation, whoever it was.
fn past() -> Vec<Value> {
    let rows = rows("invictus");
    let operator = |event: &&Value| event["userIdentity"]["userName"] == "bert-jan";
    let identity = rows.iter().map(|row| &row["event"]).find(operator).unwrap()["userIdentity"].clone();
    let accepted = rows.into_iter().filter(|row| row["label"] != "attack_detonation");
    let past: Vec<Value> = accepted
        .map(|mut row| {
            let mut event = row["event"].take();
            event["userIdentity"] = identity.clone();
            event
        })
        .collect();
    assert_eq!(past.len(), 873);
    past
}

/// Each technique's events as the operator's own: its account, region, address and user agent.
fn techniques(past: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut often: BTreeMap<String, (usize, &Value)> = BTreeMap::new();
    for event in past {
        often.entry(event["userAgent"].to_string()).or_insert((0, event)).0 += 1;
    }
    let (_, usual) = often.into_values().max_by_key(|(count, _)| *count).unwrap();
    let mut techniques: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in rows("stratus") {
        let own = |key: &str| usual[key].as_str().unwrap().to_owned();
        let account = row["event"]["recipientAccountId"].as_str().unwrap();
        // Also where a request names the account, so that what was its own stays its own.
        let text = row["event"].to_string().replace(account, &own("recipientAccountId"));
        let mut event: Value = serde_json::from_str(&text).unwrap();
        for key in ["awsRegion", "sourceIPAddress", "userAgent", "userIdentity"] {
            event[key] = usual[key].clone();
        }
        techniques.entry(row["technique"].as_str().unwrap().to_owned()).or_default().push(event);
    }
    techniques
}

/// How the agent's past is given.
#[derive(Clone, Copy, Debug)]
enum Given {
    /// Accepted by a person: `--history`.
    History,
    /// As ordinary events that came before, judged and learned from.
    Before,
}

/// The deviations of `events` after `past`.
fn replay(past: &str, events: &[Value], given: Given) -> Vec<Deviation> {
    let mut arguments = vec!["replay", "--output", "json"];
    arguments.extend(RECORDED);
    arguments.extend(match given {
        Given::History => ["--history", past],
        Given::Before => ["--", past],
    });
    arguments.push("-");
    let output = tautline(arguments, lines(events).as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ids: BTreeSet<&str> = events.iter().map(|event| event["eventID"].as_str().unwrap()).collect();
    let mut found = deviations(&output);
    found.retain(|deviation| ids.contains(deviation.event.id.rsplit('/').next().unwrap()));
    found
}

fn file_of(events: &[Value]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines(events)).unwrap();
    file
}

#[test]
fn every_recorded_event_decodes() {
    let mut count = 0;
    for row in rows("stratus").iter().chain(&rows("invictus")) {
        let bytes = row["event"].to_string();
        for format in [Format::Cloudtrail, Format::Auto] {
            let decoded = decode(bytes.as_bytes(), format, RECEIVED);
            assert!(matches!(decoded.as_slice(), [Ok(_)]), "{decoded:?}: {bytes}");
            count += 1;
        }
    }
    assert_eq!(count, 2 * (142 + 1_017));
}

/// At least 16 of the 18 techniques raise an alert that names the technique's own operation, at least 9 of them by a control
/// that does not need the past.
fn finds_the_techniques(given: Given) {
    let past = past();
    let before = file_of(&past);
    let techniques = techniques(&past);
    assert_eq!(techniques.keys().collect::<Vec<_>>(), TECHNIQUES.map(|(name, _)| name).iter().collect::<Vec<_>>());
    let (mut named, mut ruled) = (Vec::new(), Vec::new());
    for (technique, operations) in TECHNIQUES {
        let found = replay(before.path().to_str().unwrap(), &techniques[technique], given);
        assert!(found.iter().all(|deviation| deviation.at > RECENT && deviation.agent.id == "provisioner"));
        let own = |deviation: &&Deviation| {
            let name = deviation.event.action.split_once(':').unwrap().1;
            operations.contains(&name) && deviation.summary.contains(name)
        };
        let own: Vec<&Deviation> = found.iter().filter(own).collect();
        named.extend(own.first().map(|_| technique));
        ruled.extend(own.iter().any(|deviation| !HABIT.contains(&deviation.control.as_str())).then_some(technique));
    }
    assert!(named.len() >= 16, "{given:?}: only {} techniques are named: {named:#?}", named.len());
    assert!(ruled.len() >= 9, "{given:?}: only {} techniques break a rule: {ruled:#?}", ruled.len());
}

#[test]
fn techniques_are_found_after_an_accepted_past() {
    finds_the_techniques(Given::History);
}

#[test]
fn techniques_are_found_after_ordinary_events() {
    finds_the_techniques(Given::Before);
}

#[test]
fn at_most_two_percent_of_ordinary_reads_alert() {
    let past = past();
    let (first, second) = past.split_at(past.len() / 2);
    let first = file_of(first);
    let reads: BTreeSet<&str> = second
        .iter()
        .filter(|event| event["readOnly"] == true)
        .map(|event| event["eventID"].as_str().unwrap())
        .collect();
    assert!(reads.len() > 300, "{} reads show little", reads.len());
    for given in [Given::History, Given::Before] {
        let found = replay(first.path().to_str().unwrap(), second, given);
        let alerting: BTreeSet<&str> = found.iter().map(|d| d.event.id.rsplit('/').next().unwrap()).collect();
        let wrong = reads.intersection(&alerting).count();
        assert!(wrong * 50 <= reads.len(), "{given:?}: {wrong} of {} reads alert", reads.len());
    }
}
