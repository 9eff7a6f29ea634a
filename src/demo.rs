//! `tautline demo`: the main job without a broker.
//!
//! Recorded cloud events (see `demo/README.md`) and the story of agents that go wrong are replayed at speed through the
//! same decoder and engine as a live run; alerts are printed as they fire, and `/metrics` and the live page are served.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use tautline_detectors::deviation::Deviation;
use tautline_detectors::engine::Verdict;
use tautline_detectors::event::Millis;
use tautline_detectors::rulebook::{RuleFile, Rulebook};
use tautline_ingest::Format;
use tokio::net::TcpListener;

use crate::census::Census;
use crate::config::Config;
use crate::feed::Feed;
use crate::files::Records;
use crate::http;
use crate::output::text;
use crate::replay::Form;
use crate::status::Status;
use crate::{redaction, rules};

const HISTORY: &[u8] = include_bytes!("../demo/history.jsonl.gz");
const STORY: &[u8] = include_bytes!("../demo/story.jsonl.gz");
const REGISTRY: [(&str, &str, &str); 5] = [
    ("registry/agents/demo.toml", "demo/agents.toml", include_str!("../demo/agents.toml")),
    ("registry/estate.toml", "demo/estate.toml", include_str!("../demo/estate.toml")),
    ("registry/people.toml", "demo/people.toml", include_str!("../demo/people.toml")),
    ("registry/playbooks/demo.toml", "demo/playbooks.toml", include_str!("../demo/playbooks.toml")),
    ("registry/routes.toml", "demo/routes.toml", include_str!("../demo/routes.toml")),
];

/// Runs the demo until its story ends or Ctrl-C comes.
pub(crate) fn run(config: &Config, seconds: u64, form: Form, out: &mut impl Write) -> Result<()> {
    let mut feed = Feed::new(Arc::new(rulebook(&config.rulebook.rules)?), redaction::passing(config)?, Format::Auto);
    let received = Timestamp::now().as_millisecond();
    let history = lines(HISTORY)?;
    let learned = history.iter().flat_map(|line| feed.accept(line, received).events);
    let learned = learned.filter(|(_, verdict)| *verdict == Verdict::Judged).count();

    let status = Arc::new(Status::new()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(listen(config.http.listen))?;
    let address = listener.local_addr()?;
    runtime.spawn(http::serve(listener, Arc::clone(&status), None, std::future::pending()));
    let interrupted = runtime.spawn(tokio::signal::ctrl_c());

    let story = lines(STORY)?;
    eprintln!("learned the agents' past from {learned} events; live page and metrics: http://{address}/");
    eprintln!("{} events follow, {seconds} seconds of story; Ctrl-C ends it", story.len());
    if form != Form::Json {
        writeln!(out, "{}", text::heading())?;
    }
    let mut controls = BTreeSet::new();
    let mut alerts = 0;
    let start = Instant::now();
    let step = Duration::from_secs(seconds) / u32::try_from(story.len().max(1)).unwrap_or(u32::MAX);
    for (number, line) in (0_u32..).zip(&story) {
        std::thread::sleep((start + step * number).saturating_duration_since(Instant::now()));
        if interrupted.is_finished() {
            break;
        }
        for deviation in judge(&mut feed, line, received, &status) {
            form.write(out, &deviation)?;
            controls.insert(deviation.control.clone());
            alerts += 1;
            status.deviation(deviation);
        }
        out.flush()?;
    }
    let names: Vec<&str> = controls.iter().map(String::as_str).collect();
    eprintln!("{alerts} alerts of {} controls: {}", names.len(), names.join(", "));
    Ok(())
}

/// The controls at hand, with the demo's own registry.
fn rulebook(rules: &Path) -> Result<Rulebook> {
    let files = REGISTRY.map(|(name, path, text)| RuleFile { name: name.into(), path: path.into(), text: text.into() });
    rules::read_with(rules, files.to_vec(), Vec::new()).map_err(|errors| rules::refused(&errors))
}

/// The configured port, or any: a demo does not fail for a port that is taken.
async fn listen(address: SocketAddr) -> Result<TcpListener> {
    match http::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(_) => http::bind(SocketAddr::new(address.ip(), 0)).await,
    }
}

fn judge(feed: &mut Feed, line: &[u8], received: Millis, status: &Status) -> Vec<Deviation> {
    let fed = feed.judge(line, received);
    status.metrics.events(&fed.events);
    fed.rejections.iter().for_each(|rejection| status.metrics.rejected(rejection));
    let (book, mut census) = (feed.engine().rulebook(), Census::default());
    census.add(feed.engine().baselines(), &book.learning);
    status.agents(book, &census);
    fed.deviations
}

fn lines(zipped: &'static [u8]) -> Result<Vec<Vec<u8>>> {
    let mut records = Records::of(zipped, false)?;
    let mut all = Vec::new();
    let mut record = Vec::new();
    while records.next_into(&mut record)? {
        if !record.trim_ascii().is_empty() {
            all.push(record.clone());
        }
    }
    Ok(all)
}
