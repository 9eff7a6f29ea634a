//! `tautline.toml`: where the events come from, where the findings go, and which rules are in force.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use tautline_ingest::{Format, Mapping, Reader};
use toml::Spanned;
use toml::de::{DeTable, ValueDeserializer};

use crate::checkpoint::Location;

/// The whole configuration. Unknown keys are errors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) kafka: Kafka,
    pub(crate) sources: Vec<Source>,
    pub(crate) mappings: Vec<Arc<Mapping>>,
    pub(crate) log: Log,
    pub(crate) outputs: Outputs,
    pub(crate) rulebook: RulebookPaths,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) http: Http,
    pub(crate) revocation: Revocation,
}

/// The broker and this process's place in the group.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// Consumer group; also the prefix of the transactional ids.
    pub group: String,
    /// Name of this process in the group. Stable across restarts, so that a restart fences the process before it.
    pub instance: String,
    /// How long a batch may grow before it is committed, in milliseconds.
    pub commit_interval_ms: u64,
    /// How many records a batch may have at most.
    pub batch_records: usize,
    /// How long a process may be silent before its partitions go to others, in milliseconds.
    pub session_timeout_ms: u32,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            group: "tautline".to_owned(),
            instance: "0".to_owned(),
            commit_interval_ms: 100,
            batch_records: 50_000,
            session_timeout_ms: 6_000,
        }
    }
}

impl Kafka {
    pub(crate) fn commit_interval(&self) -> Duration {
        Duration::from_millis(self.commit_interval_ms)
    }
}

/// One topic to read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) topic: String,
    pub(crate) reader: Reader,
}

/// The same as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Topic {
    topic: String,
    format: Option<Spanned<FormatName>>,
}

/// The name of a format, or `mapping:` and the name of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FormatName {
    Known(Format),
    Mapping(String),
}

impl FromStr for FormatName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name.strip_prefix("mapping:") {
            Some(mapping) => Ok(Self::Mapping(mapping.to_owned())),
            None => name.parse().map(Self::Known).map_err(|error: String| format!("{error}, mapping:<name>")),
        }
    }
}

impl<'de> Deserialize<'de> for FormatName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The one log, `tautline.events`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    pub(crate) topic: String,
    /// Partitions that the topic gets where it does not exist yet.
    pub(crate) partitions: i32,
    /// Whether the only source is already keyed by agent, so that it is the log itself and there is no hop.
    pub(crate) direct: bool,
    /// How often the owner of a partition appends a tick, in seconds.
    pub(crate) tick_seconds: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self { topic: "tautline.events".to_owned(), partitions: 4, direct: false, tick_seconds: 60 }
    }
}

/// Topics to write.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Outputs {
    pub(crate) alerts: String,
    pub(crate) revocations: String,
    pub(crate) dead_letter: String,
}

impl Default for Outputs {
    fn default() -> Self {
        Self {
            alerts: "tautline.alerts".to_owned(),
            revocations: "tautline.revocations".to_owned(),
            dead_letter: "tautline.dead-letter".to_owned(),
        }
    }
}

/// Where the rules are. Relative paths are relative to the configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RulebookPaths {
    /// Directory of the controls, the schema and the vocabulary.
    pub(crate) rules: PathBuf,
    /// Registry: a file, or a directory of files.
    pub(crate) agents: PathBuf,
    pub(crate) estate: PathBuf,
    pub(crate) people: PathBuf,
    /// Playbooks: a file, or a directory of files.
    pub(crate) playbooks: PathBuf,
    /// Where every rulebook that ever judged is kept, by its hash, so that a replay finds it.
    pub(crate) store: PathBuf,
}

impl Default for RulebookPaths {
    fn default() -> Self {
        Self {
            rules: "rules".into(),
            agents: "rules/example/agents.d".into(),
            estate: "rules/example/estate.toml".into(),
            people: "rules/example/people.toml".into(),
            playbooks: "rules/example/playbooks.d".into(),
            store: ".state/rulebooks".into(),
        }
    }
}

/// Where the memory of each partition is kept, and how often.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Checkpoints {
    /// A directory, relative to the configuration file, or the URL of an object store.
    pub(crate) url: Location,
    /// How often each partition's memory is written, in seconds.
    pub(crate) interval_seconds: u64,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self { url: Location::Directory(".state/checkpoints".into()), interval_seconds: 1 }
    }
}

/// The local web server: `/metrics`, `/healthz`, `/readyz` and the live page.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    pub(crate) listen: SocketAddr,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9464)) }
    }
}

/// How revocation requests introduce themselves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Revocation {
    /// The `iss` of the security event tokens.
    pub(crate) issuer: String,
    /// Their `aud`.
    pub(crate) audience: String,
}

impl Default for Revocation {
    fn default() -> Self {
        Self { issuer: "https://tautline.invalid".to_owned(), audience: "https://receiver.invalid".to_owned() }
    }
}

impl Config {
    /// Reads the configuration file; without one, the defaults, unless `required`.
    pub(crate) fn read(path: &Path, required: bool) -> Result<Self> {
        if !required && !path.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let mut config = Self::parse(path, &text)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let paths = &mut config.rulebook;
        for path in [
            &mut paths.rules,
            &mut paths.agents,
            &mut paths.estate,
            &mut paths.people,
            &mut paths.playbooks,
            &mut paths.store,
        ] {
            *path = base.join(&*path);
        }
        if let Location::Directory(path) = &mut config.checkpoints.url {
            *path = base.join(&*path);
        }
        Ok(config)
    }

