//! The same log gives the same deviations, ids and scores: under any interleaving of agents, any batch size, any
//! sharding, and a restart from any checkpoint.
//!
//! The logs are random but real: they go through the decoders and the shipped rules, and their agents are those of the
//! example registry. Ticks and rulebook records are in the log, so that every agent's events keep their order relative to
//! them; between two of them agents are independent, and any merge of their events is the same log.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};

use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestCaseResult, TestError, TestRunner};
use serde_json::{Value, json};
use tautline_detectors::baselines::{Baselines, Piece};
use tautline_detectors::deviation::Deviation;
use tautline_detectors::engine::{Engine, Input};
use tautline_detectors::event::{Event, Millis};
use tautline_detectors::rulebook::{RuleFile, Rulebook};
use tautline_detectors::statement::Approval;
use tautline_ingest::log::LogRecord;
use tautline_ingest::resolve::resolve;
use tautline_ingest::{Format, decode};

use crate::support;

/// 2026-03-02T00:00:00Z, a Monday.
const MONDAY: Millis = 1_772_409_600_000;
const RECEIVED: Millis = 4_102_444_800_000;
const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;
/// Days of habit before the random part: three working weeks.
const WEEKS: Millis = 3;

/// An agent of the example registry, or somebody who is in none.
struct Who {
    /// What it calls itself.
    name: &'static str,
    account: &'static str,
    role: &'static str,
    /// What it does day by day, as places in [`OPERATIONS`].
    habit: &'static [usize],
    /// Whether its past was accepted by a person rather than judged.
    accepted: bool,
}

const AGENTS: [Who; 8] = [
    Who { name: "triage-bot", account: "111111111111", role: "triage-bot", habit: &[0, 1, 2, 1], accepted: false },
    Who { name: "change-advisor", account: "222222222222", role: "change-advisor", habit: &[0, 13, 2], accepted: true },
    Who { name: "restart-bot", account: "111111111111", role: "restart-bot", habit: &[2, 2, 5], accepted: false },
    Who { name: "deploy-bot", account: "222222222222", role: "deploy-bot", habit: &[3, 2, 14], accepted: true },
    Who { name: "night-bot", account: "333333333333", role: "night-bot", habit: &[19, 6], accepted: false },
    Who { name: "ci-runner-7", account: "333333333333", role: "ci-runner", habit: &[18, 19], accepted: false },
    Who { name: "newcomer", account: "333333333333", role: "newcomer", habit: &[6, 5], accepted: false },
    Who { name: "stranger", account: "999999999999", role: "somebody", habit: &[5], accepted: false },
];

