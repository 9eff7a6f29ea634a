//! Any bytes into one decoder: what comes out is a rejection that says why, or an event that the log gives back.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tautline_ingest::log::LogRecord;
use tautline_ingest::{AHEAD_MAX, BATCH_MAX, EARLIEST, Format, decode};

/// Later than any event's time that is believed.
const RECEIVED: i64 = 4_000_000_000_000;

/// The decoder that `FUZZ_FORMAT` names.
static FORMAT: LazyLock<Format> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_FORMAT").expect("`FUZZ_FORMAT` names a format");
    name.parse().unwrap_or_else(|error| panic!("{error}"))
});

fuzz_target!(|bytes: &[u8]| {
    let decoded = decode(bytes, *FORMAT, RECEIVED);
    assert!((1..=BATCH_MAX).contains(&decoded.len()), "{} results", decoded.len());
    for result in decoded {
        match result {
            Ok(event) => {
                assert!(!event.id.is_empty() && !event.digest.is_empty() && !event.action.is_empty());
                assert!((EARLIEST..=RECEIVED + AHEAD_MAX).contains(&event.at));
                let logged = LogRecord::Event { event: Box::new(event), resolved_by: String::new() };
                let written = logged.to_bytes().expect("an event can be written");
                assert_eq!(LogRecord::from_bytes(&written).expect("and read"), logged);
            }
            Err(rejection) => assert!(!rejection.detail.is_empty()),
        }
    }
});
