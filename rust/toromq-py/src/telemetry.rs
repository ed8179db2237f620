//! What this process did, as Python reads it.

use std::collections::HashMap;

use pyo3::prelude::*;
use toromq_core::telemetry::{BOUNDS, read};

/// How often times of each class were seen, and their sum in microseconds.
type Times = (Vec<u64>, u64);
/// Prefix and name of a queue, its counts and its times by name.
type Figures = (
    String,
    String,
    HashMap<&'static str, u64>,
    HashMap<&'static str, Times>,
);

/// The upper bounds of the classes in microseconds, how many connections were made anew, and the figures of each queue.
#[pyfunction]
pub(crate) fn telemetry() -> (Vec<u64>, u64, Vec<Figures>) {
    let (reconnects, figures) = read();
    let figures = figures.into_iter().map(|figures| {
        let times = figures.times.into_iter();
        (
            figures.prefix,
            figures.queue,
            figures.counts.into_iter().collect(),
            times
                .map(|(name, times)| (name, (times.classes, times.micros)))
                .collect(),
        )
    });
    (BOUNDS.to_vec(), reconnects, figures.collect())
}
