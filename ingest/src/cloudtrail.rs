//! What AWS says happened: CloudTrail records.
//!
//! Field reference: the CloudTrail user guide, "CloudTrail record contents" and "CloudTrail userIdentity element"
//! (event versions 1.01 to 1.11). The management and data events of one account, an organisation's trail, and AWS
//! service events decode; Insights events are refused as unsupported, for they describe a rate and no request.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tautline_detectors::event::{
    Argument, Credential, CredentialKind, Event, Origin, Outcome, Place, Principal, Resource, Source, Trace, Verb,
};

use crate::aws;
use crate::format::{Format, Opened, Top, Wire};
use crate::json::{self, Raw};
use crate::wire::{self, Flag, List, ListOrNothing, Members, Name, Object, Text, WrittenMoment, said, shown, text};
use crate::{BATCH_MAX, Reason, Rejection};

mod exposure;
mod resource;

pub(crate) const WIRE: Wire = Wire {
    format: Format::Cloudtrail,
    name: "cloudtrail",
    tells: &TELLS,
    looks: |top: &Top<'_>| TELLS.into_iter().any(|name| top.has(name)),
    open,
    decode,
    sole,
};

/// Any of these at the top of a record makes it CloudTrail's.
const TELLS: [&str; 4] = ["Records", "detail", "eventVersion", "eventSource"];

/// The most arguments that an event keeps.
pub const ARGUMENTS_MAX: usize = 32;

/// The most bytes of an argument's value that an event keeps.
pub const ARGUMENT_MAX: usize = 1_024;

/// The most top-level members that `requestParameters` may have.
const PARAMETERS_MAX: usize = 4_096;

/// The most entries that `resources` may have.
const RESOURCES_MAX: usize = 4_096;

/// The top-level members of `requestParameters`, not looked into yet.
type Parameters<'a> = Members<'a, Raw<'a>, PARAMETERS_MAX>;

/// A record as it is read. It is large, so it is boxed before the parser's layers hand it on.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(rename = "eventID", borrow)]
    event_id: Name<'a>,
    event_time: WrittenMoment,
    #[serde(borrow)]
    event_source: Name<'a>,
    #[serde(borrow)]
    event_name: Name<'a>,
    read_only: Option<Flag>,
    management_event: Option<Flag>,
    #[serde(borrow)]
    aws_region: Option<Text<'a>>,
    #[serde(borrow)]
    recipient_account_id: Option<Text<'a>>,
    #[serde(borrow)]
    user_identity: Option<Object<Box<Identity<'a>>>>,
    #[serde(rename = "sourceIPAddress", borrow)]
    source_ip_address: Option<Text<'a>>,
    #[serde(borrow)]
    user_agent: Option<Text<'a>>,
    #[serde(rename = "requestID", borrow)]
    request_id: Option<Text<'a>>,
    #[serde(borrow)]
    error_code: Option<Text<'a>>,
    #[serde(borrow)]
    request_parameters: Option<Parameters<'a>>,
    #[serde(borrow)]
    response_elements: Option<Raw<'a>>,
    #[serde(borrow)]
    additional_event_data: Option<Raw<'a>>,
    #[serde(borrow)]
    resources: Option<ListOrNothing<Object<Touched<'a>>, RESOURCES_MAX>>,
    // By these, what one record holds is told apart.
    event_version: Option<IgnoredAny>,
    specversion: Option<IgnoredAny>,
    r#type: Option<IgnoredAny>,
    #[serde(rename = "Records")]
    records: Option<IgnoredAny>,
    detail: Option<IgnoredAny>,
    #[serde(rename = "detail-type")]
    detail_type: Option<IgnoredAny>,
}

