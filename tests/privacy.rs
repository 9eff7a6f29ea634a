//! Nothing secret leaves memory: planted secrets and names, in every field of good records and in bad ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};
use tautline_detectors::event::Source;
use tautline_ingest::log::LogRecord;
use tautline_ingest::{Format, decode};

use crate::broker::{produce, read_committed, wait_for};
use crate::e2e::{LONG, Stand};
use crate::support::text;

/// How many secrets and names are planted, and how many kinds of them there are.
const PLANTED: usize = 200;
const KINDS: usize = 20;
/// What is planted as they are and is no secret: it must be found, or nothing that is not found says anything.
const CONTROL: &str = "harmless-7f3a9c";
const KEY: &str = "a key for the dead letters of this test";

/// What is planted: how it stands in a text, and what of it must not be seen anywhere.
struct Plant {
    text: String,
    secret: String,
}

/// Letters and digits that look random and are the same in every run.
fn letters(seed: usize, length: usize) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHJKMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789";
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % ALPHABET.len() as u64).unwrap()
    };
    (0..length).map(|_| char::from(ALPHABET[next()])).collect()
}

/// The `number`th. What has a form of its own is put together here, so that nobody who looks for secrets finds them.
fn plant(number: usize) -> Plant {
    let random = |length| letters(number, length);
    let (of, itself) = (|text: String, secret: String| Plant { text, secret }, |text: String| plain(&text));
    let with = |before: &str, length, after: &str| of(format!("{before}{}{after}", random(length)), random(length));
    match number % KINDS {
        0..4 => itself(name(number)),
        4 => itself(mail(number)),
        5 => itself(format!("ghp{}{}", "_", random(36))),
        6 => itself(format!("eyJ{}.eyJ{}.{}", random(20), random(40), random(43))),
        7 => itself(format!("sk-{}-{}7aB", "proj", random(40))),
        8 => itself(format!("sk-{}-{}7aB", "ant-api03", random(80))),
        9 => itself(format!("xoxb{}{}", "-", random(40))),
        10 => itself(format!("AIza{}", random(35))),
        11 => itself(format!("sk{}{}", "_live_", random(24))),
        12 => itself(random(40)),
        13 => itself(format!("{}8Q~{}", random(3), random(34))),
        14 => with(
            &format!("-----BEGIN RSA PRIVATE {}-----\\n", "KEY"),
            64,
            &format!("\\n-----END RSA PRIVATE {}-----", "KEY"),
        ),
        15 => with("authorization: Bearer ", 30, "1bX"),
        16 => with("postgres://app:", 16, "@db.internal:5432/ledger"),
        17 => with("https://a.blob.core.windows.net/c?sv=1&sig=", 40, "&se=2"),
        18 => with("password=", 12, ""),
        _ => with("db_secret=", 24, ""),
    }
}

fn plain(text: &str) -> Plant {
    Plant { text: text.to_owned(), secret: text.to_owned() }
}

fn mail(number: usize) -> String {
    format!("{}@corp.example", letters(number, 10).to_lowercase())
}

/// A made-up name of a person, with a letter that JSON may escape.
fn name(number: usize) -> String {
    let word = |seed| {
        let letters = letters(seed, 9).to_lowercase().replace(|c: char| c.is_ascii_digit(), "e");
        format!("{}{}", letters[..1].to_uppercase(), &letters[1..])
    };
    format!("{}ø {}", word(number), word(number + 1_000))
}

/// Pointers to all texts of a document.
fn texts(value: &Value, here: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, member)| {
            texts(member, &format!("{here}/{}", name.replace('~', "~0").replace('/', "~1")), out);
        }),
        Value::Array(elements) => {
            elements.iter().enumerate().for_each(|(index, element)| texts(element, &format!("{here}/{index}"), out));
        }
        Value::String(_) => out.push(here.to_owned()),
        _ => {}
    }
}

/// An action with every text that its decoder reads, and records of every other format.
fn templates() -> Vec<Value> {
    let schema: Value = serde_json::from_str(&text("schemas/agent-action.v1.schema.json")).unwrap();
    let mut action = schema["examples"][0].clone();
    action["data"]["outcome"] = json!({ "status": "failed", "reason": "because" });
    action["data"]["reasoning"] = json!({ "text": "so", "reference": "there" });
    action["data"]["trace"] = json!({ "trace_id": "a", "span_id": "b", "request_id": "c" });
    action["data"]["agent"]["on_behalf_of"] = json!(["user/a", "user/b"]);
    let mut templates = vec![action];
    for format in ["cloudtrail", "gcp", "kubernetes", "azure", "github", "ocsf_pairs", "mcp"] {
        let records = text(&format!("ingest/testdata/{format}.jsonl"));
        let records = records.lines().map(|line| serde_json::from_str(line).unwrap());
        templates.extend(records.map(|record: Value| record.get("ocsf").cloned().unwrap_or(record)));
    }
    templates.extend(spans());
    templates
}

