#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::baselines::credentials::Credentials;
use crate::baselines::habits::Habits;
use crate::baselines::{
    ArgumentHabit, Change, Declared, Dossier, Effect, FirstTime, Heard, HeldApproval, HeldOverride, Kept, Quarantine,
    ReadHabit, ReasoningHabit, RunGroups, Side, Sum, ToldText, Unapproved,
};
use crate::engine::{Engine, Input};
use crate::event::{AgentRef, Credential, Event, Millis, Verb};
use crate::statement::{Approval, Override};
use crate::testing::{at, book, control, event, in_run};

/// A memory with something in every table.
fn memory() -> Baselines {
    let playbook =
        "[playbooks.p]\ntitle = \"P\"\nidle = \"1h\"\nsteps = [{ id = \"a\", operations = [\"*\"], at_most = 9 }]\n";
    let forbid = "@id(\"x\")\nforbid (principal, action == Action::\"write\", resource);";
    let mut engine = Engine::new(Arc::new(book(&[
        ("extra/control.toml", &control("extra", "")),
        ("extra/policy.cedar", forbid),
        ("registry/playbooks/p.toml", playbook),
    ])));
    let time = "2026-03-02T12:00:00Z";
    for event in [
        in_run(event(1, "ecs:List", time), "p", "r-2"),
        in_run(event(2, "ecs:List", time), "p", "r-1"),
        Event { verb: Verb::Write, ..event(3, "ecs:StopTask", "2026-03-02T13:00:00Z") },
        Event { agent: AgentRef::Unregistered("eve".to_owned()), ..event(4, "ecs:List", time) },
    ] {
        engine.step(&Input::Event(Box::new(event)));
    }
    let mut memory = engine.baselines().clone();
    let waits = |number| Kept::of(&event(number, "ecs:StopTask", time));
    memory.pair(memory.slot("bot").unwrap(), |profile, pairing| {
        profile.settled = at(time);
        pairing.declared.push(Declared {
            number: 7,
            event: waits(5),
            claim: true,
            shown: true,
            covered: Some(at(time)),
        });
        pairing.declared.push(Declared { number: 8, event: waits(6), claim: true, shown: false, covered: None });
        pairing.effects.push(Effect { event: waits(7), explained: true, pinned: true, shows: Some(7), settled: true });
        pairing.effects.push(Effect { event: waits(8), explained: false, pinned: false, shows: None, settled: false });
        (pairing.next, pairing.lost, pairing.first_lost) = (9, 2, Some(waits(9)));
        (pairing.lost_until, pairing.lost_reported) = (at(time) + 1, at(time) + 2);
    });
    memory.put_dossier(memory.slot("bot").unwrap(), Box::new(dossier(at(time))));
    let credential = Credential { id: "k".to_owned(), ..Credential::default() };
    memory.use_credential("bot", &Event { credential, ..event(11, "ecs:List", time) });
    memory
}

fn habits() -> Habits {
    let (digest, counts) = (Digest(7), WindowCounts { windows: 2, sum: 3, squares: 5 });
    let told = ToldText { text: digest, since: 1, actions: vec![digest] };
    Habits {
        reasoning: ReasoningHabit { given: true, texts: vec![told], day: 4, reported: vec![digest] },
        arguments: vec![ArgumentHabit {
            step: digest,
            user_request: 1,
            tool_output: 2,
            neither: 3,
            values: vec![digest],
        }],
        runs: vec![RunGroups {
            run: "r".to_owned(),
            audit: true,
            groups: vec!["staging".to_owned()],
            last: 5,
            reported: Some((6, "ecs:StopTask".to_owned())),
        }],
        places: vec![FirstTime { account: true, name: "1".to_owned(), at: 8 }],
        reads: ReadHabit {
            window: 9,
            reads: 1,
            resources: vec![digest],
            reported: true,
            closed_reads: counts,
            closed_resources: counts,
        },
    }
}

