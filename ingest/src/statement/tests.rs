#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice)]

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use tautline_detectors::event::{AgentRef, Event, Source};

use super::STATEMENT_MAX;
use crate::{Format, Reason, Rejection, decode};

const RECEIVED: i64 = 1_800_000_000_000;
const CLAIMS: &str = r#"{"iss":"https://i","jti":"s-1","sub":"ana@example.com","agent":"bot","iat":1777971000,
    "exp":1777974600,"signal":{"name":"Errors","resource":"db-1"}}"#;

fn one(text: &str, format: Format) -> Result<Event, Rejection> {
    decode(text.as_bytes(), format, RECEIVED).remove(0)
}

fn compact(claims: &str) -> String {
    format!("{}.{}.{}", BASE64.encode(r#"{"alg":"EdDSA","kid":"k"}"#), BASE64.encode(claims), BASE64.encode("x"))
}

fn general(claims: &str) -> String {
    let header = BASE64.encode(r#"{"alg":"EdDSA","kid":"k"}"#);
    format!(r#"{{"payload":"{}","signatures":[{{"protected":"{header}","signature":"eA"}}]}}"#, BASE64.encode(claims))
}

#[test]
fn every_form_is_one_event_and_kept_whole() {
    for text in [CLAIMS.to_owned(), compact(CLAIMS), general(CLAIMS)] {
        for format in [Format::Auto, Format::Statement] {
            let event = one(&text, format).unwrap();
            assert_eq!(
                (event.source, event.at, event.action.as_str()),
                (Source::Statement, 1_777_971_000_000, "signal")
            );
            assert_eq!(
                (event.principal.id.as_str(), event.principal.claimed_agent.as_str()),
                ("ana@example.com", "bot")
            );
            assert_eq!((event.resource.id.as_str(), event.agent.clone()), ("db-1", AgentRef::Unknown));
            assert_eq!(event.statement.as_deref(), Some(text.as_str()));
            assert!(event.id.starts_with("https://i/s-1/"), "{}", event.id);
        }
    }
}

#[test]
fn what_is_no_statement_is_refused_with_its_reason() {
    let long = CLAIMS.replace("Errors", &"E".repeat(STATEMENT_MAX));
    let cases = [
        ("eyJ", Reason::InvalidValue),
        ("eyJhbGciOiJub25lIn0.e30.", Reason::InvalidValue),
        (r#"{"iss":"i","jti":"j"}"#, Reason::InvalidValue),
        (r#"{"payload":"e30","signatures":[]}"#, Reason::InvalidValue),
        (long.as_str(), Reason::TooLarge),
    ];
    for (text, reason) in cases {
        assert_eq!(one(text, Format::Statement).unwrap_err().reason, reason, "{}", &text[..text.len().min(60)]);
    }
    let late = CLAIMS.replace("1777971000", "1999999999");
    assert_eq!(one(&late, Format::Auto).unwrap_err().reason, Reason::ImplausibleTime);
}
