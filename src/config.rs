//! `tautline.toml`: where the events come from, where the findings go, and which rules are in force.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use tautline_ingest::redact::{self, Field, Settings};
use tautline_ingest::{Format, Mapping, Reader};
use toml::Spanned;
use toml::de::{DeTable, ValueDeserializer};

use crate::checkpoint::Location;
use crate::connection::{Sasl, Tls};
use crate::gate::{self, Gate};
use crate::secret::SecretSource;
use crate::signals::Alertmanager;

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
    pub(crate) gate: Option<Gate>,
    pub(crate) revocation: Revocation,
    pub(crate) redaction: Redaction,
    pub(crate) alertmanager: Option<Alertmanager>,
    /// The file that it was read from; none where the defaults hold.
    file: Option<PathBuf>,
    /// The line of each section in the file.
    lines: BTreeMap<String, usize>,
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
    /// TLS; none without it.
    pub tls: Option<Tls>,
    /// Who we are; anonymous without it.
    pub sasl: Option<Sasl>,
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
            tls: None,
            sasl: None,
        }
    }
}

impl Kafka {
    pub(crate) fn commit_interval(&self) -> Duration {
        Duration::from_millis(self.commit_interval_ms)
    }

    /// What does not go together, with the section that says it.
    fn faults(&self) -> Vec<(&'static str, String)> {
        let of_tls = self.tls.iter().flat_map(|tls| tls.faults().into_iter().map(|fault| ("tls", fault)));
        let of_sasl = self.sasl.iter().flat_map(|sasl| sasl.faults().into_iter().map(|fault| ("sasl", fault)));
        of_tls.chain(of_sasl).collect()
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
    pub(crate) rollbacks: String,
    pub(crate) dead_letter: String,
}

impl Default for Outputs {
    fn default() -> Self {
        Self {
            alerts: "tautline.alerts".to_owned(),
            revocations: "tautline.revocations".to_owned(),
            rollbacks: "tautline.rollbacks".to_owned(),
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
    /// Beside it lies `routes.toml`, and may lie `calendar.toml`, `issuers.toml` and the key sets in `issuers/`.
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

/// What must not leave, beside secrets of known forms, and how it is kept from others.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Redaction {
    /// Texts of events that are redacted whole.
    #[serde(deserialize_with = "fields")]
    fields: Vec<Field>,
    /// What matches is redacted.
    patterns: Vec<Pattern>,
    /// Words that never leave, e.g. the names of people.
    names: Vec<String>,
    /// Key of the hashes; one is made in the rulebook store where none is given.
    pub(crate) key: Option<SecretSource>,
    /// What becomes of the bytes of records that cannot be read.
    pub(crate) dead_letters: DeadLetters,
    /// Key of encrypted dead letters.
    pub(crate) dead_letter_key: Option<SecretSource>,
}

impl Redaction {
    pub(crate) fn settings(&self) -> Settings {
        let patterns = self.patterns.iter().map(|pattern| (pattern.name.clone(), pattern.regex.clone()));
        Settings { fields: self.fields.clone(), patterns: patterns.collect(), names: self.names.clone() }
    }

    fn keys(&mut self) -> impl Iterator<Item = &mut SecretSource> {
        self.key.iter_mut().chain(&mut self.dead_letter_key)
    }
}

/// What becomes of the bytes of a record that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DeadLetters {
    /// They stay in the source's topic, where their dead letter says.
    #[default]
    Withheld,
    /// They are in the letter, encrypted.
    Encrypted,
    /// They are in the letter as they are.
    Plain,
}

/// A configured pattern.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pattern {
    /// The kind that its hashes name.
    #[serde(deserialize_with = "kind")]
    name: String,
    #[serde(deserialize_with = "expression")]
    regex: regex::Regex,
}

fn fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Field>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names.iter().map(|name| name.parse().map_err(D::Error::custom)).collect()
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !is_plain || name.is_empty() || name.len() > 40 {
        return Err(D::Error::custom(format_args!("`{name}` is no name of a pattern: use 1 to 40 of a-z, 0-9 and -")));
    }
    Ok(name)
}

