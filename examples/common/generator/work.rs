//! The common work's events and the policy that goes with them.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::cloudtrail::{Operation, Request};
use super::random::{Random, born_with, pick};
use super::{ACCOUNTS, Deviation, Draft, ENVIRONMENTS, account, environment};

const TEAMS: u64 = 20;
const CLASSES: [&str; 10] = [
    "observer", "observer", "observer", "observer", "observer", "advisor", "advisor", "operator", "operator",
    "operator",
];
const TOOLS: [&str; 20] = [
    "search_logs",
    "search_metrics",
    "read_dashboard",
    "read_ticket",
    "update_ticket",
    "kubectl",
    "terraform_plan",
    "open_pull_request",
    "review_code",
    "run_query",
    "page_on_call",
    "read_runbook",
    "http_probe",
    "trace_lookup",
    "feature_flag",
    "cost_report",
    "dns_lookup",
    "cert_check",
    "capacity_plan",
    "chat_message",
];
/// What only a deviating agent uses.
const OTHER_TOOL: &str = "remote_shell";
const READS: [Operation; 10] = [
    ("ec2", "DescribeInstances", "AWS::EC2::Instance", "instance/i-0"),
    ("ecs", "DescribeServices", "AWS::ECS::Service", "service/svc-"),
    ("s3", "GetObject", "AWS::S3::Object", "bucket-"),
    ("rds", "DescribeDBInstances", "AWS::RDS::DBInstance", "db:orders-"),
    ("logs", "FilterLogEvents", "AWS::Logs::LogGroup", "log-group:app-"),
    ("monitoring", "GetMetricData", "AWS::CloudWatch::Alarm", "alarm:cpu-"),
    ("lambda", "GetFunction20150331v2", "AWS::Lambda::Function", "function:job-"),
    ("dynamodb", "DescribeTable", "AWS::DynamoDB::Table", "table/items-"),
    ("sqs", "GetQueueAttributes", "AWS::SQS::Queue", "queue-"),
    ("eks", "DescribeCluster", "AWS::EKS::Cluster", "cluster/blue-"),
];
const WRITES: [Operation; 6] = [
    ("ecs", "UpdateService", "AWS::ECS::Service", "service/svc-"),
    ("s3", "PutObject", "AWS::S3::Object", "bucket-"),
    ("lambda", "UpdateFunctionCode20150331v2", "AWS::Lambda::Function", "function:job-"),
    ("autoscaling", "SetDesiredCapacity", "AWS::AutoScaling::AutoScalingGroup", "group/web-"),
    ("sqs", "SetQueueAttributes", "AWS::SQS::Queue", "queue-"),
    ("ec2", "StopInstances", "AWS::EC2::Instance", "instance/i-0"),
];
const OTHER_OPERATION: Operation = ("kinesis", "GetRecords", "AWS::Kinesis::Stream", "stream/clicks-");
/// Tools, and operations, that an agent is used to.
const HABITS: u64 = 5;

// What agents are born with.
const TEAM: u64 = 1;
const CLASS: u64 = 2;
const HOME: u64 = 3;
const FIRST_HABIT: u64 = 100;

/// Accounts by environment, and environments by team.
pub(crate) fn policy() -> Value {
    let environments = (0..).zip(ENVIRONMENTS);
    let accounts = environments.flat_map(|(place, name)| {
        (0..ACCOUNTS).map(move |number| (account(place, number).to_string(), Value::from(name)))
    });
    let teams = (0..TEAMS).map(|team| (format!("t{team:02}"), json!([environment(team), environment(team + 1)])));
    json!({ "accounts": accounts.collect::<Map<_, _>>(), "teams": teams.collect::<Map<_, _>>() })
}

pub(super) fn write(mut draft: Draft, random: &mut Random, line: &mut String) {
    let team = born_with(draft.agent, TEAM) % TEAMS;
    let class = pick(&CLASSES, born_with(draft.agent, CLASS));
    if draft.is(Deviation::Unheard) || draft.is(Deviation::ObserverWrites) && class != "observer" {
        draft.at_night();
    }
    // A team may work in two environments that follow each other; an agent is nearly always in one of them.
    let mut place = team + (born_with(draft.agent, HOME) + u64::from(random.in_thousand(50))) % 2;
    if draft.is(Deviation::OtherEnvironment) {
        place = team + 2 + random.below(2);
    }
    let writes = match class {
        "observer" => draft.is(Deviation::ObserverWrites),
        "advisor" => random.in_thousand(50),
        _ => random.in_thousand(300),
    };
    let agent = format!("t{team:02}-agent-{:07}", draft.agent);
    let habit = born_with(draft.agent, FIRST_HABIT + random.habit(HABITS));
    if draft.action {
        let tool = if draft.is(Deviation::OtherTool) { OTHER_TOOL } else { pick(&TOOLS, habit) };
        action(draft, (&agent, class, tool, environment(place), writes), random, line);
    } else {
        let usual = if writes { &WRITES[..] } else { &READS[..] };
        let operation = if draft.is(Deviation::OtherTool) { OTHER_OPERATION } else { pick(usual, habit) };
        let account = account(place, draft.agent);
        let (role, read_only) = (&*format!("agent-{class}"), !writes);
        Request { agent: &agent, role, home: account, account, operation, read_only }.write(draft, random, line);
    }
}

type Action<'a> = (&'a str, &'a str, &'a str, &'a str, bool);

fn action(draft: Draft, (agent, class, tool, place, writes): Action<'_>, random: &mut Random, line: &mut String) {
    let (action, time, trace) = (if writes { "write" } else { "read" }, draft.time(), random.next());
    let _ = write!(
        line,
        "{{\"id\":\"e{id:09}\",\"kind\":\"agent_action\",\"ts\":\"{time:.3}\",\"agent\":{{\"id\":\"{agent}\",\
         \"class\":\"{class}\",\"version\":\"2026.2\",\"session\":\"s-{session:08x}\"}},\"tool\":\"{tool}\",\
         \"action\":\"{action}\",\"environment\":\"{place}\",\"resource\":\"{place}/{tool}/item-{item:03}\",\
         \"params\":{{\"query\":\"window {ago} minutes\",\"limit\":{limit},\"dry_run\":false,\
         \"reason\":\"ticket OPS-{ticket:06} asks for a look at item {item:03}\"}},\
         \"result\":{{\"status\":\"ok\",\"rows\":{rows},\"duration_ms\":{took},\"bytes\":{bytes}}},\
         \"trace_id\":\"{trace:016x}{id:016x}\"}}",
        id = draft.number,
        session = draft.number / 50_000 * 1_000_003 + draft.agent,
        item = random.habit(500),
        ago = 5 + trace % 55,
        limit = 10 * (1 + trace % 20),
        ticket = trace % 1_000_000,
        rows = trace % 300,
        took = 3 + trace % 900,
        bytes = trace % 65_536,
    );
}
