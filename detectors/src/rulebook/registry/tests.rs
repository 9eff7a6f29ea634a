#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::rulebook::Rulebook;
use crate::testing::{at, book, faults};

const AGENTS: &str = "registry/agents/bot.toml";

fn with_windows(windows: &str) -> Rulebook {
    let text = format!("[agents.bot]\nclass = \"operator\"\nowner = \"ana@example.com\"\nwindows = [{windows}]\n");
    book(&[(AGENTS, &text)])
}

/// Checks, for each time, whether it lies in the windows.
fn check(windows: &str, times: &[(&str, bool)]) {
    let book = with_windows(windows);
    let agent = book.registry.by_id("bot").unwrap();
    for (time, inside) in times {
        assert_eq!(agent.in_window(at(time)), Some(*inside), "{time} in {windows}");
    }
}

#[test]
fn a_window_opens_at_its_first_minute_and_closes_before_its_last() {
    // 2026-03-06 is a Friday; Madrid is an hour ahead of UTC.
    check(
        r#"{ days = ["mon", "fri"], from = "08:00", to = "18:00", time_zone = "Europe/Madrid" }"#,
        &[
            ("2026-03-06T06:59:59.999Z", false),
            ("2026-03-06T07:00:00Z", true),
            ("2026-03-06T16:59:59.999Z", true),
            ("2026-03-06T17:00:00Z", false),
            ("2026-03-07T12:00:00Z", false),
            ("2026-03-05T12:00:00Z", false),
            ("2026-03-02T12:00:00Z", true),
        ],
    );
}

#[test]
fn a_window_past_midnight_belongs_to_the_day_on_which_it_opens() {
    check(
        r#"{ days = ["fri"], from = "22:00", to = "06:00", time_zone = "UTC" }"#,
        &[
            ("2026-03-06T21:59:59Z", false),
            ("2026-03-06T22:00:00Z", true),
            ("2026-03-07T00:00:00Z", true),
            ("2026-03-07T05:59:59Z", true),
            ("2026-03-07T06:00:00Z", false),
            // Friday's early hours are Thursday's night, and Saturday's night is not Friday's.
            ("2026-03-06T03:00:00Z", false),
            ("2026-03-07T23:00:00Z", false),
        ],
    );
    check(
        r#"{ days = ["sun"], from = "18:00", to = "00:00", time_zone = "UTC" }"#,
        &[("2026-03-08T23:59:59Z", true), ("2026-03-09T00:00:00Z", false), ("2026-03-08T17:59:00Z", false)],
    );
    check(
        r#"{ days = ["sun"], from = "22:00", to = "02:00", time_zone = "UTC" }"#,
        &[("2026-03-09T01:00:00Z", true), ("2026-03-08T01:00:00Z", false)],
    );
}

