//! Any bytes into one decoder: what comes out is a rejection that says why, or an event that can be redacted and that the
//! log gives back.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use tautline_detectors::rulebook::Registry;
use tautline_ingest::log::LogRecord;
use tautline_ingest::redact::{Redactor, Settings};
use tautline_ingest::{AHEAD_MAX, BATCH_MAX, EARLIEST, Mapping, Reader};

/// Later than any event's time that is believed.
const RECEIVED: i64 = 4_000_000_000_000;

/// The decoder that `FUZZ_FORMAT` names: a format, or `mapping:` and the name of one of `examples/mappings.toml`.
static READER: LazyLock<Reader> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_FORMAT").expect("`FUZZ_FORMAT` names a format");
    let Some(mapping) = name.strip_prefix("mapping:") else {
        return Reader::Format(name.parse().unwrap_or_else(|error| panic!("{error}")));
    };
    let examples: toml::Table = include_str!("../../examples/mappings.toml").parse().expect("the examples are TOML");
    let all: Vec<Mapping> = examples["mappings"].clone().try_into().expect("the examples are mappings");
    let named = all.into_iter().find(|known| known.name == mapping);
    Reader::Mapping(Arc::new(named.unwrap_or_else(|| panic!("unknown mapping `{mapping}`"))))
});

/// With a name to look for, which is a way of its own.
static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| {
    let settings = Settings { names: vec!["Ann Øster".to_owned()], ..Settings::default() };
    Redactor::new(b"fuzz", settings).expect("one name can be looked for")
});

fuzz_target!(|bytes: &[u8]| {
    let decoded = READER.decode(bytes, RECEIVED);
    // What is more than a batch may have is one rejection.
    assert!((1..=BATCH_MAX + 1).contains(&decoded.len()), "{} results", decoded.len());
    for result in decoded {
        match result {
            Ok(mut event) => {
                assert!(!event.id.is_empty() && !event.digest.is_empty() && !event.action.is_empty());
                assert!((EARLIEST..=RECEIVED + AHEAD_MAX).contains(&event.at));
                REDACTOR.clone().redact(&mut event, &Registry::default());
                let logged = LogRecord::Event { event: Box::new(event), resolved_by: String::new() };
                let written = logged.to_bytes().expect("an event can be written");
                assert_eq!(LogRecord::from_bytes(&written).expect("and read"), logged);
            }
            Err(rejection) => assert!(!rejection.detail.is_empty()),
        }
    }
});
