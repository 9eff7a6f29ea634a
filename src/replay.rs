//! `tautline replay`: the same engine over files; alerts as JSON lines, or as a table on a terminal.

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Result;
use indicatif::ProgressBar;
use tautline_detectors::deviation::Deviation;
use tautline_detectors::engine::Verdict;
use tautline_detectors::rulebook::Rulebook;
use tautline_ingest::Reader;
use tautline_ingest::redact::Redactor;

use crate::feed::{Fed, Feed};
use crate::files::{self, Input};
use crate::output::{ocsf, text};

/// How alerts are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A line a person can read.
    Table {
        /// With colours.
        colour: bool,
    },
    /// An OCSF Detection Finding a line.
    Json,
}

impl Form {
    /// Writes one alert, a line.
    pub(crate) fn write(self, out: &mut impl Write, deviation: &Deviation) -> io::Result<()> {
        match self {
            Form::Table { colour } => writeln!(out, "{}", text::line(deviation, colour)),
            Form::Json => writeln!(out, "{}", ocsf::detection_finding(deviation, None)),
        }
    }
}

/// What to replay.
pub(crate) struct Replay {
    pub(crate) files: Vec<Input>,
    /// Files of the agents' accepted past: learned from, not judged.
    pub(crate) history: Vec<Input>,
    pub(crate) reader: Reader,
    pub(crate) redactor: Redactor,
    pub(crate) form: Form,
    /// Whether to show progress on standard error.
    pub(crate) progress: bool,
}

/// How much there was.
#[derive(Debug, Default)]
struct Counts {
    events: u64,
    repeats: u64,
    unregistered: u64,
    learned: u64,
    deviations: u64,
    hushed: u64,
    ignored: u64,
    rejected: u64,
}

impl Replay {
    /// Replays everything; returns whether every record could be read.
    pub(crate) fn run(&self, book: Rulebook, out: &mut impl Write) -> Result<bool> {
        let mut feed = Feed::new(Arc::new(book), self.redactor.clone(), self.reader.clone());
        let mut counts = Counts::default();
        let bar = files::progress_bar(self.history.iter().chain(&self.files), self.progress);
        for input in &self.history {
            files::each_record(input, &self.reader, &bar, |number, bytes, received| {
                let fed = feed.accept(bytes, received);
                counts.learned += u64::try_from(fed.events.len()).unwrap_or_default();
                report_rejections(&fed, input, number, &bar, &mut counts);
                Ok(())
            })?;
        }
        let table = matches!(self.form, Form::Table { .. });
        if table {
            bar.suspend(|| writeln!(out, "{}", text::heading()))?;
        }
        for input in &self.files {
            files::each_record(input, &self.reader, &bar, |number, bytes, received| {
                let fed = feed.judge(bytes, received);
                report_rejections(&fed, input, number, &bar, &mut counts);
                counts.add(&fed);
                if fed.deviations.is_empty() {
                    return Ok(());
                }
                Ok(bar.suspend(|| fed.deviations.iter().try_for_each(|deviation| self.form.write(out, deviation)))?)
            })?;
        }
        bar.finish_and_clear();
        let waiting = feed.engine().baselines().waiting();
        let (approvals, claims, effects) = (waiting.approvals, waiting.claims, waiting.effects);
        if approvals + claims + effects > 0 {
            tracing::info!(approvals, claims, effects, "the end is here, and these still wait for what may come later");
        }
        if table {
            writeln!(out, "{counts}")?;
        } else {
            tracing::info!("{counts}");
        }
        Ok(counts.rejected == 0)
    }
}

fn report_rejections(fed: &Fed, input: &Input, number: u64, bar: &ProgressBar, counts: &mut Counts) {
    let (ignored, lost): (Vec<_>, Vec<_>) = fed.rejections.iter().partition(|rejection| rejection.is_ignored());
    counts.ignored += u64::try_from(ignored.len()).unwrap_or_default();
    for rejection in lost {
        counts.rejected += 1;
        bar.suspend(|| tracing::warn!("{}:{number}: {rejection}", input.name));
    }
}

impl Counts {
    fn add(&mut self, fed: &Fed) {
        for (_, verdict) in &fed.events {
            self.events += 1;
            match verdict {
                Verdict::Repeated => self.repeats += 1,
                Verdict::Unregistered => self.unregistered += 1,
                Verdict::Judged | Verdict::Control => {}
            }
        }
        self.deviations += u64::try_from(fed.deviations.len()).unwrap_or_default();
        self.hushed += u64::try_from(fed.hushed).unwrap_or_default();
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} events ({} repeats, {} of unregistered principals), {} learned before, {} deviations, {} unreadable",
            self.events, self.repeats, self.unregistered, self.learned, self.deviations, self.rejected
        )?;
        let besides = [(self.hushed, "expected or found on trial"), (self.ignored, "that tell of no request")];
        besides.iter().filter(|(many, _)| *many > 0).try_for_each(|(many, what)| write!(f, ", {many} {what}"))
    }
}
