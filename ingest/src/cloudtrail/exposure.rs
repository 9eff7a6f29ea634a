//! Does a request open something to the world or to another account?
//!
//! What counts is the request, not whether it succeeded; the response only where it tells what a default did. Resource policies are found by their shape, in whatever member
//! of whatever service they stand; the rest goes by operation. Not seen: grants to canonical user ids, prefix lists and
//! security groups of other accounts, load balancers that face the internet, and the effect of what was there before.

use std::borrow::Cow;
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::{Parameters, Touched};
use crate::Rejection;
use crate::json::Raw;
use crate::wire::{self, Object, said};

/// One request, as far as exposure goes.
struct Request<'a> {
    name: &'a str,
    parameters: &'a Value,
    account: &'a str,
}

/// Whether a request that changes something exposes it.
pub(super) fn exposes(
    service: &str,
    name: &str,
    parameters: &Parameters<'_>,
    account: &str,
) -> Result<bool, Rejection> {
    if name.starts_with("Delete") && name.ends_with("PublicAccessBlock") {
        return Ok(true);
    }
    let check = by_operation(service, name);
    if check.is_none() && !is_hinted(parameters) {
        return Ok(false);
    }
    let parameters = value(parameters)?;
    let request = Request { name, parameters: &parameters, account };
    Ok(check.is_some_and(|check| check(&request)) || request.by_policy() || says_public(&parameters))
}

/// Whether parameters have in them what every policy and every public address has.
fn is_hinted(parameters: &Parameters<'_>) -> bool {
    // `\u` because a policy may spell its members with escapes; a name that is not borrowed had some.
    let hinted = |json: &str| ["Principal", "ubliclyAccessible", "\\u"].into_iter().any(|hint| json.contains(hint));
    parameters.0.iter().any(|(name, raw)| matches!(name, Cow::Owned(_)) || hinted(name) || hinted(raw.get()))
}

/// The parameters as one value.
fn value(parameters: &Parameters<'_>) -> Result<Value, Rejection> {
    let member = |(name, raw): &(Cow<'_, str>, Raw<'_>)| format!("{}:{}", Value::from(name.as_ref()), raw.get());
    let members: Vec<String> = parameters.0.iter().map(member).collect();
    let json = format!("{{{}}}", members.join(","));
    serde_json::from_str(&json).map_err(|error| wire::rejection(&error, &json, "requestParameters"))
}

/// Whether what was made is public by its response, where the request left that to a default, as does a database that is
/// restored into public subnets. Of what was only changed the response tells how it was before, too.
pub(super) fn made_public(name: &str, response: &str) -> bool {
    ["Create", "Restore"].into_iter().any(|verb| name.starts_with(verb))
        && response.contains("ubliclyAccessible")
        && serde_json::from_str(response).is_ok_and(|response| says_public(&response))
}