/// One entry of `resources`.
#[derive(Deserialize)]
struct Touched<'a> {
    #[serde(rename = "ARN", alias = "arn", borrow)]
    arn: Option<Text<'a>>,
    #[serde(rename = "type", borrow)]
    kind: Option<Text<'a>>,
    #[serde(rename = "accountId", borrow)]
    account: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    arn: Option<Text<'a>>,
    #[serde(borrow)]
    account_id: Option<Text<'a>>,
    #[serde(borrow)]
    principal_id: Option<Text<'a>>,
    #[serde(borrow)]
    access_key_id: Option<Text<'a>>,
    #[serde(borrow)]
    invoked_by: Option<Text<'a>>,
    #[serde(borrow)]
    session_context: Option<Object<SessionContext<'a>>>,
    #[serde(borrow)]
    on_behalf_of: Option<Object<OnBehalfOf<'a>>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct SessionContext<'a> {
    #[serde(borrow)]
    session_issuer: Option<Object<Issuer<'a>>>,
    #[serde(borrow)]
    attributes: Option<Object<Attributes<'a>>>,
    #[serde(borrow)]
    source_identity: Option<Text<'a>>,
    #[serde(borrow)]
    web_id_federation_data: Option<Object<WebIdentity<'a>>>,
    #[serde(borrow)]
    ec2_role_delivery: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Issuer<'a> {
    #[serde(borrow)]
    arn: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Attributes<'a> {
    #[serde(borrow)]
    creation_date: Option<Text<'a>>,
    mfa_authenticated: Option<Flag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WebIdentity<'a> {
    #[serde(borrow)]
    federated_provider: Option<Text<'a>>,
    #[serde(borrow)]
    attributes: Option<Parameters<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OnBehalfOf<'a> {
    #[serde(borrow)]
    user_id: Option<Text<'a>>,
}

/// What tells a record, a log file and an EventBridge envelope apart; everything else is skipped.
#[derive(Deserialize)]
struct Cover<'a> {
    #[serde(rename = "Records", borrow)]
    records: Option<List<Raw<'a>, BATCH_MAX>>,
    #[serde(borrow)]
    detail: Option<Raw<'a>>,
    #[serde(rename = "detail-type", borrow)]
    detail_type: Option<Text<'a>>,
    #[serde(rename = "eventVersion")]
    event_version: Option<IgnoredAny>,
    #[serde(rename = "eventSource")]
    event_source: Option<IgnoredAny>,
}

/// Opens what CloudTrail writes: one record, a log file's `{"Records": [...]}`, or an EventBridge envelope.
fn open(text: &str) -> Result<Opened<'_>, Rejection> {
    let cover: Cover<'_> = wire::object(text, "")?;
    if let Some(List(members)) = cover.records {
        return Opened::many(members, "Records");
    }
    if cover.event_version.is_some() || cover.event_source.is_some() {
        return Ok(Opened::one(text));
    }
    match (cover.detail, cover.detail_type) {
        (Some(_), Some(kind)) if !kind.as_str().ends_with(" via CloudTrail") => Err(Rejection::new(
            Reason::Unsupported,
            format!("`detail-type` is `{}`, not one that ends in `via CloudTrail`", shown(kind.as_str())),
        )),
        (Some(detail), _) => Ok(Opened::One(detail.0)),
        (None, _) => Err(Rejection::new(
            Reason::UnknownFormat,
            "none of `Records`, `detail`, `eventVersion`, `eventSource` is there, so this is not CloudTrail",
        )),
    }
}

/// Decodes one record that stands alone, in one pass. `None` is for everything else, and for what is wrong with it, to be
/// found out with more patience.
pub(crate) fn sole(json: &str) -> Option<Event> {
    let Object(record) = json::fast::<Object<Box<Record<'_>>>>(json)?;
    let others = [&record.specversion, &record.r#type, &record.records, &record.detail, &record.detail_type];
    let is_sole = record.event_version.is_some() && others.into_iter().all(Option::is_none);
    if is_sole { event(record).ok() } else { None }
}

/// Decodes one record; digest and plausibility of the time are the caller's.
pub(crate) fn decode(json: &str) -> Result<Event, Rejection> {
    match wire::object::<Box<Record<'_>>>(json, "") {
        Ok(record) => event(record),
        // An Insights event has other fields; that it lacks ours is not what is wrong with it.
        Err(rejection) => Err(insight(json).unwrap_or(rejection)),
    }
}

/// The rejection of an Insights event, if this is one.
fn insight(json: &str) -> Option<Rejection> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Category<'a> {
        #[serde(borrow)]
        event_category: Text<'a>,
    }
    let category: Category<'_> = wire::object(json, "").ok()?;
    (category.event_category.as_str() == "Insight").then(|| {
        Rejection::new(Reason::Unsupported, "`eventCategory` is `Insight`: an Insights event tells of no request")
    })
}

