//! What Google Cloud says happened: Cloud Audit Logs.
//!
//! Field reference: `LogEntry` of the Logging API and `AuditLog` of the Cloud Audit API. Admin Activity, Data Access,
//! System Event and Policy Denied entries decode, bare, as a Pub/Sub push message or as BigQuery exports them. All other
//! log entries are refused as unsupported, for they tell of no request to an API.

use std::borrow::Cow;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Deserialize;
use tautline_detectors::event::{
    Credential, CredentialKind, Event, Origin, Outcome, Place, Principal, Resource, Source, Trace, Verb,
};

use crate::agent_action::ON_BEHALF_OF_MAX;
use crate::audit::{self, ENTRIES_MAX, Parameters};
use crate::format::{Format, Opened, Top, Wire};
use crate::json::Raw;
use crate::kubernetes::{self, ObjectPath};
use crate::wire::{self, Flag, List, Moment, Name, Object, Scalar, Text, said, shown, text};
use crate::{Reason, Rejection};

pub(crate) const WIRE: Wire = Wire {
    format: Format::Gcp,
    name: "gcp",
    tells: &[
        "protoPayload",
        "protopayload",
        "protopayload_auditlog",
        "logName",
        "logname",
        "insertId",
        "insertid",
        "resource",
        "message",
    ],
    looks,
    open,
    decode,
    sole: |_| None,
};

fn looks(top: &Top<'_>) -> bool {
    let any = |names: &[&str]| names.iter().any(|name| top.has(name));
    let is_entry = any(&["logName", "logname"]) && any(&["insertId", "insertid", "resource"]);
    any(&["protoPayload", "protopayload", "protopayload_auditlog"]) || is_entry || top.holds("message", "data")
}

/// Where the caller stands; a lake may have it as text, which says nothing.
const METADATA: &str = "protoPayload.requestMetadata";

/// The `@type` of the payload of an audit log.
const AUDIT_LOG: &str = "type.googleapis.com/google.cloud.audit.AuditLog";

/// In a lake, members may have lost their case, beside themselves as they were, and `@type` its sign.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(borrow)]
    insert_id: Option<Text<'a>>,
    #[serde(rename = "insertid", borrow)]
    insert_id_in_lake: Option<Text<'a>>,
    #[serde(borrow)]
    log_name: Option<Text<'a>>,
    #[serde(rename = "logname", borrow)]
    log_name_in_lake: Option<Text<'a>>,
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    #[serde(alias = "receivetimestamp", borrow)]
    receive_timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    resource: Option<Raw<'a>>,
    #[serde(alias = "protopayload_auditlog", alias = "protopayload", borrow)]
    proto_payload: Option<Object<AuditLog<'a>>>,
    #[serde(borrow)]
    operation: Option<Object<Operation<'a>>>,
    #[serde(borrow)]
    trace: Option<Text<'a>>,
    #[serde(borrow)]
    span_id: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
struct Monitored<'a> {
    #[serde(borrow)]
    r#type: Option<Text<'a>>,
    #[serde(borrow)]
    labels: Option<Parameters<'a>>,
}

#[derive(Deserialize)]
struct Operation<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuditLog<'a> {
    #[serde(rename = "@type", alias = "at_sign_type", borrow)]
    kind: Option<Text<'a>>,
    #[serde(alias = "servicename", borrow)]
    service_name: Option<Text<'a>>,
    #[serde(alias = "methodname", borrow)]
    method_name: Name<'a>,
    #[serde(alias = "resourcename", borrow)]
    resource_name: Option<Text<'a>>,
    #[serde(alias = "resourcelocation", borrow)]
    resource_location: Option<Raw<'a>>,
    #[serde(borrow)]
    status: Option<Object<Status<'a>>>,
    #[serde(alias = "authenticationinfo", borrow)]
    authentication_info: Option<Object<Authentication<'a>>>,
    #[serde(alias = "authorizationinfo", borrow)]
    authorization_info: Option<List<Object<Authorization<'a>>, ENTRIES_MAX>>,
    #[serde(alias = "requestmetadata", borrow)]
    request_metadata: Option<Raw<'a>>,
    #[serde(borrow)]
    request: Option<Raw<'a>>,
    #[serde(alias = "servicedata", borrow)]
    service_data: Option<Raw<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Locations<'a> {
    #[serde(borrow)]
    current_locations: Option<List<Text<'a>, ENTRIES_MAX>>,
}

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow)]
    code: Option<Scalar<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Authentication<'a> {
    #[serde(alias = "principalemail", borrow)]
    principal_email: Option<Text<'a>>,
    #[serde(alias = "principalsubject", borrow)]
    principal_subject: Option<Text<'a>>,
    #[serde(alias = "serviceaccountkeyname", borrow)]
    service_account_key_name: Option<Text<'a>>,
    #[serde(alias = "serviceaccountdelegationinfo", borrow)]
    service_account_delegation_info: Option<List<Object<Delegate<'a>>, ENTRIES_MAX>>,
}

