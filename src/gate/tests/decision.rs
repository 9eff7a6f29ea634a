//! What is decided of what is known.

use tautline_detectors::engine::{Engine, Input};
use tautline_ingest::Format;

use super::*;
use crate::signing;

/// One who holds the agent of a question in quarantine, by a person's word.
fn holding(book: &Arc<Rulebook>, event: &Event) -> Answer {
    let claims = json!({
        "iss": "https://console.example.com", "jti": "q-1", "sub": "mei.chen@example.com", "iat": 1_780_390_800,
        "exp": 1_780_394_400, "agent": event.agent.registered(), "quarantine": { "reason": "odd" },
    });
    let set = |file: &RuleFile| {
        let is_set = file.name.starts_with("registry/issuers/");
        let keys = is_set.then(|| signing::example_keys(&file.text)).flatten();
        RuleFile { text: keys.unwrap_or_else(|| file.text.clone()), ..file.clone() }
    };
    let book = Arc::new(Rulebook::read(book.files().iter().map(set).collect()).unwrap());
    let line = signing::example_line(&json!({ "sign": ["console-1"], "claims": claims }).to_string()).unwrap();
    let mut redactor = redaction::of_examples().unwrap();
    let read = redactor.read(line.as_bytes(), &Format::Statement.into(), 1_780_390_900_000, &book);
    let mut engine = Engine::new(Arc::clone(&book));
    read.into_iter().for_each(|said| drop(engine.step(&Input::Event(Box::new(said.unwrap())))));
    Answer { opinion: engine.ask(event), ..knowing(&book, event) }
}

#[tokio::test]
async fn a_broken_policy_denies_and_says_why_without_contents() {
    let stand = start(book(false), "", Box::new(knowing)).await;
    let answer = stand.ask(&deletion()).await;
    assert!(!decision(&answer));
    let reasons = answer["context"]["reasons"].as_array().unwrap();
    let reach = reasons.iter().find(|reason| reason["control"] == "environment-boundaries").expect("a reason of it");
    for member in ["severity", "what", "policy", "counterfactual"] {
        assert!(!reach[member].as_str().unwrap().is_empty(), "{reach}");
    }
    assert_eq!(answer["context"]["rulebook"], book(false).hash());
    assert!(!answer["context"]["reasons"].to_string().contains("vol-1"), "no arguments");
    assert!(!answer.to_string().contains("secret plan"), "no reasoning");
    let permitted = stand.ask(&lookup()).await;
    assert!(decision(&permitted), "{permitted}");
    assert_eq!(permitted["context"]["reasons"], json!([]));
}

#[tokio::test]
async fn what_does_not_deny_is_advice() {
    let knows = |book: &Arc<Rulebook>, event: &Event| {
        let mut answer = knowing(book, event);
        answer.opinion.objections.iter_mut().for_each(|objection| objection.denies = false);
        answer
    };
    let answer = start(book(false), "", Box::new(knows)).await.ask(&deletion()).await;
    assert!(decision(&answer), "{answer}");
    assert_eq!(answer["context"]["reasons"], json!([]));
    assert!(answer["context"]["advice"].as_array().unwrap().len() > 1);
}

#[tokio::test]
async fn in_quarantine_an_agent_may_only_look() {
    let stand = start(book(false), "", Box::new(holding)).await;
    let mut act = lookup();
    assert!(decision(&stand.ask(&act).await), "a read");
    for verb in ["write", "execute", "propose", "permission_change"] {
        act["action"]["properties"]["verb"] = verb.into();
        let answer = stand.ask(&act).await;
        assert!(!decision(&answer), "{verb}");
        let expected = "the agent is in quarantine since 2026-06-02T09:00:00Z, by mei.chen@example.com: odd";
        assert_eq!(reasons(&answer)[0], expected);
        let expected = json!({ "since": "2026-06-02T09:00:00Z", "by": "mei.chen@example.com", "reason": "odd" });
        assert_eq!(answer["context"]["quarantine"], expected);
    }
    let mut read = lookup();
    read["action"]["name"] = "a_tool_of_others".into();
    assert!(!decision(&stand.ask(&read).await), "a read that a policy forbids");
}

