#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use crate::engine::{Engine, Input};
use crate::event::{Digest, Event, Run};
use crate::testing::{at, book, control, event, in_run};

const PLAYBOOK: &str = r#"
[playbooks.restart]
title = "Restart"
idle = "1h"
steps = [
  { id = "look", operations = ["search_*", "ecs:Describe*"], at_most = 2 },
  { id = "scale", operations = ["ecs:UpdateService"], optional = true },
  { id = "stop", operations = ["ecs:StopTask"], at_most = 3 },
  { id = "verify", operations = ["ecs:Describe*"], at_most = 2 },
  { id = "note", operations = ["open_ticket"], optional = true },
]
"#;

fn engine() -> Engine {
    let detector = control("runs", "[[detector]]\nkind = \"playbook\"\n");
    Engine::new(Arc::new(book(&[("runs/control.toml", &detector), ("registry/playbooks/p.toml", PLAYBOOK)])))
}

/// What each of a run's actions is found to be (nothing where it fits), and what its end is.
fn follow(actions: &[&str]) -> (Vec<String>, String) {
    let mut engine = engine();
    let kind = |deviations: Vec<crate::deviation::Deviation>| {
        assert!(deviations.len() <= 1);
        deviations.first().map_or_else(String::new, |deviation| deviation.evidence[0].what.clone())
    };
    let found = (1..).zip(actions).map(|(number, action)| {
        let event = in_run(event(number, action, "2026-03-02T12:00:00Z"), "restart", "r-1");
        kind(engine.step(&Input::Event(Box::new(event))).1)
    });
    let found = found.collect();
    (found, kind(engine.step(&Input::Tick { at: at("2026-03-02T14:00:00Z"), audited_until: None }).1))
}

#[test]
fn runs_are_held_against_their_steps() {
    const FINE: &str = "";
    for (actions, expected, end) in [
        (&["search_logs", "ecs:StopTask", "ecs:DescribeTasks"][..], &[FINE, FINE, FINE][..], FINE),
        (&["search_logs", "ecs:UpdateService", "ecs:StopTask", "ecs:DescribeTasks", "open_ticket"], &[FINE; 5], FINE),
        (&["search_logs", "ecs:DescribeTasks", "search_logs"], &[FINE, FINE, "too many repeats"], "unfinished run"),
        (
            &["search_logs", "ecs:StopTask", "ecs:StopTask", "ecs:StopTask", "ecs:StopTask", "ecs:DescribeTasks"],
            &[FINE, FINE, FINE, FINE, "too many repeats", FINE],
            FINE,
        ),
        (
            &["search_logs", "iam:CreateUser", "ecs:StopTask", "ecs:DescribeTasks"],
            &[FINE, "unexpected step", FINE, FINE],
            FINE,
        ),
        (
            &["search_logs", "ecs:StopTask", "ecs:UpdateService", "ecs:DescribeTasks"],
            &[FINE, FINE, "wrong order", FINE],
            FINE,
        ),
        (&["ecs:StopTask", "ecs:DescribeTasks"], &["skipped step", FINE], FINE),
        (&["search_logs", "ecs:UpdateService", "ecs:DescribeTasks"], &[FINE, FINE, "skipped step"], FINE),
        (&["search_logs"], &[FINE], "unfinished run"),
        (&["search_logs", "ecs:StopTask"], &[FINE, FINE], "unfinished run"),
        (&["open_ticket"], &["skipped step"], FINE),
        (&["iam:CreateUser"], &["unexpected step"], FINE),
    ] {
        let (found, ended) = follow(actions);
        assert_eq!(found, expected, "{actions:?}");
        assert_eq!(ended, end, "the end of {actions:?}");
    }
}

#[test]
fn runs_of_one_playbook_are_told_apart() {
    let mut engine = engine();
    for (number, action, run) in
        [(1, "search_logs", "a"), (2, "search_logs", "b"), (3, "ecs:StopTask", "a"), (4, "search_metrics", "b")]
    {
        let event = in_run(event(number, action, "2026-03-02T12:00:00Z"), "restart", run);
        assert_eq!(engine.step(&Input::Event(Box::new(event))).1, [], "{action} in {run}");
    }
    assert_eq!(engine.baselines().past("bot").profile().unwrap().runs.len(), 2);
}

#[test]
fn a_step_may_be_known_by_its_tool() {
    let mut engine = engine();
    let action = Event { tool: "search_logs".to_owned(), ..event(1, "logs:StartQuery", "2026-03-02T12:00:00Z") };
    assert_eq!(engine.step(&Input::Event(Box::new(in_run(action, "restart", "r")))).1, []);
}

#[test]
fn work_outside_declared_playbooks_is_none_of_this_detectors_business() {
    let mut engine = engine();
    let plain = event(1, "iam:CreateUser", "2026-03-02T12:00:00Z");
    let session = Run { session: "s".to_owned(), ..Run::default() };
    for (number, event) in
        [plain.clone(), in_run(plain.clone(), "no-such-playbook", "r"), Event { run: Some(session), ..plain }]
            .into_iter()
            .enumerate()
    {
        let event = Event { digest: Digest(number as u128), ..event };
        assert_eq!(engine.step(&Input::Event(Box::new(event))).1, []);
    }
}

#[test]
fn what_happens_in_a_run_keeps_it_alive_even_out_of_step() {
    let mut engine = engine();
    let mut act = |number, action: &str, time: &str| {
        engine.step(&Input::Event(Box::new(in_run(event(number, action, time), "restart", "r")))).1.len()
    };
    assert_eq!(act(1, "search_logs", "2026-03-02T12:00:00Z"), 0);
    assert_eq!(act(2, "iam:CreateUser", "2026-03-02T12:50:00Z"), 1);
    assert_eq!(engine.step(&Input::Tick { at: at("2026-03-02T13:30:00Z"), audited_until: None }).1, []);
    assert_eq!(engine.step(&Input::Tick { at: at("2026-03-02T13:51:00Z"), audited_until: None }).1.len(), 1);
}
