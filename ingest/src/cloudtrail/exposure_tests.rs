#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

const OWN: &str = "111122223333";

fn opens(service: &str, name: &str, parameters: &Value) -> bool {
    opens_written(service, name, &parameters.to_string())
}

fn opens_written(service: &str, name: &str, json: &str) -> bool {
    exposes(service, name, &crate::json::parse(json).unwrap(), OWN).unwrap()
}

fn policy(principal: &Value, condition: &Value) -> Value {
    json!({"Statement": [{"Effect": "Allow", "Principal": principal, "Action": "*", "Condition": condition}]})
}

#[test]
fn escapes_in_a_member_s_name_hide_nothing() {
    assert!(opens_written("rds", "ModifyDBInstance", r#"{"PUBLICLYACCESSIBL\u0045":true}"#));
    assert!(opens_written(
        "kms",
        "PutKeyPolicy",
        r#"{"p\u006flicy":{"Statement":{"Effect":"Allow","Principal":"*"}}}"#
    ));
    assert!(!opens_written("rds", "ModifyDBInstance", r#"{"publiclyAccessibl\u0065":false}"#));
}

#[test]
fn requests_that_open_something_are_seen() {
    let everyone = policy(&json!("*"), &json!({}));
    let other = json!({"AWS": ["arn:aws:iam::444455556666:root"]});
    let group = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers";
    for (service, name, parameters) in [
        ("ec2", "AuthorizeSecurityGroupIngress", json!({"groupId": "sg-1", "cidrIp": "0.0.0.0/0"})),
        (
            "ec2",
            "AuthorizeSecurityGroupIngress",
            json!({"ipPermissions": {"items": [{"ipv6Ranges": {"items": [{"cidrIpv6": "::/0"}]}}]}}),
        ),
        ("ec2", "AuthorizeSecurityGroupIngress", json!({"cidrIp": "128.0.0.0/1"})),
        ("rds", "AuthorizeDBSecurityGroupIngress", json!({"cIDRIP": "0.0.0.0/0"})),
        (
            "ec2",
            "ModifySnapshotAttribute",
            json!({"createVolumePermission": {"add": {"items": [{"userId": "444455556666"}]}}}),
        ),
        ("ec2", "ModifyImageAttribute", json!({"launchPermission": {"add": {"items": [{"group": "all"}]}}})),
        ("rds", "ModifyDBSnapshotAttribute", json!({"valuesToAdd": ["444455556666"]})),
        ("rds", "ModifyDBClusterSnapshotAttribute", json!({"valuesToAdd": ["all"]})),
        ("rds", "ModifyDBInstance", json!({"publiclyAccessible": true})),
        ("s3", "PutBucketPolicy", json!({"bucketPolicy": everyone})),
        ("iam", "UpdateAssumeRolePolicy", json!({"policyDocument": policy(&other, &json!({})).to_string()})),
        ("kms", "PutKeyPolicy", json!({"policy": r#"{"Statement":{"Effect":"Allow","\u0050rincipal":"*"}}"#})),
        ("sqs", "SetQueueAttributes", json!({"attributes": {"Policy": everyone.to_string()}})),
        ("s3", "PutBucketAcl", json!({"x-amz-acl": "public-read"})),
        ("s3", "PutObjectAcl", json!({"AccessControlPolicy": {"Grant": [{"Grantee": {"URI": group}}]}})),
        ("s3", "PutBucketAcl", json!({"accessControlList": {"x-amz-grant-read": format!("uri=\"{group}\"")}})),
        ("s3", "DeleteBucketPublicAccessBlock", json!({})),
        ("s3", "PutBucketPublicAccessBlock", json!({"PublicAccessBlockConfiguration": {"BlockPublicAcls": false}})),
        ("lambda", "AddPermission", json!({"principal": "*", "functionUrlAuthType": "NONE"})),
        ("lambda", "AddPermission", json!({"principal": "444455556666"})),
        ("lambda", "CreateFunctionUrlConfig", json!({"authType": "NONE"})),
        ("codebuild", "UpdateProjectVisibility", json!({"projectVisibility": "PUBLIC_READ"})),
        ("ssm", "ModifyDocumentPermission", json!({"accountIdsToAdd": ["all"]})),
        ("redshift", "AuthorizeDataShare", json!({"consumerIdentifier": "444455556666"})),
        ("redshift", "AuthorizeEndpointAccess", json!({"account": "444455556666"})),
        (
            "kms",
            "CreateGrant",
            json!({"granteePrincipal": "arn:aws:iam::444455556666:role/r", "operations": ["Decrypt"]}),
        ),
        (
            "elasticmapreduce",
            "PutBlockPublicAccessConfiguration",
            json!({"blockPublicAccessConfiguration": {"blockPublicSecurityGroupRules": false}}),
        ),
        (
            "s3",
            "PutBucketReplication",
            json!({"ReplicationConfiguration": {"Rule": {"Destination": {"Account": "444455556666"}}}}),
        ),
        ("ecr", "SetRepositoryPolicy", json!({"policyText": everyone.to_string()})),
        ("glacier", "SetVaultAccessPolicy", json!({"policy": {"policy": everyone.to_string()}})),
        ("backup", "PutBackupVaultAccessPolicy", json!({"policy": everyone.to_string()})),
        ("secretsmanager", "PutResourcePolicy", json!({"resourcePolicy": everyone.to_string()})),
        ("es", "UpdateDomainConfig", json!({"accessPolicies": everyone.to_string()})),
    ] {
        assert!(opens(service, name, &parameters), "{service}:{name} {parameters}");
    }
}

#[test]
fn their_near_misses_are_not() {
    let own = json!({"AWS": "arn:aws:iam::111122223333:role/r"});
    let deny = json!({"Statement": {"Effect": "Deny", "Principal": "*"}});
    for (service, name, parameters) in [
        ("ec2", "AuthorizeSecurityGroupIngress", json!({"cidrIp": "10.0.0.0/8"})),
        ("ec2", "AuthorizeSecurityGroupEgress", json!({"cidrIp": "0.0.0.0/0"})),
        (
            "ec2",
            "ModifySnapshotAttribute",
            json!({"createVolumePermission": {"remove": {"items": [{"group": "all"}]}}}),
        ),
        ("ec2", "ModifySnapshotAttribute", json!({"createVolumePermission": {"add": {"items": [{"userId": OWN}]}}})),
        ("rds", "ModifyDBSnapshotAttribute", json!({"valuesToAdd": [], "valuesToRemove": ["all"]})),
        ("rds", "ModifyDBInstance", json!({"publiclyAccessible": false})),
        ("s3", "PutBucketPolicy", json!({"bucketPolicy": deny})),
        (
            "s3",
            "PutBucketPolicy",
            json!({"bucketPolicy": policy(&json!({"Service": "cloudtrail.amazonaws.com"}), &json!({}))}),
        ),
        ("iam", "CreateRole", json!({"assumeRolePolicyDocument": policy(&own, &json!({})).to_string()})),
        ("s3", "PutBucketAcl", json!({"x-amz-acl": "private"})),
        ("s3", "PutObject", json!({"key": "public-read"})),
        ("s3", "PutBucketPublicAccessBlock", json!({"PublicAccessBlockConfiguration": {"BlockPublicAcls": "true"}})),
        ("lambda", "AddPermission", json!({"principal": "s3.amazonaws.com"})),
        ("kms", "CreateGrant", json!({"granteePrincipal": "ec2.eu-west-1.amazonaws.com"})),
        (
            "s3",
            "PutBucketReplication",
            json!({"ReplicationConfiguration": {"Rule": {"Destination": {"Account": OWN}}}}),
        ),
        ("lambda", "AddPermission", json!({"principal": "*", "principalOrgID": "o-1"})),
        ("ram", "AssociateResourceShare", json!({"principals": ["arn:aws:organizations::444455556666:ou/o-1/ou-1"]})),
    ] {
        assert!(!opens(service, name, &parameters), "{service}:{name} {parameters}");
    }
}

#[test]
fn a_response_tells_what_a_default_did() {
    let made =
        |name, public: bool| made_public(name, &json!({"dBInstance": {"publiclyAccessible": public}}).to_string());
    assert!(made("RestoreDBInstanceFromDBSnapshot", true));
    assert!(!made("RestoreDBInstanceFromDBSnapshot", false));
    // It may have been so before.
    assert!(!made("ModifyDBInstance", true));
}

#[test]
fn a_copy_into_another_accounts_bucket_is_told_from_one_out_of_it() {
    let bucket = |name: &str, account: &str| json!({"type": "AWS::S3::Bucket", "ARN": format!("arn:aws:s3:::{name}"), "accountId": account});
    let copies = |name: &str, buckets: Value| {
        let buckets = buckets.to_string();
        let touched: crate::wire::List<Object<Touched<'_>>, 8> = serde_json::from_str(&buckets).unwrap();
        let parameters = json!({"bucketName": "to", "x-amz-copy-source": "/from/some/key"}).to_string();
        copies_away(name, &touched.0, &serde_json::from_str(&parameters).unwrap(), OWN)
    };
    let (own, other) = (OWN, "444455556666");
    assert!(copies("CopyObject", json!([bucket("to", other), bucket("from", own)])));
    assert!(!copies("CopyObject", json!([bucket("to", own), bucket("from", other)])));
    assert!(!copies("CopyObject", json!([bucket("to", own), bucket("from", own)])));
    assert!(!copies("GetObject", json!([bucket("to", other)])));
}

#[test]
fn a_condition_confines_only_if_it_lets_nobody_else_through() {
    for (condition, open) in [
        (json!({"StringEquals": {"aws:SourceOwner": OWN}}), false),
        (json!({"StringEquals": {"aws:PrincipalOrgID": ["o-1"]}}), false),
        (json!({"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::bucket"}}), false),
        (json!({"IpAddress": {"aws:SourceIp": "198.51.100.0/24"}}), false),
        (json!({"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}), true),
        (json!({"StringEquals": {"aws:SourceAccount": "444455556666"}}), true),
        (json!({"StringNotEquals": {"aws:SourceAccount": OWN}}), true),
        (json!({"StringEqualsIfExists": {"aws:SourceAccount": OWN}}), true),
        (json!({"StringLike": {"aws:PrincipalOrgID": "*"}}), true),
        (json!({"StringEquals": {"aws:SourceAccount": []}}), true),
        (json!({"StringEquals": {"sts:ExternalId": "12345"}}), true),
    ] {
        let parameters = json!({"policy": policy(&json!({"AWS": "*"}), &condition).to_string()});
        assert_eq!(opens("sns", "SetTopicAttributes", &parameters), open, "{condition}");
    }
}
