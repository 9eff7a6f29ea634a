//! How long answers take: asks a gate about the actions of a file, at a rate, over connections that are kept, and says how
//! long each answer took from the moment at which it was due. With `--answers`, questions and answers are kept, for
//! `tautline gate verify`.
//!
//!     cargo run --release --example ask -- --url http://127.0.0.1:9465 --events actions.jsonl --rate 1000 --seconds 60

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::{Value, json};
use tautline::gate::Client;
use tokio::time::Instant;

#[derive(Parser)]
struct Options {
    /// Base URL of the gate
    #[arg(long, default_value = "http://127.0.0.1:9465")]
    url: String,
    /// Agent actions to ask about, one a line, over and over
    #[arg(long)]
    events: PathBuf,
    /// Questions a second
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// For how long
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// How many are asked at once at most
    #[arg(long, default_value_t = 16)]
    connections: u32,
    /// Write what was asked and answered to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
}

/// What became of one question.
struct Asked {
    took: Duration,
    request: Value,
    answer: Result<Value>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(&options))
}

async fn run(options: &Options) -> Result<()> {
    let token = std::env::var("TAUTLINE_GATE_TOKEN").ok();
    let client = Arc::new(Client::new(&options.url, token.as_deref(), None)?);
    let questions = Arc::new(questions(&options.events)?);
    let start = Instant::now() + Duration::from_millis(200);
    let tasks: Vec<_> = (0..options.connections)
        .map(|first| {
            let (client, questions) = (Arc::clone(&client), Arc::clone(&questions));
            let (rate, seconds, step) = (options.rate, options.seconds, options.connections);
            tokio::spawn(async move {
                let mut asked = Vec::new();
                for number in (first..).step_by(step as usize) {
                    let after = f64::from(number) / rate;
                    let Some(request) = questions.get(number as usize % questions.len()).filter(|_| after < seconds)
                    else {
                        return asked;
                    };
                    let due = start + Duration::from_secs_f64(after);
                    tokio::time::sleep_until(due).await;
                    let answer = client.ask(request).await;
                    asked.push(Asked { took: due.elapsed(), request: request.clone(), answer });
                }
                asked
            })
        })
        .collect();
    let mut asked = Vec::new();
    for task in tasks {
        asked.extend(task.await?);
    }
    write(options, &asked)?;
    report(&mut asked);
    Ok(())
}

/// The questions that agents would have asked before these actions; without the times at which they acted.
fn questions(path: &PathBuf) -> Result<Vec<Value>> {
    let lines = BufReader::new(File::open(path).with_context(|| path.display().to_string())?).lines();
    let mut questions = Vec::new();
    for line in lines {
        let event: Value = serde_json::from_str(&line?)?;
        if let Some(data) = event.get("data").filter(|data| data.pointer("/agent/id").is_some()) {
            questions.push(question(data));
        }
    }
    anyhow::ensure!(!questions.is_empty(), "`{}` has no agent actions", path.display());
    Ok(questions)
}

fn question(data: &Value) -> Value {
    let of = |pointer: &str| data.pointer(pointer).cloned().unwrap_or_default();
    let text = |pointer: &str| data.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let operation = text("/operation");
    let name = if operation.is_empty() { text("/tool") } else { operation };
    let given = |members: &[(&str, &str)]| -> Value {
        let given = members.iter().map(|(name, pointer)| ((*name).to_owned(), of(pointer)));
        given.filter(|(_, value)| !value.is_null()).collect()
    };
    json!({
        "subject": { "type": "agent", "id": of("/agent/id"), "properties": given(&[("identity", "/agent/identity")]) },
        "action": { "name": name, "properties": given(&[("verb", "/verb"), ("parameters", "/arguments")]) },
        "resource": {
            "type": text("/resource/type"), "id": text("/resource/id"),
            "properties": given(&[("account", "/account"), ("region", "/region"), ("environment", "/environment")]),
        },
        "context": given(&[
            ("tool", "/tool"), ("reasoning", "/reasoning"), ("approval", "/approval"), ("session", "/session"),
        ]),
    })
}

fn write(options: &Options, asked: &[Asked]) -> Result<()> {
    let Some(path) = &options.answers else { return Ok(()) };
    let mut out = BufWriter::new(File::create(path).with_context(|| path.display().to_string())?);
    for Asked { request, answer, .. } in asked {
        if let Ok(answer) = answer {
            writeln!(out, "{}", json!({ "request": request, "answer": answer }))?;
        }
    }
    Ok(out.flush()?)
}

fn report(asked: &mut [Asked]) {
    asked.sort_unstable_by_key(|asked| asked.took);
    let at = |permille: usize| {
        let index = (asked.len() * permille / 1_000).min(asked.len().saturating_sub(1));
        asked.get(index).map_or(f64::NAN, |asked| asked.took.as_secs_f64() * 1e3)
    };
    let failed = asked.iter().filter_map(|asked| asked.answer.as_ref().err());
    let counted = |pointer: &str, value: Value| {
        let answers = asked.iter().filter_map(|asked| asked.answer.as_ref().ok());
        answers.filter(|answer| answer.pointer(pointer) == Some(&value)).count()
    };
    println!(
        "asked {} p50 {:.2} p90 {:.2} p99 {:.2} max {:.2} ms permitted {} unavailable {} failed {}{}",
        asked.len(),
        at(500),
        at(900),
        at(990),
        at(1_000),
        counted("/decision", true.into()),
        counted("/context/behaviour", "unavailable".into()),
        failed.clone().count(),
        failed.take(1).map(|error| format!(" ({error:#})")).collect::<String>(),
    );
}