fn dossier(at: Millis) -> Dossier {
    let approval = Approval {
        requester: "bot".to_owned(),
        operation: "ecs:StopTask".to_owned(),
        resource: "task/1".to_owned(),
        parameters: serde_json::Map::from_iter([("force".to_owned(), true.into())]),
        digest: "sha-256:00".to_owned(),
        count: 1,
        irreversible: true,
    };
    let (id, by) = ("apr-1".to_owned(), "ana@example.com".to_owned());
    let held = HeldApproval { id, by, at, until: at + 1, approval, used_said: 1, used_done: 0 };
    let event = Kept::of(&event(10, "ecs:StopTask", "2026-03-02T12:00:00Z"));
    let (limit, run) = ("deletions".to_owned(), "r-1".to_owned());
    let sum = Sum { limit, side: Side::Done, run, minutes: vec![(at / 60_000, 3)], reported: Some(at) };
    let (id, by, signers) = ("o-1".to_owned(), "ana@example.com".to_owned(), vec!["mei@example.com".to_owned()]);
    let says = Override {
        reason: "down".to_owned(),
        controls: vec!["x".to_owned()],
        operations: vec!["*".to_owned()],
        environments: Vec::new(),
    };
    let used = Some(event.clone());
    let overrides = vec![HeldOverride { id, by, signers, at, until: at + 1, says, used, escalated: true }];
    let change = Change { event: event.clone(), denials: 1, requested: Some(at), overdue: true };
    Dossier {
        changes: vec![change],
        overrides,
        approvals: vec![held],
        unapproved: vec![Unapproved { event, reported: true }],
        sums: vec![sum],
        habits: habits(),
        quarantine: Some(Quarantine {
            since: at,
            by: "mei".to_owned(),
            reason: "odd".to_owned(),
            told: [("x".to_owned(), 1)].into(),
        }),
        excused: [("move".to_owned(), at)].into(),
    }
}

/// The memory that the fourth layout has of it.
fn without_dossier() -> Baselines {
    let mut memory = memory();
    memory.take_dossier(memory.slot("bot").unwrap());
    Arc::make_mut(&mut memory.notices).credentials = Credentials::default();
    memory
}

/// The memory that layouts before the fourth have of it.
fn without_pairing() -> Baselines {
    let mut memory = without_dossier();
    let profile = memory.profile_mut(memory.slot("bot").unwrap()).unwrap();
    (profile.heard, profile.settled, profile.pairing) = (Heard::default(), Millis::MIN, None);
    memory
}

fn tables() -> Vec<RecordBatch> {
    memory().snapshot().unwrap()
}

/// The table with one column replaced, or left out.
fn with_column(table: &RecordBatch, name: &str, column: Option<ArrayRef>) -> RecordBatch {
    let columns = table.schema_ref().fields().iter().zip(table.columns()).filter_map(|(field, old)| {
        let new = if field.name() == name { column.clone() } else { Some(Arc::clone(old)) };
        new.map(|new| (field.name().clone(), new))
    });
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    let schema = Schema::new_with_metadata(batch.schema().fields().clone(), table.schema_ref().metadata().clone());
    batch.with_schema(Arc::new(schema)).unwrap()
}

fn error(tables: &[RecordBatch]) -> RestoreError {
    Baselines::restore(tables).err().unwrap()
}

#[test]
fn what_is_written_is_restored() {
    let tables = tables();
    assert!(tables.iter().all(|table| table.num_rows() > 0), "something in every table");
    let again = Baselines::restore(&tables).unwrap();
    assert_eq!(again.snapshot().unwrap(), tables);
    let (old, new) = (memory(), again);
    let (old, new) = (old.past("bot").profile().unwrap(), new.past("bot").profile().unwrap());
    assert_eq!(
        (old.seen, old.learned, &old.runs, &old.recent, old.hours().collect::<Vec<_>>()),
        (new.seen, new.learned, &new.runs, &new.recent, new.hours().collect::<Vec<_>>())
    );
    assert_eq!((old.heard, old.settled, &old.pairing), (new.heard, new.settled, &new.pairing));
    assert_eq!(old.runs[0].run, "r-2", "the oldest comes first, whatever its name");
    let empty = Baselines::default().snapshot().unwrap();
    assert_eq!(Baselines::restore(&empty).unwrap().snapshot().unwrap(), empty);
}

