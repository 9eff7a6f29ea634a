#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::deviation::Severity;
use crate::engine::{Engine, Input};
use crate::event::{AgentRef, Event, Verb};
use crate::rulebook::{Facts, Judgement, Rulebook};
use crate::testing::{book, control, event, faults, read};

const TIME: &str = "2026-03-02T09:00:00Z";
/// Passes every check at load, and cannot be evaluated.
const OVERFLOW: &str = "9223372036854775807 + 1 > 0";

fn with_policy(policy: &str) -> Rulebook {
    book(&[("extra/control.toml", &control("extra", "")), ("extra/policy.cedar", policy)])
}

fn policy_faults(policy: &str) -> Vec<String> {
    faults(&[("extra/control.toml", &control("extra", "")), ("extra/policy.cedar", policy)])
}

fn judge(book: &Rulebook, event: &Event) -> Judgement {
    let agent = event.agent.registered().and_then(|id| book.registry.by_id(id));
    book.judge(&Facts::of(event, agent, book))
}

fn ids(judgement: &Judgement) -> Vec<&str> {
    judgement.violations.iter().map(|violation| violation.policy.id.as_str()).collect()
}

#[test]
fn what_nothing_forbids_is_allowed() {
    let judgement = judge(&book(&[]), &event(1, "s3:GetObject", TIME));
    assert!(judgement.is_allowed() && judgement.remedy.is_empty(), "{judgement:?}");
}

#[test]
fn what_nothing_permits_is_denied_by_the_control_that_permits() {
    let stranger = Event { agent: AgentRef::Unregistered("eve".to_owned()), ..event(1, "s3:GetObject", TIME) };
    let judgement = judge(&book(&[]), &stranger);
    assert_eq!(ids(&judgement), ["base/known"]);
    assert_eq!(judgement.violations[0].error, None);
}

#[test]
fn every_forbid_that_fits_is_a_violation_in_the_order_of_the_ids() {
    let book = with_policy(
        "@id(\"z\") @severity(\"critical\") @message(\"is Z\")\nforbid (principal, action, resource);\n\
         @id(\"a\")\nforbid (principal, action == Action::\"read\", resource);\n\
         @id(\"not\")\nforbid (principal, action == Action::\"write\", resource);\n",
    );
    let judgement = judge(&book, &event(1, "s3:GetObject", TIME));
    assert_eq!(ids(&judgement), ["extra/a", "extra/z"]);
    let z = &judgement.violations[1].policy;
    assert_eq!((z.line, z.path.as_str(), z.message.as_str()), (1, "rules/extra/policy.cedar", "is Z"));
    assert_eq!((z.control.as_str(), z.severity), ("extra", Some(Severity::Critical)));
    assert_eq!(judgement.violations[0].policy.line, 3);
}

#[test]
fn a_forbid_that_cannot_be_evaluated_is_a_deviation_although_cedar_allows() {
    let book = with_policy(&format!("@id(\"broken\")\nforbid (principal, action, resource) when {{ {OVERFLOW} }};"));
    let judgement = judge(&book, &event(1, "s3:GetObject", TIME));
    assert_eq!(ids(&judgement), ["extra/broken"]);
    let error = judgement.violations[0].error.as_deref().unwrap();
    assert!(error.contains("overflow"), "{error}");

    let mut engine = Engine::new(std::sync::Arc::new(book));
    let (_, deviations) = engine.step(&Input::Event(Box::new(event(1, "s3:GetObject", TIME))));
    assert_eq!(deviations.len(), 1);
    assert!(deviations[0].policy_failed);
    assert!(deviations[0].summary.contains("could not be evaluated"), "{}", deviations[0].summary);
    assert!(deviations[0].score >= engine.rulebook().trust.score(Severity::High));
}

#[test]
fn a_permit_that_cannot_be_evaluated_denies_and_says_so() {
    let broken = format!("@id(\"known\")\npermit (principal, action, resource) when {{ {OVERFLOW} }};");
    let book = book(&[("base/policy.cedar", &broken)]);
    let judgement = judge(&book, &event(1, "s3:GetObject", TIME));
    assert_eq!(ids(&judgement), ["base/known"]);
    assert!(judgement.violations[0].error.is_some());
}

#[test]
fn a_broken_policy_does_not_hide_the_others() {
    let book = with_policy(&format!(
        "@id(\"broken\")\nforbid (principal, action, resource) when {{ {OVERFLOW} }};\n\
         @id(\"whole\")\nforbid (principal, action, resource);\n"
    ));
    let judgement = judge(&book, &event(1, "s3:GetObject", TIME));
    assert_eq!(ids(&judgement), ["extra/broken", "extra/whole"]);
    assert!(judgement.violations[0].error.is_some() && judgement.violations[1].error.is_none());
}