/// Whether an object is copied into another account's bucket. The bucket that it is copied from stands beside it.
pub(super) fn copies_away(
    name: &str,
    touched: &[Object<Touched<'_>>],
    parameters: &Parameters<'_>,
    account: &str,
) -> bool {
    if !matches!(name, "CopyObject" | "UploadPartCopy") {
        return false;
    }
    let source = parameters.0.iter().find(|(name, _)| name == "x-amz-copy-source");
    let source = source.and_then(|(_, raw)| raw.string()?.ok()).unwrap_or_default();
    let source = source.trim_start_matches('/').split('/').next().unwrap_or_default();
    touched.iter().any(|Object(touched)| {
        let (owner, arn) = (said(&touched.account), said(&touched.arn));
        let is_source = arn.rsplit(':').next() == Some(source);
        said(&touched.kind) == "AWS::S3::Bucket" && !is_source && !owner.is_empty() && owner != account
    })
}

/// The check that an operation asks for.
fn by_operation(service: &str, name: &str) -> Option<fn(&Request<'_>) -> bool> {
    let check: fn(&Request<'_>) -> bool = match (service, name) {
        ("ec2", "AuthorizeSecurityGroupIngress" | "ModifySecurityGroupRules")
        | ("rds" | "elasticache", "AuthorizeDBSecurityGroupIngress" | "AuthorizeCacheSecurityGroupIngress")
        | ("redshift", "AuthorizeClusterSecurityGroupIngress") => |r| r.opens_network(),
        ("eks", "CreateCluster" | "UpdateClusterConfig") => |r| r.opens_network(),
        ("ec2", "ModifySnapshotAttribute" | "ModifyImageAttribute" | "ModifyFpgaImageAttribute") => {
            |r| r.adds_permission()
        }
        ("ec2", "DisableSnapshotBlockPublicAccess" | "DisableImageBlockPublicAccess") => |_| true,
        ("rds", "ModifyDBSnapshotAttribute" | "ModifyDBClusterSnapshotAttribute") => {
            |r| r.names_other(&["valuesToAdd"])
        }
        ("redshift", "AuthorizeSnapshotAccess") => |r| r.names_other(&["accountWithRestoreAccess"]),
        ("redshift", "AuthorizeDataShare") => |r| r.names_other(&["consumerIdentifier"]),
        ("redshift", "AuthorizeEndpointAccess") => |r| r.names_other(&["account"]),
        ("kms", "CreateGrant") => |r| r.names_other(&["granteePrincipal"]),
        ("elasticmapreduce", "PutBlockPublicAccessConfiguration") => |r| r.lifts_block(),
        ("s3", "PutBucketReplication") => |r| r.replicates_away(),
        ("ssm", "ModifyDocumentPermission") => |r| r.names_other(&["accountIdsToAdd"]),
        ("ram", "CreateResourceShare" | "AssociateResourceShare") => |r| r.names_other(&["principals"]),
        ("sns" | "sqs", "AddPermission") => |r| r.names_other(&["aWSAccountId", "aWSAccountIds", "AWSAccountIds"]),
        ("events", "PutPermission") | ("lambda", "AddPermission" | "AddLayerVersionPermission") => |r| r.invites(),
        ("lambda", "CreateFunctionUrlConfig" | "UpdateFunctionUrlConfig") => |r| r.has("authType", "NONE"),
        ("codebuild", "UpdateProjectVisibility") => |r| r.has("projectVisibility", "PUBLIC_READ"),
        ("s3", name) if name.ends_with("PublicAccessBlock") => |r| r.lifts_block(),
        ("s3", "CreateBucket" | "PutObject" | "CopyObject") => |r| r.sets_public_acl(),
        ("s3", name) if name.starts_with("Put") && name.ends_with("Acl") => |r| r.sets_public_acl(),
        _ => return None,
    };
    Some(check)
}

impl Request<'_> {
    /// A network wider than any private one is let in.
    fn opens_network(&self) -> bool {
        any(self.parameters, "", &mut |_, leaf| leaf.as_str().is_some_and(is_wide))
    }

    /// `createVolumePermission`, `launchPermission` or `loadPermission` with something under `add`.
    fn adds_permission(&self) -> bool {
        let added =
            self.parameters.as_object().into_iter().flat_map(Map::values).filter_map(|member| member.get("add"));
        added.into_iter().any(|added| {
            any(added, "", &mut |key, leaf| match (key, leaf.as_str()) {
                ("group", Some(group)) => group == "all",
                ("userId", Some(account)) => self.is_other(account),
                ("organizationArn" | "organizationalUnitArn", Some(_)) => true,
                _ => false,
            })
        })
    }

    /// One of these members names another account, or everyone.
    fn names_other(&self, members: &[&str]) -> bool {
        let values = members.iter().filter_map(|name| self.parameters.get(name));
        values.into_iter().any(|value| {
            any(value, "", &mut |_, leaf| leaf.as_str().is_some_and(|who| who == "all" || self.is_other(who)))
        })
    }

    /// The member `principal` names everyone (unless held to an organisation) or another account.
    fn invites(&self) -> bool {
        let held = ["organizationId", "principalOrgID", "sourceAccount"]
            .into_iter()
            .any(|name| self.parameters.get(name).is_some_and(Value::is_string));
        self.parameters.get("principal").and_then(Value::as_str).is_some_and(|who| match who {
            "*" => !held,
            _ => self.is_other(who),
        })
    }

    fn has(&self, member: &str, value: &str) -> bool {
        self.parameters.get(member).and_then(Value::as_str) == Some(value)
    }

    /// Any part of a public access block is set to false.
    fn lifts_block(&self) -> bool {
        self.name.starts_with("Put")
            && any(self.parameters, "", &mut |_, leaf| *leaf == Value::Bool(false) || leaf.as_str() == Some("false"))
    }

    /// A canned ACL for everyone, or a grant to one of the two groups that are everyone.
    fn sets_public_acl(&self) -> bool {
        any(self.parameters, "", &mut |key, leaf| {
            leaf.as_str().is_some_and(|text| {
                let canned = text.starts_with("public-read") || text == "authenticated-read";
                let everyone = ["AllUsers", "AuthenticatedUsers"]
                    .into_iter()
                    .any(|group| text.contains(&format!("acs.amazonaws.com/groups/global/{group}")));
                everyone || (canned && key.to_ascii_lowercase().contains("acl"))
            })
        })
    }

    /// Replicas are to belong to another account.
    fn replicates_away(&self) -> bool {
        any(self.parameters, "", &mut |key, leaf| {
            key == "Account" && leaf.as_str().is_some_and(|who| self.is_other(who))
        })
    }

    /// A resource policy, as an object or as text, that allows everyone or another account something.
    fn by_policy(&self) -> bool {
        let mut found = false;
        visit(self.parameters, "", &mut |_, value| {
            found |= match value {
                Value::Object(policy) => self.opens(policy),
                Value::String(text) if text.trim_start().starts_with('{') => {
                    matches!(serde_json::from_str(text), Ok(Value::Object(policy)) if self.opens(&policy))
                }
                _ => false,
            };
            found
        });
        found
    }

    fn opens(&self, policy: &Map<String, Value>) -> bool {
        policy
            .get("Statement")
            .is_some_and(|statements| each(statements).iter().any(|statement| self.allows_other(statement)))
    }

    fn allows_other(&self, statement: &Value) -> bool {
        let allows = statement.get("Effect").and_then(Value::as_str) == Some("Allow");
        let others = statement.get("NotPrincipal").is_some()
            || match statement.get("Principal") {
                Some(Value::String(who)) => self.is_other(who),
                Some(Value::Object(who)) => who.get("AWS").is_some_and(|accounts| {
                    each(accounts).iter().filter_map(Value::as_str).any(|who| self.is_other(who))
                }),
                _ => false,
            };
        allows && others && !statement.get("Condition").is_some_and(|condition| self.confines(condition))
    }

    /// Whether a condition keeps everyone else out, roughly as AWS decides what a public policy is. Whether an
    /// organisation or a VPC is one's own cannot be told from here and is taken for granted.
    fn confines(&self, condition: &Value) -> bool {
        let operators = condition.as_object().into_iter().flatten();
        operators.filter(|(operator, _)| is_strict(operator)).any(|(_, keys)| {
            keys.as_object().into_iter().flatten().any(|(key, values)| {
                let values = each(values);
                let all = |check: &dyn Fn(&str) -> bool| {
                    !values.is_empty() && values.iter().all(|value| value.as_str().is_some_and(check))
                };
                match key.to_ascii_lowercase().as_str() {
                    "aws:principalorgid"
                    | "aws:principalorgpaths"
                    | "aws:sourceorgid"
                    | "aws:sourcevpc"
                    | "aws:sourcevpce" => all(&|value| !value.starts_with(['*', '?'])),
                    "aws:sourceaccount"
                    | "aws:sourceowner"
                    | "aws:principalaccount"
                    | "kms:calleraccount"
                    | "aws:sourcearn"
                    | "aws:principalarn" => all(&|value| !self.is_other(value)),
                    "aws:sourceip" => all(&|value| !is_wide(value)),
                    _ => false,
                }
            })
        })
    }

    /// Whether a principal (account id, ARN or `*`) is not of this account. What names no account (the id of a user or
    /// role, a service, a bucket) or an organisation, whose ARN has the management account's id, counts as own.
    fn is_other(&self, who: &str) -> bool {
        let account = match who.strip_prefix("arn:") {
            Some(arn) if arn.split(':').nth(1) == Some("organizations") => return false,
            Some(arn) => arn.split(':').nth(3).unwrap_or("*"),
            None => who,
        };
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        account.contains(['*', '?']) || (is_account && account != self.account)
    }
}

