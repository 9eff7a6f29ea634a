#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::*;

const RECORDS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/cloudtrail.jsonl"));

/// A record of the test data, by the name of its operation.
fn record(name: &str) -> Value {
    let mut records = RECORDS.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.find(|record| record["eventName"] == name).unwrap()
}

fn decoded(name: &str) -> Event {
    decode(&record(name).to_string()).unwrap()
}

fn with(name: &str, member: &str, value: Value) -> Result<Event, Rejection> {
    let mut record = record(name);
    record[member] = value;
    decode(&record.to_string())
}

#[test]
fn an_assumed_role_is_its_role_and_its_session_is_kept_apart() {
    let event = decoded("DeleteVolume");
    assert_eq!(event.id, "cloudtrail/111122223333/evt-1");
    assert_eq!(event.at, 1_772_442_904_000);
    assert_eq!(event.principal.id, "arn:aws:iam::111122223333:role/agents/janitor");
    assert_eq!(event.principal.session, "run-42");
    let provider = "arn:aws:iam::111122223333:oidc-provider/oidc.example.com/repo:janitor";
    assert_eq!(event.principal.on_behalf_of, ["ada@example.com", provider]);
    assert_eq!((event.action.as_str(), event.verb), ("ec2:DeleteVolume", Verb::Write));
    assert_eq!((event.resource.kind.as_str(), event.resource.id.as_str()), ("AWS::EC2::Volume", "vol-0f00"));
    assert_eq!(event.credential.kind, CredentialKind::ShortLived);
    assert_eq!(event.credential.issued_at, Some(1_772_442_000_000));
    assert_eq!((event.credential.mfa, event.credential.claimed), (Some(false), false));
    assert_eq!((event.place.account.as_str(), event.place.region.as_str()), ("111122223333", "eu-central-1"));
    assert_eq!(event.outcome, Outcome::Denied("Client.UnauthorizedOperation".to_owned()));
    assert_eq!(event.trace.unwrap().request_id, "req-1");
}

#[test]
fn without_an_issuer_the_role_is_rebuilt_from_the_session() {
    let mut record = record("DeleteVolume");
    record["userIdentity"].as_object_mut().unwrap().remove("sessionContext");
    let event = decode(&record.to_string()).unwrap();
    assert_eq!(event.principal.id, "arn:aws:iam::111122223333:role/janitor");
    assert_eq!(assumed_role("arn:aws-cn:sts::1:assumed-role/r/s").unwrap().role(), "arn:aws-cn:iam::1:role/r");
}

#[test]
fn every_kind_of_identity_gives_a_principal() {
    for (name, id, session) in [
        ("GetObject", "arn:aws:iam::111122223333:user/ada", ""),
        ("RotateKey", "AWS Internal", ""),
        ("AssumeRole", "ec2.amazonaws.com", ""),
        ("ConsoleLogin", "arn:aws:iam::111122223333:root", ""),
        ("ListBucket", "444455556666/AROAOTHER", "their-session"),
        ("ListApplications", "111122223333/u", ""),
        ("SendMessage", "aws-service/sqs", ""),
    ] {
        let principal = decoded(name).principal;
        assert_eq!((principal.id.as_str(), principal.session.as_str()), (id, session), "{name}");
    }
    assert_eq!(decoded("ListApplications").principal.on_behalf_of, ["94482488-3041-7021"]);
    let federated = json!({"type": "FederatedUser", "arn": "arn:aws:sts::1:federated-user/bob",
        "sessionContext": {"sessionIssuer": {"arn": "arn:aws:iam::1:user/ada"}}});
    let principal = with("GetObject", "userIdentity", federated).unwrap().principal;
    assert_eq!((principal.id.as_str(), principal.session.as_str()), ("arn:aws:iam::1:user/ada", "bob"));
}

#[test]
fn credentials_are_told_apart_by_the_prefix_of_their_id() {
    assert_eq!(decoded("GetObject").credential.kind, CredentialKind::LongLived);
    assert_eq!(decoded("AssumeRole").credential.kind, CredentialKind::Service);
    assert_eq!(decoded("ConsoleLogin").credential.kind, CredentialKind::Unknown);
}

#[test]
fn the_version_of_an_api_is_no_part_of_its_operation() {
    for (name, bare) in [
        ("UpdateFunctionConfiguration20150331v2", "UpdateFunctionConfiguration"),
        ("AddPermission20150331", "AddPermission"),
        ("CreateDistribution2020_05_31", "CreateDistribution"),
        ("ListObjectsV2", "ListObjectsV2"),
        ("20150331", "20150331"),
        ("", ""),
    ] {
        assert_eq!(operation(name), bare);
    }
}

#[test]
fn without_read_only_the_name_decides() {
    let bare = |name: &str| {
        let mut record = record("SendMessage");
        record.as_object_mut().unwrap().remove("readOnly");
        record["eventName"] = json!(name);
        decode(&record.to_string()).unwrap().verb
    };
    assert_eq!(bare("DescribeInstances"), Verb::Read);
    assert_eq!(bare("BatchGetSecretValue"), Verb::Read);
    assert_eq!(bare("Listen"), Verb::Write);
    assert_eq!(bare("RunInstances"), Verb::Write);
    assert_eq!(with("SendMessage", "readOnly", json!("true")).unwrap().verb, Verb::Read);
    assert_eq!(with("SendMessage", "readOnly", json!("True")).unwrap().verb, Verb::Read);
}

