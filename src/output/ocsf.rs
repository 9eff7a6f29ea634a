//! Alerts as OCSF 1.8.0 Detection Findings (class 2004).

use serde_json::{Map, Value, json};
use tautline_detectors::deviation::{Deviation, Evidence, Severity};
use tautline_detectors::event::Outcome;
use tautline_detectors::rulebook::{Catalogue, Framework};

const VERSION: &str = "1.8.0";

/// Where the deviating event lies in the log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Position {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// A deviation as a Detection Finding. What OCSF has no place for, the whole deviation, is under `unmapped.tautline`.
pub(crate) fn detection_finding(deviation: &Deviation, position: Option<&Position>) -> Value {
    let statistical = deviation.evidence.iter().any(|evidence| evidence.p_value.is_some());
    let mut finding = json!({
        "activity_id": 1, "activity_name": "Create",
        "category_uid": 2, "category_name": "Findings",
        "class_uid": 2004, "class_name": "Detection Finding",
        "type_uid": 200_401, "type_name": "Detection Finding: Create",
        "severity_id": severity_id(deviation.severity), "severity": severity_name(deviation.severity),
        "status_id": 1, "status": "New",
        "time": deviation.at,
        "message": deviation.summary,
        "metadata": metadata(deviation),
        "finding_info": finding_info(deviation, statistical),
        "evidences": [evidence(deviation)],
        "resources": resources(deviation),
        "remediation": { "desc": deviation.counterfactual },
        "unmapped": { "tautline": { "deviation": deviation, "log": position } },
    });
    if statistical && let Some(object) = finding.as_object_mut() {
        object.insert("anomaly_analyses".to_owned(), anomaly_analyses(deviation));
    }
    prune(&mut finding);
    finding
}

pub(super) fn severity_id(severity: Severity) -> u8 {
    match severity {
        Severity::Informational => 1,
        Severity::Low => 2,
        Severity::Medium => 3,
        Severity::High => 4,
        Severity::Critical => 5,
    }
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Informational => "Informational",
        Severity::Low => "Low",
        Severity::Medium => "Medium",
        Severity::High => "High",
        Severity::Critical => "Critical",
    }
}

pub(super) fn metadata(deviation: &Deviation) -> Value {
    json!({
        "version": VERSION,
        "uid": deviation.id,
        "product": { "name": "Tautline", "vendor_name": "Tautline", "version": env!("CARGO_PKG_VERSION") },
        "event_code": deviation.control,
        "correlation_uid": deviation.event.id,
        "original_event_uid": deviation.event.id,
    })
}

fn finding_info(deviation: &Deviation, statistical: bool) -> Value {
    let (type_id, type_name) = if statistical { (3, "Statistical") } else { (1, "Rule") };
    json!({
        "uid": deviation.id,
        "title": deviation.title,
        "desc": deviation.summary,
        "created_time": deviation.at,
        "types": [deviation.control],
        "analytic": {
            "uid": deviation.policy.as_ref().map_or(&deviation.control, |policy| &policy.id),
            "name": deviation.title,
            "type_id": type_id, "type": type_name,
            "version": deviation.rulebook,
        },
        "attacks": deviation.frameworks.iter().filter_map(attack).collect::<Vec<_>>(),
        "tags": deviation.frameworks.iter().filter(|f| f.catalogue == Catalogue::Owasp)
            .map(|f| json!({ "name": format!("OWASP Agentic {}", f.version), "value": f.id })).collect::<Vec<_>>(),
    })
}

/// MITRE entries; OWASP's are tags, for OCSF's attack object is MITRE's.
fn attack(framework: &Framework) -> Option<Value> {
    let version = match framework.catalogue {
        Catalogue::Owasp => return None,
        Catalogue::Attack => format!("ATT&CK {}", framework.version),
        Catalogue::Atlas => format!("ATLAS {}", framework.version),
    };
    let entry = json!({ "uid": framework.id, "name": framework.name });
    // `T1098.003` is a sub-technique, `AML.T0053` and `T1580` are techniques.
    let kind = if framework.id.trim_start_matches("AML.").contains('.') { "sub_technique" } else { "technique" };
    Some(json!({ kind: entry, "version": version }))
}

