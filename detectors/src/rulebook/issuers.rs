//! Whom to believe: issuers of statements, what each may say, and their keys.

use std::collections::BTreeMap;

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use toml::Spanned;

use super::people::People;
use super::registry::parse_duration;
use super::toml_file::{Entry, TomlFile};
use super::{RuleFile, RulebookError};
use crate::event::Millis;
use crate::glob::{self, Glob};
use crate::statement::{Distrust, KINDS, Says, Signature, TYPE, Token};

/// The file's logical name.
const FILE: &str = "registry/issuers.toml";

/// How long a statement may hold where the issuer's entry says nothing.
const LONGEST: Millis = 24 * 3_600_000;

/// How often a key set at a URL is fetched anew where the issuer's entry says nothing.
const REFRESH: Millis = 10 * 60_000;

/// The least of that, so that no issuer is asked without end.
const LEAST_REFRESH: Millis = 60_000;

/// Who may say what, by the issuers' names in their claims (`iss`).
#[derive(Clone, Debug, Default)]
pub struct Issuers {
    by_iss: BTreeMap<String, Issuer>,
}

/// One issuer.
#[derive(Clone, Debug)]
struct Issuer {
    says: Vec<String>,
    /// Persons that it signs in, besides those of `people.toml`.
    persons: Vec<Glob>,
    longest: Millis,
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: String,
    algorithm: Algorithm,
    key: DecodingKey,
    /// The person who holds it, where it is a person's own.
    holder: Option<String>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?}, {:?})", self.id, self.algorithm)
    }
}

/// An issuer as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIssuer {
    iss: String,
    says: Spanned<Vec<String>>,
    /// Name of the file with its keys, in `issuers/` beside `issuers.toml`.
    keys: Option<Spanned<String>>,
    /// Where the issuer keeps its keys, instead.
    jwks: Option<Spanned<String>>,
    /// How often they are fetched from there.
    refresh: Option<Spanned<String>>,
    #[serde(default)]
    persons: Vec<Glob>,
    longest: Option<Spanned<String>>,
    /// Persons who hold keys of their own, by key id.
    #[serde(default)]
    holders: BTreeMap<String, Spanned<String>>,
}

/// A key set that its issuer keeps at a URL. What is fetched from there is a file of the rulebook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteKeys {
    /// The file's logical name: `registry/issuers/<issuer>.json`.
    pub name: String,
    /// Where it is fetched from, as written.
    pub url: String,
    /// How often it is fetched anew, in milliseconds.
    pub refresh: Millis,
    /// Where the configuration says so.
    path: String,
    line: usize,
}

impl RemoteKeys {
    /// The file that a fetched text becomes.
    pub fn file(&self, text: String) -> RuleFile {
        RuleFile { name: self.name.clone(), path: self.url.clone(), text }
    }

    /// An error of where the URL is written.
    pub fn error(&self, message: String) -> RulebookError {
        RulebookError { path: self.path.clone(), line: self.line, message }
    }
}

/// The logical name of the file with the keys of an issuer that keeps them at a URL.
fn remote_name(issuer: &str) -> String {
    format!("registry/issuers/{issuer}.json")
}

/// Who stands behind a statement that is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers {
    /// Persons whose own keys signed it.
    pub holders: Vec<String>,
    /// Whether its subject is a person who was signed in by the issuer.
    pub is_signed_in: bool,
}

