//! Requests to undo a change, as OCSF 1.8.0 Remediation Activities (class 7001): to restore what was before.

use serde_json::{Value, json};
use tautline_detectors::deviation::Deviation;

use super::ocsf;

/// The request to undo what a deviation says should be undone; `None` where nothing is. Its `command_uid` is what an
/// acknowledgement names. What undoes it, and whom to notify, is under `unmapped.tautline`.
pub(crate) fn remediation(deviation: &Deviation) -> Option<Value> {
    let rollback = deviation.rollback.as_ref()?;
    Some(json!({
        "activity_id": 3, "activity_name": "Restore",
        "category_uid": 7, "category_name": "Remediation",
        "class_uid": 7001, "class_name": "Remediation Activity",
        "type_uid": 700_103, "type_name": "Remediation Activity: Restore",
        "severity_id": ocsf::severity_id(deviation.severity),
        "status_id": 99, "status": "Requested",
        "time": deviation.at,
        "message": deviation.summary,
        "metadata": ocsf::metadata(deviation),
        "command_uid": rollback.id,
        "unmapped": { "tautline": { "rollback": rollback, "agent": deviation.agent, "deviation": deviation.id } },
    }))
}
