//! The steps of the hot path, without a server. Each figure is for 64 jobs.
#![allow(missing_docs)] // of what the macros make

use std::cell::RefCell;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fixtures::{HotPath, JOBS};

mod fixtures;

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(JOBS as u64));
    let mut path = HotPath::new();
    group.bench_function("add, encode", |b| b.iter(|| path.add_encode()));
    group.bench_function("add, decode", |b| b.iter(|| path.add_decode()));
    group.bench_function("finish and fetch, encode", |b| {
        b.iter(|| path.finish_encode())
    });
    group.bench_function("finish and fetch, parse", |b| b.iter(|| path.fetch_parse()));
    group.bench_function("JSON of 10 KB, check", |b| b.iter(|| path.json_check()));
    group.finish();
}

fn dispatch(c: &mut Criterion) {
    let mut group = c.benchmark_group("dispatch");
    group.throughput(Throughput::Elements(JOBS as u64));
    let path = RefCell::new(HotPath::new());
    path.borrow_mut().fetch();
    group.bench_function("fetch: a reply to jobs that run", |b| {
        b.iter_batched(
            || path.borrow_mut().end(),
            |()| path.borrow_mut().fetch(),
            BatchSize::PerIteration,
        );
    });
    path.borrow_mut().end();
    group.bench_function("end: what jobs returned to what is to be written", |b| {
        b.iter_batched(
            || path.borrow_mut().fetch(),
            |()| path.borrow_mut().end(),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("a worker's round, all in one", |b| {
        b.iter(|| path.borrow_mut().round());
    });
    group.finish();
}

fn lock_manager(c: &mut Criterion) {
    let mut group = c.benchmark_group("lock manager");
    group.throughput(Throughput::Elements(JOBS as u64));
    let mut path = HotPath::new();
    path.fetch();
    group.bench_function("look and note, all locks due", |b| b.iter(|| path.renew()));
    group.finish();
}

criterion_group!(benches, codec, dispatch, lock_manager);
criterion_main!(benches);
