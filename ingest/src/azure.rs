//! What Azure says happened: activity and resource logs, and the audit and sign-in logs of Entra.
//!
//! Field reference: Azure Monitor's common schema of resource logs, in which activity logs are streamed to Event Hubs, the
//! activity log's schema of the REST API, and the `directoryAudit` and `signIn` resources of Microsoft Graph, which are
//! the `properties` of Entra's records. Names ignore case in Azure; here they are lower. What a cluster of AKS logs of
//! itself decodes as the Kubernetes audit event that it is. Recommendations, alerts, metrics, the health of services, flows
//! of a network and what programs print are refused as unsupported, for they tell of no request.

use std::borrow::Cow;

use serde::Deserialize;
use tautline_detectors::event::{
    Credential, CredentialKind, Event, Origin, Outcome, Place, Principal, Resource, Source, Trace, Verb,
};

use crate::audit::{self, Parameters};
use crate::format::{Format, Opened, Top, Wire};
use crate::json::Raw;
use crate::wire::{self, List, Moment, Object, Scalar, Text, said, shown, text};
use crate::{BATCH_MAX, Reason, Rejection, kubernetes};

mod entra;
mod exposure;

pub(crate) const WIRE: Wire = Wire {
    format: Format::Azure,
    name: "azure",
    tells: &[
        "records",
        "operationName",
        "operationname",
        "category",
        "resourceId",
        "resourceid",
        "tenantId",
        "tenantid",
        "eventDataId",
        "properties",
    ],
    looks,
    open,
    decode,
    sole: |_| None,
};

fn looks(top: &Top<'_>) -> bool {
    let any = |names: &[&str]| names.iter().any(|name| top.has(name));
    let placed = any(&["category", "resourceId", "resourceid", "tenantId", "tenantid", "eventDataId"]);
    let is_batch = top.raw("records").is_some_and(|raw| raw.get().starts_with('['));
    let is_sign_in = top.has("category") && top.holds("properties", "userPrincipalName");
    is_batch || is_sign_in || (any(&["operationName", "operationname"]) && placed)
}

/// One record. In a lake, the members of the common schema may have lost their case.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(alias = "eventTimestamp", alias = "TimeGenerated")]
    time: Option<Moment>,
    #[serde(alias = "resourceid", borrow)]
    resource_id: Option<Text<'a>>,
    #[serde(alias = "operationname", borrow)]
    operation_name: Option<Value<'a>>,
    #[serde(borrow)]
    category: Option<Value<'a>>,
    #[serde(alias = "resulttype", borrow)]
    result_type: Option<Scalar<'a>>,
    #[serde(alias = "resultsignature", borrow)]
    result_signature: Option<Scalar<'a>>,
    #[serde(borrow)]
    status: Option<Value<'a>>,
    #[serde(borrow)]
    sub_status: Option<Value<'a>>,
    #[serde(alias = "statusCode", borrow)]
    status_code: Option<Scalar<'a>>,
    #[serde(alias = "calleripaddress", borrow)]
    caller_ip_address: Option<Text<'a>>,
    #[serde(alias = "correlationid", borrow)]
    correlation_id: Option<Text<'a>>,
    #[serde(borrow)]
    event_data_id: Option<Text<'a>>,
    #[serde(alias = "tenantid", borrow)]
    tenant_id: Option<Text<'a>>,
    #[serde(borrow)]
    subscription_id: Option<Text<'a>>,
    #[serde(borrow)]
    location: Option<Raw<'a>>,
    #[serde(borrow)]
    identity: Option<Raw<'a>>,
    #[serde(borrow)]
    caller: Option<Text<'a>>,
    #[serde(borrow)]
    claims: Option<Raw<'a>>,
    #[serde(borrow)]
    http_request: Option<Raw<'a>>,
    #[serde(borrow)]
    properties: Option<Raw<'a>>,
}