fn event(record: Box<Record<'_>>) -> Result<Event, Rejection> {
    let identity = record.user_identity.map(|Object(identity)| identity).unwrap_or_default();
    let account = record.recipient_account_id.as_ref().or(identity.account_id.as_ref());
    let account = account.map(Text::as_str).unwrap_or_default().to_owned();
    let service = record.event_source.as_str();
    let service = service.strip_suffix(".amazonaws.com").unwrap_or(service);
    let name = operation(record.event_name.as_str());
    let credential = credential(&identity);
    let action = [service, ":", name].concat();
    let verb = verb(record.read_only, &action);
    let has_request = record.request_parameters.is_some();
    let parameters = record.request_parameters.unwrap_or_default();
    let touched = record.resources.map(|ListOrNothing(list)| list).unwrap_or_default();
    let exposes = verb != Verb::Read
        && (exposure::copies_away(name, &touched.0, &parameters, &account)
            || record.response_elements.as_ref().is_some_and(|raw| exposure::made_public(name, raw.get()))
            || (has_request && exposure::exposes(service, name, &parameters, &account)?));
    let resource = Resource { exposes, ..resource::resource(service, name, touched, &parameters) };
    Ok(Event {
        id: ["cloudtrail/", &account, "/", record.event_id.as_str()].concat(),
        source: Source::Cloudtrail,
        at: record.event_time.0,
        action,
        verb,
        resource,
        data_event: record.management_event.is_some_and(|Flag(is)| !is),
        arguments: arguments(parameters)?,
        outcome: outcome(record.error_code, name, record.response_elements.as_ref()),
        credential: Credential {
            mfa: credential.mfa.or_else(|| signed_in_with_mfa(name, record.additional_event_data.as_ref())),
            ..credential
        },
        principal: principal(identity, service)?,
        place: Place { account, region: text(record.aws_region), ..Place::default() },
        origin: Origin {
            address: text(record.source_ip_address),
            user_agent: text(record.user_agent),
            ..Origin::default()
        },
        trace: record.request_id.map(|id| Trace { request_id: id.into_string(), ..Trace::default() }),
        ..Event::default()
    })
}

/// Parses a part that was kept raw.
fn nested<'a, T: Deserialize<'a>>(raw: &'a Raw<'_>, path: &str) -> Result<T, Rejection> {
    json::parse(raw.get()).map_err(|error| wire::rejection(&error, raw.get(), path))
}

/// The operation without the API version that Lambda and CloudFront append to it: `UpdateFunctionCode20150331v2` and
/// `CreateDistribution2020_05_31` are `UpdateFunctionCode` and `CreateDistribution`.
fn operation(name: &str) -> &str {
    let digits = |c: char| c.is_ascii_digit();
    let dated = name.trim_end_matches(digits).strip_suffix('v').filter(|_| name.ends_with(digits)).unwrap_or(name);
    let bare = dated.trim_end_matches(|c| digits(c) || c == '_');
    let date = dated.strip_prefix(bare).unwrap_or_default();
    let is_date = date.starts_with("20") && date.chars().filter(|&c| digits(c)).count() == 8;
    if is_date && !bare.is_empty() { bare } else { name }
}

/// Read or write by CloudTrail's own `readOnly`; records of event version 1.0x lack it.
fn verb(read_only: Option<Flag>, action: &str) -> Verb {
    match read_only {
        Some(Flag(true)) => Verb::Read,
        Some(Flag(false)) => Verb::Write,
        None if aws::only_reads(action) => Verb::Read,
        None => Verb::Write,
    }
}

/// Who acted, without the session: baselines are kept per role, not per session of it.
fn principal(mut identity: Box<Identity<'_>>, service: &str) -> Result<Principal, Rejection> {
    let context = identity.session_context.take().map(|Object(context)| context).unwrap_or_default();
    let issuer = context.session_issuer.and_then(|Object(issuer)| issuer.arn);
    let (id, session) = actor(&identity, issuer.as_ref().map(Text::as_str));
    let id = if id.is_empty() { format!("aws-service/{service}") } else { id.into_owned() };
    let session = session.to_owned();
    let mut on_behalf_of: Vec<String> = Vec::new();
    on_behalf_of.extend(identity.on_behalf_of.and_then(|Object(user)| user.user_id).map(Text::into_string));
    on_behalf_of.extend(context.source_identity.map(Text::into_string));
    if let Some(Object(web)) = context.web_id_federation_data {
        on_behalf_of.extend(web_identity(web)?);
    }
    on_behalf_of.retain(|id| !id.is_empty());
    Ok(Principal { id, session, on_behalf_of, ..Principal::default() })
}