fn expression<'de, D: Deserializer<'de>>(deserializer: D) -> Result<regex::Regex, D::Error> {
    redact::pattern(&String::deserialize(deserializer)?).map_err(D::Error::custom)
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
        let lines = root.keys().map(|key| (key.get_ref().to_string(), line(text, key.span().start))).collect();
        let mappings = mappings(&mut root, &mut errors);
        let connection = ["tls", "sasl"].map(|name| (name, offset_of(&root, "kafka", name)));
        let mut config = Self {
            kafka: section(&mut root, "kafka", &mut errors),
            sources: sources(&mut root, &mappings, &mut errors),
            mappings,
            log: section(&mut root, "log", &mut errors),
            outputs: section(&mut root, "outputs", &mut errors),
            rulebook: section(&mut root, "rulebook", &mut errors),
            checkpoints: section(&mut root, "checkpoints", &mut errors),
            http: section(&mut root, "http", &mut errors),
            gate: section(&mut root, "gate", &mut errors),
            revocation: section(&mut root, "revocation", &mut errors),
            redaction: section(&mut root, "redaction", &mut errors),
            alertmanager: section(&mut root, "alertmanager", &mut errors),
            file: Some(path.to_owned()),
            lines,
        };
        let mut lines: Vec<String> = errors.iter().map(|fault| fault.located(path, text)).collect();
        for (section, fault) in config.kafka.faults() {
            let offset = connection.iter().find(|(name, _)| *name == section).map_or(0, |(_, offset)| *offset);
            lines.push(format!("{}:{}: {fault}", path.display(), line(text, offset)));
        }
        for (offset, fault) in config.gate.iter().flat_map(Gate::faults) {
            lines.push(format!("{}:{}: {fault}", path.display(), line(text, offset)));
        }
        for unknown in root.keys() {
            let line = line(text, unknown.span().start);
            lines.push(format!("{}:{line}: unknown section `{}`", path.display(), unknown.get_ref()));
        }
        let base = path.parent().unwrap_or(Path::new(""));
        config.kafka.tls.iter_mut().for_each(|tls| tls.locate(base));
        config.gate.iter_mut().for_each(|gate| gate.locate(base));
        let locate = |secret: &mut SecretSource| {
            secret.locate(format!("{}:{}", path.display(), line(text, secret.offset())), base);
        };
        config.passwords().for_each(locate);
        config.redaction.keys().for_each(locate);
        config.gate.iter_mut().flat_map(Gate::secrets).for_each(locate);
        config.alertmanager.iter_mut().flat_map(Alertmanager::secrets).for_each(locate);
        if lines.is_empty() { Ok(config) } else { Err(anyhow!("{}", lines.join("\n"))) }
    }

    /// The secrets that the broker asks for.
    fn passwords(&mut self) -> impl Iterator<Item = &mut SecretSource> {
        let of_tls = self.kafka.tls.iter_mut().flat_map(|tls| &mut tls.key_password);
        let of_sasl = self.kafka.sasl.iter_mut().flat_map(|sasl| [&mut sasl.password, &mut sasl.client_secret]);
        of_tls.chain(of_sasl.flatten())
    }

    /// Refuses what a live run cannot do with.
    pub(crate) fn check_for_run(&mut self) -> Result<()> {
        let faults = self.faults();
        if faults.is_empty() { Ok(()) } else { Err(anyhow!("{}", faults.join("\n"))) }
    }

    /// Whether it was read from a file.
    pub(crate) fn is_given(&self) -> bool {
        self.file.is_some()
    }

    /// What a live run needs beyond what the types ask for; every fault, with its place.
    pub(crate) fn faults(&mut self) -> Vec<String> {
        let unread = self.passwords().filter_map(|password| password.read().err());
        let mut faults: Vec<String> = unread.map(|error| format!("{error:#}")).collect();
        let unfit = self.redaction.keys().filter_map(|key| key.read_key().err());
        faults.extend(unfit.map(|error| format!("{error:#}")));
        faults.extend(self.gate.iter().flat_map(gate::check));
        faults.extend(self.alertmanager.iter().flat_map(Alertmanager::faults));
        faults.extend(self.gaps_but(&[]));
        faults
    }

    /// What lacks or cannot be, secrets aside, with its place; not of these sections.
    pub(crate) fn gaps_but(&self, sections: &[&str]) -> Vec<String> {
        let gaps = self.gaps().into_iter().filter(|(section, _)| !sections.contains(section));
        gaps.map(|(section, gap)| format!("{}: {gap}", self.place(section))).collect()
    }

    /// `file:line` of a section; of one that is not there, the file's beginning.
    fn place(&self, section: &str) -> String {
        let file = self.file.as_deref().unwrap_or(Path::new("tautline.toml"));
        format!("{}:{}", file.display(), self.lines.get(section).unwrap_or(&1))
    }

    /// What lacks or cannot be, each with its section.
    fn gaps(&self) -> Vec<(&'static str, &'static str)> {
        let mut faults = Vec::new();
        if self.sources.is_empty() {
            faults.push(("sources", "no `[[sources]]`: name at least one topic to read"));
        }
        if self.log.direct && self.sources.len() > 1 {
            faults.push(("log", "`log.direct` reads one source, already keyed by agent: name one, or set it to false"));
        }
        if self.kafka.batch_records == 0 || self.kafka.commit_interval_ms == 0 {
            faults.push(("kafka", "`batch_records` and `commit_interval_ms` must be at least 1"));
        }
        if self.log.tick_seconds == 0 {
            faults.push(("log", "`tick_seconds` must be at least 1"));
        }
        if self.checkpoints.interval_seconds == 0 {
            faults.push(("checkpoints", "`checkpoints.interval_seconds` must be at least 1"));
        }
        if self.redaction.dead_letters == DeadLetters::Encrypted && self.redaction.dead_letter_key.is_none() {
            faults.push(("redaction", "`redaction.dead_letters` is \"encrypted\": name a `redaction.dead_letter_key`"));
        }
        let takes_statements = |source: &Source| {
            let is_fit = matches!(source.reader, Reader::Format(Format::Statement | Format::Auto));
            is_fit && self.alertmanager.as_ref().is_some_and(|section| section.topic == source.topic)
        };
        if self.alertmanager.is_some() && !self.sources.iter().any(takes_statements) {
            let gap = "`alertmanager.topic` is no source of statements: name one of `[[sources]]` with that format";
            faults.push(("alertmanager", gap));
        }
        if self.log.partitions < 1 {
            faults.push(("log", "`log.partitions` must be at least 1"));
        }
        faults
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

/// Where a section's own section begins.
fn offset_of(root: &DeTable<'_>, section: &str, name: &str) -> usize {
    let section = root.get(section).and_then(|section| section.get_ref().as_table());
    section.and_then(|section| section.get_key_value(name)).map_or(0, |(key, _)| key.span().start)
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
