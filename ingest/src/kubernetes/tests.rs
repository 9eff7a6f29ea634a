#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::*;

fn record() -> Value {
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "id-1",
        "stage": "ResponseComplete", "verb": "create",
        "requestURI": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "user": {
            "username": "system:serviceaccount:agents:janitor",
            "extra": {
                "authentication.kubernetes.io/pod-name": ["janitor-7"],
                "authentication.kubernetes.io/credential-id": ["JTI=1"]
            }
        },
        "sourceIPs": ["203.0.113.9", "198.51.100.7"], "userAgent": "kubectl/v1.34.0",
        "objectRef": {
            "resource": "clusterrolebindings", "name": "b", "apiGroup": "rbac.authorization.k8s.io", "apiVersion": "v1"
        },
        "responseStatus": {"metadata": {}, "code": 201},
        "requestObject": {"subjects": [{"kind": "User", "name": "eve"}], "roleRef": {"name": "cluster-admin"}},
        "requestReceivedTimestamp": "2026-03-02T09:15:04.100000Z", "stageTimestamp": "2026-03-02T09:15:04.123456Z",
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""}
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
fn an_event_says_who_did_what_to_what() {
    let event = with(&[]);
    assert_eq!(event.id, "kubernetes//id-1#ResponseComplete");
    assert_eq!(event.at, 1_772_442_904_123);
    assert_eq!(
        (event.principal.id.as_str(), event.principal.session.as_str()),
        ("system:serviceaccount:agents:janitor", "janitor-7")
    );
    assert_eq!(event.action, "k8s.io:io.k8s.authorization.rbac.v1.clusterrolebindings.create");
    assert_eq!((event.verb, event.outcome), (Verb::PermissionChange, Outcome::Success));
    assert_eq!(event.resource.kind, "rbac.authorization.k8s.io/clusterrolebindings");
    assert_eq!(event.resource.id, "clusterrolebindings/b");
    assert_eq!((event.credential.id.as_str(), event.credential.kind), ("JTI=1", CredentialKind::ShortLived));
    assert_eq!(event.origin.address, "198.51.100.7");
    assert_eq!(event.trace.unwrap().request_id, "id-1");
    assert!(!event.resource.exposes);
}

#[test]
fn a_request_is_told_when_its_response_starts_and_ends_and_not_when_it_is_received() {
    let started = with(&[("/stage", json!("ResponseStarted")), ("/responseStatus", json!({"code": 101}))]);
    assert_eq!((started.id.as_str(), started.outcome), ("kubernetes//id-1#ResponseStarted", Outcome::Success));
    let mut received = record();
    received["stage"] = json!("RequestReceived");
    assert_eq!(decode(&received.to_string()).unwrap_err().reason, Reason::NotARequest);
}

#[test]
fn whom_the_cluster_does_not_know_is_not_made_up() {
    for user in [json!({}), json!({"username": ""}), json!({"username": null})] {
        let event = with(&[("/user", user), ("/responseStatus", json!({"code": 401}))]);
        assert_eq!(event.principal.id, "unnamed/k8s.io");
        assert_eq!(event.outcome, Outcome::Denied("401".to_owned()));
    }
}

#[test]
fn what_reaches_into_a_container_is_an_execution_whatever_the_verb() {
    let verb = |verb: &str, resource: &str, subresource: &str, group: &str| {
        let object = json!({
            "resource": resource, "subresource": subresource, "namespace": "web", "name": "x", "apiVersion": "v1",
            "apiGroup": group
        });
        with(&[("/verb", json!(verb)), ("/objectRef", object)]).verb
    };
    for subresource in ["exec", "attach", "portforward", "proxy"] {
        assert_eq!(verb("get", "pods", subresource, ""), Verb::Execute);
        assert_eq!(verb("create", "pods", subresource, ""), Verb::Execute);
    }
    assert_eq!(verb("patch", "pods", "ephemeralcontainers", ""), Verb::Execute);
    assert_eq!(verb("get", "pods", "ephemeralcontainers", ""), Verb::Read);
    assert_eq!(verb("get", "pods", "log", ""), Verb::Read);
    assert_eq!(verb("deletecollection", "pods", "", ""), Verb::Write);
    assert_eq!(verb("create", "selfsubjectaccessreviews", "", "authorization.k8s.io"), Verb::Read);
    assert_eq!(verb("create", "serviceaccounts", "token", ""), Verb::Write);
    assert_eq!(verb("create", "serviceaccounts", "", ""), Verb::PermissionChange);
    assert_eq!(verb("list", "clusterroles", "", "rbac.authorization.k8s.io"), Verb::Read);
    assert_eq!(verb("update", "certificatesigningrequests", "approval", "certificates.k8s.io"), Verb::PermissionChange);
}

#[test]
fn who_acts_as_another_stays_who_they_are() {
    let event = with(&[("/impersonatedUser", json!({"username": "alice", "groups": ["dev"]}))]);
    assert_eq!(event.principal.id, "system:serviceaccount:agents:janitor");
    assert_eq!(event.principal.on_behalf_of, ["alice"]);
}

