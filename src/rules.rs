//! Rulebooks on disk: reading one from its files, keeping every one that ever judged, and finding it by its hash.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tautline_detectors::rulebook::{Issuers, RemoteKeys, RuleFile, Rulebook, RulebookError, hex};

use crate::config::RulebookPaths;
use crate::jwks;
use crate::redaction::kept_key;

/// Events that every control must bring along.
const CONTROL_EVENTS: [&str; 2] = ["fires.jsonl", "silent.jsonl"];

/// Tables that controls read beside their `control.toml`.
const RULE_TABLES: [&str; 2] = ["approvals/risk.toml", "approvals/operations.toml"];

/// What happens where an issuer's keys cannot be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// Those that the rulebook store has from before count, with a warning.
    TakeKept,
    /// The rulebook is refused.
    Refuse,
}

/// Reads a rulebook from disk, and the keys of issuers from where they keep them.
///
/// # Errors
///
/// Every error of every file at once; a file that cannot be read is one of them.
pub(crate) fn read(paths: &RulebookPaths, unreachable: Unreachable) -> Result<Rulebook, Vec<RulebookError>> {
    let mut errors = Vec::new();
    let mut files = Vec::new();
    collect(&paths.agents, "registry/agents", &mut files, &mut errors);
    collect(&paths.playbooks, "registry/playbooks", &mut files, &mut errors);
    for (path, name) in [(&paths.estate, "registry/estate.toml"), (&paths.people, "registry/people.toml")] {
        files.extend(read_file(path, name.to_owned(), &mut errors));
    }
    for name in ["calendar.toml", "issuers.toml", "routes.toml", "exceptions.toml"] {
        let path = paths.people.with_file_name(name);
        if path.exists() {
            files.extend(read_file(&path, format!("registry/{name}"), &mut errors));
        }
    }
    files.extend(key_sets(&paths.people.with_file_name("issuers"), &mut errors));
    for remote in Issuers::remote(&files) {
        if files.iter().any(|file| file.name == remote.name) {
            let message = format!("`{}` has keys for this issuer, too: keep one of the two", remote.name);
            errors.push(remote.error(message));
            continue;
        }
        match fetched(&remote, &paths.store, unreachable) {
            Ok(file) => files.push(file),
            Err(error) => errors.push(remote.error(format!("{error:#}"))),
        }
    }
    read_with(&paths.rules, files, errors)
}

/// The keys of an issuer as they are now, or else as they were when they were last fetched.
fn fetched(remote: &RemoteKeys, store: &Path, unreachable: Unreachable) -> Result<RuleFile> {
    let url = jwks::address(&remote.url)?;
    let error = match jwks::fetch(&url) {
        Ok(text) => return Ok(remote.file(text)),
        Err(error) => error.context(format!("cannot fetch `{url}`")),
    };
    match kept(remote, store).filter(|_| unreachable == Unreachable::TakeKept) {
        Some(file) => {
            tracing::warn!("{error:#}: the keys that were fetched last count");
            Ok(file)
        }
        None => Err(error),
    }
}

/// What was fetched from the same URL for the rulebook that was kept last.
fn kept(remote: &RemoteKeys, store: &Path) -> Option<RuleFile> {
    let books = fs::read_dir(store).ok()?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut books: Vec<PathBuf> = books.filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
    books
        .sort_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH));
    books.iter().rev().find_map(|path| {
        let files: Vec<RuleFile> = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
        files.into_iter().find(|file| file.name == remote.name && file.path == remote.url)
    })
}

