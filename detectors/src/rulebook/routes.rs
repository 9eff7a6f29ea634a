//! Routes: whom an alert reaches and how, by severity and team, and how many pages a day people are to be asked to bear.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::toml_file::{Entry, TomlFile};
use super::{RuleFile, RulebookError};
use crate::deviation::Severity;

/// Where the routes stand.
pub(super) const FILE: &str = "registry/routes.toml";

/// How an alert reaches people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// Somebody is called, now.
    Page,
    /// Somebody looks at it in working hours.
    Ticket,
    /// It is one line of a summary.
    Digest,
}

impl Route {
    /// Every route, the loudest first.
    pub const ALL: [Route; 3] = [Route::Page, Route::Ticket, Route::Digest];

    /// The name used in rules and reports.
    pub fn name(self) -> &'static str {
        match self {
            Route::Page => "page",
            Route::Ticket => "ticket",
            Route::Digest => "digest",
        }
    }
}

/// The routes of all teams.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    default: Option<BTreeMap<Severity, Route>>,
    teams: BTreeMap<String, Team>,
    /// Most pages a day that all teams together are to get, where that is declared.
    pub pages_per_day: Option<u32>,
}

/// What a team's entry says.
#[derive(Clone, Debug)]
struct Team {
    routes: BTreeMap<Severity, Route>,
    pages_per_day: Option<u32>,
}

impl Routes {
    /// How an alert of this severity reaches a team. What belongs to no team (an unregistered principal) goes by the
    /// default, and where there is none it is a page: nobody else would see it.
    pub fn route(&self, team: &str, severity: Severity) -> Route {
        let own = self.teams.get(team).and_then(|team| team.routes.get(&severity));
        let default = || self.default.as_ref().and_then(|routes| routes.get(&severity));
        own.or_else(default).copied().unwrap_or(Route::Page)
    }

    /// The teams that declare how many pages a day they are to get at most, by name.
    pub fn budgets(&self) -> impl Iterator<Item = (&str, u32)> {
        self.teams.iter().filter_map(|(name, team)| Some((name.as_str(), team.pages_per_day?)))
    }

    /// Whether every alert of a team has a route.
    pub(super) fn knows(&self, team: &str) -> bool {
        self.default.is_some() || self.teams.contains_key(team)
    }

    pub(super) fn read(files: &[RuleFile], errors: &mut Vec<RulebookError>) -> Self {
        let Some(file) = files.iter().find(|file| file.name == FILE) else { return Self::default() };
        let mut toml = TomlFile::parse(file, errors);
        let entries = toml.list::<toml::Table>("team", errors);
        let Some(rest) = toml.rest::<RawRest>(errors) else {
            // What lacks a default then is not known, and nothing is said of it.
            return Self { default: Some(BTreeMap::new()), ..Self::default() };
        };
        let mut routes = Self { pages_per_day: rest.pages_per_day, ..Self::default() };
        if let Some(default) = rest.default {
            let place = default.span().start;
            routes.default = Some(default.into_inner());
            routes.check_whole("`[default]`", &BTreeMap::new(), (file, place), errors);
        }
        for Entry { value, span, .. } in entries {
            match read_team(value) {
                Ok((name, team)) => {
                    routes.check_whole(&format!("team `{name}`"), &team.routes, (file, span.start), errors);
                    if routes.teams.insert(name.clone(), team).is_some() {
                        errors.push(file.error(span.start, format!("team `{name}` is written twice")));
                    }
                }
                Err(message) => errors.push(file.error(span.start, message)),
            }
        }
        routes
    }

