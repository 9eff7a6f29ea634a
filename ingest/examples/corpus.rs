//! Counts what of a corpus decodes and why the rest does not.
//!
//!     cargo run -p tautline-ingest --example corpus -- [--in MEMBER]... [--show REASON] [--print] PATH...
//!
//! A path is a file or a folder of files: JSON, JSON lines, JSON arrays, plain or compressed with gzip. Where a corpus
//! wraps its records, `--in` names the member that a record stands in, as JSON or as a string of JSON. `--show` prints the
//! rejections of one reason, `--print` every event.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use serde_json::value::RawValue;
use tautline_ingest::{Format, decode};

#[derive(Default)]
struct Options {
    members: Vec<String>,
    show: Option<String>,
    print: bool,
    paths: Vec<PathBuf>,
}

/// What became of one folder.
#[derive(Default)]
struct Count {
    records: usize,
    decoded: BTreeMap<&'static str, usize>,
    rejected: BTreeMap<&'static str, usize>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let mut folders: BTreeMap<PathBuf, Count> = BTreeMap::new();
    for path in &options.paths {
        let top = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(path) };
        for file in files(path)? {
            count(&file, &options, folders.entry(top.to_owned()).or_default())?;
        }
    }
    println!("| folder | records | decoded | rejected |\n|---|---|---|---|");
    for (folder, count) in &folders {
        let name = folder.file_name().unwrap_or(folder.as_os_str()).display();
        println!("| {name} | {} | {} | {} |", count.records, listed(&count.decoded), listed(&count.rejected));
    }
    Ok(())
}

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--in" => options.members.push(value()?),
            "--print" => options.print = true,
            "--show" => options.show = Some(value()?),
            _ => options.paths.push(argument.into()),
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

fn count(file: &Path, options: &Options, count: &mut Count) -> Result<(), Box<dyn Error>> {
    let mut bytes = Vec::new();
    if file.extension().is_some_and(|extension| extension == "gz") {
        MultiGzDecoder::new(File::open(file)?).read_to_end(&mut bytes)?;
    } else {
        File::open(file)?.read_to_end(&mut bytes)?;
    }
    let text = String::from_utf8_lossy(&bytes);
    let received = jiff::Timestamp::now().as_millisecond();
    for record in records(&text) {
        let record = unwrapped(record, &options.members);
        for result in decode(record.as_bytes(), Format::Auto, received) {
            count.records += 1;
            match result {
                Ok(event) => {
                    if options.print {
                        println!("{}", serde_json::to_string(&event)?);
                    }
                    *count.decoded.entry(event.source.name()).or_default() += 1;
                }
                Err(rejection) => {
                    if options.show.as_deref() == Some(rejection.reason.name()) {
                        println!("{}: {rejection}: {}", file.display(), record.chars().take(300).collect::<String>());
                    }
                    *count.rejected.entry(rejection.reason.name()).or_default() += 1;
                }
            }
        }
    }
    Ok(())
}

/// The documents of a file; one that is not JSON throughout is taken line by line.
fn records(text: &str) -> Vec<String> {
    let documents: Result<Vec<Box<RawValue>>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    match documents {
        Ok(documents) => documents.iter().map(|document| document.get().to_owned()).collect(),
        Err(_) => text.lines().map(str::to_owned).collect(),
    }
}

/// The record in the first of the members that is there, else the whole.
fn unwrapped(record: String, members: &[String]) -> String {
    let Ok(Value::Object(row)) = serde_json::from_str::<Value>(&record) else { return record };
    match members.iter().find_map(|member| row.get(member)) {
        Some(Value::String(text)) => text.clone(),
        Some(inner) => inner.to_string(),
        None => record,
    }
}

fn listed(counts: &BTreeMap<&'static str, usize>) -> String {
    let total: usize = counts.values().sum();
    let parts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if parts.is_empty() { "0".to_owned() } else { format!("{total}: {}", parts.join(", ")) }
}
