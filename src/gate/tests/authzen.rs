//! The examples of the specification, section by section: request in, shape and decision of the answer.

use tautline_detectors::event::AgentRef;

use super::*;

fn alice() -> Value {
    json!({ "type": "user", "id": "alice@example.com" })
}

fn named(name: &str) -> Value {
    json!({ "name": name })
}

fn documents(names: [&str; 3]) -> [Value; 3] {
    names.map(|id| json!({ "type": "document", "id": id }))
}

/// Knows Alice, and lets her at everything but document 2, as the examples' answers have it.
fn as_in_the_examples(book: &Arc<Rulebook>, event: &Event) -> Answer {
    let mut answer = trusting(book, event);
    if event.resource.id == "2" {
        // What is said of a stranger's act: nothing permits it.
        let agent = AgentRef::Unregistered("stranger".to_owned());
        answer.opinion.objections = guardrails(book, &Event { agent, ..event.clone() }).opinion.objections;
    }
    answer
}

/// Requests that are whole, of sections 6.1.1 and 10.1.4, and entities with properties of section 5.
fn single() -> Vec<Value> {
    let context = json!({ "time": "1985-10-26T01:22-07:00" });
    let get = json!({ "name": "can_read", "properties": { "method": "GET" } });
    let department = json!({ "type": "user", "id": "alice@example.com", "properties": { "department": "Sales" } });
    let device = json!({
        "type": "user", "id": "alice@example.com",
        "properties": { "ip_address": "172.217.22.14", "device_id": "8:65:ee:17:7e:0b" },
    });
    let book = json!({
        "type": "book", "id": "123",
        "properties": { "library_record": { "title": "AuthZEN in Action", "isbn": "978-0593383322" } },
    });
    let schema =
        json!({ "time": "1985-10-26T01:22-07:00", "schema": "https://schema.example.com/access-request.schema.json" });
    let loan = json!({ "name": "extend-loan", "properties": { "period": "2W" } });
    vec![
        json!({ "subject": alice(), "resource": { "type": "account", "id": "123" }, "action": get, "context": context }),
        json!({ "subject": alice(), "resource": { "type": "todo", "id": "1" }, "action": named("can_read"), "context": context }),
        json!({ "subject": department, "resource": { "type": "book", "id": "123" }, "action": named("can_read") }),
        json!({ "subject": device, "resource": book, "action": loan, "context": schema }),
    ]
}

#[tokio::test]
async fn a_user_is_no_agent_and_is_denied_with_a_reason() {
    let stand = start(book(false), "", Box::new(trusting)).await;
    for request in single() {
        let answer = stand.ask(&request).await;
        assert!(!decision(&answer), "{answer}");
        assert_eq!(reasons(&answer), ["`alice@example.com` of type `user` is neither an agent nor an identity of one"]);
        assert!(answer["context"]["id"].is_string());
    }
}

#[tokio::test]
async fn single_requests_are_answered_with_a_decision() {
    let stand = start(book(true), "", Box::new(trusting)).await;
    for mut request in single() {
        // Nobody acts in 1985 any more: an agent's time must be one that can be.
        request["context"]["time"] = "2024-05-31T15:22-07:00".into();
        let answer = stand.ask(&request).await;
        assert!(decision(&answer), "{answer}");
        assert_eq!(answer["context"]["time"], "2024-05-31T22:22:00Z", "its time is told");
        assert_eq!(answer["context"]["trust"], 97);
        assert_eq!(answer["context"]["behaviour"], "available");
    }
    let (status, _, text) = stand.post("/access/v1/evaluation", &single()[0]).await;
    assert_eq!(status, 400);
    assert!(text.contains("implausible-time"), "{text}");
}

/// The three ways to write the same three requests, of sections 7.1 and 7.1.1, and how many of them are edits.
fn three_ways() -> [(Value, usize); 3] {
    let context = json!({ "time": "2024-05-31T15:22-07:00" });
    let resources = documents(["boxcarring.md", "subject-search.md", "resource-search.md"]);
    let [first, second, third] = &resources;
    let whole = resources.clone().map(
        |resource| json!({ "subject": alice(), "action": named("can_read"), "resource": resource, "context": context }),
    );
    let with_action = resources.clone().map(|resource| json!({ "action": named("can_read"), "resource": resource }));
    let last = json!({ "action": named("can_edit"), "resource": third });
    let overriding = [json!({ "resource": first }), json!({ "resource": second }), last];
    [
        (json!({ "evaluations": whole }), 0),
        (json!({ "subject": alice(), "context": context, "evaluations": with_action }), 0),
        (json!({ "subject": alice(), "context": context, "action": named("can_read"), "evaluations": overriding }), 1),
    ]
}