/// What an agent may do: tool, operation, verb by its own word, resource type, resource.
struct Operation(&'static str, &'static str, &'static str, &'static str, &'static str);

const OPERATIONS: [Operation; 21] = [
    Operation("search_logs", "search_logs", "read", "", ""),
    Operation("aws_cli", "logs:FilterLogEvents", "read", "AWS::Logs::LogGroup", "/ecs/checkout-api"),
    Operation("aws_read", "ecs:DescribeServices", "read", "AWS::ECS::Service", "checkout-api"),
    Operation("aws_cli", "ecs:UpdateService", "write", "AWS::ECS::Service", "checkout-api"),
    Operation("aws_cli", "ecs:StopTask", "write", "AWS::ECS::Task", "c9f0f895"),
    Operation("aws_cli", "ec2:DescribeInstances", "read", "AWS::EC2::Instance", ""),
    Operation("aws_cli", "s3:ListBuckets", "read", "", ""),
    Operation("aws_cli", "rds:ModifyDBInstance", "write", "AWS::RDS::DBInstance", "ledger-db"),
    Operation("aws_cli", "secretsmanager:GetSecretValue", "read", "AWS::SecretsManager::Secret", "checkout-api/db"),
    Operation("aws_cli", "ssm:SendCommand", "write", "AWS::EC2::Instance", "i-0f00"),
    Operation("aws_cli", "iam:AttachUserPolicy", "write", "AWS::IAM::User", "release-svc"),
    Operation("aws_cli", "ec2:AuthorizeSecurityGroupIngress", "write", "AWS::EC2::SecurityGroup", "sg-0f00"),
    Operation("aws_cli", "cloudtrail:StopLogging", "write", "AWS::CloudTrail::Trail", "main"),
    Operation("open_pull_request", "open_pull_request", "propose", "", "https://git.example.com/payments/7"),
    Operation("aws_cli", "lambda:UpdateFunctionCode", "write", "AWS::Lambda::Function", "checkout"),
    Operation("aws_cli", "kms:ScheduleKeyDeletion", "write", "AWS::KMS::Key", "k-1"),
    Operation("aws_cli", "dynamodb:Scan", "read", "AWS::DynamoDB::Table", "orders"),
    Operation("aws_cli", "secretsmanager:PutSecretValue", "write", "AWS::SecretsManager::Secret", "checkout-api/db"),
    Operation("aws_cli", "ecr:PutImage", "write", "AWS::ECR::Repository", "checkout"),
    Operation("aws_cli", "s3:PutObject", "write", "AWS::S3::Object", "arn:aws:s3:::builds/checkout.tgz"),
    Operation("terraform", "guardduty:DeleteDetector", "write", "AWS::GuardDuty::Detector", "d-1"),
];

/// What one random event is.
#[derive(Clone, Debug)]
enum Act {
    /// One of the agent's habits.
    Usual(usize),
    /// Any of [`OPERATIONS`].
    Other(usize),
    /// Any of [`OPERATIONS`], told by the agent and then by the cloud.
    Told(usize),
    /// A read of a service that nobody is known for.
    Explore(u8),
    /// An action that names a playbook, a run and does one of [`OPERATIONS`].
    Run(u8, u8, usize),
    /// One of the agent's earlier events, byte by byte.
    Repeat(u8),
    /// The id of one of the agent's earlier events, with other content.
    SameId(u8),
    /// A statement about the agent: a forged approval, a real one, an emergency override, a signal.
    Stated(u8),
}

/// One random event of one agent.
#[derive(Clone, Debug)]
struct Step {
    who: usize,
    act: Act,
    /// How long after the agent's event before; negative where it comes late.
    after: Millis,
    /// Whether the cloud tells, or the agent.
    audit: bool,
    denied: bool,
    /// Which network it comes from.
    network: u8,
    /// Whether the agent names another environment than the estate.
    disputed: bool,
}

#[derive(Clone, Copy, Debug)]
enum Barrier {
    /// Minutes after the start of the segment.
    Tick(Millis),
    Book(usize),
}

/// A day's worth of events, and what ends it.
#[derive(Clone, Debug)]
struct Segment {
    /// Days after the segment before, and the hour at which it starts.
    days: Millis,
    hour: Millis,
    steps: Vec<Step>,
    barrier: Barrier,
    /// Whether the events were resolved before the last change of the rulebook reached the hop.
    lagging: bool,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => any::<usize>().prop_map(Act::Usual),
        4 => (0..OPERATIONS.len()).prop_map(Act::Other),
        2 => prop_oneof![Just(8_usize), Just(10), Just(11), Just(7)].prop_map(Act::Other),
        2 => (0..OPERATIONS.len()).prop_map(Act::Told),
        3 => (0..24_u8).prop_map(Act::Explore),
        4 => (0..3_u8, 0..4_u8, prop_oneof![Just(0_usize), Just(2), Just(3), Just(4), Just(7), Just(17)])
            .prop_map(|(book, run, operation)| Act::Run(book, run, operation)),
        1 => any::<u8>().prop_map(Act::Repeat),
        1 => any::<u8>().prop_map(Act::SameId),
        5 => prop_oneof![6 => 0..4_u8, 1 => 4..6_u8].prop_map(Act::Stated),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let after = prop_oneof![
        6 => 0..20_000_i64,
        3 => MINUTE..HOUR,
        1 => 4 * HOUR..40 * HOUR,
        1 => -36 * HOUR..-MINUTE,
    ];
    let rare = || prop::bool::weighted(0.1);
    (0..AGENTS.len(), act(), after, any::<bool>(), rare(), prop_oneof![9 => Just(0_u8), 1 => 1..4_u8], rare()).prop_map(
        |(who, act, after, audit, denied, network, disputed)| Step {
            who,
            act,
            after,
            audit,
            denied,
            network,
            disputed,
        },
    )
}

/// Many requests of one agent in a short time.
fn burst() -> impl Strategy<Value = Vec<Step>> {
    (0..AGENTS.len(), 8..70_usize, any::<bool>(), any::<bool>()).prop_map(|(who, many, denied, new)| {
        let act = |n: usize| if new { Act::Explore(u8::try_from(n % 24).unwrap()) } else { Act::Usual(0) };
        let step = |n| Step { who, act: act(n), after: 1_000, audit: true, denied, network: 0, disputed: false };
        (0..many).map(step).collect()
    })
}

fn segment() -> impl Strategy<Value = Segment> {
    let steps = (prop::collection::vec(step(), 4..20), prop::option::weighted(0.3, burst()));
    let barrier = prop_oneof![(0..40 * 60_i64).prop_map(Barrier::Tick), (0..3_usize).prop_map(Barrier::Book)];
    let hour = prop_oneof![4 => 9..15_i64, 1 => 0..24_i64];
    (0..5_i64, hour, steps, barrier, prop::bool::weighted(0.2)).prop_map(
        |(days, hour, (mut steps, burst), barrier, lagging)| {
            steps.extend(burst.into_iter().flatten());
            Segment { days, hour, steps, barrier, lagging }
        },
    )
}

/// One record of the log: whose it is (`None`: everybody's), and what.
#[derive(Clone, Debug)]
struct Record {
    who: Option<usize>,
    input: Input,
}

/// The rulebooks that a log may switch between: the shipped one with the example registry; one with another control,
/// another threshold, the newcomer registered and a shorter playbook idle time; and one without the night bot.
fn books() -> &'static [Arc<Rulebook>; 3] {
    static BOOKS: OnceLock<[Arc<Rulebook>; 3]> = OnceLock::new();
    BOOKS.get_or_init(|| {
        let mut shipped = support::example_files();
        support::with_test_keys(&mut shipped);
        let read = |files: Vec<RuleFile>| Arc::new(Rulebook::read(files).expect("the example rulebook is valid"));
        let mut other = shipped.clone();
        other.push(support::file("secret-reads/control.toml", SECRET_READS));
        other.push(support::file("secret-reads/policy.cedar", SECRET_READS_POLICY));
        other.push(support::file("registry/agents/newcomer.toml", NEWCOMER));
        support::edit(&mut other, "off-hours/control.toml", "p_value = 0.01", "p_value = 0.04");
        support::edit(&mut other, "unexpected-access/control.toml", "read = 0.001", "read = 0.02");
        support::edit(&mut other, "registry/playbooks/platform.toml", "idle = \"1h\"", "idle = \"5m\"");
        let mut fewer = shipped.clone();
        support::without_agent(&mut fewer, "night-bot");
        support::edit(
            &mut fewer,
            "off-hours/control.toml",
            "response = \"alert\"",
            "response = \"alert\"\nmode = \"shadow\"",
        );
        fewer.push(support::file("registry/exceptions.toml", EXCEPTIONS));
        [read(shipped), read(other), read(fewer)]
    })
}