impl Issuers {
    /// Whether a statement is to be believed, and who stands behind it.
    ///
    /// All of its signatures must be those of keys of its issuer.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub fn verify(&self, token: &Token) -> Result<Signers, Distrust> {
        let claims = &token.claims;
        if token.signatures.is_empty() {
            return Err(Distrust::Unsigned);
        }
        let issuer = self.by_iss.get(&claims.iss).ok_or(Distrust::UnknownIssuer)?;
        let mut holders = Vec::new();
        for signature in &token.signatures {
            holders.extend(issuer.key_of(signature)?.holder.clone());
        }
        holders.sort();
        holders.dedup();
        if !issuer.says.iter().any(|kind| kind == claims.says.name()) {
            return Err(Distrust::NotEntitled);
        }
        let lasts = claims.until().saturating_sub(claims.at());
        if lasts <= 0 || lasts > issuer.longest {
            return Err(Distrust::Lifetime);
        }
        if let Says::Approval(approval) = &claims.says
            && approval.digest != approval.digest()
        {
            return Err(Distrust::Digest);
        }
        Ok(Signers { holders, is_signed_in: glob::any(&issuer.persons, &claims.sub) })
    }

    /// The key sets that must be fetched before a rulebook of these files can be read. What is wrong with the entries is said
    /// when it is.
    pub fn remote(files: &[RuleFile]) -> Vec<RemoteKeys> {
        let Some(file) = files.iter().find(|file| file.name == FILE) else { return Vec::new() };
        let entries = TomlFile::parse(file, &mut Vec::new()).named::<RawIssuer>("issuers", &mut Vec::new());
        let remote = |entry: Entry<RawIssuer>| {
            let url = entry.value.jwks?;
            let refresh = entry.value.refresh.and_then(|text| parse_duration(text.get_ref()).ok());
            Some(RemoteKeys {
                name: remote_name(&entry.name),
                refresh: refresh.unwrap_or(REFRESH).max(LEAST_REFRESH),
                path: file.path.clone(),
                line: file.line(url.span().start),
                url: url.into_inner(),
            })
        };
        entries.into_iter().filter_map(remote).collect()
    }

    /// Reads `issuers.toml` and the key sets beside it.
    pub(super) fn read(files: &[&RuleFile], people: &People, errors: &mut Vec<RulebookError>) -> Self {
        let mut by_iss = BTreeMap::new();
        let Some(file) = files.iter().find(|file| file.name == FILE) else {
            return Self::default();
        };
        let mut toml = TomlFile::parse(file, errors);
        let reader = Reader { file, files, people };
        for entry in toml.named::<RawIssuer>("issuers", errors) {
            let (start, iss) = (entry.span.start, entry.value.iss.clone());
            if by_iss.insert(iss.clone(), reader.issuer(entry, errors)).is_some() {
                errors.push(file.error(start, format!("issuer `{iss}` is written twice")));
            }
        }
        toml.finish(errors);
        Self { by_iss }
    }
}

impl Issuer {
    fn key_of(&self, signature: &Signature) -> Result<&Key, Distrust> {
        let Signature { signed, signature, header } = signature;
        if header.crit.is_some() || header.typ != TYPE {
            return Err(Distrust::WrongType);
        }
        let fits = |key: &&Key| key.id == header.kid && name_of(key.algorithm) == Some(&header.alg);
        let key = self.keys.iter().find(fits).ok_or(Distrust::UnknownKey)?;
        match crypto::verify(signature, signed.as_bytes(), &key.key, key.algorithm) {
            Ok(true) => Ok(key),
            _ => Err(Distrust::BadSignature),
        }
    }
}

/// The algorithms that are believed: those with a public key, so that who can check cannot sign.
fn name_of(algorithm: Algorithm) -> Option<&'static str> {
    Some(match algorithm {
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        Algorithm::EdDSA => "EdDSA",
        Algorithm::RS256 => "RS256",
        Algorithm::PS256 => "PS256",
        _ => return None,
    })
}

struct Reader<'r> {
    file: &'r RuleFile,
    files: &'r [&'r RuleFile],
    people: &'r People,
}

