//! What a Kubernetes API server says happened: its audit log.
//!
//! Field reference: `audit.k8s.io/v1`, kinds `Event` and `EventList`; v1beta1 and v1alpha1 differ in nothing that is read
//! here. One request is told in stages that share an `auditID`. That it was received is no event yet, for a later stage says
//! how it ended; what runs long (`watch`, `exec`) is told when it starts and again when it ends.

use std::borrow::Cow;

use serde::Deserialize;
use tautline_detectors::event::{
    Argument, Credential, CredentialKind, Event, Origin, Outcome, Place, Principal, Resource, Source, Trace, Verb,
};

use crate::audit::{self, ENTRIES_MAX, MEMBERS_MAX};
use crate::format::{Format, Opened, Top, Wire};
use crate::json::Raw;
use crate::wire::{self, List, Members, Moment, Name, Object, Scalar, Text, said, scalar, shown, text};
use crate::{BATCH_MAX, Reason, Rejection};

pub(crate) const WIRE: Wire = Wire {
    format: Format::Kubernetes,
    name: "kubernetes",
    tells: &["kind", "apiVersion", "auditID", "objectRef", "verb", "items"],
    looks,
    open,
    decode,
    sole: |_| None,
};

/// Some collectors drop the `apiVersion`; what then tells is what only audit events have.
fn looks(top: &Top<'_>) -> bool {
    let kind = top.text("kind").unwrap_or_default();
    let own = top.text("apiVersion").is_some_and(|version| version.starts_with(GROUP));
    let bare = !top.has("apiVersion") && (top.has("auditID") || (top.has("verb") && top.has("objectRef")));
    ["Event", "EventList"].contains(&&*kind) && (own || bare || (top.has("auditID") && kind == "Event"))
}

/// The API group of audit events.
const GROUP: &str = "audit.k8s.io/";

/// The service in front of an operation, as GKE has it.
pub(crate) const SERVICE: &str = "k8s.io";

/// Values of a user's `extra` field and annotations, by name.
type Extra<'a> = Members<'a, Raw<'a>, MEMBERS_MAX>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    api_version: Option<Text<'a>>,
    #[serde(rename = "auditID", borrow)]
    audit_id: Option<Text<'a>>,
    #[serde(borrow)]
    stage: Option<Text<'a>>,
    #[serde(rename = "requestURI", borrow)]
    request_uri: Option<Text<'a, 0, URI_MAX>>,
    #[serde(borrow)]
    verb: Name<'a>,
    #[serde(borrow)]
    user: Object<User<'a>>,
    #[serde(borrow)]
    impersonated_user: Option<Object<User<'a>>>,
    #[serde(rename = "sourceIPs", borrow)]
    source_ips: Option<List<Text<'a>, ENTRIES_MAX>>,
    #[serde(borrow)]
    user_agent: Option<Text<'a>>,
    #[serde(borrow)]
    object_ref: Option<Object<Reference<'a>>>,
    #[serde(borrow)]
    response_status: Option<Object<Status<'a>>>,
    #[serde(borrow)]
    request_object: Option<Raw<'a>>,
    request_received_timestamp: Option<Moment>,
    stage_timestamp: Option<Moment>,
    /// Of versions before v1.
    timestamp: Option<Moment>,
    #[serde(borrow)]
    annotations: Option<Extra<'a>>,
}

/// The most bytes of a request's URI: a command that is run in a container stands in it.
pub(crate) const URI_MAX: usize = 65_536;

#[derive(Deserialize)]
struct User<'a> {
    /// Not there where nobody was known by the credential.
    #[serde(borrow)]
    username: Option<Text<'a>>,
    #[serde(borrow)]
    extra: Option<Extra<'a>>,
}

impl User<'_> {
    fn name(&self) -> &str {
        said(&self.username)
    }

    /// The first value of a member of `extra`.
    fn extra(&self, name: &str) -> String {
        let values = self.extra.as_ref().and_then(|extra| extra.0.iter().find(|(member, _)| member == name));
        let values = values.and_then(|(_, raw)| audit::parsed::<List<Text<'_>, ENTRIES_MAX>>(raw, "user.extra").ok());
        text(values.and_then(|List(values)| values.into_iter().next()))
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Reference<'a> {
    #[serde(borrow)]
    resource: Option<Text<'a>>,
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    api_group: Option<Text<'a>>,
    #[serde(borrow)]
    api_version: Option<Text<'a>>,
    #[serde(borrow)]
    subresource: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow)]
    code: Option<Scalar<'a>>,
    #[serde(borrow)]
    reason: Option<Text<'a>>,
}

/// An object of a cluster, as its API's paths name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObjectPath<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    pub(crate) subresource: &'a str,
}

