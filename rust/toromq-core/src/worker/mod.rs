//! Consuming: one actor per worker that finishes and fetches in batches, and keeps the locks of what it holds.
//!
//! Nothing here waits for a processor: lock renewal, the stalled check and every timer run on Tokio alone.

mod actor;
mod armed;
mod by_hand;
mod counting_sink;
mod ended;
mod exchange;
mod flight;
mod lock_manager;
mod marker;
#[doc(hidden)]
pub mod measured;
mod moves;
mod outcome;
mod schedulers;
mod stalled_checker;
mod told;

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use armed::Armed;
pub use by_hand::{ByHand, FetchEnd};
use counting_sink::CountingSink;
use ended::Ended;
pub use moves::{Move, Run};
pub(crate) use moves::{extend_locks, move_job, still_ours};

#[cfg(unix)]
use crate::lane::Lane;
use crate::{
    connection::ConnectionSettings,
    error::{Error, Result},
    job::JobRecord,
    keys::QueueKeys,
    link::Link,
    scripts::Code,
    telemetry::{self, Activity},
};

/// What a worker is told at its start. Durations in milliseconds but for `drain_delay`.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Stored on every job it takes, and part of its connection's name; may be empty.
    pub name: String,
    /// How many jobs at once.
    pub concurrency: usize,
    /// How long a lock lives without renewal.
    pub lock_duration: u64,
    /// How old a lock may get before it is renewed; renewal is looked at twice as often.
    pub lock_renew_time: u64,
    /// Whether locks are left to run out.
    pub skip_lock_renewal: bool,
    /// Time between two stalled checks, over all workers of the queue.
    pub stalled_interval: u64,
    /// How often a job may stall before it is failed.
    pub max_stalled_count: i64,
    /// Whether others look for stalled jobs.
    pub skip_stalled_check: bool,
    /// How often a job may begin before it is failed unrun.
    pub max_started_attempts: Option<i64>,
    /// Seconds an idle worker waits for a marker before it looks by itself.
    pub drain_delay: f64,
    /// The same for each further wait in a row that brought nothing.
    pub longest_drain_delay: f64,
    /// Own rate limit: jobs and milliseconds.
    pub limiter: Option<(u64, u64)>,
    /// Longest sleep under a rate limit.
    pub maximum_rate_limit_delay: u64,
    /// Longest pause between two tries while Redis is away.
    pub run_retry_delay: u64,
    /// How many points the per-minute series keep, if they are written.
    pub metrics: Option<u64>,
    /// Whether it begins without taking jobs.
    pub paused: bool,
    /// JSON text of the keep policy for completed jobs that have none, or empty.
    pub remove_on_complete: String,
    /// The same for failed jobs.
    pub remove_on_fail: String,
}

/// What became of a job.
#[derive(Debug, Clone)]
pub enum JobOutcome {
    /// The processor returned.
    Completed {
        /// JSON text.
        returnvalue: Vec<u8>,
        /// Whether [`Sink::completed`] is to be told.
        watched: bool,
    },
    /// The processor raised.
    Failed {
        /// The message; `None` for an error without one.
        reason: Option<String>,
        /// The traceback.
        stack: Option<String>,
        /// Whether it may not be tried again.
        unrecoverable: bool,
        /// What the user's own backoff strategy said: milliseconds, or -1 for no retry.
        delay: Option<f64>,
        /// What the job keeps of the trace it failed in.
        trace: Option<String>,
    },
    /// Back to where it waited, next to run: handed back by a closing worker.
    Wait,
    /// Its processor wants it to run later, which is no attempt.
    Delay {
        /// When, in milliseconds since the epoch.
        due: i64,
    },
    /// As `Wait`, because it ran into a rate limit: this worker begins nothing until that ends.
    RateLimited {
        /// For how many milliseconds no job shall start; `None` where that was said before.
        duration: Option<u64>,
    },
}

/// What was written down of an attempt that failed.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub reason: String,
    /// The tracebacks of all attempts, as JSON.
    pub stacktrace: String,
    /// When, in milliseconds since the epoch; `None` if the job is tried again.
    pub finished_on: Option<i64>,
}

