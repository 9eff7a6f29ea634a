//! The command line.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::ProgressBar;
use tautline_detectors::rulebook::Rulebook;
use tautline_ingest::Reader;
use tracing_subscriber::EnvFilter;

use crate::backtest::{Backtest, Past};
use crate::config::{Config, FormatName, RulebookPaths};
use crate::files::{Input, Records};
use crate::output::dead_letter::Keys;
use crate::output::text;
use crate::replay::{Form, Replay};
use crate::rules::Unreachable;
use crate::signing::Key;
use crate::{backtest, check, demo, explain, gate, kafka, redaction, rules, signing};

/// Keeps AI agents on a taut line while they work on cloud production.
///
/// Reads agent actions and cloud audit events, holds each against written policy and against the agent's own habit, and
/// says what deviates, why, and what to do about it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
#[command(after_help = "Exit codes:
  0  done, and nothing to complain of
  1  what was checked or replayed has faults (see the messages), or what was asked is denied
  2  wrong usage, wrong configuration, or something that could not be read or reached")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

/// Options of every command.
#[derive(Debug, Args)]
struct Common {
    /// Configuration; without the file, the defaults
    #[arg(long, global = true, value_name = "FILE", default_value = "tautline.toml")]
    config: PathBuf,
    /// Rules directory, instead of the configuration's
    #[arg(long, global = true, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// Registry (a file, or a directory of them), instead of the configuration's
    #[arg(long, global = true, value_name = "FILE")]
    agents: Option<PathBuf>,
    /// Map of accounts and clusters to environments, instead of the configuration's
    #[arg(long, global = true, value_name = "FILE")]
    estate: Option<PathBuf>,
    /// Persons who own agents and approve, instead of the configuration's
    #[arg(long, global = true, value_name = "FILE")]
    people: Option<PathBuf>,
    /// What results look like; `auto` is a table on a terminal and JSON elsewhere for `replay` and `demo`, and a table
    /// for the others
    #[arg(long, global = true, value_enum, default_value = "auto")]
    output: Output,
    /// What log lines on standard error look like
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Auto,
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read from Kafka and write alerts and revocation requests to Kafka, until SIGTERM or Ctrl-C
    Run,
    /// Judge the events of files with the same engine: one JSON record a line, or CloudTrail's log files; plain, gzip or zstd
    Replay {
        /// Files to judge, directories or prefixes of an object store (`s3://…`) of them; `-` is standard input
        #[arg(required = true, value_name = "FILES")]
        files: Vec<PathBuf>,
        /// The agents' accepted past, in the same places: learned from first, not judged
        #[arg(long, value_name = "FILE")]
        history: Vec<PathBuf>,
        /// What the records are: auto, a format's name, or mapping:<name> with a mapping of the configuration
        #[arg(long, default_value = "auto")]
        format: FormatName,
    },
    /// Say what the rules would have found in past events, and what others would have found instead
    Backtest(Trial),
    /// Validate rules, registry, estate and people, and run every control's own events
    Check {
        /// Write each control's snapshot instead of comparing with it
        #[arg(long)]
        bless: bool,
        /// Change each policy, threshold and severity, one after the other, and name the changes that no control's events notice
        #[arg(long, conflicts_with = "bless")]
        mutate: bool,
    },
    /// See it work, without a broker: recorded cloud events and the story of an agent that goes wrong
    Demo {
        /// How long the story takes, in seconds
        #[arg(long, default_value_t = 25)]
        seconds: u64,
    },
    /// Look into dead letters
    DeadLetter {
        #[command(subcommand)]
        command: DeadLetterCommand,
    },
    /// Sign a statement (an approval, an override …) with private keys of one's own; two keys make one statement of two
    Sign {
        /// File of claims, a JSON object; `-` is standard input. Times may be RFC 3339
        #[arg(default_value = "-", value_name = "FILE")]
        claims: PathBuf,
        /// Private key, a JSON Web Key as `tautline keygen` makes it
        #[arg(long = "key", required = true, value_name = "FILE")]
        keys: Vec<PathBuf>,
    },
    /// Make a private key to sign statements with, and print the key set of the public one
    Keygen {
        /// The key's id (`kid`)
        id: String,
        /// Where the private key goes; the file must not exist
        file: PathBuf,
    },
    /// Ask whether an agent may do something, before it does: exit code 0 if it may, 1 if not, 2 if nobody can be asked
    Gate {
        #[command(flatten)]
        ask: Box<gate::Ask>,
        #[command(flatten)]
        target: gate::Target,
        /// Ask nobody: judge by the policies on disk, without approvals and behaviour
        #[arg(long, conflicts_with_all = ["url", "token_file", "ca"])]
        offline: bool,
        /// Ask kept questions again of the log, each at the place that its answer names, and write those whose answers differ:
        /// a file of `{"request": …, "answer": …}`, one a line
        #[arg(long, value_name = "FILE", conflicts_with_all = ["request", "agent", "offline", "url"])]
        verify: Option<PathBuf>,
    },
    /// Explain one alert: what was expected, what was seen, which policy line, and what would have complied
    Explain {
        /// The alert's id (`finding_info.uid`); not needed where the file holds one alert only
        id: Option<String>,
        /// File of alerts, one JSON object a line; `-` is standard input
        #[arg(long, default_value = "-", value_name = "FILE")]
        alerts: PathBuf,
    },
}

