//! The statistics, each from its source, all from integer counts.

use statrs::distribution::{Discrete, DiscreteCDF, NegativeBinomial};

/// Nothing that was merely counted is rarer than this.
const LEAST_P: f64 = 1e-12;

/// Concentration of the Pitman–Yor process: the weight of "something new" before anything was seen.
const CONCENTRATION: f64 = 1.0;

/// A probability that something is held against: between 0 and 1, both left out.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, serde::Deserialize)]
#[serde(try_from = "f64")]
pub struct Probability(f64);

impl Probability {
    /// Whether a p-value is at or below it.
    pub fn reached_by(self, p_value: f64) -> bool {
        p_value <= self.0
    }
}

impl TryFrom<f64> for Probability {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        if value > 0.0 && value < 1.0 {
            return Ok(Self(value));
        }
        Err(format!("`{value}` is not a probability: write a number between 0 and 1"))
    }
}

/// What is known of one dimension: how many observations, and how many values came how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Observations.
    pub total: u64,
    /// Distinct values.
    pub distinct: u64,
    /// Values seen exactly once.
    pub singles: u64,
    /// Values seen exactly twice.
    pub doubles: u64,
}

impl Tally {
    /// Counts the counts.
    pub fn of(counts: impl Iterator<Item = u32>) -> Self {
        counts.filter(|count| *count > 0).fold(Self::default(), |tally, count| Self {
            total: tally.total + u64::from(count),
            distinct: tally.distinct + 1,
            singles: tally.singles + u64::from(count == 1),
            doubles: tally.doubles + u64::from(count == 2),
        })
    }

    /// Mid p-value of a value that was never seen: half the predictive mass of everything unseen.
    ///
    /// The predictive is Pitman–Yor's (Pitman & Yor 1997), so that a new value surprises less from an agent that
    /// explores than from one that never changes (Heard & Rubin-Delanchy 2016). Its discount is fitted from the agent's
    /// own counts by the moment estimator `n1 / (n1 + 2 n2)`.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn unseen_p(self) -> f64 {
        let singles = self.singles as f64;
        let spread = singles + 2.0 * self.doubles as f64;
        let discount = if spread > 0.0 { singles / spread } else { 0.0 };
        let mass = (CONCENTRATION + discount * self.distinct as f64) / (self.total as f64 + CONCENTRATION);
        (0.5 * mass.min(1.0)).max(LEAST_P)
    }
}

/// Counts per closed window: how many windows, their sum and the sum of their squares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WindowCounts {
    /// Closed windows in which the agent was active.
    pub windows: u64,
    /// Sum of the counts.
    pub sum: u64,
    /// Sum of the squared counts.
    pub squares: u64,
}

/// How many windows' worth of weight the prior dispersion has.
const DISPERSION_PRIOR_WINDOWS: f64 = 5.0;

impl WindowCounts {
    /// Adds one closed window.
    pub fn add(&mut self, count: u32) {
        self.windows += 1;
        self.sum = self.sum.saturating_add(u64::from(count));
        self.squares = self.squares.saturating_add(u64::from(count) * u64::from(count));
    }

    /// Expected count of a whole window.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn mean(self) -> f64 {
        (self.sum as f64 + 1.0) / (self.windows as f64 + 1.0)
    }

    /// Mid p-value of seeing `count` or more in a window.
    ///
    /// Gamma–Poisson predictive (negative binomial). Its dispersion is the observed one shrunk towards 1 (a geometric
    /// law) by a few windows' weight: it neither divides by a variance that may be zero nor believes in one that rests
    /// on three windows. The law is that of a *whole* window, so a partial one can only be judged too mildly.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn burst_p(self, count: u32) -> f64 {
        let mean = self.mean();
        let windows = self.windows as f64;
        let about_mean = self.squares as f64 - 2.0 * mean * self.sum as f64 + windows * mean * mean;
        let excess = ((about_mean - windows * mean) / (mean * mean)).max(0.0);
        let dispersion = (DISPERSION_PRIOR_WINDOWS + excess) / (DISPERSION_PRIOR_WINDOWS + windows);
        let shape = 1.0 / dispersion;
        match NegativeBinomial::new(shape, shape / (shape + mean)) {
            Ok(law) => (law.sf(u64::from(count)) + 0.5 * law.pmf(u64::from(count))).clamp(LEAST_P, 1.0),
            Err(_) => 1.0,
        }
    }
}

/// Score of a p-value: −log10.
pub fn score(p_value: f64) -> f64 {
    -p_value.clamp(LEAST_P, 1.0).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(counts: &[u32]) -> WindowCounts {
        let mut all = WindowCounts::default();
        counts.iter().for_each(|count| all.add(*count));
        all
    }

    #[test]
    fn a_new_value_surprises_more_from_a_constant_agent() {
        let constant = Tally::of([500, 500].into_iter());
        let explorer = Tally::of(std::iter::repeat_n(1, 1000));
        assert!(constant.unseen_p() < 0.001);
        assert!(explorer.unseen_p() > 0.4);
        assert!(Tally::default().unseen_p() >= 0.5, "nothing seen: nothing surprises");
    }

    #[test]
    fn a_burst_shows_at_zero_variance_and_a_fresh_window_does_not() {
        let constant = windows(&[10; 100]);
        assert!(constant.burst_p(40) < 1e-4);
        assert!(constant.burst_p(10) > 0.3);
        assert!(constant.burst_p(0) > 0.9);
        assert!(windows(&[]).burst_p(100) > 1e-4 || windows(&[]).mean() >= 1.0);
    }

    #[test]
    fn a_bursty_agent_is_held_against_its_own_bursts() {
        let bursty = windows(&[1, 200, 3, 150, 0, 0, 180, 5, 220, 2, 1, 170]);
        assert!(bursty.burst_p(200) > 1e-3);
        let steady = windows(&[75; 12]);
        assert!(steady.burst_p(200) < bursty.burst_p(200));
    }

    #[test]
    fn p_values_stay_within_bounds() {
        for total in [0_u32, 1, 10, 100_000] {
            let p = windows(&[total; 20]).burst_p(u32::MAX);
            assert!((LEAST_P..=1.0).contains(&p), "{p}");
        }
        assert!((score(0.001) - 3.0).abs() < 1e-12);
    }
}
