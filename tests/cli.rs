//! The command line, by the real binary: what it finds, how it says so, and its exit codes.

use std::fs;
use std::io::Write;
use std::process::Output;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{RECORDED, copy, deviations, entries, lines, root, rows, tautline, tautline_in};

/// A directory with a copy of the shipped rules.
struct Site {
    directory: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap() };
        copy(&root().join("rules"), &site.path("rules"));
        site
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.directory.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Adds lines to the end of a file; the number of the first of them.
    fn append(&self, path: &str, text: &str) -> usize {
        let before = fs::read_to_string(self.path(path)).unwrap();
        assert!(before.ends_with('\n'), "{path}");
        self.write(path, &format!("{before}{text}"));
        1 + before.lines().count()
    }

    /// Replaces a text that the file must hold; the number of its line.
    fn edit(&self, path: &str, from: &str, to: &str) -> usize {
        let before = fs::read_to_string(self.path(path)).unwrap();
        let offset = before.find(from).unwrap_or_else(|| panic!("`{path}` does not hold `{from}`"));
        self.write(path, &before.replacen(from, to, 1));
        1 + before[..offset].matches('\n').count()
    }

    /// A control with events, which is fine but for what the caller does to it.
    fn control(&self, name: &str, rest: &str) {
        let head = format!("id = \"{name}\"\ntitle = \"A test\"\nseverity = \"low\"\n");
        self.write(&format!("rules/{name}/control.toml"), &format!("{head}{rest}"));
        for events in ["fires.jsonl", "silent.jsonl"] {
            let source = root().join("rules/reach").join(events);
            fs::copy(source, self.path(&format!("rules/{name}/{events}"))).unwrap();
        }
    }

    fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        tautline_in(self.directory.path(), arguments, b"")
    }

    /// `tautline check`, which must fail: its errors.
    fn faults(&self) -> Vec<String> {
        let output = self.run(["check"]);
        let text = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{text}{}", text_of_errors(&output));
        let (last, errors) = text.lines().collect::<Vec<_>>().split_last().map(|(l, e)| (*l, e.to_vec())).unwrap();
        let errors: Vec<String> = errors.into_iter().map(str::to_owned).collect();
        let count = if errors.len() == 1 { "1 error".to_owned() } else { format!("{} errors", errors.len()) };
        assert_eq!(last, count, "{errors:#?}");
        errors
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn text_of_errors(output: &Output) -> String {
    text(&output.stderr)
}

/// That one of the errors is at this place and says this.
fn assert_named(errors: &[String], place: &str, says: &str) {
    let named = errors.iter().any(|error| error.starts_with(&format!("{place}: ")) && error.contains(says));
    assert!(named, "no error `{place}: …{says}…` among {errors:#?}");
}

fn events(name: &str) -> Vec<Value> {
    rows(name).into_iter().map(|mut row| row["event"].take()).collect()
}

fn replay(arguments: &[&str], input: &[u8]) -> Output {
    let common = ["replay", "--output", "json"];
    tautline(common.into_iter().chain(RECORDED).chain(arguments.iter().copied()), input)
}

#[test]
fn the_shipped_rules_are_good() {
    let output = tautline(["check"], b"");
    let report = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{report}{}", text_of_errors(&output));
    assert!(report.ends_with(": all good\n"), "{report}");
    assert!(!report.contains("warning"), "{report}");
}

#[test]
fn a_check_as_json_has_every_control() {
    let output = tautline(["check", "--output", "json"], b"");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["errors"], serde_json::json!([]));
    assert_eq!(report["rulebook"].as_str().unwrap().len(), 64);
    let folders = entries(&root().join("rules")).into_iter().filter(|path| path.join("control.toml").exists());
    let folders: Vec<String> = folders.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let controls: Vec<&str> =
        report["controls"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap()).collect();
    assert_eq!(controls, folders);
    for control in report["controls"].as_array().unwrap() {
        assert!(control["fires"].as_u64().unwrap() > 0 && control["silent"].as_u64().unwrap() > 0, "{control}");
    }
}

