//! The product's own events: agent actions and CloudTrail records of the agents of a made-up registry.

use std::fmt::Write as _;

use super::cloudtrail::{Operation, Request};
use super::random::{Random, born_with, pick};
use super::{Deviation, Draft, account, environment};

pub(super) const CLASSES: [&str; 5] = ["observer", "observer", "advisor", "operator", "operator"];
const READS: [Operation; 8] = [
    ("ecs", "DescribeTasks", "AWS::ECS::Task", "task/web-"),
    ("ec2", "DescribeInstances", "AWS::EC2::Instance", "instance/i-0"),
    ("rds", "DescribeDBInstances", "AWS::RDS::DBInstance", "db:orders-"),
    ("logs", "FilterLogEvents", "AWS::Logs::LogGroup", "log-group:app-"),
    ("monitoring", "GetMetricData", "AWS::CloudWatch::Alarm", "alarm:cpu-"),
    ("lambda", "GetFunctionConfiguration", "AWS::Lambda::Function", "function:job-"),
    ("dynamodb", "DescribeTable", "AWS::DynamoDB::Table", "table/items-"),
    ("eks", "DescribeCluster", "AWS::EKS::Cluster", "cluster/blue-"),
];
/// Name, what is looked at before and after, and what is changed.
pub(super) const PLAYBOOKS: [(&str, Operation, Operation); 4] = [
    (
        "restart-service",
        ("ecs", "DescribeServices", "AWS::ECS::Service", "service/web-"),
        ("ecs", "StopTask", "AWS::ECS::Task", "task/web-"),
    ),
    (
        "scale-out",
        ("autoscaling", "DescribeAutoScalingGroups", "AWS::AutoScaling::AutoScalingGroup", "group/web-"),
        ("autoscaling", "SetDesiredCapacity", "AWS::AutoScaling::AutoScalingGroup", "group/web-"),
    ),
    (
        "restart-cache",
        ("elasticache", "DescribeCacheClusters", "AWS::ElastiCache::CacheCluster", "cluster/cache-"),
        ("elasticache", "RebootCacheCluster", "AWS::ElastiCache::CacheCluster", "cluster/cache-"),
    ),
    (
        "drain-queue",
        ("sqs", "GetQueueAttributes", "AWS::SQS::Queue", "queue-"),
        ("sqs", "PurgeQueue", "AWS::SQS::Queue", "queue-"),
    ),
];
/// What no class may do, and what no agent ever does but one that deviates.
const OTHER_CHANGE: Operation = ("s3", "PutObject", "AWS::S3::Object", "bucket-");
const OTHER_SERVICE: Operation = ("kinesis", "GetRecords", "AWS::Kinesis::Stream", "stream/clicks-");
/// Operations that an agent is used to, and playbooks that an operator may run.
const HABITS: u64 = 4;
const OWN_PLAYBOOKS: u64 = 2;
/// Actions in a session.
const SESSION: u32 = 40;

// What agents are born with.
const CLASS: u64 = 1;
const HOME: u64 = 2;
const FIRST_PLAYBOOK: u64 = 50;
const FIRST_HABIT: u64 = 100;

/// What is in the registry of an agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agent(pub(super) u64);

impl Agent {
    pub(super) fn class(self) -> &'static str {
        pick(&CLASSES, born_with(self.0, CLASS))
    }

    pub(super) fn id(self) -> String {
        format!("{}-{:07}", self.class(), self.0)
    }

    pub(super) fn role(self) -> String {
        format!("agent-{:07}", self.0)
    }

    /// Where it is at home; it may work in the next environment, too.
    pub(super) fn home(self) -> u64 {
        born_with(self.0, HOME)
    }

    pub(super) fn account(self, environment: u64) -> u64 {
        account(environment, self.0)
    }

    pub(super) fn playbooks(self) -> impl Iterator<Item = (&'static str, Operation, Operation)> {
        let first = born_with(self.0, FIRST_PLAYBOOK);
        (0..OWN_PLAYBOOKS).map(move |number| pick(&PLAYBOOKS, first.wrapping_add(number)))
    }
}

