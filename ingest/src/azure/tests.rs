#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::*;

const KEY: &str = "/SUBSCRIPTIONS/S-1/RESOURCEGROUPS/shop/PROVIDERS/Microsoft.KeyVault/vaults/v/keys/k";

fn activity() -> Value {
    json!({
        "time": "2026-03-02T09:15:04.1230000Z", "resourceId": KEY, "category": "Administrative",
        "operationName": "MICROSOFT.KEYVAULT/VAULTS/KEYS/WRITE", "resultType": "Success", "resultSignature": "Succeeded.OK",
        "callerIpAddress": "198.51.100.7:44321", "correlationId": "c-1", "location": "westeurope", "tenantId": "T-1",
        "identity": {
            "authorization": {"scope": KEY, "action": "Microsoft.KeyVault/vaults/keys/write"},
            "claims": {
                "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn": "ada@example.com", "appid": "app-1",
                "iat": "1772442000", "uti": "token-1",
                "http://schemas.microsoft.com/claims/authnmethodsreferences": "pwd,mfa"
            }
        },
        "properties": {"eventDataId": "e-1", "requestbody": "{\"properties\":{\"size\":2048}}"}
    })
}

fn with_category(category: &str) -> Value {
    let mut record = activity();
    record["category"] = json!(category);
    record
}

fn with(record: &Value, changes: &[(&str, Value)]) -> Event {
    let mut record = record.clone();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        record.pointer_mut(parent).unwrap()[name] = value.clone();
    }
    decode(&record.to_string()).unwrap()
}

#[test]
fn an_activity_says_who_did_what_to_what_and_where() {
    let event = with(&activity(), &[]);
    assert_eq!((event.id.as_str(), event.at), ("azure/s-1/e-1", 1_772_442_904_123));
    assert_eq!(event.principal.id, "ada@example.com");
    assert_eq!((event.action.as_str(), event.verb), ("microsoft.keyvault/vaults/keys/write", Verb::Write));
    assert_eq!(event.resource.kind, "microsoft.keyvault/vaults/keys");
    assert_eq!(event.resource.id, KEY.to_ascii_lowercase());
    assert_eq!((event.place.account.as_str(), event.place.region.as_str()), ("s-1", "westeurope"));
    assert_eq!((event.outcome, event.origin.address.as_str()), (Outcome::Success, "198.51.100.7"));
    assert_eq!((event.credential.id.as_str(), event.credential.mfa), ("token-1", Some(true)));
    assert_eq!(event.credential.issued_at, Some(1_772_442_000_000));
    assert_eq!(
        (event.arguments[0].name.as_str(), event.arguments[0].value.as_str()),
        ("properties", r#"{"size":2048}"#)
    );
    assert_eq!(event.trace.unwrap().request_id, "c-1");
}

#[test]
fn the_shape_of_the_rest_api_gives_the_same() {
    let rest = json!({
        "eventTimestamp": "2026-03-02T09:15:04.123Z", "eventDataId": "e-1", "resourceId": KEY, "caller": "ada@example.com",
        "operationName": {"value": "Microsoft.KeyVault/vaults/keys/write", "localizedValue": "Write"},
        "category": {"value": "Administrative"}, "status": {"value": "Failed"}, "subStatus": {"value": "Forbidden"},
        "httpRequest": {"clientIpAddress": "198.51.100.7"}, "correlationId": "c-1", "subscriptionId": "S-1",
        "claims": {"appid": "app-1"}
    });
    let (stream, event) = (with(&activity(), &[]), with(&rest, &[]));
    assert_eq!((event.id, event.action, event.at), (stream.id, stream.action, stream.at));
    assert_eq!((event.principal.id, event.resource), (stream.principal.id, stream.resource));
    assert_eq!(event.origin.address, stream.origin.address);
    assert_eq!(event.outcome, Outcome::Denied("Forbidden".to_owned()));
}

#[test]
fn verbs_are_told_by_the_operation() {
    for (action, category, expected) in [
        ("microsoft.compute/virtualmachines/read", "administrative", Verb::Read),
        ("microsoft.compute/virtualmachines/delete", "administrative", Verb::Write),
        ("microsoft.compute/virtualmachines/runcommand/action", "administrative", Verb::Execute),
        ("microsoft.serialconsole/serialports/connect/action", "administrative", Verb::Execute),
        ("microsoft.storage/storageaccounts/listkeys/action", "administrative", Verb::Write),
        ("microsoft.authorization/roleassignments/write", "administrative", Verb::PermissionChange),
        ("microsoft.authorization/policies/audit/action", "policy", Verb::Read),
        ("microsoft.keyvault/vaults/accesspolicies/write", "administrative", Verb::PermissionChange),
        ("getblob", "storageread", Verb::Read),
        ("putblob", "storagewrite", Verb::Write),
        ("SecretGet", "auditevent", Verb::Read),
        ("SecretListVersions", "auditevent", Verb::Read),
        ("KeyListDeleted", "auditevent", Verb::Read),
        ("SecretSet", "auditevent", Verb::Write),
        ("getblob", "", Verb::Read),
        ("createthread", "", Verb::Write),
        ("CreateThread", "requestresponse", Verb::Write),
        ("CreateBudget", "x", Verb::Write),
        ("CreateReadReplica", "x", Verb::Write),
    ] {
        assert_eq!(verb(action, category), expected, "{action}");
    }
}

#[test]
fn a_refusal_is_told_from_a_failure_and_from_what_goes_on() {
    let outcome = |kind: &str, signature: &str| {
        with(&activity(), &[("/resultType", json!(kind)), ("/resultSignature", json!(signature))]).outcome
    };
    assert_eq!(outcome("Start", "Started."), Outcome::Unknown);
    assert_eq!(outcome("Failed", "403"), Outcome::Denied("403".to_owned()));
    assert_eq!(outcome("Failure", "Failed.Forbidden"), Outcome::Denied("Failed.Forbidden".to_owned()));
    assert_eq!(outcome("Failed", "409"), Outcome::Failed("409".to_owned()));
    let by_code = [("/resultType", Value::Null), ("/resultSignature", Value::Null), ("/statusCode", json!(404))];
    assert_eq!(with(&activity(), &by_code).outcome, Outcome::Failed("404".to_owned()));
}

#[test]
fn a_cluster_tells_of_its_requests_itself() {
    let log = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "id-1", "stage": "ResponseComplete", "verb": "get",
        "user": {"username": "alice"}, "stageTimestamp": "2026-03-02T09:15:04Z", "responseStatus": {"code": 200},
        "objectRef": {"resource": "secrets", "namespace": "web", "name": "x", "apiVersion": "v1"}
    });
    let cluster = "/subscriptions/S-1/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/main";
    let record = json!({"category": "kube-audit-admin", "resourceId": cluster, "properties": {"log": log.to_string()}});
    let event = with(&record, &[]);
    assert_eq!((event.source, event.action.as_str()), (Source::Kubernetes, "k8s.io:io.k8s.core.v1.secrets.get"));
    assert_eq!((event.place.cluster.as_str(), event.place.account.as_str()), ("main", "s-1"));
}