/// OpenTelemetry's spans of tools, each in a batch of its own.
fn spans() -> Vec<Value> {
    let batch: Value = serde_json::from_str(&text("ingest/testdata/otlp.json")).unwrap();
    let resource = &batch["resourceSpans"][0]["resource"];
    let scopes = batch["resourceSpans"][0]["scopeSpans"].as_array().unwrap().iter();
    let spans = scopes.flat_map(|scope| scope["spans"].as_array().unwrap());
    let tools = spans.filter(|span| span["attributes"].to_string().contains("gen_ai.tool.name"));
    let alone = |span| json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "spans": [span] }] }] });
    tools.map(alone).collect()
}

/// A message of OpenTelemetry's as protobuf, of the same in JSON: the member `parent` of another.
fn protobuf(parent: &str, message: &Value) -> Vec<u8> {
    let members = message.as_object().unwrap().iter();
    let fields = members.flat_map(|(name, value)| {
        let number = match (parent, name.as_str()) {
            ("resource", "attributes") => 1,
            (_, "resourceSpans" | "resource" | "traceId" | "key" | "stringValue" | "values") => 1,
            (_, "scopeSpans" | "spans" | "spanId" | "value" | "boolValue" | "message") => 2,
            (_, "intValue" | "code") => 3,
            (_, "name" | "arrayValue") => 5,
            (_, "kind" | "kvlistValue") => 6,
            (_, "startTimeUnixNano") => 7,
            (_, "endTimeUnixNano") => 8,
            (_, "attributes") => 9,
            (_, "status") => 15,
            _ => return Vec::new(),
        };
        let bytes = |bytes: &[u8]| [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat();
        match value {
            Value::Array(list) => list.iter().flat_map(|inner| bytes(&protobuf(name, inner))).collect(),
            Value::Object(_) => bytes(&protobuf(name, value)),
            Value::String(text) => match text.parse::<u64>() {
                Ok(time) if name.ends_with("Nano") => [varint(number << 3 | 1), time.to_le_bytes().to_vec()].concat(),
                Ok(count) if name == "intValue" => [varint(number << 3), varint(count)].concat(),
                _ => match u128::from_str_radix(text, 16) {
                    Ok(id) if name.ends_with("Id") => bytes(&id.to_be_bytes()[16 - text.len() / 2..]),
                    _ => bytes(text.as_bytes()),
                },
            },
            other => [varint(number << 3), varint(other.as_u64().unwrap_or(1))].concat(),
        }
    });
    fields.collect()
}

fn varint(number: u64) -> Vec<u8> {
    let low = u8::try_from(number & 0x7f).unwrap();
    if number < 0x80 { vec![low] } else { [vec![low | 0x80], varint(number >> 7)].concat() }
}

/// The fields that the mapping of this test reads under their own names.
const MAPPED: [&str; 24] = [
    "id",
    "agent",
    "tool",
    "operation",
    "resource_type",
    "resource",
    "environment",
    "account",
    "region",
    "cluster",
    "namespace",
    "session",
    "playbook",
    "run",
    "identity",
    "credential",
    "approval",
    "reasoning",
    "trace_id",
    "span_id",
    "request_id",
    "address",
    "user_agent",
    "reason",
];

/// A source whose records are read by that mapping.
fn mapped_source(topic: &str) -> String {
    let fields: String = MAPPED.iter().map(|name| format!("{name} = \"./{name}\"\n")).collect();
    format!(
        "[[sources]]\ntopic = \"{topic}\"\nformat = \"mapping:crew\"\n\
         [[mappings]]\nname = \"crew\"\neach = \"/calls/*\"\ntime = \"/at\"\narguments = \"./arguments\"\n\
         on_behalf_of = [\"./for\"]\noutcome = {{ pointer = \"./ok\", words = {{ no = \"failed\" }} }}\n{fields}"
    )
}

fn mapped_template() -> Value {
    let mut call =
        json!({ "ok": "no", "for": ["dana", "lead"], "arguments": { "where": "here", "list": ["a", { "b": "c" }] } });
    for name in MAPPED {
        call[name] = json!(format!("some-{name}"));
    }
    json!({ "at": "2026-03-02T09:00:00Z", "calls": [call] })
}

/// A template with every `step`th plant in each of its fields, alone or in a sentence.
fn planted(template: &Value, first: usize, step: usize, plants: &[Plant]) -> Vec<Value> {
    let (mut pointers, mut records) = (Vec::new(), Vec::new());
    texts(template, "", &mut pointers);
    for (field, pointer) in pointers.iter().enumerate() {
        for (number, plant) in plants.iter().enumerate().skip((field + first) % step).step_by(step) {
            let mut record = template.clone();
            let text = if number % 2 == 0 { plant.text.clone() } else { format!("see {} there", plant.text) };
            *record.pointer_mut(pointer).unwrap() = json!(text);
            records.push(record);
        }
    }
    records
}

/// Records with each plant in every field of an action, and with each kind of them in every field of the others; some of
/// each once more in what may lie around a record; and records that cannot be read.
fn records(plants: &[Plant]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    for (which, template) in templates().iter().enumerate() {
        for record in planted(template, which, if which == 0 { 1 } else { 9 }, plants) {
            records.push(record.to_string().into_bytes());
            if record.get("resourceSpans").is_some() {
                records.push(protobuf("", &record));
            }
        }
    }
    plants.iter().for_each(|plant| records.extend(awkward(plant)));
    wrapped(&mut records);
    records
}

/// Records that the mapping reads.
fn mapped(plants: &[Plant]) -> Vec<Vec<u8>> {
    let records = planted(&mapped_template(), 0, 3, plants);
    let mut records: Vec<_> = records.iter().map(|record| record.to_string().into_bytes()).collect();
    wrapped(&mut records);
    records
}

fn gzip(record: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(record).unwrap();
    encoder.finish().unwrap()
}

/// Behind the header of a schema registry.
fn framed(record: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, 7], record].concat()
}

