#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::*;

fn record() -> Value {
    json!({
        "activity_id": 4, "category_uid": 6, "class_uid": 6003, "class_name": "API Activity", "time": 1_772_442_904_123_i64,
        "metadata": {"uid": "m-1", "version": "1.8.0", "product": {"name": "Cloud Audit Logs", "vendor_name": "Google"}},
        "actor": {
            "user": {"email_addr": "janitor@shop.iam.gserviceaccount.com", "uid": "117", "name": "janitor"},
            "session": {"uid": "s-1", "created_time": 1_772_442_000_000_i64, "is_mfa": false}
        },
        "api": {
            "operation": "storage.buckets.delete", "service": {"name": "storage.googleapis.com"},
            "request": {"uid": "r-1", "data": "{\"bucket\":\"b\"}"}, "response": {"code": 204}
        },
        "cloud": {"provider": "GCP", "account": {"uid": "shop"}, "region": "eu"},
        "resources": [{"type": "gcs_bucket", "uid": "projects/_/buckets/b"}],
        "src_endpoint": {"ip": "198.51.100.7"}, "http_request": {"user_agent": "gcloud/500"},
        "status_id": 1, "severity_id": 1, "type_uid": 600_304
    })
}

fn with(changes: &[(&str, Value)]) -> Event {
    let mut record = record();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        record.pointer_mut(parent).unwrap()[name] = value.clone();
    }
    decode(&record.to_string()).unwrap()
}

#[test]
fn an_activity_says_who_did_what_to_what_and_where() {
    let event = with(&[]);
    assert_eq!((event.id.as_str(), event.at), ("ocsf/shop/m-1", 1_772_442_904_123));
    assert_eq!(event.principal.id, "janitor@shop.iam.gserviceaccount.com");
    assert_eq!((event.principal.session.as_str(), event.credential.mfa), ("s-1", Some(false)));
    assert_eq!((event.action.as_str(), event.verb), ("storage.googleapis.com:storage.buckets.delete", Verb::Write));
    assert_eq!((event.resource.kind.as_str(), event.resource.id.as_str()), ("gcs_bucket", "projects/_/buckets/b"));
    assert_eq!((event.place.account.as_str(), event.place.region.as_str()), ("shop", "eu"));
    assert_eq!((event.outcome, event.origin.address.as_str()), (Outcome::Success, "198.51.100.7"));
    assert_eq!(event.credential.issued_at, Some(1_772_442_000_000));
    assert_eq!((event.arguments[0].name.as_str(), event.arguments[0].value.as_str()), ("bucket", "b"));
    assert_eq!(event.trace.unwrap().request_id, "r-1");
}

#[test]
fn a_refusal_is_told_from_a_failure() {
    let outcome = |status: u32, error: &str| {
        with(&[("/status_id", json!(status)), ("/api/response", json!({"error": error, "code": null}))]).outcome
    };
    assert_eq!(outcome(2, "AccessDenied"), Outcome::Denied("AccessDenied".to_owned()));
    assert_eq!(outcome(2, "NoSuchBucket"), Outcome::Failed("NoSuchBucket".to_owned()));
    assert_eq!(outcome(99, ""), Outcome::Unknown);
    let code = |code: u32| with(&[("/status_id", json!(0)), ("/api/response", json!({"code": code}))]).outcome;
    assert_eq!(code(403), Outcome::Denied("403".to_owned()));
    assert_eq!((code(500), code(200)), (Outcome::Failed("500".to_owned()), Outcome::Success));
    let stopped = [("/status_id", json!(1)), ("/action_id", json!(2)), ("/status_code", json!("blocked"))];
    assert_eq!(with(&stopped).outcome, Outcome::Denied("blocked".to_owned()));
}

