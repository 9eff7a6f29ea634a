//! `tautline.toml`: where the events come from, where the findings go, and which rules are in force.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tautline_ingest::Format;
use toml::de::{DeTable, ValueDeserializer};

use crate::checkpoint::Location;

/// The whole configuration. Unknown keys are errors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) kafka: Kafka,
    pub(crate) sources: Vec<Source>,
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
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    pub(crate) topic: String,
    #[serde(default)]
    pub(crate) format: Format,
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
        let (root, mut errors) = DeTable::parse_recoverable(text);
        let mut root = root.into_inner();
        let config = Self {
            kafka: section(&mut root, "kafka", &mut errors),
            sources: section(&mut root, "sources", &mut errors),
            log: section(&mut root, "log", &mut errors),
            outputs: section(&mut root, "outputs", &mut errors),
            rulebook: section(&mut root, "rulebook", &mut errors),
            checkpoints: section(&mut root, "checkpoints", &mut errors),
            http: section(&mut root, "http", &mut errors),
            revocation: section(&mut root, "revocation", &mut errors),
        };
        let mut lines: Vec<String> = errors.iter().map(|error| located(path, text, error)).collect();
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

    /// The topic that the engine reads.
    pub(crate) fn log_topic(&self) -> &str {
        match self.sources.first() {
            Some(source) if self.log.direct => &source.topic,
            _ => &self.log.topic,
        }
    }
}

/// The value of a section, or its default with the error noted.
fn section<T: Default + DeserializeOwned>(root: &mut DeTable<'_>, name: &str, errors: &mut Vec<toml::de::Error>) -> T {
    let Some(value) = root.remove(name) else { return T::default() };
    T::deserialize(ValueDeserializer::from(value)).unwrap_or_else(|error| {
        errors.push(error);
        T::default()
    })
}

/// The line (from 1) of a byte offset.
fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// An error with its place, and without the source text that toml would show.
fn located(path: &Path, text: &str, error: &toml::de::Error) -> String {
    let line = line(text, error.span().map_or(0, |span| span.start));
    format!("{}:{line}: {}", path.display(), error.message().replace('\n', "; "))
}