/// Adds some of the records again: compressed, and behind the header of a schema registry.
fn wrapped(records: &mut Vec<Vec<u8>>) {
    let chosen: Vec<Vec<u8>> = records.iter().step_by(13).cloned().collect();
    records.extend(chosen.iter().enumerate().map(|(number, record)| match number % 4 {
        0 => gzip(record),
        1 => compress_to_vec(record.as_slice(), CompressionLevel::Fastest),
        2 => framed(record),
        _ => framed(&gzip(record)),
    }));
}

/// Records with a plant that are damaged, too long, of a wrong type, cut, escaped, encoded, or have it where a name should
/// be.
fn awkward(plant: &Plant) -> Vec<Vec<u8>> {
    let templates = templates();
    let text = plant.text.as_str();
    let (mut long, mut wrong, mut named) = (templates[0].clone(), templates[0].clone(), templates[0].clone());
    long["data"]["tool"] = json!(format!("{text} {}", "x".repeat(3_000)));
    wrong["data"]["verb"] = json!({ text: text });
    named["data"]["arguments"] = json!({ text: { "value": { "inner": text }, "origin": text } });
    let mut nested = templates[1].clone();
    let body = json!({ "deep": [{ "text": json!({ "inner": text }).to_string() }], text: 1 });
    nested["requestParameters"] = json!({ "body": body, "long": format!("{} {text}", "y".repeat(1_010)) });
    let mut escaped = templates[0].clone();
    let value = json!({ "who": text }).to_string().replace('ø', "\\u00f8");
    let manifest = json!({ "kind": "Secret", "data": { "any": STANDARD.encode(text) } });
    escaped["data"]["arguments"] = json!({
        "body": { "value": value },
        "to": { "value": format!("https://example.com/?to={}", percent(text)) },
        "userData": { "value": STANDARD.encode(text) },
        "manifest": { "value": manifest },
    });
    let whole = templates[1].to_string().replace("us-east-1", &json!(text).to_string().replace('"', ""));
    let json = [long, wrong, named, nested, escaped].map(|record| record.to_string().into_bytes());
    let damaged =
        [text.as_bytes().to_vec(), whole.as_bytes()[..whole.len() - 5].to_vec(), [text.as_bytes(), b"\xff"].concat()];
    json.into_iter().chain(damaged).collect()
}

