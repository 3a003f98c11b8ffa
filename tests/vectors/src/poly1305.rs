//! Numbers below p = 2^130 - 5, slowly: to find messages on which the accumulator of Poly1305
//! comes to stand at an edge (RFC 8439 §2.5).

/// A number below p: the bits from 128 up, and the 128 below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    high: u8,
    low: u128,
}

const ZERO: Number = Number { high: 0, low: 0 };

impl Number {
    pub(crate) const fn new(high: u8, low: u128) -> Self {
        Self { high, low }
    }

    /// The low bits, if there are no others.
    pub(crate) fn block(self) -> Option<[u8; 16]> {
        (self.high == 0).then(|| self.low.to_le_bytes())
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        let (low, carry) = self.low.overflowing_add(other.low);
        let mut sum = Self { high: self.high + other.high + u8::from(carry), low };
        // Below 2p: subtracting p is adding 5 and taking 2^130 away.
        let (reduced, carry) = sum.low.overflowing_add(5);
        let high = sum.high + u8::from(carry);
        if high >= 4 {
            sum = Self { high: high - 4, low: reduced };
        }
        sum
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        // p - other, then add.
        let (low, borrow) = (u128::MAX - 4).overflowing_sub(other.low);
        let negated = Self { high: 3 - other.high - u8::from(borrow), low };
        if other == ZERO { self } else { self.plus(negated) }
    }

    pub(crate) fn times(self, other: Self) -> Self {
        (0..130).rev().fold(ZERO, |product, bit| {
            let doubled = product.plus(product);
            if other.bit(bit) { doubled.plus(self) } else { doubled }
        })
    }

    /// 1 / self: self^(p - 2), by Fermat.
    pub(crate) fn inverse(self) -> Self {
        let exponent = Self { high: 3, low: u128::MAX - 6 };
        (0..130).rev().fold(Self::new(0, 1), |power, bit| {
            let squared = power.times(power);
            if exponent.bit(bit) { squared.times(self) } else { squared }
        })
    }

    fn bit(self, bit: u32) -> bool {
        if bit < 128 { self.low >> bit & 1 == 1 } else { self.high >> (bit - 128) & 1 == 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    #[test]
    fn the_field_is_a_field() {
        let mut random = Random::new(5);
        let last = Number::new(3, u128::MAX - 5);
        assert_eq!(last.plus(Number::new(0, 1)), ZERO);
        assert_eq!(ZERO.minus(Number::new(0, 1)), last);
        assert_eq!(last.times(last), Number::new(0, 1), "(-1)^2");
        for _ in 0..50 {
            let low = u128::from(random.word()) << 64 | u128::from(random.word());
            let number = Number::new(u8::try_from(random.below(4)).unwrap(), low | 1);
            assert_eq!(number.times(number.inverse()), Number::new(0, 1));
            assert_eq!(number.minus(number), ZERO);
            assert_eq!(ZERO.minus(number).plus(number), ZERO);
        }
    }
}
