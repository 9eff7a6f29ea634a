#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::Comparison;
use crate::statement::Approval;
use crate::testing::{argument, book, change};

const OPERATIONS: &str = r#"
ignored = ["clientToken"]
[operations."ec2:TerminateInstances"]
fields = { InstanceIds = "instancesSet.items.*.instanceId" }
defaults = { Force = false }
ignored = ["note"]
"#;

fn compare(approved: &Value, executed: &[(&str, &str)]) -> Comparison {
    let book = book(&[("approvals/operations.toml", OPERATIONS)]);
    let mut event = change(1, "ec2:TerminateInstances", "2026-03-02T08:00:00Z");
    event.arguments = executed.iter().map(|(name, value)| argument(name, value)).collect();
    let parameters = approved.as_object().unwrap().clone();
    let approval: Approval =
        serde_json::from_value(json!({ "requester": "", "operation": "", "digest": "", "parameters": parameters }))
            .unwrap();
    book.operations.compare(&approval, &event)
}

const TWO: (&str, &str) = ("instancesSet", r#"{"items":[{"instanceId":"i-1"},{"instanceId":"i-2"}]}"#);

#[test]
fn names_defaults_and_orders_are_the_logs_own() {
    let approved = json!({ "InstanceIds": ["i-2", "i-1"], "Force": false });
    for executed in [&[TWO][..], &[TWO, ("force", "false")], &[TWO, ("clientToken", "x"), ("note", "y"), ("z", "null")]]
    {
        assert_eq!(compare(&approved, executed), Comparison::default(), "{executed:?}");
    }
    let approved = json!({ "InstanceIds": ["i-1", "i-2"] });
    assert_eq!(compare(&approved, &[TWO, ("Force", "false")]), Comparison::default(), "a default that is logged");
}

#[test]
fn one_changed_field_is_a_change() {
    let approved = json!({ "InstanceIds": ["i-1", "i-2"] });
    for (executed, field) in [
        (&[("instancesSet", r#"{"items":[{"instanceId":"i-1"},{"instanceId":"i-3"}]}"#)][..], "InstanceIds"),
        (&[("instancesSet", r#"{"items":[{"instanceId":"i-1"}]}"#)], "InstanceIds"),
        (&[TWO, ("force", "true")], "force"),
        (&[TWO, ("dryness", "7")], "dryness"),
    ] {
        assert_eq!(compare(&approved, executed).changed, [field], "{executed:?}");
    }
}

#[test]
fn what_the_log_hides_is_neither_equal_nor_changed() {
    let long = format!("{{\"items\":[{}", "x".repeat(1_100));
    for executed in
        [&[][..], &[("instancesSet", "***")], &[("instancesSet", "[redacted:key:00]")], &[("instancesSet", &long)]]
    {
        let found = compare(&json!({ "InstanceIds": ["i-1"] }), executed);
        assert_eq!((found.changed.len(), found.unverifiable), (0, vec!["InstanceIds".to_owned()]), "{executed:?}");
    }
}

#[test]
fn what_only_looks_hidden_is_a_change() {
    let padded = format!("evil:1{}", " ".repeat(1_100));
    let (long, cut) = ("x".repeat(2_000), "x".repeat(1_024));
    for (approved, executed, is_changed) in [
        (json!("checkout:7"), "evil:1***", true),
        (json!("checkout:7"), "HIDDEN_DUE_TO_SECURITY_REASONS or not", true),
        (json!("checkout:7"), padded.as_str(), true),
        (json!("checkout:7"), "evil:[redacted:key:00]", true),
        (json!("checkout:7"), "check[redacted:key:00]:8", true),
        (json!("checkout:7"), "check[redacted:key:00]:7", false),
        (json!("checkout:7"), "[redacted:key:00]", false),
        (json!("checkout:7"), "HIDDEN_DUE_TO_SECURITY_REASONS", false),
        (json!("checkout:7"), "****", false),
        (json!(long), cut.as_str(), false),
        (json!(true), "evil***", true),
        (json!(true), "[redacted:key:00]", false),
        (json!(["a", "b"]), r#"["a","[redacted:key:00]"]"#, false),
        (json!(["a", "b"]), r#"["evil","[redacted:key:00]"]"#, true),
        (json!(["a", "b"]), r#"["a","a"]"#, true),
        (json!({ "a": 1, "b": "x" }), r#"{"A":1,"b":"***"}"#, false),
        (json!({ "a": 1, "b": "x" }), r#"{"a":2,"b":"***"}"#, true),
    ] {
        let found = compare(&json!({ "InstanceIds": ["i-1", "i-2"], "image": approved }), &[TWO, ("image", executed)]);
        let (changed, unverifiable) = if is_changed { (1, 0) } else { (0, 1) };
        assert_eq!((found.changed.len(), found.unverifiable.len()), (changed, unverifiable), "{executed}");
    }
}
