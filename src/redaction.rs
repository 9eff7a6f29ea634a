//! The redactor that the configuration asks for, and the keys of what is kept from others.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use tautline_ingest::redact::{Redactor, Settings};

use crate::config::{Config, Redaction};

/// Name of the key that is made in the rulebook store where none is configured.
const KEY_FILE: &str = "redaction.key";

/// The redactor of a live run. A key that is not given is made and kept beside the rulebooks, which the processes of a
/// group share: equal secrets have equal hashes, whoever saw them and whenever.
pub(crate) fn live(config: &Config) -> Result<Redactor> {
    let store = &config.rulebook.store;
    fs::create_dir_all(store).with_context(|| format!("cannot create `{}`", store.display()))?;
    redactor(&config.redaction, || kept_key(&store.join(KEY_FILE)))
}

/// The redactor of a look at files, which leaves nothing behind: where there is no key, one that nobody keeps.
pub(crate) fn passing(config: &Config) -> Result<Redactor> {
    let path = config.rulebook.store.join(KEY_FILE);
    redactor(&config.redaction, || if path.exists() { kept_key(&path) } else { Ok(random()?.to_vec()) })
}

/// The redactor of the controls' own events, in which nothing is secret: the same for everybody.
pub(crate) fn of_examples() -> Result<Redactor> {
    Redactor::new(b"examples", Settings::default()).map_err(|error| anyhow!(error))
}

fn redactor(redaction: &Redaction, own_key: impl FnOnce() -> Result<Vec<u8>>) -> Result<Redactor> {
    let key = match &redaction.key {
        Some(source) => source.read_key()?,
        None => own_key()?,
    };
    Redactor::new(&key, redaction.settings()).map_err(|error| anyhow!("`redaction.names`: {error}"))
}

/// A key in a file that only we may read, made at random where there is none yet.
pub(crate) fn kept_key(path: &Path) -> Result<Vec<u8>> {
    let read = || fs::read(path).with_context(|| format!("cannot read `{}`", path.display()));
    if path.exists() {
        return read();
    }
    let random = random()?;
    let file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    fs::write(file.path(), random)?;
    // Another process may have been first: then its key counts.
    match file.persist_noclobber(path) {
        Ok(_) => Ok(random.to_vec()),
        Err(_) => read(),
    }
}

/// Writes a secret into a new file that only we may read.
pub(crate) fn write_secret(path: &Path, secret: &str) -> Result<()> {
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let context = || format!("cannot write `{}`", path.display());
    let file = tempfile::NamedTempFile::new_in(directory).with_context(context)?;
    fs::write(file.path(), secret).with_context(context)?;
    file.persist_noclobber(path).map(drop).with_context(context)
}

/// Random bytes of the operating system.
pub(crate) fn random() -> Result<[u8; 32]> {
    let mut random = [0_u8; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .context("no random numbers")?;
    Ok(random)
}