/// A name as streams write it, or `{"value": …, "localizedValue": …}` as the REST API does.
#[derive(Debug)]
struct Value<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Localized<'a> {
            #[serde(borrow)]
            value: Option<Scalar<'a>>,
        }
        let raw = Raw::deserialize(deserializer)?;
        let parsed = if raw.get().starts_with('{') {
            wire::object::<Localized<'_>>(raw.get(), "").map(|localized| wire::scalar(localized.value.as_ref()))
        } else {
            audit::parsed::<Scalar<'_>>(&raw, "").map(|scalar| scalar.0.into_owned())
        };
        parsed.map(|text| Value(Cow::Owned(text))).map_err(|_| serde::de::Error::custom("neither a name nor a value"))
    }
}

fn name<'v>(value: &'v Option<Value<'_>>) -> &'v str {
    value.as_ref().map(|value| value.0.as_ref()).unwrap_or_default()
}

/// Opens an Event Hubs batch, `{"records": [...]}`.
fn open(text: &str) -> Result<Opened<'_>, Rejection> {
    #[derive(Deserialize)]
    struct Cover<'a> {
        #[serde(borrow)]
        records: Option<List<Raw<'a>, BATCH_MAX>>,
    }
    let cover: Cover<'_> = wire::object(text, "")?;
    cover.records.map_or_else(|| Ok(Opened::one(text)), |List(members)| Opened::many(members, "records"))
}

/// Decodes one record.
fn decode(json: &str) -> Result<Event, Rejection> {
    let record: Record<'_> = wire::object(json, "")?;
    let category = name(&record.category).to_ascii_lowercase();
    let named = !name(&record.operation_name).is_empty();
    let is_directory = entra::is_directory(said(&record.resource_id));
    match category.as_str() {
        "auditlogs" => entra::change(record),
        _ if is_directory && entra::is_change(record.properties.as_ref()) => entra::change(record),
        "microsoftgraphactivitylogs" => entra::graph(record),
        category if category.starts_with("kube-audit") => cluster(&record),
        category if entra::is_sign_in(category) => entra::sign_in(record),
        category if is_directory || tells_of_no_request(category) => {
            let detail = format!("`category` is `{}`, which tells of no request", shown(name(&record.category)));
            Err(Rejection::new(Reason::Unsupported, detail))
        }
        _ if named => activity(record),
        _ => Err(Rejection::new(Reason::MissingField, "`operationName` is missing")),
    }
}

/// Beginnings of categories, in lower case, of what nobody asked for. What AKS logs beside the audit log is the talk of the
/// cluster's own parts.
const NO_REQUESTS: [&str; 22] = [
    "recommendation",
    "servicehealth",
    "resourcehealth",
    "alert",
    "autoscale",
    "security",
    "networksecuritygroup",
    "flowlogflowevent",
    "appserviceconsolelogs",
    "appserviceapplogs",
    "appservicehttplogs",
    "appserviceplatformlogs",
    "appserviceenvironmentplatformlogs",
    "functionapplogs",
    "containerappconsolelogs",
    "containerappsystemlogs",
    "kube-",
    "csi-",
    "cloud-controller-manager",
    "cluster-autoscaler",
    "karpenter",
    "guard",
];

fn tells_of_no_request(category: &str) -> bool {
    NO_REQUESTS.into_iter().any(|start| category.starts_with(start)) || category.ends_with("metrics")
}

/// The Kubernetes audit event that AKS puts as text into `properties.log`; the cluster is the record's resource.
fn cluster(record: &Record<'_>) -> Result<Event, Rejection> {
    #[derive(Deserialize)]
    struct Properties<'a> {
        #[serde(borrow)]
        log: Text<'a, 0, { crate::RECORD_MAX }>,
    }
    let properties = properties_of(record.properties.as_ref())?;
    let Some(properties) = properties else {
        return Err(Rejection::new(Reason::MissingField, "`properties` is missing"));
    };
    let Properties { log } = wire::object(&properties, "properties")?;
    let mut event = kubernetes::decode(log.as_str())?;
    let path = Path::of(said(&record.resource_id));
    event.place.account.clone_from(&path.subscription);
    event.place.cluster = path.name;
    Ok(event)
}