impl<'a> ObjectPath<'a> {
    /// Reads `core/v1/namespaces/default/pods/web/exec`, as GKE writes it.
    pub(crate) fn of(path: &'a str) -> Self {
        let (group, path) = path.split_once('/').unwrap_or((path, ""));
        Self::within(if group == "core" { "" } else { group }, path)
    }

    /// Reads `/api/v1/namespaces/default/pods/web/exec`, the path of a request.
    pub(crate) fn of_request(path: &'a str) -> Self {
        match path.strip_prefix("/apis/") {
            Some(path) => Self::of(path),
            None => path.strip_prefix("/api/").map(|path| Self::within("", path)).unwrap_or_default(),
        }
    }

    fn within(group: &'a str, path: &'a str) -> Self {
        let mut parts = path.split('/');
        let version = parts.next().unwrap_or_default();
        let rest: Vec<&str> = parts.take(6).collect();
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !matches!(rest, [] | ["status" | "finalize"]) => (*namespace, rest),
            rest => ("", rest),
        };
        let part = |at: usize| rest.get(at).copied().unwrap_or_default();
        ObjectPath { group, version, namespace, kind: part(0), name: part(1), subresource: part(2) }
    }

    /// The type: `pods`, `rbac.authorization.k8s.io/clusterroles`.
    pub(crate) fn kind(&self) -> String {
        if self.group.is_empty() { self.kind.to_owned() } else { format!("{}/{}", self.group, self.kind) }
    }

    /// The path without group and version; empty where no single object is named.
    pub(crate) fn id(&self) -> String {
        let is_own = self.kind == "namespaces";
        let namespace =
            if is_own || self.namespace.is_empty() { String::new() } else { format!("namespaces/{}/", self.namespace) };
        if self.name.is_empty() { namespace + self.kind } else { format!("{namespace}{}/{}", self.kind, self.name) }
    }

    /// The operation as GKE names it: group backwards, version, type, subresource and verb.
    pub(crate) fn operation(&self, verb: &str) -> String {
        let group = match self.group {
            "" => "core".to_owned(),
            group => group.strip_suffix(".k8s.io").unwrap_or(group).split('.').rev().collect::<Vec<_>>().join("."),
        };
        let parts = ["io.k8s", &group, self.version, self.kind, self.subresource, verb];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
    }
}

/// The verb of a request to a cluster. What runs a command in a container or reaches through to it is told by the
/// subresource, not by the API's verb: a websocket is opened with `get`.
pub(crate) fn verb(name: &str, object: &ObjectPath<'_>) -> Verb {
    let reads = matches!(name, "get" | "list" | "watch" | "head" | "options");
    let is_review = object.kind.ends_with("reviews") && matches!(object.group, REVIEWS_OF_ACCESS | REVIEWS_OF_TOKENS);
    let grants = matches!(name, "bind" | "escalate" | "impersonate" | "approve" | "sign");
    match (object.kind, object.subresource) {
        (_, "exec" | "attach" | "portforward" | "proxy") => Verb::Execute,
        (_, "ephemeralcontainers") if !reads => Verb::Execute,
        _ if reads || is_review => Verb::Read,
        // It hands out a token that ends by itself, and nobody may do more than before.
        ("serviceaccounts", "token") => Verb::Write,
        ("serviceaccounts", _) | ("certificatesigningrequests", "approval") => Verb::PermissionChange,
        _ if grants || object.group == "rbac.authorization.k8s.io" => Verb::PermissionChange,
        _ => Verb::Write,
    }
}

/// The API groups of questions that are asked by creating an object.
const REVIEWS_OF_ACCESS: &str = "authorization.k8s.io";
const REVIEWS_OF_TOKENS: &str = "authentication.k8s.io";

/// Opens an `EventList`.
fn open(text: &str) -> Result<Opened<'_>, Rejection> {
    #[derive(Deserialize)]
    struct Cover<'a> {
        #[serde(borrow)]
        kind: Option<Text<'a>>,
        #[serde(borrow)]
        items: Option<List<Raw<'a>, BATCH_MAX>>,
    }
    let cover: Cover<'_> = wire::object(text, "")?;
    match (cover.kind, cover.items) {
        (Some(kind), items) if kind.as_str() == "EventList" => Opened::many(items.unwrap_or_default().0, "items"),
        _ => Ok(Opened::one(text)),
    }
}

/// Decodes one event.
pub(crate) fn decode(json: &str) -> Result<Event, Rejection> {
    match wire::object::<Record<'_>>(json, "") {
        Ok(record) => event(record),
        // An object of another kind lacks our fields; that is not what is wrong with it.
        Err(rejection) => Err(other_kind(json).unwrap_or(rejection)),
    }
}

