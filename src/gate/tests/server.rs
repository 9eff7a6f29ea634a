//! Who is let in, what is refused, and how it is said.

use super::super::command::{Target, is_permit, offline, write};
use super::*;
use clap::Parser;

const ASK: &str = "/access/v1/evaluation";

#[tokio::test]
async fn who_is_not_known_is_told_how_to_be() {
    let stand = start(book(false), "", Box::new(trusting)).await;
    let json = ("content-type", "application/json");
    for authorization in [None, Some("Bearer wrong"), Some("Basic YTpi"), Some("Bearer"), Some("")] {
        let headers: Vec<_> = authorization.map(|value| ("authorization", value)).into_iter().chain([json]).collect();
        let (status, headers, text) = stand.send(Method::POST, ASK, &headers, lookup().to_string()).await;
        assert_eq!(status, 401, "{authorization:?}: {text}");
        assert_eq!(headers["www-authenticate"], "Bearer realm=\"tautline\"");
    }
    let lower = format!("bearer {TOKEN}");
    let headers = [("authorization", lower.as_str()), json];
    assert_eq!(stand.send(Method::POST, ASK, &headers, lookup().to_string()).await.0, 200, "a scheme has no case");
    assert!(
        stand.status.metrics.render().unwrap().contains("tautline_gate_refused_total{reason=\"unauthenticated\"} 5")
    );
}

#[tokio::test]
async fn a_client_asks_about_its_own_agents_only() {
    let stand = start(book(false), "", Box::new(trusting)).await;
    assert_eq!(stand.post_as(NARROW, ASK, &lookup()).await.0, 200);
    let (status, _, text) = stand.post_as(NARROW, ASK, &deletion()).await;
    assert_eq!((status.as_u16(), text.as_str()), (403, "client `one` may not ask about agent `deploy-bot`"));
    let mut by_identity = deletion();
    by_identity["subject"] = json!({ "type": "user", "id": "arn:aws:iam::222222222222:role/deploy-bot" });
    assert_eq!(stand.post_as(NARROW, ASK, &by_identity).await.0, 403, "nor under its other names");
    let batch = json!({ "evaluations": [lookup(), deletion()] });
    let (status, _, text) = stand.post_as(NARROW, "/access/v1/evaluations", &batch).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 200);
    assert_eq!(answer["evaluations"][0]["decision"], true);
    assert_eq!(answer["evaluations"][1]["context"]["error"]["status"], 403);
}

#[tokio::test]
async fn what_is_malformed_is_said() {
    let stand = start(book(false), "", Box::new(trusting)).await;
    let token = format!("Bearer {TOKEN}");
    let send = async |path: &str, content_type: &str, body: String| {
        let headers = [("authorization", token.as_str()), ("content-type", content_type), ("x-request-id", "r-1")];
        let (status, headers, text) = stand.send(Method::POST, path, &headers, body).await;
        assert_eq!(headers["x-request-id"], "r-1", "on errors too");
        assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
        (status.as_u16(), text)
    };
    let json = "application/json";
    let lacking = |name: &str| {
        let mut request = lookup();
        request.as_object_mut().unwrap().remove(name);
        request.to_string()
    };
    for (content_type, body, says) in [
        ("text/plain", lookup().to_string(), "`text/plain`"),
        (json, "{".to_owned(), "not JSON"),
        (json, "[]".to_owned(), "not an evaluation request"),
        (json, lacking("subject"), "`subject`"),
        (json, lacking("action"), "`action`"),
        (json, lacking("resource"), "`resource`"),
        (
            json,
            r#"{"subject":{"type":"agent"},"action":{"name":"x"},"resource":{"type":"","id":""}}"#.to_owned(),
            "`id`",
        ),
        (json, "[".repeat(100_000), "recursion limit"),
    ] {
        let (status, text) = send(ASK, content_type, body).await;
        assert!(status == 400 && text.contains(says), "{says}: {status} {text}");
    }
    let many = json!({ "evaluations": vec![lookup(); 101] });
    let (status, text) = send("/access/v1/evaluations", json, many.to_string()).await;
    assert_eq!((status, text.as_str()), (400, "`evaluations` has 101 members, more than 100: send several requests"));
    let (status, text) = send(ASK, json, " ".repeat(1_100_000)).await;
    assert_eq!((status, text.as_str()), (413, "the request has more than 1048576 bytes"));
    assert_eq!(send("/access/v1/search/subject", json, String::new()).await.0, 404, "no search is offered");
    let (status, headers, _) = stand.send(Method::GET, ASK, &[], "").await;
    assert_eq!((status.as_u16(), headers["allow"].to_str().unwrap()), (405, "POST"));
}

