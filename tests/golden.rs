//! Golden replays: recorded CloudTrail through the real binary gives exactly the deviations that are written down in
//! `tests/data/<name>.golden`. `BLESS=1` writes them anew; the difference then shows what a change of the rules, the
//! decoders or the statistics does to real events.

use std::fmt::Write;
use std::fs;

use crate::support::{RECORDED, deviations, lines, root, rows, tautline};

fn holds(name: &str) {
    let events: Vec<_> = rows(name).into_iter().map(|mut row| row["event"].take()).collect();
    let arguments = ["replay", "--output", "json", "--format", "cloudtrail", "-"];
    let output = tautline(arguments.into_iter().chain(RECORDED), lines(&events).as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut now = String::new();
    for deviation in deviations(&output) {
        let Ok(()) =
            writeln!(now, "{}\t{}\t{:.6}\t{}", deviation.id, deviation.severity, deviation.score, deviation.summary)
        else {
            panic!("writing to a string cannot fail")
        };
    }
    let path = root().join(format!("tests/data/{name}.golden"));
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &now).unwrap();
        return;
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differing = (1..).zip(
        written
            .lines()
            .map(Some)
            .chain(std::iter::repeat(None))
            .zip(now.lines().map(Some).chain(std::iter::repeat(None))),
    );
    let most = written.lines().count().max(now.lines().count());
    for (line, (written, now)) in differing.take(most) {
        assert_eq!(now, written, "{}:{line}: if the new one is right, run with BLESS=1", path.display());
    }
    assert!(most > 20, "{}: {most} deviations show little", path.display());
}

#[test]
fn stratus() {
    holds("stratus");
}

#[test]
fn invictus() {
    holds("invictus");
}
