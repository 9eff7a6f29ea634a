//! Entra's records: changes of the directory, sign-ins, and requests to Microsoft Graph. What it judges by itself (risks,
//! provisioning) is refused as unsupported, for it tells of no request.

use serde::Deserialize;
use serde::de::IgnoredAny;
use tautline_detectors::event::{
    Credential, CredentialKind, Event, Origin, Outcome, Place, Principal, Resource, Source, Verb,
};

use super::{Record, id, name, properties_of, trace, unnamed};
use crate::audit::{self, ENTRIES_MAX};
use crate::json::Raw;
use crate::wire::{self, List, Moment, Object, Scalar, Text, said, scalar};
use crate::{Reason, Rejection};

/// Categories of sign-ins, in lower case.
const SIGN_INS: [&str; 6] = [
    "signinlogs",
    "adfssigninlogs",
    "noninteractiveusersigninlogs",
    "serviceprincipalsigninlogs",
    "managedidentitysigninlogs",
    "microsoftserviceprincipalsigninlogs",
];

pub(super) fn is_sign_in(category: &str) -> bool {
    SIGN_INS.contains(&category)
}

/// Whether a record's resource is the directory itself.
pub(super) fn is_directory(resource: &str) -> bool {
    let end = resource.rsplit('/').next().unwrap_or_default();
    end.eq_ignore_ascii_case("microsoft.aadiam")
}

/// Whether these are the properties of a `directoryAudit`, whatever the record's own category: some write the change's.
pub(super) fn is_change(properties: Option<&Raw<'_>>) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Sign {
        activity_display_name: Option<IgnoredAny>,
    }
    let sign = properties.and_then(|raw| wire::object::<Sign>(raw.get(), "").ok());
    sign.is_some_and(|sign| sign.activity_display_name.is_some())
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Change<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    activity_date_time: Option<Moment>,
    #[serde(borrow)]
    activity_display_name: Option<Text<'a>>,
    #[serde(borrow)]
    category: Option<Text<'a>>,
    #[serde(borrow)]
    initiated_by: Option<Object<Initiator<'a>>>,
    #[serde(borrow)]
    target_resources: Option<List<Object<Target<'a>>, ENTRIES_MAX>>,
    #[serde(borrow)]
    result: Option<Text<'a>>,
    #[serde(borrow)]
    result_reason: Option<Text<'a>>,
    #[serde(borrow)]
    additional_details: Option<Raw<'a>>,
}

#[derive(Deserialize)]
struct Initiator<'a> {
    #[serde(borrow)]
    user: Option<Object<Party<'a>>>,
    #[serde(borrow)]
    app: Option<Object<Party<'a>>>,
}

/// A user or an application.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Party<'a> {
    #[serde(borrow)]
    user_principal_name: Option<Text<'a>>,
    #[serde(borrow)]
    service_principal_id: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    app_id: Option<Text<'a>>,
    #[serde(borrow)]
    display_name: Option<Text<'a>>,
    #[serde(borrow)]
    ip_address: Option<Text<'a>>,
}

impl Party<'_> {
    fn name(&self) -> String {
        let names = [&self.user_principal_name, &self.service_principal_id, &self.id, &self.app_id, &self.display_name];
        audit::first(names.map(|name| Some(said(name))))
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Target<'a> {
    #[serde(borrow)]
    r#type: Option<Text<'a>>,
    #[serde(borrow)]
    user_principal_name: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    display_name: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Detail<'a> {
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    value: Option<Raw<'a>>,
}

