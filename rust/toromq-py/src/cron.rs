//! When a cron pattern fires.

use pyo3::prelude::*;
use toromq_core::{cron::Cron, error::Error};

use crate::errors::to_python;

/// The next `count` times after `after_ms`: milliseconds since the epoch, seconds ahead of UTC, and whether the time stands in
/// for one that does not exist that day. Fewer if there are no more.
#[pyfunction]
pub(crate) fn cron_next(
    pattern: &str,
    tz: &str,
    after_ms: i64,
    count: usize,
    hash_seed: Option<&str>,
) -> PyResult<Vec<(i64, i32, bool)>> {
    let cron =
        Cron::parse(pattern, tz, hash_seed).map_err(|error| to_python(&Error::from(error)))?;
    let first = cron.fire_after(after_ms);
    Ok(
        std::iter::successors(first, |fire| cron.fire_after(fire.ms))
            .take(count)
            .map(|fire| (fire.ms, fire.offset, fire.stands_in))
            .collect(),
    )
}
