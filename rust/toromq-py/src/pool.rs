//! Jobs for threads: plain functions run in threads of Python that take one job after the other here.
//!
//! A thread that takes a job while others wait to be taken wakes one more, and that one the next. Under the interpreter's
//! lock this is what keeps it cheap: a function that never waits is called again and again by one thread, and a function
//! that does wait lets the woken thread take the next job at once.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use pyo3::prelude::*;
use toromq_core::job::JobRecord;

use crate::runtime;

#[derive(Default)]
struct State {
    jobs: VecDeque<Arc<JobRecord>>,
    /// Threads that were started and have not ended.
    threads: usize,
    most: usize,
    waiting: usize,
    /// Whether a thread is on its way here.
    waking: bool,
    ended: bool,
}

impl State {
    /// A spare thread is there before it is needed: only a thread of Python can start one.
    fn wants_spare(&mut self) -> bool {
        let wanted = self.waiting == 0 && !self.waking && self.threads < self.most && !self.ended;
        if wanted {
            self.threads += 1;
            self.waking = true;
        }
        wanted
    }
}

pub(crate) struct Pool {
    state: Mutex<State>,
    ready: Condvar,
}

/// What a thread was given: a job, and whether it must start one more thread.
pub(crate) struct Taken {
    pub(crate) job: Arc<JobRecord>,
    pub(crate) start_another: bool,
}

impl Pool {
    /// For at most `most` threads, the first of which its owner starts.
    pub(crate) fn new(most: usize) -> Self {
        let state = State {
            threads: 1,
            most,
            waking: true,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            ready: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more thread must be started for it.
    pub(crate) fn set_most(&self, most: usize) -> bool {
        let mut state = self.state();
        state.most = most;
        state.wants_spare()
    }

    pub(crate) fn put(&self, jobs: Vec<Arc<JobRecord>>) {
        let mut state = self.state();
        state.jobs.extend(jobs);
        self.wake_one(&mut state);
    }

    fn wake_one(&self, state: &mut State) {
        if !state.jobs.is_empty() && state.waiting > 0 && !state.waking {
            state.waking = true;
            self.ready.notify_one();
        }
    }

    /// Takes out a run that no thread has begun; whether there was one.
    pub(crate) fn withdraw(&self, run: &JobRecord) -> bool {
        let mut state = self.state();
        let before = state.jobs.len();
        state
            .jobs
            .retain(|job| (&job.id, &job.token) != (&run.id, &run.token));
        state.jobs.len() < before
    }

    /// Whether there are jobs that no thread has begun.
    pub(crate) fn has_jobs(&self) -> bool {
        !self.state().jobs.is_empty()
    }

    /// Takes out all jobs that no thread has begun.
    pub(crate) fn withdraw_all(&self) -> VecDeque<Arc<JobRecord>> {
        std::mem::take(&mut self.state().jobs)
    }

    /// Lets all threads go once they have done what they are at.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.ready.notify_all();
    }

    /// A thread could not be started after all.
    pub(crate) fn not_started(&self) {
        let mut state = self.state();
        state.threads -= 1;
        state.waking = false;
        self.wake_one(&mut state);
    }

    /// The next job, once there is one; `None` when the thread is to end. `new` for the first call of a thread.
    pub(crate) fn take(&self, py: Python<'_>, new: bool) -> Option<Taken> {
        if let Some(taken) = self.try_take(&mut self.state(), new) {
            return taken;
        }
        py.detach(|| {
            let mut state = self.state();
            loop {
                if let Some(taken) = self.try_take(&mut state, false) {
                    return taken;
                }
                state.waiting += 1;
                state = self
                    .ready
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                if runtime::is_finalising() {
                    drop(state);
                    runtime::stay();
                }
                state.waiting -= 1;
                state.waking = false;
            }
        })
    }

    /// `None` when there is nothing to be had now.
    // One answer for "end", one for "take this", one for "wait".
    #[allow(clippy::option_option)]
    fn try_take(&self, state: &mut State, new: bool) -> Option<Option<Taken>> {
        if new {
            state.waking = false;
        }
        if state.ended {
            state.threads -= 1;
            return Some(None);
        }
        let job = state.jobs.pop_front()?;
        self.wake_one(state);
        let start_another = state.wants_spare();
        Some(Some(Taken { job, start_another }))
    }
}
