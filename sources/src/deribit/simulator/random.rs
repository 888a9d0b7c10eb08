//! A small seeded generator: the same seed gives the same market on every machine.

/// SplitMix64. Its quality is ample for a plausible market, and it needs no crate.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64 bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Returns a number in `0..end`; zero if `end` is zero.
    pub(super) fn below(&mut self, end: usize) -> usize {
        if end == 0 {
            return 0;
        }
        // The bias of the remainder is of the order of end / 2^64.
        usize::try_from(self.bits() % end as u64).expect("smaller than `end`, which is a usize")
    }

    /// Returns a number in `[0, 1)`.
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns true once in `n` times on average.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Returns a number of mean 0 and variance 1: the sum of twelve uniform ones, which has no tail beyond 6.
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// Spreads the bits of a small number over all 64, for values that must follow from an id alone.
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}
