//! What is done to one job.

use std::time::Duration;

use super::{Queue, repeat};
use crate::{
    clock::wall_ms,
    error::{Outcome, Result},
    link::Call,
    scripts::{self, Code},
    worker::{self, Move, Run},
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

    /// Keeps the newest `keep` lines of a job's log, none for 0.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn clear_logs(&self, id: &str, keep: i64) -> Result<()> {
        let logs = format!("{}:logs", self.keys.job(id));
        let mut call = Call::on(&scripts::CLEAR_LOGS, vec![logs]);
        call.number(keep);
        self.call(&call).await.map(|_| ())
    }

    /// Queues a completed or failed job again.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::Script`] when there is no such job, or it is in another state.
    pub async fn retry_job(&self, id: &str, state: &str, options: RetryOptions) -> Result<()> {
        let keys = [
            state,
            "wait",
            "active",
            "prioritized",
            "marker",
            "meta",
            "events",
            "pc",
        ];
        let keys = keys.iter().map(|name| self.keys.of(name)).collect();
        let mut call = Call::on(&scripts::RETRY_JOB, keys);
        call.arg(self.keys.base()).arg(id).arg(state);
        for option in [
            options.lifo,
            options.reset_attempts_made,
            options.reset_attempts_started,
        ] {
            call.arg(if option { "1" } else { "" });
        }
        self.checked_once("retry", id, &call).await.map(|_| ())
    }

    /// Queues a delayed job before its time.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::Script`] when there is no such job, or it is not delayed.
    pub async fn promote_job(&self, id: &str) -> Result<()> {
        let mut call = Call::new(&scripts::PROMOTE_JOB, &self.keys);
        call.arg(self.keys.base()).arg(id);
        self.checked_once("promote", id, &call).await.map(|_| ())
    }

    /// Lets a delayed job wait `delay` milliseconds from now.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::Script`] when there is no such job, or it is not delayed.
    pub async fn change_delay(&self, id: &str, delay: i64) -> Result<()> {
        let mut call = Call::new(&scripts::CHANGE_DELAY, &self.keys);
        call.arg(self.keys.base())
            .arg(id)
            .number(wall_ms())
            .number(delay);
        self.checked_once("change the delay", id, &call)
            .await
            .map(|_| ())
    }

    /// Gives a job another priority; with `lifo` it is the next of that priority to run.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::Script`] when there is no such job.
    pub async fn change_priority(&self, id: &str, priority: i64, lifo: bool) -> Result<()> {
        let mut call = Call::new(&scripts::CHANGE_PRIORITY, &self.keys);
        call.arg(self.keys.base())
            .arg(id)
            .number(priority)
            .arg(if lifo { "1" } else { "" });
        self.checked("change the priority", id, &call)
            .await
            .map(|_| ())
    }

    /// Deletes a job's pending children but for those that run or have failed; gives how many.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn remove_unprocessed_children(&self, id: &str) -> Result<i64> {
        let keys = vec![self.keys.job(id)];
        let mut call = Call::on(&scripts::REMOVE_UNPROCESSED_CHILDREN, keys);
        call.arg(self.keys.base()).arg(id);
        self.checked("remove unprocessed children", id, &call).await
    }

    /// Lets a job's parent no longer wait for it; whether it did.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::Script`] when there is no such job, or it has no parent.
    pub async fn remove_child_dependency(&self, id: &str) -> Result<bool> {
        let keys = vec![self.keys.job(id)];
        let call = Call::on(&scripts::REMOVE_CHILD_DEPENDENCY, keys);
        let reply = self
            .checked_once("remove the child dependency", id, &call)
            .await?;
        Ok(reply == 0)
    }

    /// Puts a job somewhere else that is active and locked under the run's token; false where there was nothing to wait
    /// for, and the job stays.
    ///
    /// # Errors
    ///
    /// [`Error::Script`](crate::error::Error::Script) when it is refused.
    pub async fn move_job(&self, run: &Run, to: &Move) -> Result<bool> {
        worker::move_job(&self.link, &self.keys, run, to).await
    }

    /// Sets the time that a job's lock lives from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Script`](crate::error::Error::Script) when the lock is another's or gone.
    pub async fn extend_lock(&self, run: &Run, duration: u64) -> Result<()> {
        worker::still_ours(
            self.extend_locks(std::slice::from_ref(run), duration)
                .await?,
        )
    }

    /// Sets the time that locks live from now on; gives those that are another's or gone, and why.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn extend_locks(&self, runs: &[Run], duration: u64) -> Result<Vec<(String, Code)>> {
        let life = Duration::from_millis(duration);
        worker::extend_locks(&self.link, &self.keys, runs, life).await
    }
}

/// How a finished job is queued again.
#[derive(Debug, Clone, Copy, Default)]
pub struct RetryOptions {
    /// Before the standard jobs that wait.
    pub lifo: bool,
    /// As if it had never ended.
    pub reset_attempts_made: bool,
    /// As if it had never begun.
    pub reset_attempts_started: bool,
}
