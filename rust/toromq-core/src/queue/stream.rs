//! The queue's events as a whole; `crate::events` reads them.

use super::Queue;
use crate::{
    error::Result,
    link::{Call, integer},
    scripts,
};

impl Queue {
    /// Drops old events and keeps about the newest `max_length`; gives how many went. After an outage it may say too few.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn trim_events(&self, max_length: i64) -> Result<i64> {
        let mut call = Call::new(&scripts::TRIM_EVENTS, &self.keys);
        call.number(max_length);
        Ok(integer(&self.call(&call).await?))
    }
}