#[test]
fn the_day_is_that_of_the_windows_own_zone() {
    let monday = |zone: &str| format!(r#"{{ days = ["mon"], from = "00:00", to = "23:59", time_zone = "{zone}" }}"#);
    // Monday begins at 15:00 UTC of Sunday in Tokyo and ends at 10:00 UTC of Tuesday in Honolulu.
    check(&monday("Asia/Tokyo"), &[("2026-03-01T14:59:00Z", false), ("2026-03-01T15:00:00Z", true)]);
    check(&monday("Pacific/Honolulu"), &[("2026-03-03T09:58:00Z", true), ("2026-03-03T10:00:00Z", false)]);
    check(&monday("Asia/Kolkata"), &[("2026-03-01T18:29:00Z", false), ("2026-03-01T18:30:00Z", true)]);
}

#[test]
fn windows_move_with_daylight_saving() {
    // Madrid changes to summer time on 2026-03-29, 02:00 → 03:00, and back on 2026-10-25, 03:00 → 02:00.
    let mornings = r#"{ days = ["mon", "fri"], from = "08:00", to = "18:00", time_zone = "Europe/Madrid" }"#;
    check(
        mornings,
        &[
            ("2026-03-27T06:30:00Z", false),
            ("2026-03-30T06:00:00Z", true),
            ("2026-03-30T05:59:59Z", false),
            ("2026-03-30T16:00:00Z", false),
            ("2026-10-23T06:00:00Z", true),
            ("2026-10-26T06:00:00Z", false),
            ("2026-10-26T07:00:00Z", true),
        ],
    );
    let night = r#"{ days = ["sat"], from = "22:00", to = "06:00", time_zone = "Europe/Madrid" }"#;
    check(
        night,
        &[
            ("2026-03-28T21:00:00Z", true),
            ("2026-03-29T03:59:59Z", true),
            ("2026-03-29T04:00:00Z", false),
            ("2026-10-24T20:00:00Z", true),
            ("2026-10-25T04:59:59Z", true),
            ("2026-10-25T05:00:00Z", false),
        ],
    );
}

#[test]
fn hours_that_do_not_exist_or_come_twice() {
    let gap = r#"{ days = ["sun"], from = "02:30", to = "03:30", time_zone = "Europe/Madrid" }"#;
    check(gap, &[("2026-03-29T00:59:59Z", false), ("2026-03-29T01:00:00Z", true), ("2026-03-29T01:30:00Z", false)]);
    let twice = r#"{ days = ["sun"], from = "02:00", to = "03:00", time_zone = "Europe/Madrid" }"#;
    check(
        twice,
        &[
            ("2026-10-24T23:59:59Z", false),
            ("2026-10-25T00:00:00Z", true),
            ("2026-10-25T01:30:00Z", true),
            ("2026-10-25T02:00:00Z", false),
        ],
    );
}

#[test]
fn an_agent_without_windows_has_no_outside() {
    let book = book(&[]);
    assert_eq!(book.registry.by_id("bot").unwrap().in_window(at("2026-03-06T12:00:00Z")), None);
    // A time that no calendar has is in no window.
    let windowed = with_windows(r#"{ days = ["mon"], from = "00:00", to = "23:59", time_zone = "UTC" }"#);
    assert_eq!(windowed.registry.by_id("bot").unwrap().in_window(Millis::MAX), Some(false));
}

#[test]
fn an_entry_takes_from_its_template_what_it_does_not_say() {
    let text = r#"
[templates.base]
class = "operator"
owner = "ana@example.com"
team = "platform"
environments = ["staging", "shared"]
tools = ["search_*"]
credential_lifetime = "1h"

[agents.same]
template = "base"

[agents.other]
template = "base"
class = "observer"
environments = []
tools = ["kubectl_*"]
credential_lifetime = "7d"
"#;
    let book = book(&[("registry/agents/a.toml", text)]);
    let same = book.registry.by_id("same").unwrap();
    assert_eq!(
        (same.class, same.team.as_str(), same.credential_lifetime),
        (Class::Operator, "platform", Some(3_600_000))
    );
    assert_eq!(same.environments.len(), 2);
    let other = book.registry.by_id("other").unwrap();
    assert_eq!(
        (other.class, other.team.as_str(), other.credential_lifetime),
        (Class::Observer, "platform", Some(604_800_000))
    );
    assert!(other.environments.is_empty(), "an empty list is something that is said");
    assert!(glob::any(&other.tools, "kubectl_get") && !glob::any(&other.tools, "search_logs"), "not merged");
}

#[test]
fn a_template_may_lie_in_another_file() {
    let book = book(&[
        ("registry/agents/a.toml", "[agents.early]\ntemplate = \"late\"\n"),
        ("registry/agents/z.toml", "[templates.late]\nclass = \"advisor\"\nowner = \"ana@example.com\"\n"),
    ]);
    assert_eq!(book.registry.by_id("early").unwrap().class, Class::Advisor);
}

const FLEET: &str =
    "[fleets.runners]\nclass = \"operator\"\nowner = \"ana@example.com\"\nmembers = [\"ci-*\", \"cd-*\"]\n";

#[test]
fn members_of_a_fleet_are_the_fleet() {
    let exception = "[agents.ci-special]\nclass = \"observer\"\nowner = \"ana@example.com\"\n";
    let book = book(&[("registry/agents/a.toml", &format!("{FLEET}{exception}"))]);
    let id = |id: &str| book.registry.by_id(id).map(|agent| agent.id.as_str());
    assert_eq!(id("ci-1"), Some("runners"));
    assert_eq!(id("cd-2"), Some("runners"));
    assert_eq!(id("runners"), Some("runners"));
    assert_eq!(id("ci-special"), Some("ci-special"), "who has an entry is no member");
    assert_eq!(id("x-ci-1"), None);
    assert_eq!(id(""), None);
}

#[test]
fn an_agent_that_fits_two_fleets_is_refused() {
    let second = "[fleets.builders]\nclass = \"observer\"\nowner = \"ana@example.com\"\nmembers = [\"*-builder\"]\n";
    let faults = faults(&[("registry/agents/a.toml", &format!("{FLEET}{second}"))]);
    let clashes =
        [(1, "member `cd-*` of agent `runners`"), (1, "member `ci-*` of"), (5, "member `*-builder` of agent")];
    assert_eq!(faults.len(), clashes.len(), "{faults:#?}");
    for (fault, (line, says)) in faults.iter().zip(clashes) {
        assert!(fault.starts_with(&format!("rules/registry/agents/a.toml:{line}: {says}")), "{fault}");
    }
}

fn operators(agents: &[(&str, &str)]) -> String {
    let entry = |(id, identity): &(&str, &str)| {
        format!("[agents.{id}]\nclass = \"operator\"\nowner = \"ana@example.com\"\nidentities = [\"{identity}\"]\n")
    };
    agents.iter().map(entry).collect()
}

#[test]
fn an_identity_leads_to_its_agent() {
    let text = operators(&[
        ("deploy", "arn:aws:iam::*:role/deploy"),
        ("ci", "arn:aws:iam::*:role/ci-*"),
        ("one", "arn:aws:iam::111111111111:user/one"),
        ("mesh", "spiffe://example.com/agents/*"),
    ]);
    let book = book(&[(AGENTS, &text)]);
    let owner = |identity: &str| book.registry.by_identity(identity).map(|agent| agent.id.as_str());
    assert_eq!(owner("arn:aws:iam::222222222222:role/deploy"), Some("deploy"));
    assert_eq!(owner("arn:aws:iam::222222222222:role/ci-eu"), Some("ci"));
    assert_eq!(owner("arn:aws:iam::111111111111:user/one"), Some("one"));
    assert_eq!(owner("spiffe://example.com/agents/x"), Some("mesh"));
    assert_eq!(owner("arn:aws:iam::222222222222:user/one"), None);
    assert_eq!(owner("arn:aws:iam::222222222222:user/deploy"), None);
    assert_eq!(owner(""), None);
}

#[test]
fn an_identity_of_two_agents_is_refused() {
    for (first, second) in [
        ("role/x", "role/x"),
        ("arn:aws:iam::*:role/x", "arn:aws:iam::111111111111:role/x"),
        ("arn:aws:iam::*:role/x-*", "arn:aws:iam::1*:role/*-x"),
        ("arn:*:role/x", "arn:aws:iam::*:role/x"),
        ("*", "role/x"),
    ] {
        let faults = faults(&[(AGENTS, &operators(&[("a", first), ("b", second)]))]);
        assert!(faults.iter().any(|fault| fault.contains("also one of")), "{first} {second}: {faults:#?}");
    }
}

#[test]
fn a_star_in_one_part_of_an_arn_does_not_reach_into_the_next() {
    // Neither an account nor the name of a role has a colon, so no identity fits both.
    for (first, second) in [
        ("arn:aws:iam::*:role/ci-*", "arn:aws:iam::*:role/deploy"),
        ("arn:aws:iam::*:role/ci-*", "arn:aws:iam::*:user/one"),
        ("arn:aws:iam::*:role/*", "arn:aws:iam::*:user/*"),
    ] {
        let book = book(&[(AGENTS, &operators(&[("a", first), ("b", second)]))]);
        assert_eq!(book.registry.iter().count(), 2, "{first} {second}");
    }
}

/// A registry with one fault of every kind.
const FAULTY: &str = r#"[agents.wizard]
class = "wizard"
owner = "ana@example.com"

[agents.nobodys]
class = "operator"

[agents.strangers]
class = "operator"
owner = "eve@example.com"

[agents.untemplated]
class = "operator"
owner = "ana@example.com"
template = "none"

[agents.playful]
class = "operator"
owner = "ana@example.com"
playbooks = [
  "no-such-book",
]

[agents.eternal]
class = "operator"
owner = "ana@example.com"
credential_lifetime = "for ever"

[agents.windowed]
class = "operator"
owner = "ana@example.com"
windows = [
  { days = ["monday"], from = "08:00", to = "18:00", time_zone = "UTC" },
  { days = ["mon"], from = "8am", to = "18:00", time_zone = "UTC" },
  { days = ["mon"], from = "08:00", to = "24:00", time_zone = "UTC" },
  { days = ["mon"], from = "08:00", to = "18:00", time_zone = "Europe/Madird" },
  { days = [], from = "08:00", to = "18:00", time_zone = "UTC" },
  { days = ["mon"], from = "08:00", to = "08:00", time_zone = "UTC" },
]

[agents.crowd]
class = "operator"
owner = "ana@example.com"
members = ["x-*"]

[fleets.lonely]
class = "operator"
owner = "ana@example.com"

[agents.misspelt]
class = "operator"
owner = "ana@example.com"
enviroments = ["staging"]

[agnets.x]
class = "operator"
"#;

#[test]
fn every_fault_of_every_entry_is_named() {
    let found = faults(&[(AGENTS, FAULTY)]);
    let expected = [
        (2, "wizard"),
        (5, "needs a `class`"),
        (10, "not in people.toml"),
        (15, "no template `none`"),
        (21, "no playbook `no-such-book`"),
        (27, "`for ever` is not a duration"),
        (33, "`monday` is not a day"),
        (34, "`8am` is not a time of day"),
        (35, "`24:00` is not a time of day"),
        (36, "unknown time zone `Europe/Madird`"),
        (37, "at least one day"),
        (38, "never opens"),
        (41, "`members` belongs to `[fleets"),
        (46, "`members` belongs to `[fleets"),
        (53, "enviroments"),
        (55, "unknown section `agnets`"),
    ];
    for (line, says) in expected {
        let place = format!("rules/{AGENTS}:{line}: ");
        assert!(
            found.iter().any(|fault| fault.starts_with(&place) && fault.contains(says)),
            "{line} {says}: {found:#?}"
        );
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn what_is_written_twice_is_refused() {
    let entry = "[agents.twin]\nclass = \"operator\"\nowner = \"ana@example.com\"\n";
    let template = "[templates.twin]\nclass = \"operator\"\n";
    let playbook = "[playbooks.twin]\ntitle = \"x\"\nidle = \"1h\"\nsteps = [{ id = \"a\", operations = [\"a\"] }]\n";
    for (kind, text) in [("agents", entry), ("agents", template), ("playbooks", playbook)] {
        let names = [format!("registry/{kind}/a.toml"), format!("registry/{kind}/b.toml")];
        let faults = faults(&[(&names[0], text), (&names[1], text)]);
        assert_eq!(faults.len(), 1, "{faults:#?}");
        assert!(
            faults[0].starts_with(&format!("rules/{}:1: ", names[1])) && faults[0].contains("twice"),
            "{faults:#?}"
        );
    }
}

#[test]
fn durations_are_amounts_of_time() {
    for (text, millis) in
        [("90m", 5_400_000), ("1h", 3_600_000), ("7d", 604_800_000), ("1h 30m", 5_400_000), ("30s", 30_000)]
    {
        assert_eq!(parse_duration(text), Ok(millis), "{text}");
    }
    for text in ["", "1", "h", "0h", "-1h", "-1d", "1.5d", "1y", "99999999999d", "d"] {
        assert!(parse_duration(text).is_err(), "{text}: {:?}", parse_duration(text));
    }
}

#[test]
fn an_agent_is_active_until_its_last_day_is_over_or_it_is_retired() {
    let agent = "[agents.bot]\nclass = \"operator\"\nowner = \"ana@example.com\"\n";
    let status = |more: &str, time: &str| {
        let book = book(&[(AGENTS, &format!("{agent}{more}"))]);
        book.registry.by_id("bot").unwrap().status(at(time))
    };
    assert_eq!(status("", "2026-03-02T09:00:00Z"), "active");
    assert_eq!(status("expires = \"2026-03-02\"", "2026-03-02T23:59:59.999Z"), "active");
    assert_eq!(status("expires = \"2026-03-02\"", "2026-03-03T00:00:00Z"), "expired");
    assert_eq!(status("status = \"retired\"\nexpires = \"2026-03-02\"", "2026-03-01T00:00:00Z"), "retired");
    for wrong in ["soon", "2026-02-30", ""] {
        let found = faults(&[(AGENTS, &format!("{agent}expires = \"{wrong}\""))]);
        assert!(found.len() == 1 && found[0].contains(&format!("`{wrong}` is not a day")), "{found:?}");
    }
}
