#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::event::{AgentRef, Event, Source};
use crate::glob::Glob;
use crate::testing::{at, book, control, event};

const ESTATE: &str = "[[place]]\naccount = \"1\"\nenvironment = \"staging\"\ntier = \"3\"\n";
const VOCABULARY: &str = "[[operations]]\noperations = [\"iam:*\"]\nasset = \"identity\"\ndata = \"credentials\"\n\
    [[operations]]\noperations = [\"logs:*\"]\ndata = \"logs\"\n";

/// A rulebook with these policies in one control of severity `high`.
fn with(policies: &str) -> Rulebook {
    book(&[
        ("registry/estate.toml", ESTATE),
        ("vocabulary/test.toml", VOCABULARY),
        ("extra/control.toml", &control("extra", "")),
        ("extra/policy.cedar", policies),
    ])
}

/// A `forbid` on a line of its own.
fn forbid(id: &str, severity: &str, when: &str) -> String {
    let severity = if severity.is_empty() { String::new() } else { format!("@severity(\"{severity}\") ") };
    format!("@id(\"{id}\") {severity}forbid (principal, action, resource) when {{ {when} }};\n")
}

/// What is said of these policies, with their lines.
fn said(policies: &str) -> Vec<String> {
    let found = with(policies).mute_policies();
    found.iter().map(|warning| warning.to_string().replace("rules/extra/policy.cedar:", "")).collect()
}

fn of(when: &str) -> Vec<String> {
    said(&forbid("x", "", when))
}

#[test]
fn a_value_that_nothing_has_is_named() {
    for (when, name) in [
        ("principal.class == \"observr\"", "`observr` as principal.class, only `advisor`"),
        ("principal.status == \"gone\"", "`gone` as principal.status"),
        ("\"moat\" == resource.asset", "`moat` as resource.asset, only ``, `identity`"),
        ("[\"moat\", \"secret\"].contains(resource.data)", "`moat` as resource.data, only ``, `credentials`, `logs`"),
        ("resource.tier == \"1\"", "`1` as resource.tier, only ``, `3`"),
        ("context.environment == \"prodution\"", "`prodution` as context.environment, only `production`, `staging`"),
        ("context.source == \"statement\"", "`statement` as context.source"),
        ("context.window == \"closed\" && context.changes", "`closed` as context.window"),
        ("context.playbook == \"denied\"", "`denied` as context.playbook"),
        ("context.credential == \"key\"", "`key` as context.credential"),
        ("principal.id == \"nobody\"", "`nobody` as principal.id, only ``, `bot`"),
    ] {
        let found = of(when);
        assert!(
            found.len() == 1 && found[0].contains("`extra/x` can never match") && found[0].contains(name),
            "{found:?}"
        );
    }
    let scope = "@id(\"x\") forbid (principal == Agent::\"nobody\", action, resource);";
    assert!(said(scope)[0].contains("`nobody` as principal.id"), "{:?}", said(scope));
}

#[test]
fn values_of_the_schemas_lists_are_known_though_no_agent_has_them() {
    for when in [
        "principal.class == \"observer\"",
        "principal.status == \"retired\"",
        "context.window == \"outside\"",
        "context.playbook == \"unapproved\"",
        "context.credential == \"service\" && context.source == \"kubernetes\"",
        "context.environment == \"production\"",
        "context.environment != \"prodution\"",
        "[\"nowhere\", \"staging\"].contains(context.environment)",
        "resource.asset == \"\" && resource.data == \"credentials\"",
        "context.operation == \"anything\" || resource.type == \"any::Thing\"",
        "resource.id == \"arn:any\"",
        "resource.data != \"credentials\" && !context.data_approved",
        "principal.id == \"bot\"",
    ] {
        let found = of(when);
        assert!(found.iter().all(|warning| warning.contains("not cached")), "{when}: {found:?}");
    }
}