    /// Reports severities for which neither these routes nor the default has one.
    fn check_whole(
        &self,
        whose: &str,
        own: &BTreeMap<Severity, Route>,
        (file, offset): (&RuleFile, usize),
        errors: &mut Vec<RulebookError>,
    ) {
        let default = |severity: &Severity| self.default.as_ref().is_some_and(|all| all.contains_key(severity));
        for severity in Severity::ALL.iter().filter(|severity| !own.contains_key(severity) && !default(severity)) {
            let message = format!("{whose} has no route for `{severity}`: write page, ticket or digest");
            errors.push(file.error(offset, message));
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRest {
    default: Option<Spanned<BTreeMap<Severity, Route>>>,
    pages_per_day: Option<u32>,
}

/// Reads one `[[team]]`: beside its name and its budget there are severities only.
fn read_team(mut entry: toml::Table) -> Result<(String, Team), String> {
    let name = match entry.remove("name") {
        Some(toml::Value::String(name)) if !name.is_empty() => name,
        _ => return Err("a team needs a `name`".to_owned()),
    };
    let said = |error: toml::de::Error| format!("team `{name}`: {}", error.message());
    let pages_per_day = entry.remove("pages_per_day").map(u32::deserialize).transpose().map_err(said)?;
    let routes = BTreeMap::deserialize(entry).map_err(said)?;
    Ok((name, Team { routes, pages_per_day }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;
    use crate::testing::{book, faults};

    const ROUTES: &str = r#"
pages_per_day = 3

[default]
critical = "page"
high = "page"
medium = "ticket"
low = "digest"
informational = "digest"

[[team]]
name = "payments"
high = "ticket"
pages_per_day = 1

[[team]]
name = "platform"
"#;
    const AGENT: &str = "[agents.bot]\nclass = \"operator\"\nowner = \"ana@example.com\"\nteam = \"payments\"\n";
    const AGENTS: &str = "registry/agents/bot.toml";

    #[test]
    fn a_team_goes_by_its_own_entry_and_else_by_the_default() {
        let book = book(&[(FILE, ROUTES), (AGENTS, AGENT)]);
        for (team, severity, route) in [
            ("payments", Severity::High, Route::Ticket),
            ("payments", Severity::Critical, Route::Page),
            ("platform", Severity::High, Route::Page),
            ("nobody's", Severity::Low, Route::Digest),
            ("", Severity::Medium, Route::Ticket),
        ] {
            assert_eq!(book.route(team, severity), route, "{team} {severity}");
        }
        assert_eq!(book.routes.pages_per_day, Some(3));
        assert_eq!(book.routes.budgets().collect::<Vec<_>>(), [("payments", 1)]);
    }

    #[test]
    fn what_has_no_route_is_a_page() {
        assert_eq!(book(&[(FILE, "")]).route("", Severity::Informational), Route::Page);
    }

    #[test]
    fn a_team_without_a_route_is_an_error_at_its_first_agent() {
        let twice = format!("{AGENT}\n{}", AGENT.replace("[agents.bot]", "[agents.other]"));
        let own = "[[team]]\nname = \"payments\"\ncritical = \"page\"\nhigh = \"page\"\nmedium = \"page\"\n\
            low = \"page\"\ninformational = \"page\"\n";
        assert_eq!(book(&[(AGENTS, &twice), (FILE, own)]).route("payments", Severity::Low), Route::Page);
        for routes in [String::new(), own.replace("payments", "platform")] {
            let found = faults(&[(AGENTS, &twice), (FILE, &routes)]);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with("rules/registry/agents/bot.toml:1: ") && found[0].contains("`payments`"));
        }
    }

    #[test]
    fn a_rulebook_that_judged_before_there_were_routes_is_read_again() {
        let files = book(&[(FILE, ROUTES), (AGENTS, AGENT)]).files().to_vec();
        let before: Vec<RuleFile> = files.into_iter().filter(|file| file.name != FILE).collect();
        assert!(crate::rulebook::Rulebook::read(before.clone()).is_err());
        assert!(crate::rulebook::Rulebook::read_kept(before).is_ok());
    }

    #[test]
    fn faults_of_the_routes_are_named() {
        let teams = "[[team]]\nname = \"a\"\nhihg = \"page\"\n\n[[team]]\nhigh = \"page\"\n\n[[team]]\nname = \"b\"\n\n\
            [[team]]\nname = \"b\"\npages_per_day = \"few\"\n\n";
        let short = "[default]\ncritical = \"page\"\n";
        let text = format!("{teams}{short}");
        for (text, line, says) in [
            (text.as_str(), 1, "hihg"),
            (&text, 5, "needs a `name`"),
            (&text, 8, "team `b` has no route for `low`"),
            (&text, 11, "team `b`: invalid type"),
            (&text, 15, "`[default]` has no route for `high`"),
            ("pages_per_day = -1", 1, "-1"),
            (&ROUTES.replace("low = \"digest\"", "low = \"shout\""), 8, "shout"),
            (&format!("{ROUTES}[[team]]\nname = \"payments\"\n"), 18, "written twice"),
            (&format!("{ROUTES}[[teams]]\nname = \"c\"\n"), 18, "teams"),
        ] {
            let found = faults(&[(FILE, text), (AGENTS, AGENT)]);
            let place = format!("rules/{FILE}:{line}: ");
            assert!(found.iter().any(|fault| fault.starts_with(&place) && fault.contains(says)), "{says}: {found:#?}");
        }
    }
}
