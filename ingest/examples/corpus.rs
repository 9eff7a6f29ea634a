//! Counts what of a corpus decodes and why the rest does not.
//!
//!     cargo run -p tautline-ingest --example corpus -- [--in MEMBER]... [--format FORMAT] [--show REASON] [--print] PATH...
//!
//! A path is a file or a folder of files: JSON, JSON lines, JSON arrays, a batch of protobuf, plain or compressed with gzip.
//! Where a corpus wraps its records, `--in` names the member that a record stands in, as JSON or as a string of JSON.
//! `--format` holds for the paths behind it, `mapping:NAME` among them, of the file that `--config` names. `--show` prints the
//! rejections of one reason, `--print` every event.
#![allow(clippy::print_stdout)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use serde_json::value::RawValue;
use tautline_detectors::event::{Event, Outcome};
use tautline_ingest::{Mapping, Reader};

#[derive(Default)]
struct Options {
    members: Vec<String>,
    mappings: Vec<Arc<Mapping>>,
    show: Option<String>,
    print: bool,
    paths: Vec<(String, Reader, PathBuf)>,
}

/// The configuration's mappings.
#[derive(serde::Deserialize)]
struct Mappings {
    mappings: Vec<Mapping>,
}

/// What became of one folder.
#[derive(Default)]
struct Count {
    records: usize,
    decoded: BTreeMap<&'static str, usize>,
    rejected: BTreeMap<&'static str, usize>,
    /// What decoded events do not say.
    without: BTreeMap<&'static str, usize>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let mut folders: BTreeMap<(PathBuf, &str), Count> = BTreeMap::new();
    for (format, reader, path) in &options.paths {
        let top = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(path) };
        let count = folders.entry((top.to_owned(), format)).or_default();
        for file in files(path)? {
            count.file(&file, &options, reader)?;
        }
    }
    println!("| folder | format | records | decoded | rejected | decoded without |\n|---|---|---|---|---|---|");
    for ((folder, format), Count { records, decoded, rejected, without }) in &folders {
        let name = folder.file_name().unwrap_or(folder.as_os_str()).display();
        let [decoded, rejected] = [listed(decoded), listed(rejected)];
        let without: Vec<String> = without.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("| {name} | {format} | {records} | {decoded} | {rejected} | {} |", without.join(", "));
    }
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options::default();
    let (mut format, mut reader) = ("auto".to_owned(), Reader::default());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--in" => options.members.push(value()?),
            "--print" => options.print = true,
            "--show" => options.show = Some(value()?),
            "--config" => {
                let config: Mappings = toml::from_str(&fs::read_to_string(value()?)?)?;
                options.mappings.extend(config.mappings.into_iter().map(Arc::new));
            }
            "--format" => {
                format = value()?;
                reader = named(&format, &options.mappings)?;
            }
            _ => options.paths.push((format.clone(), reader.clone(), argument.into())),
        }
    }
    Ok(options)
}

/// The files at a path, in order; those that only describe a corpus are left out.
fn files(path: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "md") {
            found.extend(files(&path)?);
        }
    }
    found.sort();
    Ok(found)
}

impl Count {
    fn file(&mut self, file: &Path, options: &Options, reader: &Reader) -> Result<(), Box<dyn Error>> {
        let mut bytes = Vec::new();
        if file.extension().is_some_and(|extension| extension == "gz") {
            MultiGzDecoder::new(File::open(file)?).read_to_end(&mut bytes)?;
        } else {
            File::open(file)?.read_to_end(&mut bytes)?;
        }
        let received = jiff::Timestamp::now().as_millisecond();
        for record in records(&bytes) {
            let record = unwrapped(&record, &options.members);
            for result in reader.decode(&record, received) {
                self.records += 1;
                match result {
                    Ok(event) => {
                        if options.print {
                            println!("{}", serde_json::to_string(&event)?);
                        }
                        self.event(&event);
                    }
                    Err(rejection) => {
                        if options.show.as_deref() == Some(rejection.reason.name()) {
                            let text = String::from_utf8_lossy(&record);
                            println!("{}: {rejection}: {}", file.display(), text.chars().take(300).collect::<String>());
                        }
                        *self.rejected.entry(rejection.reason.name()).or_default() += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, event: &Event) {
        *self.decoded.entry(event.source.name()).or_default() += 1;
        for (name, is_there) in [
            ("principal", !event.principal.id.is_empty() || !event.principal.claimed_agent.is_empty()),
            ("action", !event.action.is_empty()),
            ("resource", !event.resource.kind.is_empty() || !event.resource.id.is_empty()),
            ("outcome", event.outcome != Outcome::Unknown),
        ] {
            if !is_there {
                *self.without.entry(name).or_default() += 1;
            }
        }
    }
}

fn named(format: &str, mappings: &[Arc<Mapping>]) -> Result<Reader, String> {
    let Some(name) = format.strip_prefix("mapping:") else { return Ok(Reader::Format(format.parse()?)) };
    let mapping = mappings.iter().find(|mapping| mapping.name == name);
    mapping.map(|mapping| Reader::Mapping(Arc::clone(mapping))).ok_or_else(|| format!("unknown mapping `{name}`"))
}

/// The documents of a file; one that is not JSON throughout is taken line by line, and one that is no text as a whole.
fn records(bytes: &[u8]) -> Vec<Cow<'_, [u8]>> {
    let Ok(text) = std::str::from_utf8(bytes) else { return vec![Cow::Borrowed(bytes)] };
    let documents: Result<Vec<&RawValue>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    match documents {
        Ok(documents) => documents.iter().map(|document| document.get().as_bytes().into()).collect(),
        Err(_) => text.lines().map(|line| line.as_bytes().into()).collect(),
    }
}

/// The record in the first of the members that is there, else the whole.
fn unwrapped<'r>(record: &'r [u8], members: &[String]) -> Cow<'r, [u8]> {
    let Ok(Value::Object(row)) = serde_json::from_slice(record) else { return record.into() };
    match members.iter().find_map(|member| row.get(member)) {
        Some(Value::String(text)) => text.clone().into_bytes().into(),
        Some(inner) => inner.to_string().into_bytes().into(),
        None => record.into(),
    }
}

fn listed(counts: &BTreeMap<&'static str, usize>) -> String {
    let total: usize = counts.values().sum();
    let parts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if parts.is_empty() { "0".to_owned() } else { format!("{total}: {}", parts.join(", ")) }
}