#[test]
fn all_faults_are_named_at_once() {
    let site = Site::new();
    site.control("half-a-policy", "response = \"alert\"\n");
    site.write(
        "rules/half-a-policy/policy.cedar",
        "@id(\"half\")\nforbid (principal, action, resource)\nwhen { context. };\n",
    );
    let attribute = site.append(
        "rules/change-windows/policy.cedar",
        "\n@id(\"typo\")\nforbid (principal, action, resource)\nwhen { context.winow == \"outside\" };\n",
    );
    site.write(
        "rules/example/agents.d/wizards.toml",
        "[agents.wizard-bot]\nclass = \"wizard\"\nowner = \"ana.ruiz@example.com\"\n",
    );
    fs::remove_file(site.path("rules/reach/silent.jsonl")).unwrap();

    let errors = site.faults();
    assert_named(&errors, "rules/half-a-policy/policy.cedar:3", "unexpected token");
    assert_named(&errors, &format!("rules/change-windows/policy.cedar:{}", attribute + 3), "winow");
    assert_named(&errors, "rules/example/agents.d/wizards.toml:2", "wizard");
    assert_named(&errors, "rules/reach/control.toml:1", "silent.jsonl");
    assert_eq!(errors.len(), 4, "{errors:#?}");

    let output = site.run(["check", "--output", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["errors"].as_array().unwrap().len(), 4);
    assert!(report["errors"].as_array().unwrap().iter().all(|e| e["line"].as_u64().unwrap() > 0), "{report}");
    assert_eq!(report["rulebook"], Value::Null);
}

#[test]
fn nothing_starts_with_a_broken_rulebook() {
    let site = Site::new();
    site.edit("rules/reach/policy.cedar", "context.changes", "context.chnages");
    site.write("events.jsonl", "");
    site.write("tautline.toml", "[[sources]]\ntopic = \"audit\"\n");
    for command in [&["replay", "events.jsonl"][..], &["run"], &["demo", "--seconds", "1"]] {
        let output = site.run(command.iter().copied());
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        assert!(text_of_errors(&output).contains("rules/reach/policy.cedar:"), "{}", text_of_errors(&output));
        assert!(text_of_errors(&output).contains("chnages"), "{}", text_of_errors(&output));
    }
}

#[test]
fn wrong_detectors_and_thresholds_are_named() {
    let site = Site::new();
    let detector = |kind: &str, rest: &str| format!("response = \"alert\"\n\n[[detector]]\nkind = \"{kind}\"\n{rest}");
    site.control("a-kind", &detector("rythm", "p_value = 0.01\n"));
    site.control("a-typo", &detector("rhythm", "p_valeu = 0.01\n"));
    site.control("a-gap", &detector("rhythm", ""));
    site.control(
        "a-rate",
        &detector("burst", "least_windows = 3\n[detector.rates]\nrequets = { p_value = 1e-6, least = 5 }\n"),
    );
    site.control("a-space", &detector("novelty", "[detector.dimensions]\ncolour = 0.1\n"));
    site.control("a-revocation", &detector("rhythm", "p_value = 0.01\n").replace("alert", "revoke"));
    site.control("a-response", "response = \"shout\"\n");
    site.control("a-severity", &"response = \"alert\"\nseverity = \"loud\"\n".replace("severity", "severty"));
    site.control("a-name", "response = \"alert\"\n");
    site.edit("rules/a-name/control.toml", "id = \"a-name\"", "id = \"another\"");

    let errors = site.faults();
    assert_named(&errors, "rules/a-kind/control.toml:6", "`rythm` is not a detector");
    assert_named(&errors, "rules/a-typo/control.toml:6", "p_valeu");
    assert_named(&errors, "rules/a-gap/control.toml:6", "p_value");
    assert_named(&errors, "rules/a-rate/control.toml:6", "requets");
    assert_named(&errors, "rules/a-space/control.toml:6", "colour");
    assert_named(&errors, "rules/a-revocation/control.toml:4", "may not revoke by itself");
    assert_named(&errors, "rules/a-response/control.toml:4", "shout");
    assert_named(&errors, "rules/a-severity/control.toml:5", "severty");
    assert_named(&errors, "rules/a-name/control.toml:1", "must be the name of its folder");
    assert_eq!(errors.len(), 9, "{errors:#?}");
}

#[test]
fn events_that_do_not_do_what_they_should_are_named() {
    let site = Site::new();
    let silent = fs::read_to_string(site.path("rules/reach/silent.jsonl")).unwrap();
    let first = silent.lines().next().unwrap();
    let mute = site.append("rules/reach/fires.jsonl", &format!("\n{first}\n"));
    let fires = fs::read_to_string(site.path("rules/reach/fires.jsonl")).unwrap();
    let loud = site.append("rules/reach/silent.jsonl", &format!("\n{}\n", fires.lines().next().unwrap()));
    let garbage = site.append("rules/reach/silent.jsonl", "\n{\"eventVersion\": }\n");
    site.append("rules/change-windows/deviations.snap", "something else\n");
    fs::remove_file(site.path("rules/playbooks/deviations.snap")).unwrap();

    let output = site.run(["check"]);
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stdout);
    let errors: Vec<String> = report.lines().filter(|line| line.starts_with("rules/")).map(str::to_owned).collect();
    assert_named(&errors, &format!("rules/reach/fires.jsonl:{}", mute + 1), "does not deviate");
    assert_named(&errors, &format!("rules/reach/silent.jsonl:{}", loud + 1), "must stay silent");
    assert_named(&errors, &format!("rules/reach/silent.jsonl:{}", garbage + 1), "not-json");
    assert!(errors.iter().any(|error| error.starts_with("rules/change-windows/deviations.snap:")), "{errors:#?}");
    assert_named(&errors, "rules/playbooks/deviations.snap:1", "--bless");
    assert_eq!(errors.len(), 5, "{errors:#?}");
}

