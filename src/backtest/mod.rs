//! `tautline backtest`: what a rulebook would have said of past events, and what another one would have said instead.
//!
//! One reader decodes; threads judge, each agent in one of them; what they find is told in the order of the events,
//! however many they are.

mod feeder;
mod report;
mod shards;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use serde_json::json;
use tautline_detectors::rulebook::Rulebook;
use tautline_ingest::Reader;
use tautline_ingest::redact::Redactor;

use crate::cli;
use crate::config::{Config, RulebookPaths};
use crate::files::{self, Input};
use crate::kafka::{Shape, Topics};
use crate::rules::{RulebookStore, Unreachable};
use feeder::{Feeder, Kind, Read, Record};
use report::{Change, Findings, Report};

/// Begins the name of a topic among what is to be read.
const TOPIC: &str = "topic:";

/// What to try, and over what.
pub(crate) struct Backtest {
    /// The rulebook that is tried, and the one that it is compared with, where there is one.
    pub(crate) books: Vec<Arc<Rulebook>>,
    /// Files of the agents' accepted past.
    pub(crate) history: Vec<Input>,
    pub(crate) past: Past,
    /// How the records of files are read.
    pub(crate) reader: Reader,
    pub(crate) redactor: Redactor,
    /// Where every rulebook is kept, those that resolved the log's events among them.
    pub(crate) store: PathBuf,
    /// Most pages a day, instead of what the rulebook declares.
    pub(crate) budget: Option<u32>,
    /// Most findings of a kind that the text shows.
    pub(crate) examples: usize,
    /// Where every difference goes, a JSON object a line.
    pub(crate) diff: Option<PathBuf>,
    pub(crate) json: bool,
    /// Whether to show progress on standard error.
    pub(crate) progress: bool,
}

/// Where the events are.
pub(crate) enum Past {
    /// Files of what the sources write.
    Files(Vec<Input>),
    /// Files with the records of the log, each of one partition.
    LogFiles(Vec<Input>),
    Topics(Topics),
}

impl Past {
    /// What the arguments name: files, or else topics (`topic:<name>`).
    pub(crate) fn named(named: &[PathBuf], is_log: bool, config: &Config) -> Result<Self> {
        let topic = |path: &PathBuf| path.to_str().and_then(|text| text.strip_prefix(TOPIC)).map(str::to_owned);
        let topics: Vec<String> = named.iter().filter_map(topic).collect();
        if topics.is_empty() {
            let files = Input::all(named)?;
            return Ok(if is_log { Self::LogFiles(files) } else { Self::Files(files) });
        }
        ensure!(topics.len() == named.len(), "`--from` takes files or topics, not both");
        Ok(Self::Topics(Topics::open(config, &topics)?))
    }

    /// How many sequences of records there are that know nothing of each other.
    fn lanes(&self) -> usize {
        match self {
            Self::Files(_) => 1,
            Self::LogFiles(files) => files.len(),
            Self::Topics(topics) => topics.lanes(),
        }
    }
}

/// The rulebook to compare with: one of the store by its hash, or that of a directory. There, a `tautline.toml` says
/// where everything is; without it, it has rules only, and the rest is as it is for what is tried.
pub(crate) fn against(config: &Config, named: &Path) -> Result<Arc<Rulebook>> {
    let text = named.to_string_lossy();
    let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash && !named.exists() {
        return RulebookStore::open(&config.rulebook.store)?.find(&text);
    }
    let own = named.join("tautline.toml");
    let paths = if own.exists() {
        Config::read(&own, true)?.rulebook
    } else {
        RulebookPaths { rules: named.to_owned(), ..config.rulebook.clone() }
    };
    Ok(Arc::new(cli::rulebook(&paths, Unreachable::TakeKept)?))
}

