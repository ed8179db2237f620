//! What is done to one job.

use super::{Queue, repeat};
use crate::{
    error::{Outcome, Result},
    link::Call,
    scripts,
};

impl Queue {
    /// Replaces a job's data (JSON text).
    ///
    /// # Errors
    ///
    /// [`Error::Script`] when there is no such job.
    pub async fn update_data(&self, id: &str, data: &[u8]) -> Result<()> {
        let mut call = Call::on(&scripts::UPDATE_DATA, vec![self.keys.job(id)]);
        call.arg(data);
        self.checked("update_data", id, &call).await.map(|_| ())
    }

    /// Stores and publishes a job's progress (JSON text).
    ///
    /// # Errors
    ///
    /// [`Error::Script`] when there is no such job.
    pub async fn update_progress(&self, id: &str, progress: &[u8]) -> Result<()> {
        let keys = vec![
            self.keys.job(id),
            self.keys.of("meta"),
            self.keys.of("events"),
        ];
        let mut call = Call::on(&scripts::UPDATE_PROGRESS, keys);
        call.arg(id).arg(progress);
        self.checked("update_progress", id, &call).await.map(|_| ())
    }

    /// Appends a line to a job's log and keeps the newest `keep`, all for 0; gives how many there are.
    ///
    /// # Errors
    ///
    /// [`Error::Script`] when there is no such job.
    pub async fn add_log(&self, id: &str, line: &str, keep: i64) -> Result<i64> {
        let key = self.keys.job(id);
        let logs = format!("{key}:logs");
        let mut call = Call::on(&scripts::ADD_LOG, vec![key, logs]);
        call.arg(line).number(keep);
        // A line whose answer was lost may stand already, and a second one would be a lie.
        let reply = repeat(self.timeout, Outcome::NotDone, || self.link.call(&call)).await?;
        Self::check("log", id, reply)
    }
}
