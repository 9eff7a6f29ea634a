//! Reading TOML entry by entry, so that one wrong entry does not hide the next one's errors.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{RuleFile, RulebookError};

/// One parsed TOML file, its sections taken out one after the other.
pub(super) struct TomlFile<'f> {
    file: &'f RuleFile,
    root: DeTable<'f>,
}

/// A section of single values, taken out one after the other.
pub(super) struct Section<'f> {
    file: &'f RuleFile,
    table: DeTable<'f>,
}

impl Section<'_> {
    /// Takes a value, where one is given that can be read.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &str, errors: &mut Vec<RulebookError>) -> Option<T> {
        let value = self.table.remove(key)?;
        let start = value.span().start;
        let said = |error: toml::de::Error| self.file.error(start, format!("`{key}`: {}", one_line(error.message())));
        T::deserialize(ValueDeserializer::from(value)).map_err(|error| errors.push(said(error))).ok()
    }

    /// Reports what nobody took.
    pub(super) fn finish(self, errors: &mut Vec<RulebookError>) {
        for key in self.table.keys() {
            errors.push(self.file.error(key.span().start, format!("unknown key `{}`", key.get_ref())));
        }
    }
}

/// An entry and where it stands in its file.
pub(super) struct Entry<T> {
    /// The entry's key, empty in a list.
    pub(super) name: String,
    pub(super) value: T,
    /// Byte range of the entry in its file.
    pub(super) span: Range<usize>,
}

impl<'f> TomlFile<'f> {
    /// Parses the file; syntax errors go to `errors`, and what could be read is kept.
    pub(super) fn parse(file: &'f RuleFile, errors: &mut Vec<RulebookError>) -> Self {
        let (root, found) = DeTable::parse_recoverable(&file.text);
        errors.extend(found.into_iter().map(|error| toml_error(file, &error)));
        Self { file, root: root.into_inner() }
    }

    /// Takes the entries of a section of named tables, `[section.name]`.
    pub(super) fn named<T: DeserializeOwned>(
        &mut self,
        section: &str,
        errors: &mut Vec<RulebookError>,
    ) -> Vec<Entry<T>> {
        let Some(section_value) = self.root.remove(section) else { return Vec::new() };
        let span = section_value.span();
        let DeValue::Table(table) = section_value.into_inner() else {
            errors.push(self.file.error(span.start, format!("`{section}` must be a table of named entries")));
            return Vec::new();
        };
        let mut entries = Vec::new();
        for (key, value) in table {
            let span = key.span();
            self.read_entry(key.into_inner().into_owned(), span, value, &mut entries, errors);
        }
        entries
    }

    /// Takes the entries of a section that is a list of tables, `[[section]]`.
    pub(super) fn list<T: DeserializeOwned>(
        &mut self,
        section: &str,
        errors: &mut Vec<RulebookError>,
    ) -> Vec<Entry<T>> {
        let Some(section_value) = self.root.remove(section) else { return Vec::new() };
        let span = section_value.span();
        let DeValue::Array(array) = section_value.into_inner() else {
            errors.push(self.file.error(span.start, format!("`{section}` must be a list: write `[[{section}]]`")));
            return Vec::new();
        };
        let mut entries = Vec::new();
        for value in array {
            let span = value.span();
            self.read_entry(String::new(), span, value, &mut entries, errors);
        }
        entries
    }

    /// Takes a section of single values, `[section]`; an empty one where there is none.
    pub(super) fn section(&mut self, section: &str, errors: &mut Vec<RulebookError>) -> Section<'f> {
        let value = self.root.remove(section).unwrap_or_else(|| Spanned::new(0..0, DeValue::Table(DeTable::new())));
        let start = value.span().start;
        let table = match value.into_inner() {
            DeValue::Table(table) => table,
            _ => {
                errors.push(self.file.error(start, format!("`{section}` must be a table: write `[{section}]`")));
                DeTable::new()
            }
        };
        Section { file: self.file, table }
    }

    /// Reads what is left at the top level as one value.
    pub(super) fn rest<T: DeserializeOwned>(self, errors: &mut Vec<RulebookError>) -> Option<T> {
        let whole = Spanned::new(0..0, DeValue::Table(self.root));
        T::deserialize(ValueDeserializer::from(whole)).map_err(|error| errors.push(toml_error(self.file, &error))).ok()
    }

    /// Reports what no section took.
    pub(super) fn finish(self, errors: &mut Vec<RulebookError>) {
        for key in self.root.keys() {
            let message = format!("unknown section `{}`", key.get_ref());
            errors.push(self.file.error(key.span().start, message));
        }
    }

    fn read_entry<T: DeserializeOwned>(
        &self,
        name: String,
        span: Range<usize>,
        value: Spanned<DeValue<'f>>,
        entries: &mut Vec<Entry<T>>,
        errors: &mut Vec<RulebookError>,
    ) {
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => entries.push(Entry { name, value, span }),
            Err(mut error) => {
                // An entry's missing field has no place of its own; the entry's does.
                let offset = error.span().filter(|at| !at.is_empty()).map_or(span.start, |at| at.start);
                error.set_input(None);
                errors.push(self.file.error(offset, one_line(error.message())));
            }
        }
    }
}

fn toml_error(file: &RuleFile, error: &toml::de::Error) -> RulebookError {
    file.error(error.span().map_or(0, |span| span.start), one_line(error.message()))
}

fn one_line(message: &str) -> String {
    message.lines().collect::<Vec<_>>().join("; ")
}
