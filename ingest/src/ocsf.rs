//! What a lake or a vendor already put into one schema: OCSF events of API Activity, and of the other classes of identity
//! and application activity as far as they tell of a call of an API.
//!
//! Field reference: the OCSF schema, 1.0.0-rc.2 to 1.8.0. What was CloudTrail, a Kubernetes or a Google audit log before
//! gives the same names as from there, and an operation of Google's or Azure's means what it means there. Findings, network,
//! system and discovery events are refused as unsupported.

use std::borrow::Cow;

use serde::Deserialize;
use tautline_detectors::event::{
    Credential, CredentialKind, Event, Origin, Outcome, Place, Principal, Resource, Source, Trace, Verb,
};

use crate::audit::{self, ENTRIES_MAX, Parameters};
use crate::aws;
use crate::cloudtrail::{self, AssumedRole, assumed_role};
use crate::format::{Format, Opened, Top, Wire};
use crate::json::{self, Raw};
use crate::kubernetes::{self, ObjectPath, URI_MAX};
use crate::wire::{self, Flag, List, Moment, Object, Scalar, Text, said, scalar};
use crate::{Reason, Rejection, azure, gcp};

pub(crate) const WIRE: Wire = Wire {
    format: Format::Ocsf,
    name: "ocsf",
    tells: &["class_uid"],
    looks: |top: &Top<'_>| top.has("class_uid"),
    open: |text| Ok(Opened::one(text)),
    decode,
    sole: |_| None,
};

#[derive(Deserialize)]
struct Record<'a> {
    class_uid: u32,
    #[serde(borrow)]
    class_name: Option<Text<'a>>,
    category_uid: Option<u32>,
    activity_id: Option<u32>,
    action_id: Option<u32>,
    time: Option<Moment>,
    #[serde(borrow)]
    metadata: Option<Object<Metadata<'a>>>,
    #[serde(borrow)]
    actor: Option<Object<Actor<'a>>>,
    #[serde(borrow)]
    api: Option<Object<Api<'a>>>,
    #[serde(borrow)]
    cloud: Option<Object<Cloud<'a>>>,
    #[serde(borrow)]
    resources: Option<List<Object<Touched<'a>>, ENTRIES_MAX>>,
    #[serde(borrow)]
    src_endpoint: Option<Object<Endpoint<'a>>>,
    #[serde(borrow)]
    http_request: Option<Object<Http<'a>>>,
    status_id: Option<u32>,
    #[serde(borrow)]
    status: Option<Scalar<'a>>,
    #[serde(borrow)]
    status_code: Option<Scalar<'a>>,
    mfa: Option<Flag>,
    is_mfa: Option<Flag>,
    #[serde(borrow)]
    trace: Option<Object<Uid<'a>>>,
    #[serde(borrow)]
    unmapped: Option<Raw<'a>>,
}

#[derive(Deserialize, Default)]
struct Metadata<'a> {
    #[serde(borrow)]
    uid: Option<Text<'a>>,
    #[serde(borrow)]
    product: Option<Object<Product<'a>>>,
}

#[derive(Deserialize, Default)]
struct Product<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    version: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
struct Actor<'a> {
    #[serde(borrow)]
    user: Option<Object<User<'a>>>,
    #[serde(borrow)]
    session: Option<Object<Session<'a>>>,
    #[serde(borrow)]
    invoked_by: Option<Text<'a>>,
    #[serde(borrow)]
    app_uid: Option<Text<'a>>,
    #[serde(borrow)]
    app_name: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
struct User<'a> {
    #[serde(borrow)]
    uid: Option<Text<'a>>,
    #[serde(borrow)]
    uid_alt: Option<Text<'a>>,
    /// The ARN, before 1.0.
    #[serde(borrow)]
    uuid: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    email_addr: Option<Text<'a>>,
    #[serde(borrow)]
    credential_uid: Option<Text<'a>>,
    #[serde(borrow)]
    account: Option<Object<Uid<'a>>>,
    #[serde(borrow)]
    account_uid: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
struct Session<'a> {
    #[serde(borrow)]
    uid: Option<Text<'a>>,
    #[serde(borrow)]
    issuer: Option<Text<'a>>,
    #[serde(borrow)]
    credential_uid: Option<Text<'a>>,
    #[serde(borrow)]
    created_time: Option<Raw<'a>>,
    #[serde(borrow)]
    created_time_dt: Option<Text<'a>>,
    is_mfa: Option<Flag>,
    mfa: Option<Flag>,
}

#[derive(Deserialize, Default)]
struct Uid<'a> {
    #[serde(borrow)]
    uid: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