#[test]
fn another_layout_is_refused_by_its_name() {
    let mut tables = tables();
    let last = tables.len() - 1;
    for metadata in
        [[("tautline.layout", "999"), ("tautline.table", "agents")], [("x", "y"), ("tautline.table", "agents")]]
    {
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let schema = Schema::new_with_metadata(tables[last].schema_ref().fields().clone(), metadata);
        tables[last] = tables[last].clone().with_schema(Arc::new(schema)).unwrap_or_else(|_| {
            RecordBatch::new_empty(Arc::new(Schema::new_with_metadata(
                tables[0].schema_ref().fields().clone(),
                HashMap::new(),
            )))
        });
        let found = error(&tables);
        assert!(matches!(&found, RestoreError::Version(_)), "{found}");
        assert!(found.to_string().contains("cannot be read"), "{found}");
    }
    assert!(matches!(error(&[]), RestoreError::Missing(table) if table == "table agents"));
}

#[test]
fn a_missing_table_is_named() {
    let whole = tables();
    for missing in 0..whole.len() {
        let name = whole[missing].schema_ref().metadata()["tautline.table"].clone();
        let rest: Vec<RecordBatch> =
            whole.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, table)| table.clone()).collect();
        let found = error(&rest);
        assert!(matches!(&found, RestoreError::Missing(what) if *what == format!("table {name}")), "{found}");
    }
}

#[test]
fn every_column_is_needed_with_its_own_type_and_no_gaps() {
    let whole = tables();
    for (at, table) in whole.iter().enumerate() {
        for field in table.schema_ref().fields() {
            let rows = table.num_rows();
            let floats: ArrayRef = Arc::new(arrow::array::Float32Array::from(vec![1.0; rows]));
            let gaps = arrow::array::new_null_array(field.data_type(), rows);
            // A table of one column cannot lose it and still have rows.
            let removed = (table.num_columns() > 1).then_some(None);
            for column in removed.into_iter().chain([Some(floats), Some(gaps)]) {
                let mut tables = whole.clone();
                tables[at] = with_column(table, field.name(), column.clone());
                let found = error(&tables);
                let named = format!("column {}", field.name());
                assert!(
                    matches!(&found, RestoreError::Missing(what) if *what == named),
                    "{named}, {column:?}: {found}"
                );
            }
        }
    }
}

#[test]
fn values_that_cannot_be_are_refused() {
    let whole = tables();
    let texts = |text: &str, rows| -> ArrayRef { Arc::new(StringArray::from_iter_values(vec![text; rows])) };
    let bytes = |bytes: &[u8], rows| -> ArrayRef { Arc::new(BinaryArray::from_iter_values(vec![bytes; rows])) };
    let rows = |table: usize| whole[table].num_rows();
    let numbers = |number: u32, rows| -> ArrayRef { Arc::new(UInt32Array::from(vec![number; rows])) };
    let cases: [(usize, &str, ArrayRef); 18] = [
        (0, "recent", bytes(&[1; 15], rows(0))),
        (0, "evidence", Arc::new(Float64Array::from(vec![f64::NAN; rows(0)]))),
        (0, "evidence", Arc::new(Float64Array::from(vec![-1.0; rows(0)]))),
        (0, "cells", numbers(1, rows(0))),
        (0, "cells", numbers(u32::MAX, rows(0))),
        (1, "dimension", texts("colour", rows(1))),
        (1, "dimension", texts("hour", rows(1))),
        (2, "text", numbers(0, rows(2))),
        (2, "text", numbers(u32::MAX, rows(2))),
        (3, "agent", numbers(1, rows(3))),
        (4, "digest", bytes(&[1; 15], rows(4))),
        (5, "agent", numbers(1, rows(5))),
        (5, "heard", numbers(32, rows(5))),
        (5, "first_lost", texts("{", rows(5))),
        (6, "agent", numbers(u32::MAX, rows(6))),
        (6, "event", texts("", rows(6))),
        (7, "event", texts("7", rows(7))),
        (9, "users", texts("[7]", rows(9))),
    ];
    for (table, name, column) in cases {
        let mut tables = whole.clone();
        tables[table] = with_column(&whole[table], name, Some(Arc::clone(&column)));
        let found = error(&tables);
        assert!(matches!(&found, RestoreError::Damaged(_)), "{name} {column:?}: {found}");
        assert!(found.to_string().contains("the snapshot is damaged"), "{found}");
    }
}

