//! What rulebooks would have said: counted for each, and compared finding by finding.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::Arc;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tautline_detectors::deviation::{Deviation, Severity};
use tautline_detectors::event::Millis;
use tautline_detectors::rulebook::{Route, Rulebook};

use super::feeder::Read;
use super::shards::Found;
use crate::output::text::printable;

const DAY: Millis = 24 * 3_600_000;
/// Most findings that are kept because the rulebooks differ in them.
const MOST_KEPT: usize = 1_000_000;
/// Most agents that the table shows; the JSON has all.
const MOST_SHOWN: usize = 20;
/// What stands for all principals that no registry names: whoever makes them up must not fill the report.
const UNREGISTERED: &str = "unregistered";

/// The number of a day since 1970, in UTC.
pub(super) fn day(at: Millis) -> i64 {
    at.div_euclid(DAY)
}

/// The day of this number as people write it.
fn date(day: i64) -> String {
    Timestamp::from_millisecond(day * DAY).map_or_else(|_| day.to_string(), |at| at.strftime("%Y-%m-%d").to_string())
}

/// What is kept of a deviation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Finding {
    pub(super) id: String,
    control: String,
    pub(super) agent: String,
    class: String,
    team: String,
    /// Milliseconds since 1970.
    at: Millis,
    severity: Severity,
    score: f64,
    what: String,
    summary: String,
    route: Route,
}

impl Finding {
    pub(super) fn of(deviation: &Deviation, book: &Rulebook) -> Self {
        let Deviation { agent, severity, .. } = deviation;
        Self {
            id: deviation.id.clone(),
            control: deviation.control.clone(),
            agent: agent.id.clone(),
            class: agent.class.clone(),
            team: agent.team.clone(),
            at: deviation.at,
            severity: *severity,
            score: deviation.score,
            what: deviation.what.clone(),
            summary: deviation.summary.clone(),
            route: book.route(&agent.team, *severity),
        }
    }

    /// Whether two rulebooks say the same of the same.
    fn says_as(&self, other: &Self) -> bool {
        self.severity == other.severity && self.score.to_bits() == other.score.to_bits() && self.what == other.what
    }
}

/// How many alerts reach people how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    pages: u64,
    tickets: u64,
    digests: u64,
}

impl Counts {
    fn add(&mut self, route: Route) {
        match route {
            Route::Page => self.pages += 1,
            Route::Ticket => self.tickets += 1,
            Route::Digest => self.digests += 1,
        }
    }

    fn alerts(self) -> u64 {
        self.pages + self.tickets + self.digests
    }
}

type Table = BTreeMap<String, Counts>;

/// What one rulebook would have said.
#[derive(Debug, Default, Serialize)]
pub(super) struct Tally {
    all: Counts,
    controls: Table,
    agents: Table,
    teams: Table,
    days: Table,
    /// The days of each team.
    team_days: BTreeMap<String, Table>,
}

impl Tally {
    fn add(&mut self, finding: &Finding) {
        let agent = if finding.class == UNREGISTERED { UNREGISTERED } else { &finding.agent };
        let date = date(day(finding.at));
        let of_team = self.team_days.entry(finding.team.clone()).or_default();
        for (table, name) in [
            (&mut self.controls, &*finding.control),
            (&mut self.agents, agent),
            (&mut self.teams, &finding.team),
            (&mut self.days, &date),
            (of_team, &date),
        ] {
            if !table.contains_key(name) {
                table.insert(name.to_owned(), Counts::default());
            }
            if let Some(counts) = table.get_mut(name) {
                counts.add(finding.route);
            }
        }
        self.all.add(finding.route);
    }
}

/// A finding that is in one rulebook's only, or that two say differently.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Change {
    /// Only what is tried would say it.
    Added(Finding),
    /// It would not be said any more.
    Removed(Finding),
    /// It would be said otherwise.
    Changed {
        /// By what is tried.
        now: Finding,
        /// By what it is compared with.
        before: Finding,
    },
}

impl Change {
    fn finding(&self) -> &Finding {
        match self {
            Change::Added(finding) | Change::Removed(finding) | Change::Changed { now: finding, .. } => finding,
        }
    }

    fn kind(&self) -> usize {
        match self {
            Change::Added(_) => 0,
            Change::Removed(_) => 1,
            Change::Changed { .. } => 2,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.finding())?;
        let Change::Changed { now, before } = self else { return Ok(()) };
        write!(f, "\n    before: {}, {}, score {:.3}", before.severity, before.route.name(), before.score)?;
        if now.what == before.what { Ok(()) } else { write!(f, ": {}", printable(&before.what)) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, severity, route, score, summary, .. } = self;
        writeln!(f, "  {}", printable(id))?;
        write!(f, "    {severity}, {}, score {score:.3}: {}", route.name(), printable(summary))
    }
}

