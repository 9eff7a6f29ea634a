//! Text for people: a line an alert, and the whole explanation of one.

use std::fmt::Write;

use jiff::Timestamp;
use tautline_detectors::deviation::{Deviation, Severity};
use tautline_detectors::event::Millis;

/// `2024-07-30 21:31:10`, UTC.
pub(crate) fn time(at: Millis) -> String {
    Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// The heading of the lines of [`line`].
pub(crate) fn heading() -> String {
    format!("{:<19}  {:<13}  {:<22}  {:<14}  {:>5}  WHAT", "TIME (UTC)", "SEVERITY", "CONTROL", "AGENT", "TRUST")
}

/// One alert as one line of a table.
pub(crate) fn line(deviation: &Deviation, colour: bool) -> String {
    let (on, off) = if colour { (paint(deviation.severity), "\x1b[0m") } else { ("", "") };
    format!(
        "{}  {on}{:<13}{off}  {:<22}  {:<14}  {:>5.0}  {}: {}",
        time(deviation.at),
        deviation.severity,
        deviation.control,
        printable(&deviation.agent.id),
        deviation.trust.after,
        printable(format!("{} {}", deviation.event.action, short(&deviation.event.resource.id)).trim_end()),
        printable(&deviation.what)
    )
}

/// The last part of an id that is a path, which is what a person knows it by.
fn short(id: &str) -> &str {
    id.rsplit(['/', ':']).find(|part| !part.is_empty()).unwrap_or(id)
}

fn paint(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "\x1b[1;31m",
        Severity::High => "\x1b[31m",
        Severity::Medium => "\x1b[33m",
        Severity::Low | Severity::Informational => "\x1b[36m",
    }
}

/// The text without control characters and without those that are not seen or turn the line around: what an agent writes
/// must not command an analyst's terminal, nor lie to the eye.
pub(crate) fn printable(text: &str) -> String {
    let hidden =
        |c| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    text.chars().map(|c| if c.is_control() || hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// Everything about one deviation, for a person.
pub(crate) fn explanation(deviation: &Deviation) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = explain_into(&mut text, deviation);
    text
}

fn explain_into(text: &mut String, deviation: &Deviation) -> std::fmt::Result {
    let agent = &deviation.agent;
    let event = &deviation.event;
    writeln!(text, "{}", printable(&deviation.summary))?;
    writeln!(text)?;
    writeln!(text, "  alert        {}", printable(&deviation.id))?;
    writeln!(text, "  control      {} ({}), {}", deviation.control, deviation.title, deviation.severity)?;
    writeln!(text, "  when         {} UTC", time(deviation.at))?;
    writeln!(
        text,
        "  agent        {} ({}, team `{}`, owner {}); {}, {} events learned",
        printable(&agent.id),
        agent.class,
        agent.team,
        agent.owner,
        agent.state.name(),
        agent.learned
    )?;
    writeln!(text, "  acted as     {} {}", printable(&event.principal.id), printable(&event.principal.session))?;
    writeln!(
        text,
        "  did          {} ({}) on {} {}",
        printable(&event.action),
        event.verb.name(),
        printable(&event.resource.kind),
        printable(&event.resource.id)
    )?;
    writeln!(text, "  where        {} {}", printable(&event.place.environment), printable(&event.place.account))?;
    for (name, value) in [
        ("claimed", event.claimed_environment.as_deref().unwrap_or_default()),
        ("tool", &event.tool),
        ("from", &event.origin.address),
        ("user agent", &event.origin.user_agent),
        ("credential", &event.credential.id),
        ("request", event.trace.as_ref().map_or("", |trace| &trace.request_id)),
        ("run", event.run.as_ref().map_or("", |run| &run.id)),
    ] {
        if !value.is_empty() {
            writeln!(text, "  {name:<12} {}", printable(value))?;
        }
    }
    writeln!(text, "  outcome      {}", event.outcome.name())?;
    writeln!(text, "  trust        {:.1} before, {:.1} after", deviation.trust.before, deviation.trust.after)?;
    writeln!(text, "\n  evidence, which adds up to the score {:.2}:", deviation.score)?;
    for evidence in &deviation.evidence {
        let p = evidence
            .p_value
            .map_or_else(String::new, |p| format!(", p = {p:.2e} from {} observations", evidence.sample));
        writeln!(text, "    {:>6.2}  {}: saw {}", evidence.score, evidence.what, printable(&evidence.observed))?;
        writeln!(text, "            expected {}{p}", printable(&evidence.expected))?;
    }
    if let Some(policy) = &deviation.policy {
        writeln!(text, "\n  policy       {} at {}:{}", policy.id, policy.path, policy.line)?;
        for line in policy.text.lines() {
            writeln!(text, "    | {line}")?;
        }
    }
    writeln!(text, "\n  would have been compliant: {}", printable(&deviation.counterfactual))?;
    if let Some(subject) = &deviation.revocation {
        writeln!(text, "  revocation requested: {}", printable(&subject.key()))?;
    }
    write!(text, "  rulebook     {}", deviation.rulebook)
}