const EXCEPTIONS: &str = "longest = \"9999d\"\n[exceptions.firsts]\ncontrol = \"unexpected-access\"\nagent = \"deploy-bot\"\n\
    operations = [\"*\"]\nby = \"mei.chen@example.com\"\nwhy = \"a new job\"\nsince = \"2000-01-01T00:00:00Z\"\n\
    until = \"2027-01-01T00:00:00Z\"\n";
const SECRET_READS: &str =
    "id = \"secret-reads\"\ntitle = \"Reads a secret\"\nseverity = \"low\"\nresponse = \"revoke\"\n";
const SECRET_READS_POLICY: &str = r#"@id("secrets") @message("reads a secret") @severity("medium")
forbid (principal, action, resource) when { resource.data == "secrets" && !context.data_approved };"#;
const NEWCOMER: &str = "[agents.newcomer]\nclass = \"operator\"\nowner = \"ana.ruiz@example.com\"\nteam = \"platform\"\n\
    identities = [\"arn:aws:iam::333333333333:role/newcomer\"]\nenvironments = [\"sandbox\"]\ntools = [\"aws_cli\"]\n";

/// Builds a log record by record, every agent by a clock of its own.
struct Writer {
    records: Vec<Record>,
    /// Per agent: the time of its latest event, and all of its events' bytes.
    agents: Vec<(Millis, Vec<String>)>,
}

impl Writer {
    fn new() -> Self {
        Self { records: Vec::new(), agents: AGENTS.iter().map(|_| (MONDAY, Vec::new())).collect() }
    }

    /// Three weeks of habit, working hours.
    fn habit(&mut self, book: &Rulebook) {
        let days = (0..7 * WEEKS).filter(|day| day % 7 < 5);
        let hours = days.flat_map(|day| (9..14).map(move |hour| day * DAY + hour * HOUR));
        for (turn, at) in hours.enumerate() {
            for (who, agent) in AGENTS.iter().enumerate().filter(|(_, agent)| agent.role != "somebody") {
                let act = Act::Usual(turn);
                let step =
                    Step { who, act, after: 0, audit: turn % 2 == 0, denied: false, network: 0, disputed: false };
                let at = MONDAY + at + Millis::try_from(who).unwrap() * MINUTE;
                let json = self.json(&step, at);
                self.append(who, json, book, agent.accepted);
            }
        }
    }

    fn step(&mut self, step: &Step, book: &Rulebook) {
        let (clock, past) = &mut self.agents[step.who];
        *clock += step.after;
        let at = *clock;
        if let Act::Told(_) = step.act {
            for (audit, after) in [(false, 0), (true, 20_000)] {
                let json = self.json(&Step { audit, ..step.clone() }, at + after);
                self.append(step.who, json, book, false);
            }
            return;
        }
        let earlier =
            |n: u8| (!past.is_empty()).then(|| past[past.len() - 1 - usize::from(n) % past.len().min(40)].clone());
        let json = match step.act {
            Act::Repeat(n) => earlier(n),
            Act::SameId(n) => earlier(n).map(|json| {
                let mut event: Value = serde_json::from_str(&json).unwrap();
                event["tampered"] = json!(true);
                event.to_string()
            }),
            _ => None,
        };
        let json = json.unwrap_or_else(|| self.json(step, at));
        self.append(step.who, json, book, false);
    }

    fn append(&mut self, who: usize, json: String, book: &Rulebook, accepted: bool) {
        let event = Box::new(event(json.as_bytes(), book));
        self.agents[who].1.push(json);
        let input = if accepted { Input::Accepted(event) } else { Input::Event(event) };
        self.records.push(Record { who: Some(who), input });
    }

    fn barrier(&mut self, input: Input) {
        self.records.push(Record { who: None, input });
    }