#[test]
fn faults_of_policies_are_named_with_their_line() {
    for (policy, line, says) in [
        ("forbid (principal, action, resource);", 1, "needs an `@id"),
        ("\n@id(\"x\") @severity(\"loud\")\nforbid (principal, action, resource);", 2, "`loud` is not a severity"),
        ("@id(\"x\")\nforbid (principal, action, resource)\nwhen { context.nothing };", 3, "nothing"),
        ("@id(\"x\")\nforbid (principal, action, resource)\nwhen { resource.type == 7 };", 3, "not compatible"),
        ("@id(\"x\")\nforbid (principal, action == Action::\"raed\", resource);", 2, "raed"),
        ("@id(\"x\")\nforbid (principal, action, resource)\nwhen {", 3, "unexpected end"),
        (
            "@id(\"x\")\nforbid (principal, action, resource);\n\n@id(\"x\")\nforbid (principal, action, resource) when { true };",
            4,
            "used twice",
        ),
    ] {
        let found = policy_faults(policy);
        let place = format!("rules/extra/policy.cedar:{line}: ");
        assert!(found.iter().any(|fault| fault.starts_with(&place) && fault.contains(says)), "{policy}\n{found:#?}");
        assert_eq!(found.len(), 1, "{policy}\n{found:#?}");
    }
}

#[test]
fn a_policy_template_is_refused_for_it_would_forbid_nothing() {
    let found = policy_faults("@id(\"x\")\nforbid (principal == ?principal, action, resource);");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("rules/extra/policy.cedar:1: ") && found[0].contains("template"), "{found:#?}");
}

#[test]
fn a_rulebook_must_permit_something_and_have_a_schema_that_fits() {
    let nothing = faults(&[("base/policy.cedar", "@id(\"x\")\nforbid (principal, action, resource);")]);
    assert!(nothing[0].contains("no policy permits anything"), "{nothing:#?}");
    let orphan = faults(&[("orphan/policy.cedar", "@id(\"x\")\nforbid (principal, action, resource);")]);
    assert_eq!(orphan, ["rules/orphan/policy.cedar:1: policy outside a control: `orphan` has no control.toml"]);
    let book = book(&[]);
    let schema = &book.files().iter().find(|file| file.name == "schema.cedarschema").unwrap().text;
    let other = schema.replace("  window: String,\n", "").replace("  tier: String,", "  tier: Long,");
    assert_ne!(*schema, other);
    let unfit = faults(&[("schema.cedarschema", &other)]);
    assert!(unfit.iter().any(|fault| fault.contains("does not fit what Tautline computes")), "{unfit:#?}");
    let broken = faults(&[("schema.cedarschema", "entity Agent = {\n  id String\n};")]);
    assert!(broken[0].starts_with("rules/schema.cedarschema:2: "), "{broken:#?}");
}

#[test]
fn a_schema_may_have_more_than_the_product_computes_asks_for() {
    let schema = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/schema.cedarschema"));
    let more = format!("{schema}\nentity Team;\n");
    assert!(read(&[("schema.cedarschema", &more)]).is_ok());
}

/// Whether decisions depend on the agent, and on the resource, as far as the cache is concerned.
fn reads(condition: &str) -> (bool, bool) {
    let book = with_policy(&format!("@id(\"x\")\nforbid (principal, action, resource) when {{ {condition} }};"));
    assert_eq!(book.warnings().len(), usize::from(book.reads().resource_id), "{condition}");
    (book.reads().agent, book.reads().resource_id)
}

#[test]
fn what_a_policy_reads_is_found_wherever_it_stands() {
    for (condition, reads_agent, reads_resource) in [
        ("context.changes && resource.type == \"id\"", false, false),
        ("principal.class == \"id\" || resource.asset like \"*id*\"", false, false),
        ("principal.id == \"bot\"", true, false),
        ("[\"bot\"].contains(principal.id)", true, false),
        ("principal == Agent::\"bot\"", true, false),
        ("principal in [Agent::\"bot\", Agent::\"other\"]", true, false),
        ("resource.id like \"arn:*\"", false, true),
        ("resource == Resource::\"x\"", false, true),
        ("context.changes && (!(resource.id == \"x\") || principal.id == \"y\")", true, true),
        ("(if context.changes then principal else principal).id == \"bot\"", true, true),
        ("{who: principal}.who.id == \"bot\"", true, true),
        ("{id: \"x\"}.id == principal.class", true, true),
    ] {
        let (agent, resource) = reads(condition);
        // What cannot be told apart counts as both: slower, never wrong.
        assert!(agent >= reads_agent && resource >= reads_resource, "{condition}: {agent} {resource}");
        let plain = !condition.contains("if ") && !condition.contains('{');
        assert!(!plain || (agent, resource) == (reads_agent, reads_resource), "{condition}: {agent} {resource}");
    }
}

#[test]
fn a_policy_for_one_agent_is_a_policy_for_one_agent() {
    let book = with_policy("@id(\"x\")\nforbid (principal == Agent::\"bot\", action, resource);");
    assert!(book.reads().agent);
    let other = Event { agent: AgentRef::Registered("other".to_owned()), ..event(1, "s3:GetObject", TIME) };
    assert_eq!(ids(&judge(&book, &event(1, "s3:GetObject", TIME))), ["extra/x"]);
    assert!(!ids(&judge(&book, &other)).contains(&"extra/x"));
}

#[test]
fn all_verbs_are_actions_of_the_schema() {
    for verb in super::VERBS {
        let policy = format!("@id(\"x\")\nforbid (principal, action == Action::\"{}\", resource);", verb.name());
        let book = with_policy(&policy);
        let hit = Event { verb, ..event(1, "a:B", TIME) };
        assert_eq!(ids(&judge(&book, &hit)), ["extra/x"]);
        let other = if verb == Verb::Read { Verb::Write } else { Verb::Read };
        assert!(judge(&book, &Event { verb: other, ..hit }).is_allowed());
    }
}
