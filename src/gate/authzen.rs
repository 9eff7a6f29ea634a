//! The requests of the OpenID AuthZEN Authorization API 1.0 (final, 11 January 2026), sections 5 to 7. Members that are not
//! known are ignored, as section 10.1.1 asks.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The most evaluations that one request may have.
pub(crate) const BATCH_MAX: usize = 100;

/// May this subject do this to this resource?
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Request {
    pub(crate) subject: Entity,
    pub(crate) action: Action,
    pub(crate) resource: Entity,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context: Option<Map<String, Value>>,
}

/// A subject or a resource.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Entity {
    pub(crate) r#type: String,
    pub(crate) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) properties: Option<Map<String, Value>>,
}

/// What is to be done.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Action {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) properties: Option<Map<String, Value>>,
}

/// Why a request, or one evaluation of it, is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Fault {
    /// What is asked is not as the specification has it, or cannot be.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// The same as an evaluation's answer, which is closed (section 7.2.1).
    pub(crate) fn answer(&self) -> Value {
        json!({
            "decision": false,
            "context": { "error": { "status": self.status.as_u16(), "message": self.message } },
        })
    }
}

impl Request {
    pub(crate) fn read(value: Value) -> Result<Self, Fault> {
        // A list of what an object should have is no object.
        let parts = ["subject", "action", "resource"].map(|name| value.get(name));
        if !value.is_object() || parts.into_iter().flatten().any(Value::is_array) {
            return Err(Fault::bad("not an evaluation request: it, its subject, action and resource are JSON objects"));
        }
        serde_json::from_value(value).map_err(|error| Fault::bad(format!("not an evaluation request: {error}")))
    }

    /// A member of the context, unless it is null.
    pub(crate) fn context(&self, name: &str) -> Option<&Value> {
        member(self.context.as_ref(), name)
    }
}

/// A member of properties, unless it is null, which is the same as none (section 11.5).
pub(crate) fn member<'a>(properties: Option<&'a Map<String, Value>>, name: &str) -> Option<&'a Value> {
    properties?.get(name).filter(|value| !value.is_null())
}

/// Several evaluations in one request (section 7.1).
#[derive(Debug)]
pub(crate) struct Batch {
    /// Each with the defaults of the request.
    pub(crate) members: Vec<Value>,
    pub(crate) semantic: Semantic,
}

/// Which of a batch's evaluations are answered (section 7.1.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Semantic {
    /// All of them.
    #[default]
    ExecuteAll,
    /// Those up to the first that is denied, or cannot be answered.
    DenyOnFirstDeny,
    /// Those up to the first that is permitted.
    PermitOnFirstPermit,
}

impl Semantic {
    /// Whether nothing is answered behind such a decision.
    pub(crate) fn ends_with(self, decision: bool) -> bool {
        match self {
            Semantic::ExecuteAll => false,
            Semantic::DenyOnFirstDeny => !decision,
            Semantic::PermitOnFirstPermit => decision,
        }
    }
}

impl Batch {
    /// The evaluations of a request; `None` where it has none, and is a single one.
    pub(crate) fn read(request: &Value) -> Result<Option<Self>, Fault> {
        let Some(request) = request.as_object() else { return Err(Fault::bad("the request is no JSON object")) };
        let evaluations = match member(Some(request), "evaluations") {
            None => return Ok(None),
            Some(Value::Array(evaluations)) if evaluations.is_empty() => return Ok(None),
            Some(Value::Array(evaluations)) => evaluations,
            Some(_) => return Err(Fault::bad("`evaluations` is no array")),
        };
        if evaluations.len() > BATCH_MAX {
            let message = format!(
                "`evaluations` has {} members, more than {BATCH_MAX}: send several requests",
                evaluations.len()
            );
            return Err(Fault::bad(message));
        }
        let members = evaluations.iter().map(|evaluation| with_defaults(evaluation, request)).collect();
        Ok(Some(Self { members, semantic: semantic(request)? }))
    }
}

fn semantic(request: &Map<String, Value>) -> Result<Semantic, Fault> {
    let options = member(Some(request), "options").map(|options| options.get("evaluations_semantic"));
    let Some(name) = options.flatten().filter(|name| !name.is_null()) else { return Ok(Semantic::default()) };
    Semantic::deserialize(name).map_err(|error| Fault::bad(format!("`options.evaluations_semantic`: {error}")))
}

/// An evaluation with what it does not say itself taken from the request's top.
fn with_defaults(evaluation: &Value, request: &Map<String, Value>) -> Value {
    let mut evaluation = evaluation.clone();
    if let Some(own) = evaluation.as_object_mut() {
        for name in ["subject", "action", "resource", "context"] {
            if let (None, Some(default)) = (member(Some(own), name), request.get(name)) {
                own.insert(name.to_owned(), default.clone());
            }
        }
    }
    evaluation
}
