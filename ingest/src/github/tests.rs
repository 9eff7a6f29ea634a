#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::*;

fn record() -> Value {
    json!({
        "@timestamp": 1_772_442_904_123_i64, "_document_id": "doc-1", "action": "pull_request.create",
        "actor": "janitor[bot]", "actor_id": 7, "actor_is_bot": true, "actor_ip": "198.51.100.7", "business": "corp",
        "org": "shop", "org_id": 5, "repo": "shop/site", "user": "ada", "user_agent": "agent/1", "request_id": "r-1",
        "operation_type": "create", "programmatic_access_type": "GitHub App server-to-server token", "token_id": 99,
        "pull_request_url": "https://github.com/shop/site/pull/7"
    })
}

fn with(changes: &[(&str, Value)]) -> Event {
    let mut record = record();
    for (name, value) in changes {
        record[name] = value.clone();
    }
    decode(&record.to_string()).unwrap()
}

#[test]
fn an_event_says_who_did_what_to_what() {
    let event = with(&[]);
    assert_eq!((event.id.as_str(), event.at), ("github/shop/doc-1", 1_772_442_904_123));
    assert_eq!((event.principal.id.as_str(), event.place.account.as_str()), ("janitor[bot]", "shop"));
    assert_eq!((event.action.as_str(), event.verb), ("github:pull_request.create", Verb::Propose));
    assert_eq!(event.resource.kind, "github/pull_request");
    assert_eq!(event.resource.id, "https://github.com/shop/site/pull/7");
    assert_eq!((event.credential.id.as_str(), event.credential.kind), ("99", CredentialKind::ShortLived));
    assert_eq!((event.origin.address.as_str(), event.origin.user_agent.as_str()), ("198.51.100.7", "agent/1"));
    assert_eq!((event.outcome, event.origin.channel.as_str()), (Outcome::Success, ""));
    assert_eq!(event.trace.unwrap().request_id, "r-1");
}

#[test]
fn verbs_are_told_by_category_and_operation() {
    for (action, expected) in [
        ("git.clone", Verb::Read),
        ("git.push", Verb::Write),
        ("repo.download_zip", Verb::Read),
        ("pull_request.merge", Verb::Write),
        ("pull_request_review.submit", Verb::Propose),
        ("issue_comment.create", Verb::Propose),
        ("workflows.created_workflow_run", Verb::Execute),
        ("workflows.delete_workflow_run", Verb::Write),
        ("codespaces.connect", Verb::Execute),
        ("repo.create", Verb::Write),
        ("repo.access", Verb::PermissionChange),
        ("repo.add_member", Verb::PermissionChange),
        ("protected_branch.destroy", Verb::PermissionChange),
        ("public_key.create", Verb::PermissionChange),
        ("org.disable_two_factor_requirement", Verb::PermissionChange),
        ("hook.create", Verb::Write),
        ("team.remove_member", Verb::PermissionChange),
        ("team.remove_repository", Verb::PermissionChange),
        ("team.demote_maintainer", Verb::PermissionChange),
        ("org.add_billing_manager", Verb::PermissionChange),
        ("codespaces.policy_group_created", Verb::PermissionChange),
        ("org.sso_response", Verb::Read),
        ("business.sso_response", Verb::Read),
    ] {
        assert_eq!(verb(action, "create", ""), expected, "{action}");
    }
    assert_eq!(verb("audit_log.export", "access", ""), Verb::Read);
    assert_eq!((verb("api.request", "", "GET"), verb("api.request", "", "DELETE")), (Verb::Read, Verb::Write));
}

#[test]
fn an_agent_acts_for_a_user_in_a_session() {
    let event =
        with(&[("actor", json!("Copilot")), ("actor_is_agent", json!(true)), ("agent_session_id", json!("s-1"))]);
    assert_eq!((event.principal.id.as_str(), event.principal.session.as_str()), ("Copilot", "s-1"));
    assert_eq!(event.principal.on_behalf_of, ["ada"]);
    assert_eq!(event.origin.channel, "agent");
}

#[test]
fn a_token_without_an_end_is_told_from_one_with() {
    let kind = |way: &str| with(&[("programmatic_access_type", json!(way))]).credential.kind;
    assert_eq!(kind("Personal access token (classic)"), CredentialKind::LongLived);
    assert_eq!(kind("OAuth access token"), CredentialKind::LongLived);
    assert_eq!(kind("Deploy key"), CredentialKind::LongLived);
    assert_eq!(kind("GitHub App user-to-server token"), CredentialKind::ShortLived);
    assert_eq!(kind("something new"), CredentialKind::Unknown);
}

#[test]
fn opening_a_repository_exposes_it() {
    let public = [("action", json!("repo.access")), ("visibility", json!("public"))];
    assert!(with(&public).resource.exposes);
    let private = [("action", json!("repo.access")), ("visibility", json!("private"))];
    assert!(!with(&private).resource.exposes);
    assert!(with(&[("action", json!("repo.transfer_outgoing"))]).resource.exposes);
    assert!(!with(&[("action", json!("private_repository_forking.disable"))]).resource.exposes);
    assert_eq!(with(&private).resource.id, "shop/site");
}

#[test]
fn a_status_or_the_end_of_a_run_is_the_outcome() {
    let outcome = |name, value| with(&[(name, value)]).outcome;
    assert_eq!(outcome("status_code", json!(403)), Outcome::Denied("403".to_owned()));
    assert_eq!(outcome("status_code", json!(500)), Outcome::Failed("500".to_owned()));
    assert_eq!(outcome("conclusion", json!("failure")), Outcome::Failed("failure".to_owned()));
    let stopped =
        with(&[("action", json!("protected_branch.rejected_ref_update")), ("operation_type", json!("modify"))]);
    assert_eq!(stopped.outcome, Outcome::Denied("protected_branch.rejected_ref_update".to_owned()));
    assert_eq!(stopped.verb, Verb::Write);
}

#[test]
fn times_are_numbers_or_texts_and_a_webhook_is_no_audit_log() {
    let written = with(&[("@timestamp", Value::Null), ("created_at", json!("2026-03-02 09:15:04.123"))]);
    assert_eq!(written.at, 1_772_442_904_123);
    let mut timeless = record();
    timeless["@timestamp"].take();
    assert_eq!(decode(&timeless.to_string()).unwrap_err().detail, "`@timestamp` is missing");
    let hook = json!({"action": "opened", "repository": {"full_name": "shop/site"}, "sender": {"login": "ada"}});
    assert_eq!(decode(&hook.to_string()).unwrap_err().reason, Reason::Unsupported);
    let keyless = with(&[("_document_id", Value::Null)]);
    assert_eq!(keyless.id, "github/shop/");
}