/// Asks, in an environment, with a verb, somebody who knows nothing but that nothing is forbidden.
async fn unknown(gate: &str, account: &str, verb: &str) -> Value {
    let knows = |book: &Arc<Rulebook>, event: &Event| unknowing(trusting(book, event));
    let stand = start(book(false), gate, Box::new(knows)).await;
    let mut request = lookup();
    request["action"]["name"] = "custom_tool".into();
    request["action"]["properties"]["verb"] = verb.into();
    request["resource"]["properties"] = json!({ "account": account });
    stand.ask(&request).await
}

#[tokio::test]
async fn what_nobody_knows_is_closed_for_changes_of_production() {
    let (production, staging, unmapped) = ("111111111111", "222222222222", "999999999999");
    for (gate, account, verb, expected) in [
        ("", production, "read", true),
        ("", production, "propose", true),
        ("", production, "write", false),
        ("", production, "execute", false),
        ("", unmapped, "write", false),
        ("", staging, "write", true),
        ("unavailable = \"closed\"", staging, "read", false),
        ("unavailable = \"open\"", production, "write", true),
    ] {
        let answer = unknown(gate, account, verb).await;
        assert_eq!(decision(&answer), expected, "{gate} {account} {verb}: {answer}");
        assert_eq!(answer["context"]["behaviour"], "unavailable");
        assert_eq!(answer["context"].get("trust"), None);
        assert_eq!(expected, reasons(&answer).is_empty());
    }
}

#[tokio::test]
async fn an_act_without_its_approval_names_it() {
    let found = |book: &Arc<Rulebook>, event: &Event| {
        let opinion = Engine::new(Arc::clone(book)).ask(event);
        Answer { opinion, ..knowing(book, event) }
    };
    let stand = start(book(false), "", Box::new(found)).await;
    let answer = stand.ask(&deletion()).await;
    assert!(!decision(&answer));
    let approval = &answer["context"]["approval"];
    let expected = json!({ "VolumeId": "vol-1", "Force": true });
    assert_eq!((&approval["operation"], &approval["resource"]), (&json!("ec2:DeleteVolume"), &json!("vol-1")));
    assert_eq!((&approval["parameters"], &approval["requester"]), (&expected, &json!("deploy-bot")));
    assert_eq!((&approval["people"], &approval["irreversible"]), (&json!(2), &json!(true)));
    let stated: tautline_detectors::statement::Approval = serde_json::from_value(approval.clone()).unwrap();
    assert_eq!(stated.digest, stated.digest(), "it can be signed as it is");
    let other = start(book(false), "", Box::new(knowing)).await.ask(&deletion()).await;
    assert_eq!(other["context"].get("approval"), None, "an approval would not clear what policies forbid");
    let blind = start(book(false), "unavailable = \"open\"", Box::new(guardrails)).await.ask(&deletion()).await;
    assert_eq!(blind["context"]["approval"]["people"], 2, "it may lack one: nobody can say");
    assert!(blind["context"]["advice"].to_string().contains("needs an approval"), "{blind}");
}

#[tokio::test]
async fn an_answer_says_what_it_rests_on() {
    let knows = |book: &Arc<Rulebook>, event: &Event| {
        let position = Position { topic: "tautline.events".to_owned(), partition: 3, offset: 812 };
        let mut answer = Answer { position: Some(position), ..knowing(book, event) };
        answer.opinion.state = LearningState::Learning;
        answer
    };
    let stand = start(book(false), "", Box::new(knows)).await;
    let context = stand.ask(&lookup()).await["context"].take();
    assert_eq!(context["position"], json!({ "topic": "tautline.events", "partition": 3, "offset": 812 }));
    assert_eq!((&context["behaviour"], &context["trust"]), (&json!("learning"), &json!(97)));
}

#[tokio::test]
async fn who_is_in_no_registry_is_denied_even_where_no_policy_is_against_it() {
    let stand = start(book(false), "", Box::new(trusting)).await;
    let mut request = lookup();
    request["subject"]["id"] = "stranger".into();
    assert_eq!(reasons(&stand.ask(&request).await), ["`stranger` is no agent of the registry"]);
}

#[tokio::test]
async fn a_secret_that_is_asked_with_does_not_come_back() {
    let stand = start(book(false), "", Box::new(guardrails)).await;
    let mut request = deletion();
    request["action"]["properties"]["parameters"]["password"] = "hunter2-hunter2".into();
    let answer = stand.ask(&request).await;
    let password = &answer["context"]["approval"]["parameters"]["password"];
    assert!(password.as_str().unwrap().starts_with("[redacted:"), "{answer}");
    assert!(!answer.to_string().contains("hunter2"), "{answer}");
}
