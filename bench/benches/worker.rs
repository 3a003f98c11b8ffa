//! A whole worker, and two AEAD operations beside it, for criterion's statistics.
#![allow(missing_docs, reason = "criterion's macros")]

use bulkhead_bench::aead::{Contestant, Mix, Ring};
use bulkhead_bench::memory_cost::{BATCH, Subject};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn worker(c: &mut Criterion) {
    for (name, mix) in
        [("64 bytes", Mix::Equal(64)), ("IMIX", Mix::Imix), ("1420 bytes", Mix::Equal(1420))]
    {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(BATCH as u64));
        let mut subject = Subject::new(mix);
        group.bench_function("worker, batch of 64", |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| subject.turn()).sum());
        });
        let mut ring = Ring::new(mix.padded(), BATCH);
        let mut counter = 0;
        group.bench_function("ring, seal and open 64", |b| {
            b.iter(|| {
                counter += 1;
                ring.seal(counter);
                ring.open(counter);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, worker);
criterion_main!(benches);