/// Options of a back-test.
#[derive(Debug, Args)]
struct Trial {
    /// Files, directories or prefixes of an object store, as of `replay`; or topics of the configuration, `topic:<name>`:
    /// the log, or sources
    #[arg(long, required = true, num_args = 1.., value_name = "FILES|topic:NAME")]
    from: Vec<PathBuf>,
    /// Rules to compare with: a directory (with a `tautline.toml` in it, everything that this names), or the hash of a
    /// rulebook in the store
    #[arg(long, value_name = "DIR|HASH")]
    against: Option<PathBuf>,
    /// The agents' accepted past: learned from first, not judged
    #[arg(long, value_name = "FILE")]
    history: Vec<PathBuf>,
    /// What the files' records are: as for `replay`, or `log` for the records of the log, a file a partition
    #[arg(long, default_value = "auto", value_parser = RecordsOf::named)]
    format: RecordsOf,
    /// Most pages a day, instead of `pages_per_day` of routes.toml: above it, the exit code is 1
    #[arg(long, value_name = "PAGES")]
    budget: Option<u32>,
    /// How many findings of a kind the text shows
    #[arg(long, value_name = "N", default_value_t = 5)]
    examples: usize,
    /// Write every difference to this file, a JSON object a line
    #[arg(long, value_name = "FILE", requires = "against")]
    diff: Option<PathBuf>,
}

/// What the records of files are.
#[derive(Clone, Debug)]
enum RecordsOf {
    Log,
    Source(FormatName),
}

impl RecordsOf {
    fn named(name: &str) -> Result<Self, String> {
        if name == "log" { Ok(Self::Log) } else { name.parse().map(Self::Source) }
    }
}

#[derive(Debug, Subcommand)]
enum DeadLetterCommand {
    /// Decrypt letters with the configuration's `redaction.dead_letter_key`: their records' bytes, in base64
    Open {
        /// File of letters, one JSON object a line; `-` is standard input
        #[arg(default_value = "-", value_name = "FILE")]
        letters: PathBuf,
    },
}

/// Faults found, as opposed to something that went wrong.
const FAULTS: u8 = 1;
const WRONG: u8 = 2;

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.common.log_format);
    match run(&cli) {
        Ok(code) => code,
        // Whoever reads our output may stop at any line.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                match cli.common.log_format {
                    LogFormat::Text => eprintln!("tautline: {line}"),
                    LogFormat::Json => tracing::error!("{line}"),
                }
            }
            ExitCode::from(WRONG)
        }
    }
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_env("TAUTLINE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let mut config = configuration(&cli.common, &cli.command)?;
    let form = cli.common.form();
    let mut out = BufWriter::new(io::stdout().lock());
    let clean = match &cli.command {
        Command::Run => {
            drop(out);
            kafka::run(config)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Demo { seconds } => {
            demo::run(&config, *seconds, form, &mut out)?;
            true
        }
        Command::Replay { files, history, format } => {
            let replay = Replay {
                files: Input::all(files)?,
                history: Input::all(history)?,
                reader: config.reader(format)?,
                redactor: redaction::passing(&config)?,
                form,
                progress: io::stderr().is_terminal(),
            };
            replay.run(rulebook(&config.rulebook, Unreachable::TakeKept)?, &mut out)?
        }
        Command::Backtest(trial) => trial.backtest(&config, cli.common.output == Output::Json)?.run(&mut out)?,
        Command::Check { mutate: true, .. } => check::mutate(&config.rulebook, &redaction::of_examples()?, &mut out)?,
        Command::Check { bless, .. } => {
            let report = check::run(&mut config, &redaction::of_examples()?, *bless);
            match cli.common.output {
                Output::Json => writeln!(out, "{}", report.json())?,
                Output::Auto | Output::Table => write!(out, "{}", report.text())?,
            }
            report.is_clean()
        }
        Command::DeadLetter { command: DeadLetterCommand::Open { letters } } => {
            open_letters(&config, letters, &mut out)?;
            true
        }
        Command::Sign { claims, keys } => {
            let keys = keys.iter().map(|path| Key::read(&read_text(path)?)).collect::<Result<Vec<_>>>()?;
            writeln!(out, "{}", signing::sign(serde_json::from_str(&read_text(claims)?)?, &keys)?)?;
            true
        }
        Command::Keygen { id, file } => {
            let key = Key::new(id, redaction::random()?);
            redaction::write_secret(file, &key.private().to_string())?;
            writeln!(out, "{}", serde_json::json!({ "keys": [key.public()] }))?;
            true
        }
        Command::Gate { verify: Some(answers), .. } => gate::verify(&config, &read_text(answers)?, &mut out)?,
        Command::Gate { ask, target, offline, verify: None } => {
            let answer = answer(&config, ask, target, *offline)?;
            match cli.common.output {
                Output::Json => writeln!(out, "{answer}")?,
                Output::Auto | Output::Table => gate::write(&answer, &mut out)?,
            }
            gate::is_permit(&answer)
        }
        Command::Explain { id, alerts } => {
            let deviation = explain::find(alerts, id.as_deref())?;
            if cli.common.output == Output::Json {
                writeln!(out, "{}", serde_json::to_string(&deviation)?)?;
            } else {
                writeln!(out, "{}", text::explanation(&deviation))?;
            }
            true
        }
    };
    out.flush()?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(FAULTS) })
}

