//! What the decoders of audit logs have in common.

use std::borrow::Cow;

use tautline_detectors::event::Argument;

use crate::Rejection;
use crate::json::{self, Raw};
use crate::wire::{self, Members, Scalar, Text};

/// The most arguments that an event keeps.
const ARGUMENTS_MAX: usize = 32;

/// The most bytes of an argument's value that an event keeps.
const ARGUMENT_MAX: usize = 1_024;

/// The most members that an object with free names may have.
pub(crate) const MEMBERS_MAX: usize = 4_096;

/// The most entries that a list inside of a record may have.
pub(crate) const ENTRIES_MAX: usize = 4_096;

/// The members of an object with free names, not looked into yet.
pub(crate) type Parameters<'a> = Members<'a, Raw<'a>, MEMBERS_MAX>;

/// A request's members as arguments: the first [`ARGUMENTS_MAX`], their values cut at [`ARGUMENT_MAX`] bytes. What is no
/// object has none.
pub(crate) fn arguments(request: Option<&Raw<'_>>, path: &str) -> Result<Vec<Argument>, Rejection> {
    let Some(request) = request.filter(|raw| raw.get().starts_with('{')) else {
        return Ok(Vec::new());
    };
    let members: Parameters<'_> = parsed(request, path)?;
    let named = members.0.into_iter().filter(|(name, _)| name != "@type");
    named.take(ARGUMENTS_MAX).map(|(name, value)| argument(name, &value, path)).collect()
}

fn argument(name: Cow<'_, str>, value: &Raw<'_>, path: &str) -> Result<Argument, Rejection> {
    let value = wire::value_text(value, || path.to_owned())?;
    Ok(text_argument(&name, &value))
}

/// One argument, its value cut short.
pub(crate) fn text_argument(name: &str, value: &str) -> Argument {
    let end = value.floor_char_boundary(ARGUMENT_MAX);
    Argument { name: name.to_owned(), value: value.get(..end).unwrap_or_default().to_owned(), origin: None }
}

/// Parses a part that was kept raw.
pub(crate) fn parsed<'a, T: serde::Deserialize<'a>>(raw: &'a Raw<'_>, path: &str) -> Result<T, Rejection> {
    json::parse(raw.get()).map_err(|error| wire::rejection(&error, raw.get(), path))
}

/// The text of a value that is one, and no longer than a name; empty for any other.
pub(crate) fn name(value: Option<&Raw<'_>>) -> String {
    let text = value.and_then(|raw| json::parse::<Text<'_>>(raw.get()).ok());
    wire::text(text)
}

/// The first of these texts that says something.
pub(crate) fn first<const N: usize>(texts: [Option<&str>; N]) -> String {
    texts.into_iter().flatten().find(|text| !text.is_empty()).unwrap_or_default().to_owned()
}

/// The text of a value that is a string, a number or a truth value, and no longer than a name; empty for any other.
pub(crate) fn scalar(value: Option<&Raw<'_>>) -> String {
    let scalar = value.filter(|raw| raw.get() != "null").and_then(|raw| json::parse::<Scalar<'_>>(raw.get()).ok());
    wire::scalar(scalar.as_ref())
}

/// The words of a name in camel or snake case, in lower case: `list`, `iam` and `roles` of `ListIAMRoles`.
pub(crate) fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = name.chars().peekable();
    let mut before = '_';
    while let Some(c) = chars.next() {
        let ends_capitals = before.is_ascii_uppercase() && chars.peek().is_some_and(char::is_ascii_lowercase);
        let is_start = c.is_ascii_uppercase() && (before.is_ascii_lowercase() || ends_capitals);
        match words.last_mut() {
            Some(word) if c.is_ascii_alphabetic() && !is_start => word.push(c.to_ascii_lowercase()),
            _ if c.is_ascii_alphabetic() => words.push(c.to_ascii_lowercase().to_string()),
            _ => words.push(String::new()),
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The first word of a name: `list` of `listKeys`.
pub(crate) fn first_word(name: &str) -> String {
    words(name).into_iter().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_falls_into_words_at_capitals_and_at_what_is_no_letter() {
        for (name, expected) in [
            ("SecretListVersions", "secret list versions"),
            ("_list_keys2", "list keys"),
            ("SetIAMPolicy", "set iam policy"),
            ("dns.managedZones.get", "dns managed zones get"),
            ("GET", "get"),
            ("", ""),
        ] {
            assert_eq!(words(name).join(" "), expected);
        }
        assert_eq!(first_word("listKeys"), "list");
    }
}
