//! Policy as code: Cedar policies, validated against the schema at load, and what they say of bounded facts.
//!
//! A `forbid` that fits is a violation. A policy that cannot be evaluated is one too: Cedar skips it, and a broken
//! `forbid` must never vanish.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr;

use cedar_policy::{
    AuthorizationError, Authorizer, Context, Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy,
    PolicyId, PolicySet, Request, Response, RestrictedExpression, Schema, ValidationMode, ValidationResult, Validator,
};
use miette::Diagnostic;

use super::facts::{Facts, Reads, TEXTS, TRUTHS};
use super::{RuleFile, RulebookError};
use crate::deviation::Severity;
use crate::event::{Event, Verb};

/// Where a policy stands and what it says to people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PolicyRef {
    /// `<control>/<@id>`.
    pub id: String,
    /// The control it belongs to.
    pub control: String,
    /// File, as the user would write it.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
    /// What it says, from `@message`.
    pub message: String,
    /// Severity from `@severity`, where it differs from the control's.
    pub severity: Option<Severity>,
}

/// One policy that an event violates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which policy.
    pub policy: PolicyRef,
    /// The evaluation error, if the policy could not even be evaluated.
    pub error: Option<String>,
}

/// What the policies say of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Violated policies, by id.
    pub violations: Vec<Violation>,
    /// The smallest change to the facts that would have been allowed, in words; empty where nothing is violated.
    pub remedy: String,
}

impl Judgement {
    /// Whether nothing forbids the event.
    pub fn is_allowed(&self) -> bool {
        self.violations.is_empty()
    }

    /// Whether the event judged is what an agent under quarantine may still do: a read that no policy forbids.
    pub(crate) fn is_declared_read(&self, event: &Event) -> bool {
        event.verb == Verb::Read && self.is_allowed()
    }
}

/// All policies of a rulebook.
#[derive(Debug)]
pub(super) struct Policies {
    set: PolicySet,
    refs: BTreeMap<PolicyId, PolicyRef>,
    schema: Schema,
    authorizer: Authorizer,
    names: Names,
    warnings: Vec<String>,
    reads: Reads,
}

/// Cedar names parsed once.
#[derive(Debug)]
struct Names {
    agent: EntityTypeName,
    resource: EntityTypeName,
    actions: HashMap<Verb, EntityUid>,
}

pub(super) const VERBS: [Verb; 5] = [Verb::Read, Verb::Write, Verb::Propose, Verb::Execute, Verb::PermissionChange];

impl Names {
    fn new() -> Option<Self> {
        let action = EntityTypeName::from_str("Action").ok()?;
        Some(Self {
            agent: EntityTypeName::from_str("Agent").ok()?,
            resource: EntityTypeName::from_str("Resource").ok()?,
            actions: VERBS
                .into_iter()
                .map(|verb| (verb, EntityUid::from_type_name_and_id(action.clone(), EntityId::new(verb.name()))))
                .collect(),
        })
    }
}

impl Policies {
    /// Reads schema and policies; `None` where an error makes judging impossible.
    pub(super) fn read(
        schema: Option<&RuleFile>,
        files: &[&RuleFile],
        errors: &mut Vec<RulebookError>,
    ) -> Option<Self> {
        let Some(schema_file) = schema else {
            let path = "schema.cedarschema".to_owned();
            let message = "no Cedar schema: the rules directory needs `schema.cedarschema`".to_owned();
            errors.push(RulebookError { path, line: 1, message });
            return None;
        };
        let mut policies = Self {
            set: PolicySet::new(),
            refs: BTreeMap::new(),
            schema: read_schema(schema_file, errors)?,
            authorizer: Authorizer::new(),
            names: Names::new()?,
            warnings: Vec::new(),
            reads: Reads::default(),
        };
        for file in files {
            policies.add_file(file, errors);
        }
        policies.validate(files, errors);
        policies.check_facts_fit_schema(schema_file, errors);
        if !policies.set.policies().any(|policy| policy.effect() == Effect::Permit) {
            errors.push(schema_file.error(0, "no policy permits anything: at least one `permit` is needed"));
        }
        Some(policies)
    }