struct Api<'a> {
    #[serde(borrow)]
    operation: Option<Text<'a>>,
    #[serde(borrow)]
    version: Option<Text<'a>>,
    #[serde(borrow)]
    service: Option<Object<Named<'a>>>,
    #[serde(borrow)]
    group: Option<Object<Named<'a>>>,
    #[serde(borrow)]
    request: Option<Object<Request<'a>>>,
    #[serde(borrow)]
    response: Option<Object<Response<'a>>>,
}

#[derive(Deserialize, Default)]
struct Named<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
struct Request<'a> {
    #[serde(borrow)]
    uid: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<Raw<'a>>,
}

#[derive(Deserialize, Default)]
struct Response<'a> {
    #[serde(borrow)]
    code: Option<Scalar<'a>>,
    #[serde(borrow)]
    error: Option<Scalar<'a>>,
}

#[derive(Deserialize, Default)]
struct Cloud<'a> {
    #[serde(borrow)]
    region: Option<Text<'a>>,
    #[serde(borrow)]
    account: Option<Object<Uid<'a>>>,
    #[serde(borrow)]
    account_uid: Option<Text<'a>>,
    #[serde(borrow)]
    project_uid: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
struct Touched<'a> {
    #[serde(borrow)]
    r#type: Option<Text<'a>>,
    #[serde(borrow)]
    uid: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
    #[serde(borrow)]
    region: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
struct Endpoint<'a> {
    #[serde(borrow)]
    ip: Option<Text<'a>>,
    #[serde(borrow)]
    domain: Option<Text<'a>>,
    #[serde(borrow)]
    svc_name: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
struct Http<'a> {
    #[serde(borrow)]
    user_agent: Option<Text<'a>>,
    #[serde(borrow)]
    url: Option<Raw<'a>>,
}

#[derive(Deserialize)]
struct Url<'a> {
    #[serde(borrow)]
    path: Option<Text<'a, 0, URI_MAX>>,
}

/// Decodes one event.
fn decode(json: &str) -> Result<Event, Rejection> {
    match wire::object::<Record<'_>>(json, "") {
        Ok(record) => event(&record),
        // What other classes hold under the names of our fields is none of our business.
        Err(rejection) => Err(other_class(json).unwrap_or(rejection)),
    }
}

/// The rejection of an event of a class that tells of no call, if this is one.
fn other_class(json: &str) -> Option<Rejection> {
    #[derive(Deserialize)]
    struct Class<'a> {
        class_uid: u32,
        #[serde(borrow)]
        class_name: Option<Text<'a>>,
        category_uid: Option<u32>,
    }
    let class: Class<'_> = wire::object(json, "").ok()?;
    unsupported(class.class_uid, said(&class.class_name), class.category_uid)
}

/// The classes of API Activity: 6003, and 3005 of the release candidates.
const API_ACTIVITY: u32 = 6_003;

/// Classes that are about accounts, groups and access: every change of theirs is one of who may do what.
const IDENTITY: [u32; 4] = [3_001, 3_004, 3_005, 3_006];

/// Identity and access management (3) and application activity (6) may be calls of an API; nothing else is.
fn unsupported(class: u32, name: &str, category: Option<u32>) -> Option<Rejection> {
    let category = category.unwrap_or(class / 1_000);
    (!matches!(category, 3 | 6)).then(|| {
        let detail = format!("`class_uid` is {class} (`{}`): it tells of no call of an API", wire::shown(name));
        Rejection::new(Reason::Unsupported, detail)
    })
}

fn event(record: &Record<'_>) -> Result<Event, Rejection> {
    if let Some(rejection) = unsupported(record.class_uid, said(&record.class_name), record.category_uid) {
        return Err(rejection);
    }
    let subresource = subresource(record);
    let call = Call::of(record, &subresource)?;
    let Some(Moment(at)) = record.time else {
        return Err(Rejection::new(Reason::MissingField, "`time` is missing"));
    };
    let verb = call.verb();
    let request = call.request()?;
    let place = call.place();
    let metadata = record.metadata.as_ref().map(|Object(metadata)| said(&metadata.uid)).unwrap_or_default();
    let endpoint = record.src_endpoint.as_ref().map(|Object(endpoint)| endpoint);
    let endpoint = endpoint.map(|end| audit::first([&end.ip, &end.domain, &end.svc_name].map(|name| Some(said(name)))));
    Ok(Event {
        id: format!("ocsf/{}/{metadata}", place.account),
        source: Source::Ocsf,
        at,
        action: call.action(),
        verb,
        outcome: call.outcome(),
        arguments: audit::arguments(request.as_ref(), "api.request.data")?,
        resource: call.resource(request.as_ref(), verb, &place.account)?,
        principal: call.principal(),
        credential: call.credential(),
        place,
        origin: Origin {
            address: endpoint.unwrap_or_default(),
            user_agent: record
                .http_request
                .as_ref()
                .map(|Object(http)| said(&http.user_agent).to_owned())
                .unwrap_or_default(),
            ..Origin::default()
        },
        trace: call.trace(),
        ..Event::default()
    })
}