/// The properties as JSON: an object, or one that is written as text.
fn properties_of<'a>(raw: Option<&'a Raw<'_>>) -> Result<Option<Cow<'a, str>>, Rejection> {
    match raw {
        Some(raw) if raw.get().starts_with('{') => Ok(Some(Cow::Borrowed(raw.get()))),
        Some(raw) if raw.get().starts_with('"') => {
            let text = wire::value_text(raw, || "properties".to_owned())?;
            Ok(text.trim_start().starts_with('{').then_some(Cow::Owned(text)))
        }
        _ => Ok(None),
    }
}

/// What an activity or a resource log has among its properties, each of which is of another shape somewhere.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Properties<'a> {
    #[serde(borrow)]
    event_data_id: Option<Raw<'a>>,
    #[serde(alias = "requestBody", borrow)]
    requestbody: Option<Raw<'a>>,
    #[serde(alias = "clientInfo", borrow)]
    user_agent_header: Option<Raw<'a>>,
    #[serde(borrow)]
    object_key: Option<Raw<'a>>,
    #[serde(borrow)]
    id: Option<Raw<'a>>,
}

fn activity(record: Record<'_>) -> Result<Event, Rejection> {
    let json = properties_of(record.properties.as_ref())?;
    let properties: Properties<'_> =
        json.as_deref().map_or(Ok(Properties::default()), |json| wire::object(json, "properties"))?;
    let Some(Moment(at)) = record.time else {
        return Err(Rejection::new(Reason::MissingField, "`time` is missing"));
    };
    let action = name(&record.operation_name).to_ascii_lowercase();
    let category = name(&record.category).to_ascii_lowercase();
    let verb = verb(name(&record.operation_name), &category);
    let path = Path::of(said(&record.resource_id));
    let body = properties.requestbody.as_ref().map(|raw| wire::value_text(raw, || BODY.to_owned())).transpose()?;
    let exposes = verb != Verb::Read && exposure::exposes(&action, body.as_deref());
    let object = audit::scalar(properties.object_key.as_ref().or(properties.id.as_ref()));
    let claims = Claims::of(record.claims.as_ref(), record.identity.as_ref())?;
    let account =
        audit::first([Some(&path.subscription), Some(said(&record.subscription_id)), Some(said(&record.tenant_id))]);
    let key =
        audit::first([Some(said(&record.event_data_id)), Some(&audit::scalar(properties.event_data_id.as_ref()))]);
    let caller = audit::first([Some(said(&record.caller)), Some(&claims.principal), Some(&unnamed(&path.provider))]);
    Ok(Event {
        id: id(&account, said(&record.correlation_id), &action, &key),
        source: Source::Azure,
        at,
        verb,
        outcome: outcome(&record),
        arguments: arguments(body)?,
        resource: Resource { exposes, ..path.resource(&object, &category) },
        place: Place { account, region: region(record.location.as_ref()), ..Place::default() },
        principal: Principal { id: caller, on_behalf_of: claims.behind, ..Principal::default() },
        credential: claims.credential,
        origin: Origin {
            address: address(said(&record.caller_ip_address), record.http_request.as_ref(), &claims.address),
            user_agent: audit::scalar(properties.user_agent_header.as_ref()),
            ..Origin::default()
        },
        trace: trace(record.correlation_id),
        action,
        ..Event::default()
    })
}

/// The identity of an event: the source's own key, or where there is none the content under what it belongs to. One
/// correlation id is shared by all events of an operation.
fn id(account: &str, correlation: &str, action: &str, key: &str) -> String {
    match key {
        "" => format!("azure/{account}/{correlation}/{action}/"),
        _ => format!("azure/{account}/{key}"),
    }
}

