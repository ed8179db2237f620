//! When a cron pattern fires: a pattern, a time zone and a moment in, the next moment out. No clock, no server.
//!
//! Two clients that share a scheduler must agree on its slots, so the dialect is the one of the npm package cron-parser
//! 5, which Node's workers use, down to its oddities; `tests/cron` holds thousands of its answers. Where it gives no answer
//! (it gives up after a number of steps), this one goes on searching.

mod error;
mod pattern;
mod seed;
mod walk;
mod zone;

pub use error::CronError;

use pattern::Fields;
use zone::Zone;

/// A cron pattern in a time zone.
#[derive(Debug, Clone)]
pub struct Cron {
    fields: Fields,
    zone: Zone,
}

impl Cron {
    /// Reads a pattern of up to six fields, or a name such as `@daily`, and the name of a zone.
    ///
    /// `H` stands for a value that follows from `hash_seed`, as in Node; without a seed, or with an empty one, it is drawn
    /// anew by each call.
    ///
    /// # Errors
    ///
    /// Says which field, what was given, and what is allowed.
    pub fn parse(pattern: &str, zone: &str, hash_seed: Option<&str>) -> Result<Self, CronError> {
        Ok(Self {
            fields: Fields::parse(pattern, hash_seed)?,
            zone: Zone::parse(zone)?,
        })
    }

    /// The first time the pattern fires strictly after `ms`, in milliseconds since the epoch; always a whole second.
    ///
    /// `None` if it never does, or not within a hundred years.
    #[must_use]
    pub fn next_after(&self, ms: i64) -> Option<i64> {
        Some(self.fire_after(ms)?.ms)
    }

    /// The same, with what the wall clock shows then.
    #[must_use]
    pub fn fire_after(&self, ms: i64) -> Option<Fire> {
        let (moment, stands_in) = walk::next_after(&self.fields, &self.zone, ms)?;
        Some(Fire {
            ms: moment.utc.checked_mul(1000)?,
            offset: moment.offset,
            stands_in,
        })
    }
}

/// One time a pattern fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fire {
    /// Milliseconds since the epoch.
    pub ms: i64,
    /// How many seconds the zone's clocks are ahead of UTC then.
    pub offset: i32,
    /// It fires in place of a time of day that does not exist that day, because the clocks are put forward.
    pub stands_in: bool,
}

#[cfg(test)]
mod tests;