#[test]
fn a_contradiction_never_matches_and_what_is_nearly_one_may() {
    for (never, near) in [
        ("context.exposes && !context.exposes", "context.exposes || !context.exposes"),
        ("action == Action::\"read\" && context.changes", "action == Action::\"write\" && context.changes"),
        ("action == Action::\"execute\" && !context.changes", "action == Action::\"propose\" && !context.changes"),
        (
            "context.environment == \"staging\" && !resource.mapped",
            "context.environment == \"production\" && !resource.mapped",
        ),
        ("resource.crown_jewel && !resource.mapped", "resource.crown_jewel && resource.mapped"),
        (
            "principal.class == \"unregistered\" && principal.status == \"active\"",
            "principal.class == \"operator\" && principal.status == \"active\"",
        ),
        (
            "principal.class == \"unregistered\" && context.environment_cleared",
            "principal.class == \"unregistered\" && context.tool_approved",
        ),
        (
            "context.source == \"gcp\" && context.playbook == \"none\"",
            "context.source == \"mcp\" && context.playbook == \"none\"",
        ),
        (
            "resource.data == \"\" && !context.data_approved",
            "resource.data == \"credentials\" && !context.data_approved",
        ),
        (
            "context.operation like \"iam:*\" && context.operation like \"s3:*\"",
            "context.operation like \"iam:*\" && context.operation like \"*Policy\"",
        ),
        (
            "context.operation like \"a*b\" && context.operation == \"a\"",
            "context.operation like \"a*b\" && context.operation == \"axb\"",
        ),
        ("context.environment like \"prod*\" && context.environment like \"*ing\"", "context.environment like \"*o*\""),
    ] {
        let found = of(never);
        assert!(
            found.len() == 1 && found[0].starts_with("1: ") && found[0].contains("can never match"),
            "{never}: {found:?}"
        );
        assert!(of(near).is_empty(), "{near}: {:?}", of(near));
    }
}

#[test]
fn what_cedar_finds_impossible_is_said() {
    for policy in [
        "@id(\"x\") forbid (principal, action, resource) when { false };",
        "@id(\"x\") permit (principal is Resource, action, resource);",
    ] {
        let found = said(policy);
        assert!(found.len() == 1 && found[0].contains("by the schema"), "{found:?}");
    }
}

#[test]
fn a_policy_for_which_another_always_speaks_is_named_and_near_misses_are_not() {
    let first = |severity| forbid("first", severity, "context.changes");
    let second = |severity, when| forbid("second", severity, when);
    let narrow = "context.changes && resource.asset == \"identity\"";
    for policies in [
        first("") + &second("", narrow),
        first("") + &second("", "context.changes"),
        first("critical") + &second("", narrow),
        second("low", narrow) + &first("medium"),
        // Neither alone, but both together.
        forbid("one", "", "context.exposes")
            + &forbid("other", "", "!context.exposes")
            + &second("", "context.changes"),
        first("")
            + &second("", "context.operation == \"iam:AttachUserPolicy\" && action == Action::\"permission_change\""),
    ] {
        let found = said(&policies);
        assert!(found.len() == 1 && found[0].contains("`extra/second` never speaks"), "{policies}: {found:?}");
    }
    for policies in [
        // The wider one is less severe, or stands behind.
        first("medium") + &second("", narrow),
        second("", narrow) + &first(""),
        first("") + &second("", "resource.asset == \"identity\""),
        first("") + &second("", "context.exposes"),
        forbid("one", "", "context.exposes && context.changes") + &second("", "context.changes"),
        forbid("one", "", "context.exposes") + &second("", "context.changes || context.exposes"),
    ] {
        assert!(said(&policies).is_empty(), "{policies}: {:?}", said(&policies));
    }
}

#[test]
fn a_policy_of_another_control_speaks_for_itself() {
    let wide = forbid("wide", "critical", "context.changes");
    let book = book(&[
        ("extra/control.toml", &control("extra", "")),
        ("extra/policy.cedar", &wide),
        ("other/control.toml", &control("other", "")),
        ("other/policy.cedar", &forbid("narrow", "", "context.changes && context.exposes")),
    ]);
    assert_eq!(book.mute_policies(), []);
}

#[test]
fn what_cannot_be_evaluated_speaks() {
    assert!(of("9223372036854775807 + 1 > 0").is_empty());
}

