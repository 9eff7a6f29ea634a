//! What a CloudTrail record says the request was aimed at.

use serde_json::Value;
use tautline_detectors::event::Resource;

use super::{Parameters, RESOURCES_MAX, Touched};
use crate::json::Raw;
use crate::wire::{List, NAME_MAX, Object, Text};

/// Services whose name in resource types is not just their name in `eventSource` with a capital letter.
const SERVICES: [(&str, &str); 58] = [
    ("access-analyzer", "AccessAnalyzer"),
    ("acm", "CertificateManager"),
    ("acm-pca", "ACMPCA"),
    ("apigateway", "ApiGateway"),
    ("application-autoscaling", "ApplicationAutoScaling"),
    ("appsync", "AppSync"),
    ("autoscaling", "AutoScaling"),
    ("cloudformation", "CloudFormation"),
    ("cloudfront", "CloudFront"),
    ("cloudhsm", "CloudHSM"),
    ("cloudtrail", "CloudTrail"),
    ("codebuild", "CodeBuild"),
    ("codecommit", "CodeCommit"),
    ("codedeploy", "CodeDeploy"),
    ("codepipeline", "CodePipeline"),
    ("cognito-idp", "Cognito"),
    ("dms", "DMS"),
    ("dynamodb", "DynamoDB"),
    ("ec2", "EC2"),
    ("ec2-instance-connect", "EC2InstanceConnect"),
    ("ecr", "ECR"),
    ("ecs", "ECS"),
    ("eks", "EKS"),
    ("elasticache", "ElastiCache"),
    ("elasticbeanstalk", "ElasticBeanstalk"),
    ("elasticfilesystem", "EFS"),
    ("elasticloadbalancing", "ElasticLoadBalancing"),
    ("elasticmapreduce", "EMR"),
    ("es", "OpenSearchService"),
    ("fsx", "FSx"),
    ("guardduty", "GuardDuty"),
    ("iam", "IAM"),
    ("imagebuilder", "ImageBuilder"),
    ("inspector2", "InspectorV2"),
    ("iot", "IoT"),
    ("kms", "KMS"),
    ("monitoring", "CloudWatch"),
    ("network-firewall", "NetworkFirewall"),
    ("ram", "RAM"),
    ("rds", "RDS"),
    ("rolesanywhere", "RolesAnywhere"),
    ("route53", "Route53"),
    ("route53resolver", "Route53Resolver"),
    ("s3", "S3"),
    ("s3express", "S3Express"),
    ("sagemaker", "SageMaker"),
    ("secretsmanager", "SecretsManager"),
    ("securityhub", "SecurityHub"),
    ("servicecatalog", "ServiceCatalog"),
    ("ses", "SES"),
    ("sns", "SNS"),
    ("sqs", "SQS"),
    ("ssm", "SSM"),
    ("ssmmessages", "SSM"),
    ("sso", "SSO"),
    ("states", "StepFunctions"),
    ("sts", "STS"),
    ("wafv2", "WAFv2"),
];

/// Members of a request that name what it is aimed at, where several ids are there, best first: what the resource is
/// itself before what it is part of or made from.
const IDS: [&str; 34] = [
    "bucketName",
    "queueUrl",
    "secretId",
    "keyId",
    "instanceId",
    "groupId",
    "functionName",
    "roleName",
    "userName",
    "groupName",
    "volumeId",
    "snapshotId",
    "imageId",
    "dBSnapshotIdentifier",
    "dBClusterSnapshotIdentifier",
    "dBInstanceIdentifier",
    "dBClusterIdentifier",
    "tableName",
    "topicArn",
    "queueUrl",
    "repositoryName",
    "clusterName",
    "logGroupName",
    "trailName",
    "stackName",
    "instanceProfileName",
    "roleArn",
    "modelId",
    "hostedZoneId",
    "networkAclId",
    "routeTableId",
    "service",
    "task",
    "taskDefinition",
];

/// Members that end like an id and name something else: a means, a version, an idempotency token.
const NOT_IDS: [&str; 8] = [
    "kmsKeyId",
    "versionId",
    "clientRequestToken",
    "policyName",
    "documentName",
    "roleSessionName",
    "attributeName",
    "iamRoleArn",
];

/// Endings of members that hold an id, best first.
const ENDINGS: [&str; 5] = ["Arn", "ARN", "Id", "Identifier", "Name"];

/// The resource of a request. `resources` counts first; where AWS names none (most management events), the type comes
/// from the operation's name and the id from the request.
pub(super) fn resource(
    service: &str,
    name: &str,
    touched: List<Object<Touched<'_>>, RESOURCES_MAX>,
    parameters: &Parameters<'_>,
) -> Resource {
    let kind = touched.0.first().and_then(|Object(first)| first.kind.as_ref()).map(Text::as_str).unwrap_or_default();
    let kind = if kind.is_empty() { derived_kind(service, name) } else { kind.to_owned() };
    let arn = touched.0.into_iter().filter_map(|Object(entry)| entry.arn).find(|arn| !arn.as_str().is_empty());
    let id = arn.map(Text::into_string).or_else(|| requested_id(noun(name), parameters)).unwrap_or_default();
    Resource { kind, id, ..Resource::default() }
}

