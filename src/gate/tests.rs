//! The gate over real connections: the specification's examples, who is let in, what is decided, and who is asked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod act;
mod authzen;
mod decision;
mod forward;
mod server;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tautline_detectors::deviation::LearningState;
use tautline_detectors::event::Event;
use tautline_detectors::rulebook::{RuleFile, Rulebook};
use tokio::net::TcpListener;

use super::client::{Http, pool};
use super::config::{Gate, base_url};
use super::{Answer, Oracle, Reply, Server, guardrails, serve};
use crate::config::{Config, RulebookPaths};
use crate::output::ocsf::Position;
use crate::rules::Unreachable;
use crate::status::Status;
use crate::{redaction, rules};

/// A token that may ask about everybody, and one that may ask about `restart-bot` only.
const TOKEN: &str = "0123456789abcdef-all";
const NARROW: &str = "0123456789abcdef-one";

/// The shipped rules with the example registry, in which the specification's Alice is an agent if she is to be.
pub(super) fn book(with_alice: bool) -> Arc<Rulebook> {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let paths = rules::example_paths(&RulebookPaths { rules, ..RulebookPaths::default() });
    let book = rules::read(&paths, Unreachable::Refuse).unwrap();
    if !with_alice {
        return Arc::new(book);
    }
    let alice = "[agents.alice]\nclass = \"observer\"\nowner = \"ana.ruiz@example.com\"\ntools = [\"*\"]\nenvironments = [\"*\"]\n\
        identities = [\"alice@example.com\", \"alice@acmecorp.com\"]\n";
    let file = RuleFile {
        name: "registry/agents/alice.toml".to_owned(),
        path: "alice.toml".to_owned(),
        text: alice.to_owned(),
    };
    Arc::new(Rulebook::read(book.files().iter().cloned().chain([file]).collect()).unwrap())
}

type Knows = Box<dyn Fn(&Arc<Rulebook>, &Event) -> Answer + Send + Sync>;

/// An oracle that knows what a test says it does.
pub(super) struct Double {
    book: Arc<Rulebook>,
    knows: Knows,
}

impl Oracle for Double {
    fn book(&self) -> Arc<Rulebook> {
        Arc::clone(&self.book)
    }

    fn ask(&self, event: &Event, book: &Arc<Rulebook>) -> Reply {
        Reply::Known(Box::new((self.knows)(book, event)))
    }
}

/// One who knows every agent, and nothing against anybody beyond the rules.
pub(super) fn knowing(book: &Arc<Rulebook>, event: &Event) -> Answer {
    let position = Position { topic: "tautline.events".to_owned(), partition: 0, offset: 7 };
    let mut answer = Answer { position: Some(position), ..guardrails(book, event) };
    (answer.opinion.trust, answer.opinion.state, answer.opinion.wanted) = (97.4, LearningState::Active, None);
    answer
}

/// One who trusts everybody.
pub(super) fn trusting(book: &Arc<Rulebook>, event: &Event) -> Answer {
    let mut answer = knowing(book, event);
    answer.opinion.objections.clear();
    answer
}

/// One who knows nothing of an agent's past.
pub(super) fn unknowing(answer: Answer) -> Answer {
    Answer { position: None, ..answer }
}

/// A running gate.
pub(super) struct Stand {
    pub(super) address: SocketAddr,
    pub(super) status: Arc<Status>,
    http: Http,
}

/// The `[gate]` of a configuration, which must be one.
pub(super) fn configured(gate: &str) -> Gate {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tautline.toml");
    std::fs::write(&path, gate).unwrap();
    Config::read(&path, true).unwrap().gate.unwrap()
}

/// Clients that are known by the tests' tokens.
pub(super) fn clients(directory: &Path) -> String {
    std::fs::write(directory.join("all"), TOKEN).unwrap();
    std::fs::write(directory.join("one"), NARROW).unwrap();
    let client = |name: &str, agents: &str| {
        let path = directory.join(name);
        format!(
            "[[gate.client]]\nname = \"{name}\"\ntoken = {{ file = \"{}\" }}\nagents = [\"{agents}\"]\n",
            path.display()
        )
    };
    client("all", "*") + &client("one", "restart-*")
}

