//! What a process has cost.

use std::fs;

use anyhow::Result;

/// User and system time of all threads of a process so far, `self` or a number; Linux counts it in hundredths.
pub(crate) fn cpu_seconds(process: &str) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let times = after_name.split(' ').skip(11).take(2).map(str::parse::<f64>);
    Ok(times.sum::<Result<f64, _>>()? / 100.0)
}