impl Reader<'_> {
    fn issuer(&self, entry: Entry<RawIssuer>, errors: &mut Vec<RulebookError>) -> Issuer {
        let raw = entry.value;
        let mut fault = |offset: usize, message: String| errors.push(self.file.error(offset, message));
        for kind in raw.says.get_ref().iter().filter(|kind| !KINDS.contains(&kind.as_str())) {
            fault(raw.says.span().start, format!("`{kind}` is nothing that can be said: write {}", KINDS.join(", ")));
        }
        for person in raw.holders.values().filter(|person| !self.people.contains(person.get_ref())) {
            fault(person.span().start, format!("holder `{}` is not in people.toml", person.get_ref()));
        }
        let longest = raw.longest.as_ref().map(|text| parse_duration(text.get_ref()).map_err(|error| (text, error)));
        if let Some(Err((text, error))) = &longest {
            fault(text.span().start, error.clone());
        }
        if let Some(text) = &raw.refresh
            && let Some(message) = refresh_fault(text.get_ref(), raw.jwks.is_some())
        {
            fault(text.span().start, message);
        }
        let keys = match self.key_set(&entry.name, &raw, entry.span.start) {
            Ok(set) => keys(set, &raw.holders, errors),
            Err(error) => {
                errors.push(error);
                Vec::new()
            }
        };
        Issuer {
            says: raw.says.into_inner(),
            persons: raw.persons,
            longest: longest.and_then(Result::ok).unwrap_or(LONGEST),
            keys,
        }
    }

    /// The file with an issuer's keys.
    fn key_set(&self, issuer: &str, raw: &RawIssuer, start: usize) -> Result<&RuleFile, RulebookError> {
        let (offset, name, message) = match (&raw.keys, &raw.jwks) {
            (Some(keys), None) => {
                let name = keys.get_ref();
                let message = format!("no key set `issuers/{name}`: write the file beside issuers.toml");
                (keys.span().start, format!("registry/issuers/{name}"), message)
            }
            (None, Some(url)) => {
                let message = format!("the keys at `{}` are not there", url.get_ref());
                (url.span().start, remote_name(issuer), message)
            }
            _ => {
                let message = format!("issuer `{issuer}` needs either `keys`, a file, or `jwks`, a URL");
                return Err(self.file.error(start, message));
            }
        };
        self.files.iter().find(|file| file.name == name).copied().ok_or_else(|| self.file.error(offset, message))
    }
}

/// What is wrong with how often keys are to be fetched.
fn refresh_fault(text: &str, is_remote: bool) -> Option<String> {
    match parse_duration(text) {
        _ if !is_remote => Some("`refresh` is for keys at a URL: write `jwks`, or leave it out".to_owned()),
        Err(error) => Some(error),
        Ok(refresh) if refresh < LEAST_REFRESH => Some(format!("`refresh` is `{text}`: make it at least `1m`")),
        Ok(_) => None,
    }
}

/// The keys of a JSON Web Key Set (RFC 7517) that can verify. One without id is of no use.
fn keys(file: &RuleFile, holders: &BTreeMap<String, Spanned<String>>, errors: &mut Vec<RulebookError>) -> Vec<Key> {
    let set: JwkSet = match serde_json::from_str(&file.text) {
        Ok(set) => set,
        Err(error) => {
            let message = format!("is no JSON Web Key Set (RFC 7517): {error}");
            errors.push(RulebookError { path: file.path.clone(), line: error.line().max(1), message });
            return Vec::new();
        }
    };
    let keys: Vec<Key> = set.keys.iter().filter_map(|jwk| key(jwk, holders)).collect();
    if keys.is_empty() {
        let message =
            "has no key that can be used: each needs a `kid` and an `alg` of ES256, ES384, EdDSA, RS256, PS256";
        errors.push(file.error(0, message));
    }
    keys
}

fn key(jwk: &Jwk, holders: &BTreeMap<String, Spanned<String>>) -> Option<Key> {
    let id = jwk.common.key_id.clone()?;
    let algorithm: Algorithm = jwk.common.key_algorithm?.to_string().parse().ok()?;
    name_of(algorithm)?;
    let holder = holders.get(&id).map(|person| person.get_ref().clone());
    Some(Key { key: DecodingKey::from_jwk(jwk).ok()?, algorithm, holder, id })
}

#[cfg(test)]
mod tests;
