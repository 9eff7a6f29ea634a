#![allow(warnings)]

#[path = "common/work.rs"]
mod work;
#[path = "common/work_event.rs"]
mod work_event;
use std::sync::Arc;
use std::time::Instant;
use tautline_detectors::engine::{Engine, Input};
use tautline_detectors::event::Event;
#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn rss() -> u64 { let s = std::fs::read_to_string("/proc/self/status").unwrap(); s.lines().find(|l| l.starts_with("VmRSS")).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap() }

fn main() {
    let a: Vec<String> = std::env::args().collect();
    let text = std::fs::read_to_string(&a[1]).unwrap();
    let policy: work::Policy = serde_json::from_str(&std::fs::read_to_string(&a[2]).unwrap()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let n = lines.len() as f64;
    let mut engines: Vec<Engine> = Vec::new();
    let accounts = policy.accounts.clone();
    let book = Arc::new(work::rulebook(policy.teams).unwrap());
    for _ in 0..4 { engines.push(Engine::new(book.clone())); }
    let r0 = rss();
    let t = Instant::now();
    let mut input = Input::Event(Box::default());
    let mut alerts = 0; let mut out = String::new();
    for l in &lines {
        let f: work_event::Fields = serde_json::from_str(l).unwrap();
        let Input::Event(e) = &mut input else { panic!() };
        f.fill(&accounts, e).unwrap();
        let shard = e.agent.registered().unwrap().as_bytes().iter().fold(0u32, |h, b| h.wrapping_mul(31).wrapping_add(*b as u32)) % 4;
        let engine = &mut engines[shard as usize];
        let (_, d) = engine.step(&input);
        if !d.is_empty() {
            alerts += 1;
            out.push_str(&work::alert(&d)); out.push('\n');
            let Input::Event(e) = &input else { panic!() };
            engine.step(&Input::Accepted(e.clone()));
        }
    }
    println!("all {:.3} us alerts {alerts} rss +{} KB", t.elapsed().as_secs_f64() / n * 1e6, rss() - r0);
    let t = Instant::now();
    let mut bytes = 0; 
    for e in &mut engines { for p in e.freeze() { for b in p.tables().unwrap() { let mut v = Vec::new(); { let mut w = arrow::ipc::writer::StreamWriter::try_new(&mut v, b.schema_ref()).unwrap(); w.write(&b).unwrap(); w.finish().unwrap(); } bytes += v.len(); } } }
    println!("snapshot {:.1} ms {} bytes", t.elapsed().as_secs_f64() * 1e3, bytes);
    if a.len() > 3 { std::fs::write(&a[3], out).unwrap(); }
}