/// The rejection of an object that is no audit event, if this is one.
fn other_kind(json: &str) -> Option<Rejection> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind<'a> {
        #[serde(borrow)]
        kind: Option<Text<'a>>,
        #[serde(borrow)]
        api_version: Option<Text<'a>>,
    }
    let kind: Kind<'_> = wire::object(json, "").ok()?;
    unsupported(kind.kind.as_ref(), kind.api_version.as_ref())
}

fn unsupported(kind: Option<&Text<'_>>, version: Option<&Text<'_>>) -> Option<Rejection> {
    let kind = kind.map(Text::as_str).filter(|kind| *kind != "Event");
    let version = version.map(Text::as_str).filter(|version| !version.starts_with(GROUP));
    let detail = match (kind, version) {
        (Some(kind), _) => format!("`kind` is `{}`, not `Event`", shown(kind)),
        (None, Some(version)) => format!("`apiVersion` is `{}`, not one of `audit.k8s.io`", shown(version)),
        (None, None) => return None,
    };
    Some(Rejection::new(Reason::Unsupported, detail))
}

fn event(record: Record<'_>) -> Result<Event, Rejection> {
    if let Some(rejection) = unsupported(record.kind.as_ref(), record.api_version.as_ref()) {
        return Err(rejection);
    }
    let stage = text(record.stage);
    if stage == "RequestReceived" {
        return Err(Rejection::not_a_request("a request that was received, of which a later stage tells"));
    }
    let Some(Moment(at)) = record.stage_timestamp.or(record.request_received_timestamp).or(record.timestamp) else {
        return Err(Rejection::new(Reason::MissingField, "`stageTimestamp` is missing"));
    };
    let Object(user) = &record.user;
    let reference = record.object_ref.map(|Object(reference)| reference).unwrap_or_default();
    let object = reference.path();
    let (verb_name, uri) = (record.verb.as_str(), text(record.request_uri));
    let verb = verb(verb_name, &object);
    let account = account(user);
    let audit_id = text(record.audit_id);
    Ok(Event {
        id: id(&account, &audit_id, &stage),
        source: Source::Kubernetes,
        at,
        action: action(verb_name, &object),
        verb,
        outcome: outcome(record.response_status, &stage, record.annotations.as_ref()),
        arguments: arguments(record.request_object.as_ref(), &uri, user)?,
        resource: resource(&object, &uri, verb, record.request_object.as_ref()),
        place: Place { account, namespace: object.namespace.to_owned(), ..Place::default() },
        credential: credential(user, record.annotations.as_ref()),
        principal: principal(user, record.impersonated_user.as_ref()),
        origin: Origin {
            // All but the last of them are what the caller says.
            address: text(record.source_ips.and_then(|List(addresses)| addresses.into_iter().next_back())),
            user_agent: text(record.user_agent),
            ..Origin::default()
        },
        trace: (!audit_id.is_empty()).then(|| Trace { request_id: audit_id, ..Trace::default() }),
        ..Event::default()
    })
}

/// Stages of one request are events of their own. One without an `auditID` is known by its content.
fn id(account: &str, audit_id: &str, stage: &str) -> String {
    match audit_id {
        "" => format!("kubernetes/{account}/"),
        _ => format!("kubernetes/{account}/{audit_id}#{stage}"),
    }
}

impl Reference<'_> {
    fn path(&self) -> ObjectPath<'_> {
        let version = said(&self.api_version);
        let (group, version) = version.split_once('/').unwrap_or((said(&self.api_group), version));
        ObjectPath {
            group,
            version,
            namespace: said(&self.namespace),
            kind: said(&self.resource),
            name: said(&self.name),
            subresource: said(&self.subresource),
        }
    }
}

fn action(verb: &str, object: &ObjectPath<'_>) -> String {
    if object.kind.is_empty() { format!("{SERVICE}:{verb}") } else { format!("{SERVICE}:{}", object.operation(verb)) }
}

/// The object, or for what is none (`/metrics`) the path without its query.
fn resource(object: &ObjectPath<'_>, uri: &str, verb: Verb, request: Option<&Raw<'_>>) -> Resource {
    if object.kind.is_empty() {
        let path = uri.split('?').next().unwrap_or_default();
        return Resource { kind: "non-resource".to_owned(), id: path.to_owned(), ..Resource::default() };
    }
    let everybody = ["\"system:anonymous\"", "\"system:unauthenticated\""];
    let names = |raw: &Raw<'_>| everybody.into_iter().any(|subject| raw.get().contains(subject));
    Resource {
        kind: object.kind(),
        id: object.id(),
        exposes: verb == Verb::PermissionChange && request.is_some_and(names),
        ..Resource::default()
    }
}

