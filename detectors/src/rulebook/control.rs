//! A control: what is watched, how severe it is, what follows, and which detectors with which thresholds do it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::toml_file::TomlFile;
use super::{RuleFile, RulebookError};
use crate::baselines::Heard;
use crate::detector::{self, Detector};
use crate::deviation::Severity;

/// One control, read from `control.toml`.
#[derive(Debug)]
pub struct Control {
    /// Id: the name of its folder.
    pub id: String,
    /// One line for people.
    pub title: String,
    /// How bad it is, unless a policy's `@severity` says otherwise.
    pub severity: Severity,
    /// What follows.
    pub response: Response,
    /// Whether what it finds is reported.
    pub mode: Mode,
    /// Whether what it finds puts the agent under quarantine.
    pub quarantine: bool,
    /// What its findings mean to who asks before the act; where it says nothing, broken rules deny and statistics advise.
    pub gate: Option<Gate>,
    /// MITRE ATT&CK, MITRE ATLAS and OWASP entries that it speaks to.
    pub frameworks: Vec<Framework>,
    /// What it must have heard of an agent to say anything about it.
    pub needs: Vec<Need>,
    /// The detectors that serve it, each with the severity of what it finds.
    pub detectors: Vec<(Severity, Box<dyn Detector>)>,
}

/// What follows from a deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// An alert.
    Alert,
    /// An alert and a request to revoke the session or credential.
    Revoke,
}

/// Whether what a control finds is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It is.
    #[default]
    Alert,
    /// It is counted only: a control on trial.
    Shadow,
}

/// What a finding means to who asks before the act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// The act is denied.
    Deny,
    /// The act is allowed, and the finding told.
    Advise,
}

/// A source without which a control is blind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// The agent's own word.
    AgentAction,
    /// The audit log's records of the agent.
    Audit,
    /// Events of the data plane, which clouds write only where they are told to; of any agent.
    DataEvents,
}

impl Need {
    /// The name used in rules and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Need::AgentAction => "agent-action",
            Need::Audit => "audit",
            Need::DataEvents => "data-events",
        }
    }

    /// Whether it is there for an agent of which this was heard, among agents of which all of `anybody` was.
    pub fn is_met(self, heard: Heard, anybody: Heard) -> bool {
        match self {
            Need::AgentAction => heard.has(Heard::DECLARED),
            Need::Audit => heard.has(Heard::AUDITED),
            Need::DataEvents => anybody.has(Heard::DATA_EVENTS),
        }
    }
}

/// An entry of a public catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Framework {
    /// Which catalogue.
    pub catalogue: Catalogue,
    /// The catalogue's version.
    pub version: String,
    /// The entry's id in it.
    pub id: String,
    /// The entry's name in it.
    pub name: String,
}

/// A public catalogue of attacks or risks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Catalogue {
    /// MITRE ATT&CK.
    Attack,
    /// MITRE ATLAS.
    Atlas,
    /// OWASP Top 10 for Agentic Applications.
    Owasp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawControl {
    id: Spanned<String>,
    title: String,
    severity: Severity,
    response: Spanned<Response>,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    quarantine: Option<Spanned<bool>>,
    gate: Option<Gate>,
    #[serde(default)]
    needs: Vec<Need>,
}

/// Reads all `control.toml` files.
pub(super) fn read_all(files: &[&RuleFile], errors: &mut Vec<RulebookError>) -> BTreeMap<String, Control> {
    files.iter().filter_map(|file| read(file, errors)).map(|control| (control.id.clone(), control)).collect()
}

fn read(file: &RuleFile, errors: &mut Vec<RulebookError>) -> Option<Control> {
    let mut toml = TomlFile::parse(file, errors);
    let frameworks = toml.list::<Framework>("frameworks", errors).into_iter().map(|entry| entry.value).collect();
    let mut built = Vec::new();
    for entry in toml.list::<toml::Table>("detector", errors) {
        match read_detector(entry.value) {
            Ok(detector) => built.push(detector),
            Err(message) => errors.push(file.error(entry.span.start, message)),
        }
    }
    let raw: RawControl = toml.rest(errors)?;
    let with_severity = |(severity, detector): (Option<Severity>, _)| (severity.unwrap_or(raw.severity), detector);
    let detectors: Vec<(Severity, Box<dyn Detector>)> = built.into_iter().map(with_severity).collect();
    let folder = file.name.split('/').next().unwrap_or_default();
    if raw.id.get_ref() != folder {
        let message = format!("id `{}` must be the name of its folder, `{folder}`", raw.id.get_ref());
        errors.push(file.error(raw.id.span().start, message));
    }
    let is_statistical = detectors.iter().any(|(_, detector)| detector.is_statistical());
    if *raw.response.get_ref() == Response::Revoke && is_statistical {
        let message = "a control that rests on statistics may not revoke by itself: set `response = \"alert\"`";
        errors.push(file.error(raw.response.span().start, message));
    }
    let quarantine = raw.quarantine.filter(|quarantine| *quarantine.get_ref());
    if let Some(quarantine) = quarantine.as_ref().filter(|_| is_statistical) {
        let message =
            "a control that rests on statistics may not put an agent under quarantine: leave `quarantine` out";
        errors.push(file.error(quarantine.span().start, message));
    }
    Some(Control {
        id: raw.id.into_inner(),
        title: raw.title,
        severity: raw.severity,
        response: raw.response.into_inner(),
        mode: raw.mode,
        quarantine: quarantine.is_some(),
        gate: raw.gate,
        frameworks,
        needs: raw.needs,
        detectors,
    })
}

/// Reads one `[[detector]]` and the severity of its own that it may have.
fn read_detector(mut parameters: toml::Table) -> Result<(Option<Severity>, Box<dyn Detector>), String> {
    let severity = parameters.remove("severity").map(|severity| {
        severity.as_str().ok_or_else(|| format!("`{severity}` is not a severity")).and_then(str::parse)
    });
    Ok((severity.transpose()?, detector::build(parameters)?))
}