    /// A tick, with how far the audit log has come.
    fn tick(&mut self, at: Millis) {
        let audited = |record: &Record| match &record.input {
            Input::Event(event) if event.source.is_audit() => Some(event.at),
            _ => None,
        };
        let audited_until = self.records.iter().filter_map(audited).max();
        self.barrier(Input::Tick { at, audited_until });
    }

    fn json(&self, step: &Step, at: Millis) -> String {
        let agent = &AGENTS[step.who];
        let number = self.agents[step.who].1.len();
        let explored;
        let operation = match step.act {
            Act::Other(n) | Act::Told(n) | Act::Run(_, _, n) => &OPERATIONS[n],
            Act::Explore(n) => {
                explored = [format!("service{}", n % 5), format!("Get{n}")];
                return cloudtrail(step, agent, number, at, [&explored[0], &explored[1]], "read", "");
            }
            Act::Usual(n) => &OPERATIONS[agent.habit[n % agent.habit.len()]],
            Act::Stated(kind) => return stated(kind, agent, number, at),
            Act::Repeat(_) | Act::SameId(_) => &OPERATIONS[agent.habit[0]],
        };
        let Operation(_, name, verb, _, resource) = operation;
        match name.split_once(':') {
            Some((service, name)) if step.audit && !matches!(step.act, Act::Run(..)) => {
                cloudtrail(step, agent, number, at, [service, name], verb, resource)
            }
            _ => action(step, agent, number, at, operation),
        }
    }
}

fn time(at: Millis) -> String {
    jiff::Timestamp::from_millisecond(at).unwrap().to_string()
}

fn address(step: &Step) -> String {
    format!("203.0.{}.24", 113 + u32::from(step.network))
}

/// What the cloud writes.
fn cloudtrail(
    step: &Step,
    agent: &Who,
    number: usize,
    at: Millis,
    [service, name]: [&str; 2],
    verb: &str,
    resource: &str,
) -> String {
    let Who { account, role, .. } = agent;
    // Somebody who has the agent's key, and a second factor.
    let (key, person) =
        if step.disputed { ("AKIAEXAMPLE000000001", "true") } else { ("ASIAEXAMPLE000000001", "false") };
    let parameters = match name {
        "AuthorizeSecurityGroupIngress" => json!({ "groupId": resource, "ipPermissions": { "items": [{
            "ipProtocol": "tcp", "fromPort": 22, "toPort": 22, "ipRanges": { "items": [{ "cidrIp": "0.0.0.0/0" }] } }] } }),
        "ModifyDBInstance" => json!({ "dBInstanceIdentifier": resource }),
        "AttachUserPolicy" => {
            json!({ "userName": resource, "policyArn": "arn:aws:iam::aws:policy/AdministratorAccess" })
        }
        "UpdateService" | "DescribeServices" => json!({ "cluster": "payments", "service": resource }),
        _ => json!({ "name": resource }),
    };
    json!({
        "eventVersion": "1.11", "eventID": format!("{}-{number}", agent.name), "eventTime": time(at),
        "eventSource": format!("{service}.amazonaws.com"), "eventName": name, "awsRegion": "eu-west-1",
        "sourceIPAddress": address(step), "userAgent": "Boto3/1.42.9", "readOnly": verb == "read",
        "recipientAccountId": account, "requestParameters": parameters,
        "errorCode": if step.denied { json!("AccessDenied") } else { Value::Null },
        "userIdentity": {
            "type": "AssumedRole", "accountId": account, "accessKeyId": key,
            "arn": format!("arn:aws:sts::{account}:assumed-role/{role}/s-{}", number / 25),
            "sessionContext": {
                "sessionIssuer": { "type": "Role", "arn": format!("arn:aws:iam::{account}:role/{role}") },
                "attributes": { "mfaAuthenticated": person },
            },
        },
    })
    .to_string()
}

/// What the agent says.
fn action(step: &Step, agent: &Who, number: usize, at: Millis, operation: &Operation) -> String {
    let Operation(tool, name, verb, kind, resource) = operation;
    let Who { account, role, .. } = agent;
    // Runners come and go, and share the habit of their fleet.
    let id = agent.name.replace('7', &(number % 3).to_string());
    let argument = if step.disputed {
        json!({ "value": format!("{resource}, said a tool at {number}"), "origin": "tool_output" })
    } else {
        json!({ "value": resource, "origin": "user_request" })
    };
    let mut data = json!({
        "agent": { "id": id, "identity": format!("arn:aws:sts::{account}:assumed-role/{role}/s-1") },
        "session": format!("s-{}", number / 25), "tool": tool, "operation": name, "verb": verb,
        "arguments": { "target": argument },
        "resource": { "type": kind, "id": resource }, "account": account, "region": "eu-west-1",
        "reasoning": { "text": format!("because of {number}") }, "origin": { "address": address(step) },
        "outcome": if step.denied { json!({ "status": "denied", "reason": "AccessDenied" }) } else { json!({ "status": "success" }) },
    });
    if step.disputed {
        data["environment"] = json!("development");
    }
    if let Act::Run(book, run, _) = step.act {
        let book = ["restart-service", "rotate-secret", "no-such-playbook"][usize::from(book)];
        data["playbook"] = json!({ "id": book, "run": format!("r-{run}") });
    }
    json!({
        "specversion": "1.0", "type": "tautline.agent.action.v1", "id": format!("{}-{number}", agent.name),
        "source": "https://agents.example.com/runtime/eu", "time": time(at), "data": data,
    })
    .to_string()
}

