//! `tautline gate`: asks on a command line, for jobs that act and for people who want to know.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tautline_detectors::rulebook::Rulebook;
use tautline_ingest::redact::Redactor;

use super::act::{self, Subject};
use super::authzen::{Fault, Request};
use super::client::Client;
use super::config::Unavailable;
use super::decision::{Question, nobody};
use super::guardrails;
use crate::output::text::printable;

/// What is asked, in words of the command line.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// The request of AuthZEN's Access Evaluation API, a JSON object; `-` is standard input
    #[arg(value_name = "FILE", required_unless_present_any = ["agent", "verify"], conflicts_with = "agent")]
    request: Option<PathBuf>,
    /// The agent, by its id in the registry
    #[arg(long, value_name = "ID", requires = "action", requires = "resource")]
    agent: Option<String>,
    /// What it is about to do: a native operation (`ec2:DeleteVolume`), or the name of a tool
    #[arg(long, requires = "agent")]
    action: Option<String>,
    /// To what, by its native id
    #[arg(long, value_name = "ID", requires = "agent")]
    resource: Option<String>,
    /// The resource's type, e.g. `AWS::EC2::Volume`
    #[arg(long, value_name = "TYPE", requires = "agent")]
    resource_type: Option<String>,
    /// The account, project or subscription that the resource is in
    #[arg(long, requires = "agent")]
    account: Option<String>,
    /// The environment that the agent takes it for
    #[arg(long, requires = "agent")]
    environment: Option<String>,
    /// read, write, propose, execute or permission_change, where the operation does not tell
    #[arg(long, requires = "agent")]
    verb: Option<String>,
    /// The tool that does it; the action, if not given
    #[arg(long, requires = "agent")]
    tool: Option<String>,
    /// Why, in the agent's words
    #[arg(long, requires = "agent")]
    reasoning: Option<String>,
    /// Id of the approval that it is done under
    #[arg(long, requires = "agent")]
    approval: Option<String>,
}

impl Ask {
    /// The request that it stands for.
    pub(crate) fn request(&self, read: impl Fn(&Path) -> Result<String>) -> Result<Value> {
        if let Some(path) = &self.request {
            return serde_json::from_str(&read(path)?).with_context(|| format!("`{}` is not JSON", path.display()));
        }
        let given = |members: &[(&str, &Option<String>)]| -> Map<String, Value> {
            let given =
                members.iter().filter_map(|(name, value)| Some(((*name).to_owned(), value.as_ref()?.as_str().into())));
            given.collect()
        };
        Ok(json!({
            "subject": { "type": "agent", "id": self.agent },
            "action": { "name": self.action, "properties": given(&[("verb", &self.verb)]) },
            "resource": {
                "type": self.resource_type.as_deref().unwrap_or_default(), "id": self.resource,
                "properties": given(&[("account", &self.account), ("environment", &self.environment)]),
            },
            "context": given(&[("tool", &self.tool), ("reasoning", &self.reasoning), ("approval", &self.approval)]),
        }))
    }
}

/// Whom to ask, and how to be let in.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Base URL of the gate
    #[arg(long, default_value = "http://127.0.0.1:9465")]
    url: String,
    /// File with the bearer token; without it, the variable TAUTLINE_GATE_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates that the gate is trusted by, in PEM, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Target {
    /// Asks a running gate.
    pub(crate) fn ask(&self, request: &Value, read: impl Fn(&Path) -> Result<String>) -> Result<Value> {
        let token = match &self.token_file {
            Some(path) => Some(read(path)?),
            None => std::env::var("TAUTLINE_GATE_TOKEN").ok(),
        };
        let client = Client::new(&self.url, token.as_deref().map(str::trim), self.ca.as_deref())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(client.ask(request))
    }
}

/// Judges a request by guardrails alone, with nobody to ask.
pub(crate) fn offline(request: Value, book: &Arc<Rulebook>, mut redactor: Redactor) -> Result<Value> {
    let told = |fault: Fault| anyhow!("{}", fault.message);
    let request = Request::read(request).map_err(told)?;
    let at = act::time(&request, Timestamp::now()).map_err(told)?;
    let Some(subject) = Subject::of(&request, book) else {
        return Ok(nobody(&request.subject.id, &request.subject.r#type, ("offline", at), book));
    };
    let event = act::event(&request, &subject, ("offline", at), &mut redactor, book).map_err(told)?;
    Ok(Unavailable::Open.answer(Question { event: &event, id: "offline", at }, &guardrails(book, &event), book))
}

/// Whether an answer permits.
pub(crate) fn is_permit(answer: &Value) -> bool {
    answer.get("decision") == Some(&Value::Bool(true))
}

/// Writes an answer for people.
pub(crate) fn write(answer: &Value, out: &mut impl Write) -> std::io::Result<()> {
    let text =
        |value: &Value, pointer: &str| printable(value.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    let list = |pointer: &str| answer.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let decision = if is_permit(answer) { "permit" } else { "deny" };
    let trust = answer.pointer("/context/trust").map_or_else(String::new, |trust| format!(", trust {trust}"));
    let rulebook: String = text(answer, "/context/rulebook").chars().take(12).collect();
    writeln!(out, "{decision} (behaviour {}{trust}, rulebook {rulebook})", text(answer, "/context/behaviour"))?;
    for (kind, pointer) in [("", "/context/reasons"), ("advice: ", "/context/advice")] {
        for reason in list(pointer) {
            let control = [text(reason, "/severity"), text(reason, "/control")].join(" ");
            let control = if control.trim().is_empty() { String::new() } else { format!("{control}: ") };
            writeln!(out, "  {kind}{control}{}", text(reason, "/what"))?;
            writeln!(out, "    would comply: {}", text(reason, "/counterfactual"))?;
        }
    }
    if let Some(approval) = answer.pointer("/context/approval") {
        let people = approval.get("people").cloned().unwrap_or_default();
        writeln!(out, "  wants an approval by {people} of {}", text(approval, "/digest"))?;
    }
    Ok(())
}