/// What a worker tells whoever runs the processors. Called on engine threads: it must not block.
pub trait Sink: Send + Sync + 'static {
    /// Redis answered for the first time.
    fn ready(&self);
    /// Jobs to run now.
    fn jobs(&self, jobs: Vec<Arc<JobRecord>>);
    /// A job was written down as completed, at that time.
    fn completed(&self, id: &str, token: &str, finished_on: i64);
    /// A job's attempt was written down as failed.
    fn failed(&self, job: Arc<JobRecord>, failed: Failed);
    /// The lock is gone: the result will not be written. True where the job had not begun, and so will never be finished.
    fn lock_lost(&self, job: Arc<JobRecord>) -> bool;
    /// These jobs' locks live on.
    fn locks_renewed(&self, ids: Vec<String>);
    /// These jobs' locks were not ours any more when they were to be renewed.
    fn lock_renewal_failed(&self, ids: Vec<String>);
    /// What a run ended with will not be written, and neither `completed` nor `failed` told; why, `error` has told.
    fn dropped(&self, id: &str, token: &str);
    /// A job whose worker died was queued again.
    fn stalled(&self, id: &str);
    /// Nothing waits any more.
    fn drained(&self);
    /// Something went wrong that no caller waits for.
    fn error(&self, error: Error);
    /// Everything has ended.
    fn closed(&self);
}

/// A job this worker has made active.
struct Held {
    record: Arc<JobRecord>,
    /// Since when this worker has it.
    since: Instant,
    /// When the lock was last known to be set; measured from before the command was sent.
    renewed: Instant,
    /// When it runs out unless it is renewed before.
    expires: Instant,
    lost: bool,
    finishing: bool,
    /// Whether nobody was told of it yet, because its job scheduler must make the next job first.
    waits: bool,
}

/// How far a run is from its job.
enum Away {
    /// The call that puts the job somewhere else is under way.
    Moving,
    /// And its processor has ended meanwhile, with this.
    Ended(JobOutcome),
    /// The job is somewhere else, or runs again; this run keeps its slot until its processor ends.
    Left,
}

struct Shared {
    settings: WorkerSettings,
    keys: QueueKeys,
    commands: Link,
    /// For what must not wait behind a long reply: locks and the stalled check.
    upkeep: Link,
    held: Mutex<HashMap<String, Held>>,
    /// Jobs whose outcome can't be written: locked under our token, but not ours to run until their lock has run out and
    /// they were fetched again.
    given_up: Mutex<HashSet<String>>,
    /// Runs, by id and token, whose processor is at work on a job that is not theirs any more, or is on its way.
    away: Mutex<HashMap<(String, String), Away>>,
    concurrency: AtomicUsize,
    armed: Armed,
    paused: AtomicBool,
    closing: watch::Sender<Closing>,
    /// Held while jobs are handed on, and by who says that they are handed back.
    handing_out: Mutex<()>,
    /// Whether it is paused, or has ended, and holds no job.
    idle: watch::Sender<bool>,
    wake: Notify,
    sink: Arc<dyn Sink>,
    /// What all of its lock tokens begin with.
    token: String,
    exchanges: AtomicU64,
    activity: Arc<Activity>,
    ended: Ended,
}

/// How far a worker is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closing {
    /// It runs.
    No,
    /// It takes no more jobs and waits for those it holds.
    Graceful,
    /// The same, and what a call under way still brings is handed back unseen.
    HandingBack,
    /// It waits for nobody; what has ended is written.
    Now,
}

impl Shared {
    /// A token of its own for each exchange, so that a run whose lock was lost can't speak for a later run of its job.
    fn next_token(&self) -> String {
        let number = self.exchanges.fetch_add(1, Ordering::Relaxed);
        format!("{}:{number}", self.token)
    }

