//! What has ended and is not written yet: put there by whoever runs jobs, taken by the loop.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

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
    /// Until when the first of them may wait for others.
    until: Option<Instant>,
}

impl Waiting {
    /// Whether they need not wait for others.
    fn is_ready(&self) -> bool {
        self.is_last
            || self.jobs.len() >= GATHERED
            || self.until.is_some_and(|until| until <= Instant::now())
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
            let is_first = waiting.jobs.is_empty();
            waiting.jobs.push(job);
            waiting.is_last |= !more;
            if is_first && more {
                waiting.until = Some(Instant::now() + PATIENCE);
            }
            // From the first that could be taken on, the loop counts the time.
            let jobs = waiting.jobs.len();
            jobs == waiting.enough || (jobs > waiting.enough && waiting.is_ready())
        };
        if is_due {
            self.reached.notify_one();
        }
    }

    /// All of them, but for those that may wait for others, if they `may_wait`.
    pub(super) fn take(&self, may_wait: bool) -> Vec<Finished> {
        let mut waiting = self.waiting();
        if may_wait && !waiting.is_ready() {
            return Vec::new();
        }
        waiting.is_last = false;
        waiting.until = None;
        std::mem::take(&mut waiting.jobs)
    }

    /// Returns when there are at least `enough` that need not wait for others; perhaps before, so look again.
    pub(super) async fn reach(&self, enough: usize) {
        let until = {
            let mut waiting = self.waiting();
            waiting.enough = enough;
            let has_enough = waiting.jobs.len() >= enough;
            if has_enough && waiting.is_ready() {
                return;
            }
            waiting.until.filter(|_| has_enough)
        };
        match until {
            None => self.reached.notified().await,
            Some(until) => tokio::select! {
                () = self.reached.notified() => {}
                () = sleep_until(until) => {}
            },
        }
    }
}
