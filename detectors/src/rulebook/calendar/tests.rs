#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::WorkingDays;
use crate::testing::{at, book, faults};

const CALENDAR: &str = "[holidays.x]\ndates = [\"2026-03-30\", \"2026-04-06\"]\n\
    [[freeze]]\nname = \"f\"\nfrom = \"2026-03-28T22:00\"\nto = \"2026-03-29T04:00\"\ntime_zone = \"Europe/Madrid\"\n\
    environments = [\"prod*\"]\nagents = [\"b*\"]\n";

fn agent(windows: &str) -> String {
    format!(
        "[agents.bot]\nclass = \"operator\"\nowner = \"ana@example.com\"\nwindows = [{{ {windows}, time_zone = \"Europe/Madrid\" }}]\n"
    )
}

fn is_open(windows: &str, time: &str) -> bool {
    let book = book(&[("registry/calendar.toml", CALENDAR), ("registry/agents/bot.toml", &agent(windows))]);
    book.registry.by_id("bot").unwrap().in_window(at(time)).unwrap()
}

#[test]
fn windows_open_on_days_of_the_month_and_on_dates_and_stay_closed_on_holidays() {
    let hours = "from = \"09:00\", to = \"10:00\"";
    for (days, time, open) in [
        ("days = [\"2nd tue\"]", "2026-03-10T08:30:00Z", true),
        ("days = [\"2nd tue\"]", "2026-03-03T08:30:00Z", false),
        ("days = [\"last fri\"]", "2026-03-27T08:30:00Z", true),
        ("days = [\"last fri\"]", "2026-03-20T08:30:00Z", false),
        ("on = [\"2026-03-14\"]", "2026-03-14T08:30:00Z", true),
        ("on = [\"2026-03-14\"]", "2026-03-15T08:30:00Z", false),
        ("days = [\"mon\"]", "2026-03-30T07:30:00Z", true),
        ("days = [\"mon\"], holidays = \"x\"", "2026-03-30T07:30:00Z", false),
        ("days = [\"mon\"], holidays = \"x\"", "2026-03-23T08:30:00Z", true),
    ] {
        assert_eq!(is_open(&format!("{days}, {hours}"), time), open, "{days} at {time}");
    }
}

#[test]
fn the_clocks_going_forward_moves_windows_and_freezes_with_them() {
    let nine = "days = [\"mon\"], from = \"09:00\", to = \"10:00\"";
    assert!(is_open(nine, "2026-03-23T08:00:00Z") && !is_open(nine, "2026-03-23T07:59:59Z"), "winter time");
    assert!(is_open(nine, "2026-03-30T07:00:00Z") && !is_open(nine, "2026-03-30T08:00:00Z"), "summer time");
    let night = "days = [\"sat\"], from = \"23:00\", to = \"03:30\"";
    assert!(is_open(night, "2026-03-29T01:29:00Z") && !is_open(night, "2026-03-29T01:30:00Z"), "an hour is missing");
    let calendar = book(&[("registry/calendar.toml", CALENDAR)]).calendar;
    for (time, environment, agent, frozen) in [
        ("2026-03-28T21:00:00Z", "production", "bot", true),
        ("2026-03-28T20:59:59Z", "production", "bot", false),
        ("2026-03-29T01:59:59Z", "production", "bot", true),
        ("2026-03-29T02:00:00Z", "production", "bot", false),
        ("2026-03-28T23:00:00Z", "staging", "bot", false),
        ("2026-03-28T23:00:00Z", "production", "other", false),
    ] {
        assert_eq!(calendar.is_frozen(at(time), environment, agent), frozen, "{time} {environment} {agent}");
    }
}

#[test]
fn working_days_leave_out_weekends_and_holidays() {
    let calendar = book(&[("registry/calendar.toml", CALENDAR)]).calendar;
    let after = |from: &str, days| calendar.after_working_days(at(from), days, (&WorkingDays::default(), Some("x")));
    assert_eq!(after("2026-03-10T08:00:00Z", 2), at("2026-03-12T08:00:00Z"));
    assert_eq!(after("2026-03-27T08:00:00Z", 2), at("2026-04-01T08:00:00Z"), "over a weekend and a holiday");
    let names = |names: &[&str]| WorkingDays::try_from(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
    let (week, thursday) = (names(&["sun", "mon", "tue", "wed", "thu"]).unwrap(), at("2026-03-12T08:00:00Z"));
    assert_eq!(calendar.after_working_days(thursday, 2, (&week, None)), at("2026-03-16T08:00:00Z"));
    assert!(names(&[]).unwrap_err().contains("`[]`"));
    assert!(names(&["monday"]).unwrap_err().contains("`monday`"));
}

#[test]
fn every_fault_of_a_calendar_is_named() {
    let calendar = CALENDAR.replace("2026-04-06", "Easter").replace("2026-03-29T04:00", "2026-03-01T04:00");
    let agent = agent("days = [\"5th mon\"], on = [\"tomorrow\"], from = \"09:00\", to = \"10:00\", holidays = \"y\"");
    let found = faults(&[("registry/calendar.toml", &calendar), ("registry/agents/bot.toml", &agent)]);
    for word in ["Easter", "ends before it begins", "5th mon", "tomorrow", "no holidays `y`"] {
        assert!(found.iter().any(|fault| fault.contains(word)), "{word}: {found:?}");
    }
}