impl Backtest {
    /// Reads and judges everything; returns whether no budget was exceeded.
    pub(crate) fn run(&self, out: &mut impl Write) -> Result<bool> {
        let threads = available_parallelism().map_or(2, usize::from);
        let (read, mut findings) = self.judge(threads, out)?;
        ensure!(read.events > 0, "no event could be read, so that nothing is known of the rules");
        let changes = findings.changes();
        if let Some(path) = &self.diff {
            let cannot = || format!("cannot write `{}`", path.display());
            let mut file = BufWriter::new(File::create(path).with_context(cannot)?);
            write_lines(&mut file, &changes).and_then(|()| file.flush()).with_context(cannot)?;
        }
        let tried = findings.tallies.first().zip(self.books.first());
        let budgets = tried.map(|(tally, book)| report::budgets(tally, book, self.budget)).unwrap_or_default();
        let report = Report {
            books: &self.books,
            read: &read,
            findings: &findings,
            changes: &changes,
            budgets: &budgets,
            most: self.examples,
        };
        if self.json {
            write_lines(out, &changes)?;
            writeln!(out, "{}", report.json())?;
        } else {
            write!(out, "{}", report.text())?;
        }
        Ok(!budgets.iter().any(|budget| budget.over))
    }

    /// Judges everything in so many threads. As JSON, what is compared with nothing is written as it is found.
    fn judge(&self, threads: usize, out: &mut impl Write) -> Result<(Read, Findings)> {
        let lanes = self.past.lanes();
        ensure!(
            self.history.is_empty() || lanes == 1,
            "`--history` does not go with the log, whose partitions hold their agents' past themselves"
        );
        // A look into the past leaves no store behind where there is none.
        let store = if self.store.exists() { Some(RulebookStore::open(&self.store)?) } else { None };
        let mut feeder = Feeder::new(&self.books, (lanes, threads), self.redactor.clone(), store)?;
        let mut findings = Findings::new(self.books.len(), self.examples);
        let mut told = self.json.then_some(out).filter(|_| self.books.len() == 1);
        self.read(|place, record, bar| {
            let (rejections, found) = feeder.take(record)?;
            let lost = rejections.iter().filter(|why| !why.is_ignored());
            lost.for_each(|why| bar.suspend(|| tracing::warn!("{}: {why}", place())));
            findings.take(found, &mut told)
        })?;
        let (read, found) = feeder.finish()?;
        findings.take(found, &mut told)?;
        Ok((read, findings))
    }

    /// Hands over every record, with where it is from.
    fn read(&self, mut handle: impl FnMut(&dyn Fn() -> String, &Record<'_>, &ProgressBar) -> Result<()>) -> Result<()> {
        let files = match &self.past {
            Past::Files(files) | Past::LogFiles(files) => files.as_slice(),
            Past::Topics(_) => &[],
        };
        let bar = files::progress_bar(self.history.iter().chain(files), self.progress);
        let mut each = |inputs: &[Input], lanes: usize, kind: Kind<'_>| {
            inputs.iter().enumerate().try_for_each(|(number, input)| {
                files::each_record(input, &self.reader, &bar, |line, bytes, received| {
                    let record = Record { lane: number % lanes, kind, bytes, received };
                    handle(&|| format!("{}:{line}", input.name), &record, &bar)
                })
            })
        };
        each(&self.history, 1, Kind::History(&self.reader))?;
        match &self.past {
            Past::Files(files) => each(files, 1, Kind::Source(&self.reader))?,
            Past::LogFiles(files) => each(files, files.len().max(1), Kind::Log)?,
            Past::Topics(topics) => topics.each(|taken| {
                let kind = match taken.shape {
                    Shape::Source(reader) => Kind::Source(reader),
                    Shape::Direct(reader) => Kind::Direct(reader),
                    Shape::Log => Kind::Log,
                };
                let record = Record { lane: taken.lane, kind, bytes: taken.payload, received: taken.received };
                handle(&|| taken.place(), &record, &bar)
            })?,
        }
        bar.finish_and_clear();
        Ok(())
    }
}

fn write_lines(out: &mut impl Write, changes: &[Change]) -> io::Result<()> {
    changes.iter().try_for_each(|change| writeln!(out, "{}", json!(change)))
}

#[cfg(test)]
mod tests;
