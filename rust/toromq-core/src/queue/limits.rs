//! Limits that hold for all workers of a queue: how many jobs at once, how many in a time, none for a time.

use redis::Value;

use super::Queue;
use crate::{
    error::Result,
    link::{Call, integer, items, text},
    scripts,
};

/// What is stored of the limits, and how far they are used up.
struct Limits {
    concurrency: Option<i64>,
    max: Option<i64>,
    duration: Option<i64>,
    active: i64,
    started: i64,
    ttl: i64,
}

/// A stored number; `None` where there is none, as the scripts have it.
fn stored(value: &Value) -> Option<i64> {
    // A finite float in range; what is cut off is the fraction.
    #[allow(clippy::cast_possible_truncation)]
    text(value).parse::<f64>().ok().map(|number| number as i64)
}

impl Queue {
    async fn limits(&self) -> Result<Limits> {
        let call = Call::new(&scripts::GET_LIMITS, &self.keys);
        let reply = items(self.call(&call).await?);
        let at = |place: usize| reply.get(place).unwrap_or(&Value::Nil);
        Ok(Limits {
            concurrency: stored(at(0)),
            max: stored(at(1)),
            duration: stored(at(2)),
            active: integer(at(3)),
            started: integer(at(4)),
            ttl: integer(at(5)),
        })
    }

    async fn set_limits(&self, fields: &[(&str, Option<u64>)]) -> Result<()> {
        let mut call = Call::new(&scripts::SET_GLOBAL_LIMITS, &self.keys);
        for (field, value) in fields {
            call.arg(field)
                .arg(value.map_or_else(String::new, |value| value.to_string()));
        }
        self.call(&call).await.map(|_| ())
    }

    /// How many jobs may be active at once, over all workers; `None` for any number.
    ///
    /// # Errors
    ///
    /// As [`Link::call`](crate::link::Link::call), like all methods here.
    pub async fn set_global_concurrency(&self, concurrency: Option<u64>) -> Result<()> {
        self.set_limits(&[("concurrency", concurrency)]).await
    }

    /// See [`Queue::set_global_concurrency`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn get_global_concurrency(&self) -> Result<Option<i64>> {
        Ok(self.limits().await?.concurrency)
    }

    /// Whether as many jobs are active as may be.
    ///
    /// # Errors
    ///
    /// As [`Queue::set_global_concurrency`].
    pub async fn is_maxed(&self) -> Result<bool> {
        let limits = self.limits().await?;
        Ok(limits.concurrency.is_some_and(|most| limits.active >= most))
    }

    /// How many jobs may start in how many milliseconds, over all workers; `None` for any number.
    ///
    /// # Errors
    ///
    /// As [`Queue::set_global_concurrency`].
    pub async fn set_global_rate_limit(&self, limit: Option<(u64, u64)>) -> Result<()> {
        // Always both: with a maximum alone, other clients' workers take a job and break.
        let (max, duration) = limit.unzip();
        self.set_limits(&[("max", max), ("duration", duration)])
            .await
    }

    /// See [`Queue::set_global_rate_limit`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn get_global_rate_limit(&self) -> Result<Option<(i64, i64)>> {
        let limits = self.limits().await?;
        Ok(limits.max.zip(limits.duration))
    }

    /// Lets no job start for so many milliseconds, or with `None` ends that and the current rate window; whether there
    /// was one to end.
    ///
    /// # Errors
    ///
    /// As [`Queue::set_global_concurrency`].
    pub async fn set_rate_limit(&self, duration: Option<u64>) -> Result<bool> {
        let mut call = Call::new(&scripts::SET_RATE_LIMIT, &self.keys);
        call.arg(duration.map_or_else(String::new, |duration| duration.to_string()));
        Ok(integer(&self.call(&call).await?) == 1)
    }

    /// Milliseconds until a job may start: 0 for now, by `max` or else the queue's own maximum. Without either, what is
    /// left of the rate window; -2 where there is none.
    ///
    /// # Errors
    ///
    /// As [`Queue::set_global_concurrency`].
    pub async fn get_rate_limit_ttl(&self, max: Option<i64>) -> Result<i64> {
        let limits = self.limits().await?;
        Ok(match max.or(limits.max) {
            Some(max) if limits.started < max => 0,
            Some(_) => limits.ttl.max(0),
            None => limits.ttl,
        })
    }
}
