//! What several tests need: the repository's own rules and data.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tautline_detectors::deviation::Deviation;
use tautline_detectors::rulebook::RuleFile;

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the repository.
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What a directory holds, sorted.
pub(crate) fn entries(directory: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = read.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Copies a directory with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in entries(from) {
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { assert!(fs::copy(&path, &target).is_ok()) }
    }
}

/// A file of a rulebook.
pub(crate) fn file(name: &str, text: &str) -> RuleFile {
    RuleFile { name: name.to_owned(), path: name.to_owned(), text: text.to_owned() }
}

/// The shipped rules without a registry.
pub(crate) fn rule_files() -> Vec<RuleFile> {
    let rules = root().join("rules");
    let mut files =
        Vec::from(["schema.cedarschema", "trust.toml"].map(|name| file(name, &text(&format!("rules/{name}")))));
    for folder in entries(&rules).into_iter().filter(|path| path.is_dir() && !path.ends_with("example")) {
        for path in entries(&folder) {
            let name = path.strip_prefix(&rules).unwrap().to_str().unwrap();
            if name.ends_with(".toml") || name.ends_with(".cedar") {
                files.push(file(name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files
}

/// The shipped rules with the example registry.
pub(crate) fn example_files() -> Vec<RuleFile> {
    let mut files = rule_files();
    for (folder, kind) in [("agents.d", "agents"), ("playbooks.d", "playbooks")] {
        for path in entries(&root().join("rules/example").join(folder)) {
            let name = format!("registry/{kind}/{}", path.file_name().unwrap().to_str().unwrap());
            files.push(file(&name, &fs::read_to_string(&path).unwrap()));
        }
    }
    for name in ["estate.toml", "people.toml", "calendar.toml", "issuers.toml", "routes.toml"] {
        files.push(file(&format!("registry/{name}"), &text(&format!("rules/example/{name}"))));
    }
    for path in entries(&root().join("rules/example/issuers")) {
        let name = format!("registry/issuers/{}", path.file_name().unwrap().to_str().unwrap());
        files.push(file(&name, &fs::read_to_string(&path).unwrap()));
    }
    files
}

/// The key that the tests sign statements with, under an id.
fn key(id: &str) -> SigningKey {
    SigningKey::from_bytes(&Sha256::digest(id).into())
}

/// The same as a private JSON Web Key.
pub(crate) fn private_jwk(id: &str) -> Value {
    let (public, private) = (key(id).verifying_key(), key(id).to_bytes());
    let encoded = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": encoded(public.as_bytes()), "d": encoded(&private) })
}

/// Puts the tests' keys in the place of the issuers', under the same ids.
pub(crate) fn with_test_keys(files: &mut [RuleFile]) {
    for file in files.iter_mut().filter(|file| file.name.starts_with("registry/issuers/")) {
        let mut set: Value = serde_json::from_str(&file.text).unwrap();
        for jwk in set["keys"].as_array_mut().unwrap() {
            let public = key(jwk["kid"].as_str().unwrap()).verifying_key();
            jwk["x"] = BASE64_URL_SAFE_NO_PAD.encode(public.as_bytes()).into();
        }
        file.text = set.to_string();
    }
}

/// A statement with these claims, signed by the tests' keys of these ids.
pub(crate) fn signed(claims: &Value, ids: &[&str]) -> String {
    let payload = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
    let signature = |id: &&str| {
        let header = json!({ "alg": "EdDSA", "kid": id, "typ": "tautline-statement+jwt" }).to_string();
        let header = BASE64_URL_SAFE_NO_PAD.encode(header);
        let signature = key(id).sign(format!("{header}.{payload}").as_bytes()).to_bytes();
        json!({ "protected": header, "signature": BASE64_URL_SAFE_NO_PAD.encode(signature) })
    };
    json!({ "payload": payload, "signatures": ids.iter().map(signature).collect::<Vec<_>>() }).to_string()
}

/// Replaces a text in one file of a rulebook, which must hold it.
pub(crate) fn edit(files: &mut [RuleFile], name: &str, from: &str, to: &str) {
    let file = files.iter_mut().find(|file| file.name == name).unwrap_or_else(|| panic!("no `{name}`"));
    assert!(file.text.contains(from), "`{name}` does not hold `{from}`");
    file.text = file.text.replace(from, to);
}

/// Takes an agent out of the registry.
pub(crate) fn without_agent(files: &mut [RuleFile], agent: &str) {
    let heading = format!("[agents.{agent}]");
    let file = files.iter_mut().find(|file| file.text.contains(&heading)).unwrap_or_else(|| panic!("no `{agent}`"));
    let mut table: toml::Table = file.text.parse().unwrap();
    table.get_mut("agents").and_then(toml::Value::as_table_mut).unwrap().remove(agent).unwrap();
    file.text = table.to_string();
}

/// The real binary with these arguments, started in the repository, fed with `input`.
pub(crate) fn tautline<'a>(arguments: impl IntoIterator<Item = &'a str>, input: &[u8]) -> Output {
    tautline_in(root(), arguments, input)
}

/// The real binary, started in another directory.
pub(crate) fn tautline_in<'a>(directory: &Path, arguments: impl IntoIterator<Item = &'a str>, input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tautline"))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The binary may write before it has read everything, or not read at all.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// The deviations in a replay's output.
pub(crate) fn deviations(output: &Output) -> Vec<Deviation> {
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    lines.map(|line| alert(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn alert(line: &str) -> serde_json::Result<Deviation> {
    let finding: Value = serde_json::from_str(line)?;
    serde_json::from_value(finding["unmapped"]["tautline"]["deviation"].clone())
}

/// The registry of the recorded events, as arguments.
pub(crate) const RECORDED: [&str; 6] =
    ["--agents", "tests/data/agents.toml", "--estate", "tests/data/estate.toml", "--people", "tests/data/people.toml"];

/// The rows of `tests/data/<name>.jsonl.gz`.
pub(crate) fn rows(name: &str) -> Vec<Value> {
    let path = root().join(format!("tests/data/{name}.jsonl.gz"));
    let mut text = String::new();
    GzDecoder::new(fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().map(|row| serde_json::from_str(row).unwrap()).collect()
}

/// JSON values, one a line.
pub(crate) fn lines<'v>(values: impl IntoIterator<Item = &'v Value>) -> String {
    values.into_iter().map(|value| format!("{value}\n")).collect()
}
