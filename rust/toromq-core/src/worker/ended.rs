//! What has ended and is not written yet: put there by whoever runs jobs, taken by the loop.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

use super::JobOutcome;

/// The id and token of a job, and what became of it.
pub(super) type Finished = (String, String, JobOutcome);

/// How many are gathered while more are about to end, and for how long at most. Where the processors are what takes the
/// time, a call for each job would cost Redis and the engine more than all else that they do.
const GATHERED: usize = 16;
const PATIENCE: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Waiting {
    jobs: Vec<Finished>,
    /// How many the loop waits for.
    enough: usize,
    /// Whether no other is about to follow the last one.
    is_last: bool,
}

impl Waiting {
    fn is_enough(&self) -> bool {
        let least = if self.is_last { 1 } else { GATHERED };
        self.jobs.len() >= self.enough.max(least)
    }
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

    /// With `more` to come at once, which can't be said of what follows a job that waits.
    pub(super) fn put(&self, job: Finished, more: bool) {
        let is_due = {
            let mut waiting = self.waiting();
            waiting.jobs.push(job);
            waiting.is_last |= !more;
            // From the first that could be taken on, patience counts.
            waiting.is_enough() || waiting.jobs.len() == waiting.enough
        };
        if is_due {
            self.reached.notify_one();
        }
    }

    /// All of them.
    pub(super) fn take(&self) -> Vec<Finished> {
        let mut waiting = self.waiting();
        waiting.is_last = false;
        std::mem::take(&mut waiting.jobs)
    }

    /// Returns when there are at least `enough`; perhaps before, so look again.
    pub(super) async fn reach(&self, enough: usize) {
        self.waiting().enough = enough;
        if !self.has(enough) {
            self.reached.notified().await;
        }
        if self.has(enough) && !self.waiting().is_enough() {
            self.gather().await;
        }
    }

    fn has(&self, enough: usize) -> bool {
        self.waiting().jobs.len() >= enough
    }

    async fn gather(&self) {
        tokio::select! {
            () = self.reached.notified() => {}
            () = sleep(PATIENCE) => {}
        }
    }
}