/// A caller that the record does not name, known by the service that it went to.
fn unnamed(service: &str) -> String {
    format!("unnamed/{}", if service.is_empty() { "azure" } else { service })
}

/// Where the body of a request stands.
const BODY: &str = "properties.requestbody";

/// The arguments of a request by its body, an object that is written as text.
fn arguments(body: Option<String>) -> Result<Vec<tautline_detectors::event::Argument>, Rejection> {
    let Some(text) = body else { return Ok(Vec::new()) };
    if crate::json::parse::<Object<Parameters<'_>>>(&text).is_ok() {
        return audit::arguments(Some(&Raw(Cow::Owned(text))), BODY);
    }
    Ok(if text.is_empty() || text == "null" { Vec::new() } else { vec![audit::text_argument("requestbody", &text)] })
}

/// Operations, in lower case, that run commands on something or open a session there.
const RUNS: [&str; 8] = [
    "/runcommand/action",
    "/runcommands/write",
    "/extensions/write",
    "/serialports/connect/action",
    "/containers/exec/action",
    "/containergroups/containers/exec/action",
    "/jobs/write",
    "/managedclusters/accessprofiles/listcredential/action",
];

/// Providers, in lower case, whose changes are to who may do what.
const IDENTITY: [&str; 3] = ["microsoft.authorization/", "microsoft.managedidentity/", "microsoft.aad/"];

/// Parts of operations, in lower case, that say who may do what elsewhere.
const GRANTS: [&str; 4] =
    ["/accesspolicies/", "rbac.authorization.k8s.io/", "/sqlroleassignments/", "/federatedidentitycredentials/"];

/// The verb, by the last word of the operation, which is `read`, `write`, `delete` or `action` wherever Azure's access
/// control knows it; by the category where the data plane writes its own names.
pub(crate) fn verb(operation: &str, category: &str) -> Verb {
    let action = operation.to_ascii_lowercase();
    let identity = IDENTITY.into_iter().any(|provider| action.starts_with(provider));
    let grants = GRANTS.into_iter().any(|part| action.contains(part));
    let evaluates = action.starts_with("microsoft.authorization/policies/") && action.ends_with("/action");
    let last = action.rsplit('/').next().unwrap_or_default();
    match last {
        "read" => Verb::Read,
        // The evaluation of a policy is the service's own work.
        _ if evaluates => Verb::Read,
        _ if RUNS.into_iter().any(|end| action.ends_with(end)) => Verb::Execute,
        _ if identity || grants => Verb::PermissionChange,
        _ if action.contains('/') => Verb::Write,
        _ if category.ends_with("read") => Verb::Read,
        _ if category.ends_with("write") || category.ends_with("delete") => Verb::Write,
        _ if is_a_read(operation) => Verb::Read,
        _ => Verb::Write,
    }
}

/// Whether a data plane's operation (`SecretListVersions`) has a name of what only looks. A word that changes something
/// weighs more: `CreateReadReplica`. Of a name that lost its case in a lake (`getblob`), only the beginning is a word.
fn is_a_read(operation: &str) -> bool {
    const LOOKS: [&str; 5] = ["get", "list", "read", "query", "head"];
    const CHANGES: [&str; 11] =
        ["create", "set", "put", "update", "write", "add", "delete", "remove", "purge", "restore", "import"];
    let words = audit::words(operation);
    let has = |of: &[&str]| words.iter().any(|word| of.contains(&word.as_str()));
    let is_one = words.len() == 1 && LOOKS.into_iter().any(|word| words.iter().any(|all| all.starts_with(word)));
    is_one || (has(&LOOKS) && !has(&CHANGES))
}

