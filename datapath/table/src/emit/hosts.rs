//! Hosts to buckets.

use zerocopy::byteorder::little_endian::{U32, U128};

use super::trie::Prefix;
use crate::Family;
use crate::hosts::{BucketV4, BucketV6, PLACES_V4, PLACES_V6, bucket_v4, bucket_v6};

/// The buckets of both families.
#[derive(Debug, Default)]
pub(super) struct RawHosts {
    pub(super) v4: Vec<BucketV4>,
    pub(super) v6: Vec<BucketV6>,
}

impl RawHosts {
    /// Takes the hosts out of the sorted `prefixes` of a family; those whose bucket is full stay.
    pub(super) fn take(&mut self, family: Family, prefixes: &mut Vec<Prefix>) {
        let hosts = prefixes.iter().filter(|prefix| prefix.len == family.bits()).count();
        // Half full, so that few of them overflow: one in a hundred IPv4 hosts, three IPv6 hosts.
        match family {
            Family::V4 => self.v4.resize(hosts.div_ceil(PLACES_V4 / 2), BucketV4::default()),
            Family::V6 => self.v6.resize((2 * hosts).div_ceil(PLACES_V6), BucketV6::default()),
        }
        prefixes.retain(|prefix| prefix.len != family.bits() || !self.add(family, prefix));
    }

    /// Whether there was room.
    fn add(&mut self, family: Family, host: &Prefix) -> bool {
        let endpoint = U32::new(host.endpoint);
        match family {
            Family::V4 => {
                let address = u32::try_from(host.key >> 96).unwrap_or(0);
                let at = bucket_v4(address, self.v4.len());
                let Some(bucket) = self.v4.get_mut(at) else { return false };
                put(&mut bucket.addresses, &mut bucket.endpoints, U32::new(address), endpoint)
            }
            Family::V6 => {
                let at = bucket_v6(host.key, self.v6.len());
                let Some(bucket) = self.v6.get_mut(at) else { return false };
                put(&mut bucket.addresses, &mut bucket.endpoints, U128::new(host.key), endpoint)
            }
        }
    }
}

/// Puts a host into the first empty place. Hosts come sorted, and so they stand.
fn put<A>(addresses: &mut [A], endpoints: &mut [U32], address: A, endpoint: U32) -> bool {
    let mut places = addresses.iter_mut().zip(endpoints);
    let Some(place) = places.find(|(_, endpoint)| **endpoint == U32::ZERO) else { return false };
    *place.0 = address;
    *place.1 = endpoint;
    true
}