/// The id of who acted, and the session. `issuer` is the role that the session is one of.
fn actor<'t>(identity: &'t Identity<'_>, issuer: Option<&'t str>) -> (Cow<'t, str>, &'t str) {
    let (arn, invoked_by, kind) = (said(&identity.arn), said(&identity.invoked_by), said(&identity.kind));
    let role = || issuer.map(Cow::Borrowed);
    if kind == "AWSService" {
        (Cow::Borrowed(invoked_by), "")
    } else if let Some(assumed) = assumed_role(arn) {
        (role().unwrap_or_else(|| Cow::Owned(assumed.role())), assumed.session)
    } else if let Some((_, session)) = arn.split_once(":federated-user/") {
        (role().unwrap_or(Cow::Borrowed(arn)), session)
    } else if let Some(id) = Some(arn).filter(|arn| !arn.is_empty()).or(issuer) {
        (Cow::Borrowed(id), "")
    } else if let Some(principal) = identity.principal_id.as_ref().filter(|id| !id.as_str().is_empty()) {
        unnamed(kind, said(&identity.account_id), principal.as_str())
    } else if invoked_by.is_empty() {
        (Cow::Borrowed(said(&identity.account_id)), "")
    } else {
        (Cow::Borrowed(invoked_by), "")
    }
}

/// A principal without an ARN, of another account or an identity provider. Where a role of another account acts, its
/// principal id is `AROA…:session`.
fn unnamed<'t>(kind: &str, account: &str, principal: &'t str) -> (Cow<'t, str>, &'t str) {
    let (id, session) = match principal.split_once(':') {
        Some(parts) if kind == "AWSAccount" => parts,
        _ => (principal, ""),
    };
    let id = if account.is_empty() { Cow::Borrowed(id) } else { Cow::Owned(format!("{account}/{id}")) };
    (id, session)
}

/// The identity at a web identity provider that took the role: `<provider>/<subject>`, or the provider alone where
/// CloudTrail tells no subject.
fn web_identity(web: WebIdentity<'_>) -> Result<Option<String>, Rejection> {
    let Some(provider) = web.federated_provider else {
        return Ok(None);
    };
    let attributes = web.attributes.unwrap_or_default().0;
    let Some((_, subject)) = attributes.iter().find(|(name, _)| name.ends_with(":sub")) else {
        return Ok(Some(provider.into_string()));
    };
    let path = "userIdentity.sessionContext.webIdFederationData.attributes";
    let subject: Text<'_> = nested(subject, path)?;
    Ok(Some(format!("{}/{}", provider.as_str(), subject.as_str())))
}

/// A session of a role, as its ARN tells.
pub struct AssumedRole<'a> {
    partition: &'a str,
    account: &'a str,
    name: &'a str,
    /// The session's name.
    pub session: &'a str,
}

impl AssumedRole<'_> {
    /// The role's ARN. The path of the role, if it has one, is not in that of its session.
    pub fn role(&self) -> String {
        ["arn:", self.partition, ":iam::", self.account, ":role/", self.name].concat()
    }
}

/// What an ARN names, if that is a session of a role: `arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION`.
pub fn assumed_role(arn: &str) -> Option<AssumedRole<'_>> {
    let (partition, rest) = arn.strip_prefix("arn:")?.split_once(':')?;
    let (account, rest) = rest.strip_prefix("sts::")?.split_once(':')?;
    let role = rest.strip_prefix("assumed-role/")?;
    let (name, session) = role.split_once('/').unwrap_or((role, ""));
    Some(AssumedRole { partition, account, name, session })
}

fn credential(identity: &Identity<'_>) -> Credential {
    let id = identity.access_key_id.as_ref().map(Text::as_str).unwrap_or_default();
    let service = identity.kind.as_ref().is_some_and(|kind| kind.as_str() == "AWSService");
    let kind = match id.get(..4) {
        _ if service => CredentialKind::Service,
        Some("AKIA") => CredentialKind::LongLived,
        Some("ASIA") => CredentialKind::ShortLived,
        _ => CredentialKind::Unknown,
    };
    let attributes =
        identity.session_context.as_ref().and_then(|Object(context)| context.attributes.as_ref()).map(|Object(a)| a);
    // Not every version of CloudTrail wrote this one as RFC 3339; what cannot be read is not known.
    let issued_at = attributes
        .and_then(|attributes| attributes.creation_date.as_ref()?.as_str().parse::<jiff::Timestamp>().ok())
        .map(jiff::Timestamp::as_millisecond);
    let mfa = attributes.and_then(|attributes| attributes.mfa_authenticated).map(|Flag(mfa)| mfa);
    let workload_identity = match kind {
        CredentialKind::LongLived => Some(false),
        _ => vouched_for(identity).then_some(true),
    };
    Credential { id: id.to_owned(), kind, issued_at, mfa, workload_identity, ..Credential::default() }
}

