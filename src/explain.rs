//! `tautline explain`: one alert, in full, from the alert itself. Works offline.

use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tautline_detectors::deviation::Deviation;

/// Finds the alert of this id (or the only one) among lines of JSON, as `replay` and the alerts topic have them.
pub(crate) fn find(path: &Path, id: Option<&str>) -> Result<Deviation> {
    let reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
        Box::new(BufReader::new(file))
    };
    let mut found: Option<Deviation> = None;
    for (index, line) in reader.lines().enumerate() {
        let line = line.with_context(|| format!("{}:{}", path.display(), index + 1))?;
        if line.trim().is_empty() {
            continue;
        }
        let deviation = read(&line).with_context(|| format!("{}:{}", path.display(), index + 1))?;
        match id {
            Some(id) if deviation.id != id => {}
            Some(_) => return Ok(deviation),
            None if found.is_some() => bail!("more than one alert in `{}`: name the one to explain", path.display()),
            None => found = Some(deviation),
        }
    }
    found.with_context(|| match id {
        Some(id) => format!("no alert `{id}` in `{}`", path.display()),
        None => format!("no alert in `{}`", path.display()),
    })
}

fn read(line: &str) -> Result<Deviation> {
    let mut alert: Value = serde_json::from_str(line).context("not JSON: expected an alert a line")?;
    let deviation = alert.pointer_mut("/unmapped/tautline/deviation").map(Value::take);
    let deviation = deviation.context("not an alert of tautline: `unmapped.tautline.deviation` is missing")?;
    serde_json::from_value(deviation).context("not an alert of this version of tautline")
}