/// What an issuer says, or somebody in its name.
fn stated(kind: u8, agent: &Who, number: usize, at: Millis) -> String {
    let id = agent.name.replace('7', &(number % 3).to_string());
    let seconds = at.div_euclid(1_000);
    let mut claims = json!({
        "iss": "https://console.example.com", "jti": format!("{}-{number}", agent.name), "sub": "ana.ruiz@example.com",
        "iat": seconds, "exp": seconds + 3_600, "agent": id,
    });
    let approval = |digest: String| {
        let (operation, resource) = ("ecs:UpdateService".to_owned(), "checkout-api".to_owned());
        let parameters = [("cluster", "payments"), ("service", "checkout-api")];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), json!(value))).into_iter().collect();
        Approval { requester: "bot".to_owned(), operation, resource, parameters, digest, count: 1, irreversible: false }
    };
    match kind {
        0 => claims["approval"] = json!(approval(String::new())),
        1 => claims["approval"] = json!(approval(approval(String::new()).digest())),
        2 => {
            (claims["iss"], claims["sub"]) = (json!("urn:example:break-glass"), json!("mei.chen@example.com"));
            let controls = ["change-windows", "approvals"];
            claims["override"] =
                json!({ "reason": "down", "controls": controls, "operations": ["*"], "environments": ["*"] });
        }
        4 | 5 => {
            claims["sub"] = json!("mei.chen@example.com");
            claims[if kind == 4 { "quarantine" } else { "release" }] = json!({ "reason": "odd" });
        }
        _ => {
            claims["iss"] = json!("https://monitoring.example.com");
            claims["signal"] = json!({ "name": "HighErrorRate" });
        }
    }
    match kind {
        0 => claims.to_string(),
        1 | 4 | 5 => support::signed(&claims, &["console-1"]),
        2 => support::signed(&claims, &["ana-2026", "mei-2026"]),
        _ => support::signed(&claims, &["monitoring-1"]),
    }
}

/// From bytes to a resolved event, as the hop does it.
fn event(bytes: &[u8], book: &Rulebook) -> Event {
    let mut event = decode(bytes, Format::Auto, RECEIVED).remove(0).expect("the record decodes");
    resolve(&mut event, book);
    event
}

/// The whole log: weeks of habit, then the random segments.
fn log(segments: &[Segment]) -> Vec<Record> {
    let mut writer = Writer::new();
    let (mut judging, mut before) = (0, 0);
    writer.habit(&books()[judging]);
    let mut day = 7 * WEEKS;
    for segment in segments {
        day += segment.days;
        let start = MONDAY + day * DAY + segment.hour * HOUR;
        writer.agents.iter_mut().for_each(|(clock, _)| *clock = (*clock).max(start));
        let book = &books()[if segment.lagging { before } else { judging }];
        for step in &segment.steps {
            writer.step(step, book);
        }
        match segment.barrier {
            Barrier::Tick(minutes) => writer.tick(start + minutes * MINUTE),
            Barrier::Book(number) => {
                (before, judging) = (judging, number);
                writer.barrier(Input::Rulebook(Arc::clone(&books()[number])));
            }
        }
    }
    writer.records
}

/// Numbers from a seed (SplitMix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }
}

/// A merge of the agents' events by a seed, the order inside each agent and relative to the barriers kept.
fn interleaved(records: &[Record], seed: u64) -> Vec<Record> {
    let mut dice = Dice(seed);
    let mut merged = Vec::with_capacity(records.len());
    for segment in records.split_inclusive(|record| record.who.is_none()) {
        let mut queues: Vec<VecDeque<Record>> = AGENTS.iter().map(|_| VecDeque::new()).collect();
        for record in segment {
            if let Some(who) = record.who {
                queues[who].push_back(record.clone());
            }
        }
        queues.retain(|queue| !queue.is_empty());
        while !queues.is_empty() {
            let (picked, many) = (dice.below(queues.len()), 1 + dice.below(6));
            let queue = &mut queues[picked];
            merged.extend(queue.drain(..many.min(queue.len())));
            queues.retain(|queue| !queue.is_empty());
        }
        merged.extend(segment.last().filter(|record| record.who.is_none()).cloned());
    }
    merged
}

/// What a run over a log leaves: per agent its deviations in order, and the memory.
#[derive(Debug, PartialEq)]
struct Left {
    deviations: BTreeMap<String, Vec<String>>,
    memory: Vec<Vec<u8>>,
}

