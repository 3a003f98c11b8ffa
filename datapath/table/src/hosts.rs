//! Single addresses to endpoints: the bucket where an address would be, and nowhere else.
//!
//! ```text
//!   10.44.0.7 ──hash──▶ bucket of 64 bytes: 8 addresses │ 8 endpoints        one cache line
//!   fd44::7   ──hash──▶ bucket of 64 bytes: 3 addresses │ 3 endpoints
//! ```
//!
//! Most endpoints of a policy are devices with one address. In a trie each would cost three to five
//! dependent loads; here all cost one, and those of a batch do not wait for each other. A host that
//! finds its bucket full stands in the trie, which is asked about every address that is not here:
//! both answers are the longest prefix, because nothing is longer than a whole address.
//!
//! The hash has no secret: what is in the table is the operator's choice, and asking for an address
//! costs the same whatever the address is.
//!
//! INVARIANT, established by [`Hosts::check`]: an address is in the bucket of its hash, once; filled
//! places come before empty ones; an empty place is all zero.

use zerocopy::byteorder::little_endian::{U32, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use bulkhead_wire::Address;

use crate::format::count;
use crate::{EndpointId, Family, TableError};

/// Places of a bucket.
pub(crate) const PLACES_V4: usize = 8;
/// Places of a bucket.
pub(crate) const PLACES_V6: usize = 3;

/// Odd, near 2^32 divided by the golden ratio, so that neighbours are spread evenly (Knuth, volume
/// 3, §6.4).
const GOLDEN_32: u32 = 0x9e37_79b1;
/// The same for 64 bits, and another odd number for the other half.
const GOLDEN_64: u64 = 0x9e37_79b9_7f4a_7c15;
const OTHER_64: u64 = 0xd6e8_feb8_6659_fd93;

/// IPv4 addresses with one hash, in host order.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct BucketV4 {
    pub(crate) addresses: [U32; PLACES_V4],
    pub(crate) endpoints: [U32; PLACES_V4],
}

/// IPv6 addresses with one hash.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct BucketV6 {
    pub(crate) addresses: [U128; PLACES_V6],
    pub(crate) endpoints: [U32; PLACES_V6],
    pub(crate) reserved: U32,
}

const _: () = assert!(size_of::<BucketV4>() == 64 && size_of::<BucketV6>() == 64);

/// The bucket of an IPv4 address, of so many.
#[inline]
pub(crate) const fn bucket_v4(address: u32, buckets: usize) -> usize {
    let hash = address.wrapping_mul(GOLDEN_32);
    // Below `buckets`, whose limit has 32 bits.
    ((hash as u64 * buckets as u64) >> 32) as usize
}

/// The bucket of an IPv6 address, of so many.
#[inline]
pub(crate) const fn bucket_v6(address: u128, buckets: usize) -> usize {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.to_le_bytes();
    let low = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let high = u64::from_le_bytes([i, j, k, l, m, n, o, p]);
    let hash = high.wrapping_mul(OTHER_64) ^ low.wrapping_mul(GOLDEN_64);
    (((hash >> 32) * buckets as u64) >> 32) as usize
}

/// The borrowed buckets of both families.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hosts<'a> {
    pub(crate) v4: &'a [BucketV4],
    pub(crate) v6: &'a [BucketV6],
}

impl Hosts<'_> {
    /// Whose address this is, if it stands here.
    #[inline]
    pub(crate) fn find(&self, address: Address) -> EndpointId {
        EndpointId(match address.ipv4_bits() {
            Some(bits) => self.find_v4(bits),
            None => self.find_v6(address.bits()),
        })
    }

    // No early exit: where an address stands is not to be guessed by a branch predictor.
    #[inline]
    fn find_v4(&self, address: u32) -> u32 {
        let Some(bucket) = self.v4.get(bucket_v4(address, self.v4.len())) else { return 0 };
        let places = bucket.addresses.iter().zip(&bucket.endpoints);
        places.fold(0, |found, (here, endpoint)| {
            found | if here.get() == address { endpoint.get() } else { 0 }
        })
    }

    #[inline]
    fn find_v6(&self, address: u128) -> u32 {
        let Some(bucket) = self.v6.get(bucket_v6(address, self.v6.len())) else { return 0 };
        let places = bucket.addresses.iter().zip(&bucket.endpoints);
        places.fold(0, |found, (here, endpoint)| {
            found | if here.get() == address { endpoint.get() } else { 0 }
        })
    }

    /// Establishes the invariant of this module, for a table of so many endpoints.
    pub(crate) fn check(&self, endpoints: usize) -> Result<(), TableError> {
        for (at, bucket) in self.v4.iter().enumerate() {
            let keys = bucket.addresses.map(|address| u128::from(address.get()));
            let home = |key| bucket_v4(u32::try_from(key).unwrap_or(0), self.v4.len()) == at;
            check_bucket(&keys, &bucket.endpoints, endpoints, home)
                .map_err(|defect| defect.of(Family::V4, at))?;
        }
        for (at, bucket) in self.v6.iter().enumerate() {
            let keys = bucket.addresses.map(|address| address.get());
            let home = |key| bucket_v6(key, self.v6.len()) == at;
            check_bucket(&keys, &bucket.endpoints, endpoints, home)
                .map_err(|defect| defect.of(Family::V6, at))?;
            if bucket.reserved.get() != 0 {
                return Err(TableError::Reserved { what: "hosts" });
            }
        }
        Ok(())
    }
}

/// What is wrong with a bucket.
enum Defect {
    Endpoint(u32),
    Place(usize),
}

impl Defect {
    const fn of(self, family: Family, bucket: usize) -> TableError {
        match self {
            Self::Endpoint(found) => TableError::HostEndpoint { family, bucket, found },
            Self::Place(place) => TableError::HostPlace { family, bucket, place },
        }
    }
}

fn check_bucket(
    keys: &[u128],
    owners: &[U32],
    endpoints: usize,
    home: impl Fn(u128) -> bool,
) -> Result<(), Defect> {
    let mut before: Option<(u128, bool)> = None;
    for (place, (&key, owner)) in keys.iter().zip(owners).enumerate() {
        let filled = owner.get() != 0;
        if count(*owner) >= endpoints {
            return Err(Defect::Endpoint(owner.get()));
        }
        // Sorted, so no address stands twice.
        let follows = match before {
            Some((last, true)) => !filled || last < key,
            Some((_, false)) => !filled,
            None => true,
        };
        let right = if filled { home(key) } else { key == 0 };
        if !follows || !right {
            return Err(Defect::Place(place));
        }
        before = Some((key, filled));
    }
    Ok(())
}