pub(super) async fn start(book: Arc<Rulebook>, gate: &str, knows: Knows) -> Stand {
    let directory = tempfile::tempdir().unwrap();
    let gate = configured(&format!("[gate]\n{gate}\n{}", clients(directory.path())));
    let status = Arc::new(Status::new().unwrap());
    let oracle = Arc::new(Double { book, knows });
    let server = Server::open(&gate, oracle, redaction::of_examples().unwrap(), Arc::clone(&status)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Arc::new(server), gate.tls));
    Stand { address, status, http: pool(&base_url("http://127.0.0.1").unwrap(), None).unwrap() }
}

impl Stand {
    /// What comes back of a request as it is.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> (StatusCode, HeaderMap, String) {
        let uri = format!("http://{}{path}", self.address);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.http.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        (parts.status, parts.headers, text)
    }

    /// What comes back of a good request.
    pub(super) async fn post(&self, path: &str, body: &Value) -> (StatusCode, HeaderMap, String) {
        self.post_as(TOKEN, path, body).await
    }

    pub(super) async fn post_as(&self, token: &str, path: &str, body: &Value) -> (StatusCode, HeaderMap, String) {
        let token = format!("Bearer {token}");
        let headers = [("content-type", "application/json"), ("authorization", token.as_str())];
        self.send(Method::POST, path, &headers, body.to_string()).await
    }

    /// The answer to a good request.
    pub(super) async fn ask(&self, body: &Value) -> Value {
        let (status, headers, text) = self.post("/access/v1/evaluation", body).await;
        assert_eq!(status, 200, "{text}");
        assert_eq!(headers["content-type"], "application/json");
        serde_json::from_str(&text).unwrap()
    }

    /// The answers to a good request for several.
    pub(super) async fn ask_all(&self, body: &Value) -> Vec<Value> {
        let (status, _, text) = self.post("/access/v1/evaluations", body).await;
        assert_eq!(status, 200, "{text}");
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        assert!(answer.get("decision").is_none(), "recommended to be left out: {answer}");
        serde_json::from_value(answer["evaluations"].take()).unwrap()
    }
}

/// `restart-bot` looks something up: nothing is wrong with it.
pub(super) fn lookup() -> Value {
    json!({
        "subject": { "type": "agent", "id": "restart-bot" },
        "action": { "name": "search_logs", "properties": { "verb": "read", "parameters": { "query": "checkout" } } },
        "resource": { "type": "", "id": "" },
        "context": { "time": "2026-06-02T09:00:10Z", "run": { "playbook": "restart-service", "id": "r-1", "session": "inc-1" } },
    })
}

/// `deploy-bot` deletes a volume of production that is a crown jewel's: policies forbid it.
pub(super) fn deletion() -> Value {
    json!({
        "subject": { "type": "agent", "id": "deploy-bot" },
        "action": { "name": "ec2:DeleteVolume", "properties": { "parameters": { "VolumeId": "vol-1", "Force": true } } },
        "resource": { "type": "AWS::EC2::Volume", "id": "vol-1", "properties": { "account": "111111111111", "environment": "staging" } },
        "context": { "time": "2026-06-02T09:00:10Z", "tool": "aws_cli", "reasoning": "a secret plan" },
    })
}

/// The reasons that an answer gives.
pub(super) fn reasons(answer: &Value) -> Vec<String> {
    let reasons = answer["context"]["reasons"].as_array().into_iter().flatten();
    reasons.map(|reason| reason["what"].as_str().unwrap().to_owned()).collect()
}

pub(super) fn decision(answer: &Value) -> bool {
    answer["decision"].as_bool().unwrap()
}

pub(super) const LONG: Duration = Duration::from_secs(20);
