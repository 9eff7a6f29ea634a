#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice)]

use tautline_detectors::event::{Argument, Principal, Reasoning, Source};

use super::*;
use crate::Reason;

fn redactor(settings: Settings) -> Redactor {
    Redactor::new(b"a key of the tests", settings).unwrap()
}

fn plain() -> Redactor {
    redactor(Settings::default())
}

fn named(names: &[&str]) -> Redactor {
    redactor(Settings { names: names.iter().map(|name| (*name).to_owned()).collect(), ..Settings::default() })
}

/// In parts, so that nobody who scans this repository for secrets finds these.
const SECRETS: &[(&str, &[&str])] = &[
    ("private-key", &["-----BEGIN RSA PRIVATE", " KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE", " KEY-----"]),
    ("private-key", &["-----BEGIN OPENSSH PRIVATE", " KEY-----\nb3BlbnNzaC1rZXktdjEAAAA"]),
    ("jwt", &["eyJhbGciOiJIUzI1NiJ9", ".eyJzdWIiOiIxMjM0NTY3ODkwIn0", ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"]),
    ("github-token", &["ghp", "_16C7e42F292c6912E7710c838347Ae178B4a"]),
    ("github-token", &["github", "_pat_11AAAAAAA0abcdefghijkl_0123456789ABCDEF"]),
    ("gitlab-token", &["glpat", "-x7Yb2KqLmN8pRsT4vWzA"]),
    ("slack-token", &["xoxb", "-123456789012-1234567890123-AbCdEfGhIjKl"]),
    ("google-key", &["AIza", "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY"]),
    ("google-key", &["ya29", ".a0AfH6SMBx7Yb2KqLmN8pRsT4vWz"]),
    ("stripe-key", &["sk", "_live_4eC39HqLyjWDarjtT1zdp7dc"]),
    ("api-key", &["sk-", "proj-Ab3dEf6hIj9kLm2nOp5qRs8tUv"]),
    ("api-key", &["sk-", "ant-api03-Ab3dEf6hIj9kLm2nOp5qRs8tUv"]),
    ("npm-token", &["npm", "_aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hI6"]),
    ("hugging-face-token", &["hf", "_aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"]),
    ("sendgrid-key", &["SG", ".ngeVfQFYQlKU0ufo8x5d1A.TwL2iGABf9DHoTf-09kqeF8tAmbihYzrnopKc-1s5cr"]),
    ("vault-token", &["hvs", ".CAESIJ7Yb2KqLmN8pRsT4vWzAbCdEf"]),
    ("azure-secret", &["abc", "8Q~dEfGhIjKlMnOpQrStUvWxYz0123456_789"]),
    ("aws-secret-key", &["wJalrXUtnFEMI/K7MDENG", "/bPxRfiCYzT3mP1eKQ4"]),
    ("aws-token", &["IQoJb3JpZ2lu", "X2VjEJr//////////wEaCXVzLWVhc3QtMSJHMEUC"]),
];

#[test]
fn secrets_of_known_forms_are_found_wherever_they_stand() {
    for (kind, parts) in SECRETS {
        let secret = parts.concat();
        for text in [secret.clone(), format!("see {secret}"), format!("x={secret}"), format!("\"{secret}\"")] {
            let mut redacted = text.clone();
            plain().rules.redact_text(&mut redacted);
            assert!(redacted.contains("[redacted:"), "{kind}: `{text}` stays");
            assert!(!redacted.contains(&secret), "{kind}: `{redacted}`");
        }
        assert_eq!(secrets::find(&secret)[0].kind, *kind, "{secret}");
    }
}

#[test]
fn what_stands_behind_a_secrets_name_is_redacted() {
    for (text, secret) in [
        ("password=hunter2", "hunter2"),
        ("Server=db;User Id=sa;Password=p4ss word;", "p4ss"),
        ("AccountName=a;AccountKey=abcDEF123==;EndpointSuffix=x", "abcDEF123=="),
        ("Endpoint=sb://x/;SharedAccessKey=Zm9vYmFy=", "Zm9vYmFy="),
        (r#"{"user": "a", "password": "two words"}"#, "two words"),
        (r#"said {"apiKey":"cut off he"#, "cut off he"),
        (r#"it was \"client_secret\": \"q\u0041 r\" then"#, "q"),
        ("db_password: hunter2", "hunter2"),
        ("--token abc123 --verbose", "abc123"),
        ("mysql --password='a b' -h x", "a b"),
        ("Authorization: Bearer abc.def", "abc.def"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("curl -H 'X-Api-Key: 0123abcd' https://x", "0123abcd"),
        ("curl -u admin:s3cret https://x", "s3cret"),
        ("got bearer q7Zz9 from it", "q7Zz9"),
        ("postgres://app:hunter2@db.internal:5432/x", "hunter2"),
        ("amqp://app:p/w?d@mq/x", "p/w?d"),
        ("https://x/y?sig=ab%2Fcd&se=1", "ab%2Fcd"),
        ("the password is hunter2, I think", "hunter2"),
        ("aws_secret_access_key = abc", "abc"),
        ("export PGPASSWORD=hunter2", "hunter2"),
        ("DB_PASS=hunter2", "hunter2"),
        (r#"{"sig": "hunter2", "account_key": 1}"#, "hunter2"),
        ("to=https%3A%2F%2Fapp%3Ahunter2%40host%2F&x=1", "hunter2"),
        ("q=password%253Dhunter2", "hunter2"),
    ] {
        let mut redacted = text.to_owned();
        plain().rules.redact_text(&mut redacted);
        assert!(!redacted.contains(secret) && redacted.contains("[redacted:"), "`{text}` became `{redacted}`");
    }
}

#[test]
fn near_misses_stay() {
    for text in [
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-password-AbCdEf",
        "arn:aws:iam::123456789012:role/aws-service-role/access-analyzer.amazonaws.com/AWSServiceRoleForAccessAnalyzer",
        "arn:aws:sts::123456789012:assumed-role/token-broker/i-0123456789abcdef0",
        "secretsmanager:GetSecretValue",
        "sts:GetSessionToken",
        "secret:Get",
        "AWS::SecretsManager::Secret",
        "AKIAIOSFODNN7EXAMPLE",
        "ASIAIOSFODNN7EXAMPLE",
        "AROAIOSFODNN7EXAMPLE:session",
        "123456789012",
        "6fa459ea-ee8a-3ca4-894e-db77e160355e",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "DA39A3EE5E6B4B0D3255BFEF95601890AFD80709",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "projects/Shop1/secrets/ApiKeyOfTheShop2/Ver",
        "nextToken=abcdef&maxResults=5",
        r#"{"clientRequestToken": "6fa459ea-ee8a"}"#,
        "max_tokens: 100",
        "a bearer token and basic authentication",
        "Basic monitoring is on",
        "the token expired, the password was wrong",
        "https://host:8080/path?mail=a@example.com",
        "https://db.example.com/secrets/token",
        "git@github.com:org/repo.git",
        "task-0123456789abcdefABCDEF0123",
        "disk-Ab3dEf6hIj9kLm2nOp5qRs8",
        "Boto3/1.34 md/Botocore#1.34 ua/2.0 os/linux#6.1 md/arch#x86_64 lang/python#3.12 cfg/retry-mode#standard",
        "[redacted:github-token:0123456789ab]",
        "password=[redacted:password:0123456789ab]",
        "password=\"\"",
        "token: null",
        "my_hf_model",
        "iam:PassRole",
        "bypass: 1, compass=2",
        "s3://bucket/100%25%20of%20it",
        "100% of it",
    ] {
        let mut redacted = text.to_owned();
        plain().rules.redact_text(&mut redacted);
        assert_eq!(redacted, text);
    }
}

#[test]
fn equal_secrets_are_equal_under_one_key_only() {
    let text = |redactor: &Redactor| {
        let mut text = "password=hunter2 and db_password: hunter2".to_owned();
        redactor.rules.redact_text(&mut text);
        text
    };
    let ours = text(&plain());
    assert_eq!(ours, text(&plain()));
    let hashes: Vec<&str> = ours.split("[redacted:").skip(1).map(|rest| &rest[..21]).collect();
    assert_eq!((hashes.len(), hashes[0]), (2, hashes[1]));
    assert_ne!(ours, text(&Redactor::new(b"another", Settings::default()).unwrap()));
}

#[test]
fn names_are_whole_words_in_any_case_and_spelling() {
    let redactor = named(&["Ann", "Anna Maria Øster", "Jörg"]);
    let mut encoded = "to=Anna%20Maria%20%C3%98ster&x".to_owned();
    redactor.rules.redact_text(&mut encoded);
    assert!(encoded.starts_with("to=[redacted:encoded:") && encoded.ends_with("]&x"), "{encoded}");
    for (text, count) in [
        ("ANN did", 1),
        ("asked anna-maria_øster@example.com", 1),
        ("arn:aws:iam::1:user/ann", 1),
        ("JÖRG, ann_and jörg", 3),
        ("Annabel planned Anna's annex", 0),
    ] {
        let mut redacted = text.to_owned();
        redactor.rules.redact_text(&mut redacted);
        assert_eq!(redacted.matches("[redacted:name:").count(), count, "`{text}` became `{redacted}`");
    }
}

fn event(arguments: &[(&str, &str)]) -> Event {
    let argument = |(name, value): &(&str, &str)| Argument {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
        ..Argument::default()
    };
    Event { arguments: arguments.iter().map(argument).collect(), ..Event::default() }
}

fn values(redactor: &mut Redactor, mut event: Event) -> Vec<String> {
    redactor.redact(&mut event, &Registry::default());
    event.arguments.into_iter().map(|argument| argument.value).collect()
}

#[test]
fn arguments_are_redacted_by_name_and_within_json() {
    let found = values(
        &mut named(&["Jörg"]),
        event(&[
            ("masterUserPassword", "hunter2"),
            ("api_key", r#"["a","b"]"#),
            ("nextToken", "hunter2"),
            ("body", r#"{"db": {"password": 12345, "port": 5432}, "token": ["q1", "q2"], "who": "J\u00f6rg"}"#),
            ("text", r#"{"inner": "{\"client_secret\": \"a\\\"b\"}"}"#),
            ("url", r#"{"u": "postgres:\/\/a:hunter2@h"}"#),
            ("secretId", "prod/db"),
        ]),
    );
    let all = found.join("\n");
    for secret in ["12345", "q1", "q2", "rg\"", "a\\", "postgres://a:hunter2"] {
        assert!(!all.contains(secret), "`{secret}` in {all}");
    }
    assert!(found[0].starts_with("[redacted:password:") && found[1].starts_with("[redacted:secret:"), "{all}");
    assert_eq!((found[2].as_str(), found[6].as_str()), ("hunter2", "prod/db"));
    assert!(found[3].contains("5432"), "{all}");
}

/// The literals decide whether anything is looked at, so none of the names may be without.
#[test]
fn every_secrets_name_is_seen_in_every_spelling() {
    for name in
        ["dbPassword", "account_key", "accountKey", "Account-Key", "subscription-key", "sig", "user_data", "smtpPass"]
    {
        let values =
            values(&mut plain(), event(&[(name, "hunter2"), ("body", &format!(r#"{{"{name}": "hunter2"}}"#))]));
        assert!(!values.concat().contains("hunter2"), "{name}: {values:?}");
    }
    for name in secrets::NAMES {
        assert!(secrets::may_hold(format!("{name}\n").as_bytes()), "`{name}` would never be looked at");
    }
}

#[test]
fn what_a_clusters_secret_holds_is_redacted_whatever_its_name() {
    let manifest = r#"{"kind": "Secret", "data": {"cert": "aHVudGVyMg=="}, "type": "Opaque"}"#;
    let found =
        values(&mut plain(), event(&[("kind", "Secret"), ("data", r#"{"cert": "aHVudGVyMg=="}"#), ("body", manifest)]));
    assert!(!found.concat().contains("aHVudGVyMg"), "{found:?}");
    assert!(found[2].contains("Opaque"), "{found:?}");
    let config = r#"{"kind": "ConfigMap", "data": {"cert": "aHVudGVyMg=="}}"#;
    assert_eq!(values(&mut plain(), event(&[("body", config)])), [config]);
}

#[test]
fn half_a_secret_at_the_end_of_a_cut_value_does_not_leave() {
    let mut event = event(&[
        ("x", &format!("{} ghp_16C7", "y ".repeat(507))),
        ("z", &format!("{{\"a\": \"\\u004a{}", "b".repeat(1_010))),
    ]);
    assert!(event.arguments.iter().all(|argument| argument.value.len() >= CUT));
    event.source = Source::Cloudtrail;
    let found = values(&mut plain(), event);
    assert!(found[0].starts_with("y y") && !found[0].contains("ghp_"), "{}", found[0]);
    assert!(found[1].starts_with("[redacted:unreadable:"), "{}", found[1]);
}

#[test]
fn fields_patterns_and_names_are_configured() {
    let settings = Settings {
        fields: vec!["arguments.customer_name".parse().unwrap(), "reasoning.text".parse().unwrap()],
        patterns: vec![("employee".to_owned(), pattern(r"\bE-\d{6}\b").unwrap())],
        names: Vec::new(),
    };
    let mut event = event(&[("customer_name", "Foo"), ("other", "E-123456 of E-1234567")]);
    event.reasoning = Some(Reasoning { text: "because".to_owned(), ..Reasoning::default() });
    let mut redactor = redactor(settings);
    redactor.redact(&mut event, &Registry::default());
    assert!(event.arguments[0].value.starts_with("[redacted:field:"));
    assert!(
        event.arguments[1].value.starts_with("[redacted:employee:") && event.arguments[1].value.ends_with("E-1234567")
    );
    assert!(event.reasoning.as_ref().unwrap().text.starts_with("[redacted:field:"));
    let once = event.clone();
    redactor.redact(&mut event, &Registry::default());
    assert_eq!(event, once, "what is redacted already stays");
    assert!("principal.id".parse::<Field>().unwrap_err().starts_with("unknown field `principal.id`"));
    assert!(pattern("(").unwrap_err().contains("unclosed group"));
}

#[test]
fn an_unregistered_principal_is_redacted_in_its_key_too() {
    let mut event = Event {
        agent: AgentRef::Unregistered("user/ann".to_owned()),
        principal: Principal { id: "user/ann".to_owned(), ..Principal::default() },
        ..Event::default()
    };
    named(&["ann"]).redact(&mut event, &Registry::default());
    assert!(event.agent.key().starts_with("unregistered/user/[redacted:name:"), "{}", event.agent.key());
}

#[test]
fn rejections_quote_words_only() {
    let redactor = named(&["Ann"]);
    for (detail, expected) in [
        ("`data.agent.id` is integer, not a string, at line 1 column 2", None),
        ("`Records[3].userIdentity.arn` is missing", None),
        ("`1999-12-31T23:59:59.999Z` is before `2000-01-01T00:00:00Z`", None),
        ("`type` is `com.example.other`, not `tautline.agent.action.v1`", None),
        ("`time`: `hunter2` is no RFC 3339 time", Some("`time`: `[redacted:input:")),
        ("`data.arguments`: member `a b` twice", Some("`data.arguments`: member `[redacted:input:")),
        ("`data.arguments.Ann.value`: longer than", Some("`data.arguments.[redacted:name:")),
    ] {
        let mut rejection = Rejection::new(Reason::InvalidValue, detail);
        redactor.rules.reject(&mut rejection);
        match expected {
            None => assert_eq!(rejection.detail, detail),
            Some(start) => assert!(rejection.detail.starts_with(start), "{}", rejection.detail),
        }
    }
}

#[test]
fn statements_name_persons_and_hold_no_secrets() {
    let pattern = ("mail".to_owned(), Regex::new(r"[\w.+-]+@[\w.-]+").unwrap());
    let settings = Settings { patterns: vec![pattern], names: vec!["ana".to_owned()], ..Settings::default() };
    let rules = redactor(settings).rules;
    let stated = |parameters: &str| Event {
        statement: Some(format!(
            r#"{{"iss":"i","jti":"j","sub":"ana@example.com","agent":"a","iat":1,"exp":2,"approval":{{"requester":"a",
            "operation":"o","digest":"d","parameters":{parameters}}}}}"#
        )),
        ..Event::default()
    };
    assert!(Token::read(stated("{}").statement.as_deref().unwrap()).is_ok());
    assert!(!Rules::holds_secret_statement(&stated("{}")), "who approved is what it is for");
    assert!(rules.redacted("ana@example.com").is_some(), "elsewhere the settings apply");
    let secret = SECRETS[3].1.concat();
    assert!(Rules::holds_secret_statement(&stated(&format!(r#"{{"token":"{secret}"}}"#))));
    assert!(!Rules::holds_secret_statement(&Event::default()));
}