    /// Reads the sections one by one, so that an error in one does not hide those of the next.
    fn parse(path: &Path, text: &str) -> Result<Self> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut errors: Vec<Fault> = errors.iter().map(Fault::from).collect();
        let mut root = root.into_inner();
        let mappings = mappings(&mut root, &mut errors);
        let config = Self {
            kafka: section(&mut root, "kafka", &mut errors),
            sources: sources(&mut root, &mappings, &mut errors),
            mappings,
            log: section(&mut root, "log", &mut errors),
            outputs: section(&mut root, "outputs", &mut errors),
            rulebook: section(&mut root, "rulebook", &mut errors),
            checkpoints: section(&mut root, "checkpoints", &mut errors),
            http: section(&mut root, "http", &mut errors),
            revocation: section(&mut root, "revocation", &mut errors),
        };
        let mut lines: Vec<String> = errors.iter().map(|fault| fault.located(path, text)).collect();
        for unknown in root.keys() {
            let line = line(text, unknown.span().start);
            lines.push(format!("{}:{line}: unknown section `{}`", path.display(), unknown.get_ref()));
        }
        if lines.is_empty() { Ok(config) } else { Err(anyhow!("{}", lines.join("\n"))) }
    }

    /// What a live run needs beyond what the types ask for; every fault at once.
    pub(crate) fn check_for_run(&self) -> Result<()> {
        let mut faults = Vec::new();
        if self.sources.is_empty() {
            faults.push("no `[[sources]]`: name at least one topic to read");
        }
        if self.log.direct && self.sources.len() > 1 {
            faults.push("`log.direct` reads one source, already keyed by agent: name one, or set it to false");
        }
        if self.kafka.batch_records == 0 || self.kafka.commit_interval_ms == 0 || self.log.tick_seconds == 0 {
            faults.push("`batch_records`, `commit_interval_ms` and `tick_seconds` must be at least 1");
        }
        if self.checkpoints.interval_seconds == 0 {
            faults.push("`checkpoints.interval_seconds` must be at least 1");
        }
        if self.log.partitions < 1 {
            faults.push("`log.partitions` must be at least 1");
        }
        if faults.is_empty() { Ok(()) } else { Err(anyhow!("{}", faults.join("\n"))) }
    }

    /// How records of a format are read.
    pub(crate) fn reader(&self, format: &FormatName) -> Result<Reader> {
        reader(&self.mappings, format).map_err(|error| anyhow!(error))
    }

    /// The topic that the engine reads.
    pub(crate) fn log_topic(&self) -> &str {
        match self.sources.first() {
            Some(source) if self.log.direct => &source.topic,
            _ => &self.log.topic,
        }
    }
}

/// The value of a section, or its default with the error noted.
fn section<T: Default + DeserializeOwned>(root: &mut DeTable<'_>, name: &str, errors: &mut Vec<Fault>) -> T {
    let Some(value) = root.remove(name) else { return T::default() };
    T::deserialize(ValueDeserializer::from(value)).unwrap_or_else(|error| {
        errors.push(Fault::from(&error));
        T::default()
    })
}

/// The declared mappings, each under a name of its own.
fn mappings(root: &mut DeTable<'_>, errors: &mut Vec<Fault>) -> Vec<Arc<Mapping>> {
    let mut known: Vec<Arc<Mapping>> = Vec::new();
    for mapping in section::<Vec<Spanned<Mapping>>>(root, "mappings", errors) {
        let span = mapping.span();
        let mapping = mapping.into_inner();
        if known.iter().any(|known| known.name == mapping.name) {
            let message = format!("mapping `{}` is there twice", mapping.name);
            errors.push(Fault { at: span.start, message });
        }
        known.push(Arc::new(mapping));
    }
    known
}

fn sources(root: &mut DeTable<'_>, mappings: &[Arc<Mapping>], errors: &mut Vec<Fault>) -> Vec<Source> {
    let mut sources = Vec::new();
    for Topic { topic, format } in section::<Vec<Topic>>(root, "sources", errors) {
        let reader = format.map_or(Ok(Reader::default()), |format| {
            reader(mappings, format.get_ref()).map_err(|message| Fault { at: format.span().start, message })
        });
        match reader {
            Ok(reader) => sources.push(Source { topic, reader }),
            Err(error) => errors.push(error),
        }
    }
    sources
}

fn reader(mappings: &[Arc<Mapping>], format: &FormatName) -> Result<Reader, String> {
    match format {
        FormatName::Known(format) => Ok(Reader::Format(*format)),
        FormatName::Mapping(name) => {
            let mapping = mappings.iter().find(|mapping| mapping.name == *name);
            let unknown = || format!("unknown mapping `{name}`: no `[[mappings]]` of that name can be read");
            mapping.map(|mapping| Reader::Mapping(Arc::clone(mapping))).ok_or_else(unknown)
        }
    }
}

/// The line (from 1) of a byte offset.
fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// What is wrong, and the byte where it begins.
struct Fault {
    at: usize,
    message: String,
}

impl From<&toml::de::Error> for Fault {
    /// Without the source text that toml would show.
    fn from(error: &toml::de::Error) -> Self {
        Self { at: error.span().map_or(0, |span| span.start), message: error.message().replace('\n', "; ") }
    }
}

impl Fault {
    fn located(&self, path: &Path, text: &str) -> String {
        format!("{}:{}: {}", path.display(), line(text, self.at), self.message)
    }
}
