//! Taking and finishing jobs one by one, without a worker's loop.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::Value;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    JobOutcome, Sink, WorkerSettings,
    counting_sink::{CountingSink, note_start},
    exchange::{fetched_jobs, prepare},
    marker,
    moves::persist,
    outcome::describe,
    schedulers,
    stalled_checker::check_stalled,
};
use crate::{
    clock::wall_ms,
    connection::ConnectionSettings,
    error::{Error, Result},
    job::JobRecord,
    keys::QueueKeys,
    link::{Backoff, Call, Link, integer, items},
    scripts::{self, Code},
    telemetry::{self, Activity},
};

// Of a wait for a marker: the server takes 0 for ever.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);

/// How long there is nothing to fetch, if nobody says otherwise by a marker.
enum Next {
    /// Until the rate limit ends; then no marker tells of anything.
    Limited(Duration),
    /// Until a delayed job is due.
    Due(Duration),
}

/// Ends a fetch that nobody waits for any more.
#[derive(Debug, Clone, Default)]
pub struct FetchEnd {
    token: CancellationToken,
    /// The job that is on its way to who waits.
    brought: Arc<Mutex<Option<JobRecord>>>,
}

impl FetchEnd {
    /// Now. A job that it has got already goes back to where it waited; one that is on its way the caller puts back, by
    /// [`ByHand::finish`].
    #[must_use]
    pub fn end(&self) -> Option<JobRecord> {
        self.token.cancel();
        self.brought().take()
    }

    /// A job is on its way from now on, unless the fetch has ended; whether it is.
    fn brings(&self, job: &JobRecord) -> bool {
        let mut brought = self.brought();
        let is_awaited = !self.token.is_cancelled();
        if is_awaited {
            *brought = Some(job.clone());
        }
        is_awaited
    }

    fn brought(&self) -> MutexGuard<'_, Option<JobRecord>> {
        self.brought.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes and finishes jobs for a user who runs them without a worker's loop. Locks are not renewed.
#[derive(Debug)]
pub struct ByHand {
    keys: QueueKeys,
    link: Link,
    blocking: Link,
    settings: WorkerSettings,
    activity: Arc<Activity>,
    /// Ends the stalled check that was asked for.
    checking: Mutex<Option<DropGuard>>,
}

impl ByHand {
    /// Nothing is sent until it is used.
    #[must_use]
    pub fn new(connection: &ConnectionSettings, keys: QueueKeys, settings: WorkerSettings) -> Self {
        let blocking = Link::blocking(connection, keys.worker_client_name(&settings.name));
        Self {
            activity: telemetry::of(&keys),
            link: Link::new(connection),
            blocking,
            keys,
            settings,
            checking: Mutex::default(),
        }
    }

    /// Looks for stalled jobs now and after each interval, until it is stopped or dropped. Must be called within a Tokio
    /// runtime.
    pub fn check_stalled(&self, connection: &ConnectionSettings, sink: Arc<dyn Sink>) {
        let sink = CountingSink {
            activity: Arc::clone(&self.activity),
            inner: sink,
        };
        let stop = CancellationToken::new();
        let (link, keys, settings) = (
            Link::new(connection),
            self.keys.clone(),
            self.settings.clone(),
        );
        let check = async move { check_stalled(&link, &keys, &settings, &sink).await };
        tokio::spawn(stop.clone().run_until_cancelled_owned(check));
        *self.checking() = Some(stop.drop_guard());
    }

    /// Stops looking for stalled jobs.
    pub fn stop_checking(&self) {
        self.checking().take();
    }

    fn checking(&self) -> MutexGuard<'_, Option<DropGuard>> {
        self.checking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one job active under `token`; with `block`, waits up to the drain delay for one. The job after one of a job
    /// scheduler is made; what stood in the way of that comes along. Nothing comes of it after its `end`.
    ///
    /// # Errors
    ///
    /// As [`Link::call`].
    pub async fn fetch(
        &self,
        token: &str,
        block: bool,
        end: &FetchEnd,
    ) -> Result<(Option<JobRecord>, Vec<Error>)> {
        let found = match self.fetch_now(token).await? {
            (None, next) if block => {
                let waiting = self.wait_and_fetch(token, next, end);
                waiting.await?
            }
            (found, _) => found,
        };
        let Some(job) = found else {
            return Ok((None, Vec::new()));
        };
        if end.token.is_cancelled() {
            self.finish(job, JobOutcome::Wait).await?;
            return Ok((None, Vec::new()));
        }
        let job = Arc::new(job);
        let reported = self.advance(&job).await?;
        let job = Arc::unwrap_or_clone(job);
        if !end.brings(&job) {
            self.finish(job, JobOutcome::Wait).await?;
            return Ok((None, Vec::new()));
        }
        Ok((Some(job), reported))
    }

