//! Events of made-up agents, the same for the same seed: who works, when, and what about one in a hundred does that it
//! should not.

use jiff::Timestamp;

use random::{Random, Turns};

mod actions;
mod cloudtrail;
mod random;
pub(crate) mod registry;
pub(crate) mod work;

/// Monday 2026-03-02T00:00:00Z.
const BEGIN: i64 = 1_772_409_600_000;
const DAY: i64 = 86_400_000;
const HOUR: i64 = 3_600_000;
/// The events are spread over so many workdays, from 08:00 to 18:00 UTC.
const WORKDAYS: i64 = 20;
const WORKING: (i64, i64) = (8 * HOUR, 10 * HOUR);
/// Deviations, and agent actions, among a thousand events; the rest are CloudTrail records.
const DEVIATIONS: u64 = 10;
const ACTIONS: u64 = 700;

const ENVIRONMENTS: [&str; 4] = ["production", "staging", "development", "sandbox"];
/// Accounts of each environment.
const ACCOUNTS: u64 = 5;

/// Whose form the events have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The common work's
    Work,
    /// The product's own, of agents in a registry
    Actions,
}

/// What an agent does that it should not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Deviation {
    #[default]
    OtherTool,
    OtherEnvironment,
    /// Of an observer; of another agent what is at stake is the hour.
    ObserverWrites,
    /// What this agent never used: a service, or an hour of the day.
    Unheard,
}

impl Deviation {
    const ALL: [Self; 4] = [Self::OtherTool, Self::OtherEnvironment, Self::ObserverWrites, Self::Unheard];
}

/// An event to write: its number, its time, and whether it deviates.
#[derive(Clone, Copy, Debug)]
struct Draft {
    number: u64,
    at: i64,
    agent: u64,
    deviation: Option<Deviation>,
    /// Of the agent's own word; otherwise the cloud's.
    action: bool,
}

#[derive(Debug)]
pub(crate) struct Generator {
    random: Random,
    turns: Turns,
    /// Number of the latest event.
    pub(crate) number: u64,
    /// From here on there is only what there must be an alert for.
    pub(crate) must_alert: bool,
    /// Working time from one event to the next, in microseconds.
    step: i64,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Work,
    Actions(actions::Agents),
}

impl Generator {
    pub(crate) fn new(kind: Kind, agents: usize, events: u64, seed: u64, everyone_first: bool) -> Self {
        let whole = WORKDAYS * WORKING.1 * 1_000;
        Self {
            random: Random::new(seed),
            turns: Turns::new(agents, everyone_first),
            number: 0,
            must_alert: false,
            step: whole / i64::try_from(events.max(1)).unwrap_or(i64::MAX),
            form: match kind {
                Kind::Work => Form::Work,
                Kind::Actions => Form::Actions(actions::Agents::new(agents)),
            },
        }
    }

    /// Writes the next event.
    pub(crate) fn next(&mut self, line: &mut String) {
        self.number += 1;
        let at = self.time(self.number);
        let draft = if self.must_alert {
            Draft { number: self.number, at, agent: 0, deviation: Some(Deviation::OtherEnvironment), action: true }
        } else {
            let agent = self.turns.next(&mut self.random);
            let deviates = self.random.in_thousand(DEVIATIONS);
            let deviation = deviates.then(|| random::pick(&Deviation::ALL, self.random.next()));
            Draft { number: self.number, at, agent, deviation, action: self.random.in_thousand(ACTIONS) }
        };
        line.clear();
        match &mut self.form {
            Form::Work => work::write(draft, &mut self.random, line),
            Form::Actions(agents) => agents.write(draft, &mut self.random, line),
        }
    }

    fn time(&self, number: u64) -> i64 {
        let (from, hours) = WORKING;
        let worked = (i64::try_from(number).unwrap_or_default() - 1) * self.step / 1_000;
        let day = worked / hours;
        BEGIN + (day / 5 * 7 + day % 5) * DAY + from + worked % hours
    }
}

impl Draft {
    fn is(&self, deviation: Deviation) -> bool {
        self.deviation == Some(deviation)
    }

    /// Moves the event to the first two hours of its day.
    fn at_night(&mut self) {
        self.at -= self.at % DAY / 10 * 9;
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_millisecond(self.at).unwrap_or_default()
    }
}

/// The number of an account of an environment; environments are counted, too, and go round.
fn account(environment: u64, number: u64) -> u64 {
    210_000_000_000 + environment % 4 * 100 + number % ACCOUNTS
}

fn environment(number: u64) -> &'static str {
    random::pick(&ENVIRONMENTS, number)
}
