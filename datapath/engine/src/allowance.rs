//! So many a second and no more: what one worker spends on something at most.

/// A token bucket with the times in microseconds: see [`crate::buckets`] for how it counts.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    interval_us: u64,
    ahead_max_us: u64,
    full_at_us: u64,
}

impl Allowance {
    /// `per_second` a second, of which `burst` may come at once. Both at least 1; a rate beyond a
    /// million is a million.
    #[must_use]
    pub const fn new(per_second: u64, burst: u64) -> Self {
        let interval_us = match 1_000_000u64.checked_div(per_second) {
            Some(0) => 1,
            Some(interval) => interval,
            None => 1_000_000,
        };
        Self { interval_us, ahead_max_us: interval_us * burst, full_at_us: 0 }
    }

    /// Takes one; `false` if none is left.
    #[inline]
    pub fn take(&mut self, now_ms: u64) -> bool {
        let now_us = now_ms.saturating_mul(1_000);
        let then = self.full_at_us.max(now_us) + self.interval_us;
        let granted = then <= now_us + self.ahead_max_us;
        if granted {
            self.full_at_us = then;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut allowance = Allowance::new(10_000, 100);
        let mut taken = |now| (0..1_000).filter(|_| allowance.take(now)).count();
        assert_eq!(taken(1_000), 100);
        assert_eq!((taken(1_000), taken(1_001), taken(1_003)), (0, 10, 20));
        assert_eq!(taken(9_000), 100, "what is not used is not saved");
    }
}
