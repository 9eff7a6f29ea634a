//! A real Kafka broker for the tests, and what they need of a client.

use std::path::Path;
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

/// A broker, by its address.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) address: String,
}

/// The broker that most tests share. The first caller starts it; it goes on until the machine or `scripts/kafka stop`
/// ends it, so that the next run of the tests finds it.
pub(crate) fn shared() -> &'static Broker {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(|| match std::env::var(EXISTING) {
        Ok(address) => Broker { address },
        Err(_) => script("start", "kafka-test", port(20_000)),
    })
}

/// One port a checkout, so that two of them do not get into each other's way; the broker also takes the next one.
fn port(first: u16) -> u16 {
    let sum =
        env!("CARGO_MANIFEST_DIR").bytes().fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(u16::from(byte)));
    first + sum % 5_000 * 2
}

/// Runs a command of `scripts/kafka` for the broker of a directory in `.tools`.
fn script(command: &str, directory: &str, port: u16) -> Broker {
    script_with(command, directory, port, &[])
}

fn script_with(command: &str, directory: &str, port: u16, settings: &[(&str, &str)]) -> Broker {
    let root = env!("CARGO_MANIFEST_DIR");
    let output = Command::new(format!("{root}/scripts/kafka"))
        .args([command, &format!("{root}/.tools/{directory}")])
        .env("KAFKA_PORT", port.to_string())
        .envs(settings.iter().copied())
        .output()
        .expect("scripts/kafka runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Broker { address: format!("127.0.0.1:{port}") }
}

/// A broker of one test alone, which may stop it; gone with all that it keeps when dropped.
pub(crate) struct OwnBroker {
    pub(crate) broker: Broker,
}

impl OwnBroker {
    const DIRECTORY: &str = "kafka-own";
    const PORTS: u16 = 10_000;

    pub(crate) fn start() -> Self {
        // What a run that was broken off has left.
        script("wipe", Self::DIRECTORY, port(Self::PORTS));
        Self { broker: script("start", Self::DIRECTORY, port(Self::PORTS)) }
    }

    /// Stops it and, after a while, starts it again.
    pub(crate) fn restart(&self, after: Duration) {
        script("stop", Self::DIRECTORY, port(Self::PORTS));
        std::thread::sleep(after);
        script("start", Self::DIRECTORY, port(Self::PORTS));
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        script("wipe", Self::DIRECTORY, port(Self::PORTS));
    }
}

/// A broker with listeners for those who prove who they are, beside its plain one; gone when dropped.
pub(crate) struct SecureBroker {
    pub(crate) broker: Broker,
    /// By password or token, without TLS.
    pub(crate) sasl: String,
    /// By password or token, within TLS.
    pub(crate) sasl_tls: String,
    /// By certificate.
    pub(crate) tls: String,
    settings: Vec<(&'static str, String)>,
}

impl SecureBroker {
    const DIRECTORY: &str = "kafka-secure";
    const PORTS: u16 = 5_000;

    /// Starts it with its key and certificate and the certificate that it trusts (PEM), and one user.
    pub(crate) fn start(keystore: &Path, ca: &Path, user: &str, password: &str) -> Self {
        script("wipe", Self::DIRECTORY, port(Self::PORTS));
        // All three are held until all are known: no two may be the same.
        let free = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [sasl, sasl_tls, tls] = free.map(|listener| listener.local_addr().unwrap().to_string());
        let security = "org.apache.kafka.common.security";
        let mut properties = format!(
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\nssl.keystore.type=PEM\n\
             ssl.keystore.location={}\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
             listener.name.ssl.ssl.client.auth=required\n",
            keystore.display(),
            ca.display()
        );
        for listener in ["listener.name.sasl_plaintext", "listener.name.sasl_ssl"] {
            for (mechanism, module) in [
                ("scram-sha-256", "scram.ScramLoginModule required".to_owned()),
                ("scram-sha-512", "scram.ScramLoginModule required".to_owned()),
                (
                    "oauthbearer",
                    "oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"a\"".to_owned(),
                ),
                ("plain", format!("plain.PlainLoginModule required user_{user}=\"{password}\"")),
            ] {
                properties += &format!("{listener}.{mechanism}.sasl.jaas.config={security}.{module};\n");
            }
        }
        let file = keystore.with_file_name("listeners.properties");
        std::fs::write(&file, properties).unwrap();
        let settings = vec![
            ("KAFKA_LISTENERS", format!("SASL_PLAINTEXT://{sasl},SASL_SSL://{sasl_tls},SSL://{tls}")),
            ("KAFKA_PROPERTIES", file.to_str().unwrap().to_owned()),
            ("KAFKA_SCRAM", format!("[name={user},password={password}]")),
        ];
        let broker = Broker { address: format!("127.0.0.1:{}", port(Self::PORTS)) };
        let secure = Self { broker, sasl, sasl_tls, tls, settings };
        secure.script("start");
        secure
    }

    fn script(&self, command: &str) {
        let settings: Vec<_> = self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        script_with(command, Self::DIRECTORY, port(Self::PORTS), &settings);
    }

    pub(crate) fn stop(&self) {
        self.script("stop");
    }

    pub(crate) fn start_again(&self) {
        self.script("start");
    }
}

impl Drop for SecureBroker {
    fn drop(&mut self) {
        script("wipe", Self::DIRECTORY, port(Self::PORTS));
    }
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

impl Broker {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    pub(crate) fn create_topic(&self, name: &str, partitions: i32, options: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in options {
            topic = topic.set(key, value);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        let results = runtime.block_on(admin.create_topics([&topic], &options)).unwrap();
        results.into_iter().for_each(|result| drop(result.unwrap()));
    }

    /// Writes records, where wanted with a time of the producer's own, and waits until the broker has them.
    pub(crate) fn produce_at<'r>(
        &self,
        topic: &str,
        at: Option<i64>,
        records: impl IntoIterator<Item = (&'r str, &'r [u8])>,
    ) {
        let producer: BaseProducer = self
            .config()
            .set("message.max.bytes", "20000000")
            .set("compression.type", "lz4")
            // Else what is sent again to a broker that has just come back may overtake what was sent before it.
            .set("enable.idempotence", "true")
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
    pub(crate) fn read_committed(&self, topic: &str) -> Vec<Vec<u8>> {
        self.read_partitions(topic).into_iter().map(|(_, payload)| payload).collect()
    }

    /// The same, each with the number of its partition.
    pub(crate) fn read_partitions(&self, topic: &str) -> Vec<(i32, Vec<u8>)> {
        let consumer: BaseConsumer = self
            .config()
            .set("group.id", unique("reader"))
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .set("fetch.message.max.bytes", "20000000")
            .create()
            .unwrap();
        let list = every_partition(&consumer, topic, Offset::Beginning);
        consumer.assign(&list).unwrap();
        let (mut ended, mut payloads, start) = (0, Vec::new(), Instant::now());
        while ended < list.count() {
            assert!(start.elapsed() < TIMEOUT * 2, "`{topic}` cannot be read to its end");
            match consumer.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => {
                    payloads.push((message.partition(), message.payload().unwrap_or_default().to_vec()));
                }
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(error)) => panic!("{error}"),
                None => {}
            }
        }
        payloads
    }

    /// A reader of a topic from its beginning, of what was committed.
    pub(crate) fn reader(&self, topic: &str) -> BaseConsumer {
        let mut config = self.config();
        config.set("group.id", unique("reader")).set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.set("enable.auto.commit", "false").create().unwrap();
        consumer.assign(&every_partition(&consumer, topic, Offset::Beginning)).unwrap();
        consumer
    }

    /// Deletes the first so many records of every partition that has them.
    pub(crate) fn delete_records(&self, topic: &str, records: i64) {
        let consumer: BaseConsumer = self.config().create().unwrap();
        let mut list = TopicPartitionList::new();
        for element in every_partition(&consumer, topic, Offset::Invalid).elements() {
            let (begins, ends) = consumer.fetch_watermarks(topic, element.partition(), TIMEOUT).unwrap();
            let offset = Offset::Offset(ends.min(begins + records));
            list.add_partition_offset(topic, element.partition(), offset).unwrap();
        }
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let deleted = runtime.block_on(admin.delete_records(&list, &AdminOptions::new())).unwrap();
        deleted.elements().iter().for_each(|element| element.error().unwrap());
    }

    /// Deletes a group with all its offsets.
    pub(crate) fn delete_group(&self, group: &str) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let deleted = runtime.block_on(admin.delete_groups(&[group], &AdminOptions::new())).unwrap();
        deleted.into_iter().for_each(|result| drop(result.unwrap()));
    }

    /// Commits offsets of a topic for a group that nobody is in, as an administrator does.
    pub(crate) fn reset(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) {
        let consumer: BaseConsumer = self.config().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).unwrap();
        }
        consumer.commit(&list, rdkafka::consumer::CommitMode::Sync).unwrap();
    }

    /// The sum of the offsets that a group has committed of a topic, as far as the broker says at the moment.
    pub(crate) fn committed(&self, group: &str, topic: &str) -> i64 {
        let consumer: BaseConsumer = self.config().set("group.id", group).create().unwrap();
        let committed = consumer.committed_offsets(every_partition(&consumer, topic, Offset::Invalid), TIMEOUT);
        let offsets = committed.iter().flat_map(TopicPartitionList::elements);
        offsets.filter_map(|element| element.offset().to_raw()).map(|offset| offset.max(0)).sum()
    }
}

