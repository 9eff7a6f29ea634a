//! `tautline check --mutate`: whether the controls' own events would notice if a policy were gone or turned round, or a
//! threshold or a severity were another.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use regex::{Captures, Regex};
use tautline_detectors::rulebook::{Control, RuleFile, Rulebook};
use tautline_ingest::redact::Redactor;

use crate::check;

/// One change of one rule.
pub(crate) struct Mutant {
    /// Which file of the rulebook.
    file: usize,
    /// Where it stands, as the user would write it.
    pub(crate) place: String,
    /// What was changed.
    pub(crate) what: String,
    /// The file's text with the change.
    text: String,
}

/// A number, or a length of time, that a key is set to.
#[allow(clippy::expect_used, reason = "the expression is a literal")]
static VALUE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"= ("?)([0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?)([smhd]?)("?)"#).expect("the expression is valid")
});

/// A severity that a key is set to.
#[allow(clippy::expect_used, reason = "the expression is a literal")]
static SEVERITY: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"= "(informational|low|medium|high|critical)""#).expect("the expression is valid"));

/// How thresholds are changed.
const FACTORS: [f64; 2] = [10.0, 0.1];

/// Makes every mutant of a rulebook, and returns how many there were and those that no control's events noticed.
pub(crate) fn survivors(
    rules: &Path,
    book: &Rulebook,
    redactor: &Redactor,
    mut progress: impl FnMut(usize, usize),
) -> (usize, Vec<Mutant>) {
    let mutants: Vec<Mutant> = book.files().iter().enumerate().flat_map(|(index, file)| of_file(index, file)).collect();
    let many = mutants.len();
    let mut left = Vec::new();
    for (number, mutant) in mutants.into_iter().enumerate() {
        progress(number, many);
        if !is_noticed(rules, book, redactor, &mutant) {
            left.push(mutant);
        }
    }
    (many, left)
}

/// Whether a mutant is refused when it is read, or makes any control's events say something else.
fn is_noticed(rules: &Path, book: &Rulebook, redactor: &Redactor, mutant: &Mutant) -> bool {
    let mut files = book.files().to_vec();
    let Some(file) = files.get_mut(mutant.file) else { return false };
    mutant.text.clone_into(&mut file.text);
    let own = file.name.split('/').next().unwrap_or_default().to_owned();
    let Ok(changed) = Rulebook::read(files).map(Arc::new) else { return true };
    let fails = |control: &Control| !check::faults_of(rules, &changed, redactor, control).is_empty();
    changed.control(&own).is_some_and(fails) || changed.controls().filter(|control| control.id != own).any(fails)
}

fn of_file(index: usize, file: &RuleFile) -> Vec<Mutant> {
    let mutant = |line: usize, what: String, text: String| Mutant {
        file: index,
        place: format!("{}:{line}", file.path),
        what,
        text,
    };
    if file.name.ends_with(".cedar") {
        return of_policies(&file.text).into_iter().map(|(line, what, text)| mutant(line, what, text)).collect();
    }
    let has_thresholds =
        file.name.ends_with("/control.toml") || ["approvals/risk.toml", "trust.toml"].contains(&file.name.as_str());
    let thresholds = if has_thresholds { of_thresholds(&file.text) } else { Vec::new() };
    thresholds.into_iter().map(|(line, what, text)| mutant(line, what, text)).collect()
}

/// Each policy gone, and each turned round. Policies begin with their `@id`.
fn of_policies(text: &str) -> Vec<(usize, String, String)> {
    let starts: Vec<usize> = text.match_indices("@id(").map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let mut mutants = Vec::new();
    for (start, end) in starts.iter().copied().zip(ends) {
        let (before, after) = (text.get(..start).unwrap_or_default(), text.get(end..).unwrap_or_default());
        let policy = text.get(start..end).unwrap_or_default();
        let name = policy.split('"').nth(1).unwrap_or_default();
        let turned = match policy.contains("\nforbid (") {
            true => policy.replacen("\nforbid (", "\npermit (", 1),
            false => policy.replacen("\npermit (", "\nforbid (", 1),
        };
        let line = before.lines().count() + 1;
        mutants.push((line, format!("policy `{name}` is gone"), format!("{before}{after}")));
        mutants.push((line, format!("policy `{name}` is turned round"), format!("{before}{turned}{after}")));
    }
    mutants
}

/// Each number and length of time ten times as large, and as small, and each severity another; those of frameworks are none.
fn of_thresholds(text: &str) -> Vec<(usize, String, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut is_framework = false;
    let mut mutants = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if line.starts_with('[') {
            is_framework = *line == "[[frameworks]]";
        }
        if is_framework || line.trim_start().starts_with('#') {
            continue;
        }
        let values = VALUE.captures_iter(line).flat_map(|found| FACTORS.map(|factor| changed(line, &found, factor)));
        let severities = SEVERITY.captures_iter(line).map(|found| regraded(line, &found));
        for (value, changed) in values.chain(severities).flatten() {
            let mut mutated = lines.clone();
            if let Some(line) = mutated.get_mut(at) {
                *line = &changed;
            }
            mutants.push((at + 1, format!("`{}` is {value}", line.trim()), mutated.join("\n") + "\n"));
        }
    }
    mutants
}

/// A line with one of its values changed; `None` where that is the value it has.
fn changed(line: &str, found: &Captures<'_>, factor: f64) -> Option<(String, String)> {
    let (number, unit) = (found.get(2)?, found.get(3)?);
    let value: f64 = number.as_str().parse().ok()?;
    let is_whole = number.as_str().bytes().all(|byte| byte.is_ascii_digit());
    let scaled = if is_whole { (value * factor).floor() } else { value * factor };
    if scaled == value || (!unit.is_empty() && scaled < 1.0) {
        return None;
    }
    let new = if is_whole { format!("{scaled:.0}") } else { format!("{scaled}") };
    let (before, after) = (line.get(..number.start())?, line.get(number.end()..)?);
    Some((format!("{new}{}", unit.as_str()), format!("{before}{new}{after}")))
}

/// A line with one of its severities changed.
fn regraded(line: &str, found: &Captures<'_>) -> Option<(String, String)> {
    let severity = found.get(1)?;
    let other = if severity.as_str() == "critical" { "low" } else { "critical" };
    let (before, after) = (line.get(..severity.start())?, line.get(severity.end()..)?);
    Some((format!("{other}, not {}", severity.as_str()), format!("{before}{other}{after}")))
}