    /// Says that locks are gone. Not to be called while `held` is locked.
    fn lose(&self, lost: Vec<Arc<JobRecord>>) {
        for record in lost {
            let unknown = match self.held().entry(record.id.clone()) {
                Entry::Occupied(job) if job.get().record.token == record.token => {
                    let waits = job.get().waits;
                    if waits {
                        job.remove();
                    }
                    waits
                }
                _ => false,
            };
            if unknown {
                self.wake.notify_one();
            } else if self.sink.lock_lost(Arc::clone(&record)) {
                if let Entry::Occupied(job) = self.held().entry(record.id.clone())
                    && job.get().record.token == record.token
                {
                    job.remove();
                }
                let run = (record.id.clone(), record.token.clone());
                self.away().remove(&run);
                self.wake.notify_one();
            }
        }
    }

    /// Says what became of a job that no processor has begun.
    fn end(&self, record: &JobRecord, outcome: JobOutcome) {
        // Nobody looks after the close; the job's lock runs out and another worker takes it.
        self.ended
            .put((record.id.clone(), record.token.clone(), outcome), false);
    }

    /// Keeps the slot of a run whose job is not ours any more, until its processor ends.
    fn leave(&self, record: &JobRecord) {
        let run = (record.id.clone(), record.token.clone());
        self.away().insert(run, Away::Left);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given_up(&self) -> MutexGuard<'_, HashSet<String>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn away(&self) -> MutexGuard<'_, HashMap<(String, String), Away>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many slots are taken.
    fn busy(&self) -> usize {
        let held = self.held();
        let away = self.away();
        let beside = away.iter().filter(|((id, token), away)| match away {
            Away::Left => true,
            // The job may be back, in another run, before the answer is.
            Away::Moving => held.get(id).is_none_or(|job| job.record.token != *token),
            Away::Ended(_) => false,
        });
        held.len() + beside.count()
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow() > Closing::No
    }

    /// Hands jobs on to be run, or gives them back where they are to be handed back. So whoever has said that finds all
    /// others where they were handed on to.
    fn hand_out(&self, jobs: Vec<Arc<JobRecord>>) -> Vec<Arc<JobRecord>> {
        let _guard = self.handing_out.lock();
        if self.hands_back() {
            return jobs;
        }
        if !jobs.is_empty() {
            self.sink.jobs(jobs);
        }
        Vec::new()
    }

    fn hands_back(&self) -> bool {
        *self.closing.borrow() >= Closing::HandingBack
    }
}

/// A running worker.
pub struct Worker {
    shared: Arc<Shared>,
}

impl Worker {
    /// Starts a worker. Must be called within a Tokio runtime.
    #[must_use]
    pub fn start(
        connection: &ConnectionSettings,
        keys: QueueKeys,
        settings: WorkerSettings,
        sink: Arc<dyn Sink>,
    ) -> Self {
        let blocking = Link::blocking(connection, keys.worker_client_name(&settings.name)).met();
        Self::run(blocking, Self::at_rest(connection, keys, settings, sink))
    }

    /// The same where an event loop runs the jobs, and takes those that an idle worker waited for from the socket itself.
    /// The lane is a shared one, and of this worker alone.
    #[cfg(unix)]
    #[must_use]
    pub fn start_on(
        lane: &Lane,
        connection: &ConnectionSettings,
        keys: QueueKeys,
        settings: WorkerSettings,
        sink: Arc<dyn Sink>,
    ) -> Self {
        let blocking = Link::blocking(connection, keys.worker_client_name(&settings.name)).met();
        let worker = Self::at_rest(connection, keys, settings, sink);
        Self::run(blocking.on(lane), worker)
    }

    fn run(blocking: Link, worker: Self) -> Self {
        tokio::spawn(actor::run(Arc::clone(&worker.shared), blocking));
        worker
    }

