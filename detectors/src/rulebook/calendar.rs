//! When changes may be made: weekly and monthly windows, holidays, and freezes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use serde::Deserialize;
use toml::Spanned;

use super::toml_file::{Entry, TomlFile};
use super::{RuleFile, RulebookError};
use crate::event::Millis;
use crate::glob::{self, Glob};

/// Holidays and freezes.
#[derive(Clone, Debug, Default)]
pub struct Calendar {
    holidays: BTreeMap<String, Vec<Date>>,
    freezes: Vec<Freeze>,
}

/// Days of the week on which people work: Monday to Friday where nothing is said.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub(crate) struct WorkingDays(Vec<Weekday>);

impl Default for WorkingDays {
    fn default() -> Self {
        Self(Weekday::Monday.cycle_forward().take(5).collect())
    }
}

impl TryFrom<Vec<String>> for WorkingDays {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        if names.is_empty() {
            return Err("`[]` has no working day: name one at least".to_owned());
        }
        names.iter().map(|name| weekday(name)).collect::<Result<_, _>>().map(Self)
    }
}

/// A time in which nothing is changed.
#[derive(Clone, Debug)]
struct Freeze {
    from: Timestamp,
    to: Timestamp,
    environments: Vec<Glob>,
    agents: Option<Vec<Glob>>,
}

impl Calendar {
    /// Whether a freeze holds for an agent's changes in an environment.
    pub(crate) fn is_frozen(&self, at: Millis, environment: &str, agent: &str) -> bool {
        let Ok(at) = Timestamp::from_millisecond(at) else { return false };
        self.freezes.iter().any(|freeze| {
            freeze.from <= at
                && at < freeze.to
                && glob::any(&freeze.environments, environment)
                && freeze.agents.as_ref().is_none_or(|agents| glob::any(agents, agent))
        })
    }

    /// The days on which this calendar's windows stay closed.
    pub(super) fn holidays(&self, name: &str) -> Option<&[Date]> {
        self.holidays.get(name).map(Vec::as_slice)
    }

    /// The time by which so many working days are over, without the named holidays, in UTC.
    pub(crate) fn after_working_days(
        &self,
        from: Millis,
        days: u32,
        (week, holidays): (&WorkingDays, Option<&str>),
    ) -> Millis {
        let Ok(start) = Timestamp::from_millisecond(from) else { return Millis::MAX };
        let closed = holidays.and_then(|name| self.holidays(name)).unwrap_or_default();
        let mut time = start.to_zoned(TimeZone::UTC).datetime();
        let mut left = days;
        while left > 0 {
            let Ok(next) = time.tomorrow() else { return Millis::MAX };
            time = next;
            let works = week.0.contains(&time.weekday()) && !closed.contains(&time.date());
            left -= u32::from(works);
        }
        time.to_zoned(TimeZone::UTC).map_or(Millis::MAX, |zoned| zoned.timestamp().as_millisecond())
    }

