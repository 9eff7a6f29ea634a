//! The registry that the product's own events go with.

use std::fmt::Write as _;

use super::actions::{Agent, PLAYBOOKS};
use super::{ENVIRONMENTS, environment};

const OWNERS: u64 = 50;

const TEMPLATES: &str = r#"[templates.observer]
class = "observer"
tools = ["aws_cli", "search_*", "kubectl_get"]
data = ["logs", "metrics"]

[templates.advisor]
class = "advisor"
tools = ["aws_cli", "search_*", "kubectl_get", "open_pull_request"]
data = ["logs", "metrics"]

[templates.operator]
class = "operator"
tools = ["aws_cli", "search_*", "kubectl_get"]
data = ["logs", "metrics"]
resource_types = ["AWS::ECS::*", "AWS::AutoScaling::*", "AWS::ElastiCache::*", "AWS::SQS::*"]
windows = [{ days = ["mon", "tue", "wed", "thu", "fri"], from = "07:00", to = "19:00", time_zone = "UTC" }]
"#;

const SHARED: &str = r#"
[[place]]
tool = "search_*"
environment = "shared"
tier = "4"
team = "platform"

[[place]]
resource = "https://git.example.com/*"
environment = "shared"
tier = "3"
team = "platform"
"#;

const ROUTES: &str = r#"[default]
critical = "page"
high = "page"
medium = "ticket"
low = "digest"
informational = "digest"
"#;

/// The files of a registry, by name.
pub(crate) fn files(count: u64) -> [(&'static str, String); 5] {
    let mut people = String::new();
    for owner in 0..OWNERS {
        let _ = writeln!(people, "[people.\"owner-{owner:02}@example.com\"]\nname = \"Owner {owner}\"\n");
    }
    [
        ("agents.toml", agents(count)),
        ("estate.toml", estate()),
        ("people.toml", people),
        ("playbooks.toml", playbooks()),
        ("routes.toml", ROUTES.to_owned()),
    ]
}

fn agents(count: u64) -> String {
    let mut text = TEMPLATES.to_owned();
    for agent in (0..count).map(Agent) {
        let (id, class, role, home) = (agent.id(), agent.class(), agent.role(), agent.home());
        let next = home.wrapping_add(1);
        let (one, other) = (agent.account(home), agent.account(next));
        let _ = writeln!(
            text,
            "\n[agents.{id}]\ntemplate = \"{class}\"\nowner = \"owner-{:02}@example.com\"\nteam = \"team-{:02}\"\n\
             identities = [\"arn:aws:iam::{one}:role/{role}\", \"arn:aws:iam::{other}:role/{role}\"]\n\
             environments = [\"{}\", \"{}\", \"shared\"]",
            agent.0 % OWNERS,
            agent.0 % 20,
            environment(home),
            environment(next),
        );
        if class == "operator" {
            let playbooks: Vec<&str> = agent.playbooks().map(|(name, ..)| name).collect();
            let _ = writeln!(text, "playbooks = {playbooks:?}");
        }
    }
    text
}

fn estate() -> String {
    let mut text = String::new();
    for (number, name) in ENVIRONMENTS.iter().enumerate() {
        let _ = writeln!(
            text,
            "[[place]]\naccount = \"2100000{number:03}*\"\nenvironment = \"{name}\"\ntier = \"{}\"\n\
             team = \"platform\"\ncrown_jewels = [\"*:table/ledger-*\", \"*:db:ledger*\"]\n\n\
             [[place]]\ncluster = \"{name}-*\"\nenvironment = \"{name}\"\ntier = \"{}\"\nteam = \"platform\"\n",
            number + 1,
            number + 1,
        );
    }
    text + SHARED
}

fn playbooks() -> String {
    let mut text = String::new();
    for (id, (service, look, ..), (_, change, ..)) in PLAYBOOKS {
        let _ = writeln!(
            text,
            "[playbooks.{id}]\ntitle = \"{id}\"\nidle = \"60d\"\nsteps = [\n  \
             {{ id = \"look\", operations = [\"{service}:{look}\"] }},\n  \
             {{ id = \"change\", operations = [\"{service}:{change}\"] }},\n  \
             {{ id = \"verify\", operations = [\"{service}:{look}\"] }},\n]\n",
        );
    }
    text
}
