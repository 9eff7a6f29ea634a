//! Asking other instances.

use std::time::Instant;

use super::*;

/// Somebody who knows the agent, and somebody who does not.
fn knows() -> Knows {
    Box::new(|book, event| {
        let mut answer = trusting(book, event);
        answer.opinion.trust = 42.0;
        answer
    })
}

fn ignorant() -> Knows {
    Box::new(|book, event| unknowing(trusting(book, event)))
}

fn asking(peers: &[String], timeout_ms: u64) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peers");
    std::fs::write(&path, TOKEN).unwrap();
    let gate = format!(
        "peers = {peers:?}\npeer_token = {{ file = \"{}\" }}\nforward_timeout_ms = {timeout_ms}\n",
        path.display()
    );
    (directory, gate)
}

fn url(stand: &Stand) -> String {
    format!("http://{}", stand.address)
}

#[tokio::test]
async fn an_instance_that_knows_the_agent_answers() {
    let other = start(book(false), "", knows()).await;
    let third = start(book(false), "", ignorant()).await;
    let (_kept, gate) = asking(&[url(&third), "http://127.0.0.1:1".to_owned(), url(&other)], 10_000);
    let stand = start(book(false), &gate, ignorant()).await;
    let answer = stand.ask(&lookup()).await;
    assert_eq!(
        (&answer["context"]["trust"], &answer["context"]["behaviour"]),
        (&json!(42), &json!("available")),
        "{answer}"
    );
    assert_eq!(answer["context"]["time"], "2026-06-02T09:00:10Z");
    let mut now = lookup();
    now["context"].as_object_mut().unwrap().remove("time");
    now["subject"]["properties"] = json!({ "note": "kept" });
    let answers = stand.ask_all(&json!({ "evaluations": [now, lookup()] })).await;
    assert!(answers.iter().all(|answer| answer["context"]["trust"] == 42), "{answers:?}");
    let mut stranger = lookup();
    stranger["subject"]["id"] = "stranger".into();
    assert!(!decision(&stand.ask(&stranger).await));
    let asked = other.status.metrics.render().unwrap();
    assert!(asked.contains("tautline_gate_requests_total{decision=\"deny\"} 0"), "nobody knows a stranger");
}

#[tokio::test]
async fn where_nobody_knows_the_agent_it_is_said_and_nobody_is_asked_twice() {
    let (_kept, gate) = asking(&["http://127.0.0.1:1".to_owned()], 10_000);
    let dead = start(book(false), &gate, ignorant()).await;
    assert_eq!(dead.ask(&lookup()).await["context"]["behaviour"], "unavailable");
    // Two that name each other, and themselves through one name: each asks once.
    let second = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = second.local_addr().unwrap();
    drop(second);
    let (_kept, gate) = asking(&[format!("http://{address}")], 10_000);
    let first = start(book(false), &gate, ignorant()).await;
    let (_kept, gate) = asking(&[url(&first)], 10_000);
    let second = start_at(address, &gate).await;
    assert_eq!(first.ask(&lookup()).await["context"]["behaviour"], "unavailable");
    let counted = |stand: &Stand| stand.status.metrics.render().unwrap();
    assert!(counted(&first).contains("tautline_gate_requests_total{decision=\"permit\"} 1"), "asked once, by us");
    assert!(
        counted(&second).contains("tautline_gate_requests_total{decision=\"permit\"} 1"),
        "asked once, by the first"
    );
}

/// A gate at an address that another is told before.
async fn start_at(address: SocketAddr, gate: &str) -> Stand {
    let stand = start(book(false), gate, ignorant()).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let to = stand.address;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut through = tokio::net::TcpStream::connect(to).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut through).await });
        }
    });
    stand
}

#[tokio::test]
async fn a_peer_that_does_not_answer_is_not_waited_for() {
    // Accepts, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_kept, gate) = asking(&[format!("http://{}", silent.local_addr().unwrap())], 200);
    let stand = start(book(false), &gate, ignorant()).await;
    let started = Instant::now();
    let answers = stand.ask_all(&json!({ "evaluations": vec![lookup(); 20] })).await;
    assert!(answers.iter().all(|answer| answer["context"]["behaviour"] == "unavailable"));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(3), "once for all: {took:?}");
}
