//! Explicit congestion notification across the tunnel (RFC 6040, normal mode).
//!
//! An ECN field is 0 (not capable), 1 (ECT(1)), 2 (ECT(0)) or 3 (congestion experienced); higher
//! bits of an argument are ignored.

/// The sender cannot use ECN.
pub const NOT_CAPABLE: u8 = 0;
/// Capable, the experimental code point.
pub const ECT_1: u8 = 1;
/// Capable, the usual code point.
pub const ECT_0: u8 = 2;
/// A router on the path was congested.
pub const CONGESTED: u8 = 3;

/// The outer field of a packet with this inner field: a copy (RFC 6040 §4.1).
#[inline]
#[must_use]
pub const fn encapsulate(inner: u8) -> u8 {
    inner & 3
}

/// The inner field to forward (RFC 6040 §4.2, figure 4). `None`: drop the packet, because
/// congestion cannot be told to a sender that is not capable of hearing it.
#[inline]
#[must_use]
pub const fn decapsulate(inner: u8, outer: u8) -> Option<u8> {
    match (inner & 3, outer & 3) {
        (NOT_CAPABLE, CONGESTED) => None,
        (NOT_CAPABLE, _) => Some(NOT_CAPABLE),
        (CONGESTED, _) | (_, CONGESTED) => Some(CONGESTED),
        (ECT_0, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encapsulation_is_the_whole_table_of_rfc_6040() {
        assert_eq!([0, 1, 2, 3].map(encapsulate), [0, 1, 2, 3]);
        assert_eq!(encapsulate(0xfe), ECT_0, "the DSCP is none of its business");
    }

    /// RFC 6040 figure 4. Rows: the inner field; columns: the outer field.
    #[test]
    fn decapsulation_is_the_whole_table_of_rfc_6040() {
        let columns = [NOT_CAPABLE, ECT_0, ECT_1, CONGESTED];
        let table = [
            (NOT_CAPABLE, [Some(NOT_CAPABLE), Some(NOT_CAPABLE), Some(NOT_CAPABLE), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CONGESTED)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CONGESTED)]),
            (CONGESTED, [Some(CONGESTED); 4]),
        ];
        for (inner, row) in table {
            for (outer, want) in columns.into_iter().zip(row) {
                assert_eq!(decapsulate(inner, outer), want, "inner {inner}, outer {outer}");
                assert_eq!(decapsulate(inner | 0xfc, outer | 0xfc), want, "DSCP is ignored");
            }
        }
    }
}