    /// A worker whose loop does not run.
    fn at_rest(
        connection: &ConnectionSettings,
        keys: QueueKeys,
        settings: WorkerSettings,
        sink: Arc<dyn Sink>,
    ) -> Self {
        let activity = telemetry::of(&keys);
        let sink = Arc::new(CountingSink {
            activity: Arc::clone(&activity),
            inner: sink,
        });
        let shared = Arc::new(Shared {
            activity,
            commands: Link::new(connection),
            upkeep: Link::new(connection),
            held: Mutex::default(),
            given_up: Mutex::default(),
            away: Mutex::default(),
            concurrency: AtomicUsize::new(settings.concurrency),
            armed: Armed::new(),
            paused: AtomicBool::new(settings.paused),
            closing: watch::Sender::new(Closing::No),
            handing_out: Mutex::default(),
            idle: watch::Sender::new(false),
            wake: Notify::new(),
            sink,
            token: uuid::Uuid::new_v4().to_string(),
            exchanges: AtomicU64::new(0),
            ended: Ended::default(),
            settings,
            keys,
        });
        Self { shared }
    }

    /// Says what became of a job; written together with whatever else has ended by then. False where the job's lock was
    /// lost, or its processor has moved it: then nothing will be written, and nothing more will be said of the job.
    /// `ran` is how long its processor took, where it began.
    pub fn finish(
        &self,
        id: String,
        token: String,
        outcome: JobOutcome,
        ran: Option<Duration>,
    ) -> bool {
        self.finish_among(id, token, outcome, ran, false)
    }

    /// The same of one of several: with `more`, another job is begun at once where this one ran, so that what becomes of
    /// this one may be written a millisecond later, together with others.
    pub fn finish_among(
        &self,
        id: String,
        token: String,
        outcome: JobOutcome,
        ran: Option<Duration>,
        more: bool,
    ) -> bool {
        let run = (id, token);
        // From before `away` is looked at: else a fetch in between could leave this run, and nobody would end it.
        let mut held = self.shared.held();
        {
            let mut away = self.shared.away();
            match away.get_mut(&run) {
                Some(Away::Left) => {
                    away.remove(&run);
                    self.shared.wake.notify_one();
                    return false;
                }
                Some(now) => {
                    *now = Away::Ended(outcome);
                    return true;
                }
                None => {}
            }
        }
        let (id, token) = run;
        let is_ours = match held.entry(id.clone()) {
            // An earlier run of the job: its lock was lost, and it was fetched again since.
            Entry::Occupied(job) if job.get().record.token != token => false,
            Entry::Occupied(job) if job.get().lost => {
                job.remove();
                false
            }
            Entry::Occupied(mut job) => {
                let job = job.get_mut();
                job.finishing = true;
                if let Some(ran) = ran {
                    self.shared.activity.note_run(job.since.elapsed(), ran);
                }
                true
            }
            Entry::Vacant(_) => false,
        };
        drop(held);
        if is_ours {
            // Nobody looks after the close; the job's lock runs out and another worker takes it.
            self.shared.ended.put((id, token, outcome), more);
        } else {
            // Its slot is free again.
            self.shared.wake.notify_one();
        }
        is_ours
    }

    /// The runs, by id and token, whose outcome is not known: those of all jobs, or of one.
    #[must_use]
    pub fn held(&self, id: Option<&str>) -> Vec<(String, String)> {
        let held = self.shared.held();
        let all = held.values().filter(|job| !job.lost && !job.finishing);
        all.filter(|job| id.is_none_or(|id| job.record.id == id))
            .map(|job| (job.record.id.clone(), job.record.token.clone()))
            .collect()
    }

    /// Puts a job that runs somewhere else at once, as its processor wants; false where there was nothing to wait for,
    /// and the job goes on. From then on it is not ours any more, but its slot is taken until [`Worker::finish`].
    ///
    /// # Errors
    ///
    /// [`Error::Script`] when it is refused, [`Error::Connection`] when Redis stays away for the command timeout.
    pub async fn move_job(&self, run: &Run, to: &Move) -> Result<bool> {
        let shared = &*self.shared;
        let is_held = self.begin_move(run, to)?;
        let moved = move_job(&shared.commands, &shared.keys, run, to).await;
        // Else it takes no slot, or keeps the one it has.
        if is_held {
            self.end_move(run, to, matches!(moved, Ok(true)));
        }
        moved
    }