fn evidence(deviation: &Deviation) -> Value {
    let event = &deviation.event;
    let service = event.action.split_once(':').map(|(service, _)| json!({ "name": service }));
    let error = match &event.outcome {
        Outcome::Denied(reason) | Outcome::Failed(reason) => Some(json!({ "error": reason })),
        Outcome::Success | Outcome::Unknown => None,
    };
    let session = match (&event.run, event.principal.session.as_str()) {
        (Some(run), _) if !run.session.is_empty() => run.session.as_str(),
        (_, session) => session,
    };
    let address = event.origin.address.as_str();
    let numeric = address.parse::<std::net::IpAddr>().is_ok();
    json!({
        "actor": {
            "user": { "uid": deviation.agent.id, "name": event.principal.id, "type_id": 99, "type": "AI Agent",
                      "credential_uid": event.credential.id,
                      "account": { "uid": event.place.account } },
            "session": { "uid": session },
            "app_name": event.tool,
        },
        "api": { "operation": event.action, "service": service, "response": error,
                 "request": { "uid": event.trace.as_ref().map(|trace| &trace.request_id) } },
        "src_endpoint": { "name": address, "ip": numeric.then_some(address), "svc_name": (!numeric).then_some(address) },
        "data": { "source": event.source.name(), "event": event.id, "outcome": event.outcome.name() },
    })
}

fn resources(deviation: &Deviation) -> Value {
    let event = &deviation.event;
    if event.resource.kind.is_empty() && event.resource.id.is_empty() {
        return Value::Null;
    }
    let name = if event.resource.id.is_empty() { &event.resource.kind } else { &event.resource.id };
    json!([{
        "uid": event.resource.id, "name": name, "type": event.resource.kind,
        "criticality": event.place.tier, "owner": { "name": event.place.team },
        "labels": [format!("environment:{}", event.place.environment)],
    }])
}

fn anomaly_analyses(deviation: &Deviation) -> Value {
    let anomaly = |evidence: &Evidence| {
        json!({
            "observation_parameter": evidence.what,
            "observation_type": "Agent behavior",
            "observed_pattern": evidence.observed,
            "observations": [{ "value": evidence.observed, "count": 1 }],
        })
    };
    let baseline = |evidence: &Evidence| {
        json!({
            "observation_parameter": evidence.what,
            "observation_type": "Agent behavior",
            "observed_pattern": evidence.expected,
            "observations": [{ "value": evidence.expected, "count": evidence.sample }],
        })
    };
    let statistical = || deviation.evidence.iter().filter(|evidence| evidence.p_value.is_some());
    json!([{
        "analysis_targets": [{ "name": deviation.agent.id, "type": "AI Agent" }],
        "anomalies": statistical().map(anomaly).collect::<Vec<_>>(),
        "baselines": statistical().map(baseline).collect::<Vec<_>>(),
    }])
}

/// Takes out what says nothing: nulls, empty texts, empty lists and objects. `unmapped` keeps our own form whole.
fn prune(value: &mut Value) {
    if let Value::Object(object) = value {
        let entries = std::mem::take(object);
        *object = entries.into_iter().filter_map(|(key, value)| pruned(key, value)).collect::<Map<_, _>>();
    }
}

fn pruned(key: String, mut value: Value) -> Option<(String, Value)> {
    if key == "unmapped" {
        return Some((key, value));
    }
    match &mut value {
        Value::Array(items) => {
            items.iter_mut().for_each(prune);
            items.retain(|item| !says_nothing(item));
        }
        other => prune(other),
    }
    (!says_nothing(&value)).then_some((key, value))
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}