    fn add_file(&mut self, file: &RuleFile, errors: &mut Vec<RulebookError>) {
        let parsed = match PolicySet::from_str(&file.text) {
            Ok(parsed) => parsed,
            Err(found) => {
                errors.extend(found.iter().map(|error| diagnostic(file, error, 0)));
                return;
            }
        };
        let control = file.name.split('/').next().unwrap_or_default().to_owned();
        for template in parsed.templates() {
            let offset = file.text.find(&template.to_cedar()).unwrap_or(0);
            errors.push(file.error(offset, "a policy template applies to nobody here: name principal and resource"));
        }
        // Cedar numbers the policies of a text `policy0`, `policy1`, …; two may have the same text.
        let number = |policy: &&Policy| policy.id().to_string().trim_start_matches("policy").parse::<usize>().ok();
        let mut policies: Vec<&Policy> = parsed.policies().collect();
        policies.sort_by_key(number);
        let mut from = 0;
        for policy in policies {
            let text = policy.to_cedar().unwrap_or_default();
            let offset = file.text.get(from..).and_then(|rest| rest.find(&text)).map_or(from, |at| from + at);
            from = offset + text.len();
            let Some(own_id) = policy.annotation("id") else {
                errors.push(file.error(offset, "a policy needs an `@id(\"…\")`"));
                continue;
            };
            let id = format!("{control}/{own_id}");
            let severity = match policy.annotation("severity").map(Severity::from_str).transpose() {
                Ok(severity) => severity,
                Err(message) => {
                    errors.push(file.error(offset, message));
                    None
                }
            };
            let reference = PolicyRef {
                id: id.clone(),
                control: control.clone(),
                path: file.path.clone(),
                line: file.line(offset),
                text,
                message: policy.annotation("message").unwrap_or_default().to_owned(),
                severity,
            };
            self.note_what_it_reads(policy, &reference);
            let id = PolicyId::new(id);
            if self.set.add(policy.new_id(id.clone())).is_err() {
                errors.push(file.error(offset, format!("policy id `{own_id}` is used twice in this control")));
            }
            self.refs.insert(id, reference);
        }
    }

    /// Which facts a policy depends on.
    pub(super) fn reads_of(&self, policy: &Policy) -> Reads {
        let literals = policy.entity_literals();
        let json = policy.to_json().unwrap_or_default();
        let mut found = Reads {
            agent: literals.iter().any(|uid| uid.type_name() == &self.names.agent) || reads(&json, "principal", "id"),
            resource_id: literals.iter().any(|uid| uid.type_name() == &self.names.resource)
                || reads(&json, "resource", "id"),
            ..Reads::default()
        };
        let texts = TEXTS.iter().zip(&mut found.texts);
        for (name, read) in texts.chain(TRUTHS.iter().zip(&mut found.truths)) {
            let (variable, attribute) = name.split_once('.').unwrap_or_default();
            *read = reads(&json, variable, attribute) || reads_whole(&json, variable);
        }
        found
    }

    /// Notes whether the policy depends on more than bounded facts.
    fn note_what_it_reads(&mut self, policy: &Policy, reference: &PolicyRef) {
        let reads = self.reads_of(policy);
        self.reads.add(&reads);
        if reads.resource_id {
            let PolicyRef { id, path, line, .. } = reference;
            self.warnings.push(format!("{path}:{line}: policy `{id}` reads the resource id: decisions are not cached"));
        }
    }

    /// What Cedar's validator says of them.
    pub(super) fn validated(&self) -> ValidationResult {
        Validator::new(self.schema.clone()).validate(&self.set, ValidationMode::Strict)
    }