    fn begin_move(&self, run: &Run, to: &Move) -> Result<bool> {
        let mut held = self.shared.held();
        let Some(job) = held
            .get_mut(&run.id)
            .filter(|job| job.record.token == run.token)
        else {
            return Ok(false);
        };
        // Lost, or its outcome or another move is on its way, and one of the two would be refused.
        if job.lost || job.finishing {
            return Err(to.refused(Code::LockMissing, &run.id));
        }
        // A lock that is missing from now on is what success looks like.
        job.finishing = true;
        let key = (run.id.clone(), run.token.clone());
        self.shared.away().insert(key, Away::Moving);
        Ok(true)
    }

    fn end_move(&self, run: &Run, to: &Move, is_gone: bool) {
        let shared = &*self.shared;
        let key = (run.id.clone(), run.token.clone());
        let mut held = shared.held();
        let is_held = match held.entry(run.id.clone()) {
            // It is back already, in another run.
            Entry::Occupied(job) if job.get().record.token != run.token => false,
            Entry::Occupied(job) if is_gone => {
                job.remove();
                false
            }
            Entry::Occupied(mut job) => {
                job.get_mut().finishing = false;
                true
            }
            Entry::Vacant(_) => false,
        };
        let mut away = shared.away();
        let ended = match away.remove(&key) {
            Some(Away::Ended(outcome)) => Some(outcome),
            _ => None,
        };
        if ended.is_none() && !is_held {
            away.insert(key, Away::Left);
        }
        drop((held, away));
        match ended {
            Some(outcome) if is_held => {
                self.finish(run.id.clone(), run.token.clone(), outcome, None);
            }
            Some(_) => {
                shared.sink.error(Error::Broken(format!(
                    "the processor of job {} ended before the answer to its {} was there; what it returned or raised is \
                     not stored",
                    run.id,
                    to.operation()
                )));
                shared.sink.dropped(&run.id, &run.token);
                shared.wake.notify_one();
            }
            None => shared.wake.notify_one(),
        }
    }

    /// Sets the time that a lock of ours lives from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Script`] when it is not ours any more, [`Error::Connection`] as [`Worker::move_job`].
    pub async fn extend_lock(&self, run: &Run, duration: u64) -> Result<()> {
        let (runs, life) = (std::slice::from_ref(run), Duration::from_millis(duration));
        let lost = self.extend_locks(runs, life).await?;
        still_ours(lost)
    }

    /// Sets the time that locks live from now on; gives those that are not their caller's any more, and why.
    ///
    /// # Errors
    ///
    /// [`Error::Connection`] as [`Worker::move_job`].
    pub async fn extend_locks(&self, runs: &[Run], life: Duration) -> Result<Vec<(String, Code)>> {
        let shared = &*self.shared;
        let sent = Instant::now();
        let lost = extend_locks(&shared.upkeep, &shared.keys, runs, life).await?;
        let mut held = shared.held();
        for run in runs {
            let is_lost = lost.iter().any(|(id, _)| *id == run.id);
            if let Some(job) = held.get_mut(&run.id)
                && job.record.token == run.token
                && !is_lost
            {
                job.renewed = sent;
                job.expires = sent + life;
            }
        }
        Ok(lost)
    }

    /// Changes how many jobs run at once; those running stay.
    pub fn set_concurrency(&self, concurrency: usize) {
        self.shared
            .concurrency
            .store(concurrency, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }

    /// Stops or resumes taking jobs.
    pub fn set_paused(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }

    /// Returns once the worker is paused, or has ended, and all that it held is written.
    pub async fn when_idle(&self) {
        // The sender lives as long as we do.
        let _ = self.shared.idle.subscribe().wait_for(|idle| *idle).await;
    }

    /// Ends the worker, which then reports `closed`. Only more haste changes what was said before.
    pub fn close(&self, level: Closing) {
        let guard = self.shared.handing_out.lock();
        self.shared.closing.send_if_modified(|now| {
            let more = level > *now;
            *now = level.max(*now);
            more
        });
        drop(guard);
        self.shared.wake.notify_one();
    }
}
