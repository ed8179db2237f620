//! The steps of a worker, one by one and without a connection: for the benches and the guard of instruction counts.

use std::{sync::Arc, time::Duration};

use redis::Value;
use tokio::time::Instant;

use super::{
    JobOutcome, Run, Sink, Worker, WorkerSettings,
    exchange::{entry, prepare, take_reply},
    lock_manager::{look, note_renewal},
    outcome::Entry,
};
use crate::{clock::wall_ms, connection::ConnectionSettings, job::JobRecord, keys::QueueKeys};

/// A worker whose loop does not run.
pub struct Working {
    worker: Worker,
    /// Under which the last call fetches.
    token: String,
}

/// What has ended, as the next call takes it.
#[derive(Default)]
pub struct Batch(Vec<Entry>);

impl Working {
    /// One that would use this connection.
    #[must_use]
    pub fn new(
        connection: &ConnectionSettings,
        keys: QueueKeys,
        settings: WorkerSettings,
        sink: Arc<dyn Sink>,
    ) -> Self {
        let worker = Worker::at_rest(connection, keys, settings, sink);
        Self {
            token: worker.shared.next_token(),
            worker,
        }
    }

    /// Says of each job that its processor returned.
    pub fn finish(&self, jobs: &[Arc<JobRecord>], returnvalue: &[u8]) {
        for job in jobs {
            let outcome = JobOutcome::Completed {
                returnvalue: returnvalue.to_vec(),
                watched: false,
            };
            let (id, token) = (job.id.clone(), job.token.clone());
            let ran = Some(Duration::from_micros(5));
            self.worker.finish(id, token, outcome, ran);
        }
    }

    /// What the loop makes of all that has ended.
    pub fn gather(&mut self) -> Batch {
        let shared = &self.worker.shared;
        let ended = shared.ended.take(false).into_iter();
        let entries = ended.filter_map(|(id, token, outcome)| entry(shared, &id, &token, outcome));
        Batch(entries.collect())
    }

    /// The bytes of the call that writes a batch and fetches `want` jobs.
    pub fn encode(&mut self, batch: &Batch, want: usize) -> Vec<u8> {
        let shared = &self.worker.shared;
        self.token = shared.next_token();
        prepare(
            &shared.keys,
            &shared.settings,
            &self.token,
            &batch.0,
            want,
            wall_ms(),
            false,
        )
        .packed()
    }

    /// Takes what the script said of a batch, holds the jobs that it gave, and tells the sink of them.
    pub fn take(&self, batch: &Batch, reply: Value) {
        let (sent, now) = (Instant::now(), wall_ms());
        let (shared, token) = (&self.worker.shared, self.token.clone());
        let (fetched, brought) = take_reply(shared, &batch.0, token, reply, sent, now);
        assert!(fetched.again.is_empty(), "an outcome was refused");
        assert!(brought.open(shared).is_empty(), "a job was refused");
    }

    /// Looks for locks to renew, as if all were old enough, and takes note of their renewal; gives how many.
    #[must_use]
    pub fn renew(&self) -> usize {
        let shared = &self.worker.shared;
        let (aged, lost): (Vec<Run>, _) = look(shared, Duration::ZERO);
        assert!(lost.is_empty(), "a lock ran out");
        let life = Duration::from_millis(shared.settings.lock_duration);
        note_renewal(shared, &aged, &[], Instant::now(), life);
        aged.len()
    }
}