/// One step of the way to the service account that acts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delegate<'a> {
    #[serde(borrow)]
    first_party_principal: Option<Object<FirstParty<'a>>>,
    #[serde(borrow)]
    principal_subject: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FirstParty<'a> {
    #[serde(borrow)]
    principal_email: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authorization<'a> {
    #[serde(borrow)]
    permission: Option<Text<'a>>,
    #[serde(borrow)]
    permission_type: Option<Text<'a>>,
    granted: Option<Flag>,
    #[serde(borrow)]
    resource: Option<Text<'a>>,
    #[serde(borrow)]
    resource_attributes: Option<Object<Attributes<'a>>>,
}

#[derive(Deserialize)]
struct Attributes<'a> {
    #[serde(borrow)]
    r#type: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Caller<'a> {
    #[serde(borrow)]
    caller_ip: Option<Text<'a>>,
    #[serde(rename = "callerIP", alias = "callerip", borrow)]
    caller_ip_in_lake: Option<Text<'a>>,
    #[serde(alias = "callersupplieduseragent", borrow)]
    caller_supplied_user_agent: Option<Text<'a>>,
}

/// Takes the entry out of a Pub/Sub push message, `{"message": {"data": …}}` in base64.
fn open(text: &str) -> Result<Opened<'_>, Rejection> {
    #[derive(Deserialize)]
    struct Push<'a> {
        #[serde(borrow)]
        message: Option<Raw<'a>>,
    }
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        data: Option<Text<'a, 0, { crate::RECORD_MAX }>>,
    }
    let push: Push<'_> = wire::object(text, "")?;
    let Some(message) = push.message.filter(|message| message.get().starts_with('{')) else {
        return Ok(Opened::one(text));
    };
    let message: Message<'_> = wire::object(message.get(), "message")?;
    let Some(data) = message.data else {
        return Err(Rejection::new(Reason::MissingField, "`message.data` is missing"));
    };
    let bytes = BASE64_STANDARD
        .decode(data.as_str())
        .map_err(|_| Rejection::new(Reason::InvalidValue, "`message.data` is no base64"))?;
    let entry = String::from_utf8(bytes)
        .map_err(|_| Rejection::new(Reason::NotUtf8, "`message.data` holds what is not UTF-8"))?;
    Ok(Opened::One(Cow::Owned(entry)))
}

/// Decodes one log entry.
fn decode(json: &str) -> Result<Event, Rejection> {
    match wire::object::<Entry<'_>>(json, "") {
        Ok(entry) => event(entry),
        // Payloads of other types lack our fields; that is not what is wrong with them.
        Err(rejection) => Err(other_payload(json).unwrap_or(rejection)),
    }
}

/// The rejection of a payload of another type, if this is one.
fn other_payload(json: &str) -> Option<Rejection> {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(rename = "protoPayload", alias = "protopayload", borrow)]
        payload: Object<Payload<'a>>,
    }
    #[derive(Deserialize)]
    struct Payload<'a> {
        #[serde(rename = "@type", alias = "at_sign_type", borrow)]
        kind: Text<'a>,
    }
    let entry: Entry<'_> = wire::object(json, "").ok()?;
    unsupported(entry.payload.0.kind.as_str())
}

fn unsupported(kind: &str) -> Option<Rejection> {
    (kind != AUDIT_LOG).then(|| {
        let detail = format!("`protoPayload.@type` is `{}`, not an audit log", shown(kind));
        Rejection::new(Reason::Unsupported, detail)
    })
}

