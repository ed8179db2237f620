//! What has ended and is not written yet: put there by whoever runs jobs, taken by the loop.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::JobOutcome;

/// The id and token of a job, and what became of it.
pub(super) type Finished = (String, String, JobOutcome);

#[derive(Default)]
struct Waiting {
    jobs: Vec<Finished>,
    /// How many the loop waits for.
    enough: usize,
}

#[derive(Default)]
pub(super) struct Ended {
    waiting: Mutex<Waiting>,
    /// Wakes the loop. To wake a thread costs more than to end a job, so it is done once for as many as it waits for.
    reached: Notify,
}

impl Ended {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, job: Finished) {
        let is_enough = {
            let mut waiting = self.waiting();
            waiting.jobs.push(job);
            waiting.jobs.len() >= waiting.enough
        };
        if is_enough {
            self.reached.notify_one();
        }
    }

    /// All of them.
    pub(super) fn take(&self) -> Vec<Finished> {
        std::mem::take(&mut self.waiting().jobs)
    }

    /// Returns when there are at least `enough`; perhaps before, so look again.
    pub(super) async fn reach(&self, enough: usize) {
        {
            let mut waiting = self.waiting();
            waiting.enough = enough;
            if waiting.jobs.len() >= enough {
                return;
            }
        }
        self.reached.notified().await;
    }
}
