//! `tautline check`: everything that can be wrong with a rulebook, at once, and every control's own events.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use serde_json::json;
use tautline_detectors::deviation::Deviation;
use tautline_detectors::event::Millis;
use tautline_detectors::rulebook::{Control, RuleFile, Rulebook, RulebookError};
use tautline_ingest::Format;
use tautline_ingest::redact::Redactor;

use crate::config::{Config, RulebookPaths};
use crate::feed::Feed;
use crate::rules::Unreachable;
use crate::{mutation, rules, signing};

/// When the controls' events were received, as far as they are concerned: after all of them.
const RECEIVED: Millis = 4_102_444_800_000;

/// One control's result.
struct Checked {
    id: String,
    title: String,
    severity: &'static str,
    fires: usize,
    silent: usize,
}

/// What a check found.
#[derive(Default)]
pub(crate) struct Report {
    hash: Option<String>,
    checked: Vec<Checked>,
    warnings: Vec<String>,
    /// What a live run would refuse of the configuration, each with its place.
    configuration: Vec<String>,
    errors: Vec<RulebookError>,
}

impl Report {
    pub(crate) fn is_clean(&self) -> bool {
        self.configuration.is_empty() && self.errors.is_empty()
    }

    pub(crate) fn json(&self) -> String {
        let controls: Vec<_> = self
            .checked
            .iter()
            .map(|c| json!({ "id": c.id, "title": c.title, "severity": c.severity, "fires": c.fires, "silent": c.silent }))
            .collect();
        let errors: Vec<_> =
            self.errors.iter().map(|e| json!({ "path": e.path, "line": e.line, "message": e.message })).collect();
        json!({ "rulebook": self.hash, "controls": controls, "warnings": self.warnings,
            "configuration": self.configuration, "errors": errors })
        .to_string()
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for Checked { id, title, severity, fires, silent } in &self.checked {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{id:<24} {severity:<9} {fires:>3} fire, {silent:>3} stay silent   {title}");
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        for fault in &self.configuration {
            let _ = writeln!(text, "{fault}");
        }
        for error in &self.errors {
            let _ = writeln!(text, "{error}");
        }
        let _ = match (&self.hash, self.configuration.len() + self.errors.len()) {
            (Some(hash), 0) => writeln!(text, "{} controls, rulebook {hash}: all good", self.checked.len()),
            (_, 1) => writeln!(text, "1 error"),
            (_, errors) => writeln!(text, "{errors} errors"),
        };
        text
    }
}

/// Validates a configuration, where there is one, and its rulebook, and runs every control's events. With `bless`, the
/// snapshots are written instead of compared.
pub(crate) fn run(config: &mut Config, redactor: &Redactor, bless: bool) -> Report {
    // Whoever checks rules has neither the secrets of a live run nor, perhaps, its sources.
    let configuration = if config.is_given() { config.gaps_but(&["sources"]) } else { Vec::new() };
    let mut report = Report { configuration, ..Report::default() };
    let paths = &config.rulebook;
    let book = rules::read(paths, Unreachable::TakeKept);
    let example =
        rules::read(&rules::example_paths(paths), Unreachable::TakeKept).and_then(|book| signing_for_examples(&book));
    let lacking = rules::without_events(&paths.rules);
    match (book, example) {
        (Ok(book), Ok(example)) if lacking.is_empty() => {
            report.hash = Some(book.hash().to_owned());
            let mute = book.mute_policies();
            report.warnings = book.warnings().iter().cloned().chain(mute.iter().map(ToString::to_string)).collect();
            report.warnings.extend(expired(&book));
            // A key that cannot be read is named already.
            let section = config.alertmanager.as_ref().filter(|section| section.faults().is_empty());
            let unbelieved = section.and_then(|section| section.check(&book).err());
            report.configuration.extend(unbelieved.map(|error| format!("{error:#}")));
            let example = Arc::new(example);
            for control in example.controls() {
                check_control(&paths.rules, (&example, redactor), control, bless, &mut report);
            }
        }
        (book, example) => {
            report.errors = [Some(lacking), book.err(), example.err()].into_iter().flatten().flatten().collect();
            report.errors.sort();
            report.errors.dedup();
        }
    }
    report
}

/// The exceptions that are over, one sentence each.
fn expired(book: &Rulebook) -> Vec<String> {
    let now = jiff::Timestamp::now();
    let is_over = |until| jiff::Timestamp::from_millisecond(until).is_ok_and(|until| until < now);
    let over = book.exceptions.iter().filter(|exception| is_over(exception.until));
    over.map(|exception| format!("exception `{}` of `{}` is over: delete it", exception.id, exception.by)).collect()
}

/// The rulebook with the issuers' keys replaced by those that sign the controls' own events.
pub(crate) fn signing_for_examples(book: &Rulebook) -> Result<Rulebook, Vec<RulebookError>> {
    let with_keys = |file: &RuleFile| {
        let is_set = file.name.starts_with("registry/issuers/");
        let keys = is_set.then(|| signing::example_keys(&file.text)).flatten();
        RuleFile { text: keys.unwrap_or_else(|| file.text.clone()), ..file.clone() }
    };
    Rulebook::read(book.files().iter().map(with_keys).collect())
}

/// What is wrong with one control's events under a rulebook.
pub(crate) fn faults_of(
    rules: &Path,
    book: &Arc<Rulebook>,
    redactor: &Redactor,
    control: &Control,
) -> Vec<RulebookError> {
    let mut report = Report::default();
    check_control(rules, (book, redactor), control, false, &mut report);
    report.errors
}

/// Changes each policy and threshold of the rules, and writes those changes that no control's events notice; returns
/// whether there were none.
pub(crate) fn mutate(paths: &RulebookPaths, redactor: &Redactor, out: &mut impl std::io::Write) -> Result<bool> {
    let example =
        rules::read(&rules::example_paths(paths), Unreachable::TakeKept).and_then(|book| signing_for_examples(&book));
    let book = example.map_err(|errors| rules::refused(&errors))?;
    let bar = indicatif::ProgressBar::new(0);
    let (many, left) = mutation::survivors(&paths.rules, &book, redactor, |number, many| {
        bar.set_length(u64::try_from(many).unwrap_or_default());
        bar.set_position(u64::try_from(number).unwrap_or_default());
    });
    bar.finish_and_clear();
    for mutant in &left {
        writeln!(out, "{}: {}: no control's events notice", mutant.place, mutant.what)?;
    }
    writeln!(out, "{} of {many} changes are noticed", many - left.len())?;
    Ok(left.is_empty())
}

fn check_control(
    rules: &Path,
    (book, redactor): (&Arc<Rulebook>, &Redactor),
    control: &Control,
    bless: bool,
    report: &mut Report,
) {
    let folder = rules.join(&control.id);
    let mut snapshot = String::new();
    let mut count = |file: &str, must_fire: bool| match scenarios(&folder.join(file)) {
        Ok(scenarios) => {
            for (number, scenario) in scenarios.iter().enumerate() {
                let run = Run { folder: &folder, file, book, redactor, control, must_fire };
                match run.scenario(scenario) {
                    Ok(said) if must_fire => describe(&mut snapshot, number + 1, &said),
                    Ok(_) => {}
                    Err(errors) => report.errors.extend(errors),
                }
            }
            scenarios.len()
        }
        Err(error) => {
            report.errors.push(fault(&folder.join(file), 1, format!("cannot be read: {error}")));
            0
        }
    };
    let fires = count("fires.jsonl", true);
    let silent = count("silent.jsonl", false);
    let path = folder.join("deviations.snap");
    match compare(&path, &snapshot, bless) {
        Ok(false) => {}
        Ok(true) => report.warnings.push(format!("{}: written anew", path.display())),
        Err(error) => report.errors.push(error),
    }
    report.checked.push(Checked {
        id: control.id.clone(),
        title: control.title.clone(),
        severity: control.severity.name(),
        fires,
        silent,
    });
}

/// Consecutive lines with their numbers.
type Scenario = Vec<(usize, String)>;

/// The scenarios of a file: runs of lines between blank ones.
fn scenarios(path: &Path) -> std::io::Result<Vec<Scenario>> {
    let text = fs::read_to_string(path)?;
    let lines: Vec<(usize, &str)> = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())).collect();
    Ok(lines
        .split(|(_, line)| line.is_empty())
        .filter(|scenario| !scenario.is_empty())
        .map(|scenario| scenario.iter().map(|(number, line)| (*number, (*line).to_owned())).collect())
        .collect())
}