    pub(super) fn read(files: &[RuleFile], errors: &mut Vec<RulebookError>) -> Self {
        let Some(file) = files.iter().find(|file| file.name == "registry/calendar.toml") else {
            return Self::default();
        };
        let mut toml = TomlFile::parse(file, errors);
        let mut calendar = Self::default();
        for Entry { name, value, .. } in toml.named::<RawHolidays>("holidays", errors) {
            let dates = value.dates.iter().filter_map(|text| match text.get_ref().parse() {
                Ok(date) => Some(date),
                Err(_) => {
                    let message = format!("`{}` is not a date: write `2026-12-25`", text.get_ref());
                    errors.push(file.error(text.span().start, message));
                    None
                }
            });
            calendar.holidays.insert(name, dates.collect());
        }
        for Entry { value, span, .. } in toml.list::<RawFreeze>("freeze", errors) {
            match value.read() {
                Ok(freeze) => calendar.freezes.push(freeze),
                Err(message) => errors.push(file.error(span.start, message)),
            }
        }
        toml.finish(errors);
        calendar
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHolidays {
    dates: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFreeze {
    name: String,
    from: String,
    to: String,
    time_zone: String,
    environments: Vec<Glob>,
    agents: Option<Vec<Glob>>,
}

impl RawFreeze {
    fn read(self) -> Result<Freeze, String> {
        let zone = TimeZone::get(&self.time_zone).map_err(|_| format!("unknown time zone `{}`", self.time_zone))?;
        let time = |text: &str| {
            let local: Option<DateTime> = text.parse().ok();
            let zoned = local.and_then(|local| local.to_zoned(zone.clone()).ok());
            zoned
                .map(|zoned| zoned.timestamp())
                .ok_or_else(|| format!("`{text}` is not a time: write `2026-11-26T00:00`"))
        };
        let (from, to) = (time(&self.from)?, time(&self.to)?);
        if from >= to {
            return Err(format!("freeze `{}` ends before it begins", self.name));
        }
        Ok(Freeze { from, to, environments: self.environments, agents: self.agents })
    }
}

/// A window in which changes are allowed, in a named time zone (daylight saving included).
#[derive(Clone, Debug)]
pub struct Window {
    days: Vec<Day>,
    on: Vec<Date>,
    closed: Vec<Date>,
    from: Time,
    to: Time,
    zone: TimeZone,
}

/// A day on which a window opens.
#[derive(Clone, Copy, Debug)]
enum Day {
    /// Every such day of the week.
    Every(Weekday),
    /// The first to fourth of the month, or the last (-1).
    OfMonth(Weekday, i8),
}

impl Day {
    fn is_on(self, date: Date) -> bool {
        match self {
            Day::Every(day) => date.weekday() == day,
            Day::OfMonth(day, nth) => date.nth_weekday_of_month(nth, day).is_ok_and(|found| found == date),
        }
    }
}

/// A window as written.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWindow {
    #[serde(default)]
    days: Vec<String>,
    #[serde(default)]
    on: Vec<String>,
    from: String,
    to: String,
    time_zone: String,
    holidays: Option<String>,
}

impl Window {
    pub(super) fn contains(&self, at: Timestamp) -> bool {
        let local = at.to_zoned(self.zone.clone());
        let (date, time) = (local.date(), local.time());
        if self.from <= self.to {
            return self.opens(date) && self.from <= time && time < self.to;
        }
        // Past midnight: the early part belongs to the day on which the window opened.
        (self.opens(date) && self.from <= time) || (date.yesterday().is_ok_and(|day| self.opens(day)) && time < self.to)
    }

    fn opens(&self, date: Date) -> bool {
        (self.on.contains(&date) || self.days.iter().any(|day| day.is_on(date))) && !self.closed.contains(&date)
    }

    /// Reads a window, or says everything that is wrong with it.
    pub(super) fn read(raw: &RawWindow, calendar: &Calendar) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let days = kept(raw.days.iter().map(|text| day(text)), &mut faults);
        let on = kept(raw.on.iter().map(|text| date(text)), &mut faults);
        let zone = TimeZone::get(&raw.time_zone).map_err(|_| format!("unknown time zone `{}`", raw.time_zone));
        let closed = raw.holidays.as_ref().map_or(Ok(Vec::new()), |name| {
            let known = calendar.holidays(name).map(<[Date]>::to_vec);
            known.ok_or_else(|| format!("no holidays `{name}`: write `[holidays.{name}]` in calendar.toml"))
        });
        if raw.days.is_empty() && raw.on.is_empty() {
            faults.push("a window needs at least one day".to_owned());
        }
        if raw.from == raw.to {
            let halves = "for a whole day write two, `00:00` to `12:00` and `12:00` to `00:00`";
            faults.push(format!("a window from `{}` to `{}` never opens: {halves}", raw.from, raw.to));
        }
        match (clock(&raw.from), clock(&raw.to), zone, closed) {
            (Ok(from), Ok(to), Ok(zone), Ok(closed)) if faults.is_empty() => {
                Ok(Window { days, on, closed, from, to, zone })
            }
            (from, to, zone, closed) => {
                let more = [from.err(), to.err(), zone.err(), closed.err()];
                Err(faults.into_iter().chain(more.into_iter().flatten()).collect())
            }
        }
    }
}

/// What could be read; the rest are faults.
fn kept<T>(read: impl Iterator<Item = Result<T, String>>, faults: &mut Vec<String>) -> Vec<T> {
    read.filter_map(|item| item.map_err(|fault| faults.push(fault)).ok()).collect()
}

fn clock(text: &str) -> Result<Time, String> {
    Time::strptime("%H:%M", text).map_err(|_| format!("`{text}` is not a time of day: write `HH:MM`"))
}

fn date(text: &str) -> Result<Date, String> {
    text.parse().map_err(|_| format!("`{text}` is not a date: write `2026-12-25`"))
}

fn day(text: &str) -> Result<Day, String> {
    let (nth, name) = text.split_once(' ').unwrap_or(("", text));
    let nth = match nth {
        "" => None,
        "1st" => Some(1),
        "2nd" => Some(2),
        "3rd" => Some(3),
        "4th" => Some(4),
        "last" => Some(-1),
        _ => return Err(format!("`{text}` is not a day: write `mon`, `2nd tue` or `last fri`")),
    };
    let day = weekday(name)?;
    Ok(nth.map_or(Day::Every(day), |nth| Day::OfMonth(day, nth)))
}

fn weekday(text: &str) -> Result<Weekday, String> {
    Ok(match text {
        "mon" => Weekday::Monday,
        "tue" => Weekday::Tuesday,
        "wed" => Weekday::Wednesday,
        "thu" => Weekday::Thursday,
        "fri" => Weekday::Friday,
        "sat" => Weekday::Saturday,
        "sun" => Weekday::Sunday,
        _ => return Err(format!("`{text}` is not a day: write mon, tue, wed, thu, fri, sat or sun")),
    })
}

#[cfg(test)]
mod tests;