/// One run over a log, restarted before the records at `restarts`: what it leaves, and each record's deviations.
fn run(records: &[Record], restarts: &BTreeSet<usize>) -> (Left, Vec<Vec<Deviation>>) {
    let mut engine = Engine::new(Arc::clone(&books()[0]));
    let mut found = Vec::new();
    for (at, record) in records.iter().enumerate() {
        if restarts.contains(&at) {
            let baselines = restored(&snapshot(engine.baselines()));
            engine = Engine::resume(Arc::clone(engine.rulebook()), baselines);
        }
        found.push(engine.step(&record.input).1);
    }
    (Left { deviations: by_agent(&found), memory: snapshot(engine.baselines()) }, found)
}

/// A memory in pieces, and what it was when it was frozen.
struct Frozen {
    at: usize,
    book: Arc<Rulebook>,
    pieces: Vec<Piece>,
    memory: Vec<Vec<u8>>,
}

impl Frozen {
    fn of(engine: &mut Engine, at: usize) -> Self {
        let memory = snapshot(engine.baselines());
        Self { at, book: Arc::clone(engine.rulebook()), pieces: engine.freeze(), memory }
    }

    fn resume(&self) -> Engine {
        let mut baselines = Baselines::default();
        self.pieces.iter().for_each(|piece| baselines.absorb(&piece.tables().unwrap()).unwrap());
        assert!(snapshot(&baselines) == self.memory, "what came after record {} is in its pieces", self.at);
        Engine::resume(Arc::clone(&self.book), baselines)
    }
}

/// One run over a log, frozen before the records at `freezes`: from one to the next it goes on, then falls back to the
/// pieces of the first and comes the same way again, which must be the same. Every piece is kept to the end.
fn run_in_pieces(records: &[Record], freezes: &BTreeSet<usize>) -> (Left, Vec<Vec<Deviation>>) {
    let mut engine = Engine::new(Arc::clone(&books()[0]));
    let (mut found, mut kept): (Vec<Vec<Deviation>>, Vec<Frozen>) = (Vec::new(), Vec::new());
    for at in 0..=records.len() {
        if freezes.contains(&at) || at == records.len() {
            if let Some(last) = kept.last() {
                let mut again = last.resume();
                let same = records[last.at..at].iter().map(|record| again.step(&record.input).1);
                assert!(same.eq(found[last.at..].iter().cloned()), "from record {} to {at}", last.at);
                engine = again;
            }
            kept.push(Frozen::of(&mut engine, at));
        }
        found.extend(records.get(at).map(|record| engine.step(&record.input).1));
    }
    kept.iter().for_each(|frozen| drop(frozen.resume()));
    (Left { deviations: by_agent(&found), memory: snapshot(engine.baselines()) }, found)
}

/// Every deviation as it is written, and the exact bits of its numbers.
fn by_agent(found: &[Vec<Deviation>]) -> BTreeMap<String, Vec<String>> {
    let mut agents: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for deviation in found.iter().flatten() {
        let bits = [deviation.score, deviation.trust.before, deviation.trust.after].map(f64::to_bits);
        let written = serde_json::to_string(deviation).unwrap();
        agents.entry(deviation.agent.id.clone()).or_default().push(format!("{} {bits:x?} {written}", deviation.id));
    }
    agents
}

/// The memory as Arrow IPC streams, a table each.
fn snapshot(baselines: &Baselines) -> Vec<Vec<u8>> {
    let write = |batch: &RecordBatch| {
        let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
        writer.write(batch).unwrap();
        writer.into_inner().unwrap()
    };
    baselines.snapshot().unwrap().iter().map(write).collect()
}

fn restored(tables: &[Vec<u8>]) -> Baselines {
    let readers = tables.iter().map(|bytes| StreamReader::try_new(bytes.as_slice(), None).unwrap());
    let batches: Vec<RecordBatch> = readers.flatten().map(Result::unwrap).collect();
    Baselines::restore(&batches).expect("what was written can be restored")
}

/// The same log by way of the bytes of `tautline.events`.
fn through_bytes(records: &[Record]) -> Vec<Record> {
    let input = |input: &Input| {
        let record = match input {
            Input::Event(event) => LogRecord::Event { event: event.clone(), resolved_by: books()[0].hash().to_owned() },
            Input::CredentialUse(event) => LogRecord::CredentialUse { event: event.clone() },
            Input::Tick { at, audited_until } => LogRecord::Tick { at: *at, audited_until: *audited_until },
            Input::Rulebook(book) => LogRecord::Rulebook { hash: book.hash().to_owned() },
            Input::Accepted(_) => return input.clone(),
        };
        let bytes = record.to_bytes().unwrap();
        let again = LogRecord::from_bytes(&bytes).unwrap();
        assert_eq!(again, record);
        match again {
            LogRecord::Event { event, .. } => Input::Event(event),
            LogRecord::CredentialUse { event } => Input::CredentialUse(event),
            LogRecord::Tick { at, audited_until } => Input::Tick { at, audited_until },
            LogRecord::Rulebook { hash } => {
                Input::Rulebook(books().iter().find(|book| book.hash() == hash).cloned().unwrap())
            }
        }
    };
    records.iter().map(|record| Record { who: record.who, input: input(&record.input) }).collect()
}

