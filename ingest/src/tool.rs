//! What the logs of tool calls have in common: a name, arguments, and hardly a word about what the call does.

use serde_json::Value;
use tautline_detectors::event::{Argument, Outcome, Resource, Verb};

use crate::audit::first_word;
use crate::wire::NAME_MAX;

/// The most arguments of a call that an event keeps.
const ARGUMENTS_MAX: usize = 64;

/// The most bytes of an argument's value that an event keeps.
const ARGUMENT_MAX: usize = 8_192;

/// First words of the names of tools that only look. A `query` may well be a `DELETE`.
const LOOKS: [&str; 16] = [
    "get", "list", "describe", "read", "search", "find", "show", "view", "fetch", "lookup", "watch", "grep", "glob",
    "ls", "cat", "logs",
];

/// First words of the names of tools that run what they are given.
const RUNS: [&str; 12] =
    ["bash", "shell", "sh", "zsh", "powershell", "exec", "execute", "run", "terminal", "python", "eval", "command"];

/// What a call of a tool does, by its name, where nothing else says so; the vocabulary may know better. What the name does
/// not tell is a change.
pub(crate) fn verb(tool: &str) -> Verb {
    let word = first_word(tool);
    match word.as_str() {
        word if LOOKS.contains(&word) => Verb::Read,
        word if RUNS.contains(&word) => Verb::Execute,
        _ => Verb::Write,
    }
}

/// The resource of a call that names none: the tool itself, behind the server that has it.
pub(crate) fn resource(server: &str, tool: &str) -> Resource {
    let id = if server.is_empty() { tool.to_owned() } else { format!("{server}/{tool}") };
    Resource { kind: "tool".to_owned(), id, ..Resource::default() }
}

/// The arguments of a call, the first [`ARGUMENTS_MAX`], their values cut at [`ARGUMENT_MAX`] bytes: an object's members,
/// also where it stands as JSON in a text. Anything else is one argument without a name of its own.
pub(crate) fn arguments(given: Value) -> Vec<Argument> {
    let given = match given {
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(object @ Value::Object(_)) => object,
            _ => Value::String(text),
        },
        other => other,
    };
    match given {
        Value::Null => Vec::new(),
        Value::Object(members) => {
            members.into_iter().take(ARGUMENTS_MAX).map(|(name, value)| argument(&name, value)).collect()
        }
        other => vec![argument("arguments", other)],
    }
}

fn argument(name: &str, value: Value) -> Argument {
    let value = match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Argument { name: cut(name, NAME_MAX).to_owned(), value: cut(&value, ARGUMENT_MAX).to_owned(), origin: None }
}

/// The front of a text, of at most so many bytes.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

/// How a call failed: refused, if that is what the kind of its error says.
pub(crate) fn failure(kind: &str) -> Outcome {
    const REFUSALS: [&str; 6] = ["denied", "forbidden", "unauthorized", "unauthorised", "permission", "not authorized"];
    let lower = kind.to_ascii_lowercase();
    if matches!(kind, "401" | "403") || REFUSALS.iter().any(|word| lower.contains(word)) {
        Outcome::Denied(kind.to_owned())
    } else {
        Outcome::Failed(kind.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_tells_what_a_tool_does_only_where_it_is_plain() {
        for (tool, expected) in [
            ("get_pods", Verb::Read),
            ("listBuckets", Verb::Read),
            ("Read", Verb::Read),
            ("WebFetch", Verb::Write),
            ("Bash", Verb::Execute),
            ("exec_command", Verb::Execute),
            ("query_database", Verb::Write),
            ("delete_list", Verb::Write),
            ("gets", Verb::Write),
            ("", Verb::Write),
        ] {
            assert_eq!(verb(tool), expected, "{tool}");
        }
    }

    #[test]
    fn arguments_are_the_members_of_what_is_given() {
        let named = |given| arguments(given).into_iter().map(|a| (a.name, a.value)).collect::<Vec<_>>();
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(named(json!({"a": "x", "b": [1, {}]})), pairs(&[("a", "x"), ("b", "[1,{}]")]));
        assert_eq!(named(json!(r#"{"a": true}"#)), pairs(&[("a", "true")]));
        assert_eq!(named(json!("ls -l")), pairs(&[("arguments", "ls -l")]));
        assert_eq!(named(json!(null)), []);
        let many: Value = (0..1_000).map(|n| (n.to_string(), json!("é".repeat(10_000)))).collect();
        let kept = arguments(many);
        assert!(kept.len() == ARGUMENTS_MAX && kept.iter().all(|argument| argument.value.len() == ARGUMENT_MAX));
    }

    #[test]
    fn a_refusal_is_told_from_a_failure() {
        assert_eq!(failure("403"), Outcome::Denied("403".to_owned()));
        assert_eq!(failure("PermissionError"), Outcome::Denied("PermissionError".to_owned()));
        assert_eq!(failure("timeout"), Outcome::Failed("timeout".to_owned()));
    }
}
