//! Trust: one number per agent, the decayed evidence against it.

use crate::deviation::TrustChange;
use crate::event::Millis;

/// After this long, evidence weighs half.
const HALF_LIFE: f64 = 3.0 * 24.0 * 3_600_000.0;
/// Evidence that halves the trust.
const HALVING_EVIDENCE: f64 = 12.0;

/// Evidence that is left of what stood at `then`.
#[expect(clippy::cast_precision_loss, reason = "spans of time are far below 2^52 ms")]
pub(crate) fn decayed(evidence: f64, then: Millis, now: Millis) -> f64 {
    // Late events do not bring back what has decayed.
    let elapsed = now.saturating_sub(then).max(0) as f64;
    evidence * (-elapsed / HALF_LIFE).exp2()
}

/// Trust from 0 to 100 that an amount of evidence leaves.
pub fn trust(evidence: f64) -> f64 {
    100.0 * (-evidence / HALVING_EVIDENCE).exp2()
}

/// What a deviation's score does to trust, and the evidence afterwards.
pub(crate) fn weigh(evidence: f64, score: f64) -> (TrustChange, f64) {
    let after = evidence + score;
    (TrustChange { before: trust(evidence), after: trust(after) }, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_halves_and_never_grows_by_itself() {
        assert!((decayed(8.0, 0, 3 * 24 * 3_600_000) - 4.0).abs() < 1e-9);
        assert!((decayed(8.0, 100, 0) - 8.0).abs() < 1e-9);
        assert!((trust(0.0) - 100.0).abs() < 1e-9);
        assert!((trust(HALVING_EVIDENCE) - 50.0).abs() < 1e-9);
    }
}
