//! Ways to the broker: TLS, SASL, and what is said where there is none.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::broker::{SecureBroker, Tautline, wait_for};
use crate::e2e::{LONG, Stand};

const USER: &str = "tautline";
const PASSWORD: &str = "not-seen-in-any-log";
const WRONG_PASSWORD: &str = "neither-is-a-wrong-one";
const KEY_PASSWORD: &str = "nor-is-this-one";

/// Certificates of an authority, and of a broker and a client that it knows.
struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        let all = Self { directory: tempfile::tempdir().unwrap() };
        all.openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca");
        all.signed("broker", "subjectAltName=IP:127.0.0.1");
        all.signed("client", "extendedKeyUsage=clientAuth");
        all.openssl(&format!("pkcs8 -topk8 -v2 aes256 -in client.key -out client.enc -passout pass:{KEY_PASSWORD}"));
        let read = |name: &str| fs::read_to_string(all.path(name)).unwrap();
        fs::write(all.path("keystore.pem"), read("broker.key") + &read("broker.pem")).unwrap();
        all
    }

    fn signed(&self, name: &str, extension: &str) {
        fs::write(self.path("extension"), extension).unwrap();
        self.openssl(&format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        let by = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extension";
        self.openssl(&format!("x509 -req -in {name}.csr -out {name}.pem {by}"));
    }

    fn openssl(&self, arguments: &str) {
        let command = Command::new("openssl").args(arguments.split(' ')).current_dir(self.directory.path()).output();
        let output = command.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Has a stand's configuration reach another address in another way.
fn by(stand: &Stand, address: &str, how: &str) {
    let text = fs::read_to_string(stand.config()).unwrap();
    let (_, rest) = text.split_once("[[sources]]").unwrap();
    let kafka = format!("[kafka]\nbrokers = \"{address}\"\ngroup = \"{}\"\n{how}", stand.name);
    fs::write(stand.config(), format!("{kafka}[[sources]]{rest}")).unwrap();
}

fn is_ready(tautline: &Tautline) -> bool {
    tautline.get("/readyz").is_some_and(|(status, _)| status == 200)
}

fn becomes_ready(stand: &Stand, address: &str, how: &str) {
    by(stand, address, how);
    let tautline = stand.start_with(&[("KAFKA_PASSWORD", PASSWORD), ("KEY_PASSWORD", KEY_PASSWORD)]);
    wait_for(how, LONG, || is_ready(&tautline));
    assert_eq!(tautline.terminate(), Some(0));
}

/// It waits, says why, and neither ends nor hurries.
fn is_refused(stand: &Stand, tautline: &Tautline, before: usize, why: &str) {
    let failures = || -> Vec<String> {
        let log = stand.log();
        log[before..].lines().filter(|line| line.contains("will start anew")).map(str::to_owned).collect()
    };
    wait_for(why, LONG, || failures().iter().filter(|line| line.contains(why)).count() >= 4);
    let waits: BTreeSet<String> =
        failures().iter().map(|line| line.split("wait=").last().unwrap().to_owned()).collect();
    assert!(waits.len() >= 2, "no later and later: {:#?}", failures());
    assert_eq!(tautline.get("/readyz").unwrap().0, 503);
    assert_eq!(tautline.get("/healthz").unwrap().0, 200);
}

fn sasl(mechanism: &str) -> String {
    let password = "password = { env = \"KAFKA_PASSWORD\" }";
    format!("[kafka.sasl]\nmechanism = \"{mechanism}\"\nusername = \"{USER}\"\n{password}\n")
}

fn tls(ca: &Path) -> String {
    format!("[kafka.tls]\nca = \"{}\"\n", ca.display())
}

#[test]
fn it_is_let_in_by_password_and_by_certificate_and_waits_where_it_is_not() {
    let certificates = Certificates::new();
    let ca = certificates.path("ca.pem");
    let secure = SecureBroker::start(&certificates.path("keystore.pem"), &ca, USER, PASSWORD);
    let stand = Stand::on(&secure.broker, "secure", "[log]\ntick_seconds = 1\n");

    becomes_ready(&stand, &secure.sasl, &sasl("SCRAM-SHA-512"));
    becomes_ready(&stand, &secure.sasl_tls, &(tls(&ca) + &sasl("SCRAM-SHA-256")));
    becomes_ready(&stand, &secure.sasl_tls, &(tls(&ca) + &sasl("PLAIN")));
    let certificate = format!(
        "{}certificate = \"{}\"\nkey = \"{}\"\nkey_password = {{ env = \"KEY_PASSWORD\" }}\n",
        tls(&ca),
        certificates.path("client.pem").display(),
        certificates.path("client.enc").display()
    );
    becomes_ready(&stand, &secure.tls, &certificate);

    let authority = Certificates::new();
    by(&stand, &secure.sasl_tls, &(tls(&authority.path("ca.pem")) + &sasl("SCRAM-SHA-512")));
    let before = stand.log().len();
    let tautline = stand.start_with(&[("KAFKA_PASSWORD", PASSWORD)]);
    is_refused(&stand, &tautline, before, "certificate verify failed");
    assert_eq!(tautline.terminate(), Some(0));

    #[cfg(feature = "oidc")]
    is_let_in_by_token(&stand, &secure, &ca);
    it_recovers(&stand, &secure, &ca);
    let log = stand.log();
    for secret in [PASSWORD, KEY_PASSWORD, WRONG_PASSWORD] {
        assert!(!log.contains(secret), "`{secret}` is in the log");
    }
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log does not tell everything");
}

/// When the password becomes right, and when the broker comes back: without a restart of the process.
fn it_recovers(stand: &Stand, secure: &SecureBroker, ca: &Path) {
    let file = stand.directory.path().join("password");
    fs::write(&file, WRONG_PASSWORD).unwrap();
    let from_file = sasl("SCRAM-SHA-512").replace("{ env = \"KAFKA_PASSWORD\" }", "{ file = \"password\" }");
    by(stand, &secure.sasl_tls, &(tls(ca) + &from_file));
    let before = stand.log().len();
    let tautline = stand.start_with(&[("TAUTLINE_LOG", "trace")]);
    is_refused(stand, &tautline, before, "uthentication failed");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    wait_for("the right password", LONG, || is_ready(&tautline));

    let before = stand.log().len();
    secure.stop();
    is_refused(stand, &tautline, before, "Connection refused");
    secure.start_again();
    wait_for("the broker's return", LONG, || is_ready(&tautline));
    assert_eq!(tautline.terminate(), Some(0));
}

/// An issuer of tokens, as far as a broker in development wants one.
#[cfg(feature = "oidc")]
fn issuer() -> String {
    use base64::Engine as _;
    use std::io::{BufRead, BufReader, Read, Write};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            let (mut reader, mut length) = (BufReader::new(stream.try_clone().unwrap()), 0);
            for line in reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()) {
                length = line.to_lowercase().strip_prefix("content-length: ").map_or(length, |n| n.parse().unwrap());
            }
            std::io::copy(&mut reader.take(length), &mut std::io::sink()).unwrap();
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            let part = |json: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json);
            let claims = format!("{{\"sub\":\"{USER}\",\"iat\":{now},\"exp\":{}}}", now + 3_600);
            let token = format!("{}.{}.", part("{\"alg\":\"none\"}".to_owned()), part(claims));
            let body = format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":3600}}");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
            write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}").unwrap();
        }
    });
    format!("http://{address}/token")
}

#[cfg(feature = "oidc")]
fn is_let_in_by_token(stand: &Stand, secure: &SecureBroker, ca: &Path) {
    let sasl = format!(
        "[kafka.sasl]\nmechanism = \"OAUTHBEARER\"\ntoken_url = \"{}\"\nclient_id = \"tautline\"\n\
         client_secret = {{ env = \"KAFKA_PASSWORD\" }}\n",
        issuer()
    );
    becomes_ready(stand, &secure.sasl_tls, &(tls(ca) + &sasl));
}

#[test]
fn a_source_that_is_not_there_yet_is_named_and_awaited() {
    let stand = Stand::new("absent", "");
    let config = fs::read_to_string(stand.config()).unwrap();
    let (source, absent) = (stand.topic("source"), stand.topic("absent"));
    fs::write(stand.config(), config.replace(&source, &absent)).unwrap();
    let tautline = stand.start();
    wait_for("a clear error", LONG, || stand.log().contains(&absent));
    assert_eq!(tautline.get("/readyz").unwrap().0, 503);
    stand.broker.create_topic(&absent, 1, &[]);
    wait_for("readiness", LONG, || is_ready(&tautline));
    assert_eq!(tautline.terminate(), Some(0));
}