/// Where the agents stand.
#[derive(Debug)]
pub(super) struct Agents(Vec<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    actions: u32,
    runs: u32,
    /// Steps of the latest run that are done; none is under way at 0.
    steps: u32,
}

/// A call of a tool.
struct Call {
    tool: &'static str,
    operation: Option<Operation>,
    verb: &'static str,
    /// The environment, counted.
    place: u64,
    run: Option<(&'static str, u32)>,
}

impl Agents {
    pub(super) fn new(agents: usize) -> Self {
        Self(vec![State::default(); agents])
    }

    pub(super) fn write(&mut self, draft: Draft, random: &mut Random, line: &mut String) {
        let agent = Agent(draft.agent);
        let mut place = agent.home().wrapping_add(u64::from(random.in_thousand(100)));
        if draft.is(Deviation::OtherEnvironment) {
            place = agent.home().wrapping_add(2 + random.below(2));
        }
        if !draft.action {
            return trail(draft, agent, place, random, line);
        }
        let Some(state) = usize::try_from(draft.agent).ok().and_then(|at| self.0.get_mut(at)) else { return };
        state.actions += 1;
        let call = state.call(draft, agent, place, random);
        let session = format!("s-{:07}-{}", agent.0, state.actions / SESSION);
        action(draft, agent, &session, &call, random, line);
    }
}

impl State {
    fn call(&mut self, draft: Draft, agent: Agent, place: u64, random: &mut Random) -> Call {
        let plain = |tool, operation, verb| Call { tool, operation, verb, place, run: None };
        match draft.deviation {
            Some(Deviation::OtherTool) => return plain("remote_shell", None, "read"),
            Some(Deviation::ObserverWrites) => return plain("aws_cli", Some(OTHER_CHANGE), "write"),
            Some(Deviation::Unheard) => return plain("aws_cli", Some(OTHER_SERVICE), "read"),
            Some(Deviation::OtherEnvironment) => return plain("aws_cli", Some(usual_read(agent, random)), "read"),
            None => {}
        }
        let class = agent.class();
        if class == "operator" && (self.steps > 0 || random.in_thousand(400)) {
            return self.step(agent, place);
        }
        match random.habit(10) {
            _ if class == "advisor" && random.in_thousand(150) => plain("open_pull_request", None, "propose"),
            0..3 => plain("aws_cli", Some(usual_read(agent, random)), "read"),
            3..5 => plain("search_logs", None, "read"),
            5..7 => plain("search_metrics", None, "read"),
            _ => plain("kubectl_get", None, "read"),
        }
    }