/// A member of what the mapping left over.
fn unmapped<'r>(record: &'r Record<'_>, name: &str) -> Option<Raw<'r>> {
    let raw = record.unmapped.as_ref().filter(|raw| raw.get().starts_with('{'))?;
    let members: Parameters<'_> = audit::parsed(raw, "unmapped").ok()?;
    members.0.into_iter().find(|(member, _)| member == name).map(|(_, raw)| raw)
}

/// The subresource of a cluster's object, for which OCSF has no place: among what the mapping left over, as it was or with
/// its names joined by dots, else in the path of the request.
fn subresource(record: &Record<'_>) -> String {
    #[derive(Deserialize)]
    struct Reference<'a> {
        #[serde(borrow)]
        subresource: Option<Text<'a>>,
    }
    let reference = unmapped(record, "objectRef");
    let reference = reference.as_ref().and_then(|raw| wire::object::<Reference<'_>>(raw.get(), "").ok());
    let url = record.http_request.as_ref().and_then(|Object(request)| request.url.as_ref());
    let url = url.and_then(|raw| wire::object::<Url<'_>>(raw.get(), "").ok());
    let path = url.as_ref().map(|url| said(&url.path).split('?').next().unwrap_or_default()).unwrap_or_default();
    audit::first([
        reference.as_ref().map(|reference| said(&reference.subresource)),
        Some(&audit::name(unmapped(record, "objectRef.subresource").as_ref())),
        Some(ObjectPath::of_request(path).subresource),
    ])
}

/// A call of an API, and what it was in the log that it comes from.
struct Call<'a> {
    record: &'a Record<'a>,
    api: &'a Api<'a>,
    operation: &'a str,
    /// The API's service; of AWS the short name that CloudTrail's operations have.
    service: &'a str,
    is_aws: bool,
    /// The object, if it was a cluster's audit log.
    object: Option<ObjectPath<'a>>,
}

impl<'a> Call<'a> {
    fn of(record: &'a Record<'a>, subresource: &'a str) -> Result<Self, Rejection> {
        let missing = || Rejection::new(Reason::MissingField, "`api.operation` is missing");
        let Object(api) = record.api.as_ref().ok_or_else(missing)?;
        let operation = Some(said(&api.operation)).filter(|name| !name.is_empty()).ok_or_else(missing)?;
        let service = api.service.as_ref().map(|Object(service)| said(&service.name)).unwrap_or_default();
        let product = record.metadata.as_ref().and_then(|Object(metadata)| metadata.product.as_ref());
        let (name, version) = product.map(|Object(it)| (said(&it.name), said(&it.version))).unwrap_or_default();
        let short = service.strip_suffix(".amazonaws.com");
        let touched = record.resources.as_ref().and_then(|List(list)| list.first());
        let object = touched.filter(|_| version.starts_with("audit.k8s.io/")).map(|Object(touched)| ObjectPath {
            group: api.group.as_ref().map(|Object(group)| said(&group.name)).unwrap_or_default(),
            version: said(&api.version),
            namespace: said(&touched.namespace),
            kind: said(&touched.r#type),
            name: said(&touched.name),
            subresource,
        });
        let service = short.unwrap_or(if service.is_empty() { name } else { service });
        Ok(Call { record, api, operation, service, is_aws: short.is_some(), object })
    }

    fn action(&self) -> String {
        match &self.object {
            Some(object) => format!("{}:{}", kubernetes::SERVICE, object.operation(self.operation)),
            None if is_azure(self.operation) => self.operation.to_ascii_lowercase(),
            None if self.service.is_empty() => self.operation.to_owned(),
            None => format!("{}:{}", self.service, self.operation),
        }
    }

    /// The verb as the log tells it that the call comes from, else by the class and the activity.
    fn verb(&self) -> Verb {
        let is_api = self.record.class_uid == API_ACTIVITY || said(&self.record.class_name) == "API Activity";
        if let Some(object) = &self.object {
            return kubernetes::verb(self.operation, object);
        }
        if !is_api {
            let changes = IDENTITY.contains(&self.record.class_uid);
            // A sign-in changes nothing.
            return if changes {
                Verb::PermissionChange
            } else if self.record.class_uid == 3_002 {
                Verb::Read
            } else {
                Verb::Write
            };
        }
        if is_azure(self.operation) {
            return azure::verb(self.operation, "");
        }
        match self.google_verb() {
            // What does not look by its name may do so by its activity.
            Some(Verb::Write) | None => self.active_verb(),
            Some(verb) => verb,
        }
    }

    /// What a method of Google's means there.
    fn google_verb(&self) -> Option<Verb> {
        let is_google = self.service == kubernetes::SERVICE || self.service.ends_with(".googleapis.com");
        let touched = self.record.resources.as_ref().and_then(|List(list)| list.first()).map(|Object(touched)| touched);
        let target = touched.map(|touched| audit::first([Some(said(&touched.uid)), Some(said(&touched.name))]));
        is_google.then(|| gcp::verb(self.service, self.operation, &target.unwrap_or_default()))
    }

    /// The verb by the activity. What the activity leaves open, the operation's name decides.
    fn active_verb(&self) -> Verb {
        match self.record.activity_id.unwrap_or_default() {
            1 | 3 | 4 => Verb::Write,
            2 => Verb::Read,
            _ if self.is_aws && aws::only_reads(&self.action()) => Verb::Read,
            _ => Verb::Write,
        }
    }

    /// What was sent: an object, or one that is written as text.
    fn request(&self) -> Result<Option<Raw<'_>>, Rejection> {
        let data = self.api.request.as_ref().and_then(|Object(request)| request.data.as_ref());
        match data {
            Some(raw) if raw.get().starts_with('{') => Ok(Some(Raw(Cow::Borrowed(raw.get())))),
            Some(raw) if raw.get().starts_with('"') => {
                let text = wire::value_text(raw, || "api.request.data".to_owned())?;
                let is_object = json::parse::<Object<Parameters<'_>>>(&text).is_ok();
                Ok(is_object.then_some(Raw(Cow::Owned(text))))
            }
            _ => Ok(unmapped(self.record, "requestParameters").filter(|raw| raw.get().starts_with('{'))),
        }
    }

