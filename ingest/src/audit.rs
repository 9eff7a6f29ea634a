//! What the decoders of audit logs have in common.

use std::borrow::Cow;

use tautline_detectors::event::Argument;

use crate::Rejection;
use crate::json::{self, Raw};
use crate::wire::{self, Members, Text};

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

/// The first word of a name in camel or snake case, in lower case: `list` of `listKeys`.
pub(crate) fn first_word(name: &str) -> String {
    let name = name.trim_start_matches('_');
    let end = name.char_indices().skip(1).find(|(_, c)| !c.is_ascii_lowercase()).map_or(name.len(), |(at, _)| at);
    name.get(..end).unwrap_or_default().to_ascii_lowercase()
}