/// Whether `publiclyAccessible` is true anywhere.
fn says_public(value: &Value) -> bool {
    any(value, "", &mut |key, leaf| {
        key.eq_ignore_ascii_case("publiclyAccessible") && (*leaf == Value::Bool(true) || leaf.as_str() == Some("true"))
    })
}

/// Whether a condition operator lets only what it names through.
fn is_strict(operator: &str) -> bool {
    let loose = ["Not", "IfExists", "ForAllValues", "Null"];
    !loose.into_iter().any(|word| operator.contains(word))
}

/// A network with more addresses than the widest private ones, 10.0.0.0/8 and fc00::/7; `0.0.0.0/0` above all.
fn is_wide(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    match (address.parse(), bits.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(bits)) => bits < 8,
        (Ok(IpAddr::V6(_)), Ok(bits)) => bits < 7,
        _ => false,
    }
}

/// One or many: IAM writes a single element without its brackets.
fn each(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

/// Whether any leaf passes, given the nearest member name above it.
fn any(value: &Value, key: &str, check: &mut dyn FnMut(&str, &Value) -> bool) -> bool {
    visit(value, key, &mut |key, value| !value.is_object() && !value.is_array() && check(key, value))
}

/// Walks a value until `stop`; the parser bounds how deep it can be.
fn visit(value: &Value, key: &str, stop: &mut dyn FnMut(&str, &Value) -> bool) -> bool {
    stop(key, value)
        || match value {
            Value::Object(members) => members.iter().any(|(name, member)| visit(member, name, stop)),
            Value::Array(elements) => elements.iter().any(|element| visit(element, key, stop)),
            _ => false,
        }
}

#[cfg(test)]
#[path = "exposure_tests.rs"]
mod tests;
