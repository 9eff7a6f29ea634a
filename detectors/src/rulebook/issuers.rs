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

/// How long a statement may hold where the issuer's entry says nothing.
const LONGEST: Millis = 24 * 3_600_000;

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
    keys: Spanned<String>,
    #[serde(default)]
    persons: Vec<Glob>,
    longest: Option<Spanned<String>>,
    /// Persons who hold keys of their own, by key id.
    #[serde(default)]
    holders: BTreeMap<String, Spanned<String>>,
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

    /// Reads `issuers.toml` and the key sets beside it.
    pub(super) fn read(files: &[&RuleFile], people: &People, errors: &mut Vec<RulebookError>) -> Self {
        let mut by_iss = BTreeMap::new();
        let Some(file) = files.iter().find(|file| file.name == "registry/issuers.toml") else {
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
        let (offset, name) = (raw.keys.span().start, raw.keys.get_ref());
        let set = self.files.iter().find(|file| file.name == format!("registry/issuers/{name}"));
        let keys = match set {
            None => {
                fault(offset, format!("no key set `issuers/{name}`: write the file beside issuers.toml"));
                Vec::new()
            }
            Some(set) => keys(set, &raw.holders, errors),
        };
        Issuer {
            says: raw.says.into_inner(),
            persons: raw.persons,
            longest: longest.and_then(Result::ok).unwrap_or(LONGEST),
            keys,
        }
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