fn event(entry: Entry<'_>) -> Result<Event, Rejection> {
    let Some(Object(log)) = entry.proto_payload else {
        let name = said(&entry.log_name.or(entry.log_name_in_lake)).to_owned();
        let detail = format!("no `protoPayload`: log `{}` is not an audit log", shown(&name));
        return Err(Rejection::new(Reason::Unsupported, detail));
    };
    if let Some(rejection) = log.kind.as_ref().and_then(|kind| unsupported(kind.as_str())) {
        return Err(rejection);
    }
    let log_name = text(entry.log_name.or(entry.log_name_in_lake));
    let (at, written) = time(entry.timestamp, entry.receive_timestamp)?;
    let monitored = entry.resource.as_ref().filter(|raw| raw.get().starts_with('{'));
    let monitored: Monitored<'_> = monitored.map_or(Ok(Monitored::default()), |raw| audit::parsed(raw, "resource"))?;
    let call = Call::of(&log, &log_name);
    let verb = call.verb();
    let (kind, service, action) = (call.kind, call.service.to_owned(), call.action());
    let (place, resource) = (call.place(&monitored, &log, &log_name)?, call.resource(&monitored));
    let outcome = call.outcome(log.status.as_ref());
    let caller = log.request_metadata.as_ref().filter(|raw| raw.get().starts_with('{'));
    let caller: Caller<'_> = caller.map_or(Ok(Caller::default()), |raw| audit::parsed(raw, METADATA))?;
    let authentication = log.authentication_info.map(|Object(info)| info).unwrap_or_default();
    Ok(Event {
        id: format!("gcp/{log_name}/{written}/{}", text(entry.insert_id.or(entry.insert_id_in_lake))),
        source: Source::Gcp,
        at,
        action,
        verb,
        data_event: matches!(kind, Kind::DataAccess),
        outcome,
        arguments: audit::arguments(log.request.as_ref(), "protoPayload.request")?,
        place,
        resource: Resource {
            exposes: verb != Verb::Read && exposes(&service, log.request.as_ref(), log.service_data.as_ref()),
            ..resource
        },
        credential: credential(&authentication, kind),
        principal: principal(authentication, &service),
        origin: Origin {
            address: text(caller.caller_ip.or(caller.caller_ip_in_lake)),
            user_agent: text(caller.caller_supplied_user_agent),
            ..Origin::default()
        },
        trace: trace(entry.trace, entry.span_id, entry.operation),
        ..Event::default()
    })
}

/// When it happened, and as it is written: two entries of one insert id may lie less than a millisecond apart.
fn time(timestamp: Option<Text<'_>>, received: Option<Text<'_>>) -> Result<(i64, String), Rejection> {
    let (name, written) = match (timestamp, received) {
        (Some(written), _) => ("timestamp", written),
        (None, Some(written)) => ("receiveTimestamp", written),
        (None, None) => return Err(Rejection::new(Reason::MissingField, "`timestamp` is missing")),
    };
    match Moment::of(written.as_str()) {
        Some(Moment(at)) => Ok((at, written.into_string())),
        None => {
            let detail = format!("`{name}`: `{}` is no RFC 3339 time", shown(written.as_str()));
            Err(Rejection::new(Reason::InvalidValue, detail))
        }
    }
}

/// The kinds of audit log, by the end of their names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Activity,
    DataAccess,
    SystemEvent,
    Policy,
    Unnamed,
}

impl Kind {
    fn of(log_name: &str) -> Self {
        let end = log_name.rsplit(['/', '%']).next().unwrap_or_default();
        match end.strip_prefix("2F").unwrap_or(end) {
            "activity" => Kind::Activity,
            "data_access" => Kind::DataAccess,
            "system_event" => Kind::SystemEvent,
            "policy" => Kind::Policy,
            _ => Kind::Unnamed,
        }
    }
}

/// What was called.
struct Call<'a> {
    kind: Kind,
    service: &'a str,
    method: &'a str,
    /// The method's own name, without its service and version.
    name: &'a str,
    /// What it was aimed at.
    target: &'a str,
    permissions: &'a [Object<Authorization<'a>>],
    /// The object of a call to a cluster; empty for all else.
    object: ObjectPath<'a>,
}

/// The verb of a method of which no more is known than its name and what it was aimed at.
pub(crate) fn verb(service: &str, method: &str, target: &str) -> Verb {
    Call::named(service, method, target).verb()
}

/// Services whose changes are to who may do what.
const IDENTITY: [&str; 6] = [
    "iam.googleapis.com",
    "admin.googleapis.com",
    "login.googleapis.com",
    "cloudidentity.googleapis.com",
    "accesscontextmanager.googleapis.com",
    "orgpolicy.googleapis.com",
];

/// Permissions to run code, or to open a session on something.
const RUNS: [&str; 9] = [
    "run.jobs.run",
    "run.jobs.runWithOverrides",
    "run.routes.invoke",
    "cloudfunctions.functions.invoke",
    "cloudfunctions.functions.call",
    "iap.tunnelInstances.accessViaIAP",
    "cloudbuild.builds.create",
    "dataproc.jobs.create",
    "workflows.executions.create",
];

