//! Deduplication: what an add says of it, and looking at or ending a window.

use super::Queue;
use crate::{
    error::Result,
    link::{Call, integer, text},
    scripts,
};

/// What a job that is added says of other jobs with the same deduplication id.
#[derive(Debug, Clone, Default)]
pub struct Deduplication {
    /// The id.
    pub id: String,
    /// Milliseconds until the window ends, or 0: it ends with its owner.
    pub ttl: i64,
    /// Whether a rejected add starts the window anew.
    pub extend: bool,
    /// Whether a delayed owner gives way.
    pub replace: bool,
    /// Whether a rejected add delays a delayed owner anew.
    pub reschedule: bool,
    /// Whether the last add rejected while the owner was active follows it.
    pub keep_last: bool,
}

impl Deduplication {
    /// The names and values by which the script knows it.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'static str, String)> {
        let flags = [
            ("extend", self.extend),
            ("replace", self.replace),
            ("reschedule", self.reschedule),
            ("keep_last", self.keep_last),
        ];
        let flags = flags
            .into_iter()
            .filter(|(_, set)| *set)
            .map(|(name, _)| (name, "1".to_owned()));
        [
            ("deduplication_id", self.id.clone()),
            ("ttl", self.ttl.to_string()),
        ]
        .into_iter()
        .chain(flags)
    }
}

impl Queue {
    /// The id of the job that owns a deduplication id, empty for none.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::send`].
    pub async fn deduplication_owner(&self, id: &str) -> Result<String> {
        let key = self.keys.deduplication(id);
        let owner = self
            .send("get_deduplication_job_id", redis::cmd("GET").arg(key))
            .await?;
        Ok(text(&owner))
    }

    /// Ends a deduplication window, with `job_id` only while that job owns it; gives whether there was one.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn remove_deduplication_key(&self, id: &str, job_id: &str) -> Result<bool> {
        let keys = vec![self.keys.deduplication(id)];
        let mut call = Call::on(&scripts::REMOVE_DEDUPLICATION_KEY, keys);
        call.arg(job_id);
        Ok(integer(&self.call(&call).await?) == 1)
    }
}