#[test]
fn snapshots_are_written_with_bless_and_only_then() {
    let site = Site::new();
    let snapshot = site.path("rules/reach/deviations.snap");
    let shipped = fs::read_to_string(&snapshot).unwrap();
    fs::remove_file(&snapshot).unwrap();
    assert_eq!(site.run(["check"]).status.code(), Some(1));
    assert!(!snapshot.exists());
    assert_eq!(site.run(["check", "--bless"]).status.code(), Some(0));
    assert_eq!(fs::read_to_string(&snapshot).unwrap(), shipped);
    assert_eq!(site.run(["check"]).status.code(), Some(0));
}

#[test]
fn an_uncacheable_policy_is_warned_of() {
    let site = Site::new();
    let line = site.append(
        "rules/reach/policy.cedar",
        "\n@id(\"one-bucket\")\n@message(\"touches the bucket\")\nforbid (principal, action, resource)\n\
         when { resource.id == \"arn:aws:s3:::no-such\" };\n",
    );
    let output = site.run(["check"]);
    let report = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{report}");
    let warning =
        format!("warning: rules/reach/policy.cedar:{}: policy `reach/one-bucket` reads the resource id", line + 1);
    assert!(report.contains(&warning), "{report}");
}

#[test]
fn an_unknown_key_in_the_configuration_is_named() {
    let site = Site::new();
    site.write("tautline.toml", "[kafka]\nbrokers = \"127.0.0.1:9092\"\n\n[log]\ntpoic = \"x\"\n");
    for command in [&["check"][..], &["run"], &["replay", "-"]] {
        let output = site.run(command.iter().copied());
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        let errors = text_of_errors(&output);
        assert!(errors.starts_with("tautline: tautline.toml:5: ") && errors.contains("tpoic"), "{errors}");
    }
}

#[test]
fn paths_of_the_configuration_are_relative_to_it() {
    let site = Site::new();
    let beside = tempfile::tempdir().unwrap();
    site.write("tautline.toml", "[rulebook]\nestate = \"here.toml\"\n");
    let config = site.path("tautline.toml");
    let arguments = ["check", "--config", config.to_str().unwrap()];
    let output = tautline_in(beside.path(), arguments, b"");
    assert_eq!(output.status.code(), Some(1));
    let missing = site.path("here.toml");
    assert!(
        text(&output.stdout).contains(&format!("{}:1: cannot be read", missing.display())),
        "{}",
        text(&output.stdout)
    );
    assert!(!text(&output.stdout).contains("schema"), "the rules are found");
}