/// What is found, as it comes in.
#[derive(Debug)]
pub(super) struct Findings {
    /// By the number of the rulebook: first what is tried, then what it is compared with.
    pub(super) tallies: Vec<Tally>,
    /// What only one side has said yet, in the order of its coming, with that side.
    waiting: HashMap<String, Vec<(usize, u64, Finding)>>,
    /// Changes, with the place where they came.
    changes: Vec<(u64, Change)>,
    /// The first findings of each control of what is tried.
    examples: BTreeMap<String, Vec<Finding>>,
    most_examples: usize,
    kept: usize,
    number: u64,
}

impl Findings {
    pub(super) fn new(books: usize, most_examples: usize) -> Self {
        let tallies = (0..books).map(|_| Tally::default()).collect();
        let (waiting, changes, examples) = (HashMap::new(), Vec::new(), BTreeMap::new());
        Self { tallies, waiting, changes, examples, most_examples, kept: 0, number: 0 }
    }

    /// Takes findings in, and writes each to `told`, where it is to be told.
    ///
    /// # Errors
    ///
    /// Two rulebooks differ in too much, or there is nowhere to write to.
    pub(super) fn take(&mut self, found: Vec<Found>, told: &mut Option<impl Write>) -> Result<()> {
        for Found { side, finding, .. } in found {
            if let Some(out) = told {
                writeln!(out, "{}", json!({ "alert": finding }))?;
            }
            if let Some(tally) = self.tallies.get_mut(side) {
                tally.add(&finding);
            }
            if self.tallies.len() > 1 {
                self.compare(side, finding);
                ensure!(
                    self.kept <= MOST_KEPT,
                    "the rulebooks differ in more than {MOST_KEPT} findings: compare them over fewer events"
                );
            } else {
                let examples = self.examples.entry(finding.control.clone()).or_default();
                if examples.len() < self.most_examples {
                    examples.push(finding);
                }
            }
        }
        Ok(())
    }

    /// Holds a finding against the other side's of the same id, which may come with another event: what is found late is
    /// found at a tick.
    fn compare(&mut self, side: usize, finding: Finding) {
        self.number += 1;
        let other = self.waiting.get_mut(&finding.id).and_then(|waiting| {
            let at = waiting.iter().position(|(of, ..)| *of != side)?;
            Some(waiting.remove(at))
        });
        let Some((_, number, other)) = other else {
            self.kept += 1;
            self.waiting.entry(finding.id.clone()).or_default().push((side, self.number, finding));
            return;
        };
        if self.waiting.get(&finding.id).is_some_and(Vec::is_empty) {
            self.waiting.remove(&finding.id);
        }
        if finding.says_as(&other) {
            self.kept -= 1;
            return;
        }
        let (now, before) = if side == 0 { (finding, other) } else { (other, finding) };
        self.changes.push((number, Change::Changed { now, before }));
    }

    /// Everything in which the two sides differ, in the order in which it came.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let alone = self.waiting.drain().flat_map(|(_, waiting)| waiting).map(|(side, number, finding)| {
            (number, if side == 0 { Change::Added(finding) } else { Change::Removed(finding) })
        });
        let mut all: Vec<(u64, Change)> = self.changes.drain(..).chain(alone).collect();
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, change)| change).collect()
    }
}

/// A budget of pages a day, and the worst day that it has to bear.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Budget {
    /// Whose; empty for all teams together.
    team: String,
    most: u32,
    /// The worst day and its pages, where there was any.
    worst: Option<(String, u64)>,
    pub(super) over: bool,
}

/// The budgets that hold: that of all teams, `given` or else declared, and those that teams declare.
pub(super) fn budgets(tally: &Tally, book: &Rulebook, given: Option<u32>) -> Vec<Budget> {
    let all = given.or(book.routes.pages_per_day).map(|most| budget("", most, Some(&tally.days)));
    let of_teams = book.routes.budgets().map(|(team, most)| budget(team, most, tally.team_days.get(team)));
    all.into_iter().chain(of_teams).collect()
}

fn budget(team: &str, most: u32, days: Option<&Table>) -> Budget {
    let worst = worst(days);
    let over = worst.as_ref().is_some_and(|(_, pages)| *pages > u64::from(most));
    Budget { team: team.to_owned(), most, worst, over }
}

/// The first of the days with the most pages.
fn worst(days: Option<&Table>) -> Option<(String, u64)> {
    let paged = days.into_iter().flatten().filter(|(_, counts)| counts.pages > 0);
    paged.rev().max_by_key(|(_, counts)| counts.pages).map(|(day, counts)| (day.clone(), counts.pages))
}

/// Everything that is reported.
pub(super) struct Report<'r> {
    /// What is tried, and what it is compared with.
    pub(super) books: &'r [Arc<Rulebook>],
    pub(super) read: &'r Read,
    pub(super) findings: &'r Findings,
    pub(super) changes: &'r [Change],
    pub(super) budgets: &'r [Budget],
    /// Most changes of a kind that the text shows.
    pub(super) most: usize,
}

/// Names of the kinds of changes.
const KINDS: [&str; 3] = ["only now", "no longer", "otherwise"];