#[tokio::test]
async fn a_request_has_its_id_back_and_is_counted() {
    let stand = start(book(false), "", Box::new(knowing)).await;
    let token = format!("Bearer {TOKEN}");
    let headers = [
        ("authorization", token.as_str()),
        ("content-type", "application/json; charset=utf-8"),
        ("x-request-id", "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"),
    ];
    let (status, headers, text) = stand.send(Method::POST, ASK, &headers, lookup().to_string()).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 200);
    assert_eq!(headers["x-request-id"], "bfe9eb29-ab87-4ca3-be83-a1d5d8305716");
    assert_eq!(answer["context"]["id"], "bfe9eb29-ab87-4ca3-be83-a1d5d8305716");
    stand.ask_all(&json!({ "evaluations": [deletion(), lookup(), {}] })).await;
    let metrics = stand.status.metrics.render().unwrap();
    for line in [
        "tautline_gate_requests_total{decision=\"permit\"} 2",
        "tautline_gate_requests_total{decision=\"deny\"} 1",
        "tautline_gate_requests_total{decision=\"error\"} 1",
        "tautline_gate_duration_seconds_count 2",
    ] {
        assert!(metrics.lines().any(|told| told == line), "{line}");
    }
}

#[tokio::test]
async fn the_same_question_at_the_same_time_has_the_same_answer() {
    let stand = start(book(false), "", Box::new(knowing)).await;
    let token = format!("Bearer {TOKEN}");
    let headers = [("authorization", token.as_str()), ("content-type", "application/json"), ("x-request-id", "r")];
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..20 {
        told.insert(stand.send(Method::POST, ASK, &headers, deletion().to_string()).await.2);
    }
    assert_eq!(told.len(), 1, "asking teaches nobody anything: {told:?}");
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("few"), "0123456789abcdef-few").unwrap();
    let few = format!(
        "[[gate.client]]\nname = \"few\"\ntoken = {{ file = \"{}\" }}\nagents = [\"*\"]\nrequests_per_second = 3\n",
        directory.path().join("few").display()
    );
    let stand = start(book(false), &few, Box::new(trusting)).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let (status, headers, _) = stand.post_as("0123456789abcdef-few", ASK, &lookup()).await;
        assert_eq!(status == 429, headers.contains_key("retry-after"));
        statuses.push(status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(stand.post(ASK, &lookup()).await.0, 200, "another client is none the worse");
}

#[test]
fn a_configuration_that_cannot_be_is_refused_with_every_fault() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tautline.toml");
    let faults = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let error =
            Config::read(&path, true).map(|_| "nothing is wrong".to_owned()).unwrap_or_else(|error| error.to_string());
        error.replace(&format!("{}:", path.display()), "")
    };
    let client = "[[gate.client]]\nname = \"ci\"\ntoken = { env = \"X\" }\nagents = [\"*\"]\n";
    assert_eq!(faults(&format!("[gate]\n{client}")), "nothing is wrong");
    assert!(faults("[gate]\n").contains("nobody may ask the gate"));
    let told = faults(
        "[gate]\nlisten = \"0.0.0.0:9465\"\nurl = \"http://pdp.example.com\"\npeers = [\n\"https://a:1?x\",\n\"ftp://b\"]\n\
         [[gate.client]]\nname = \"ci\"\nagents = []\n[[gate.client]]\nname = \"ci\"\ncertificate = \"a\"\nagents = []\n",
    );
    for fault in [
        "2: `0.0.0.0:9465` is no loopback address",
        "3: `http://pdp.example.com` is not `https://",
        "5: `https://a:1?x` has more than",
        "6: `ftp://b` is not `https://",
        "5: peers let nobody in",
        "7: client `ci` needs either a `token` or a `certificate`",
        "10: client `ci` has a `certificate`: set `gate.tls.client_ca`",
        "10: client `ci` is there twice",
    ] {
        assert!(told.lines().any(|line| line.starts_with(fault)), "no `{fault}` in\n{told}");
    }
    assert!(faults("[gate]\nlisten = 7\n").starts_with("2: "));
    assert!(faults(&format!("[gate]\nunavailable = \"maybe\"\n{client}")).contains("production-writes-closed"));
    let inline = faults("[[gate.client]]\nname = \"ci\"\ntoken = \"secret\"\nagents = []\n");
    assert!(inline.contains("3: a secret is not written here") && !inline.contains("\"secret\""), "{inline}");
}