/// The log as `shards` engines read it: every agent in one of them, the barriers in all.
fn sharded(records: &[Record], shards: usize) -> Vec<Vec<Record>> {
    let of = |shard| move |record: &&Record| record.who.is_none_or(|who| who % shards == shard);
    (0..shards).map(|shard| records.iter().filter(of(shard)).cloned().collect()).collect()
}

/// How one random log is read again.
#[derive(Clone, Debug)]
struct Again {
    merges: [u64; 3],
    restarts: Vec<prop::sample::Index>,
    batches: usize,
    shards: usize,
}

fn again() -> impl Strategy<Value = Again> {
    (any::<[u64; 3]>(), prop::collection::vec(any::<prop::sample::Index>(), 1..5), 2..7_usize, 2..5_usize)
        .prop_map(|(merges, restarts, batches, shards)| Again { merges, restarts, batches, shards })
}

/// Runs a property over random logs; panics with the smallest log that breaks it.
fn over_logs(cases: u32, property: impl Fn(&[Record], &Again) -> TestCaseResult) {
    let default = Config::default();
    // The same logs in every run, unless `PROPTEST_RNG_SEED` asks for others.
    let rng_seed = if default.rng_seed == RngSeed::Random { RngSeed::Fixed(1) } else { default.rng_seed };
    let config = Config { cases, rng_seed, failure_persistence: None, max_shrink_iters: 256, ..default };
    let strategy = (prop::collection::vec(segment(), 1..5), again());
    let result = TestRunner::new(config).run(&strategy, |(segments, again)| property(&log(&segments), &again));
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, smallest)) => panic!("{why}\nsmallest log: {smallest:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn the_same_log_gives_the_same_deviations_and_memory() {
    let controls = RefCell::new(BTreeSet::new());
    over_logs(64, |records, again| {
        let (once, found) = run(records, &BTreeSet::new());
        prop_assert!(snapshot(&restored(&once.memory)) == once.memory, "a restored memory is written as other bytes");
        controls.borrow_mut().extend(found.iter().flatten().map(|deviation| deviation.control.clone()));

        let (merged, _) = run(&interleaved(records, again.merges[0]), &BTreeSet::new());
        prop_assert!(once == merged, "another interleaving: {}", difference(&once, &merged));

        let restarts: BTreeSet<usize> = again.restarts.iter().map(|index| index.index(records.len())).collect();
        let (restarted, _) = run(&interleaved(records, again.merges[1]), &restarts);
        prop_assert!(once == restarted, "restarts at {restarts:?}: {}", difference(&once, &restarted));

        let (in_pieces, _) = run_in_pieces(&interleaved(records, again.merges[2]), &restarts);
        prop_assert!(once == in_pieces, "in pieces at {restarts:?}: {}", difference(&once, &in_pieces));

        let every = records.len().div_ceil(again.batches);
        let batches = (0..records.len()).step_by(every).collect();
        let (batched, again_found) = run(&through_bytes(records), &batches);
        prop_assert!(once == batched, "through bytes in batches of {every}: {}", difference(&once, &batched));
        prop_assert!(found == again_found, "the same order of records, another order of deviations");

        let mut union = BTreeMap::new();
        for shard in sharded(&interleaved(records, again.merges[2]), again.shards) {
            let restarts = BTreeSet::from([shard.len() / 2]);
            for (agent, deviations) in run(&shard, &restarts).0.deviations {
                prop_assert!(union.insert(agent, deviations).is_none(), "an agent's deviations come from one shard");
            }
        }
        prop_assert!(once.deviations == union, "in {} shards", again.shards);
        Ok(())
    });
    let expected: BTreeSet<String> = books()[1].controls().map(|control| control.id.clone()).collect();
    let quiet: Vec<String> = expected.difference(&controls.borrow()).cloned().collect();
    assert!(quiet.is_empty(), "the logs never broke these, so nothing was shown of them: {quiet:?}");
}

/// The first thing in which two runs differ.
fn difference(a: &Left, b: &Left) -> String {
    for agent in a.deviations.keys().chain(b.deviations.keys()) {
        let of = |left: &Left| left.deviations.get(agent).cloned().unwrap_or_default();
        let (a, b) = (of(a), of(b));
        for n in 0..a.len().max(b.len()) {
            if a.get(n) != b.get(n) {
                return format!("deviation {n} of `{agent}`:\n  {:?}\n  {:?}", a.get(n), b.get(n));
            }
        }
    }
    format!(
        "equal deviations, different memory: {:?}",
        a.memory.iter().zip(&b.memory).map(|(a, b)| a == b).collect::<Vec<_>>()
    )
}