/// Whether the session is one of an instance's own, or of a web identity. Other services of AWS vouch for their workloads
/// as well (functions, tasks, pods), and CloudTrail does not tell their sessions from anybody's.
fn vouched_for(identity: &Identity<'_>) -> bool {
    let Some(Object(context)) = &identity.session_context else { return false };
    let provider = context.web_id_federation_data.as_ref().and_then(|Object(web)| web.federated_provider.as_ref());
    [provider, context.ec2_role_delivery.as_ref()].into_iter().flatten().any(|said| !said.as_str().is_empty())
}

/// Whether a console sign-in was made with a second factor, which stands beside the request.
fn signed_in_with_mfa(name: &str, data: Option<&Raw<'_>>) -> Option<bool> {
    #[derive(Deserialize)]
    struct SignIn<'a> {
        #[serde(rename = "MFAUsed", borrow)]
        mfa_used: Text<'a>,
    }
    let data = data.filter(|_| name == "ConsoleLogin")?;
    match wire::object::<SignIn<'_>>(data.get(), "").ok()?.mfa_used.as_str() {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

/// The first `ARGUMENTS_MAX` members of the request, their values cut at `ARGUMENT_MAX` bytes. Unlike an agent, whoever
/// made this request has no say in whether it is recorded, so it is not refused for its size.
fn arguments(parameters: Parameters<'_>) -> Result<Vec<Argument>, Rejection> {
    let argument = |(name, value): (Cow<'_, str>, Raw<'_>)| {
        let mut value = wire::value_text(&value, || "requestParameters".to_owned())?;
        value.truncate(value.floor_char_boundary(ARGUMENT_MAX));
        Ok(Argument { name: name.into_owned(), value, origin: None })
    };
    parameters.0.into_iter().take(ARGUMENTS_MAX).map(argument).collect()
}

/// Success unless there is an error code. A console sign-in that failed has none, but says so in its response.
fn outcome(error_code: Option<Text<'_>>, name: &str, response: Option<&Raw<'_>>) -> Outcome {
    let Some(code) = error_code.map(Text::into_string).filter(|code| !code.is_empty()) else {
        return if name == "ConsoleLogin" && response.is_some_and(login_failed) {
            Outcome::Failed("ConsoleLogin".to_owned())
        } else {
            Outcome::Success
        };
    };
    if is_refusal(&code) { Outcome::Denied(code) } else { Outcome::Failed(code) }
}

/// Whether an error code says that it was refused, as do `AccessDeniedException`, `Client.UnauthorizedOperation` and
/// `VpceAccessDenied`.
pub(crate) fn is_refusal(code: &str) -> bool {
    ["AccessDenied", "Unauthorized", "Forbidden"].into_iter().any(|refusal| code.contains(refusal))
}

/// The resource of a request of which no more is known than what was sent.
pub(crate) fn requested(
    service: &str,
    name: &str,
    request: Option<&Raw<'_>>,
    verb: Verb,
    account: &str,
) -> Result<Resource, Rejection> {
    let path = "api.request.data";
    let parameters = request.map_or(Ok(Parameters::default()), |raw| nested::<Parameters<'_>>(raw, path))?;
    let mut resource = resource::resource(service, name, List::default(), &parameters);
    resource.exposes =
        verb != Verb::Read && request.is_some() && exposure::exposes(service, name, &parameters, account)?;
    Ok(resource)
}

fn login_failed(response: &Raw<'_>) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Login<'a> {
        #[serde(borrow)]
        console_login: Text<'a>,
    }
    wire::object::<Login<'_>>(response.get(), "responseElements")
        .is_ok_and(|login| login.console_login.as_str() == "Failure")
}

#[cfg(test)]
#[path = "cloudtrail/tests.rs"]
mod tests;