#[test]
fn a_change_of_the_directory_names_who_and_whom() {
    let record = json!({
        "time": "2026-03-02T09:15:04Z", "category": "AuditLogs", "operationName": "Add member to role", "tenantId": "T-1",
        "correlationId": "c-1", "identity": "Ada", "properties": {
            "id": "d-1", "category": "RoleManagement", "result": "success", "resultReason": "",
            "initiatedBy": {"user": {"userPrincipalName": "ada@example.com", "ipAddress": "198.51.100.7"}, "app": null},
            "targetResources": [{"type": "User", "userPrincipalName": "eve@example.com"}],
            "additionalDetails": [{"key": "User-Agent", "value": "agent/1"}]
        }
    });
    let event = with(&record, &[]);
    assert_eq!((event.id.as_str(), event.principal.id.as_str()), ("azure/T-1/d-1", "ada@example.com"));
    assert_eq!((event.action.as_str(), event.verb), ("entra:Add member to role", Verb::PermissionChange));
    assert_eq!((event.resource.kind.as_str(), event.resource.id.as_str()), ("entra/user", "eve@example.com"));
    assert_eq!((event.outcome, event.origin.user_agent.as_str()), (Outcome::Success, "agent/1"));
    let both = with(&record, &[("/properties/initiatedBy/app", json!({"servicePrincipalId": "sp-1"}))]);
    assert_eq!(
        (both.principal.id.as_str(), both.principal.on_behalf_of.as_slice()),
        ("sp-1", &["ada@example.com".to_owned()][..])
    );
}