#[test]
fn verbs_are_told_by_activity_and_class() {
    let verb = |activity: u32| with(&[("/activity_id", json!(activity))]).verb;
    assert_eq!([1, 2, 3, 4, 99].map(verb), [Verb::Write, Verb::Read, Verb::Write, Verb::Write, Verb::Write]);
    let class = |uid: u32, name: &str| {
        with(&[("/class_uid", json!(uid)), ("/class_name", json!(name)), ("/category_uid", json!(3))]).verb
    };
    assert_eq!(class(3_001, "Account Change"), Verb::PermissionChange);
    assert_eq!(class(3_002, "Authentication"), Verb::Read);
    assert_eq!(class(3_005, "User Access Management"), Verb::PermissionChange);
    assert_eq!(class(3_005, "API Activity"), Verb::Write);
}

#[test]
fn other_classes_are_unsupported_and_what_is_missing_is_named() {
    let rejection = |json: Value| decode(&json.to_string()).unwrap_err();
    let finding = rejection(json!({"class_uid": 2004, "class_name": "Detection Finding", "api": "text"}));
    assert_eq!(finding.reason, Reason::Unsupported);
    assert_eq!(finding.detail, "`class_uid` is 2004 (`Detection Finding`): it tells of no call of an API");
    assert_eq!(rejection(json!({"class_uid": 6003, "time": 1})).detail, "`api.operation` is missing");
    assert_eq!(rejection(json!({"class_uid": 6003, "api": {"operation": "x"}})).detail, "`time` is missing");
    assert_eq!(rejection(json!({"class_uid": "6003"})).reason, Reason::WrongType);
}

#[test]
fn an_operation_of_a_cloud_means_what_it_means_there() {
    let verb = |operation: &str, service: &str, activity: u32| {
        let api = json!({"operation": operation, "service": {"name": service}});
        with(&[("/api", api), ("/activity_id", json!(activity))]).verb
    };
    let (projects, storage) = ("cloudresourcemanager.googleapis.com", "storage.googleapis.com");
    assert_eq!(verb("SetIamPolicy", projects, 3), Verb::PermissionChange);
    assert_eq!(verb("storage.objects.get", storage, 99), Verb::Read);
    assert_eq!(verb("Microsoft.Authorization/roleAssignments/write", "Azure", 1), Verb::PermissionChange);
    assert_eq!(verb("Microsoft.Compute/virtualMachines/runCommand/action", "Azure", 99), Verb::Execute);
    assert_eq!(verb("Microsoft.Compute/virtualMachines/delete", "Azure", 2), Verb::Write);
    assert_eq!(verb("AccessSecretVersion", "secretmanager.googleapis.com", 2), Verb::Read);
    assert_eq!(verb("DeleteBucket", "s3.amazonaws.com", 99), Verb::Write);
}

#[test]
fn what_reaches_into_a_container_is_an_execution() {
    let event = |path: &str, unmapped: Value| {
        with(&[
            ("/metadata/product", json!({"name": "Amazon EKS", "version": "audit.k8s.io/v1"})),
            ("/api", json!({"operation": "create", "version": "v1", "response": {"code": 101}})),
            ("/resources", json!([{"type": "pods", "name": "front", "namespace": "web"}])),
            ("/http_request", json!({"url": {"path": path}})),
            ("/unmapped", unmapped),
        ])
    };
    let nested = event("", json!({"objectRef": {"subresource": "exec"}}));
    assert_eq!((nested.action.as_str(), nested.verb), ("k8s.io:io.k8s.core.v1.pods.exec.create", Verb::Execute));
    assert_eq!(event("", json!({"objectRef.subresource": "attach"})).verb, Verb::Execute);
    assert_eq!(event("/api/v1/namespaces/web/pods/front/portforward?ports=80", json!({})).verb, Verb::Execute);
    assert_eq!(event("/api/v1/namespaces/web/pods", json!({"objectRef": {}})).verb, Verb::Write);
    assert_eq!(event("", json!("text")).verb, Verb::Write);
}

#[test]
fn an_operation_of_azure_is_as_azure_tells_it() {
    let event = with(&[("/api/operation", json!("Microsoft.Compute/virtualMachines/delete"))]);
    assert_eq!(event.action, "microsoft.compute/virtualmachines/delete");
}
