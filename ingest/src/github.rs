//! What GitHub says happened: the audit log of an organisation or an enterprise.
//!
//! Field reference: "Audit log events for your organization" and "… for your enterprise" of GitHub's documentation, and
//! those on tokens and on agentic events. Events come one by one, as streaming writes them, or as an array, as the REST
//! API and exports do. A webhook's delivery is none.

use serde::Deserialize;
use tautline_detectors::event::{
    Argument, Credential, CredentialKind, Event, Origin, Outcome, Place, Principal, Resource, Source, Trace, Verb,
};

use crate::audit;
use crate::format::{Format, Opened, Top, Wire};
use crate::json::Raw;
use crate::wire::{self, Flag, Moment, Name, Scalar, Text, said, scalar, shown};
use crate::{Reason, Rejection};

pub(crate) const WIRE: Wire = Wire {
    format: Format::Github,
    name: "github",
    tells: &[
        "action",
        "actor",
        "_document_id",
        "@timestamp",
        "at_sign_timestamp",
        "created_at",
        "org",
        "repo",
        "business",
    ],
    looks,
    open: |text| Ok(Opened::one(text)),
    decode,
    sole: |_| None,
};

fn looks(top: &Top<'_>) -> bool {
    let others = ["_document_id", "@timestamp", "at_sign_timestamp", "org", "repo", "business"];
    let is_string = |name: &str| top.text(name).is_some();
    let dotted = top.text("action").is_some_and(|action| action.contains('.'));
    dotted && (others.iter().any(|name| top.has(name)) || is_string("actor"))
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    action: Name<'a>,
    #[serde(rename = "_document_id", borrow)]
    document_id: Option<Text<'a>>,
    #[serde(rename = "@timestamp")]
    timestamp: Option<Moment>,
    /// `@timestamp` in a lake.
    #[serde(rename = "at_sign_timestamp")]
    timestamp_in_lake: Option<Moment>,
    created_at: Option<Moment>,
    #[serde(borrow)]
    actor: Option<Text<'a>>,
    #[serde(borrow)]
    actor_id: Option<Scalar<'a>>,
    actor_is_bot: Option<Flag>,
    actor_is_agent: Option<Flag>,
    #[serde(borrow)]
    agent_session_id: Option<Scalar<'a>>,
    #[serde(borrow)]
    actor_ip: Option<Text<'a>>,
    #[serde(borrow)]
    user: Option<Text<'a>>,
    #[serde(borrow)]
    org: Option<Raw<'a>>,
    #[serde(borrow)]
    business: Option<Text<'a>>,
    #[serde(borrow)]
    repo: Option<Raw<'a>>,
    #[serde(borrow)]
    repository: Option<Raw<'a>>,
    #[serde(borrow)]
    team: Option<Text<'a>>,
    #[serde(borrow)]
    visibility: Option<Text<'a>>,
    #[serde(borrow)]
    operation_type: Option<Text<'a>>,
    #[serde(borrow)]
    request_method: Option<Text<'a>>,
    #[serde(borrow)]
    request_id: Option<Text<'a>>,
    #[serde(borrow)]
    status_code: Option<Scalar<'a>>,
    #[serde(borrow)]
    conclusion: Option<Text<'a>>,
    #[serde(borrow)]
    user_agent: Option<Text<'a>>,
    #[serde(borrow)]
    programmatic_access_type: Option<Text<'a>>,
    #[serde(borrow)]
    token_id: Option<Scalar<'a>>,
    #[serde(borrow)]
    hashed_token: Option<Text<'a>>,
    #[serde(borrow)]
    token_scopes: Option<Text<'a, 0, SCOPES_MAX>>,
    #[serde(borrow)]
    external_identity_nameid: Option<Text<'a>>,
    #[serde(borrow)]
    pull_request_url: Option<Text<'a>>,
    #[serde(borrow)]
    head_branch: Option<Text<'a>>,
    #[serde(borrow)]
    workflow_run_id: Option<Scalar<'a>>,
}

/// The most bytes of a token's scopes.
const SCOPES_MAX: usize = 16_384;

/// Decodes one event.
fn decode(json: &str) -> Result<Event, Rejection> {
    let record: Record<'_> = wire::object(json, "")?;
    let action = record.action.as_str();
    if !action.contains('.') {
        let detail = format!("`action` is `{}`, not a category and an operation: no audit log has it", shown(action));
        return Err(Rejection::new(Reason::Unsupported, detail));
    }
    let time = record.timestamp.or(record.timestamp_in_lake).or(record.created_at);
    let Some(Moment(at)) = time else {
        return Err(Rejection::new(Reason::MissingField, "`@timestamp` is missing"));
    };
    let account = account(&record);
    let verb = verb(action, said(&record.operation_type), said(&record.request_method));
    Ok(Event {
        id: format!("github/{account}/{}", said(&record.document_id)),
        source: Source::Github,
        at,
        action: format!("github:{action}"),
        verb,
        outcome: outcome(action, &record),
        arguments: arguments(&record),
        resource: resource(action, verb, &record),
        principal: principal(&record),
        credential: credential(&record),
        place: Place { account, ..Place::default() },
        origin: Origin {
            address: said(&record.actor_ip).to_owned(),
            user_agent: said(&record.user_agent).to_owned(),
            channel: channel(&record),
        },
        trace: record.request_id.map(|id| Trace { request_id: id.into_string(), ..Trace::default() }),
        ..Event::default()
    })
}