#[test]
fn a_sign_in_says_who_with_what_and_whether_it_was_an_agent() {
    let record = json!({
        "time": "2026-03-02T09:15:04Z", "category": "ServicePrincipalSignInLogs", "tenantId": "T-1", "resultType": "0",
        "operationName": "Sign-in activity", "location": "IE", "properties": {
            "id": "s-1", "servicePrincipalId": "sp-1", "servicePrincipalName": "janitor", "ipAddress": "198.51.100.7",
            "resourceDisplayName": "Azure Storage", "uniqueTokenIdentifier": "t-1", "status": {"errorCode": 0},
            "authenticationRequirement": "singleFactorAuthentication", "agent": {"agentType": "agenticAppInstance"}
        }
    });
    let event = with(&record, &[]);
    assert_eq!((event.principal.id.as_str(), event.verb), ("sp-1", Verb::Read));
    assert_eq!((event.resource.id.as_str(), event.outcome), ("Azure Storage", Outcome::Success));
    assert_eq!((event.credential.kind, event.credential.mfa), (CredentialKind::ShortLived, Some(false)));
    assert_eq!(event.origin.channel, "agenticAppInstance");
    let failed = |code: u32| with(&record, &[("/properties/status/errorCode", json!(code))]).outcome;
    assert_eq!(failed(53003), Outcome::Denied("53003".to_owned()));
    assert_eq!(failed(50126), Outcome::Failed("50126".to_owned()));
    let user = [("/category", json!("SignInLogs")), ("/properties/userPrincipalName", json!("ada@example.com"))];
    assert_eq!(with(&record, &user).principal.id, "ada@example.com");
}

#[test]
fn whom_azure_does_not_name_is_not_made_up() {
    let unnamed = with(&activity(), &[("/identity", Value::Null)]);
    assert_eq!(unnamed.principal.id, "unnamed/microsoft.keyvault");
    let key = with(&activity(), &[("/identity", json!({"type": "AccountKey"}))]);
    assert_eq!(key.credential.kind, CredentialKind::LongLived);
}

#[test]
fn the_data_planes_name_the_caller_in_their_own_ways() {
    let principal = |identity: Value| with(&activity(), &[("/identity", identity)]).principal.id;
    let long = "http://schemas.microsoft.com/identity/claims/objectidentifier";
    assert_eq!(
        principal(json!({"claim": {"oid": "oid-9", "appid": "app-9", "upn": "ada@example.com"}})),
        "ada@example.com"
    );
    assert_eq!(principal(json!({"claim": {"oid": "oid-9", "appid": "app-9"}})), "oid-9");
    assert_eq!(principal(json!({"claims": null, "claim": {(long): "oid-8", "appid": "app-9"}})), "oid-8");
    let requester = json!({"type": "OAuth", "requester": {"objectId": "oid-7", "appId": "app-7", "tenantId": "t"}});
    let event = with(&activity(), &[("/identity", requester)]);
    assert_eq!((event.principal.id.as_str(), event.credential.id.as_str()), ("oid-7", "app-7"));
    assert_eq!(event.credential.kind, CredentialKind::ShortLived);
}

#[test]
fn a_member_of_another_shape_loses_no_record() {
    let odd =
        [("/properties/eventDataId", json!({"a": 1})), ("/properties/id", json!(["x"])), ("/identity", json!("svc"))];
    assert_eq!(with(&activity(), &odd).id, "azure/s-1/c-1/microsoft.keyvault/vaults/keys/write/");
    let claims = [("/identity/claims/iat", json!({"a": 1})), ("/identity/type", json!(7))];
    assert_eq!(with(&activity(), &claims).principal.id, "ada@example.com");
    let change = json!({
        "time": "2026-03-02T09:15:04Z", "category": "AuditLogs", "operationName": "Add user", "tenantId": "T-1",
        "properties": {"id": "d-1", "initiatedBy": {"app": {"appId": "app-1"}}, "additionalDetails": {"k": "v"}}
    });
    assert_eq!(with(&change, &[]).principal.id, "app-1");
}

/// A record of the directory itself.
fn directory(category: &str, operation: &str, properties: &Value) -> Value {
    json!({
        "time": "2026-03-02T09:05:00Z", "resourceId": "/tenants/t1/providers/Microsoft.aadiam", "tenantId": "t1",
        "operationName": operation, "category": category, "resultSignature": "200", "properties": properties
    })
}