/// How it ended. `Start`, `Accept` and their like are of an operation that goes on.
fn outcome(record: &Record<'_>) -> Outcome {
    let signature = wire::scalar(record.result_signature.as_ref());
    let code = audit::first([Some(&wire::scalar(record.status_code.as_ref())), Some(name(&record.sub_status))]);
    let code = if signature.starts_with(|c: char| c.is_ascii_digit()) { signature.clone() } else { code };
    let result = audit::first([Some(&wire::scalar(record.result_type.as_ref())), Some(name(&record.status))]);
    let reason = audit::first([Some(&code), Some(&signature), Some(&result)]);
    let refused = ["401", "403", "Unauthorized", "Forbidden", "AuthorizationFailed"];
    let is_refused = refused.into_iter().any(|word| code == word || signature.contains(word));
    match result.to_ascii_lowercase().as_str() {
        _ if is_refused => Outcome::Denied(reason),
        "success" | "succeeded" | "0" | "active" | "resolved" => Outcome::Success,
        "failure" | "failed" | "clientothererror" | "servererror" => Outcome::Failed(reason),
        "" => by_code(&code),
        _ => Outcome::Unknown,
    }
}

/// How it ended, by an HTTP status alone.
fn by_code(code: &str) -> Outcome {
    match code.parse::<u16>() {
        Ok(401 | 403) => Outcome::Denied(code.to_owned()),
        Ok(200..400) => Outcome::Success,
        Ok(400..) => Outcome::Failed(code.to_owned()),
        _ => Outcome::Unknown,
    }
}

/// A resource's id in its parts, in lower case.
#[derive(Debug, Default)]
struct Path {
    id: String,
    subscription: String,
    provider: String,
    /// The types between the names: `microsoft.keyvault/vaults/keys`.
    kind: String,
    /// The name of the first resource under the provider.
    name: String,
}

impl Path {
    fn of(id: &str) -> Self {
        let id = id.to_ascii_lowercase();
        let after = |word: &str| {
            let mut parts = id.split('/').skip_while(|part| *part != word).skip(1);
            parts.next().unwrap_or_default().to_owned()
        };
        let (subscription, group) = (after("subscriptions"), after("resourcegroups"));
        let tail = id.rsplit_once("/providers/").map(|(_, tail)| tail).unwrap_or_default();
        let mut parts = tail.split('/');
        let provider = parts.next().unwrap_or_default().to_owned();
        let (mut kind, mut name, mut is_type) = (provider.clone(), String::new(), true);
        for part in parts {
            if is_type {
                kind = format!("{kind}/{part}");
            } else if name.is_empty() {
                part.clone_into(&mut name);
            }
            // A group of a cluster's API is followed by a type, as in `rbac.authorization.k8s.io/rolebindings/name`.
            is_type = !is_type || part.ends_with(".k8s.io");
        }
        if kind.is_empty() {
            let bare = if group.is_empty() { "subscriptions" } else { "resourcegroups" };
            kind = if subscription.is_empty() { String::new() } else { format!("microsoft.resources/{bare}") };
        }
        Path { subscription, provider, kind, name, id }
    }

    /// The resource; on a data plane, the object inside of it. What names no resource has its category for a type.
    fn resource(self, object: &str, category: &str) -> Resource {
        let id = if object.is_empty() { self.id } else { object.to_owned() };
        let kind = if self.kind.is_empty() { format!("azure/{category}") } else { self.kind };
        Resource { kind, id, ..Resource::default() }
    }
}

/// What the token said of who called.
#[derive(Debug, Default)]
struct Claims {
    principal: String,
    behind: Vec<String>,
    address: String,
    credential: Credential,
}

/// Claims that name who called, best first; an application is named by its id where there is no user.
const NAMES: [&str; 9] = [
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn",
    "upn",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress",
    "name",
    "http://schemas.microsoft.com/identity/claims/objectidentifier",
    "oid",
    "objectId",
    "appid",
    "appId",
];