    /// All policies, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Policy, &PolicyRef)> {
        self.refs.iter().filter_map(|(id, reference)| Some((self.set.policy(id)?, reference)))
    }

    /// Which of some policies, all of one effect, fit these facts or cannot be evaluated on them.
    pub(super) fn fitting(&self, some: &PolicySet, facts: &Facts<'_>) -> Result<BTreeSet<PolicyId>, String> {
        let response = self.authorized(some, facts)?;
        let (reasons, errors) = (response.diagnostics().reason(), response.diagnostics().errors());
        let failed = |AuthorizationError::PolicyEvaluationError(error): &AuthorizationError| error.policy_id().clone();
        Ok(reasons.cloned().chain(errors.map(failed)).collect())
    }

    fn authorized(&self, some: &PolicySet, facts: &Facts<'_>) -> Result<Response, String> {
        let (request, entities) = self.request(facts)?;
        let entities = Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
        Ok(self.authorizer.is_authorized(&request, some, &entities))
    }

    fn validate(&self, files: &[&RuleFile], errors: &mut Vec<RulebookError>) {
        let result = self.validated();
        for error in result.validation_errors() {
            let Some(reference) = self.refs.get(error.policy_id()) else { continue };
            if let Some(file) = files.iter().find(|file| file.path == reference.path) {
                let mut found = diagnostic(file, error, reference.line);
                // Cedar says the same of every action; once will do.
                for verb in VERBS {
                    found.message = found.message.replace(&format!(" for Action::\"{}\"", verb.name()), "");
                }
                errors.push(found);
            }
        }
    }

    /// The schema may be extended by a team, but what the product computes must still fit it.
    fn check_facts_fit_schema(&self, file: &RuleFile, errors: &mut Vec<RulebookError>) {
        let sample = Facts { agent: "", resource_id: "", verb: Verb::Read, texts: [""; _], truths: [false; _] };
        let checked = match self.request(&sample) {
            Ok((request, entities)) => Request::new(
                request.principal().cloned().unwrap_or_else(|| self.names.uid(&self.names.agent, "")),
                request.action().cloned().unwrap_or_else(|| self.names.uid(&self.names.agent, "")),
                request.resource().cloned().unwrap_or_else(|| self.names.uid(&self.names.agent, "")),
                request.context().cloned().unwrap_or_else(Context::empty),
                Some(&self.schema),
            )
            .map_err(|error| error.to_string())
            .and_then(|_| Entities::from_entities(entities, Some(&self.schema)).map_err(|error| error.to_string())),
            Err(message) => Err(message),
        };
        if let Err(message) = checked {
            errors.push(file.error(0, format!("the schema does not fit what Tautline computes: {message}")));
        }
    }

    /// Reports policies in folders that are no control.
    pub(super) fn check_controls(&self, is_control: impl Fn(&str) -> bool, errors: &mut Vec<RulebookError>) {
        for reference in self.refs.values().filter(|reference| !is_control(&reference.control)) {
            errors.push(RulebookError {
                path: reference.path.clone(),
                line: reference.line,
                message: format!("policy outside a control: `{}` has no control.toml", reference.control),
            });
        }
    }

    pub(super) fn judge(&self, facts: &Facts<'_>) -> Judgement {
        let response = match self.authorized(&self.set, facts) {
            Ok(response) => response,
            Err(message) => return self.unpermitted(Some(message)),
        };
        let found = |id: &PolicyId, error: Option<String>| {
            self.refs.get(id).map(|policy| Violation { policy: policy.clone(), error })
        };
        let diagnostics = response.diagnostics();
        let denied = response.decision() == cedar_policy::Decision::Deny;
        let mut violations: Vec<Violation> = Vec::new();
        if denied {
            violations.extend(diagnostics.reason().filter_map(|id| found(id, None)));
        }
        violations.extend(diagnostics.errors().filter_map(|error| {
            let AuthorizationError::PolicyEvaluationError(error) = error;
            found(error.policy_id(), Some(error.inner().to_string()))
        }));
        if denied && violations.is_empty() {
            return self.unpermitted(None);
        }
        violations.sort_by(|a, b| a.policy.id.cmp(&b.policy.id));
        Judgement { violations, ..Judgement::default() }
    }

    /// Cedar denies what nothing permits; the finding belongs to the controls that do the permitting.
    fn unpermitted(&self, error: Option<String>) -> Judgement {
        let permits = self.set.policies().filter(|policy| policy.effect() == Effect::Permit);
        let mut violations: Vec<Violation> = permits
            .filter_map(|policy| self.refs.get(policy.id()))
            .map(|policy| Violation { policy: policy.clone(), error: error.clone() })
            .collect();
        violations.sort_by(|a, b| a.policy.id.cmp(&b.policy.id));
        violations.dedup_by(|a, b| a.policy.control == b.policy.control);
        Judgement { violations, ..Judgement::default() }
    }

    fn request(&self, facts: &Facts<'_>) -> Result<(Request, [Entity; 2]), String> {
        let mut parts: [(&str, HashMap<String, RestrictedExpression>); 3] =
            [("principal.", HashMap::new()), ("resource.", HashMap::new()), ("context.", HashMap::new())];
        let texts = TEXTS.iter().zip(facts.texts).map(|(name, text)| (*name, string(text)));
        let truths =
            TRUTHS.iter().zip(facts.truths).map(|(name, truth)| (*name, RestrictedExpression::new_bool(truth)));
        let ids = [("principal.id", string(facts.agent)), ("resource.id", string(facts.resource_id))];
        for (name, value) in texts.chain(truths).chain(ids) {
            for (prefix, attributes) in &mut parts {
                if let Some(attribute) = name.strip_prefix(*prefix) {
                    attributes.insert(attribute.to_owned(), value.clone());
                }
            }
        }
        let [(_, principal), (_, resource), (_, context)] = parts;
        let agent = self.names.uid(&self.names.agent, facts.agent);
        let target = self.names.uid(&self.names.resource, facts.resource_id);
        let action = self.names.actions.get(&facts.verb).ok_or("unknown verb")?;
        let context = Context::from_pairs(context).map_err(|error| error.to_string())?;
        let request = Request::new(agent.clone(), action.clone(), target.clone(), context, None)
            .map_err(|error| error.to_string())?;
        let entity = |uid, attributes| {
            Entity::new(uid, attributes, std::collections::HashSet::new()).map_err(|error| error.to_string())
        };
        Ok((request, [entity(agent, principal)?, entity(target, resource)?]))
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(super) fn reads(&self) -> &Reads {
        &self.reads
    }

    /// Whether policies read nothing that an agent can make up: no resource, and none of the texts that are its own word.
    pub(super) fn reads_bounded(&self) -> bool {
        let own_word = |name: &str| matches!(name, "resource.type" | "context.operation");
        !self.reads.resource_id && !TEXTS.iter().zip(self.reads.texts).any(|(name, read)| read && own_word(name))
    }
}