fn percent(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// How a text may look in what was written: as it is, escaped, percent-encoded, and within base64 at any place.
fn forms(text: &str) -> Vec<String> {
    let bare = json!(text).to_string();
    let mut forms =
        vec![text.to_owned(), bare.trim_matches('"').to_owned(), text.replace('ø', "\\u00f8"), percent(text)];
    forms.push(percent(text).replace("%20", "+"));
    for before in 0..3 {
        let shifted = [vec![0; before], text.as_bytes().to_vec()].concat();
        for base64 in [STANDARD.encode(&shifted), URL_SAFE.encode(&shifted)] {
            // What only the text decides.
            forms.push(base64[(before * 8).div_ceil(6)..shifted.len() * 8 / 6].to_owned());
        }
    }
    forms
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// What left memory, by where it went.
fn everything(stand: &Stand, pages: [String; 2]) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for topic in ["alerts", "revocations", "dead", "events"] {
        let records = read_committed(&stand.topic(topic));
        all.extend(records.into_iter().map(|record| (topic.to_owned(), record)));
    }
    let mut paths = Vec::new();
    files(stand.directory.path(), &mut paths);
    // The configuration is ours: it names the names.
    paths.retain(|path| !path.ends_with("tautline.toml"));
    all.extend(paths.iter().map(|path| (path.display().to_string(), fs::read(path).unwrap())));
    all.extend(pages.map(|page| ("a page".to_owned(), page.into_bytes())));
    all
}

/// Where plants are seen, and which.
fn seen<'p>(all: &[(String, Vec<u8>)], plants: &'p [Plant]) -> Vec<(String, &'p str)> {
    let forms =
        plants.iter().map(|plant| forms(&plant.secret).into_iter().map(move |form| (form, plant.secret.as_str())));
    let (forms, secrets): (Vec<String>, Vec<&str>) = forms.flatten().unzip();
    let finder = aho_corasick::AhoCorasick::new(forms).unwrap();
    let mut seen = Vec::new();
    for (place, bytes) in all {
        for found in finder.find_overlapping_iter(bytes) {
            let around = &bytes[found.start().saturating_sub(100)..(found.end() + 40).min(bytes.len())];
            let place = format!("{place}: {}", String::from_utf8_lossy(around));
            seen.push((place, secrets[found.pattern().as_usize()]));
        }
    }
    seen
}

fn must_not_hold(all: &[(String, Vec<u8>)], plants: &[Plant]) {
    let leaks = seen(all, plants);
    let by_secret: BTreeMap<&str, &str> = leaks.iter().map(|(place, secret)| (*secret, place.as_str())).collect();
    let shown: Vec<&str> = by_secret.values().take(40).copied().collect();
    assert!(leaks.is_empty(), "{} leaks of {} secrets:\n{}", leaks.len(), by_secret.len(), shown.join("\n"));
}

/// Everything that was planted can be seen.
fn must_hold(all: &[(String, Vec<u8>)], plants: &[Plant]) {
    let seen: BTreeSet<&str> = seen(all, plants).into_iter().map(|(_, secret)| secret).collect();
    let unseen: Vec<&str> = plants.iter().map(|plant| plant.secret.as_str()).filter(|s| !seen.contains(s)).collect();
    assert!(unseen.is_empty(), "not planted, or not seen: {unseen:?}");
}