/// Writes records to the shared broker and waits until it has them.
pub(crate) fn produce<'r>(topic: &str, records: impl IntoIterator<Item = (&'r str, &'r [u8])>) {
    shared().produce_at(topic, None, records);
}

/// Everything in a topic of the shared broker that was committed, up to its present end.
pub(crate) fn read_committed(topic: &str) -> Vec<Vec<u8>> {
    shared().read_committed(topic)
}

fn every_partition(consumer: &BaseConsumer, topic: &str, offset: Offset) -> TopicPartitionList {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        list.add_partition_offset(topic, partition.id(), offset).unwrap();
    }
    list
}

/// A `tautline run` of its own, killed when dropped.
pub(crate) struct Tautline {
    child: Child,
    http: String,
}

impl Tautline {
    pub(crate) fn start(config: &Path, http_port: u16) -> Self {
        Self::start_with(config, http_port, &[])
    }

    /// The same with variables of the environment.
    pub(crate) fn start_with(config: &Path, http_port: u16, variables: &[(&str, &str)]) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(config.with_extension("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tautline"))
            .args(["run", "--config"])
            .arg(config)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
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
        self.ask(&format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
    }

    /// The status and body of the answer to what is sent with a bearer token.
    pub(crate) fn post(&self, path: &str, token: &str, body: &str) -> Option<(u16, String)> {
        let head = format!("POST {path} HTTP/1.0\r\nAuthorization: Bearer {token}\r\nContent-Length: {}", body.len());
        self.ask(&format!("{head}\r\n\r\n{body}"))
    }

    fn ask(&self, request: &str) -> Option<(u16, String)> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.http).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
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