/// `AWS::<Service>::<Noun>`, or `AWS::<Service>` for an operation that is only a verb.
fn derived_kind(service: &str, name: &str) -> String {
    let spelling = SERVICES.iter().find(|(source, _)| *source == service).map(|(_, spelling)| *spelling);
    let service = spelling.map_or_else(|| capitalised(service), str::to_owned);
    match noun(name) {
        "" => format!("AWS::{service}"),
        noun => format!("AWS::{service}::{}", singular(noun)),
    }
}

/// The operation without its first word, which is the verb (`Batch` and its verb for a batch).
fn noun(name: &str) -> &str {
    let batch = name.strip_prefix("Batch");
    let name = batch.filter(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase())).unwrap_or(name);
    let second = name.char_indices().skip(1).find(|(_, c)| c.is_ascii_uppercase());
    second.and_then(|(at, _)| name.get(at..)).unwrap_or_default()
}

fn singular(noun: &str) -> String {
    if let Some(stem) = noun.strip_suffix("ies") {
        return format!("{stem}y");
    }
    let plural_es = ["sses", "xes", "ches", "shes"].into_iter().any(|ending| noun.ends_with(ending));
    let no_plural = ["ss", "us", "is"].into_iter().any(|ending| noun.ends_with(ending));
    let cut = if plural_es { "es" } else { "s" };
    noun.strip_suffix(cut).filter(|_| !no_plural).unwrap_or(noun).to_owned()
}

/// `network-manager` as `NetworkManager`.
fn capitalised(service: &str) -> String {
    service
        .split(['-', '.'])
        .map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map_or_else(String::new, |first| format!("{}{}", first.to_ascii_uppercase(), letters.as_str()))
        })
        .collect()
}

/// The best id in the request, in this order: `arn`, `resourceArn`; the operation's own noun with an ending of
/// [`ENDINGS`] (`trailName` for `DeleteTrail`); the names of [`IDS`]; `name`; anything with such an ending, save
/// [`NOT_IDS`]; the first of a list of ids (`instanceIds`, `instancesSet`).
fn requested_id(noun: &str, parameters: &Parameters<'_>) -> Option<String> {
    let noun = singular(noun);
    let named = |name: &str| parameters.0.iter().find(|(member, _)| member == name).and_then(|(_, value)| one(value));
    let own = |member: &str| {
        ENDINGS.into_iter().any(|ending| member.strip_suffix(ending).is_some_and(|m| m.eq_ignore_ascii_case(&noun)))
    };
    let ending = |ending: &str| {
        let mut ids =
            parameters.0.iter().filter(|(name, _)| name.ends_with(ending) && !NOT_IDS.contains(&name.as_ref()));
        ids.find_map(|(_, value)| one(value))
    };
    ["arn", "resourceArn"]
        .into_iter()
        .find_map(named)
        .or_else(|| parameters.0.iter().filter(|(name, _)| own(name)).find_map(|(_, value)| one(value)))
        .or_else(|| IDS.into_iter().find_map(named))
        .or_else(|| named("name"))
        .or_else(|| ENDINGS.into_iter().find_map(ending))
        .or_else(|| parameters.0.iter().filter(|(name, _)| is_list(name)).find_map(|(_, value)| first(value)))
}

/// Whether a member of this name holds ids of several resources.
fn is_list(name: &str) -> bool {
    name == "names" || ["Arns", "Ids", "Identifiers", "Names", "Set"].into_iter().any(|ending| name.ends_with(ending))
}

/// A string that can be an id: neither empty nor longer than one.
fn one(value: &Raw<'_>) -> Option<String> {
    let text = value.string()?.ok()?;
    (1..=NAME_MAX).contains(&text.len()).then(|| text.into_owned())
}

/// The first id of a list: an array of strings, or EC2's `{"items": [{"instanceId": …}]}`.
fn first(value: &Raw<'_>) -> Option<String> {
    let value: Value = serde_json::from_str(value.get()).ok()?;
    let list = value.get("items").unwrap_or(&value).as_array()?;
    let id = match list.first()? {
        Value::String(id) => Some(id),
        Value::Object(item) => item.iter().find_map(|(name, id)| match id {
            Value::String(id) if ENDINGS.into_iter().any(|ending| name.ends_with(ending)) => Some(id),
            _ => None,
        }),
        _ => None,
    };
    id.filter(|id| (1..=NAME_MAX).contains(&id.len())).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_derived_from_service_and_operation() {
        for (service, name, kind) in [
            ("ec2", "RunInstances", "AWS::EC2::Instance"),
            ("ec2", "DescribeAddresses", "AWS::EC2::Address"),
            ("ec2", "AuthorizeSecurityGroupIngress", "AWS::EC2::SecurityGroupIngress"),
            ("ec2", "DescribeInstanceStatus", "AWS::EC2::InstanceStatus"),
            ("iam", "ListRolePolicies", "AWS::IAM::RolePolicy"),
            ("rds", "DescribeDBInstances", "AWS::RDS::DBInstance"),
            ("secretsmanager", "BatchGetSecretValue", "AWS::SecretsManager::SecretValue"),
            ("sts", "GetCallerIdentity", "AWS::STS::CallerIdentity"),
            ("kms", "Decrypt", "AWS::KMS"),
            ("network-manager", "CreateDevice", "AWS::NetworkManager::Device"),
            ("bedrock", "InvokeModel", "AWS::Bedrock::Model"),
        ] {
            assert_eq!(derived_kind(service, name), kind);
        }
    }
}
