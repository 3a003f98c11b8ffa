//! Numbers that look random and are the same in every run.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = (u128::from(self.bits()) * bound as u128) >> 64;
        usize::try_from(wide).unwrap_or(0)
    }
}

/// Ranks of which the n-th is drawn in proportion to `n^-s`.
#[derive(Clone, Debug)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// Over `count` ranks, at least one.
    #[must_use]
    pub fn new(count: usize, s: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=count).map(|rank| {
            sum += (rank as f64).powf(-s);
            sum
        });
        Self(weights.collect())
    }

    /// The next rank, counted from 0.
    pub fn draw(&self, random: &mut Random) -> usize {
        let total = self.0.last().copied().unwrap_or(0.0);
        let at = (random.bits() >> 11) as f64 / (1u64 << 53) as f64 * total;
        self.0.partition_point(|sum| *sum < at).min(self.0.len().saturating_sub(1))
    }
}