#[tokio::test]
async fn defaults_hold_where_an_evaluation_says_nothing() {
    let denies_edits = |book: &Arc<Rulebook>, event: &Event| match event.action.as_str() {
        "can_edit" => as_in_the_examples(book, &Event { resource: resource("2"), ..event.clone() }),
        _ => trusting(book, event),
    };
    let stand = start(book(true), "", Box::new(denies_edits)).await;
    for (request, edits) in three_ways() {
        let answers = stand.ask_all(&request).await;
        let decisions: Vec<bool> = answers.iter().map(decision).collect();
        assert_eq!(decisions, [true, true, edits == 0], "{request}");
        assert!(answers.iter().all(|answer| answer["context"]["time"] == "2024-05-31T22:22:00Z"));
    }
}

fn resource(id: &str) -> tautline_detectors::event::Resource {
    tautline_detectors::event::Resource { id: id.to_owned(), ..Default::default() }
}

/// Section 7.1.2.1: read for three documents, of which the second is denied.
fn three_reads(semantic: Option<&str>) -> Value {
    let evaluations = documents(["1", "2", "3"]).map(|resource| json!({ "resource": resource }));
    let mut request = json!({ "subject": alice(), "action": named("read"), "evaluations": evaluations });
    if let Some(semantic) = semantic {
        request["options"] = json!({ "evaluations_semantic": semantic, "another_option": "value" });
    }
    request
}

#[tokio::test]
async fn each_semantic_ends_where_it_says() {
    let stand = start(book(true), "", Box::new(as_in_the_examples)).await;
    for (semantic, expected) in [
        (None, vec![true, false, true]),
        (Some("execute_all"), vec![true, false, true]),
        (Some("deny_on_first_deny"), vec![true, false]),
        (Some("permit_on_first_permit"), vec![true]),
    ] {
        let answers = stand.ask_all(&three_reads(semantic)).await;
        assert_eq!(answers.iter().map(decision).collect::<Vec<_>>(), expected, "{semantic:?}");
    }
    let (status, _, text) = stand.post("/access/v1/evaluations", &three_reads(Some("some"))).await;
    assert_eq!(status, 400);
    assert!(
        text.contains("evaluations_semantic") && text.contains("`some`") && text.contains("deny_on_first_deny"),
        "{text}"
    );
}

#[tokio::test]
async fn without_evaluations_the_request_is_a_single_one() {
    let stand = start(book(true), "", Box::new(trusting)).await;
    for evaluations in [None, Some(json!([])), Some(Value::Null)] {
        let mut request = lookup();
        if let Some(evaluations) = evaluations {
            request["evaluations"] = evaluations;
        }
        let (status, _, text) = stand.post("/access/v1/evaluations", &request).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status.as_u16(), &answer["decision"]), (200, &json!(true)), "{text}");
        assert!(answer.get("evaluations").is_none());
    }
}

#[tokio::test]
async fn an_error_in_one_evaluation_is_its_own() {
    let stand = start(book(true), "", Box::new(trusting)).await;
    // The example of 7.1.2 lacks an action.
    let example = json!({
        "evaluations": [{ "resource": { "type": "doc", "id": "1" }, "subject": { "type": "doc", "id": "2" } }],
        "options": { "evaluations_semantic": "execute_all", "another_option": "value" },
    });
    let [answer] = stand.ask_all(&example).await.try_into().unwrap();
    assert_eq!((decision(&answer), &answer["context"]["error"]["status"]), (false, &json!(400)));
    assert!(answer["context"]["error"]["message"].as_str().unwrap().contains("`action`"), "{answer}");
    // And in the middle of others, it is where it was, and is a denial.
    let mut request = three_reads(None);
    request["evaluations"][1] = json!("no object");
    let answers = stand.ask_all(&request).await;
    assert_eq!(answers.iter().map(decision).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(answers[1]["context"]["error"]["status"], 400);
    request["options"] = json!({ "evaluations_semantic": "deny_on_first_deny" });
    assert_eq!(stand.ask_all(&request).await.len(), 2, "an error ends it as a denial does");
}

#[tokio::test]
async fn the_metadata_name_what_there_is() {
    let stand = start(book(false), "url = \"https://pdp.example.com/\"", Box::new(trusting)).await;
    let (status, headers, text) = stand.send(Method::GET, "/.well-known/authzen-configuration", &[], "").await;
    assert_eq!((status.as_u16(), headers["content-type"].to_str().unwrap()), (200, "application/json"));
    let expected = json!({
        "policy_decision_point": "https://pdp.example.com",
        "access_evaluation_endpoint": "https://pdp.example.com/access/v1/evaluation",
        "access_evaluations_endpoint": "https://pdp.example.com/access/v1/evaluations",
    });
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected, "no search: it is not offered");
}
