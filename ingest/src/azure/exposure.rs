//! Does a request open something to whoever asks, or to whoever has a link?
//!
//! Only requests tell, and many records leave them out: a container that is written without its body may have been opened.

use serde_json::Value;

/// Operations, in lower case, that hand out a link with which anybody reads a disk.
const LINKS: [&str; 3] = [
    "microsoft.compute/disks/begingetaccess/action",
    "microsoft.compute/snapshots/begingetaccess/action",
    "microsoft.compute/restorepointcollections/restorepoints/retrievesasuris/action",
];

/// Whether a request, of which there may be the body, exposes what it is aimed at.
pub(super) fn exposes(action: &str, body: Option<&str>) -> bool {
    let body = body.and_then(|text| serde_json::from_str::<Value>(text).ok()).unwrap_or_default();
    if LINKS.contains(&action) {
        // A link to write is for an upload.
        return !has(&body, "access", &["write", "none"]);
    }
    has(&body, "publicaccess", &["blob", "container"])
        || has(&body, "allowblobpublicaccess", &["true"])
        || has(&body, "anonymouspullenabled", &["true"])
        || (action == "microsoft.compute/galleries/share/action" && has(&body, "type", &["community", "aadtenants"]))
}

/// Whether a member of this name, in lower case, has one of these values anywhere; the parser bounds how deep that is.
fn has(value: &Value, name: &str, wanted: &[&str]) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(member, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (member.eq_ignore_ascii_case(name) && wanted.iter().any(|wanted| text.eq_ignore_ascii_case(wanted)))
                || has(value, name, wanted)
        }),
        Value::Array(elements) => elements.iter().any(|element| has(element, name, wanted)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_is_told_from_what_closes_and_from_what_does_not_say() {
        let container = "microsoft.storage/storageaccounts/blobservices/containers/write";
        let account = "microsoft.storage/storageaccounts/write";
        let disk = "microsoft.compute/disks/begingetaccess/action";
        let registry = "microsoft.containerregistry/registries/write";
        let gallery = "microsoft.compute/galleries/share/action";
        for (action, body, expected) in [
            (container, Some(r#"{"properties":{"publicAccess":"Blob"}}"#), true),
            (container, Some(r#"{"properties":{"publicAccess":"None"}}"#), false),
            (container, None, false),
            (account, Some(r#"{"properties":{"allowBlobPublicAccess":true}}"#), true),
            (account, Some(r#"{"properties":{"allowBlobPublicAccess":false}}"#), false),
            (registry, Some(r#"{"properties":{"anonymousPullEnabled":true}}"#), true),
            (disk, None, true),
            (disk, Some(r#"{"access":"Read","durationInSeconds":3600}"#), true),
            (disk, Some(r#"{"access":"Write"}"#), false),
            ("microsoft.compute/disks/endgetaccess/action", None, false),
            (gallery, Some(r#"{"operationType":"Add","groups":[{"type":"AADTenants","ids":["t"]}]}"#), true),
            (gallery, Some(r#"{"operationType":"Add","groups":[{"type":"Subscriptions","ids":["s"]}]}"#), false),
        ] {
            assert_eq!(exposes(action, body), expected, "{action} {body:?}");
        }
    }
}
