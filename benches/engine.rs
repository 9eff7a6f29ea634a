//! What one event costs in the process, step by step: `cargo bench`.
//!
//! With `TAUTLINE_BENCH_EVENTS=N` and `TAUTLINE_BENCH_KIND=action`, `cloudtrail` or `work` it only takes N events all
//! the way, in functions of their own, whose instructions callgrind counts (`--toggle-collect='*whole_*'`).

use std::cell::RefCell;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use divan::Bencher;
use rustc_hash::FxHashMap;
use tautline_detectors::deviation::Deviation;
use tautline_detectors::engine::{Engine, Input};
use tautline_detectors::event::{Event, Millis};
use tautline_detectors::rulebook::{DecisionCache, Facts, RuleFile, Rulebook};
use tautline_ingest::redact::{Redactor, Settings};
use tautline_ingest::resolve::resolve;
use tautline_ingest::{Format, decode};

use generator::{Generator, Kind};
use work::Policy;
use work_event::WorkEvent;

#[path = "../examples/common/generator/mod.rs"]
mod generator;
#[path = "../examples/common/work.rs"]
mod work;
#[path = "../examples/common/work_event.rs"]
mod work_event;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const AGENTS: usize = 1_000;
/// Events that are learned before anything is measured, and among how many they are spread: 10 of 20 workdays.
const WARM: u64 = 200_000;
const EVENTS: u64 = 400_000;
/// Later than every event.
const RECEIVED: Millis = 4_000_000_000_000;

fn main() {
    match std::env::var("TAUTLINE_BENCH_EVENTS").map(|events| events.parse()) {
        Ok(Ok(events)) => instructions(events),
        _ => divan::main(),
    }
}

/// Agent actions with runs, approvals, arguments and reasoning, of which a run has only such; CloudTrail records.
const SOURCES: [Source; 2] = [
    Source { name: "action", mark: "\"approval\"", format: Format::AgentAction },
    Source { name: "cloudtrail", mark: "\"eventVersion\"", format: Format::Cloudtrail },
];

#[derive(Clone, Copy)]
struct Source {
    name: &'static str,
    /// What its events have in them.
    mark: &'static str,
    format: Format,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Source {
    fn next(self, generator: &mut Generator) -> String {
        let mut line = String::new();
        loop {
            generator.next(&mut line);
            if line.contains(self.mark) {
                return line;
            }
        }
    }

    fn decode(self, line: &str) -> Input {
        let event = decode(line.as_bytes(), self.format, RECEIVED).pop().and_then(Result::ok);
        Input::Event(Box::new(event.unwrap_or_default()))
    }

    fn resolved(self, line: &str, book: &Rulebook) -> Input {
        let mut input = self.decode(line);
        if let Input::Event(event) = &mut input {
            resolve(event, book);
        }
        input
    }
}

/// The product with its default rules, which has seen half of the days of its agents.
struct Product {
    book: Arc<Rulebook>,
    generator: Generator,
    engine: Engine,
    redactor: Redactor,
}

impl Product {
    fn new(agents: usize, warm: u64) -> Self {
        let book = Arc::new(rulebook(agents));
        let mut generator = Generator::new(Kind::Actions, agents, EVENTS, 1, true);
        let mut engine = Engine::new(Arc::clone(&book));
        let mut line = String::new();
        for _ in 0..warm {
            generator.next(&mut line);
            let mut input = Source { name: "", mark: "", format: Format::Auto }.decode(&line);
            if let Input::Event(event) = &mut input {
                resolve(event, &book);
            }
            engine.step(&input);
        }
        let redactor = Redactor::new(b"bench", Settings::default()).unwrap_or_else(|error| fail(&error));
        Self { book, generator, engine, redactor }
    }
}

/// The rules of the repository with the generated registry.
fn rulebook(agents: usize) -> Rulebook {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let mut files = Vec::new();
    for folder in fs::read_dir(&rules).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for path in fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name != "example" && (file.ends_with(".toml") || file.ends_with(".cedar")) {
                files.push((format!("{name}/{file}"), fs::read_to_string(path).unwrap_or_default()));
            }
        }
    }
    for name in ["schema.cedarschema", "trust.toml"] {
        files.push((name.to_owned(), fs::read_to_string(rules.join(name)).unwrap_or_default()));
    }
    for (name, text) in generator::registry::files(u64::try_from(agents).unwrap_or_default()) {
        let folder =
            if ["agents.toml", "playbooks.toml"].contains(&name) { name.trim_end_matches(".toml") } else { "" };
        files.push((Path::new("registry").join(folder).join(name).to_string_lossy().into_owned(), text));
    }
    let files = files.into_iter().map(|(name, text)| RuleFile { path: name.clone(), name, text });
    Rulebook::read(files.collect()).unwrap_or_else(|errors| fail(&errors))
}