impl Names {
    fn uid(&self, kind: &EntityTypeName, id: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
    }
}

fn string(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn read_schema(file: &RuleFile, errors: &mut Vec<RulebookError>) -> Option<Schema> {
    match Schema::from_cedarschema_str(&file.text) {
        Ok((schema, _)) => Some(schema),
        Err(error) => {
            errors.push(diagnostic(file, &error, 0));
            None
        }
    }
}

/// Whether a policy in Cedar's JSON form reads `variable.attribute`, or that attribute of something that may be the variable.
fn reads(json: &serde_json::Value, variable: &str, attribute: &str) -> bool {
    match json {
        serde_json::Value::Object(object) => {
            let access = object.get(".").or_else(|| object.get("has"));
            access.is_some_and(|a| {
                let of = a.pointer("/left/Var");
                of.is_none_or(|of| of == variable) && a.get("attr").is_some_and(|name| name == attribute)
            }) || object.values().any(|value| reads(value, variable, attribute))
        }
        serde_json::Value::Array(array) => array.iter().any(|value| reads(value, variable, attribute)),
        _ => false,
    }
}

/// Whether a policy in Cedar's JSON form uses a variable other than by reading an attribute of it.
fn reads_whole(json: &serde_json::Value, variable: &str) -> bool {
    match json {
        serde_json::Value::Object(object) => {
            let access = object.get(".").or_else(|| object.get("has"));
            let by_attribute = access.is_some_and(|a| a.pointer("/left/Var").is_some_and(|var| var == variable));
            let itself = object.get("Var").is_some_and(|var| var == variable);
            itself || (!by_attribute && object.values().any(|value| reads_whole(value, variable)))
        }
        serde_json::Value::Array(array) => array.iter().any(|value| reads_whole(value, variable)),
        _ => false,
    }
}

/// One of Cedar's own diagnostics as ours: its label's place if it has one, else the line given.
fn diagnostic(file: &RuleFile, error: &(impl Diagnostic + ?Sized), line: usize) -> RulebookError {
    let offset = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
    let help = error.help().map(|help| format!(" ({help})")).unwrap_or_default();
    RulebookError {
        path: file.path.clone(),
        line: offset.map_or(line.max(1), |offset| file.line(offset)),
        message: format!("{error}{help}").replace('\n', " "),
    }
}

#[cfg(test)]
mod tests;
