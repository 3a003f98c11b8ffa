//! The timestamp of an initiation: TAI64N, which sorts as bytes in the order of time.
//!
//! Only its order matters: a responder accepts an initiation of a peer only if its timestamp is
//! greater than all before (whitepaper §5.1). Like Linux `noise.c::tai64n_now` we leave out the
//! leap seconds, and coarsen the nanoseconds so that the peer cannot measure our clock.

use std::time::Duration;

use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned, transmute};

/// A TAI64N label: eight bytes of seconds and four of nanoseconds, big-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tai64n(pub [u8; 12]);

/// TAI64 second of 1970-01-01 00:00:10 TAI, which is the Unix epoch (cr.yp.to/libtai/tai64.html).
const UNIX_EPOCH: u64 = (1 << 62) + 10;

/// Nanoseconds are rounded down to a multiple of this, the power of two below 20 ms: initiations
/// of one peer are accepted 50 times a second at most, so a finer clock would only leak.
const GRAIN_NS: u32 = 1 << 24;

impl Tai64n {
    /// The label of a wall-clock time, given as the time since the Unix epoch.
    #[must_use]
    pub fn from_unix(since_epoch: Duration) -> Self {
        let nanos = since_epoch.subsec_nanos();
        Self::new(UNIX_EPOCH.saturating_add(since_epoch.as_secs()), nanos - nanos % GRAIN_NS)
    }

    /// The next label of the same grain: for a caller whose wall clock was set back and who must
    /// still send something greater than before.
    #[must_use]
    pub fn successor(self) -> Self {
        let Parts { seconds, nanos } = transmute!(self.0);
        match nanos.get().saturating_add(GRAIN_NS) {
            0..NANOS_PER_SECOND => Self::new(seconds.get(), nanos.get() + GRAIN_NS),
            NANOS_PER_SECOND.. => Self::new(seconds.get().saturating_add(1), 0),
        }
    }

    fn new(seconds: u64, nanos: u32) -> Self {
        Self(transmute!(Parts { seconds: U64::new(seconds), nanos: U32::new(nanos) }))
    }
}

const NANOS_PER_SECOND: u32 = 1_000_000_000;

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Parts {
    seconds: U64,
    nanos: U32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of cr.yp.to/libtai/tai64.html: second 0x4000000037c219bf is 1999-08-24
    /// 04:03:43 UTC less 22 leap seconds, which by our rule is Unix time 935467445 + 10 - 10.
    #[test]
    fn the_epoch_is_that_of_tai64() {
        let label = Tai64n::from_unix(Duration::new(0x37c2_19bf - 10, 0));
        assert_eq!(label.0, [0x40, 0, 0, 0, 0x37, 0xc2, 0x19, 0xbf, 0, 0, 0, 0]);
    }

    #[test]
    fn nanoseconds_are_coarsened_downwards() {
        let label = |nanos| Tai64n::from_unix(Duration::new(1, nanos)).0[8..].to_vec();
        assert_eq!(label(GRAIN_NS - 1), [0, 0, 0, 0]);
        assert_eq!(label(GRAIN_NS), [1, 0, 0, 0]);
        assert_eq!(label(999_999_999), [59, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn bytes_sort_as_time_does(a in 0u64..1 << 40, b in 0u64..1 << 40, grains in 0u32..60) {
            let at = |seconds| Tai64n::from_unix(Duration::new(seconds, grains * GRAIN_NS % NANOS_PER_SECOND));
            prop_assert_eq!(at(a).cmp(&at(b)), a.cmp(&b));
            prop_assert!(at(a).successor() > at(a));
            prop_assert!(at(a).successor() <= at(a + 1));
        }
    }
}