#[test]
fn a_request_to_graph_is_told_by_method_and_path() {
    let graph = |method: &str, uri: &str| {
        let properties = json!({
            "requestMethod": method, "requestUri": format!("https://graph.microsoft.com/{uri}"), "requestId": "r-1",
            "userId": "u-1", "appId": "app-1", "responseStatusCode": 200, "ipAddress": "198.51.100.7", "userAgent": "x",
            "signInActivityId": "uti-1"
        });
        directory("MicrosoftGraphActivityLogs", "Microsoft Graph Activity", &properties)
    };
    let event = with(&graph("GET", "v1.0/users/7f3c-1/memberOf?$top=5"), &[]);
    assert_eq!((event.id.as_str(), event.action.as_str()), ("azure/t1/r-1", "graph:GET users/memberOf"));
    assert_eq!((event.resource.kind.as_str(), event.resource.id.as_str()), ("graph/users", "users/7f3c-1/memberOf"));
    assert_eq!((event.principal.id.as_str(), event.credential.id.as_str()), ("u-1", "uti-1"));
    assert_eq!((event.outcome, event.origin.address.as_str()), (Outcome::Success, "198.51.100.7"));
    for (method, uri, expected) in [
        ("GET", "beta/directoryRoles", Verb::Read),
        ("POST", "v1.0/me/sendMail", Verb::Write),
        ("DELETE", "v1.0/users('ada@example.com')/messages/AAM1", Verb::Write),
        ("PATCH", "v1.0/users('ada@example.com')", Verb::PermissionChange),
        ("POST", "v1.0/roleManagement/directory/roleAssignments", Verb::PermissionChange),
        ("POST", "v1.0/servicePrincipals/1/appRoleAssignedTo", Verb::PermissionChange),
        ("POST", "v1.0/groups/1/members/$ref", Verb::PermissionChange),
        ("POST", "v1.0/applications/1/addPassword", Verb::PermissionChange),
    ] {
        assert_eq!(with(&graph(method, uri), &[]).verb, expected, "{method} {uri}");
    }
    let refused = [("/properties/responseStatusCode", json!(403)), ("/properties/userId", json!(""))];
    let refused = with(&graph("GET", "v1.0/users"), &refused);
    assert_eq!((refused.principal.id.as_str(), refused.outcome), ("app-1", Outcome::Denied("403".to_owned())));
    let service = [("/properties/servicePrincipalId", json!("sp-1")), ("/properties/userId", Value::Null)];
    assert_eq!(with(&graph("GET", "v1.0/users"), &service).principal.id, "sp-1");
}

#[test]
fn only_the_audit_of_the_directory_changes_it() {
    let properties = json!({"id": "x", "userPrincipalName": "ada@example.com", "status": {"errorCode": 0}});
    let sign_in = with(&directory("ADFSSignInLogs", "Sign-in activity", &properties), &[]);
    assert_eq!((sign_in.principal.id.as_str(), sign_in.verb), ("ada@example.com", Verb::Read));
    for category in ["RiskyUsers", "UserRiskEvents", "ProvisioningLogs", "ServicePrincipalRiskEvents", "NewLogs"] {
        let rejection = decode(&directory(category, "Risky user", &properties).to_string()).unwrap_err();
        assert_eq!(rejection.reason, Reason::Unsupported, "{category}");
    }
    let audit = json!({"activityDisplayName": "Add service principal", "initiatedBy": {"app": {"appId": "app-1"}}});
    let change = with(&directory("ApplicationManagement", "Add service principal", &audit), &[]);
    assert_eq!((change.principal.id.as_str(), change.verb), ("app-1", Verb::PermissionChange));
}

#[test]
fn what_tells_of_no_request_is_unsupported_and_a_batch_is_opened() {
    for category in [
        "NetworkSecurityGroupFlowEvent",
        "AppServiceConsoleLogs",
        "AppServiceAppLogs",
        "kube-apiserver",
        "guard",
        "kube-controller-manager",
        "AllMetrics",
    ] {
        let record = with_category(category);
        assert_eq!(decode(&record.to_string()).unwrap_err().reason, Reason::Unsupported, "{category}");
    }
    let record = with_category("ServiceHealth");
    let rejection = decode(&record.to_string()).unwrap_err();
    assert_eq!(rejection.reason, Reason::Unsupported);
    assert_eq!(rejection.detail, "`category` is `ServiceHealth`, which tells of no request");
    assert_eq!(decode(r#"{"category": "Administrative"}"#).unwrap_err().detail, "`operationName` is missing");
    let batch = json!({"records": [activity(), activity()]}).to_string();
    assert!(matches!(open(&batch).unwrap(), Opened::Many(members) if members.len() == 2));
}
