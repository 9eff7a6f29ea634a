//! Chance that is the same on every machine.

/// `SplitMix64`: a counter whose values are mixed.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        mix(self.0)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or_default()
    }

    /// True so often in a thousand times.
    pub(crate) fn in_thousand(&mut self, times: u64) -> bool {
        self.below(1_000) < times
    }

    /// A number below `bound`, the lower the likelier: what habits look like.
    pub(crate) fn habit(&mut self, bound: u64) -> u64 {
        let (one, other) = (self.below(bound), self.below(bound));
        one.min(other)
    }
}

fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What an agent was born with, the same in every run.
pub(crate) fn born_with(agent: u64, trait_: u64) -> u64 {
    mix(mix(agent.wrapping_add(1)).wrapping_add(trait_))
}

/// One of these.
pub(crate) fn pick<T: Copy + Default>(from: &[T], number: u64) -> T {
    let count = u64::try_from(from.len()).unwrap_or(1).max(1);
    let at = usize::try_from(number % count).unwrap_or_default();
    from.get(at).copied().unwrap_or_default()
}

/// Whose turn it is: the agent `n` comes half as often as the agent `n / 2` (a Zipf distribution of exponent 1).
#[derive(Debug)]
pub(crate) struct Turns {
    /// Weights of the agents up to each one.
    weights: Vec<f64>,
    /// The next agent to introduce, while each is to come once first.
    first: usize,
}

impl Turns {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn new(agents: usize, everyone_first: bool) -> Self {
        let mut sum = 0.0;
        let add = |agent| {
            sum += 1.0 / agent as f64;
            sum
        };
        Self { weights: (1..=agents).map(add).collect(), first: if everyone_first { 0 } else { agents } }
    }

    #[expect(clippy::cast_precision_loss, reason = "a 53rd bit decides nothing")]
    pub(crate) fn next(&mut self, random: &mut Random) -> u64 {
        let agent = if self.first < self.weights.len() {
            self.first += 1;
            self.first - 1
        } else {
            let total = self.weights.last().copied().unwrap_or_default();
            let drawn = random.next() as f64 / u64::MAX as f64 * total;
            self.weights.partition_point(|weight| *weight < drawn).min(self.weights.len() - 1)
        };
        u64::try_from(agent).unwrap_or_default()
    }
}