/// The common work, warm too.
struct Work {
    accounts: FxHashMap<String, String>,
    generator: Generator,
    engine: Engine,
    /// The event under way, used again for the next one.
    event: Input,
}

impl Work {
    fn new(agents: usize, warm: u64) -> Self {
        let policy = serde_json::from_value(generator::work::policy());
        let Policy { accounts, teams } = policy.unwrap_or_else(|error| fail(&error));
        let book = Arc::new(work::rulebook(teams).unwrap_or_else(|error| fail(&error)));
        let mut line = String::new();
        let mut work = Self {
            accounts,
            generator: Generator::new(Kind::Work, agents, EVENTS, 1, true),
            engine: Engine::new(book),
            event: Input::Event(Box::default()),
        };
        for _ in 0..warm {
            work.generator.next(&mut line);
            work.fill(&line);
            work.step();
        }
        work
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.generator.next(&mut line);
        line
    }

    fn fill(&mut self, line: &str) {
        let parsed = WorkEvent::parse(line.as_bytes()).unwrap_or_else(|error| fail(&error));
        if let Input::Event(event) = &mut self.event {
            work::fill(event, &parsed, &self.accounts).unwrap_or_else(|error| fail(&error));
        }
    }

    fn step(&mut self) -> Option<String> {
        let deviations = work::judge(&mut self.engine, &self.event);
        (!deviations.is_empty()).then(|| work::alert(&deviations))
    }
}

/// A benchmark of what cannot be set up has no result.
fn fail(error: &impl std::fmt::Debug) -> ! {
    eprintln!("{error:?}");
    std::process::exit(1)
}

/// What a decoder is held against: nothing but the same bytes parsed, by the library that it parses with and by the other.
/// Of both it is checked that the bytes are text, as a decoder has to.
#[divan::bench(args = SOURCES, sample_size = 1_000)]
fn product_0_parse_sonic_rs(bencher: Bencher<'_, '_>, source: Source) {
    let mut generator = Generator::new(Kind::Actions, AGENTS, EVENTS, 1, true);
    let lines = bencher.with_inputs(|| source.next(&mut generator));
    lines.bench_local_refs(|line| sonic_rs::from_slice::<sonic_rs::Value>(line.as_bytes()));
}

#[divan::bench(args = SOURCES, sample_size = 1_000)]
fn product_0_parse_serde_json(bencher: Bencher<'_, '_>, source: Source) {
    let mut generator = Generator::new(Kind::Actions, AGENTS, EVENTS, 1, true);
    let lines = bencher.with_inputs(|| source.next(&mut generator));
    lines.bench_local_refs(|line| serde_json::from_slice::<serde_json::Value>(line.as_bytes()));
}

#[divan::bench(args = SOURCES, sample_size = 1_000)]
fn product_1_decode(bencher: Bencher<'_, '_>, source: Source) {
    let mut generator = Generator::new(Kind::Actions, AGENTS, EVENTS, 1, true);
    let lines = bencher.with_inputs(|| source.next(&mut generator));
    lines.bench_local_refs(|line| decode(line.as_bytes(), source.format, RECEIVED));
}

#[divan::bench(args = SOURCES, sample_size = 1_000)]
fn product_2_resolve(bencher: Bencher<'_, '_>, source: Source) {
    let mut product = Product::new(AGENTS, 0);
    let decoded = || match source.decode(&source.next(&mut product.generator)) {
        Input::Event(event) => *event,
        _ => Event::default(),
    };
    bencher.with_inputs(decoded).bench_local_refs(|event| resolve(event, &product.book));
}

#[divan::bench(args = SOURCES, sample_size = 1_000)]
fn product_3_redact(bencher: Bencher<'_, '_>, source: Source) {
    let Product { book, mut generator, mut redactor, .. } = Product::new(AGENTS, 0);
    let resolved = || match source.resolved(&source.next(&mut generator), &book) {
        Input::Event(event) => *event,
        _ => Event::default(),
    };
    bencher.with_inputs(resolved).bench_local_refs(|event| redactor.redact(event, &book.registry));
}

