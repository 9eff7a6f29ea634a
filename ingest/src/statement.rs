//! Statements of issuers: signed approvals, overrides, signals and verdicts, as compact JWS or its general JSON form.
//!
//! Decoding believes nothing: the engine holds the signatures against the keys of the rulebook in force, and for that the
//! statement stays whole in the event.

use std::borrow::Cow;

use tautline_detectors::event::{Event, Principal, Resource, Source, Verb};
use tautline_detectors::statement::{Says, Token};

use crate::format::{Format, Opened, Top, Wire};
use crate::{Reason, Rejection};

/// The most bytes that a statement may have.
const STATEMENT_MAX: usize = 64 * 1_024;

pub(crate) const WIRE: Wire = Wire {
    format: Format::Statement,
    name: "statement",
    tells: &["payload", "signatures", "iss", "jti"],
    looks,
    open: |text| Ok(Opened::One(Cow::Borrowed(text))),
    decode,
    sole: |_| None,
};

fn looks(top: &Top<'_>) -> bool {
    (top.has("payload") && top.has("signatures")) || (top.has("iss") && top.has("jti"))
}

/// Whether a text can only be a compact JWS: its header is an object in base64url.
pub(crate) fn is_compact(text: &str) -> bool {
    text.starts_with("eyJ")
}

fn decode(text: &str) -> Result<Event, Rejection> {
    if text.len() > STATEMENT_MAX {
        let detail = format!("the statement has {} bytes, more than {STATEMENT_MAX}", text.len());
        return Err(Rejection::new(Reason::TooLarge, detail));
    }
    let claims = Token::read(text).map_err(|message| Rejection::new(Reason::InvalidValue, message))?.claims;
    let resource = match &claims.says {
        Says::Approval(approval) => approval.resource.clone(),
        Says::Signal(signal) => signal.resource.clone(),
        _ => String::new(),
    };
    Ok(Event {
        id: format!("{}/{}", claims.iss, claims.jti),
        source: Source::Statement,
        at: claims.at(),
        action: claims.says.name().to_owned(),
        verb: Verb::Read,
        resource: Resource { id: resource, ..Resource::default() },
        principal: Principal { id: claims.sub, claimed_agent: claims.agent, ..Principal::default() },
        statement: Some(text.trim().to_owned()),
        ..Event::default()
    })
}

#[cfg(test)]
mod tests;