/// The rulebook with the keys that its issuers have now; none where they are those that it has.
///
/// # Errors
///
/// A key set that cannot be fetched, or with which the rulebook is none.
pub(crate) fn refreshed(book: &Rulebook) -> Result<Option<Rulebook>> {
    let mut files = book.files().to_vec();
    for remote in Issuers::remote(book.files()) {
        let url = jwks::address(&remote.url)?;
        let text = jwks::fetch(&url).with_context(|| format!("cannot fetch `{url}`"))?;
        files.retain(|file| file.name != remote.name);
        files.push(remote.file(text));
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    if files == book.files() {
        return Ok(None);
    }
    Rulebook::read(files).map(Some).map_err(|errors| refused(&errors))
}

/// The issuers' key sets.
fn key_sets(directory: &Path, errors: &mut Vec<RulebookError>) -> Vec<RuleFile> {
    if !directory.exists() {
        return Vec::new();
    }
    let sets = entries(directory, errors).into_iter().filter(|path| path.extension().is_some_and(|e| e == "json"));
    let sets: Vec<PathBuf> = sets.collect();
    sets.iter().filter_map(|path| read_file(path, format!("registry/issuers/{}", file_name(path)), errors)).collect()
}

/// Reads a rulebook of the controls in `rules` and the other files as given, whose errors so far are given too.
pub(crate) fn read_with(
    rules: &Path,
    mut files: Vec<RuleFile>,
    mut errors: Vec<RulebookError>,
) -> Result<Rulebook, Vec<RulebookError>> {
    files.extend(rule_files(rules, &mut errors));
    match Rulebook::read(files).map_err(|found| errors.extend(found)) {
        Ok(book) if errors.is_empty() => Ok(book),
        _ => {
            errors.sort();
            Err(errors)
        }
    }
}

/// All errors of a rulebook as one, a line each.
pub(crate) fn refused(errors: &[RulebookError]) -> anyhow::Error {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    anyhow::anyhow!("{}", lines.join("\n"))
}

/// The same rules with the example registry, against which the controls' own events are written; a rules directory
/// without one has its events written against the registry given.
pub(crate) fn example_paths(paths: &RulebookPaths) -> RulebookPaths {
    let rules = &paths.rules;
    let example = rules.join("example");
    if !example.exists() {
        return paths.clone();
    }
    RulebookPaths {
        rules: rules.clone(),
        agents: example.join("agents.d"),
        estate: example.join("estate.toml"),
        people: example.join("people.toml"),
        playbooks: example.join("playbooks.d"),
        ..RulebookPaths::default()
    }
}

/// The controls of a rules directory that lack events of their own.
pub(crate) fn without_events(rules: &Path) -> Vec<RulebookError> {
    // A directory that cannot be read is reported by whoever reads the rules.
    let folders = entries(rules, &mut Vec::new());
    let controls = folders.iter().map(|folder| (file_name(folder), folder.join("control.toml"), folder));
    let lacking = controls.filter(|(_, control, _)| control.exists()).flat_map(|(name, control, folder)| {
        CONTROL_EVENTS.iter().filter(|events| !has_events(&folder.join(events))).map(move |events| RulebookError {
            path: control.display().to_string(),
            line: 1,
            message: format!("control `{name}` has no events: write `{events}` beside it"),
        })
    });
    lacking.collect()
}

/// Schema, numbers, vocabulary and controls of a rules directory.
fn rule_files(rules: &Path, errors: &mut Vec<RulebookError>) -> Vec<RuleFile> {
    let mut files: Vec<RuleFile> = Vec::new();
    files.extend(read_file(&rules.join("schema.cedarschema"), "schema.cedarschema".to_owned(), errors));
    let trust = rules.join("trust.toml");
    if trust.exists() {
        files.extend(read_file(&trust, "trust.toml".to_owned(), errors));
    }
    for folder in entries(rules, errors).into_iter().filter(|path| path.is_dir()) {
        let name = file_name(&folder);
        if name == "vocabulary" {
            collect(&folder, "vocabulary", &mut files, errors);
            continue;
        }
        if name != "example" {
            control_files(&folder, &name, &mut files, errors);
        }
    }
    files
}

/// A control's own files. One that is misnamed would be a control that silently does nothing.
fn control_files(folder: &Path, name: &str, files: &mut Vec<RuleFile>, errors: &mut Vec<RulebookError>) {
    let mut is_control = false;
    for path in entries(folder, errors) {
        let file = file_name(&path);
        let kind = path.extension().and_then(|extension| extension.to_str());
        is_control |= file == "control.toml";
        match kind {
            Some("toml") if file != "control.toml" && !RULE_TABLES.contains(&format!("{name}/{file}").as_str()) => {
                let message = "is no file of a control: it has `control.toml` and `*.cedar`".to_owned();
                errors.push(RulebookError { path: path.display().to_string(), line: 1, message });
            }
            Some("toml" | "cedar") => files.extend(read_file(&path, format!("{name}/{file}"), errors)),
            _ => {}
        }
    }
    if !is_control {
        let message = "is no control: it has no `control.toml`".to_owned();
        errors.push(RulebookError { path: folder.display().to_string(), line: 1, message });
    }
}

fn has_events(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| !line.trim().is_empty()))
}

/// Reads one file, or all `*.toml` files of a directory, under logical names below `kind`.
fn collect(path: &Path, kind: &str, files: &mut Vec<RuleFile>, errors: &mut Vec<RulebookError>) {
    if !path.is_dir() {
        files.extend(read_file(path, format!("{kind}/{}", file_name(path)), errors));
        return;
    }
    for file in entries(path, errors).into_iter().filter(|path| path.extension().is_some_and(|e| e == "toml")) {
        files.extend(read_file(&file, format!("{kind}/{}", file_name(&file)), errors));
    }
}

