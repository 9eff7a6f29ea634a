//! What the code, the rules and the data must keep, checked over the whole repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{entries, root, text};

/// All files below a directory of the repository that end like this; what was built or downloaded is left out.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&root().join(directory), &mut found);
    found.retain(|path| path.to_str().unwrap().ends_with(ending));
    assert!(!found.is_empty(), "no `*{ending}` in `{directory}`");
    found
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for path in entries(directory) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// Names of all packages that this one links, builds or tests with, by `Cargo.lock`.
fn dependencies(package: &str) -> BTreeSet<String> {
    let lock: toml::Table = text("Cargo.lock").parse().unwrap();
    let mut direct: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock["package"].as_array().unwrap() {
        let dependencies = package.get("dependencies").and_then(toml::Value::as_array).into_iter().flatten();
        // `name`, or `name version` where there are several of that name: all of them are taken then.
        let names = dependencies.map(|name| name.as_str().unwrap().split(' ').next().unwrap());
        direct.entry(package["name"].as_str().unwrap()).or_default().extend(names);
    }
    let mut found = BTreeSet::new();
    let mut open = vec![package];
    while let Some(name) = open.pop() {
        if found.insert(name.to_owned()) {
            open.extend(&direct[name]);
        }
    }
    found
}

#[test]
fn the_core_links_nothing_that_reads_or_waits() {
    let banned = ["tokio", "rdkafka", "rdkafka-sys", "axum", "hyper", "mio", "datafusion", "object_store", "reqwest"];
    let core = dependencies("tautline-detectors");
    let linked: Vec<&str> = banned.into_iter().filter(|name| core.contains(*name)).collect();
    assert!(linked.is_empty(), "detectors/Cargo.toml leads to {linked:?}");
    for name in ["cedar-policy", "arrow-ipc", "statrs"] {
        assert!(core.contains(name), "`{name}` was not found either: the search is broken");
    }
    assert!(dependencies("tautline").contains("tokio"), "the shell has it: the search is broken");
}

/// Whether a text holds this word, not as a part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(inside)
            && !text[at + word.len()..].chars().next().is_some_and(inside)
    })
}

#[test]
fn the_core_reads_no_clock_file_socket_or_dice() {
    let banned = [
        "SystemTime",
        "Instant",
        "Timestamp::now",
        "Zoned::now",
        "std::fs",
        "std::net",
        "std::thread",
        "std::env",
        "std::process",
        "std::io",
        "rand",
        "thread_rng",
        "RandomState",
    ];
    for path in files("detectors/src", ".rs") {
        for (number, line) in (1..).zip(fs::read_to_string(&path).unwrap().lines()) {
            let code = line.split("//").next().unwrap_or_default();
            let found: Vec<&&str> = banned.iter().filter(|word| has_word(code, word)).collect();
            assert!(found.is_empty(), "{}:{number}: {found:?}", shown(&path));
            assert!(
                !code.contains("std::{"),
                "{}:{number}: one `use` a module, so that this test sees it",
                shown(&path)
            );
        }
    }
}

#[test]
fn nothing_is_left_undone_and_no_test_is_left_out() {
    // In two parts each, so that this file does not hold them.
    let banned = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("#[ig", "nore"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    for path in files("", ".rs") {
        for (number, line) in (1..).zip(fs::read_to_string(&path).unwrap().lines()) {
            let found: Vec<&&str> = banned.iter().filter(|text| line.contains(**text)).collect();
            assert!(found.is_empty(), "{}:{number}: {found:?}", shown(&path));
        }
    }
}

#[test]
fn every_control_is_whole() {
    let mut controls = 0;
    for folder in entries(&root().join("rules")).into_iter().filter(|path| path.is_dir()) {
        if ["example", "vocabulary"].iter().any(|name| folder.ends_with(name)) {
            continue;
        }
        controls += 1;
        for name in ["README.md", "control.toml", "fires.jsonl", "silent.jsonl", "deviations.snap"] {
            let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
            assert!(!text.trim().is_empty(), "{}/{name} is missing or empty", shown(&folder));
        }
        let control: toml::Table = fs::read_to_string(folder.join("control.toml")).unwrap().parse().unwrap();
        let judges = folder.join("policy.cedar").exists() || control.contains_key("detector");
        assert!(judges, "{} has neither a policy nor a detector", shown(&folder));
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        let title = control["title"].as_str().unwrap();
        assert!(readme.contains(title) || readme.starts_with("# "), "{}/README.md has no heading", shown(&folder));
    }
    assert!(controls >= 9, "only {controls} controls were found");
}

#[test]
fn the_origin_of_all_test_data_is_told() {
    let readme = text("tests/data/README.md");
    for path in files("tests/data", "") {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            name == "README.md" || readme.contains(&format!("`{name}`")),
            "tests/data/README.md says nothing of `{name}`"
        );
    }
}

/// The lengths of a file's functions, tests left out, by their place. Counts on rustfmt: a function ends at the first line
/// that is a brace as far in as its own first line.
fn function_lengths(path: &Path) -> Vec<(String, usize)> {
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
    let lines = &lines[..tests.unwrap_or(lines.len())];
    let mut lengths = Vec::new();
    for (start, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        let ends = |line: &str| {
            line.strip_prefix(&indent).is_some_and(|rest| rest == "}" || rest.ends_with(';') && rest.starts_with(')'))
        };
        let alone = line.ends_with(';') || line.ends_with('}');
        let length = if alone { Some(1) } else { lines[start..].iter().position(|line| ends(line)).map(|end| end + 1) };
        let length = length.unwrap_or_else(|| panic!("{}:{}: no end of this function", shown(path), start + 1));
        lengths.push((format!("{}:{}", shown(path), start + 1), length));
    }
    lengths
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.find(|word| !matches!(*word, "const" | "async" | "unsafe") && !word.starts_with("pub")) == Some("fn")
}

#[test]
fn functions_are_short() {
    let product = ["src", "detectors/src", "ingest/src"].into_iter().flat_map(|directory| files(directory, ".rs"));
    let product = product.filter(|path| !path.to_str().unwrap().ends_with("tests.rs"));
    let lengths: Vec<(String, usize)> = product.flat_map(|path| function_lengths(&path)).collect();
    assert!(lengths.len() > 300, "only {} functions were found: the search is broken", lengths.len());
    let long: Vec<&(String, usize)> = lengths.iter().filter(|(_, length)| *length > 50).collect();
    assert!(
        long.len() * 10 <= lengths.len(),
        "{} of {} functions are over 50 lines: {long:#?}",
        long.len(),
        lengths.len()
    );
    assert!(lengths.iter().any(|(_, length)| *length > 20), "no function of more than 20 lines: the search is broken");
}