#[divan::bench(args = SOURCES, sample_size = 1_000)]
fn product_4_judge_cached(bencher: Bencher<'_, '_>, source: Source) {
    let Product { book, mut generator, .. } = Product::new(AGENTS, 0);
    let mut cache = DecisionCache::default();
    for _ in 0..10_000 {
        judge(&mut cache, &source.resolved(&source.next(&mut generator), &book), &book);
    }
    bencher
        .with_inputs(|| source.resolved(&source.next(&mut generator), &book))
        .bench_local_refs(|input| judge(&mut cache, input, &book));
}

fn judge(cache: &mut DecisionCache, input: &Input, book: &Rulebook) {
    let Input::Event(event) = input else { return };
    let agent = event.agent.registered().and_then(|id| book.registry.by_id(id));
    black_box(cache.judge(book, &Facts::of(event, agent, book)));
}

#[divan::bench(args = SOURCES, sample_size = 1_000)]
fn product_5_step(bencher: Bencher<'_, '_>, source: Source) {
    let Product { book, mut generator, mut engine, .. } = Product::new(AGENTS, WARM);
    bencher
        .with_inputs(|| source.resolved(&source.next(&mut generator), &book))
        .bench_local_refs(|input| engine.step(input));
}

#[divan::bench(args = SOURCES, sample_size = 1_000)]
fn product_6_whole(bencher: Bencher<'_, '_>, source: Source) {
    let Product { book, mut generator, mut engine, mut redactor } = Product::new(AGENTS, WARM);
    bencher
        .with_inputs(|| source.next(&mut generator))
        .bench_local_refs(|line| whole_product((&mut engine, &mut redactor), source, line, &book));
}

#[divan::bench(sample_size = 1_000)]
fn work_1_decode(bencher: Bencher<'_, '_>) {
    let work = RefCell::new(Work::new(AGENTS, 0));
    bencher.with_inputs(|| work.borrow_mut().line()).bench_local_refs(|line| work.borrow_mut().fill(line));
}

#[divan::bench(sample_size = 1_000)]
fn work_2_whole(bencher: Bencher<'_, '_>) {
    let work = RefCell::new(Work::new(AGENTS, WARM));
    bencher.with_inputs(|| work.borrow_mut().line()).bench_local_refs(|line| whole_work(&mut work.borrow_mut(), line));
}

/// The whole memory of 10,000 agents as tables.
#[divan::bench(args = [10_000], sample_count = 10)]
fn snapshot(bencher: Bencher<'_, '_>, agents: usize) {
    let Product { mut engine, .. } = Product::new(agents, WARM);
    bencher.bench_local(|| {
        let pieces = engine.freeze();
        pieces.iter().map(|piece| piece.tables().map_or(0, |tables| tables.len())).sum::<usize>()
    });
}

#[inline(never)]
fn whole_product(
    (engine, redactor): (&mut Engine, &mut Redactor),
    source: Source,
    line: &str,
    book: &Rulebook,
) -> Vec<Deviation> {
    let event = redactor.read(line.as_bytes(), &source.format.into(), RECEIVED, book).pop().and_then(Result::ok);
    engine.step(&Input::Event(Box::new(event.unwrap_or_default()))).1
}

#[inline(never)]
fn whole_work(work: &mut Work, line: &str) -> Option<String> {
    work.fill(line);
    work.step()
}

/// Takes events of the kind that `TAUTLINE_BENCH_KIND` names, with fewer before them: all takes far longer here.
fn instructions(events: u64) {
    let (agents, warm) = (AGENTS / 10, WARM / 10);
    let of = std::env::var("TAUTLINE_BENCH_KIND").unwrap_or_default();
    if of == "work" {
        let mut work = Work::new(agents, warm);
        for _ in 0..events {
            let line = work.line();
            black_box(whole_work(&mut work, &line));
        }
    }
    for source in SOURCES.into_iter().filter(|source| source.name == of) {
        let Product { book, mut generator, mut engine, mut redactor } = Product::new(agents, warm);
        for _ in 0..events {
            let line = source.next(&mut generator);
            black_box(whole_product((&mut engine, &mut redactor), source, &line, &book));
        }
    }
}