    async fn advance(&self, job: &Arc<JobRecord>) -> Result<Vec<Error>> {
        let mut reported = Vec::new();
        if schedulers::scheduler_of(job).is_none() {
            return Ok(reported);
        }
        let jobs = std::slice::from_ref(job);
        let deadline = Instant::now() + self.link.command_timeout();
        let mut backoff = Backoff::new(500);
        loop {
            match schedulers::iterate(&self.link, &self.keys, jobs, &mut reported).await {
                Err(error) if error.may_pass() && Instant::now() < deadline => {
                    reported.clear();
                    backoff.pause().await;
                    continue;
                }
                // Not run, it is found by the stalled check, and whoever runs it then makes the next one.
                Err(error) if error.may_pass() => return Err(error),
                Err(error) => reported.push(schedulers::not_made(job, &error)),
                Ok(()) => {}
            }
            return Ok(reported);
        }
    }

    /// Looks again when a marker says so, when a job is due and when a rate limit ends, until the drain delay is over.
    async fn wait_and_fetch(
        &self,
        token: &str,
        mut next: Next,
        end: &FetchEnd,
    ) -> Result<Option<JobRecord>> {
        let deadline = Instant::now() + Duration::from_secs_f64(self.settings.drain_delay);
        let mut took_later = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left < SHORTEST_WAIT {
                if took_later {
                    // Others wait as well, and that one told when. Only latency is lost when this fails.
                    let restore = Call::new(&scripts::RESTORE_MARKER, &self.keys);
                    let _ = self.link.call(&restore).await;
                }
                return Ok(None);
            }
            let waiting = async {
                match next {
                    Next::Limited(time) => {
                        tokio::time::sleep(left.min(time)).await;
                        Ok(None)
                    }
                    Next::Due(time) => {
                        let time = left.min(time).max(SHORTEST_WAIT).as_secs_f64();
                        marker::wait(&self.blocking, &self.keys, time).await
                    }
                }
            };
            let Some(mark) = end.token.run_until_cancelled(waiting).await else {
                // Else the server would give a marker to a wait that has ended.
                self.blocking.reset().await;
                return Ok(None);
            };
            took_later |= mark?.is_some_and(|due| due > wall_ms());
            match self.fetch_now(token).await? {
                (None, later) => next = later,
                (found, _) => return Ok(found),
            }
        }
    }

    async fn fetch_now(&self, token: &str) -> Result<(Option<JobRecord>, Next)> {
        let now = wall_ms();
        let call = prepare(&self.keys, &self.settings, token, &[], 1, now, false);
        let fetched = items(self.link.call(&call).await?).into_iter().nth(1);
        let mut fetched = fetched.map(items).unwrap_or_default().into_iter();
        let jobs = fetched.next().unwrap_or(Value::Nil);
        let limited = fetched.next().as_ref().map_or(0, integer);
        let due = fetched.next().as_ref().map_or(0, integer);
        let job = fetched_jobs(jobs, token, &self.settings).into_iter().next();
        if let Some(job) = &job {
            note_start(&self.activity, job, wall_ms());
        }
        let ms = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        let next = match (limited, due) {
            (1.., _) => Next::Limited(ms(limited)),
            (_, 1..) => Next::Due(ms(due - now)),
            _ => Next::Due(Duration::MAX),
        };
        Ok((job, next))
    }

    /// Writes down what became of a job that is locked under `record.token`; when it finished, unless it goes on. What was
    /// sent without an answer is sent again, and recognised.
    ///
    /// # Errors
    ///
    /// [`Error::Script`] when it is refused, and nothing was changed; [`Error::Connection`] when Redis stays away for the
    /// command timeout.
    pub async fn finish(&self, record: JobRecord, outcome: JobOutcome) -> Result<Option<i64>> {
        let now = wall_ms();
        let entry = describe(&record, &self.settings, outcome);
        let batch = std::slice::from_ref(&entry);
        let reply = persist(&self.link, |again| {
            prepare(&self.keys, &self.settings, "", batch, 0, now, again)
        });
        let codes = items(reply.await?).into_iter().next();
        let code = codes.and_then(|codes| items(codes).first().map(integer));
        match code.and_then(Code::from_value) {
            Some(code) => {
                Activity::count(&self.activity.refused, 1);
                Err(Error::Script {
                    operation: "finish",
                    code,
                    job_id: record.id,
                })
            }
            None => {
                entry.note_end(&self.activity);
                Ok(matches!(entry.outcome, "completed" | "failed").then_some(now))
            }
        }
    }
}