impl Claims {
    /// Reads `claims` of the REST API, or of a stream's identity `claims`, Key Vault's `claim`, or storage's `requester`.
    fn of(claims: Option<&Raw<'_>>, identity: Option<&Raw<'_>>) -> Result<Self, Rejection> {
        #[derive(Deserialize)]
        struct Identity<'a> {
            #[serde(borrow)]
            claims: Option<Raw<'a>>,
            #[serde(borrow)]
            claim: Option<Raw<'a>>,
            #[serde(borrow)]
            requester: Option<Raw<'a>>,
            #[serde(borrow)]
            r#type: Option<Raw<'a>>,
        }
        if let Some(claims) = claims.filter(|raw| raw.get().starts_with('{')) {
            return Ok(Self::read(&audit::parsed(claims, "claims")?));
        }
        let Some(identity) = identity.filter(|raw| raw.get().starts_with('{')) else {
            return Ok(Self::default());
        };
        let Object(identity) = audit::parsed::<Object<Identity<'_>>>(identity, "identity")?;
        let claims = [&identity.claims, &identity.claim, &identity.requester].into_iter().flatten();
        let claims = claims.into_iter().find(|raw| raw.get().starts_with('{'));
        let claims = claims.map_or(Ok(Parameters::default()), |raw| audit::parsed(raw, "identity"))?;
        let mut read = Self::read(&claims);
        match audit::name(identity.r#type.as_ref()).as_str() {
            // The data plane's own way to sign in: a key of the account has no end and names nobody.
            "AccountKey" => read.credential.kind = CredentialKind::LongLived,
            "OAuth" => read.credential.kind = CredentialKind::ShortLived,
            _ => {}
        }
        Ok(read)
    }

    fn read(claims: &Parameters<'_>) -> Self {
        let claim = |name: &str| {
            let found = claims.0.iter().find(|(claim, _)| claim == name);
            Some(audit::scalar(found.map(|(_, raw)| raw))).filter(|value| !value.is_empty())
        };
        let principal = NAMES.into_iter().find_map(claim).unwrap_or_default();
        let app = claim("appid").or_else(|| claim("appId")).filter(|app| *app != principal);
        let methods = claim("http://schemas.microsoft.com/claims/authnmethodsreferences").or_else(|| claim("amr"));
        let issued_at = claim("iat").and_then(|seconds| seconds.parse::<i64>().ok());
        Claims {
            principal,
            behind: Vec::new(),
            address: claim("ipaddr").unwrap_or_default(),
            credential: Credential {
                id: claim("uti").or(app).unwrap_or_default(),
                // A token of Entra ends within hours, whoever asked for it.
                kind: if issued_at.is_some() { CredentialKind::ShortLived } else { CredentialKind::Unknown },
                issued_at: issued_at.and_then(|seconds| seconds.checked_mul(1_000)),
                mfa: methods.map(|methods| methods.split(['"', ',', ' ']).any(|method| method == "mfa")),
                ..Credential::default()
            },
        }
    }
}

/// The caller's address without its port.
fn address(caller: &str, request: Option<&Raw<'_>>, claimed: &str) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Request<'a> {
        #[serde(borrow)]
        client_ip_address: Option<Scalar<'a>>,
    }
    let request = request.and_then(|raw| wire::object::<Request<'_>>(raw.get(), "").ok());
    let client = wire::scalar(request.and_then(|request| request.client_ip_address).as_ref());
    let address = audit::first([Some(caller), Some(&client), Some(claimed)]);
    match address.parse::<std::net::SocketAddr>() {
        Ok(socket) => socket.ip().to_string(),
        Err(_) => address,
    }
}

/// The region; of a sign-in, the place is where the person is and no region.
fn region(location: Option<&Raw<'_>>) -> String {
    audit::name(location)
}

fn trace(correlation: Option<Text<'_>>) -> Option<Trace> {
    let request_id = text(correlation);
    (!request_id.is_empty()).then(|| Trace { request_id, ..Trace::default() })
}

#[cfg(test)]
#[path = "azure/tests.rs"]
mod tests;