/// Who acted: whose credential it was. On a cluster that knows its users by roles of AWS, that is the role, as in
/// CloudTrail, and the cluster's own name for it stands among the arguments. Whom they acted as is whom they acted for:
/// were that the principal, an agent could shed its name.
fn principal(user: &User<'_>, impersonated: Option<&Object<User<'_>>>) -> Principal {
    let role = user.extra("canonicalArn");
    let role = if role.is_empty() { user.extra("authentication.kubernetes.io/canonicalArn") } else { role };
    let pod = user.extra("authentication.kubernetes.io/pod-name");
    let session = user.extra("sessionName");
    let unnamed = format!("unnamed/{SERVICE}");
    let behind = impersonated.iter().map(|Object(user)| user.name().to_owned());
    Principal {
        id: audit::first([Some(&role), Some(user.name()), Some(&unnamed)]),
        session: if session.is_empty() { pod } else { session },
        on_behalf_of: behind.filter(|name| !name.is_empty()).collect(),
        ..Principal::default()
    }
}

/// The account of AWS whose role it was.
fn account(user: &User<'_>) -> String {
    let role = user.extra("canonicalArn");
    role.split(':').nth(4).unwrap_or_default().to_owned()
}

/// The credential's id and kind, as far as the API server or AWS tells.
fn credential(user: &User<'_>, annotations: Option<&Extra<'_>>) -> Credential {
    let key = user.extra("accessKeyId");
    let id = user.extra("authentication.kubernetes.io/credential-id");
    let name = user.name();
    let is_account = name.starts_with("system:serviceaccount:");
    let is_bound = !id.is_empty() || !user.extra("authentication.kubernetes.io/pod-name").is_empty();
    let is_legacy = annotation(annotations, "authentication.k8s.io/legacy-token").is_some();
    let kind = match key.get(..4) {
        Some("AKIA") => CredentialKind::LongLived,
        Some("ASIA") => CredentialKind::ShortLived,
        _ if is_legacy => CredentialKind::LongLived,
        _ if is_account && is_bound => CredentialKind::ShortLived,
        _ if !is_account && key.is_empty() && name.starts_with("system:") && name != "system:anonymous" => {
            CredentialKind::Service
        }
        _ => CredentialKind::Unknown,
    };
    let workload_identity = match kind {
        CredentialKind::ShortLived if is_account => Some(true),
        CredentialKind::LongLived => Some(false),
        _ => None,
    };
    // The API server names a credential by how it was checked: a client's certificate, or a token.
    let mutual_tls = (!id.is_empty()).then(|| id.starts_with("X509SHA256="));
    let id = if key.is_empty() { id } else { key };
    Credential { id, kind, workload_identity, mutual_tls, ..Credential::default() }
}

fn annotation<'a>(annotations: Option<&'a Extra<'_>>, name: &str) -> Option<Cow<'a, str>> {
    let (_, raw) = annotations?.0.iter().find(|(member, _)| member == name)?;
    raw.string()?.ok()
}

/// Refused by the authorizer or with 401 or 403; failed with any other error; done with any other code. Before there is a
/// response, nothing is known.
fn outcome(status: Option<Object<Status<'_>>>, stage: &str, annotations: Option<&Extra<'_>>) -> Outcome {
    let (code, reason) =
        status.map(|Object(status)| (status_code(status.code.as_ref()), text(status.reason))).unwrap_or_default();
    let reason = || if reason.is_empty() { code.to_string() } else { reason.clone() };
    let forbidden = annotation(annotations, "authorization.k8s.io/decision").is_some_and(|word| word == "forbid");
    match code {
        401 | 403 => Outcome::Denied(reason()),
        _ if forbidden => Outcome::Denied("forbid".to_owned()),
        400.. => Outcome::Failed(reason()),
        100..400 => Outcome::Success,
        _ if stage == "Panic" => Outcome::Failed(stage.to_owned()),
        _ => Outcome::Unknown,
    }
}

/// The code, which a lake may have as `200.0`.
fn status_code(code: Option<&Scalar<'_>>) -> u16 {
    let code = scalar(code);
    code.strip_suffix(".0").unwrap_or(&code).parse().unwrap_or_default()
}

/// What was sent, where the log keeps it; the query of the request, in which the command stands that is run in a container;
/// and the cluster's name of a user whose principal is a role.
fn arguments(request: Option<&Raw<'_>>, uri: &str, user: &User<'_>) -> Result<Vec<Argument>, Rejection> {
    let mut arguments = audit::arguments(request, "requestObject")?;
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            arguments.push(audit::text_argument(name, value));
        }
    };
    add("requestURI", uri.split_once('?').map_or("", |(_, query)| query));
    if !user.extra("canonicalArn").is_empty() {
        add("username", user.name());
    }
    Ok(arguments)
}

#[cfg(test)]
#[path = "kubernetes/tests.rs"]
mod tests;