/// Beginnings of permissions on what says who may do what. A method of any service may ask for them: a deployment makes keys.
const GRANTS: [&str; 7] = [
    "iam.serviceAccountKeys.",
    "iam.serviceAccounts.",
    "iam.roles.",
    "iam.workloadIdentityPools.",
    "iam.workloadIdentityPoolProviders.",
    "storage.hmacKeys.",
    "serviceusage.apiKeys.",
];

/// Ends of such permissions that change it; the others use it (`actAs`) or look.
const CHANGES: [&str; 7] = ["create", "update", "delete", "undelete", "enable", "disable", "upload"];

/// First words of permissions and methods that only look: the API design guide's standard methods `Get` and `List`, and
/// the custom ones that it lets stand for a `GET`.
const LOOKS: [&str; 15] = [
    "get",
    "list",
    "search",
    "query",
    "lookup",
    "read",
    "fetch",
    "watch",
    "check",
    "test",
    "count",
    "validate",
    "aggregated",
    "predict",
    "generate",
];

/// Services that hand out credentials which end by themselves. As with `sts:AssumeRole`, nobody may do more than before,
/// and what is done with them is told of its own.
const TOKENS: [&str; 2] = ["iamcredentials.googleapis.com", "sts.googleapis.com"];

impl<'a> Call<'a> {
    fn of(log: &'a AuditLog<'a>, log_name: &str) -> Self {
        Call {
            kind: Kind::of(log_name),
            permissions: log.authorization_info.as_ref().map(|List(list)| list.as_slice()).unwrap_or_default(),
            ..Self::named(said(&log.service_name), log.method_name.as_str(), said(&log.resource_name))
        }
    }

    fn named(service: &'a str, method: &'a str, target: &'a str) -> Self {
        let service = if service.is_empty() && method.starts_with("io.k8s.") { kubernetes::SERVICE } else { service };
        let is_kubernetes = service == kubernetes::SERVICE;
        Call {
            kind: Kind::Unnamed,
            service,
            method,
            name: method.rsplit('.').next().unwrap_or_default(),
            target,
            permissions: &[],
            object: if is_kubernetes { ObjectPath::of(target) } else { ObjectPath::default() },
        }
    }

    fn action(&self) -> String {
        if self.service.is_empty() { self.method.to_owned() } else { format!("{}:{}", self.service, self.method) }
    }

    /// The permissions that were asked for.
    fn asked(&self) -> impl Iterator<Item = &str> {
        self.permissions.iter().filter_map(|Object(one)| one.permission.as_ref()).map(Text::as_str)
    }

    /// The verb: a cluster's own; what the permissions that were asked for say of themselves; else the kind of log, and
    /// the method's name where that log has reads and writes.
    fn verb(&self) -> Verb {
        let sets_policy = ["SetIamPolicy", "SetOrgPolicy"].into_iter().any(|name| self.name.eq_ignore_ascii_case(name));
        let grants = |permission: &str| {
            permission.ends_with(".setIamPolicy")
                || GRANTS
                    .into_iter()
                    .any(|kind| permission.strip_prefix(kind).is_some_and(|verb| CHANGES.contains(&verb)))
        };
        if self.service == kubernetes::SERVICE {
            kubernetes::verb(self.name, &self.object)
        } else if self.asked().any(|permission| RUNS.contains(&permission)) || self.service.contains("-serialport.") {
            Verb::Execute
        } else if sets_policy || self.asked().any(grants) {
            Verb::PermissionChange
        } else if self.reads() {
            Verb::Read
        } else if IDENTITY.contains(&self.service) {
            Verb::PermissionChange
        } else {
            Verb::Write
        }
    }

    fn reads(&self) -> bool {
        // A sign-in changes nothing.
        let signs_in = self.service == "login.googleapis.com" && self.name.starts_with("login");
        match self.kind {
            Kind::SystemEvent => false,
            // It is Google's log of changes: only what is a look by all that is said of it is one.
            Kind::Activity => self.asks_to_look() == Some(true) && looks_only(self.name),
            _ if signs_in || TOKENS.contains(&self.service) => true,
            _ => self.asks_to_look().unwrap_or_else(|| looks_only(self.name)),
        }
    }