/// Decodes a change of the directory.
pub(super) fn change(record: Record<'_>) -> Result<Event, Rejection> {
    let json = properties_of(record.properties.as_ref())?;
    let change: Change<'_> = json.as_deref().map_or(Ok(Change::default()), |json| wire::object(json, "properties"))?;
    let action = audit::first([Some(name(&record.operation_name)), Some(said(&change.activity_display_name))]);
    let initiator = change.initiated_by.map(|Object(initiator)| initiator);
    let (user, app) = initiator.map_or((None, None), |initiator| (initiator.user, initiator.app));
    let address = user.iter().map(|Object(user)| said(&user.ip_address)).find(|address| !address.is_empty());
    let account = said(&record.tenant_id).to_owned();
    let details = change.additional_details.as_ref();
    let details = details.and_then(|raw| audit::parsed::<List<Object<Detail<'_>>, ENTRIES_MAX>>(raw, "").ok());
    let detail = |wanted: &str| detail(details.as_ref(), wanted);
    let reason = audit::first([Some(said(&change.result_reason)), Some(said(&change.result))]);
    Ok(Event {
        id: id(&account, said(&record.correlation_id), &action, said(&change.id)),
        source: Source::Azure,
        at: time(record.time.or(change.activity_date_time))?,
        verb: verb(&audit::first([Some(said(&change.category)), Some(name(&record.category))])),
        outcome: match said(&change.result).to_ascii_lowercase().as_str() {
            "success" => Outcome::Success,
            "" => super::outcome(&record),
            "failure" | "failed" | "timeout" => Outcome::Failed(reason),
            _ => Outcome::Unknown,
        },
        resource: target(change.target_resources.unwrap_or_default().0.into_iter().next()),
        principal: initiated(name_of(user.as_ref()), name_of(app.as_ref())),
        origin: Origin {
            address: audit::first([Some(said(&record.caller_ip_address)), address, Some(&detail("ipaddr"))]),
            user_agent: detail("User-Agent"),
            ..Origin::default()
        },
        place: Place { account, ..Place::default() },
        trace: trace(record.correlation_id),
        action: format!("entra:{action}"),
        ..Event::default()
    })
}

/// All that the directory holds says who may do what, but the devices and what has no category.
fn verb(category: &str) -> Verb {
    match category {
        "Device" | "DeviceManagement" | "DeviceConfiguration" | "Other" | "" => Verb::Write,
        _ => Verb::PermissionChange,
    }
}

fn name_of(party: Option<&Object<Party<'_>>>) -> String {
    party.map(|Object(party)| party.name()).unwrap_or_default()
}

/// The user, or the application; an application that acts for a user does so on their behalf.
fn initiated(user: String, app: String) -> Principal {
    let (id, on_behalf_of) = match (user.is_empty(), app.is_empty()) {
        (false, false) => (app, vec![user]),
        (false, true) => (user, Vec::new()),
        (true, false) => (app, Vec::new()),
        (true, true) => (unnamed("entra"), Vec::new()),
    };
    Principal { id, on_behalf_of, ..Principal::default() }
}

fn target(target: Option<Object<Target<'_>>>) -> Resource {
    let Object(target) = target.unwrap_or(Object(Target::default()));
    Resource {
        kind: format!("entra/{}", said(&target.r#type).to_ascii_lowercase()),
        id: audit::first([&target.user_principal_name, &target.id, &target.display_name].map(|name| Some(said(name)))),
        ..Resource::default()
    }
}

/// The value of a detail that is text.
fn detail(details: Option<&List<Object<Detail<'_>>, ENTRIES_MAX>>, wanted: &str) -> String {
    let found = details.and_then(|List(list)| list.iter().find(|Object(detail)| said(&detail.key) == wanted));
    audit::name(found.and_then(|Object(detail)| detail.value.as_ref()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignIn<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    created_date_time: Option<Moment>,
    #[serde(borrow)]
    user_principal_name: Option<Text<'a>>,
    #[serde(borrow)]
    user_id: Option<Text<'a>>,
    #[serde(borrow)]
    service_principal_id: Option<Text<'a>>,
    #[serde(borrow)]
    service_principal_name: Option<Text<'a>>,
    #[serde(borrow)]
    app_id: Option<Text<'a>>,
    #[serde(borrow)]
    ip_address: Option<Text<'a>>,
    #[serde(borrow)]
    user_agent: Option<Text<'a>>,
    #[serde(borrow)]
    resource_id: Option<Text<'a>>,
    #[serde(borrow)]
    resource_display_name: Option<Text<'a>>,
    #[serde(borrow)]
    status: Option<Object<Status<'a>>>,
    #[serde(borrow)]
    session_id: Option<Text<'a>>,
    #[serde(borrow)]
    unique_token_identifier: Option<Text<'a>>,
    #[serde(borrow)]
    authentication_requirement: Option<Text<'a>>,
    #[serde(borrow)]
    agent: Option<Object<Agent<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(borrow)]
    error_code: Option<Scalar<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Agent<'a> {
    #[serde(borrow)]
    agent_type: Option<Text<'a>>,
}

/// Decodes a sign-in. It changes nothing.
pub(super) fn sign_in(record: Record<'_>) -> Result<Event, Rejection> {
    let json = required(record.properties.as_ref())?;
    let sign_in: SignIn<'_> = wire::object(&json, "properties")?;
    let action = audit::first([Some(name(&record.operation_name)), Some("Sign-in activity")]);
    let account = said(&record.tenant_id).to_owned();
    let succeeded = matches!(outcome(&record, &sign_in), Outcome::Success);
    Ok(Event {
        id: id(&account, said(&record.correlation_id), &action, said(&sign_in.id)),
        source: Source::Azure,
        at: time(record.time.or(sign_in.created_date_time))?,
        verb: Verb::Read,
        outcome: outcome(&record, &sign_in),
        resource: Resource {
            kind: "entra/serviceprincipal".to_owned(),
            id: audit::first([Some(said(&sign_in.resource_display_name)), Some(said(&sign_in.resource_id))]),
            ..Resource::default()
        },
        principal: signed_in(&sign_in, &name(&record.category).to_ascii_lowercase()),
        credential: Credential {
            id: said(&sign_in.unique_token_identifier).to_owned(),
            kind: if succeeded { CredentialKind::ShortLived } else { CredentialKind::Unknown },
            mfa: match said(&sign_in.authentication_requirement) {
                "multiFactorAuthentication" => Some(true),
                "singleFactorAuthentication" => Some(false),
                _ => None,
            },
            ..Credential::default()
        },
        origin: Origin {
            address: audit::first([Some(said(&sign_in.ip_address)), Some(said(&record.caller_ip_address))]),
            user_agent: said(&sign_in.user_agent).to_owned(),
            channel: channel(sign_in.agent.as_ref()),
        },
        place: Place { account, ..Place::default() },
        trace: trace(record.correlation_id),
        action: format!("entra:{action}"),
        ..Event::default()
    })
}

/// The most bytes of a request's URI, in which filters and continuation tokens stand.
const URI_MAX: usize = 65_536;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    request_method: Text<'a, 1>,
    #[serde(borrow)]
    request_uri: Text<'a, 1, URI_MAX>,
    #[serde(borrow)]
    request_id: Option<Text<'a>>,
    #[serde(borrow)]
    response_status_code: Option<Scalar<'a>>,
    #[serde(borrow)]
    user_id: Option<Text<'a>>,
    #[serde(borrow)]
    service_principal_id: Option<Text<'a>>,
    #[serde(borrow)]
    app_id: Option<Text<'a>>,
    #[serde(borrow)]
    session_id: Option<Text<'a>>,
    #[serde(borrow)]
    sign_in_activity_id: Option<Text<'a>>,
    #[serde(borrow)]
    ip_address: Option<Text<'a>>,
    #[serde(borrow)]
    user_agent: Option<Text<'a>>,
}

/// Decodes a request to Microsoft Graph.
pub(super) fn graph(record: Record<'_>) -> Result<Event, Rejection> {
    let json = required(record.properties.as_ref())?;
    let request: Request<'_> = wire::object(&json, "properties")?;
    let (method, path) = (request.request_method.as_str().to_ascii_uppercase(), path(request.request_uri.as_str()));
    let names = names(path);
    let account = said(&record.tenant_id).to_owned();
    let action = format!("graph:{method} {}", names.join("/"));
    let code = scalar(request.response_status_code.as_ref());
    // The id of an application stands beside every user.
    let alone = Some(said(&request.app_id)).filter(|_| said(&request.user_id).is_empty());
    let app = audit::first([Some(said(&request.service_principal_id)), alone]);
    Ok(Event {
        id: id(&account, said(&record.correlation_id), &action, said(&request.request_id)),
        source: Source::Azure,
        at: time(record.time)?,
        verb: graph_verb(&method, &names),
        outcome: if code.is_empty() { super::outcome(&record) } else { super::by_code(&code) },
        resource: Resource {
            kind: format!("graph/{}", names.first().copied().unwrap_or_default()),
            id: path.to_owned(),
            ..Resource::default()
        },
        principal: Principal {
            session: said(&request.session_id).to_owned(),
            ..initiated(said(&request.user_id).to_owned(), app)
        },
        credential: Credential {
            id: said(&request.sign_in_activity_id).to_owned(),
            kind: CredentialKind::ShortLived,
            ..Credential::default()
        },
        origin: Origin {
            address: audit::first([Some(said(&request.ip_address)), Some(said(&record.caller_ip_address))]),
            user_agent: said(&request.user_agent).to_owned(),
            ..Origin::default()
        },
        place: Place { account, ..Place::default() },
        trace: trace(record.correlation_id),
        action,
        ..Event::default()
    })
}

/// The most names of a path that an operation has.
const NAMES_MAX: usize = 8;

/// The path behind host and version: `users/7` of `https://graph.microsoft.com/v1.0/users/7?$select=id`.
fn path(uri: &str) -> &str {
    let path = uri.split('?').next().unwrap_or_default();
    let path = path.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or(path, |(_, path)| path);
    let path = path.trim_matches('/');
    path.split_once('/').filter(|(version, _)| matches!(*version, "v1.0" | "beta")).map_or(path, |(_, path)| path)
}

/// The collections, properties and actions that a path names, without ids, which are GUIDs, numbers or addresses.
fn names(path: &str) -> Vec<&str> {
    let is_a_name = |part: &&str| {
        (1..=64).contains(&part.len()) && part.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, '$' | '.'))
    };
    let parts = path.split('/').map(|part| part.split('(').next().unwrap_or_default());
    parts.filter(is_a_name).take(NAMES_MAX).collect()
}

/// Names in Graph's paths, in lower case, under which it stands who may do what.
const GRANTS: [&str; 18] = [
    "directoryroles",
    "rolemanagement",
    "roleassignments",
    "approleassignments",
    "approleassignedto",
    "oauth2permissiongrants",
    "federatedidentitycredentials",
    "addpassword",
    "removepassword",
    "addkey",
    "removekey",
    "authentication",
    "members",
    "owners",
    "invitations",
    "policies",
    "domains",
    "changepassword",
];

/// Collections, in lower case, of those who may do something: to change them is to change that.
const PARTIES: [&str; 4] = ["users", "groups", "applications", "serviceprincipals"];

fn graph_verb(method: &str, names: &[&str]) -> Verb {
    let is_grant = |name: &&str| GRANTS.into_iter().any(|grant| name.eq_ignore_ascii_case(grant));
    let is_party = |name: &&str| PARTIES.into_iter().any(|party| name.eq_ignore_ascii_case(party));
    match method {
        "GET" | "HEAD" | "OPTIONS" => Verb::Read,
        _ if names.iter().any(is_grant) || names.last().is_some_and(is_party) => Verb::PermissionChange,
        _ => Verb::Write,
    }
}

/// Who signed in: the user, or the service principal that has no user.
fn signed_in(sign_in: &SignIn<'_>, category: &str) -> Principal {
    let user = [&sign_in.user_principal_name, &sign_in.user_id];
    let service = [&sign_in.service_principal_id, &sign_in.service_principal_name, &sign_in.app_id];
    let (user, service) = (audit::first(user.map(|id| Some(said(id)))), audit::first(service.map(|id| Some(said(id)))));
    let id =
        if user.is_empty() || category.contains("principal") || category.contains("managed") { service } else { user };
    Principal {
        id: if id.is_empty() { unnamed("entra") } else { id },
        session: said(&sign_in.session_id).to_owned(),
        ..Principal::default()
    }
}

/// Codes with which Entra refuses an identity that it knows: by conditional access, for want of a role or a consent.
const REFUSALS: [&str; 7] = ["50105", "53000", "53001", "53003", "65001", "90094", "7000112"];

fn outcome(record: &Record<'_>, sign_in: &SignIn<'_>) -> Outcome {
    let code = sign_in.status.as_ref().map(|Object(status)| scalar(status.error_code.as_ref())).unwrap_or_default();
    let result = scalar(record.result_type.as_ref());
    let code = if code.is_empty() && result.bytes().all(|byte| byte.is_ascii_digit()) { result } else { code };
    match code.as_str() {
        "" => super::outcome(record),
        "0" => Outcome::Success,
        code if REFUSALS.contains(&code) => Outcome::Denied(code.to_owned()),
        code => Outcome::Failed(code.to_owned()),
    }
}

/// What kind of agent Entra says that it was.
fn channel(agent: Option<&Object<Agent<'_>>>) -> String {
    let kind = agent.map(|Object(agent)| said(&agent.agent_type)).unwrap_or_default();
    if kind == "notAgentic" { String::new() } else { kind.to_owned() }
}

fn required<'a>(properties: Option<&'a Raw<'_>>) -> Result<std::borrow::Cow<'a, str>, Rejection> {
    properties_of(properties)?.ok_or_else(|| Rejection::new(Reason::MissingField, "`properties` is missing"))
}

fn time(time: Option<Moment>) -> Result<i64, Rejection> {
    time.map(|Moment(at)| at).ok_or_else(|| Rejection::new(Reason::MissingField, "`time` is missing"))
}