/// A gate's answer: a running one's, or by the policies on disk alone.
fn answer(config: &Config, ask: &gate::Ask, target: &gate::Target, offline: bool) -> Result<serde_json::Value> {
    let request = ask.request(read_text)?;
    if !offline {
        return target.ask(&request, read_text);
    }
    let book = Arc::new(rulebook(&config.rulebook, Unreachable::TakeKept)?);
    gate::offline(request, &book, redaction::passing(config)?)
}

impl Trial {
    fn backtest(&self, config: &Config, json: bool) -> Result<Backtest> {
        let mut books = vec![Arc::new(rulebook(&config.rulebook, Unreachable::TakeKept)?)];
        books.extend(self.against.as_ref().map(|named| backtest::against(config, named)).transpose()?);
        let reader = match &self.format {
            RecordsOf::Log => Reader::default(),
            RecordsOf::Source(name) => config.reader(name)?,
        };
        Ok(Backtest {
            books,
            history: Input::all(&self.history)?,
            past: Past::named(&self.from, matches!(self.format, RecordsOf::Log), config)?,
            reader,
            redactor: redaction::passing(config)?,
            store: config.rulebook.store.clone(),
            budget: self.budget,
            examples: self.examples,
            diff: self.diff.clone(),
            json,
            progress: io::stderr().is_terminal(),
        })
    }
}

fn open_letters(config: &Config, path: &PathBuf, out: &mut impl Write) -> Result<()> {
    let keys = Keys::new(&config.redaction)?;
    let mut letter = Vec::new();
    for input in Input::all(std::slice::from_ref(path))? {
        let mut letters = Records::open(&input, false, &ProgressBar::hidden())?;
        let mut number = 0;
        while letters.next_into(&mut letter)? {
            number += 1;
            let place = || format!("{}:{number}", input.name);
            writeln!(out, "{}", keys.open(serde_json::from_slice(&letter).with_context(place)?).with_context(place)?)?;
        }
    }
    Ok(())
}

/// The text of a file, or of standard input for `-`.
fn read_text(path: &Path) -> Result<String> {
    let read = if path == Path::new("-") { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(path) };
    read.with_context(|| format!("cannot read `{}`", path.display()))
}

fn configuration(common: &Common, command: &Command) -> Result<Config> {
    let named = std::env::args_os().any(|argument| argument.as_encoded_bytes().starts_with(b"--config"));
    let mut config = Config::read(&common.config, named || matches!(command, Command::Run))?;
    let paths = &mut config.rulebook;
    for (given, path) in [
        (&common.rules, &mut paths.rules),
        (&common.agents, &mut paths.agents),
        (&common.estate, &mut paths.estate),
        (&common.people, &mut paths.people),
    ] {
        if let Some(given) = given {
            path.clone_from(given);
        }
    }
    Ok(config)
}

/// Reads the rulebook, or fails with every error on a line of its own.
pub(crate) fn rulebook(paths: &RulebookPaths, unreachable: Unreachable) -> Result<Rulebook> {
    let book = rules::read(paths, unreachable).map_err(|errors| rules::refused(&errors))?;
    book.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(book)
}

impl Common {
    fn form(&self) -> Form {
        let terminal = io::stdout().is_terminal();
        match self.output {
            Output::Json => Form::Json,
            Output::Auto if !terminal => Form::Json,
            Output::Auto | Output::Table => Form::Table { colour: terminal },
        }
    }
}
