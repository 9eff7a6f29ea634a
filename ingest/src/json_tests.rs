#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

#[derive(serde::Deserialize, Debug, PartialEq)]
struct Doc<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    number: Option<i64>,
}

const SAMPLES: [&str; 6] = [
    r#"{"text":"a\u00e9\ud83d\ude00\n\\\"","number":-12,"x":{"y":[1.5e-3,-0.25E+7,0,true,false,null,"\u0041b"]}}"#,
    r#" { "a" : [ { } , [ ] , "" ] , "text" : null , "number" : 9223372036854775807 } "#,
    r#"{"a":"0123456789012345678901234567890123456789\t","b":[12345678901234567890123456789012345678901.25]}"#,
    r#"{"policy":"{\"Statement\":[{\"Effect\":\"Allow\",\"Principal\":\"*\"}]}","text":"\u003cb\u003e"}"#,
    r#"[1,2,[3,[4,[5]]],{"k":{"k":{"k":"v"}}}]"#,
    r#""just \u00fc text""#,
];

/// What the fast parser takes, `serde_json` takes too, for the same; and of valid JSON it leaves nothing.
fn check(json: &str) {
    if let Some(raw) = fast::<Raw<'_>>(json) {
        assert_eq!(raw.get(), serde_json::from_str::<&RawValue>(json).unwrap().get(), "{json}");
        if let Some(Ok(text)) = raw.string() {
            assert_eq!(text, serde_json::from_str::<String>(json).unwrap(), "{json}");
        }
    }
    if fast::<IgnoredAny>(json).is_some() {
        serde_json::from_str::<IgnoredAny>(json).unwrap();
    }
    if let Some(doc) = fast::<Doc<'_>>(json) {
        assert_eq!(doc, serde_json::from_str(json).unwrap(), "{json}");
    }
    if serde_json::from_str::<serde_json::Value>(json).is_ok() {
        assert!(fast::<IgnoredAny>(json).is_some() && fast::<Raw<'_>>(json).is_some(), "{json}");
    }
}

#[test]
fn what_the_fast_parser_would_take_and_should_not_is_refused() {
    for json in [
        r#""\u""#,
        r#"["\u"]}]"#,
        r#"{"a":"\u12"}"#,
        r#"{"a":"\uzzzz"}"#,
        r#"{"a":"\u00","b":"c"}"#,
        r#"{"a":"\x"}"#,
        "{\"a\":\"\u{1}\"}",
        r#"{"a":01}"#,
        r#"{"a":-}"#,
        r#"{"a":1.}"#,
        r#"{"a":.5}"#,
        r#"{"a":1e}"#,
        r#"{"a":1,}"#,
        r#"{"a":[1,]}"#,
        r#"{"a":nul}"#,
        r#"{"a":NaN}"#,
        r#"{"a":1} x"#,
        r#"{a:1}"#,
        r#"{'a':1}"#,
        "{\"a\":1}\u{0}",
        "\u{feff}{}",
        "",
    ] {
        assert!(parse::<Raw<'_>>(json).is_err() && parse::<IgnoredAny>(json).is_err(), "{json}");
    }
}

#[test]
fn lone_halves_of_surrogates_are_no_text() {
    for json in [r#""\ud800""#, r#""\udc00""#, r#""\ud800\u0041""#, r#""\ud800x""#] {
        assert!(parse::<Raw<'_>>(json).unwrap().string().unwrap().is_err(), "{json}");
    }
}

#[test]
fn depth_is_no_matter() {
    for depth in [1, 30, 31, 32, 33, 1_000, 1_000_000] {
        let json = format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse::<IgnoredAny>(&json).is_ok() && parse::<Raw<'_>>(&json).is_ok(), "{depth}");
        assert!(parse::<IgnoredAny>(&json.replace("]}", "}")).is_err(), "{depth}");
    }
}

#[test]
fn many_containers_side_by_side_are_not_deep() {
    for json in [format!("[{}[]]", "[{}],".repeat(1_000)), format!("[{}1]", r#""[[\"[{{","\\","#.repeat(100))] {
        assert!(fast::<IgnoredAny>(&json).is_some() && serde_json::from_str::<IgnoredAny>(&json).is_ok());
    }
}

#[test]
fn a_raw_value_is_what_stands_there() {
    for json in ["  1.50 ", "\"a\\tb\"", "[ 1 , 2 ]", "null", "-0", "1e999"] {
        assert_eq!(fast::<Raw<'_>>(json).unwrap().get(), json.trim());
        assert_eq!(serde_json::from_str::<Raw<'_>>(json).unwrap().get(), json.trim());
    }
}

#[test]
fn samples_agree() {
    SAMPLES.into_iter().for_each(check);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn both_parsers_take_the_same(
        which in 0..SAMPLES.len(),
        edits in proptest::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(br#"{}[]",:\u0e.-+tfn x"#.as_slice())),
            0..4,
        ),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut json = SAMPLES[which].as_bytes().to_vec();
        for (at, byte) in edits {
            let at = at.index(json.len());
            json[at] = byte;
        }
        if let Some(cut) = cut {
            json.truncate(cut.index(json.len()));
        }
        check(&String::from_utf8_lossy(&json));
    }
}
