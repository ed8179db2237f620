//! What workers counted for each minute.

use super::Queue;
use crate::{
    error::Result,
    link::{Call, integer, items},
    scripts,
};

/// How many jobs completed or failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Series {
    /// In all.
    pub count: i64,
    /// When the newest point was written, in milliseconds since the epoch; 0 before the first.
    pub previous_time: i64,
    /// How many there were in all at that time.
    pub previous_count: i64,
    /// How many points there are.
    pub length: i64,
    /// Those asked for: how many in each minute, newest first.
    pub points: Vec<i64>,
}

impl Queue {
    /// The series of `target`, which is completed or failed, and its points from `start` to `last`.
    ///
    /// # Errors
    ///
    /// As [`Link::call`](crate::link::Link::call).
    pub async fn get_metrics(&self, target: &str, start: i64, last: i64) -> Result<Series> {
        let metrics = self.keys.of(&format!("metrics:{target}"));
        let points = format!("{metrics}:data");
        let mut call = Call::on(&scripts::GET_METRICS, vec![metrics, points]);
        call.number(start).number(last);
        let mut reply = items(self.call(&call).await?).into_iter();
        let mut number = || reply.next().map_or(0, |value| integer(&value));
        Ok(Series {
            count: number(),
            previous_time: number(),
            previous_count: number(),
            length: number(),
            points: reply
                .next()
                .map(items)
                .unwrap_or_default()
                .iter()
                .map(integer)
                .collect(),
        })
    }
}
