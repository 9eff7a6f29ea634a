//! The events of the common work: agent actions and CloudTrail-like records, as JSON.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use anyhow::{Context, Result};
use serde::de::{Deserializer, Visitor};
use serde::Deserialize;
use tautline_detectors::event::{AgentRef, Event, Verb};

/// The fields that the work reads, of either kind of record; text is borrowed where it has no escapes.
#[derive(Debug, Deserialize)]
pub struct Fields<'a> {
    #[serde(rename = "eventVersion", borrow)]
    event_version: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    ts: Option<Text<'a>>,
    #[serde(borrow)]
    agent: Option<Agent<'a>>,
    #[serde(borrow)]
    tool: Option<Text<'a>>,
    #[serde(borrow)]
    action: Option<Text<'a>>,
    #[serde(borrow)]
    environment: Option<Text<'a>>,
    #[serde(borrow)]
    resource: Option<Text<'a>>,
    #[serde(rename = "eventID", borrow)]
    event_id: Option<Text<'a>>,
    #[serde(rename = "eventTime", borrow)]
    event_time: Option<Text<'a>>,
    #[serde(rename = "userIdentity", borrow)]
    user_identity: Option<Identity<'a>>,
    #[serde(rename = "eventSource", borrow)]
    event_source: Option<Text<'a>>,
    #[serde(rename = "eventName", borrow)]
    event_name: Option<Text<'a>>,
    #[serde(rename = "recipientAccountId", borrow)]
    account: Option<Text<'a>>,
    #[serde(borrow)]
    resources: Option<Vec<Resource<'a>>>,
    #[serde(rename = "readOnly")]
    read_only: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Agent<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    class: Text<'a>,
}

#[derive(Debug, Deserialize)]
struct Identity<'a> {
    #[serde(borrow)]
    arn: Text<'a>,
}

#[derive(Debug, Deserialize)]
struct Resource<'a> {
    #[serde(rename = "ARN", borrow)]
    arn: Text<'a>,
}

/// Text that is borrowed from the record where it has no escapes.
#[derive(Debug, Default)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for TextVisitor<'a> {
            type Value = Text<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

impl<'a> Fields<'a> {
    /// Fills the event
    pub fn fill(&self, accounts: &HashMap<String, String>, event: &mut Event) -> Result<()> {
        if self.event_version.is_some() { self.fill_cloudtrail(accounts, event) } else { self.fill_action(event) }
    }

    fn fill_action(&self, event: &mut Event) -> Result<()> {
        let agent = self.agent.as_ref().context("no `agent`")?;
        set(&mut event.id, &self.id)?;
        set_agent(event, &agent.id.0);
        put(&mut event.principal.id, &agent.class.0);
        set(&mut event.tool, &self.tool)?;
        set(&mut event.place.environment, &self.environment)?;
        set(&mut event.resource.id, &self.resource)?;
        event.at = time(&self.ts.as_ref().context("no `ts`")?.0).context("not a time")?;
        event.verb = if self.action.as_ref().is_some_and(|action| action.0 == "read") { Verb::Read } else { Verb::Write };
        Ok(())
    }

    fn fill_cloudtrail(&self, accounts: &HashMap<String, String>, event: &mut Event) -> Result<()> {
        set(&mut event.id, &self.event_id)?;
        let arn = &self.user_identity.as_ref().context("no `userIdentity`")?.arn.0;
        let mut parts = arn.rsplit('/');
        let (agent, role) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        set_agent(event, agent);
        put(&mut event.principal.id, role.strip_prefix("agent-").unwrap_or(role));
        set(&mut event.tool, &self.event_source)?;
        let service = event.tool.strip_suffix(".amazonaws.com").unwrap_or(&event.tool).len();
        event.tool.truncate(service);
        event.tool.push(':');
        event.tool.push_str(&self.event_name.as_ref().context("no `eventName`")?.0);
        let account = &self.account.as_ref().context("no `recipientAccountId`")?.0;
        put(&mut event.place.environment, accounts.get(&**account).context("unknown account")?);
        put(&mut event.resource.id, &self.resources.as_ref().and_then(|all| all.first()).context("no `resources`")?.arn.0);
        event.at = time(&self.event_time.as_ref().context("no `eventTime`")?.0).context("not a time")?;
        event.verb = if self.read_only == Some(true) { Verb::Read } else { Verb::Write };
        Ok(())
    }
}

fn put(field: &mut String, text: &str) {
    field.clear();
    field.push_str(text);
}

fn set(field: &mut String, text: &Option<Text<'_>>) -> Result<()> {
    put(field, &text.as_ref().context("a field is missing")?.0);
    Ok(())
}

fn set_agent(event: &mut Event, agent: &str) {
    match &mut event.agent {
        AgentRef::Registered(id) => put(id, agent),
        other => *other = AgentRef::Registered(agent.to_owned()),
    }
}

/// Milliseconds since the epoch of `2026-01-05T08:00:00[.123]Z`.
fn time(text: &str) -> Option<i64> {
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    Some(timestamp.as_millisecond())
}