#[test]
fn a_resource_comes_from_resources_or_else_from_the_request() {
    let resource = decoded("GetObject").resource;
    assert_eq!((resource.kind.as_str(), resource.id.as_str()), ("AWS::S3::Object", "arn:aws:s3:::b/k"));
    for (name, parameters, id) in [
        ("AttachRolePolicy", json!({"policyArn": "arn:p", "roleName": "r"}), "r"),
        ("DeletePolicy", json!({"policyArn": "arn:p"}), "arn:p"),
        ("CreateTrail", json!({"name": "t", "s3BucketName": "b"}), "t"),
        (
            "TerminateInstances",
            json!({"instancesSet": {"items": [{"instanceId": "i-1"}, {"instanceId": "i-2"}]}}),
            "i-1",
        ),
        ("SendCommand", json!({"documentName": "d", "instanceIds": ["i-1"]}), "i-1"),
        ("CopyDBSnapshot", json!({"kmsKeyId": "k", "targetDBSnapshotIdentifier": "t"}), "t"),
        ("UpdateService", json!({"cluster": "c", "service": "s", "taskDefinition": "d:7"}), "s"),
        ("DeleteVolume", json!({"volumeId": "v".repeat(3_000)}), ""),
        ("DeleteVolume", json!({"volumeId": 5}), ""),
        ("ListBuckets", json!({}), ""),
    ] {
        let mut record = record("DeleteVolume");
        record["eventName"] = json!(name);
        record["requestParameters"] = parameters;
        assert_eq!(decode(&record.to_string()).unwrap().resource.id, id, "{name}");
    }
}

#[test]
fn arguments_are_cut_and_not_refused() {
    let long = "ü".repeat(ARGUMENT_MAX);
    let mut parameters = json!({"a": long, "b": {"c": 1}});
    for i in 0..40 {
        parameters[format!("m{i}")] = json!(i);
    }
    let arguments = with("DeleteVolume", "requestParameters", parameters).unwrap().arguments;
    assert_eq!(arguments.len(), ARGUMENTS_MAX);
    assert_eq!(arguments[0].value, "ü".repeat(ARGUMENT_MAX / 2));
    assert_eq!(arguments[1].value, r#"{"c":1}"#);
}

#[test]
fn an_error_code_tells_a_refusal_from_a_failure() {
    for (code, outcome) in [
        (json!("AccessDeniedException"), Outcome::Denied("AccessDeniedException".to_owned())),
        (json!("VpceAccessDenied"), Outcome::Denied("VpceAccessDenied".to_owned())),
        (json!("NoSuchBucket"), Outcome::Failed("NoSuchBucket".to_owned())),
        (json!(null), Outcome::Success),
    ] {
        assert_eq!(with("GetObject", "errorCode", code).unwrap().outcome, outcome);
    }
    assert_eq!(decoded("ConsoleLogin").outcome, Outcome::Failed("ConsoleLogin".to_owned()));
    let success = with("ConsoleLogin", "responseElements", json!({"ConsoleLogin": "Success"}));
    assert_eq!(success.unwrap().outcome, Outcome::Success);
}

#[test]
fn a_rejection_says_what_and_where() {
    for (member, value, reason, detail) in [
        ("eventID", json!(5), Reason::WrongType, "`eventID` is integer, not a string,"),
        ("eventTime", json!("2026-03-02"), Reason::InvalidValue, "`eventTime`: `2026-03-02` is no RFC 3339"),
        ("readOnly", json!("perhaps"), Reason::InvalidValue, "`readOnly`: `perhaps` is neither true nor false"),
        ("requestParameters", json!("secret"), Reason::WrongType, "`requestParameters` is string, not an object,"),
        ("resources", json!([{"ARN": 5}]), Reason::WrongType, "`resources[0].ARN` is integer, not a string,"),
        ("userIdentity", json!({"arn": []}), Reason::WrongType, "`userIdentity.arn` is sequence, not a string,"),
        ("userAgent", json!("x".repeat(2_049)), Reason::TooLarge, "`userAgent`: longer than 2048 bytes"),
    ] {
        let rejection = with("DeleteVolume", member, value).unwrap_err();
        assert_eq!(rejection.reason, reason, "{rejection}");
        assert!(rejection.detail.starts_with(detail), "{rejection}");
    }
    let insight = json!({"eventCategory": "Insight", "eventID": "e", "insightDetails": {}}).to_string();
    assert_eq!(decode(&insight).unwrap_err().reason, Reason::Unsupported);
    assert_eq!(decode("{}").unwrap_err().reason, Reason::MissingField);
}

#[test]
fn who_vouches_for_a_session_is_told_where_aws_says_so() {
    let vouched = |context: Value| {
        let mut record = record("DeleteVolume");
        record["userIdentity"]["sessionContext"] = context;
        decode(&record.to_string()).unwrap().credential.workload_identity
    };
    assert_eq!(vouched(json!({})), None);
    assert_eq!(vouched(json!({"webIdFederationData": {}})), None);
    let provider = json!({"federatedProvider": "arn:aws:iam::1:oidc-provider/oidc.example.com", "attributes": {}});
    assert_eq!(vouched(json!({"webIdFederationData": provider})), Some(true));
    assert_eq!(vouched(json!({"webIdFederationData": {}, "ec2RoleDelivery": "2.0"})), Some(true));
    let mut record = record("DeleteVolume");
    record["userIdentity"]["accessKeyId"] = json!("AKIAEXAMPLE000000001");
    assert_eq!(decode(&record.to_string()).unwrap().credential.workload_identity, Some(false));
}

#[test]
fn what_is_no_management_event_is_one_of_the_data_plane() {
    assert!(with("DeleteVolume", "managementEvent", json!(false)).unwrap().data_event);
    assert!(!with("DeleteVolume", "managementEvent", json!(true)).unwrap().data_event);
    assert!(!with("DeleteVolume", "managementEvent", Value::Null).unwrap().data_event);
}
