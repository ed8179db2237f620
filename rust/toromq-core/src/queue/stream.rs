//! The queue's events as a whole; `crate::events` reads them.

use super::{Queue, repeat};
use crate::{
    error::{Outcome, Result},
    link::{Call, integer, text},
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

    /// Appends an event of a program's own, and keeps about the newest `max_length`, or as many as the queue wants; gives
    /// the id of the entry.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn publish_event(
        &self,
        name: &str,
        fields: &[(String, String)],
        max_length: Option<u64>,
    ) -> Result<String> {
        let mut call = Call::new(&scripts::PUBLISH_EVENT, &self.keys);
        call.arg(max_length.map_or_else(String::new, |length| length.to_string()))
            .arg(name);
        for (field, value) in fields {
            call.arg(field).arg(value);
        }
        // An entry whose answer was lost may stand already, and whoever listens would hear of it twice.
        let reply = repeat(self.timeout, Outcome::NotDone, || self.link.call(&call)).await?;
        Ok(text(&reply))
    }
}
