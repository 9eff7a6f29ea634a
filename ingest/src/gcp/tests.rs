#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::*;

fn entry() -> Value {
    json!({
        "insertId": "abc", "timestamp": "2026-03-02T09:15:04.123456789Z",
        "logName": "projects/shop/logs/cloudaudit.googleapis.com%2Fdata_access",
        "resource": {"type": "gcs_bucket", "labels": {"project_id": "shop", "location": "eu", "bucket_name": null}},
        "trace": "projects/shop/traces/4bf92f", "spanId": "00f0",
        "protoPayload": {
            "@type": "type.googleapis.com/google.cloud.audit.AuditLog",
            "serviceName": "storage.googleapis.com", "methodName": "storage.objects.get",
            "resourceName": "projects/_/buckets/b/objects/o",
            "authenticationInfo": {
                "principalEmail": "janitor@shop.iam.gserviceaccount.com",
                "serviceAccountDelegationInfo": [
                    {"firstPartyPrincipal": {"principalEmail": "ada@example.com"}},
                    {"principalSubject": "serviceAccount:hop@shop.iam.gserviceaccount.com"}
                ]
            },
            "authorizationInfo": [{"permission": "storage.objects.get", "granted": true, "resource": "projects/_/buckets/b"}],
            "requestMetadata": {"callerIp": "198.51.100.7", "callerSuppliedUserAgent": "gcloud/500"},
            "request": {"@type": "x", "object": "o"}
        }
    })
}

fn event(entry: &Value) -> Event {
    decode(&entry.to_string()).unwrap()
}

/// The entry with other values at pointers.
fn with(changes: &[(&str, Value)]) -> Event {
    let mut entry = entry();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        entry.pointer_mut(parent).unwrap()[name] = value.clone();
    }
    event(&entry)
}

#[test]
fn an_entry_says_who_did_what_to_what_and_where() {
    let event = event(&entry());
    let log = "projects/shop/logs/cloudaudit.googleapis.com%2Fdata_access";
    assert_eq!(event.id, format!("gcp/{log}/2026-03-02T09:15:04.123456789Z/abc"));
    assert_eq!(event.at, 1_772_442_904_123);
    assert_eq!(event.principal.id, "janitor@shop.iam.gserviceaccount.com");
    assert_eq!(event.principal.on_behalf_of, ["ada@example.com", "serviceAccount:hop@shop.iam.gserviceaccount.com"]);
    assert_eq!((event.action.as_str(), event.verb), ("storage.googleapis.com:storage.objects.get", Verb::Read));
    assert_eq!(
        (event.resource.kind.as_str(), event.resource.id.as_str()),
        ("gcs_bucket", "projects/_/buckets/b/objects/o")
    );
    assert_eq!((event.place.account.as_str(), event.place.region.as_str()), ("shop", "eu"));
    assert_eq!((event.origin.address.as_str(), event.origin.user_agent.as_str()), ("198.51.100.7", "gcloud/500"));
    assert_eq!((event.credential.kind, event.outcome), (CredentialKind::ShortLived, Outcome::Success));
    assert_eq!(
        event.arguments.iter().map(|a| (a.name.as_str(), a.value.as_str())).collect::<Vec<_>>(),
        [("object", "o")]
    );
    assert_eq!(event.trace.unwrap().trace_id, "4bf92f");
}

#[test]
fn reads_writes_grants_and_runs_are_told_apart() {
    let verb = |service: &str, method: &str, permission: &str, log: &str| {
        with(&[
            ("/protoPayload/serviceName", json!(service)),
            ("/protoPayload/methodName", json!(method)),
            ("/protoPayload/authorizationInfo/0/permission", json!(permission)),
            ("/logName", json!(format!("projects/shop/logs/cloudaudit.googleapis.com%2F{log}"))),
        ])
        .verb
    };
    let (iam, sql) = ("iam.googleapis.com", "cloudsql.googleapis.com");
    assert_eq!(verb(sql, "cloudsql.instances.list", "cloudsql.instances.list", "data_access"), Verb::Read);
    assert_eq!(verb(sql, "cloudsql.instances.query", "cloudsql.instances.executeSql", "data_access"), Verb::Write);
    assert_eq!(verb(sql, "cloudsql.instances.clone", "cloudsql.instances.get", "activity"), Verb::Write);
    assert_eq!(verb("dns.googleapis.com", "dns.managedZones.get", "dns.managedZones.get", "activity"), Verb::Read);
    let sinks = "google.logging.v2.ConfigServiceV2.GetSink";
    assert_eq!(verb("logging.googleapis.com", sinks, "logging.sinks.get", "activity"), Verb::Read);
    assert_eq!(
        verb("iamcredentials.googleapis.com", "SignBlob", "iam.serviceAccounts.signBlob", "data_access"),
        Verb::Read,
        "as `sts:AssumeRole`, `kms:Sign`"
    );
    assert_eq!(
        verb(iam, "google.iam.admin.v1.CreateServiceAccountKey", "iam.serviceAccountKeys.create", "activity"),
        Verb::PermissionChange
    );
    assert_eq!(
        verb(sql, "v1.compute.SetIamPolicy", "compute.instances.setIamPolicy", "activity"),
        Verb::PermissionChange
    );
    assert_eq!(
        verb("run.googleapis.com", "google.cloud.run.v1.Jobs.RunJob", "run.jobs.run", "activity"),
        Verb::Execute
    );
    assert_eq!(verb("login.googleapis.com", "google.login.LoginService.loginSuccess", "x", "data_access"), Verb::Read);
    let typed = [("/protoPayload/authorizationInfo/0/permissionType", json!("DATA_WRITE"))];
    assert_eq!(with(&typed).verb, Verb::Write);
}