/// What a command of ours says to a file: its output and its log.
fn said(stand: &Stand, command: &[&str], file: &Path) -> Vec<(String, Vec<u8>)> {
    let output = Command::new(env!("CARGO_BIN_EXE_tautline"))
        .args(command)
        .arg("--config")
        .args([&stand.config(), file])
        .env("TAUTLINE_LOG", "trace")
        .output()
        .unwrap();
    assert!(!output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    vec![(command.join(" "), output.stdout), ("its log".to_owned(), output.stderr)]
}

fn redaction(names: &[String]) -> String {
    format!(
        "[redaction]\nnames = {}\ndead_letters = \"encrypted\"\ndead_letter_key = {{ file = \"letters.key\" }}\n\
         [[redaction.patterns]]\nname = \"mail\"\nregex = '[a-z0-9]+@corp\\.example'\n",
        json!(names)
    )
}

#[test]
fn what_spans_are_planted_in_is_read_in_every_shape() {
    let now = jiff::Timestamp::now().as_millisecond();
    for span in spans() {
        let (text, binary) = (span.to_string().into_bytes(), protobuf("", &span));
        let shapes = [gzip(&text), framed(&text), framed(&gzip(&binary)), binary, text];
        let read = |shape: &Vec<u8>| match decode(shape, Format::Auto, now).remove(0) {
            Ok(event) => (event.tool, event.principal.claimed_agent, event.arguments.len(), event.at, event.outcome),
            Err(rejection) => panic!("{rejection}"),
        };
        let told = shapes.each_ref().map(read);
        assert!(told.iter().all(|of| *of == told[0]), "{told:?}");
    }
}

#[test]
fn no_planted_secret_or_name_leaves() {
    let plants: Vec<Plant> = (0..PLANTED).map(plant).collect();
    let names: Vec<String> = (0..PLANTED).filter(|number| number % KINDS < 4).map(name).collect();
    let stand = Stand::new("privacy", &redaction(&names));
    fs::write(stand.directory.path().join("letters.key"), KEY).unwrap();
    let (mut records, mut mapped) = (records(&plants), mapped(&plants));
    must_hold(&[("the records".to_owned(), records.join(&b'\n'))], &plants);
    must_hold(&[("the mapped records".to_owned(), mapped.join(&b'\n'))], &plants);
    records.extend(self::records(&[plain(CONTROL)]));
    mapped.extend(self::mapped(&[plain(CONTROL)]));
    stand.broker.create_topic(&stand.topic("mapped"), 1, &[]);
    let config = fs::read_to_string(stand.config()).unwrap() + &mapped_source(&stand.topic("mapped"));
    fs::write(stand.config(), config).unwrap();

    produce(&stand.topic("source"), records.iter().map(|record| ("k", record.as_slice())));
    produce(&stand.topic("mapped"), mapped.iter().map(|record| ("k", record.as_slice())));
    let tautline = stand.start_with(&[("TAUTLINE_LOG", "trace")]);
    let (log, dead) = (stand.topic("events"), stand.topic("dead"));
    wait_for("readiness", LONG, || tautline.get("/readyz").is_some_and(|(status, _)| status == 200));
    let all = f64::from(u32::try_from(records.len() + mapped.len()).unwrap());
    wait_for("every record", LONG, || {
        let written = u32::try_from(read_committed(&log).len() + read_committed(&dead).len()).unwrap();
        f64::from(written) + tautline.metric("tautline_ignored_total", "") >= all
    });
    let logged = f64::from(u32::try_from(read_committed(&log).len()).unwrap());
    wait_for("every event", LONG, || tautline.metric("tautline_events_total", "") >= logged);
    let pages = ["/", "/metrics"].map(|path| tautline.get(path).unwrap().1);
    assert_eq!(tautline.terminate(), Some(0));

    let all = everything(&stand, pages);
    must_not_hold(&all, &plants);
    let control = [plain(CONTROL)];
    let is_seen = |place: &str| seen(&all, &control).iter().any(|(at, _)| at.contains(place));
    assert!(is_seen("events: ") && is_seen("alerts: "), "the control is not seen where it is");
    // A statement is logged whole, or refused where it holds a secret: the redactor's own test shows that.
    for source in Source::ALL.into_iter().filter(|source| *source != Source::Statement) {
        let is_its = |record: &[u8]| matches!(LogRecord::from_bytes(record), Ok(LogRecord::Event { event, .. }) if event.source == source);
        let its = all.iter().filter(|(at, record)| at == "events" && is_its(record)).cloned().collect::<Vec<_>>();
        assert!(!seen(&its, &control).is_empty(), "the control is in no event from {}", source.name());
    }
    let counted = |place: &str| all.iter().filter(|(at, _)| at.contains(place)).count();
    assert!(counted("events") > 5_000 && counted("dead") > 500 && counted("alerts") > 500, "too little was planted");
    assert!(counted("checkpoints") > 0 && counted("redaction.key") == 1, "not every file was looked at");
    assert!(stand.log().contains("TRACE") || stand.log().contains("DEBUG"), "the log does not tell everything");

    let letters = stand.directory.path().join("letters.jsonl");
    fs::write(&letters, read_committed(&dead).join(&b'\n')).unwrap();
    must_hold(&said(&stand, &["dead-letter", "open"], &letters), &plants);
    fs::remove_file(&letters).unwrap();
    let file = stand.directory.path().join("planted.jsonl");
    fs::write(&file, records.join(&b'\n')).unwrap();
    must_not_hold(&said(&stand, &["replay", "--output", "json"], &file), &plants);
    fs::write(&file, mapped.join(&b'\n')).unwrap();
    must_not_hold(&said(&stand, &["replay", "--output", "json", "--format", "mapping:crew"], &file), &plants);
    fs::write(&file, records.join(&b'\n')).unwrap();
    let config = fs::read_to_string(stand.config()).unwrap();
    fs::write(stand.config(), config.replace(&json!(names).to_string(), "[]")).unwrap();
    let of_names: Vec<Plant> = names.iter().map(|name| plain(name)).collect();
    must_hold(&said(&stand, &["replay", "--output", "json"], &file), &of_names);
}