#[test]
fn what_a_run_lacks_is_named() {
    let site = Site::new();
    let output = site.run(["run"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text_of_errors(&output).contains("tautline.toml"), "{}", text_of_errors(&output));

    site.write("tautline.toml", "[kafka]\nbatch_records = 0\n[log]\npartitions = 0\n");
    let output = site.run(["run"]);
    assert_eq!(output.status.code(), Some(2));
    let errors = text_of_errors(&output);
    for fault in ["toml:1: no `[[sources]]`", "toml:1: `batch_records`", "toml:3: `log.partitions`"] {
        assert!(errors.contains(fault), "{fault}: {errors}");
    }
}

#[test]
fn a_check_names_what_a_run_would_refuse() {
    let site = Site::new();
    let key = site.path("monitoring.jwk");
    assert!(site.run(["keygen", "elsewhere", key.to_str().unwrap()]).status.success());
    site.write("token", "secret\n");
    let section = |issuer: &str, topic: &str| {
        format!(
            "[[sources]]\ntopic = \"statements\"\nformat = \"statement\"\n[alertmanager]\nissuer = \"{issuer}\"\n\
             topic = \"{topic}\"\ntoken = {{ file = \"token\" }}\nkey = {{ file = \"monitoring.jwk\" }}\n"
        )
    };
    let broken = "[redaction]\ndead_letters = \"encrypted\"\n".to_owned() + &section("https://monitoring", "actions");
    site.write("tautline.toml", &broken);
    for (form, says) in [("table", "3 errors"), ("json", "\"configuration\":[")] {
        let output = site.run(["check", "--output", form]);
        let report = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{report}");
        for fault in [
            "tautline.toml:1: `redaction.dead_letters` is",
            "tautline.toml:6: `alertmanager.topic` is no source of statements",
            "nobody would believe a signal of `https://monitoring`: it comes from an issuer that is not configured",
            says,
        ] {
            assert!(report.replace("\\\"", "\"").contains(fault), "{fault}: {report}");
        }
    }
    site.write("tautline.toml", &section("https://monitoring.example.com", "statements"));
    let report = text(&site.run(["check"]).stdout);
    assert!(report.contains("a key that its issuer does not have"), "{report}");
    assert!(report.contains("\n1 error\n"), "{report}");
}

#[test]
fn what_is_wrong_with_secrets_is_named_and_they_are_not() {
    let site = Site::new();
    site.write(
        "tautline.toml",
        "[kafka.tls]\nkey = \"k.pem\"\n[kafka.sasl]\nmechanism = \"PLAIN\"\nusername = \"a\"\nclient_id = \"b\"\n\
         password = \"hunter2\"\n[redaction]\nkey = 7777\n",
    );
    for command in ["check", "run"] {
        let errors = text_of_errors(&site.run([command]));
        for (line, fault) in [(7, "a secret is not written here"), (9, "a secret is not written here")] {
            let place = format!("tautline.toml:{line}: ");
            assert!(errors.lines().any(|error| error.contains(&place) && error.contains(fault)), "{place}{errors}");
        }
        assert!(!errors.contains("hunter2") && !errors.contains("7777"), "{errors}");
    }
    site.write("key", "hunter2\n");
    site.write(
        "tautline.toml",
        "[kafka.sasl]\nmechanism = \"PLAIN\"\nusername = \"a\"\npassword = { env = \"NOT_SET_HERE\" }\n\
         [redaction]\nkey = { file = \"key\" }\ndead_letter_key = { file = \"absent\" }\n",
    );
    let errors = text_of_errors(&site.run(["run"]));
    for fault in [
        "tautline.toml:4: variable `NOT_SET_HERE` is not set",
        "tautline.toml:6: a key of 7 bytes is too short",
        "tautline.toml:7: cannot read",
        "[[sources]]",
    ] {
        assert!(errors.contains(fault), "{fault}: {errors}");
    }
    assert!(!errors.contains("hunter2"), "{errors}");
}

#[test]
fn a_wrong_command_line_is_no_fault_of_the_events() {
    for arguments in
        [&["replay"][..], &["replay", "--format", "syslog", "-"], &["chek"], &["replay", "no-such-file.jsonl"]]
    {
        let output = tautline(arguments.iter().copied(), b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn garbage_is_named_and_the_rest_is_judged() {
    let stratus = events("stratus");
    let clean = replay(&["-"], lines(&stratus).as_bytes());
    assert_eq!(clean.status.code(), Some(0));
    assert!(deviations(&clean).len() > 20);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.jsonl");
    let mut bytes = b"{ this is no JSON\n\n\xff\xfe\n[]\n{\"eventVersion\": 1}\n".to_vec();
    bytes.extend(lines(&stratus[..100]).bytes());
    bytes.extend(b"{\"Records\": [{\"eventVersion\": \"1.08\"}, 7]}\n");
    bytes.extend(lines(&stratus[100..]).bytes());
    bytes.extend(b"and no end of line");
    fs::write(&path, &bytes).unwrap();
    let path = path.to_str().unwrap();
    let output = replay(&[path], b"");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(deviations(&output), deviations(&clean), "bad records change nothing about the good ones");
    let warnings = text_of_errors(&output);
    let last = 5 + stratus.len() + 2;
    for (line, reason) in
        [(1, "not-json"), (3, "not-utf8"), (4, "empty"), (106, "member 0: "), (106, "member 1: "), (last, "not-json")]
    {
        let named =
            warnings.lines().any(|warning| warning.contains(&format!("{path}:{line}: ")) && warning.contains(reason));
        assert!(named, "{line} {reason}: {warnings}");
    }
    assert!(!warnings.contains(&format!("{path}:2: ")), "a blank line is no record: {warnings}");
    assert!(warnings.contains("142 events") && warnings.contains("7 unreadable"), "{warnings}");
}

#[test]
fn files_standard_input_and_gzip_are_the_same() {
    let text = lines(&events("stratus"));
    let directory = tempfile::tempdir().unwrap();
    let (plain, zipped) = (directory.path().join("events.jsonl"), directory.path().join("events.any"));
    fs::write(&plain, &text).unwrap();
    // Two members, as log files that were joined have them.
    let (first, second) = text.split_at(text.find('\n').unwrap() + 1);
    let bytes = [gzip(first.as_bytes()), gzip(second.as_bytes())].concat();
    fs::write(&zipped, &bytes).unwrap();

    let from_file = replay(&[plain.to_str().unwrap()], b"");
    assert!(deviations(&from_file).len() > 20);
    for (name, output) in [
        ("stdin", replay(&["-"], text.as_bytes())),
        ("gzip", replay(&[zipped.to_str().unwrap()], b"")),
        ("gzip on stdin", replay(&["-"], &bytes)),
        ("windows line ends", replay(&["-"], text.replace('\n', "\r\n").as_bytes())),
    ] {
        assert_eq!(output.status.code(), Some(0), "{name}");
        assert!(output.stdout == from_file.stdout, "{name}");
    }
    // Cut in the middle: what was read is judged, and the fault is an error, not silence.
    let cut = replay(&["-"], &bytes[..bytes.len() / 2]);
    assert_eq!(cut.status.code(), Some(2), "{}", text_of_errors(&cut));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_directory_of_cloudtrails_log_files_is_read_in_the_order_of_their_writing() {
    let events = events("stratus");
    let directory = tempfile::tempdir().unwrap();
    let halves = events.split_at(events.len() / 2);
    // By their names alone the second would come first.
    for (region, time, half) in [("us-east-1", "20260302T0905Z", halves.0), ("eu-west-1", "20260302T0910Z", halves.1)] {
        let folder = directory.path().join(format!("AWSLogs/1/CloudTrail/{region}/2026/03/02"));
        fs::create_dir_all(&folder).unwrap();
        let file = serde_json::json!({ "Records": half }).to_string();
        fs::write(folder.join(format!("1_CloudTrail_{region}_{time}_x.json.gz")), gzip(file.as_bytes())).unwrap();
    }
    fs::write(directory.path().join("notes.txt"), "not a log").unwrap();
    let output = replay(&[directory.path().to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text_of_errors(&output));
    assert!(output.stdout == replay(&["-"], lines(&events).as_bytes()).stdout);
    let empty = tempfile::tempdir().unwrap();
    let output = replay(&[empty.path().to_str().unwrap()], b"");
    assert!(text_of_errors(&output).contains("has no files that end in .json, .jsonl"), "{}", text_of_errors(&output));
}

#[test]
fn a_declared_mapping_reads_what_a_framework_writes() {
    let examples = root().join("examples/mappings.toml");
    let mapping = ["--config", examples.to_str().unwrap(), "--format", "mapping:opencode", "-"];
    let call =
        r#"{"type":"tool_use","timestamp":1772442000125,"sessionID":"ses_1","part":{"callID":"call_1","tool":"bash"}}"#;
    let output = replay(&mapping, format!("{call}\n{{\"type\":\"text\"}}\n").as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", text_of_errors(&output));
    assert!(text_of_errors(&output).contains("0 unreadable, 1 that tell of no request"), "{}", text_of_errors(&output));
    assert!(text(&output.stdout).contains("opencode"));
    let output = replay(&["--format", "mapping:none", "-"], b"");
    assert!(text_of_errors(&output).contains("unknown mapping `none`"), "{}", text_of_errors(&output));
}

#[test]
fn a_replay_as_a_table_has_a_line_for_each_alert() {
    let input = lines(&events("stratus"));
    let alerts = deviations(&replay(&["-"], input.as_bytes()));
    let arguments = ["replay", "--output", "table", "-"];
    let table = text(&tautline(arguments.into_iter().chain(RECORDED), input.as_bytes()).stdout);
    let table: Vec<&str> = table.lines().collect();
    assert_eq!(table.len(), alerts.len() + 2, "a heading, the alerts and the counts");
    for (line, alert) in table[1..].iter().zip(&alerts) {
        assert!(line.contains(&alert.control) && line.contains(alert.severity.name()), "{line}");
        assert!(line.contains(&alert.what), "{line}");
        assert!(!line.contains('\u{1b}'), "no colours where no terminal is");
    }
}

#[test]
fn a_key_is_made_once_and_signs_statements_that_hold_together() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.jwk");
    let path = path.to_str().unwrap();
    let made = tautline(["keygen", "k-1", path], b"");
    let set: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!((&set["keys"][0]["kid"], set["keys"][0].get("d")), (&json!("k-1"), None), "the public half only");
    assert_eq!(tautline(["keygen", "k-2", path], b"").status.code(), Some(2), "no key is overwritten");
    let claims = json!({
        "iss": "i", "jti": "j", "sub": "ana", "agent": "bot", "iat": "2026-03-02T08:00:00Z", "exp": "2026-03-02T09:00:00Z",
        "approval": { "requester": "bot", "operation": "ecs:StopTask" },
    });
    let sign = |claims: &Value| tautline(["sign", "--key", path], claims.to_string().as_bytes());
    let signed = sign(&claims);
    assert_eq!(signed.status.code(), Some(0), "{}", text_of_errors(&signed));
    assert_eq!(text(&signed.stdout).trim().split('.').count(), 3);
    for (name, value, word) in
        [("iat", json!("noon"), "`iat`"), ("approval", json!({ "requester": "bot" }), "`approval`")]
    {
        let mut wrong = claims.clone();
        wrong[name] = value;
        assert!(text_of_errors(&sign(&wrong)).contains(word), "{name}");
    }
    let mut wrong = claims.clone();
    wrong["approval"]["digest"] = json!("sha-256:00");
    assert!(text_of_errors(&sign(&wrong)).contains("digest"));
    assert_eq!(sign(&json!([1])).status.code(), Some(2));
}

#[test]
fn an_alert_is_explained_by_its_id() {
    let output = replay(&["-"], lines(&events("stratus")).as_bytes());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts.jsonl");
    fs::write(&path, &output.stdout).unwrap();
    let path = path.to_str().unwrap();
    let all = deviations(&output);
    let policy = all.iter().find(|deviation| deviation.policy.is_some()).unwrap();
    let statistical = all.iter().find(|deviation| deviation.control == "unexpected-access").unwrap();
    for deviation in [policy, statistical] {
        for (arguments, input) in [(vec!["--alerts", path], &[][..]), (vec![], &output.stdout[..])] {
            let explained = tautline(["explain", deviation.id.as_str()].into_iter().chain(arguments), input);
            assert_eq!(explained.status.code(), Some(0), "{}", text_of_errors(&explained));
            let explained = text(&explained.stdout);
            for part in [
                &deviation.id,
                &deviation.counterfactual,
                &deviation.agent.owner,
                &deviation.rulebook,
                &deviation.control,
            ] {
                assert!(explained.contains(part.as_str()), "{part}: {explained}");
            }
            for evidence in &deviation.evidence {
                assert!(
                    explained.contains(&evidence.observed) && explained.contains(&evidence.expected),
                    "{explained}"
                );
            }
        }
    }
    let explained = text(&tautline(["explain", policy.id.as_str(), "--alerts", path], b"").stdout);
    let reference = policy.policy.as_ref().unwrap();
    assert!(explained.contains(&format!("{}:{}", reference.path, reference.line)), "{explained}");
    assert!(explained.contains("forbid (principal, action, resource)"), "the policy's own text: {explained}");

    let json = tautline(["explain", policy.id.as_str(), "--alerts", path, "--output", "json"], b"");
    let again: tautline_detectors::deviation::Deviation = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(again.id, policy.id);

    let missing = tautline(["explain", "reach/no-such-event/0", "--alerts", path], b"");
    assert_eq!(missing.status.code(), Some(2));
    assert!(text_of_errors(&missing).contains("no alert `reach/no-such-event/0`"), "{}", text_of_errors(&missing));
    let which = tautline(["explain", "--alerts", path], b"");
    assert_eq!(which.status.code(), Some(2), "more than one alert and no id");
    let only = output.stdout.split_inclusive(|byte| *byte == b'\n').next().unwrap();
    assert_eq!(tautline(["explain"], only).status.code(), Some(0), "one alert needs no id");
    let other = tautline(["explain"], b"{\"class_uid\": 2004}\n");
    assert_eq!(other.status.code(), Some(2));
    assert!(text_of_errors(&other).contains("-:1"), "{}", text_of_errors(&other));
}

#[test]
fn no_output_holds_what_an_agent_was_told() {
    let secret = "hunter2-which-nobody-may-see";
    let action = serde_json::json!({
        "specversion": "1.0", "type": "tautline.agent.action.v1", "id": "1", "source": "test",
        "time": "2026-03-03T10:00:00Z",
        "data": {
            "agent": { "id": "nobody-knows" }, "tool": "shell", "arguments": { "password": { "value": secret } },
            "reasoning": { "text": secret }, "outcome": { "status": "success" },
        },
    });
    for form in ["json", "table"] {
        let output = tautline(["replay", "--output", form, "-"], format!("{action}\n").as_bytes());
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("nobody-knows"), "it is an alert");
        assert!(!text(&output.stdout).contains(secret) && !text_of_errors(&output).contains(secret));
    }
}

#[test]
fn an_exception_that_is_over_is_named_and_what_one_hides_is_counted() {
    let site = Site::new();
    let exception = |until: &str| {
        format!(
            "longest = \"9999d\"\n[exceptions.once]\ncontrol = \"agent-classes\"\nagent = \"triage-bot\"\noperations = [\"*\"]\n\
             by = \"mei.chen@example.com\"\nwhy = \"a drill\"\nsince = \"2020-01-01T00:00:00Z\"\nuntil = \"{until}\"\n"
        )
    };
    site.write("rules/example/exceptions.toml", &exception("2021-01-01T00:00:00Z"));
    let report = text(&site.run(["check"]).stdout).to_owned();
    assert!(report.contains("warning: exception `once` of `mei.chen@example.com` is over: delete it"), "{report}");
    site.write("rules/example/exceptions.toml", &exception("2040-01-01T00:00:00Z"));
    let report = text(&site.run(["check"]).stdout).to_owned();
    assert!(!report.contains("is over"), "{report}");
    let change = json!({
        "specversion": "1.0", "type": "tautline.agent.action.v1", "id": "e-1", "source": "tests",
        "time": "2026-03-02T09:00:00Z",
        "data": {
            "agent": { "id": "triage-bot" }, "tool": "aws_cli", "operation": "ecs:UpdateService", "verb": "write",
            "account": "222222222222",
        },
    });
    site.write("events.jsonl", &change.to_string());
    let output = site.run(["replay", "events.jsonl", "--output", "json"]);
    assert!(text_of_errors(&output).contains(", 1 expected or found on trial"), "{}", text_of_errors(&output));
    assert!(!text(&output.stdout).contains("agent-classes/"), "{}", text(&output.stdout));
}