/// A name that may also be a list of names, of which the first counts.
fn one(raw: Option<&Raw<'_>>) -> String {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return String::new() };
    if let Ok(name) = audit::parsed::<Scalar<'_>>(raw, "") {
        return name.0.into_owned();
    }
    let names = audit::parsed::<wire::List<Scalar<'_>, { audit::ENTRIES_MAX }>>(raw, "").unwrap_or_default();
    names.0.into_iter().next().map(|name| name.0.into_owned()).unwrap_or_default()
}

/// The organisation; of an enterprise's own events the enterprise, of a repository its owner.
fn account(record: &Record<'_>) -> String {
    let (org, repository) = (one(record.org.as_ref()), repository(record));
    let owner = repository.split_once('/').map(|(owner, _)| owner);
    audit::first([Some(&org), Some(said(&record.business)), owner])
}

fn repository(record: &Record<'_>) -> String {
    audit::first([Some(&one(record.repo.as_ref())), Some(&one(record.repository.as_ref()))])
}

/// What an event's category names: the repository of what belongs to one, else the team, the user or the organisation.
fn resource(action: &str, verb: Verb, record: &Record<'_>) -> Resource {
    let category = action.split('.').next().unwrap_or_default();
    let (repository, account) = (repository(record), account(record));
    let own = match category {
        "team" => said(&record.team),
        "pull_request" | "pull_request_review" => said(&record.pull_request_url),
        _ => "",
    };
    let opened = match action {
        "repo.access" | "repo.create" | "repo.change_visibility" => said(&record.visibility) == "public",
        "repo.pages_public" | "repo.transfer_outgoing" | "org.transfer_outgoing" => true,
        _ => action == "private_repository_forking.enable",
    };
    Resource {
        kind: format!("github/{category}"),
        id: audit::first([Some(own), Some(&repository), Some(said(&record.user)), Some(&account)]),
        exposes: opened && verb != Verb::Read,
        ..Resource::default()
    }
}

/// Categories of events that are about who may do what.
const IDENTITY: [&str; 36] = [
    "authorized_users_teams",
    "business_role",
    "custom_repository_role",
    "deploy_key",
    "enterprise_installation",
    "external_group",
    "external_identity",
    "github_app",
    "integration",
    "integration_installation",
    "integration_installation_request",
    "ip_allow_list",
    "ip_allow_list_entry",
    "members_can_create_pages",
    "oauth_access",
    "oauth_application",
    "oauth_authorization",
    "org_credential_authorization",
    "org_secret_scanning_custom_pattern",
    "organization_default_label",
    "organization_moderators",
    "organization_role",
    "personal_access_token",
    "private_repository_forking",
    "protected_branch",
    "public_key",
    "repository_branch_protection_evaluation",
    "repository_invitation",
    "repository_ruleset",
    "repository_security_configuration",
    "role",
    "ssh_certificate_authority",
    "ssh_certificate_requirement",
    "sso",
    "team_sync_tenant",
    "two_factor_authentication",
];

/// Operations of broader categories that are about who may do what.
const GRANTS: [&str; 29] = [
    "business.add_admin",
    "business.invite_admin",
    "business.remove_admin",
    "business.add_organization",
    "business.add_support_entitlee",
    "org.add_billing_manager",
    "org.add_member",
    "org.add_outside_collaborator",
    "org.invite_member",
    "org.invite_to_business",
    "org.remove_billing_manager",
    "org.remove_member",
    "org.remove_outside_collaborator",
    "org.update_member",
    "org.update_member_repository_creation_permission",
    "org.update_default_repository_permission",
    "repo.access",
    "repo.add_member",
    "repo.remove_member",
    "repo.update_member",
    "repo.transfer",
    "repo.transfer_outgoing",
    "team.add_member",
    "team.add_repository",
    "team.demote_maintainer",
    "team.update_repository_permission",
    "team.promote_maintainer",
    "team.remove_member",
    "team.remove_repository",
];

