//! What an agent did, as far as these examples look at it: parsed into borrowed fields, nothing else is read.

use std::borrow::Cow;

use serde::Deserialize;

/// An agent action or a CloudTrail record.
#[derive(Debug)]
pub(crate) struct WorkEvent<'a> {
    pub(crate) id: Cow<'a, str>,
    pub(crate) agent: Cow<'a, str>,
    pub(crate) class: Cow<'a, str>,
    /// The tool, or the cloud's service.
    pub(crate) tool: Cow<'a, str>,
    /// What it was told to do; of a tool that is in its name, this is empty.
    pub(crate) operation: Cow<'a, str>,
    /// The environment, or the account.
    pub(crate) place: Cow<'a, str>,
    pub(crate) resource: Cow<'a, str>,
    pub(crate) ts_ms: i64,
    pub(crate) write: bool,
}

/// Both forms at once: what is absent is empty.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Wire<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    ts: Cow<'a, str>,
    #[serde(borrow)]
    agent: Agent<'a>,
    #[serde(borrow)]
    tool: Cow<'a, str>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    environment: Cow<'a, str>,
    #[serde(borrow)]
    resource: Cow<'a, str>,
    #[serde(borrow, rename = "eventVersion")]
    event_version: Cow<'a, str>,
    #[serde(borrow, rename = "eventID")]
    event_id: Cow<'a, str>,
    #[serde(borrow, rename = "eventTime")]
    event_time: Cow<'a, str>,
    #[serde(borrow, rename = "userIdentity")]
    identity: Identity<'a>,
    #[serde(borrow, rename = "eventSource")]
    source: Cow<'a, str>,
    #[serde(borrow, rename = "eventName")]
    name: Cow<'a, str>,
    #[serde(borrow, rename = "recipientAccountId")]
    account: Cow<'a, str>,
    #[serde(borrow)]
    resources: Vec<Resource<'a>>,
    #[serde(rename = "readOnly")]
    read_only: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Agent<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    class: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Identity<'a> {
    #[serde(borrow)]
    arn: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Resource<'a> {
    #[serde(borrow, rename = "ARN")]
    arn: Cow<'a, str>,
}

impl<'a> WorkEvent<'a> {
    /// Parses a record.
    ///
    /// # Errors
    ///
    /// It is not JSON, or has a field of another type, or no time.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let wire: Wire<'a> = sonic_rs::from_slice(bytes).map_err(|error| error.to_string())?;
        let ts = if wire.event_version.is_empty() { &wire.ts } else { &wire.event_time };
        let ts_ms = millis(ts).ok_or_else(|| format!("no time: `{ts}`"))?;
        Ok(if wire.event_version.is_empty() { wire.action(ts_ms) } else { wire.cloudtrail(ts_ms) })
    }
}

impl<'a> Wire<'a> {
    fn action(self, ts_ms: i64) -> WorkEvent<'a> {
        WorkEvent {
            id: self.id,
            agent: self.agent.id,
            class: self.agent.class,
            tool: self.tool,
            operation: Cow::Borrowed(""),
            place: self.environment,
            resource: self.resource,
            ts_ms,
            write: self.action != "read",
        }
    }

    /// The role is `agent-<class>`, and its session's name the agent.
    fn cloudtrail(self, ts_ms: i64) -> WorkEvent<'a> {
        let agent = part(&self.identity.arn, |arn| arn.rsplit('/').next());
        let class = part(&self.identity.arn, |arn| arn.rsplit('/').nth(1)?.strip_prefix("agent-"));
        WorkEvent {
            id: self.event_id,
            agent,
            class,
            tool: self.source,
            operation: self.name,
            place: self.account,
            resource: self.resources.into_iter().next().unwrap_or_default().arn,
            ts_ms,
            write: !self.read_only,
        }
    }
}

/// A part of a text, borrowed from where the text is.
fn part<'a>(text: &Cow<'a, str>, of: impl Fn(&str) -> Option<&str>) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(of(text).unwrap_or_default()),
        Cow::Owned(text) => Cow::Owned(of(text).unwrap_or_default().to_owned()),
    }
}

/// Milliseconds since 1970 of an RFC 3339 time in UTC.
fn millis(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (date, rest) = bytes.split_first_chunk::<19>()?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2] = date else {
        return None;
    };
    let fraction = match rest {
        [b'Z'] => 0,
        [b'.', a, b, c, .., b'Z'] => number(&[*a, *b, *c])?,
        _ => return None,
    };
    let (year, month, day) = (number(&[*y1, *y2, *y3, *y4])?, number(&[*m1, *m2])?, number(&[*d1, *d2])?);
    let (hour, minute, second) = (number(&[*h1, *h2])?, number(&[*n1, *n2])?, number(&[*s1, *s2])?);
    // Days from the first of March of the year 0, a year that ends with February.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60_000 + second * 1_000 + fraction)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}
