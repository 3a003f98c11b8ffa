//! A whole worker, and two AEAD operations beside it, for criterion's statistics.
#![allow(missing_docs, reason = "criterion's macros")]

use bulkhead_bench::memory_cost::{BATCH, Rival, Subject};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn worker(c: &mut Criterion) {
    for len in [64, 512, 1420] {
        let mut group = c.benchmark_group(format!("{len} bytes"));
        group.throughput(Throughput::Elements(BATCH as u64));
        let mut subject = Subject::new(len);
        group.bench_function("worker, batch of 64", |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| subject.turn()).sum());
        });
        let mut rival = Rival::new(len);
        group.bench_function("ring, open and seal 64", |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| rival.turn()).sum());
        });
        group.finish();
    }
}

criterion_group!(benches, worker);
criterion_main!(benches);