#[test]
fn a_token_that_cannot_be_told_from_others_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let token = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("[[gate.client]]\nname = \"{name}\"\ntoken = {{ file = \"{}\" }}\nagents = []\n", path.display())
    };
    let gate = configured(&(token("a", TOKEN) + &token("b", TOKEN) + &token("c", "short")));
    std::fs::remove_file(directory.path().join("a")).unwrap();
    let told = super::super::check(&gate).join("\n");
    assert!(told.contains("cannot read") && told.contains("a key of 5 bytes is too short"), "{told}");
    std::fs::write(directory.path().join("a"), TOKEN).unwrap();
    assert!(super::super::check(&gate).join("\n").contains("clients `a` and `b` have one token"));
}

#[tokio::test]
async fn an_id_that_is_none_is_given_back_and_not_used() {
    let stand = start(book(false), "", Box::new(trusting)).await;
    let token = format!("Bearer {TOKEN}");
    for id in ["", &"x".repeat(5_000)] {
        let headers = [("authorization", token.as_str()), ("content-type", "application/json"), ("x-request-id", id)];
        let (status, headers, text) = stand.send(Method::POST, ASK, &headers, lookup().to_string()).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status.as_u16(), headers["x-request-id"].to_str().unwrap()), (200, id));
        assert_eq!(answer["context"]["id"].as_str().unwrap().len(), 32, "{answer}");
    }
}

#[test]
fn the_example_of_the_configuration_is_one() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tautline.example.toml")).unwrap();
    let (_, gate) = text.split_once("# [gate]\n").unwrap();
    let (gate, _) = gate.split_once("\n[revocation]").unwrap();
    let is_setting =
        |line: &&str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let lines: Vec<&str> = gate.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_setting).collect();
    let gate = configured(&format!("[gate]\n{}\n", lines.join("\n")));
    assert_eq!((gate.clients.len(), gate.peers.len(), gate.identifier().as_str()), (2, 1, "https://gate.example.com"));
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    target: Target,
}

#[tokio::test]
async fn the_command_line_asks_a_running_gate() {
    let stand = start(book(false), "", Box::new(knowing)).await;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let url = format!("http://{}", stand.address);
    let line = Line::parse_from(["gate", "--url", &url, "--token-file", token.to_str().unwrap()]);
    let read = |path: &Path| Ok(std::fs::read_to_string(path)?);
    let asked = tokio::task::spawn_blocking(move || line.target.ask(&deletion(), read)).await.unwrap().unwrap();
    assert!(!is_permit(&asked));
    let mut text = Vec::new();
    write(&asked, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("deny (behaviour available, trust 97, rulebook "), "{text}");
    assert!(text.contains("critical environment-boundaries: ") && text.contains("would comply: "), "{text}");
    let line = Line::parse_from(["gate", "--url", &url]);
    let refused = tokio::task::spawn_blocking(move || line.target.ask(&deletion(), read)).await.unwrap();
    assert!(format!("{:#}", refused.unwrap_err()).contains("it answers 401"));
}

#[test]
fn offline_the_policies_alone_decide() {
    let book = book(false);
    let redactor = || redaction::of_examples().unwrap();
    assert!(is_permit(&offline(lookup(), &book, redactor()).unwrap()));
    let denied = offline(deletion(), &book, redactor()).unwrap();
    assert!(!is_permit(&denied));
    assert_eq!(denied["context"]["behaviour"], "unavailable");
    let nobody = json!({ "subject": { "type": "user", "id": "alice" }, "action": { "name": "x" }, "resource": { "type": "", "id": "" } });
    assert!(!is_permit(&offline(nobody, &book, redactor()).unwrap()));
    assert!(offline(json!({}), &book, redactor()).unwrap_err().to_string().contains("`subject`"));
}