    /// What it was aimed at: the first of the resources, else what the request names, where it is one to AWS.
    fn resource(&self, request: Option<&Raw<'_>>, verb: Verb, account: &str) -> Result<Resource, Rejection> {
        if let Some(object) = &self.object {
            return Ok(Resource { kind: object.kind(), id: object.id(), ..Resource::default() });
        }
        let derived = match self.is_aws {
            true => cloudtrail::requested(self.service, self.operation, request, verb, account)?,
            false => Resource::default(),
        };
        let touched = self.record.resources.as_ref().and_then(|List(list)| list.first());
        let Some(Object(touched)) = touched else { return Ok(derived) };
        Ok(Resource {
            kind: audit::first([Some(said(&touched.r#type)), Some(&derived.kind)]),
            id: audit::first([Some(said(&touched.uid)), Some(said(&touched.name)), Some(&derived.id)]),
            ..derived
        })
    }

    fn user(&self) -> Option<&User<'a>> {
        self.record.actor.as_ref()?.0.user.as_ref().map(|Object(user)| user)
    }

    fn session(&self) -> Option<&Session<'a>> {
        self.record.actor.as_ref()?.0.session.as_ref().map(|Object(session)| session)
    }

    /// Who acted: as in CloudTrail the role that issued the session, then whatever is an ARN, an address or an id.
    fn principal(&self) -> Principal {
        let issuer = self.session().map(|session| said(&session.issuer)).filter(|issuer| issuer.contains(":role/"));
        let session = self.session().map(|session| said(&session.uid)).unwrap_or_default();
        let names =
            self.user().map(|user| [&user.uid, &user.uuid, &user.uid_alt, &user.email_addr, &user.name].map(said));
        let names = names.unwrap_or_default();
        let arn = names.into_iter().find(|name| name.starts_with("arn:"));
        let role = arn.and_then(assumed_role);
        let [uid, _, alternative, email, name] = names;
        let actor = self.record.actor.as_ref().map(|Object(actor)| actor);
        let app = actor
            .map(|actor| audit::first([&actor.app_uid, &actor.app_name, &actor.invoked_by].map(|app| Some(said(app)))));
        let cluster = Some(name).filter(|_| self.object.is_some());
        let own = role.as_ref().map(AssumedRole::role);
        let own = own.as_deref().or(arn);
        let id =
            audit::first([issuer, own, cluster, Some(email), Some(uid), Some(alternative), Some(name), app.as_deref()]);
        let session = role.map(|role| role.session).filter(|name| !name.is_empty()).unwrap_or(session);
        Principal {
            id: if id.is_empty() { format!("unnamed/{}", self.service) } else { id },
            session: session.to_owned(),
            ..Principal::default()
        }
    }

    fn credential(&self) -> Credential {
        let (user, session) = (self.user(), self.session());
        let id = audit::first([
            user.map(|user| said(&user.credential_uid)),
            session.map(|session| said(&session.credential_uid)),
        ]);
        let kind = match id.get(..4) {
            Some("AKIA") => CredentialKind::LongLived,
            Some("ASIA") => CredentialKind::ShortLived,
            _ => CredentialKind::Unknown,
        };
        let written = session.and_then(|session| Moment::of(said(&session.created_time_dt)));
        let counted = session.and_then(|session| audit::parsed::<Moment>(session.created_time.as_ref()?, "").ok());
        let issued_at = counted.filter(|Moment(at)| *at > 0).or(written).map(|Moment(at)| at);
        let mfa = session.and_then(|session| session.is_mfa.or(session.mfa)).or(self.record.is_mfa).or(self.record.mfa);
        Credential { id, kind, issued_at, mfa: mfa.map(|Flag(mfa)| mfa), ..Credential::default() }
    }

    /// Where it happened. CloudTrail's own account comes first; some mappings write an ARN for the account.
    fn place(&self) -> Place {
        let recipient = audit::name(unmapped(self.record, "recipientAccountId").as_ref());
        let uid = |object: Option<&Object<Uid<'a>>>| object.map(|Object(account)| said(&account.uid).to_owned());
        let cloud = self.record.cloud.as_ref().map(|Object(cloud)| cloud);
        let cloud_account = cloud.and_then(|cloud| uid(cloud.account.as_ref()));
        let user_account = self.user().and_then(|user| uid(user.account.as_ref()));
        let account = audit::first([
            Some(&recipient),
            cloud_account.as_deref(),
            cloud.map(|cloud| said(&cloud.account_uid)),
            cloud.map(|cloud| said(&cloud.project_uid)),
            user_account.as_deref(),
            self.user().map(|user| said(&user.account_uid)),
        ]);
        let of_arn = account.strip_prefix("arn:").and_then(|arn| arn.split(':').nth(3));
        let touched = self.record.resources.as_ref().and_then(|List(list)| list.first()).map(|Object(touched)| touched);
        Place {
            region: audit::first([
                cloud.map(|cloud| said(&cloud.region)),
                touched.map(|touched| said(&touched.region)),
            ]),
            namespace: touched.map(|touched| said(&touched.namespace).to_owned()).unwrap_or_default(),
            account: of_arn.map_or_else(|| account.clone(), str::to_owned),
            ..Place::default()
        }
    }

    /// How it ended. CloudTrail knows no word for success: there, no error is one.
    fn outcome(&self) -> Outcome {
        let response = self.api.response.as_ref().map(|Object(response)| response);
        let error = scalar(response.and_then(|response| response.error.as_ref()));
        let error = if error == "null" { String::new() } else { error };
        let code = scalar(response.and_then(|response| response.code.as_ref()));
        let status = scalar(self.record.status.as_ref());
        let reason =
            audit::first([Some(&error), Some(&scalar(self.record.status_code.as_ref())), Some(&code), Some(&status)]);
        let refused = cloudtrail::is_refusal(&reason) || matches!(reason.as_str(), "401" | "403");
        match (self.record.status_id, code.parse::<u16>()) {
            _ if self.record.action_id == Some(2) => Outcome::Denied(reason),
            (Some(1), _) => Outcome::Success,
            (status_id, code) if status_id == Some(2) || !error.is_empty() || matches!(code, Ok(400..)) => {
                if refused {
                    Outcome::Denied(reason)
                } else {
                    Outcome::Failed(reason)
                }
            }
            (_, Ok(100..400)) => Outcome::Success,
            _ if self.is_aws || status == "Success" => Outcome::Success,
            _ => Outcome::Unknown,
        }
    }

    fn trace(&self) -> Option<Trace> {
        let request_id = self.api.request.as_ref().map(|Object(request)| said(&request.uid)).unwrap_or_default();
        let trace_id = self.record.trace.as_ref().map(|Object(trace)| said(&trace.uid)).unwrap_or_default();
        let trace = Trace { request_id: request_id.to_owned(), trace_id: trace_id.to_owned(), ..Trace::default() };
        (trace != Trace::default()).then_some(trace)
    }
}

/// Whether an operation has a name of Azure's, which ignore case.
fn is_azure(operation: &str) -> bool {
    operation.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("microsoft.")) && operation.contains('/')
}

#[cfg(test)]
#[path = "ocsf/tests.rs"]
mod tests;
