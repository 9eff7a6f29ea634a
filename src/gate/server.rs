//! The decision point: HTTP in, answers out (AuthZEN 1.0, section 10.1).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tautline_detectors::event::Event;
use tautline_detectors::rulebook::Rulebook;
use tautline_ingest::redact::Redactor;
use tokio::time::Instant as Deadline;

use super::access::{Client, Clients};
use super::act::{self, Subject};
use super::authzen::{self, Batch, Fault};
use super::client::EVALUATION;
use super::config::{Gate, Unavailable};
use super::decision::{Question, nobody};
use super::forward::{FORWARDED, Peers};
use super::metrics::RefusalReason;
use super::{Answer, Oracle, Reply, tls};
use crate::status::Status;

mod listen;

pub(crate) use listen::serve;

/// The header with a request's id (section 10.1.3).
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// The most bytes of such an id that an event may be called by. A longer one is given back all the same.
const ID_MAX: usize = 256;
/// Default path of the Access Evaluations API.
const EVALUATIONS: &str = "/access/v1/evaluations";
/// Where the metadata are (section 9.2).
const METADATA: &str = "/.well-known/authzen-configuration";
/// The most bytes that a request may have.
const BODY_MAX: usize = 1_024 * 1_024;
/// How long a request may take to arrive and be answered.
const PATIENCE: Duration = Duration::from_secs(10);

type Answered = Response<Full<Bytes>>;

/// The decision point.
pub(crate) struct Server {
    oracle: Arc<dyn Oracle>,
    /// One for all: a copy of its automata for each question would cost more than the answer.
    redactor: Mutex<Redactor>,
    clients: Clients,
    peers: Peers,
    unavailable: Unavailable,
    identifier: String,
    status: Arc<Status>,
}

/// How many rulebooks a question is judged by at most, while they are switched.
const RULEBOOKS: usize = 8;

/// What became of a question here.
enum Judged {
    /// It is about nobody who is registered, and answered.
    Nobody(Value),
    /// The act, what is known of it, and the rulebook that both are by.
    Act(Box<Event>, Box<Answer>, Arc<Rulebook>),
}

/// Why a request is not evaluated.
struct Refusal {
    reason: RefusalReason,
    fault: Fault,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    fn new(reason: RefusalReason, status: StatusCode, message: impl Into<String>) -> Self {
        Self { reason, fault: Fault { status, message: message.into() }, header: None }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let is_forbidden = fault.status == StatusCode::FORBIDDEN;
        let reason = if is_forbidden { RefusalReason::Forbidden } else { RefusalReason::Malformed };
        Self { reason, fault, header: None }
    }
}

/// What every evaluation of a request has in common.
struct Asking<'a> {
    client: &'a Client,
    now: Timestamp,
    /// Whether another instance asks.
    is_forwarded: bool,
    deadline: Deadline,
}

/// Everything that cannot be read of what the gate needs to start.
pub(crate) fn check(gate: &Gate) -> Vec<String> {
    let mut faults = Clients::read(gate).err().unwrap_or_default();
    faults.extend(Peers::open(gate).err().map(|error| format!("`gate.peers`: {error:#}")));
    faults
        .extend(gate.tls.as_ref().and_then(|tls| tls::server(tls).err()).map(|error| format!("`gate.tls`: {error:#}")));
    faults
}

impl Server {
    /// A decision point that answers by an oracle.
    ///
    /// # Errors
    ///
    /// What [`check`] finds.
    pub(crate) fn open(gate: &Gate, oracle: Arc<dyn Oracle>, redactor: Redactor, status: Arc<Status>) -> Result<Self> {
        let clients = Clients::read(gate).map_err(|faults| anyhow!("{}", faults.join("\n")))?;
        let peers = Peers::open(gate).context("`gate.peers`")?;
        Ok(Self {
            oracle,
            redactor: Mutex::new(redactor),
            clients,
            peers,
            unavailable: gate.unavailable,
            identifier: gate.identifier(),
            status,
        })
    }