#[test]
fn a_role_of_aws_is_the_principal_and_its_session_is_kept_apart() {
    let event = with(&[(
        "/user",
        json!({"username": "admin:run-42", "extra": {
            "arn": ["arn:aws:sts::111122223333:assumed-role/janitor/run-42"],
            "canonicalArn": ["arn:aws:iam::111122223333:role/janitor"],
            "sessionName": ["run-42"], "accessKeyId": ["ASIAEXAMPLE"]
        }}),
    )]);
    assert_eq!(event.id, "kubernetes/111122223333/id-1#ResponseComplete");
    assert_eq!(event.principal.id, "arn:aws:iam::111122223333:role/janitor");
    assert_eq!((event.principal.session.as_str(), event.place.account.as_str()), ("run-42", "111122223333"));
    assert_eq!(event.credential.kind, CredentialKind::ShortLived);
    assert!(event.arguments.iter().any(|argument| argument.name == "username" && argument.value == "admin:run-42"));
}

#[test]
fn a_refusal_is_told_from_a_failure() {
    let outcome = |status: Value| with(&[("/responseStatus", status)]).outcome;
    assert_eq!(outcome(json!({"code": 403, "reason": "Forbidden"})), Outcome::Denied("Forbidden".to_owned()));
    assert_eq!(outcome(json!({"code": 401})), Outcome::Denied("401".to_owned()));
    assert_eq!(outcome(json!({"code": 409, "reason": "AlreadyExists"})), Outcome::Failed("AlreadyExists".to_owned()));
    for code in [json!(101), json!(200.0), json!("200")] {
        assert_eq!(outcome(json!({"code": code})), Outcome::Success);
    }
    let forbidden = ("/annotations", json!({"authorization.k8s.io/decision": "forbid"}));
    assert_eq!(with(&[forbidden, ("/responseStatus", Value::Null)]).outcome, Outcome::Denied("forbid".to_owned()));
}

#[test]
fn a_request_for_no_object_is_its_path() {
    let event = with(&[("/objectRef", Value::Null), ("/requestURI", json!("/metrics?x=1")), ("/verb", json!("get"))]);
    assert_eq!((event.action.as_str(), event.verb), ("k8s.io:get", Verb::Read));
    assert_eq!((event.resource.kind.as_str(), event.resource.id.as_str()), ("non-resource", "/metrics"));
}

#[test]
fn a_grant_to_everybody_exposes() {
    let subjects = json!({"subjects": [{"kind": "Group", "name": "system:unauthenticated"}]});
    assert!(with(&[("/requestObject", subjects)]).resource.exposes);
}

#[test]
fn other_objects_are_unsupported_and_a_list_is_opened() {
    let reason = |json: Value| decode(&json.to_string()).unwrap_err();
    assert_eq!(reason(json!({"kind": "Event", "apiVersion": "v1"})).reason, Reason::Unsupported);
    assert_eq!(reason(json!({"kind": "Pod", "apiVersion": "v1"})).detail, "`kind` is `Pod`, not `Event`");
    let mut timeless = record();
    timeless["stageTimestamp"].take();
    timeless["requestReceivedTimestamp"].take();
    assert_eq!(reason(timeless).detail, "`stageTimestamp` is missing");
    let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": [record(), record()]}).to_string();
    assert!(matches!(open(&list).unwrap(), Opened::Many(members) if members.len() == 2));
    assert!(open(r#"{"kind":"EventList","items":[]}"#).is_err());
}

#[test]
fn a_path_of_gke_names_the_same_object() {
    for (path, kind, id) in [
        ("core/v1/namespaces/web", "namespaces", "namespaces/web"),
        ("core/v1/namespaces/web/pods", "pods", "namespaces/web/pods"),
        ("apps/v1/namespaces/web/deployments/x/scale", "apps/deployments", "namespaces/web/deployments/x"),
        ("rbac.authorization.k8s.io/v1/clusterroles/y", "rbac.authorization.k8s.io/clusterroles", "clusterroles/y"),
        ("core/v1/nodes/n/proxy", "nodes", "nodes/n"),
        ("", "", ""),
    ] {
        let object = ObjectPath::of(path);
        assert_eq!((object.kind(), object.id()), (kind.to_owned(), id.to_owned()), "{path}");
        let request = path.strip_prefix("core/").map_or_else(|| format!("/apis/{path}"), |path| format!("/api/{path}"));
        assert_eq!(ObjectPath::of_request(&request), object, "{request}");
    }
}

#[test]
fn how_the_api_server_checked_a_credential_is_told() {
    let credential = |name: &str, id: Value| {
        let extra = json!({"authentication.kubernetes.io/credential-id": id});
        let credential = with(&[("/user", json!({"username": name, "extra": extra}))]).credential;
        (credential.workload_identity, credential.mutual_tls)
    };
    assert_eq!(credential("system:serviceaccount:agents:janitor", json!(["JTI=1"])), (Some(true), Some(false)));
    assert_eq!(credential("janitor", json!(["X509SHA256=5f2b"])), (None, Some(true)));
    assert_eq!(credential("janitor", json!([])), (None, None));
}