#[test]
fn the_evidence_adds_up_to_the_score_and_the_score_to_the_trust() {
    let kinds = RefCell::new(BTreeSet::new());
    over_logs(32, |records, _| {
        for found in run(records, &BTreeSet::new()).1 {
            for deviation in &found {
                check_score(deviation)?;
                let same_event = found.iter().filter(|other| other.event.id == deviation.event.id);
                check_trust(deviation, same_event)?;
                kinds.borrow_mut().extend(deviation.evidence.iter().map(|evidence| evidence.what.clone()));
            }
        }
        Ok(())
    });
    let kinds = kinds.into_inner();
    for kind in ["policy", "gap", "read", "tool", "hour-of-week", "requests", "denials", "new-access", "skipped step"] {
        assert!(kinds.contains(kind), "no evidence of kind `{kind}`, only of {kinds:?}");
    }
}

fn check_score(deviation: &Deviation) -> TestCaseResult {
    let id = &deviation.id;
    let sum: f64 = deviation.evidence.iter().map(|evidence| evidence.score).sum();
    prop_assert_eq!(sum.to_bits(), deviation.score.to_bits(), "{}", id);
    prop_assert!(sum > 0.0 && sum.is_finite(), "{id}: {sum}");
    for evidence in &deviation.evidence {
        let due = evidence.p_value.map_or(evidence.score, |p| -p.log10());
        prop_assert_eq!(evidence.score.to_bits(), due.to_bits(), "{}", id);
    }
    prop_assert_eq!(id.split('/').next(), Some(deviation.control.as_str()));
    Ok(())
}

/// Trust is 100 · 2^(−evidence / 12), and an event adds the score of its weightiest deviation to the evidence.
fn check_trust<'d>(deviation: &Deviation, same_event: impl Iterator<Item = &'d Deviation>) -> TestCaseResult {
    let evidence = |trust: f64| -12.0 * (trust / 100.0).log2();
    let taken = evidence(deviation.trust.after) - evidence(deviation.trust.before);
    let weightiest = same_event.map(|other| other.score).fold(0.0, f64::max);
    // Anybody may have written it, and nobody is less to be trusted for that.
    let is_nobodys = deviation.agent.class == "unregistered" || deviation.control == "forged-statements";
    let due = if is_nobodys { 0.0 } else { weightiest };
    prop_assert!((taken - due).abs() < 1e-6 * due.max(1.0), "{}: {taken}, not {due}", deviation.id);
    Ok(())
}

#[test]
fn what_is_delivered_twice_counts_once() {
    over_logs(32, |records, again| {
        let records = interleaved(records, again.merges[0]);
        let twice: Vec<Record> = records.iter().flat_map(|record| [record.clone(), record.clone()]).collect();
        let (once, found) = run(&records, &BTreeSet::new());
        let (doubled, _) = run(&twice, &BTreeSet::from([again.restarts[0].index(twice.len())]));
        prop_assert!(once == doubled, "{}", difference(&once, &doubled));
        prop_assert!(found.iter().any(Vec::is_empty), "everything deviates, so nothing was shown");
        Ok(())
    });
}

#[test]
fn every_record_is_a_place_to_restart_from() {
    let mut runner = TestRunner::deterministic();
    let segments = prop::collection::vec(segment(), 3).new_tree(&mut runner).unwrap().current();
    let records = log(&segments);
    let habit = records.len() - segments.iter().map(|segment| segment.steps.len() + 1).sum::<usize>();
    let (once, found) = run(&records, &BTreeSet::new());
    let late: BTreeSet<usize> = (habit..records.len()).collect();
    let (restarted, _) = run(&records, &late);
    assert!(once == restarted, "{}", difference(&once, &restarted));
    let (in_pieces, found_in_pieces) = run_in_pieces(&records, &late);
    assert!(once == in_pieces, "{}", difference(&once, &in_pieces));
    assert!(found == found_in_pieces, "the same order of records, another order of deviations");
    assert!(found.iter().flatten().count() > 10, "so few deviations show little");
    let mut engine = Engine::new(Arc::clone(&books()[0]));
    let waits = |record: &Record| {
        engine.step(&record.input);
        let waiting = engine.baselines().waiting();
        waiting.claims > 0 && waiting.effects > 0
    };
    assert!(records.iter().map(waits).filter(|waits| *waits).count() > 10, "so little that waits shows little");
}

#[test]
fn records_of_a_batch_are_the_same_events_as_alone() {
    let mut writer = Writer::new();
    writer.habit(&books()[0]);
    let audit = |json: &&String| json.contains("eventVersion");
    let alone: Vec<String> = writer.agents.iter().flat_map(|(_, past)| past).filter(audit).cloned().collect();
    let one = |json: &String| event(json.as_bytes(), &books()[0]);
    let events: Vec<Event> = alone.iter().map(one).collect();
    assert!(events.len() > 200);
    for size in [1, 2, 7, 64, events.len()] {
        let batch = |members: &[String]| format!("{{\"Records\":[{}]}}", members.join(","));
        let decoded = alone.chunks(size).flat_map(|members| decode(batch(members).as_bytes(), Format::Auto, RECEIVED));
        let resolved = decoded.map(|event| {
            let mut event = event.expect("a member of a batch decodes");
            resolve(&mut event, &books()[0]);
            event
        });
        assert!(resolved.eq(events.iter().cloned()), "batches of {size}");
    }
}