/// The verb. GitHub's own `operation_type` says what only looks; of the rest the category and the operation decide.
fn verb(action: &str, operation: &str, method: &str) -> Verb {
    let (category, name) = action.split_once('.').unwrap_or((action, ""));
    match (category, name) {
        ("git", "clone" | "fetch") | ("repo", "download_zip" | "download_tarball") => Verb::Read,
        ("api", "request") if matches!(method, "GET" | "HEAD") => Verb::Read,
        _ if operation == "access" || operation == "authentication" => Verb::Read,
        // A sign-in changes nothing.
        ("org" | "business", "sso_response") => Verb::Read,
        // A push that a rule stopped.
        ("protected_branch", "rejected_ref_update") => Verb::Write,
        ("codespaces", name) if name.starts_with("policy_group") => Verb::PermissionChange,
        ("workflows" | "codespaces", _) if runs(name) => Verb::Execute,
        ("pull_request", "merge") => Verb::Write,
        ("pull_request" | "pull_request_review" | "pull_request_review_comment" | "issues" | "issue_comment", _) => {
            Verb::Propose
        }
        _ if IDENTITY.contains(&category) || GRANTS.contains(&action) => Verb::PermissionChange,
        _ if name.contains("two_factor") || name.contains("saml") || name.contains("sso") => Verb::PermissionChange,
        _ => Verb::Write,
    }
}

/// Whether an operation of Actions or Codespaces runs something.
fn runs(name: &str) -> bool {
    let words = ["workflow_run", "workflow_job", "rerun", "create", "connect", "start", "trusted_repositories"];
    words.into_iter().any(|word| name.contains(word)) && !name.starts_with("delete") && !name.starts_with("cancel")
}

/// What is logged was done, unless a status or the end of a run says otherwise.
fn outcome(action: &str, record: &Record<'_>) -> Outcome {
    let (status, conclusion) = (scalar(record.status_code.as_ref()), said(&record.conclusion));
    match (status.parse::<u16>(), conclusion) {
        (Ok(401 | 403), _) => Outcome::Denied(status),
        (Ok(400..), _) => Outcome::Failed(status),
        (_, "failure" | "cancelled" | "timed_out" | "startup_failure") => Outcome::Failed(conclusion.to_owned()),
        _ if action == "protected_branch.rejected_ref_update" => Outcome::Denied(action.to_owned()),
        _ if action.ends_with("_failed") || action.ends_with(".failed_login") => Outcome::Failed(action.to_owned()),
        _ => Outcome::Success,
    }
}

/// Who acted. An agent acts for the user whom the event names; GitHub itself where there is no actor.
fn principal(record: &Record<'_>) -> Principal {
    let actor = audit::first([Some(said(&record.actor)), Some(&scalar(record.actor_id.as_ref()))]);
    let user = said(&record.user);
    let is_agent = record.actor_is_agent.is_some_and(|Flag(is)| is);
    let behind =
        if is_agent && !user.is_empty() && user != actor { user } else { said(&record.external_identity_nameid) };
    Principal {
        id: if actor.is_empty() { "unnamed/github".to_owned() } else { actor },
        session: scalar(record.agent_session_id.as_ref()),
        on_behalf_of: if behind.is_empty() { Vec::new() } else { vec![behind.to_owned()] },
        ..Principal::default()
    }
}

/// How GitHub says that an agent was at work.
fn channel(record: &Record<'_>) -> String {
    let is_agent = record.actor_is_agent.is_some_and(|Flag(is)| is);
    if is_agent { "agent".to_owned() } else { String::new() }
}

/// The credential's kind by how GitHub names the way in. A token's scopes and hash are facts of its own.
fn credential(record: &Record<'_>) -> Credential {
    let way = said(&record.programmatic_access_type).to_ascii_lowercase();
    let is_bot = record.actor_is_bot.is_some_and(|Flag(is)| is);
    let kind = match way.as_str() {
        // As GitHub calls them; a fine-grained token may have an end, after up to a year.
        way if ["personal access token", "oauth", "key"].into_iter().any(|word| way.contains(word)) => {
            CredentialKind::LongLived
        }
        way if way.contains("server-to-server") || way.contains("user-to-server") || way.contains("github app") => {
            CredentialKind::ShortLived
        }
        "" if is_bot && said(&record.actor).ends_with("[bot]") => CredentialKind::ShortLived,
        _ => CredentialKind::Unknown,
    };
    let id = audit::first([Some(&scalar(record.token_id.as_ref())), Some(said(&record.hashed_token))]);
    Credential { id, kind, ..Credential::default() }
}

/// The facts beside who and what that the event tells.
fn arguments(record: &Record<'_>) -> Vec<Argument> {
    let run = scalar(record.workflow_run_id.as_ref());
    let facts = [
        ("user", said(&record.user)),
        ("visibility", said(&record.visibility)),
        ("programmatic_access_type", said(&record.programmatic_access_type)),
        ("token_scopes", said(&record.token_scopes)),
        ("head_branch", said(&record.head_branch)),
        ("workflow_run_id", &run),
    ];
    facts
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| audit::text_argument(name, value))
        .collect()
}

#[cfg(test)]
#[path = "github/tests.rs"]
mod tests;