#[test]
fn without_permissions_the_word_that_counts_decides() {
    for (method, expected) in [
        ("google.firestore.v1.Firestore.BatchWrite", Verb::Write),
        ("google.firestore.v1.Firestore.BatchGetDocuments", Verb::Read),
        ("google.bigtable.v2.Bigtable.CheckAndMutateRow", Verb::Write),
        ("google.api.servicecontrol.v1.ServiceController.Check", Verb::Read),
        ("storage.objects.batch", Verb::Write),
    ] {
        let bare = [("/protoPayload/methodName", json!(method)), ("/protoPayload/authorizationInfo", Value::Null)];
        assert_eq!(with(&bare).verb, expected, "{method}");
        assert_eq!(verb("storage.googleapis.com", method, ""), expected, "{method}");
    }
}

#[test]
fn a_resource_that_is_text_loses_no_entry() {
    let event = with(&[("/resource", json!("projects/shop"))]);
    assert_eq!((event.resource.kind.as_str(), event.place.account.as_str()), ("storage.googleapis.com", "shop"));
}

#[test]
fn a_refusal_is_told_from_a_failure() {
    let outcome = |status: Value, granted: bool| {
        with(&[("/protoPayload/status", status), ("/protoPayload/authorizationInfo/0/granted", json!(granted))]).outcome
    };
    assert_eq!(outcome(json!({}), true), Outcome::Success);
    assert_eq!(outcome(json!({"code": 7, "message": "no"}), false), Outcome::Denied("PERMISSION_DENIED".to_owned()));
    assert_eq!(outcome(json!({}), false), Outcome::Denied("PERMISSION_DENIED".to_owned()));
    assert_eq!(outcome(json!({"code": 5}), true), Outcome::Failed("NOT_FOUND".to_owned()));
    assert_eq!(outcome(json!({"code": 99}), true), Outcome::Failed("99".to_owned()));
    let policy = [("/logName", json!("projects/shop/logs/cloudaudit.googleapis.com%2Fpolicy"))];
    assert_eq!(with(&policy).outcome, Outcome::Denied("policy".to_owned()));
}

#[test]
fn a_call_to_a_cluster_is_as_the_cluster_tells_it() {
    let event = with(&[
        ("/protoPayload/serviceName", json!("k8s.io")),
        ("/protoPayload/methodName", json!("io.k8s.core.v1.pods.exec.create")),
        ("/protoPayload/resourceName", json!("core/v1/namespaces/web/pods/front/exec")),
        ("/resource", json!({"type": "k8s_cluster", "labels": {"cluster_name": "main", "location": "eu-west1"}})),
    ]);
    assert_eq!((event.action.as_str(), event.verb), ("k8s.io:io.k8s.core.v1.pods.exec.create", Verb::Execute));
    assert_eq!((event.resource.kind.as_str(), event.resource.id.as_str()), ("pods", "namespaces/web/pods/front"));
    assert_eq!((event.place.cluster.as_str(), event.place.namespace.as_str()), ("main", "web"));
    assert_eq!(event.place.account, "shop");
}

#[test]
fn whom_google_does_not_name_is_not_made_up_and_a_key_is_long_lived() {
    let unnamed = with(&[("/protoPayload/authenticationInfo", json!({}))]);
    assert_eq!(unnamed.principal.id, "unnamed/storage.googleapis.com");
    let key = json!({"principalEmail": "a@b", "serviceAccountKeyName": "//iam.googleapis.com/keys/1"});
    let credential = with(&[("/protoPayload/authenticationInfo", key)]).credential;
    assert_eq!((credential.id.as_str(), credential.kind), ("//iam.googleapis.com/keys/1", CredentialKind::LongLived));
}

