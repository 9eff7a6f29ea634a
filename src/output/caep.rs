//! Revocation requests as the claims of CAEP 1.0 security event tokens (RFC 8417). Signing and delivery come after.

use serde_json::{Value, json};
use tautline_detectors::deviation::{Deviation, RevocationSubject};
use tautline_detectors::event::Millis;

use crate::config::Revocation;

const EVENT_TYPE: &str = "https://schemas.openid.net/secevent/caep/event-type/";

/// The claims that ask for this deviation's subject to be revoked; `None` where nothing is to be revoked.
///
/// `now` is the time of issue in milliseconds. `txn` is the deviation's id, the same as the alert's `finding_info.uid`.
pub(crate) fn claims(deviation: &Deviation, parties: &Revocation, now: Millis) -> Option<Value> {
    let subject = deviation.revocation.as_ref()?;
    let mut event = json!({
        "event_timestamp": deviation.at.div_euclid(1_000),
        "initiating_entity": "policy",
        "reason_admin": { "en": deviation.summary },
    });
    let (name, sub_id) = match subject {
        RevocationSubject::Session { principal, session } => {
            ("session-revoked", json!({ "format": "complex", "user": opaque(principal), "session": opaque(session) }))
        }
        RevocationSubject::Credential { principal, credential } => {
            if let Some(object) = event.as_object_mut() {
                object.insert("credential_type".to_owned(), json!("access-key"));
                object.insert("change_type".to_owned(), json!("revoke"));
                object.insert("friendly_name".to_owned(), json!(credential));
            }
            ("credential-change", json!({ "format": "complex", "user": opaque(principal) }))
        }
    };
    Some(json!({
        "iss": parties.issuer,
        "aud": parties.audience,
        "jti": format!("revocation/{}", deviation.id),
        "iat": now.div_euclid(1_000),
        "txn": deviation.id,
        "sub_id": sub_id,
        "events": { format!("{EVENT_TYPE}{name}"): event },
    }))
}

fn opaque(id: &str) -> Value {
    json!({ "format": "opaque", "id": id })
}