#[test]
fn what_tells_too_much_apart_is_said_not_to_be_known() {
    let many: Vec<String> = (0..300).map(|n| format!("\"service-{n}:Operation\"")).collect();
    let list = |name: &str| format!("[{}].contains({name})", many.join(", "));
    let wide = format!("{} && {}", list("context.operation"), list("resource.type"));
    for when in [wide.as_str(), "context.operation == resource.type"] {
        let found = of(when);
        assert!(found.len() == 1 && found[0].contains("not known whether it can match"), "{found:?}");
    }
    assert!(of(&list("context.operation")).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn there_is_a_witness_for_every_way_of_fitting(
        patterns in prop::collection::vec("[ab*]{0,4}", 1..4),
        texts in prop::collection::vec("[abc]{0,6}", 1..20),
    ) {
        let parsed: Vec<Pattern> =
            patterns.iter().map(|text| text.chars().map(|c| (c != '*').then_some(c)).collect()).collect();
        let globs: Vec<Glob> = patterns.iter().map(|text| Glob::new(text)).collect();
        let ways = |text: &str| globs.iter().map(|glob| glob.matches(text)).collect::<Vec<bool>>();
        let found: BTreeSet<Vec<bool>> = witnesses(&parsed).unwrap().iter().map(|text| ways(text)).collect();
        for text in &texts {
            prop_assert!(found.contains(&ways(text)), "{patterns:?}: nothing fits as `{text}` does");
            let ours: Vec<bool> = parsed.iter().map(|pattern| fits(pattern, text)).collect();
            prop_assert_eq!(ours, ways(text));
        }
    }

    /// Whatever an event is, its facts are among those that are thought possible and known.
    #[test]
    fn every_event_has_possible_facts(
        flags in any::<[bool; 8]>(), verb in 0..5_usize, source in 0..Source::ALL.len(), agent in 0..3_usize,
        account in 0..2_usize, action in 0..2_usize,
    ) {
        let every = TEXTS.map(|name| format!("{name} == \"x\"")).join(" || ")
            + " || " + &TRUTHS.join(" || ");
        let agents = "[agents.bot]\nclass = \"operator\"\nowner = \"ana@example.com\"\nidentities = [\"role/bot\"]\n\
            environments = [\"staging\"]\nplaybooks = []\nwindows = [{ days = [\"mon\"], from = \"08:00\", to = \"18:00\", time_zone = \"UTC\" }]\n\
            [agents.old]\nclass = \"observer\"\nowner = \"ana@example.com\"\nstatus = \"retired\"\n";
        let book = book(&[
            ("registry/estate.toml", ESTATE), ("vocabulary/test.toml", VOCABULARY), ("registry/agents/bot.toml", agents),
            ("extra/control.toml", &control("extra", "")), ("extra/policy.cedar", &forbid("x", "", &every)),
        ]);
        let mut event = Event { verb: VERBS[verb], source: Source::ALL[source], ..event(1, ["iam:GetUser", "s3:Get"][action], "2026-03-02T09:00:00Z") };
        event.at = at(if flags[0] { "2026-03-02T09:00:00Z" } else { "2026-03-03T09:00:00Z" });
        event.place.account = ["1", "2"][account].to_owned();
        event.principal.id = if flags[1] { "role/bot".to_owned() } else { "role/other".to_owned() };
        event.claimed_environment = flags[2].then(|| "elsewhere".to_owned());
        event.place.disputed = flags[3];
        event.credential.claimed = flags[4];
        event.resource.exposes = flags[5];
        event.approval = flags[6].then(|| "a".to_owned());
        event.tool = if flags[7] { "tool".to_owned() } else { String::new() };
        event.agent = match agent {
            0 => AgentRef::Registered("bot".to_owned()),
            1 => AgentRef::Registered("old".to_owned()),
            _ => AgentRef::Unregistered("eve".to_owned()),
        };
        book.vocabulary.classify(&mut event);
        book.estate.locate(&mut event);
        let agent = event.agent.registered().and_then(|id| book.registry.by_id(id));
        let facts = Facts::of(&event, agent, &book);
        prop_assert!(event.source == Source::Statement || is_possible(&facts, book.reads()), "{facts:?}");
        for (name, text) in TEXTS.iter().zip(facts.texts) {
            let known = known_values(name, &book);
            prop_assert!(event.source == Source::Statement || known.is_none_or(|known| known.contains(text)), "{name} {text}");
        }
    }
}
