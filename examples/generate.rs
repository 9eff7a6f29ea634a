//! Makes up events of agents, the same for the same seed, with what belongs to them: see `examples/common/generator`.
//!
//!     cargo run --release --example generate -- --kind work --agents 10000 --events 2000000 --policy policy.json \
//!         --bootstrap 127.0.0.1:19092 --topic work

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;

use generator::{Generator, Kind};
use topic::Topic;

#[path = "common/generator/mod.rs"]
mod generator;
#[path = "common/topic.rs"]
mod topic;

#[derive(Parser)]
struct Options {
    #[arg(long, value_enum)]
    kind: Kind,
    /// How many agents there are
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// How many events they make, over 20 workdays
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Every agent comes once, before they come as often as they do
    #[arg(long)]
    everyone_first: bool,
    /// Only one event, the next after these, for which there must be an alert
    #[arg(long)]
    deviating: bool,
    /// Write the events to this file, one a line; `-` is standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the events to a topic of this broker, `host:port`
    #[arg(long, requires = "topic")]
    bootstrap: Option<String>,
    #[arg(long, requires = "bootstrap")]
    topic: Option<String>,
    /// Write the policy of the common work to this file
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Write the registry of the agents to this directory
    #[arg(long, value_name = "DIR")]
    registry: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(file) = &options.policy {
        fs::write(file, generator::work::policy().to_string()).with_context(|| file.display().to_string())?;
    }
    if let Some(directory) = &options.registry {
        fs::create_dir_all(directory)?;
        for (name, text) in generator::registry::files(u64::try_from(options.agents)?) {
            fs::write(directory.join(name), text)?;
        }
    }
    if let Some(file) = &options.out {
        let mut out = open(file).with_context(|| file.display().to_string())?;
        each(&options, |event| Ok(writeln!(out, "{event}")?))?;
        out.flush()?;
    }
    if let (Some(bootstrap), Some(name)) = (&options.bootstrap, &options.topic) {
        let topic = Topic::open(bootstrap, name)?;
        each(&options, |event| topic.send(event))?;
        topic.finish()?;
    }
    Ok(())
}

fn open(file: &Path) -> io::Result<BufWriter<Box<dyn Write>>> {
    let out: Box<dyn Write> =
        if file == Path::new("-") { Box::new(io::stdout().lock()) } else { Box::new(File::create(file)?) };
    Ok(BufWriter::new(out))
}

fn each(options: &Options, mut take: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let Options { kind, agents, events, seed, everyone_first, .. } = *options;
    let mut generator = Generator::new(kind, agents, events, seed, everyone_first);
    let mut event = String::new();
    if options.deviating {
        generator.number = events;
        generator.must_alert = true;
    }
    for _ in 0..if options.deviating { 1 } else { events } {
        generator.next(&mut event);
        take(&event)?;
    }
    Ok(())
}