    /// The next step of the run under way, or the first one of the next.
    fn step(&mut self, agent: Agent, place: u64) -> Call {
        if self.steps == 0 {
            self.runs += 1;
        }
        let turn = usize::try_from(u64::from(self.runs) % OWN_PLAYBOOKS).unwrap_or_default();
        let (playbook, look, change) = agent.playbooks().nth(turn).unwrap_or_default();
        let (operation, verb) = if self.steps == 1 { (change, "write") } else { (look, "read") };
        self.steps = (self.steps + 1) % 3;
        Call { tool: "aws_cli", operation: Some(operation), verb, place, run: Some((playbook, self.runs)) }
    }
}

fn usual_read(agent: Agent, random: &mut Random) -> Operation {
    pick(&READS, born_with(agent.0, FIRST_HABIT + random.habit(HABITS)))
}

/// What the cloud says of an agent.
fn trail(draft: Draft, agent: Agent, place: u64, random: &mut Random, line: &mut String) {
    let changes = agent.class() == "operator" && random.in_thousand(200);
    let (operation, read_only) = match draft.deviation {
        Some(Deviation::ObserverWrites) => (OTHER_CHANGE, false),
        Some(Deviation::Unheard | Deviation::OtherTool) => (OTHER_SERVICE, true),
        None if changes => (agent.playbooks().next().unwrap_or_default().2, false),
        _ => (usual_read(agent, random), true),
    };
    // Where the agent is not cleared it has no role: it comes with the one that it has at home.
    let home = if draft.is(Deviation::OtherEnvironment) { agent.home() } else { place };
    let (home, account) = (agent.account(home), agent.account(place));
    Request { agent: &agent.id(), role: &agent.role(), home, account, operation, read_only }.write(draft, random, line);
}

/// What an agent says of itself.
fn action(draft: Draft, agent: Agent, session: &str, call: &Call, random: &mut Random, line: &mut String) {
    let (number, id, time, item) = (draft.number, agent.id(), draft.time(), random.habit(300));
    let (home, role) = (agent.account(agent.home()), agent.role());
    let _ = write!(
        line,
        "{{\"specversion\":\"1.0\",\"type\":\"tautline.agent.action.v1\",\"id\":\"e{number:09}\",\
         \"source\":\"https://agents.example.com/fleet\",\"time\":\"{time:.3}\",\
         \"data\":{{\"agent\":{{\"id\":\"{id}\",\"identity\":\"arn:aws:iam::{home}:role/{role}\"}},\
         \"session\":\"{session}\",\"tool\":\"{tool}\",\"verb\":\"{verb}\",\
         \"arguments\":{{\"target\":{{\"value\":\"item-{item:03}\",\"origin\":\"user_request\"}},\
         \"filter\":{{\"value\":{{\"since\":\"{minutes}m\",\"level\":\"warn\"}},\"origin\":\"tool_output\"}},\
         \"limit\":{{\"value\":{limit},\"origin\":\"neither\"}}}},",
        tool = call.tool,
        verb = call.verb,
        minutes = 5 + item % 55,
        limit = 10 + item % 90,
    );
    target(call, agent, item, random, line);
    if let Some((playbook, run)) = call.run {
        let _ = write!(
            line,
            r#""playbook":{{"id":"{playbook}","run":"r-{0:07}-{run}"}},"approval":"CHG-{0:07}-{run}","#,
            agent.0
        );
    }
    let trace = random.next();
    let _ = write!(
        line,
        "\"reasoning\":{{\"text\":\"Error rates of item {item:03} went up {minutes} minutes ago, after its last \
         release. Before anything is changed I compare what is running with what should be, as the runbook \
         asks.\"}},\"credential\":{{\"id\":\"ASIA{key:016X}\",\"kind\":\"short-lived\",\"issued_at\":\"{time:.0}\",\
         \"mfa\":false}},\"origin\":{{\"address\":\"10.{net}.0.{host}\",\"user_agent\":\"agent-runtime/4.2\"}},\
         \"trace\":{{\"trace_id\":\"{trace:016x}{number:016x}\",\"span_id\":\"{trace:016x}\",\
         \"request_id\":\"q-{trace:016x}\"}},\"outcome\":{{\"status\":\"success\"}}}}}}",
        minutes = 5 + item % 55,
        key = agent.0 * 7 + home,
        net = agent.0 % 200,
        host = agent.0 % 250,
    );
}

/// What a call is aimed at, and where.
fn target(call: &Call, agent: Agent, item: u64, random: &mut Random, line: &mut String) {
    let (place, account) = (environment(call.place), agent.account(call.place));
    let _ = match (call.operation, call.tool) {
        (Some(operation), _) => {
            let (service, name, kind, _) = operation;
            let request = Request { agent: "", role: "", home: account, account, operation, read_only: true };
            let arn = request.resource(random);
            write!(
                line,
                "\"operation\":\"{service}:{name}\",\"resource\":{{\"type\":\"{kind}\",\"id\":\"{arn}\"}},\
                 \"environment\":\"{place}\",\"account\":\"{account}\",\"region\":\"eu-west-1\",",
            )
        }
        (None, "open_pull_request") => {
            let repository = item % 40;
            write!(
                line,
                r#""resource":{{"id":"https://git.example.com/team/app-{repository}"}},"environment":"shared","#
            )
        }
        (None, "search_logs" | "search_metrics") => {
            write!(line, r#""resource":{{"id":"https://search.example.com/item-{item:03}"}},"environment":"shared","#)
        }
        (None, _) => {
            write!(line, r#""environment":"{place}","cluster":"{place}-{}","namespace":"app-{}","#, item % 3, item % 20)
        }
    };
}