    /// Whether all permissions that were asked for only look, by their types, else by their names.
    fn asks_to_look(&self) -> Option<bool> {
        let looks = |Object(one): &Object<Authorization<'_>>| match (&one.permission_type, &one.permission) {
            (Some(kind), _) => Some(kind.as_str().ends_with("_READ")),
            (None, permission) => permission.as_ref().and_then(|name| name.as_str().rsplit('.').next()).map(looks_only),
        };
        let mut looks = self.permissions.iter().filter_map(looks).peekable();
        looks.peek().is_some().then(|| looks.all(|looks| looks))
    }

    /// Success unless there is a status code, a permission was not granted, or this is the log of what policy denied.
    fn outcome(&self, status: Option<&Object<Status<'_>>>) -> Outcome {
        let code = status.and_then(|Object(status)| status.code.as_ref());
        let code = code.map_or(0, |code| code.as_str().parse::<usize>().unwrap_or(2));
        let name = CODES.get(code).map_or_else(|| code.to_string(), |name| (*name).to_owned());
        let refused = self.permissions.iter().any(|Object(one)| one.granted.is_some_and(|Flag(granted)| !granted));
        match code {
            7 | 16 => Outcome::Denied(name),
            0 if self.kind == Kind::Policy => Outcome::Denied("policy".to_owned()),
            0 if refused => Outcome::Denied("PERMISSION_DENIED".to_owned()),
            0 if self.name == "loginFailure" => Outcome::Failed(self.name.to_owned()),
            0 => Outcome::Success,
            _ => Outcome::Failed(name),
        }
    }

    /// What the request was aimed at. The monitored resource's type is the finest that every entry has; where it says
    /// only that something was audited, the permission's own resource says more.
    fn resource(&self, monitored: &Monitored<'_>) -> Resource {
        if !self.object.kind.is_empty() {
            return Resource { kind: self.object.kind(), id: self.object.id(), ..Resource::default() };
        }
        let kind = said(&monitored.r#type);
        let attributes = self.permissions.iter().find_map(|Object(one)| one.resource_attributes.as_ref());
        let finer = attributes.map(|Object(attributes)| said(&attributes.r#type));
        let asked = self.permissions.iter().find_map(|Object(one)| one.resource.as_ref()).map(Text::as_str);
        Resource {
            kind: audit::first([
                Some(kind).filter(|kind| *kind != "audited_resource"),
                finer,
                Some(self.service),
                Some(kind),
            ]),
            id: audit::first([Some(self.target), asked]),
            ..Resource::default()
        }
    }

    /// Where it happened, by the labels of the monitored resource; the project is in the name of the log as well.
    fn place(&self, monitored: &Monitored<'_>, log: &AuditLog<'_>, log_name: &str) -> Result<Place, Rejection> {
        let label = |name| monitored.label(name);
        let named = log_name.split_once("/logs/").map(|(parent, _)| parent.rsplit('/').next().unwrap_or_default());
        let current = log.resource_location.as_ref();
        let current = current.and_then(|raw| wire::object::<Locations<'_>>(raw.get(), "").ok()).unwrap_or_default();
        let current = current.current_locations.unwrap_or_default().0;
        let current = current.first().map(Text::as_str);
        let (location, region, zone) = (label("location")?, label("region")?, label("zone")?);
        Ok(Place {
            account: audit::first([Some(&label("project_id")?), named]),
            region: region_of(audit::first([Some(&location), Some(&region), Some(&zone), current])),
            cluster: label("cluster_name")?,
            namespace: audit::first([Some(self.object.namespace), Some(&label("namespace_name")?)]),
            ..Place::default()
        })
    }
}

/// The region of a zone (`europe-west1` of `europe-west1-b`); any other place is itself.
fn region_of(mut place: String) -> String {
    if let Some((region, zone)) = place.rsplit_once('-')
        && zone.len() == 1
        && region.contains('-')
    {
        place.truncate(region.len());
    }
    place
}

impl Monitored<'_> {
    /// A label's value; empty where there is none.
    fn label(&self, name: &str) -> Result<String, Rejection> {
        let labels = self.labels.as_ref().map(|labels| labels.0.as_slice()).unwrap_or_default();
        let found = labels.iter().find(|(label, raw)| label == name && raw.get() != "null");
        found.map_or(Ok(String::new()), |(_, raw)| {
            audit::parsed::<Scalar<'_>>(raw, "resource.labels").map(|value| value.0.into_owned())
        })
    }
}

/// Whether a name is one of what only looks. Behind `batch` and `check and` stands what is done.
fn looks_only(name: &str) -> bool {
    let words = audit::words(name);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let word = match words.as_slice() {
        ["batch", word, ..] | ["check", "and", word, ..] | [word, ..] => word,
        [] => "",
    };
    LOOKS.contains(&word)
}

/// Google's own names for the status codes of its APIs, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Who acted. A call that Google hides the caller of (a refused read from outside, one that was open to all) has none; it
/// is known by the service that it went to.
fn principal(info: Authentication<'_>, service: &str) -> Principal {
    let delegates = info.service_account_delegation_info.unwrap_or_default().0;
    let behind = delegates.into_iter().map(|Object(delegate)| {
        let email = delegate.first_party_principal.and_then(|Object(first)| first.principal_email);
        text(email.or(delegate.principal_subject))
    });
    let email = info.principal_email.filter(|email| !email.as_str().is_empty());
    let id = text(email.or(info.principal_subject));
    Principal {
        id: if id.is_empty() { format!("unnamed/{service}") } else { id },
        on_behalf_of: behind.filter(|id| !id.is_empty()).take(ON_BEHALF_OF_MAX).collect(),
        ..Principal::default()
    }
}

fn credential(info: &Authentication<'_>, kind: Kind) -> Credential {
    let key = info.service_account_key_name.as_ref().map(Text::as_str).unwrap_or_default();
    let delegated = info.service_account_delegation_info.as_ref().is_some_and(|List(list)| !list.is_empty());
    let kind = match kind {
        Kind::SystemEvent => CredentialKind::Service,
        _ if !key.is_empty() => CredentialKind::LongLived,
        _ if delegated => CredentialKind::ShortLived,
        _ => CredentialKind::Unknown,
    };
    let behind = info.service_account_delegation_info.iter().flat_map(|List(list)| list);
    let subjects = behind.filter_map(|Object(delegate)| delegate.principal_subject.as_ref());
    let federated = subjects.chain(&info.principal_subject).any(|who| who.as_str().contains("/workloadIdentityPools/"));
    let workload_identity = if key.is_empty() { federated.then_some(true) } else { Some(false) };
    Credential { id: key.to_owned(), kind, workload_identity, ..Credential::default() }
}

/// Whether a request lets everybody in: it adds a binding for all users, or, where the entry tells no difference, names
/// them at all; or it lets every network at a database or at a cluster.
fn exposes(service: &str, request: Option<&Raw<'_>>, data: Option<&Raw<'_>>) -> bool {
    const EVERYBODY: [&str; 2] = ["allUsers", "allAuthenticatedUsers"];
    const EVERYWHERE: [&str; 2] = ["\"0.0.0.0/0\"", "\"::/0\""];
    let added = data.and_then(|raw| wire::object::<Delta<'_>>(raw.get(), "").ok()).and_then(|delta| delta.policy_delta);
    if let Some(Object(Bindings { binding_deltas: Some(List(changes)) })) = added {
        return changes.iter().any(|Object(change)| {
            let is =
                |field: &Option<Text<'_>>, wanted: &str| field.as_ref().is_some_and(|text| text.as_str() == wanted);
            is(&change.action, "ADD") && EVERYBODY.into_iter().any(|all| is(&change.member, all))
        });
    }
    let guards_by_network = ["cloudsql.googleapis.com", "sqladmin.googleapis.com", "container.googleapis.com"];
    request.is_some_and(|request| {
        let names = |text: &str| request.get().contains(text);
        EVERYBODY.into_iter().any(|all| names(&format!("\"{all}\"")))
            || (guards_by_network.contains(&service) && EVERYWHERE.into_iter().any(names))
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delta<'a> {
    #[serde(borrow)]
    policy_delta: Option<Object<Bindings<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bindings<'a> {
    #[serde(borrow)]
    binding_deltas: Option<List<Object<Change<'a>>, ENTRIES_MAX>>,
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    action: Option<Text<'a>>,
    #[serde(borrow)]
    member: Option<Text<'a>>,
}

/// Trace and span; the id of a long-running operation is what its entries share.
fn trace(trace: Option<Text<'_>>, span: Option<Text<'_>>, operation: Option<Object<Operation<'_>>>) -> Option<Trace> {
    let trace = Trace {
        trace_id: text(trace).rsplit('/').next().unwrap_or_default().to_owned(),
        span_id: text(span),
        request_id: text(operation.and_then(|Object(operation)| operation.id)),
    };
    (trace != Trace::default()).then_some(trace)
}

#[cfg(test)]
#[path = "gcp/tests.rs"]
mod tests;