#[test]
fn an_agent_comes_once() {
    let mut whole = memory();
    let found = whole.absorb(&tables()).err().unwrap();
    assert!(matches!(&found, RestoreError::Damaged(what) if what == "second agent bot"), "{found}");
}

#[test]
fn pieces_hold_together_what_the_whole_holds() {
    let mut whole = Baselines::default();
    let time = at("2026-03-02T12:00:00Z");
    for number in 0..2_500_u32 {
        let agent = format!("agent-{number}");
        let event = Event { tool: format!("tool-{}", number % 7), ..event(number, "ecs:List", "2026-03-02T12:00:00Z") };
        let (slot, observed) = whole.arrive(&agent, None, &event).unwrap();
        whole.learn(slot, time, &observed);
    }
    whole.notice("eve".to_owned());
    let pieces = whole.freeze();
    assert_eq!(pieces.iter().map(|piece| piece.number).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let frozen = whole.snapshot().unwrap();
    // What comes after a freeze is not in it.
    let late = event(9_999, "ecs:Late", "2026-03-02T13:00:00Z");
    let (slot, observed) = whole.arrive("agent-2000", None, &late).unwrap();
    whole.learn(slot, late.at, &observed);

    let mut again = Baselines::default();
    pieces.iter().for_each(|piece| again.absorb(&piece.tables().unwrap()).unwrap());
    assert_eq!(again.snapshot().unwrap(), frozen);

    let versions = |pieces: &[Piece]| pieces.iter().map(|piece| piece.version).collect::<Vec<_>>();
    let (before, after) = (versions(&pieces), versions(&whole.freeze()));
    let changed: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before != after).collect();
    assert_eq!(changed, [false, false, true, false], "only the piece that was written to");
    assert_eq!(versions(&whole.freeze()), after);
}

/// Written by earlier versions from the same events as [`memory`].
const LAYOUT_1: &[u8] = include_bytes!("../layout-1.arrows");
const LAYOUT_2: &[u8] = include_bytes!("../layout-2.arrows");
const LAYOUT_3: &[u8] = include_bytes!("../layout-3.arrows");
const LAYOUT_4: &[u8] = include_bytes!("../layout-4.arrows");

fn fixture(mut bytes: &[u8]) -> Vec<RecordBatch> {
    let mut tables = Vec::new();
    while !bytes.is_empty() {
        let reader = arrow::ipc::reader::StreamReader::try_new(&mut bytes, None).unwrap();
        tables.extend(reader.map(Result::unwrap));
    }
    tables
}

#[test]
fn the_layouts_before_are_restored() {
    for (bytes, count) in [(LAYOUT_1, 4), (LAYOUT_2, 5), (LAYOUT_3, 5), (LAYOUT_4, 8)] {
        let tables = fixture(bytes);
        assert_eq!(tables.len(), count);
        let mut restored = Baselines::restore(&tables).unwrap();
        let expected = if count == 8 { without_dossier() } else { without_pairing() };
        assert_eq!(restored.snapshot().unwrap(), expected.snapshot().unwrap());
        if let Some(lines) = tables[count - 1].column_by_name("notice") {
            let line = lines.as_string::<i32>().value(0).to_owned();
            assert!(!restored.notice(line), "what was reported is not reported again");
        }
        for missing in 0..tables.len() {
            let mut rest = tables.clone();
            rest.remove(missing);
            assert!(matches!(error(&rest), RestoreError::Missing(_)));
        }
    }
    let mut tables = fixture(LAYOUT_1);
    tables[0] = with_column(&tables[0], "hours", Some(Arc::new(BinaryArray::from_iter_values([[1, 0, 2, 0]]))));
    assert!(matches!(error(&tables), RestoreError::Damaged(_)));
}

#[test]
fn a_notice_takes_as_much_memory_however_long_it_is() {
    let mut memory = Baselines::default();
    let long = "x".repeat(1 << 20);
    assert!(memory.notice(long.clone()) && !memory.notice(long.clone()) && memory.notice(format!("{long}y")));
    assert_eq!(memory.notices(), 2);
    let bytes: usize = memory.snapshot().unwrap().iter().map(RecordBatch::get_array_memory_size).sum();
    assert!(bytes < 8_192, "{bytes}");
}