#[test]
fn letting_everybody_in_exposes_and_shutting_them_out_does_not() {
    let delta = |action: &str| json!({"policyDelta": {"bindingDeltas": [{"action": action, "member": "allUsers", "role": "roles/viewer"}]}});
    let exposes = |data: Value, request: Value| {
        let method = ("/protoPayload/methodName", json!("storage.setIamPermissions"));
        let permission = ("/protoPayload/authorizationInfo/0/permission", json!("storage.buckets.setIamPolicy"));
        with(&[method, permission, ("/protoPayload/serviceData", data), ("/protoPayload/request", request)])
            .resource
            .exposes
    };
    assert!(exposes(delta("ADD"), json!({})));
    assert!(!exposes(delta("REMOVE"), json!({"members": ["allUsers"]})));
    assert!(exposes(json!({}), json!({"policy": {"bindings": [{"members": ["allAuthenticatedUsers"]}]}})));
}

#[test]
fn a_database_that_every_network_reaches_is_exposed() {
    let exposes = |service: &str, network: &str| {
        let settings = json!({"ipConfiguration": {"authorizedNetworks": [{"value": network}]}});
        let (service, request) = (json!(service), json!({"body": {"settings": settings}}));
        let update = ("/protoPayload/methodName", json!("cloudsql.instances.update"));
        let permission = ("/protoPayload/authorizationInfo/0/permission", json!("cloudsql.instances.update"));
        with(&[update, permission, ("/protoPayload/serviceName", service), ("/protoPayload/request", request)])
            .resource
            .exposes
    };
    assert!(exposes("cloudsql.googleapis.com", "0.0.0.0/0"));
    assert!(!exposes("cloudsql.googleapis.com", "198.51.100.0/24"));
    // A default route is a route.
    assert!(!exposes("compute.googleapis.com", "0.0.0.0/0"));
}

#[test]
fn what_a_call_asks_for_tells_that_it_changes_permissions() {
    for (permission, verb) in [
        ("iam.serviceAccountKeys.create", Verb::PermissionChange),
        ("storage.hmacKeys.create", Verb::PermissionChange),
        ("iam.serviceAccounts.actAs", Verb::Write),
        ("deploymentmanager.deployments.create", Verb::Write),
    ] {
        let method = ("/protoPayload/methodName", json!("v2.deploymentmanager.deployments.insert"));
        let service = ("/protoPayload/serviceName", json!("deploymentmanager.googleapis.com"));
        let asked = ("/protoPayload/authorizationInfo", json!([{"granted": true, "permission": permission}]));
        assert_eq!(with(&[method, service, asked]).verb, verb, "{permission}");
    }
}

#[test]
fn what_is_no_audit_log_is_unsupported_and_what_lacks_a_field_says_which() {
    let mut flow = entry();
    flow["protoPayload"].take();
    flow["logName"] = json!("projects/shop/logs/vpc_flows");
    let rejection = decode(&flow.to_string()).unwrap_err();
    assert_eq!(rejection.reason, Reason::Unsupported);
    assert_eq!(rejection.detail, "no `protoPayload`: log `projects/shop/logs/vpc_flows` is not an audit log");
    let mut other = entry();
    other["protoPayload"] = json!({"@type": "type.googleapis.com/google.appengine.logging.v1.RequestLog"});
    assert_eq!(decode(&other.to_string()).unwrap_err().reason, Reason::Unsupported);
    let mut timeless = entry();
    timeless.as_object_mut().unwrap().remove("timestamp");
    assert_eq!(decode(&timeless.to_string()).unwrap_err().detail, "`timestamp` is missing");
    timeless["receiveTimestamp"] = json!("2026-03-02 09:15:05.5");
    assert_eq!(event(&timeless).at, 1_772_442_905_500);
}

#[test]
fn a_workload_identity_is_told_by_its_pool_and_refuted_by_a_key() {
    let info = "/protoPayload/authenticationInfo";
    let vouched = |name: &str, value: Value| with(&[(&format!("{info}/{name}"), value)]).credential.workload_identity;
    let subject = "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/subject/s";
    assert_eq!(event(&entry()).credential.workload_identity, None);
    assert_eq!(vouched("principalSubject", json!(subject)), Some(true));
    assert_eq!(vouched("serviceAccountDelegationInfo", json!([{"principalSubject": subject}])), Some(true));
    let key = "//iam.googleapis.com/projects/shop/serviceAccounts/janitor/keys/1";
    assert_eq!(vouched("serviceAccountKeyName", json!(key)), Some(false));
    assert!(event(&entry()).data_event);
}
