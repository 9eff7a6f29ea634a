//! A real Kafka broker for the tests, and what they need of a client.

use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

/// Names a broker that runs already, `host:port`; without it the tests start one of their own.
const EXISTING: &str = "TAUTLINE_TEST_BROKER";
const TIMEOUT: Duration = Duration::from_secs(30);

/// The broker's address. The first caller starts it; it goes on until the machine or `scripts/kafka stop` ends it, so
/// that the next run of the tests finds it.
pub(crate) fn address() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        if let Ok(address) = std::env::var(EXISTING) {
            return address;
        }
        let root = env!("CARGO_MANIFEST_DIR");
        // One port a checkout, so that two of them do not get into each other's way.
        let sum = root.bytes().fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(u16::from(byte)));
        let port = (20_000 + sum % 5_000 * 2).to_string();
        let started = Command::new(format!("{root}/scripts/kafka"))
            .args(["start", &format!("{root}/.tools/kafka-test")])
            .env("KAFKA_PORT", &port)
            .output()
            .expect("scripts/kafka runs");
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        format!("127.0.0.1:{port}")
    })
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A name that no other test, and no earlier run, has used.
pub(crate) fn unique(name: &str) -> String {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    format!("{name}-{nanos:x}")
}

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address());
    config
}

pub(crate) fn create_topic(name: &str, partitions: i32, options: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = config().create().unwrap();
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (key, value) in options {
        topic = topic.set(key, value);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let results = runtime.block_on(admin.create_topics([&topic], &options)).unwrap();
    results.into_iter().for_each(|result| drop(result.unwrap()));
}

/// Writes records and waits until the broker has them.
pub(crate) fn produce<'r>(topic: &str, records: impl IntoIterator<Item = (&'r str, &'r [u8])>) {
    produce_at(topic, None, records);
}

/// The same with a time of the producer's own.
pub(crate) fn produce_at<'r>(topic: &str, at: Option<i64>, records: impl IntoIterator<Item = (&'r str, &'r [u8])>) {
    let producer: BaseProducer = config()
        .set("message.max.bytes", "20000000")
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", "500000")
        .create()
        .unwrap();
    for (key, payload) in records {
        let mut record = BaseRecord::to(topic).key(key).payload(payload);
        record.timestamp = at;
        while let Err((_, returned)) = producer.send(record) {
            record = returned;
            producer.poll(Duration::from_millis(20));
        }
    }
    producer.flush(TIMEOUT).unwrap();
}

/// Everything in a topic that was committed, up to its present end.
pub(crate) fn read_committed(topic: &str) -> Vec<Vec<u8>> {
    let consumer: BaseConsumer = config()
        .set("group.id", unique("reader"))
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .set("fetch.message.max.bytes", "20000000")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let partitions = metadata.topics()[0].partitions().len();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, i32::try_from(partition).unwrap(), Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut ended, mut payloads, start) = (0, Vec::new(), Instant::now());
    while ended < partitions {
        assert!(start.elapsed() < TIMEOUT * 2, "`{topic}` cannot be read to its end");
        match consumer.poll(Duration::from_millis(500)) {
            Some(Ok(message)) => payloads.push(message.payload().unwrap_or_default().to_vec()),
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    payloads
}

/// A `tautline run` of its own, killed when dropped.
pub(crate) struct Tautline {
    child: Child,
    http: String,
}

impl Tautline {
    pub(crate) fn start(config: &std::path::Path, http_port: u16) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(config.with_extension("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tautline"))
            .args(["run", "--config"])
            .arg(config)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, http: format!("127.0.0.1:{http_port}") }
    }

    /// SIGKILL: no chance to finish anything.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; returns the exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.child.wait().unwrap().code()
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// The status and body of a page; `None` while nobody answers.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.http).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// The sum of a metric's series whose labels contain `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> f64 {
        let Some((200, text)) = self.get("/metrics") else { return 0.0 };
        text.lines()
            .filter(|line| line.starts_with(name) && line.contains(labels))
            .filter(|line| line[name.len()..].starts_with(['{', ' ']))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Tautline {
    fn drop(&mut self) {
        // Already gone after `kill` and `terminate`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `done`, or panics with what was awaited.
pub(crate) fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
