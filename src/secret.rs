//! Secrets of the configuration: named there, never written there, and never shown.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::de::{Deserialize, Deserializer, Error};
use toml::{Spanned, Value};

/// A secret. Whoever prints it prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// The secret itself, for whoever needs it to do their work.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Where a secret is: `{ env = "NAME" }`, or `{ file = "path" }`.
#[derive(Clone, Debug)]
pub struct SecretSource {
    holder: Holder,
    /// Where the configuration says so: a byte at first, `file:line` once that is known.
    offset: usize,
    place: String,
}

#[derive(Clone, Debug)]
enum Holder {
    Env(String),
    File(PathBuf),
}

/// Least bytes of a key.
const LEAST_KEY: usize = 16;

const NAMED: &str = "a secret is not written here but named: `{ env = \"NAME\" }` or `{ file = \"path\" }`";

impl<'de> Deserialize<'de> for SecretSource {
    /// An error must not quote what stands here: it may be the secret.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Spanned::<Value>::deserialize(deserializer).map_err(|_| D::Error::custom(NAMED))?;
        let offset = value.span().start;
        let Value::Table(table) = value.into_inner() else { return Err(D::Error::custom(NAMED)) };
        let mut members = table.into_iter();
        let holder = match (members.next(), members.next()) {
            (Some((key, Value::String(name))), None) if !name.is_empty() => match key.as_str() {
                "env" => Holder::Env(name),
                "file" => Holder::File(name.into()),
                _ => return Err(D::Error::custom(NAMED)),
            },
            _ => return Err(D::Error::custom(NAMED)),
        };
        Ok(Self { holder, offset, place: String::new() })
    }
}

impl SecretSource {
    /// Which byte of the configuration names it.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Notes where it is named, and what its path is relative to.
    pub(crate) fn locate(&mut self, place: String, base: &Path) {
        self.place = place;
        if let Holder::File(path) = &mut self.holder {
            *path = base.join(&*path);
        }
    }

    /// Reads the secret, anew each time: it may have been changed since. A line's end behind it is none of it.
    pub(crate) fn read(&self) -> Result<Secret> {
        let place = &self.place;
        let text = match &self.holder {
            Holder::Env(name) => {
                std::env::var(name).ok().with_context(|| format!("{place}: variable `{name}` is not set"))?
            }
            Holder::File(path) => {
                fs::read_to_string(path).with_context(|| format!("{place}: cannot read `{}`", path.display()))?
            }
        };
        let text = text.trim_end_matches(['\r', '\n']);
        ensure!(!text.is_empty(), "{place}: the secret is empty");
        Ok(Secret(text.to_owned()))
    }
    /// Reads a secret that is a key, which nobody may be able to try out.
    pub(crate) fn read_key(&self) -> Result<Vec<u8>> {
        let (place, key) = (&self.place, self.read()?.expose().as_bytes().to_vec());
        ensure!(
            key.len() >= LEAST_KEY,
            "{place}: a key of {} bytes is too short: give it {LEAST_KEY} or more",
            key.len()
        );
        Ok(key)
    }
}