fn entries(directory: &Path, errors: &mut Vec<RulebookError>) -> Vec<PathBuf> {
    let read = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>());
    match read {
        Ok(mut paths) => {
            paths.sort();
            paths
        }
        Err(error) => {
            errors.push(unreadable(directory, &error));
            Vec::new()
        }
    }
}

fn read_file(path: &Path, name: String, errors: &mut Vec<RulebookError>) -> Option<RuleFile> {
    match fs::read_to_string(path) {
        Ok(text) => Some(RuleFile { name, path: path.display().to_string(), text }),
        Err(error) => {
            errors.push(unreadable(path, &error));
            None
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> RulebookError {
    RulebookError { path: path.display().to_string(), line: 1, message: format!("cannot be read: {error}") }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Every rulebook that ever judged, by its hash: one JSON file each in a directory.
#[derive(Debug)]
pub(crate) struct RulebookStore {
    directory: PathBuf,
    /// What records of our own are sealed with, in a log that others write too.
    seal_key: Vec<u8>,
    known: BTreeMap<String, Arc<Rulebook>>,
}

impl RulebookStore {
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot create `{}`", directory.display()))?;
        let seal_key = kept_key(&directory.join("seal.key"))?;
        Ok(Self { directory: directory.to_owned(), seal_key, known: BTreeMap::new() })
    }

    /// Seals a record of our own: its number and an HMAC-SHA256 (RFC 2104) over number, place and bytes.
    pub(crate) fn seal(&self, number: u64, topic: &str, partition: i32, payload: &[u8]) -> String {
        format!("{number}:{}", hex(&self.mac(number, topic, partition, payload).finalize().into_bytes()))
    }

    /// The number of a seal that is ours and belongs to this record.
    pub(crate) fn open_seal(&self, seal: &str, topic: &str, partition: i32, payload: &[u8]) -> Option<u64> {
        let number = seal.split_once(':')?.0.parse().ok()?;
        let ours = hex(&self.mac(number, topic, partition, payload).finalize().into_bytes());
        (seal == format!("{number}:{ours}")).then_some(number)
    }

    fn mac(&self, number: u64, topic: &str, partition: i32, payload: &[u8]) -> Hmac<Sha256> {
        // HMAC takes keys of any length; the fallback is never reached.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.seal_key).unwrap_or_else(|_| Hmac::new(&Default::default()));
        mac.update(&number.to_be_bytes());
        mac.update(format!("{topic}/{partition}/").as_bytes());
        mac.update(payload);
        mac
    }

    fn path(&self, hash: &str) -> PathBuf {
        self.directory.join(format!("{hash}.json"))
    }

    /// Keeps a rulebook, durably, before anything is judged by it.
    pub(crate) fn keep(&mut self, book: &Arc<Rulebook>) -> Result<()> {
        let path = self.path(book.hash());
        if path.exists() {
            // The one that was kept last is known by its time.
            fs::File::options()
                .append(true)
                .open(&path)
                .and_then(|file| file.set_modified(SystemTime::now()))
                .with_context(|| format!("cannot write `{}`", path.display()))?;
        } else {
            let file = tempfile::NamedTempFile::new_in(&self.directory)?;
            serde_json::to_writer(&file, book.files())?;
            file.as_file().sync_all()?;
            file.persist(&path).with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        self.known.insert(book.hash().to_owned(), Arc::clone(book));
        Ok(())
    }

    /// Finds a rulebook by its hash.
    pub(crate) fn find(&mut self, hash: &str) -> Result<Arc<Rulebook>> {
        if let Some(book) = self.known.get(hash) {
            return Ok(Arc::clone(book));
        }
        let path = self.path(hash);
        let text = fs::read_to_string(&path).with_context(|| {
            format!("rulebook `{hash}` judged part of the log, but `{}` cannot be read: restore it", path.display())
        })?;
        let files: Vec<RuleFile> = serde_json::from_str(&text)?;
        let book = Rulebook::read_kept(files).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("rulebook `{hash}` is no longer valid: {}", errors.join("; "))
        })?;
        anyhow::ensure!(book.hash() == hash, "`{}` does not hold rulebook `{hash}`: it was changed", path.display());
        let book = Arc::new(book);
        self.known.insert(hash.to_owned(), Arc::clone(&book));
        Ok(book)
    }
}

#[cfg(test)]
mod tests;