    /// Answers a request of somebody whose certificate has these names.
    pub(crate) async fn handle(&self, request: Request<Incoming>, names: &[String]) -> Answered {
        let started = Instant::now();
        let id = request.headers().get(REQUEST_ID).cloned();
        let late = || Refusal::new(RefusalReason::Timeout, StatusCode::REQUEST_TIMEOUT, "the request took too long");
        let answer = tokio::time::timeout(PATIENCE, self.route(request, names)).await.unwrap_or_else(|_| Err(late()));
        let mut response = answer.unwrap_or_else(|refusal| self.refuse(refusal));
        if let Some(id) = id {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        self.status.metrics.gate.took(started.elapsed());
        response
    }

    async fn route(&self, request: Request<Incoming>, names: &[String]) -> Result<Answered, Refusal> {
        let wanted = match request.uri().path() {
            METADATA => Method::GET,
            EVALUATION | EVALUATIONS => Method::POST,
            path => {
                let message = format!("nothing is at `{path}`");
                return Err(Refusal::new(RefusalReason::Malformed, StatusCode::NOT_FOUND, message));
            }
        };
        if request.method() != wanted {
            let message = format!("`{}` is asked with {wanted}", request.uri().path());
            let refusal = Refusal::new(RefusalReason::Malformed, StatusCode::METHOD_NOT_ALLOWED, message);
            let allowed = HeaderValue::try_from(wanted.as_str()).ok().map(|method| (ALLOW, method));
            return Err(Refusal { header: allowed, ..refusal });
        }
        if wanted == Method::GET {
            return Ok(json_response(&self.metadata()));
        }
        self.evaluate(request, names).await
    }

    fn metadata(&self) -> Value {
        let identifier = &self.identifier;
        json!({
            "policy_decision_point": identifier,
            "access_evaluation_endpoint": format!("{identifier}{EVALUATION}"),
            "access_evaluations_endpoint": format!("{identifier}{EVALUATIONS}"),
        })
    }

    async fn evaluate(&self, request: Request<Incoming>, names: &[String]) -> Result<Answered, Refusal> {
        let asking = Asking {
            client: self.client(request.headers(), names)?,
            now: Timestamp::now(),
            is_forwarded: request.headers().contains_key(FORWARDED),
            deadline: self.peers.deadline(),
        };
        let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let given = given.filter(|id| (1..=ID_MAX).contains(&id.len())).map(str::to_owned);
        let is_batch = request.uri().path() == EVALUATIONS;
        let body = read(request).await?;
        let id = given.unwrap_or_else(|| own_id(&body, asking.now));
        let batch = if is_batch { Batch::read(&body)? } else { None };
        if let Some(batch) = batch {
            return Ok(json_response(&self.evaluate_all(batch, &id, &asking).await));
        }
        let answer = self.evaluate_one(body, &id, &asking).await?;
        self.status.metrics.gate.answered(&answer);
        Ok(json_response(&answer))
    }

    /// Who asks, if nothing is against its asking now.
    fn client(&self, headers: &HeaderMap, names: &[String]) -> Result<&Client, Refusal> {
        let Some(client) = self.clients.authenticate(token(headers), names) else {
            let message = "who asks is not known: send a bearer token, or a certificate, of a `[[gate.client]]`";
            let refusal = Refusal::new(RefusalReason::Unauthenticated, StatusCode::UNAUTHORIZED, message);
            let scheme = HeaderValue::from_static("Bearer realm=\"tautline\"");
            return Err(Refusal { header: Some((WWW_AUTHENTICATE, scheme)), ..refusal });
        };
        client.admit().map(|()| client).map_err(|seconds| {
            let message = format!("client `{}` asks more often than its `requests_per_second`", client.name);
            let refusal = Refusal::new(RefusalReason::RateLimited, StatusCode::TOO_MANY_REQUESTS, message);
            Refusal { header: Some((RETRY_AFTER, seconds.into())), ..refusal }
        })
    }

    async fn evaluate_all(&self, batch: Batch, id: &str, asking: &Asking<'_>) -> Value {
        let mut answers = Vec::with_capacity(batch.members.len());
        for (index, member) in batch.members.into_iter().enumerate() {
            let answered = self.evaluate_one(member, &format!("{id}/{index}"), asking).await;
            let answer = answered.unwrap_or_else(|fault| fault.answer());
            self.status.metrics.gate.answered(&answer);
            let ends = batch.semantic.ends_with(answer.get("decision") == Some(&Value::Bool(true)));
            answers.push(answer);
            if ends {
                break;
            }
        }
        json!({ "evaluations": answers })
    }

    async fn evaluate_one(&self, request: Value, id: &str, asking: &Asking<'_>) -> Result<Value, Fault> {
        let mut request = authzen::Request::read(request)?;
        let at = act::time(&request, asking.now)?;
        let (event, answer, book) = match self.judge(&request, (id, at), asking)? {
            Judged::Nobody(answer) => return Ok(answer),
            Judged::Act(event, answer, book) => (event, answer, book),
        };
        // Nobody knows more of whom the registry does not.
        if answer.position.is_none() && event.agent.registered().is_some() && !asking.is_forwarded {
            // The same moment is judged, wherever it is.
            request.context.get_or_insert_default().insert("time".to_owned(), at.to_string().into());
            if let Some(answer) = self.peers.ask(&json!(request), id, asking.deadline).await {
                return Ok(answer);
            }
        }
        Ok(self.unavailable.answer(Question { event: &event, id, at }, &answer, &book))
    }

    /// What is known of a request here, by the rulebook that judges the agent's shard.
    fn judge(
        &self,
        request: &authzen::Request,
        (id, at): (&str, Timestamp),
        asking: &Asking<'_>,
    ) -> Result<Judged, Fault> {
        let mut book = self.oracle.book();
        for _ in 0..RULEBOOKS {
            let Some(subject) = Subject::of(request, &book) else {
                let authzen::Entity { r#type, id: subject, .. } = &request.subject;
                return Ok(Judged::Nobody(nobody(subject, r#type, (id, at), &book)));
            };
            self.check_access(asking.client, &subject)?;
            let event = act::event(request, &subject, (id, at), &mut self.redactor.lock(), &book)?;
            match self.oracle.ask(&event, &book) {
                Reply::Known(answer) => return Ok(Judged::Act(Box::new(event), answer, book)),
                Reply::JudgedBy(other) => book = other,
            }
        }
        Err(Fault {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "rulebooks are switched faster than a question is answered: ask again".to_owned(),
        })
    }

    fn check_access(&self, client: &Client, subject: &Subject) -> Result<(), Fault> {
        if client.may_ask_about(&subject.agent) {
            return Ok(());
        }
        let message = format!("client `{}` may not ask about agent `{}`", client.name, subject.agent);
        Err(Fault { status: StatusCode::FORBIDDEN, message })
    }

    /// The answer to a request that is not evaluated: a message for people, as section 10.1.2 has it.
    fn refuse(&self, refusal: Refusal) -> Answered {
        let Refusal { reason, fault: Fault { status, message }, header } = refusal;
        self.status.metrics.gate.refused(reason);
        let mut response = Response::new(Full::from(message));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response.headers_mut().extend(header);
        response
    }
}

fn json_response(value: &Value) -> Answered {
    let mut response = Response::new(Full::from(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The bearer token of a request (RFC 6750, 2.1).
fn token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The JSON object that a request brings.
async fn read(request: Request<Incoming>) -> Result<Value, Refusal> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|content_type| content_type.to_str().ok());
    let media_type = content_type.and_then(|content_type| content_type.split(';').next()).unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Fault::bad(format!("the content type is `{media_type}`, not `application/json`")).into());
    }
    let body = Limited::new(request.into_body(), BODY_MAX).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let message = format!("the request has more than {BODY_MAX} bytes");
            return Refusal::new(RefusalReason::TooLarge, StatusCode::PAYLOAD_TOO_LARGE, message);
        }
        Fault::bad("the request broke off").into()
    })?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| Fault::bad(format!("the request is not JSON: {error}")).into())
}

/// An id for a request that brings none: the same for the same question at the same time.
fn own_id(body: &Value, now: Timestamp) -> String {
    let question = format!("{now} {body}");
    String::from(tautline_detectors::event::Digest::of(question.as_bytes()))
}