/// One file of one control's events.
struct Run<'r> {
    folder: &'r Path,
    file: &'r str,
    book: &'r Arc<Rulebook>,
    redactor: &'r Redactor,
    control: &'r Control,
    must_fire: bool,
}

impl Run<'_> {
    /// Feeds a scenario to a fresh engine; what the control said, or what is wrong with the scenario.
    fn scenario(&self, scenario: &Scenario) -> Result<Vec<Said>, Vec<RulebookError>> {
        let mut feed = Feed::new(Arc::clone(self.book), self.redactor.clone(), Format::Auto);
        self.accept_history(&mut feed)?;
        let path = self.folder.join(self.file);
        let mut found = Vec::new();
        let mut alone = true;
        let mut errors = Vec::new();
        for (index, (number, line)) in scenario.iter().enumerate() {
            let line =
                signing::example_line(line).map_err(|error| vec![fault(&path, *number, format!("{error:#}"))])?;
            let fed = feed.judge(line.as_bytes(), RECEIVED);
            errors.extend(fed.rejections.iter().map(|rejection| fault(&path, *number, rejection.to_string())));
            let (own, others): (Vec<Deviation>, Vec<Deviation>) =
                fed.deviations.into_iter().partition(|deviation| deviation.control == self.control.id);
            alone &= others.is_empty();
            let last = index + 1 == scenario.len();
            if self.must_fire && last && own.is_empty() {
                errors.push(fault(&path, *number, format!("does not deviate by control `{}`", self.control.id)));
            }
            if let (false, Some(deviation)) = (self.must_fire, own.first()) {
                errors.push(fault(&path, *number, format!("must stay silent, but: {}", deviation.summary)));
            }
            found.extend(own.into_iter().map(|deviation| Said { deviation, alone }));
        }
        if errors.is_empty() { Ok(found) } else { Err(errors) }
    }

    fn accept_history(&self, feed: &mut Feed) -> Result<(), Vec<RulebookError>> {
        let path = self.folder.join("history.jsonl");
        let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let errors: Vec<RulebookError> = lines
            .flat_map(|(index, line)| {
                let fed = feed.accept(line.as_bytes(), RECEIVED);
                fed.rejections.into_iter().map(move |rejection| (index + 1, rejection))
            })
            .map(|(number, rejection)| fault(&path, number, rejection.to_string()))
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// What a control said in a scenario.
struct Said {
    deviation: Deviation,
    /// Whether no other control had said anything by then.
    alone: bool,
}

fn describe(snapshot: &mut String, scenario: usize, said: &[Said]) {
    // Writing to a string cannot fail.
    let _ = writeln!(snapshot, "scenario {scenario}");
    for Said { deviation, alone } in said {
        let Deviation { severity, score, trust, summary, counterfactual, .. } = deviation;
        let _ = write!(snapshot, "  {severity} score {score:.3}");
        // All controls move the one trust; a snapshot is one control's.
        if *alone {
            let _ = write!(snapshot, ", trust {:.1} -> {:.1}", trust.before, trust.after);
        }
        let _ = writeln!(snapshot, "\n    {summary}");
        let _ = match &deviation.policy {
            // What would have complied depends on the policies of all controls; a snapshot is one control's.
            Some(policy) => writeln!(snapshot, "    policy {}", policy.id),
            None => writeln!(snapshot, "    would have complied: {counterfactual}"),
        };
        if let Some(subject) = &deviation.revocation {
            let _ = writeln!(snapshot, "    revoke {}", subject.key());
        }
    }
}

/// Compares a control's snapshot with its file, or writes it; returns whether it was written.
fn compare(path: &Path, snapshot: &str, bless: bool) -> Result<bool, RulebookError> {
    if bless {
        if fs::read_to_string(path).is_ok_and(|before| before == snapshot) {
            return Ok(false);
        }
        return fs::write(path, snapshot)
            .map(|()| true)
            .map_err(|error| fault(path, 1, format!("cannot be written: {error}")));
    }
    let expected = fs::read_to_string(path)
        .map_err(|error| fault(path, 1, format!("cannot be read: {error}; write it with `tautline check --bless`")))?;
    let differs = |line: usize| expected.lines().nth(line) != snapshot.lines().nth(line);
    let lines = expected.lines().count().max(snapshot.lines().count());
    match (0..lines).find(|line| differs(*line)) {
        None => Ok(false),
        Some(line) => {
            let now = snapshot.lines().nth(line).unwrap_or("nothing");
            let message = format!("now reads `{}`; if that is right, run `tautline check --bless`", now.trim());
            Err(fault(path, line + 1, message))
        }
    }
}

fn fault(path: &Path, line: usize, message: String) -> RulebookError {
    RulebookError { path: path.display().to_string(), line, message }
}
