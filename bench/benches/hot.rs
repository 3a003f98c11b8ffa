//! Every hot function alone, for criterion's statistics.
#![allow(missing_docs, reason = "criterion's macros")]

use bulkhead_bench::subject::{NAMES, named};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn hot(c: &mut Criterion) {
    for name in NAMES {
        let Some(mut subject) = named(name) else { continue };
        let mut group = c.benchmark_group("hot");
        group.throughput(Throughput::Elements(subject.packets as u64));
        group.bench_function(name, |b| b.iter(|| subject.run()));
        group.finish();
    }
}

criterion_group!(benches, hot);
criterion_main!(benches);