impl Report<'_> {
    /// As one JSON value.
    pub(super) fn json(&self) -> Value {
        let of = |kind: usize| self.changes.iter().filter(|change| change.kind() == kind).count();
        let [added, removed, changed] = [0, 1, 2].map(of);
        let (read, tallies) = (self.read, &self.findings.tallies);
        let hash = |number: usize| self.books.get(number).map(|book| book.hash());
        json!({ "report": {
            "rulebook": hash(0), "against": hash(1),
            "events": read.events, "learned": read.learned, "ignored": read.ignored, "unreadable": read.unreadable,
            "days": read.days.iter().map(|day| date(*day)).collect::<Vec<_>>(),
            "now": tallies.first(), "before": tallies.get(1),
            "added": added, "removed": removed, "changed": changed,
            "budgets": self.budgets,
        } })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        let read = self.read;
        let span = match (read.days.first(), read.days.last()) {
            (Some(first), Some(last)) => format!("{} days, {} to {}", read.days.len(), date(*first), date(*last)),
            _ => "no days".to_owned(),
        };
        let hashes: Vec<&str> = self.books.iter().map(|book| book.hash().get(..12).unwrap_or_default()).collect();
        writeln!(text, "rulebook {}", hashes.join(" against "))?;
        writeln!(
            text,
            "{} events ({span}), {} learned before, {} unreadable",
            read.events, read.learned, read.unreadable
        )?;
        self.table(text, "CONTROL", |tally| &tally.controls, usize::MAX)?;
        self.table(text, "TEAM", |tally| &tally.teams, usize::MAX)?;
        self.table(text, "AGENT", |tally| &tally.agents, MOST_SHOWN)?;
        self.a_day(text)?;
        for (kind, name) in KINDS.iter().enumerate().filter(|_| self.books.len() > 1) {
            let changes = || self.changes.iter().filter(|change| change.kind() == kind);
            writeln!(text, "\n{name}: {}", changes().count())?;
            changes().take(self.most).try_for_each(|change| writeln!(text, "{change}"))?;
        }
        for (control, examples) in &self.findings.examples {
            writeln!(text, "\n{control}, for example")?;
            examples.iter().try_for_each(|finding| writeln!(text, "{finding}"))?;
        }
        Ok(())
    }

    /// A row a name that any of the tallies has, those with the most alerts first.
    fn table(&self, text: &mut String, heading: &str, of: fn(&Tally) -> &Table, most: usize) -> fmt::Result {
        let tally = |number: usize| self.findings.tallies.get(number).map(of);
        let (now, before) = (tally(0), tally(1));
        let mut names: Vec<&String> = now.into_iter().chain(before).flat_map(BTreeMap::keys).collect();
        names.sort();
        names.dedup();
        let counts =
            |table: Option<&Table>, name: &str| table.and_then(|table| table.get(name)).copied().unwrap_or_default();
        names.sort_by_key(|name| std::cmp::Reverse(counts(now, name).alerts().max(counts(before, name).alerts())));
        let compared = if before.is_some() { "  BEFORE" } else { "" };
        let columns = format!("{:>8} {:>8} {:>8} {:>8} {:>9}", "ALERTS", "PAGES", "TICKETS", "DIGESTS", "PAGES/DAY");
        writeln!(text, "\n{heading:<26} {columns}{compared}")?;
        for name in names.iter().take(most) {
            let Counts { pages, tickets, digests } = counts(now, name);
            let alerts = counts(now, name).alerts();
            let shown = if name.is_empty() { "(none)".to_owned() } else { printable(name) };
            let daily = self.average(pages);
            write!(text, "{shown:<26} {alerts:>8} {pages:>8} {tickets:>8} {digests:>8} {daily:>9.1}")?;
            match before {
                Some(before) => writeln!(text, " {:>7}", counts(Some(before), name).alerts())?,
                None => writeln!(text)?,
            }
        }
        if names.len() > most { writeln!(text, "and {} more", names.len() - most) } else { Ok(()) }
    }

    /// How many that is for each day of which there are events.
    #[expect(clippy::cast_precision_loss, reason = "only shown, with one digit")]
    fn average(&self, many: u64) -> f64 {
        many as f64 / self.read.days.len().max(1) as f64
    }

    fn a_day(&self, text: &mut String) -> fmt::Result {
        writeln!(text)?;
        for (tally, whose) in self.findings.tallies.iter().zip(["a day", "before"]) {
            let Counts { pages, tickets, digests } = tally.all;
            let worst = worst(Some(&tally.days))
                .map_or_else(String::new, |(day, pages)| format!("; worst {day}, {pages} pages"));
            let [pages, tickets, digests] = [pages, tickets, digests].map(|many| self.average(many));
            writeln!(text, "{whose}: {pages:.1} pages, {tickets:.1} tickets, {digests:.1} in the digest{worst}")?;
        }
        for Budget { team, most, worst, over } in self.budgets {
            let whose = if team.is_empty() { String::new() } else { format!(" of team {team}") };
            let (day, pages) = worst.clone().unwrap_or_default();
            let verdict = if *over { format!("exceeded: {pages} on {day}") } else { "kept".to_owned() };
            writeln!(text, "budget{whose}, {most} pages a day: {verdict}")?;
        }
        Ok(())
    }
}
