//! The worker: jobs go out through the port or to threads, outcomes come back.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pyo3::prelude::*;
use toromq_core::{
    connection::ConnectionSettings,
    error::{Error, Result},
    job::JobRecord,
    keys::QueueKeys,
    scripts::Code,
    worker::{
        ByHand, Closing, Failed, FetchEnd, JobOutcome, Move, Run, Sink, Worker, WorkerSettings,
    },
};

use crate::{
    connection::NativeConnection,
    held,
    pool::Pool,
    port::{Inbox, Item, Port},
    runtime::{self, End, OfProcess},
};

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Options {
    name: String,
    concurrency: usize,
    lock_duration: u64,
    lock_renew_time: u64,
    skip_lock_renewal: bool,
    stalled_interval: u64,
    max_stalled_count: i64,
    skip_stalled_check: bool,
    max_started_attempts: Option<i64>,
    drain_delay: f64,
    longest_drain_delay: f64,
    limiter: Option<(u64, u64)>,
    maximum_rate_limit_delay: u64,
    run_retry_delay: u64,
    metrics: Option<u64>,
    paused: bool,
    remove_on_complete: String,
    remove_on_fail: String,
}

impl From<Options> for WorkerSettings {
    fn from(options: Options) -> Self {
        Self {
            name: options.name,
            concurrency: options.concurrency,
            lock_duration: options.lock_duration,
            lock_renew_time: options.lock_renew_time,
            skip_lock_renewal: options.skip_lock_renewal,
            stalled_interval: options.stalled_interval,
            max_stalled_count: options.max_stalled_count,
            skip_stalled_check: options.skip_stalled_check,
            max_started_attempts: options.max_started_attempts,
            drain_delay: options.drain_delay,
            longest_drain_delay: options.longest_drain_delay,
            limiter: options.limiter,
            maximum_rate_limit_delay: options.maximum_rate_limit_delay,
            run_retry_delay: options.run_retry_delay,
            metrics: options.metrics,
            paused: options.paused,
            remove_on_complete: options.remove_on_complete,
            remove_on_fail: options.remove_on_fail,
        }
    }
}

/// A run of a job, as Python gives it: id, token, how often it was begun.
#[derive(FromPyObject)]
pub(crate) struct JobRun(String, String, i64);

impl From<JobRun> for Run {
    fn from(JobRun(id, token, attempts_started): JobRun) -> Self {
        Self {
            id,
            token,
            attempts_started,
        }
    }
}

/// A job and the token that its lock holds, as Python gives them.
#[derive(FromPyObject)]
pub(crate) struct LockedJob(String, String);

impl From<LockedJob> for Run {
    fn from(LockedJob(id, token): LockedJob) -> Self {
        Self {
            id,
            token,
            attempts_started: 0,
        }
    }
}

/// Those of lost locks.
pub(crate) fn ids(lost: Vec<(String, Code)>) -> Item {
    Item::Texts(lost.into_iter().map(|(id, _)| id).collect())
}

/// Where a job is to go, as Python gives it: the state, when it is due, the key of the child it waits for.
#[derive(FromPyObject)]
pub(crate) struct Destination(String, i64, Option<String>);

impl From<Destination> for Move {
    fn from(Destination(state, due, child): Destination) -> Self {
        match state.as_str() {
            "delayed" => Self::Delayed(due),
            "wait" => Self::Wait,
            _ => Self::WaitingChildren(child),
        }
    }
}

struct PortSink {
    inbox: Arc<Inbox>,
    ticket: u64,
    /// Where jobs go that threads run.
    pool: Option<Arc<Pool>>,
    /// Whether threads run the jobs whose name is none of the others.
    in_threads: bool,
    /// Whether threads run the jobs of a name.
    routes: HashMap<String, bool>,
    ended: Arc<AtomicBool>,
}

impl PortSink {
    fn hand_out(&self, jobs: Vec<Arc<JobRecord>>, in_threads: bool) {
        match &self.pool {
            _ if jobs.is_empty() => {}
            Some(pool) if in_threads => pool.put(jobs),
            _ => self.event("jobs", Item::Held(jobs)),
        }
    }

    fn event(&self, name: &'static str, item: Item) {
        self.inbox
            .put(self.ticket, Item::Event(name, Box::new(item)));
    }
}

impl Sink for PortSink {
    fn ready(&self) {
        self.event("ready", Item::None);
    }
    fn jobs(&self, jobs: Vec<Arc<JobRecord>>) {
        if self.routes.is_empty() {
            self.hand_out(jobs, self.in_threads);
            return;
        }
        let (threaded, others) = jobs.into_iter().partition(|job| {
            let name = job.text("name").unwrap_or_default();
            *self.routes.get(&name).unwrap_or(&self.in_threads)
        });
        self.hand_out(threaded, true);
        self.hand_out(others, false);
    }
    fn completed(&self, id: &str, token: &str, finished_on: i64) {
        let run = (id.to_owned(), token.to_owned());
        self.event("completed", Item::JobCompleted(run, finished_on));
    }
    fn failed(&self, job: Arc<JobRecord>, failed: Failed) {
        self.event("failed", Item::JobFailed(job, failed));
    }
    fn lock_lost(&self, job: Arc<JobRecord>) -> bool {
        let withdrawn = self.pool.as_ref().is_some_and(|pool| pool.withdraw(&job));
        self.event("lock_lost", Item::Held(vec![job]));
        withdrawn
    }
    fn locks_renewed(&self, ids: Vec<String>) {
        self.event("locks_renewed", Item::Texts(ids));
    }
    fn lock_renewal_failed(&self, ids: Vec<String>) {
        self.event("lock_renewal_failed", Item::Texts(ids));
    }
    fn dropped(&self, id: &str, token: &str) {
        let run = (id.to_owned(), token.to_owned());
        self.event("dropped", Item::JobDropped(run));
    }
    fn stalled(&self, id: &str) {
        self.event("stalled", Item::Text(id.to_owned()));
    }
    fn drained(&self) {
        self.event("drained", Item::None);
    }
    fn error(&self, error: Error) {
        self.event("error", Item::Failed(error));
    }
    fn closed(&self) {
        if let Some(pool) = &self.pool {
            pool.end();
        }
        self.ended.store(true, Ordering::Relaxed);
        self.event("closed", Item::None);
    }
}

struct Running {
    worker: Worker,
    pool: Option<Arc<Pool>>,
    ended: Arc<AtomicBool>,
}

impl Running {
    fn hand_back(&self) {
        // What is handed back last runs first.
        let jobs = self.pool.iter().flat_map(|pool| pool.withdraw_all());
        for job in jobs.rev() {
            self.worker
                .finish(job.id.clone(), job.token.clone(), JobOutcome::Wait, None);
        }
    }
}

/// Runs something of the engine, whose answer goes to the port.
fn answer<T: 'static>(
    port: &Port,
    ticket: u64,
    future: impl Future<Output = Result<T>> + Send + 'static,
    item: fn(T) -> Item,
) -> PyResult<()> {
    let inbox = Arc::clone(&port.inbox);
    runtime::handle()?.spawn(async move {
        inbox.put(ticket, future.await.map_or_else(Item::Failed, item));
    });
    Ok(())
}

impl End for Running {
    fn force(&self) {
        // From then on no more of them come.
        self.worker.close(Closing::HandingBack);
        self.hand_back();
        self.worker.close(Closing::Now);
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// One worker of the engine.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct NativeWorker {
    running: OfProcess<Arc<Running>>,
}

impl Drop for NativeWorker {
    fn drop(&mut self) {
        // Nobody is left to run what it would take.
        if self.running.is_ours() {
            self.running.force();
        }
    }
}

/// How long a processor took; below 0 where it did not begin.
fn seconds(ran: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(ran).ok()
}

#[pymethods]
impl NativeWorker {
    /// Starts it. Jobs for threads are fetched with `take`, the others come through the port: `routes` says which by the
    /// job's name, `in_threads` for all other names.
    #[new]
    #[allow(clippy::too_many_arguments)]
    fn new(
        port: &Port,
        ticket: u64,
        connection: &NativeConnection,
        prefix: &str,
        queue: &str,
        options: &Bound<'_, PyAny>,
        in_threads: bool,
        routes: HashMap<String, bool>,
    ) -> PyResult<Self> {
        let settings: WorkerSettings = options.extract::<Options>()?.into();
        let runtime = runtime::handle()?;
        let _entered = runtime.enter();
        let threads = in_threads || routes.values().any(|threads| *threads);
        let pool = threads.then(|| Arc::new(Pool::new(settings.concurrency)));
        let ended = Arc::new(AtomicBool::new(false));
        let sink = Arc::new(PortSink {
            inbox: Arc::clone(&port.inbox),
            ticket,
            pool: pool.clone(),
            in_threads,
            routes,
            ended: Arc::clone(&ended),
        });
        let keys = QueueKeys::new(prefix, queue);
        let settings_of = &connection.settings;
        // Who has threads has no loop to wait for. TLS needs somebody who answers at any time.
        let shares = pool.is_none() && port.lane().is_some() && !settings_of.uses_tls();
        let worker = if shares {
            Worker::start_on(&port.share_lane()?, settings_of, keys, settings, sink)
        } else {
            Worker::start(settings_of, keys, settings, sink)
        };
        let running = Arc::new(Running {
            worker,
            pool,
            ended,
        });
        runtime::register(&running);
        Ok(Self {
            running: OfProcess::new(running),
        })
    }

    /// For a thread: the next job and whether to start another thread; None when the thread is to end.
    fn take(&self, py: Python<'_>, new: bool) -> PyResult<Option<(Py<PyAny>, bool)>> {
        let taken = self
            .running
            .pool
            .as_ref()
            .and_then(|pool| pool.take(py, new));
        taken
            .map(|taken| Ok((held::record(py, &taken.job)?, taken.start_another)))
            .transpose()
    }

    /// The thread that `take` asked for could not be started.
    fn not_started(&self) {
        if let Some(pool) = &self.running.pool {
            pool.not_started();
        }
    }

    /// False, as for `fail`, where the job's lock was lost.
    /// `ran` is how many seconds its processor took. `more` says that its caller begins another job at once.
    #[allow(clippy::too_many_arguments)]
    fn complete(
        &self,
        id: String,
        token: String,
        returnvalue: &[u8],
        watched: bool,
        ran: f64,
        more: bool,
    ) -> bool {
        let outcome = JobOutcome::Completed {
            returnvalue: returnvalue.to_vec(),
            watched,
        };
        let running = &self.running;
        let more = more || running.pool.as_ref().is_some_and(|pool| pool.has_jobs());
        running
            .worker
            .finish_among(id, token, outcome, seconds(ran), more)
    }

    #[allow(clippy::too_many_arguments)]
    fn fail(
        &self,
        id: String,
        token: String,
        reason: Option<String>,
        stack: Option<String>,
        unrecoverable: bool,
        delay: Option<f64>,
        trace: Option<String>,
        ran: f64,
    ) -> bool {
        let outcome = JobOutcome::Failed {
            reason,
            stack,
            unrecoverable,
            delay,
            trace,
        };
        self.running.worker.finish(id, token, outcome, seconds(ran))
    }

    fn wait(&self, id: String, token: String) {
        self.running
            .worker
            .finish(id, token, JobOutcome::Wait, None);
    }

    /// Its processor wants it to run at `due`, in milliseconds since the epoch.
    fn delay(&self, id: String, token: String, due: i64) {
        let outcome = JobOutcome::Delay { due };
        self.running.worker.finish(id, token, outcome, None);
    }

    fn move_job(&self, port: &Port, ticket: u64, run: JobRun, to: Destination) -> PyResult<()> {
        let running = Arc::clone(&self.running);
        let moved = async move { running.worker.move_job(&run.into(), &to.into()).await };
        answer(port, ticket, moved, Item::Flag)
    }

    fn extend_lock(&self, port: &Port, ticket: u64, run: JobRun, duration: u64) -> PyResult<()> {
        let running = Arc::clone(&self.running);
        let extended = async move { running.worker.extend_lock(&run.into(), duration).await };
        answer(port, ticket, extended, |()| Item::None)
    }

    /// Gives the ids of those whose lock is another's or gone.
    fn extend_locks(
        &self,
        port: &Port,
        ticket: u64,
        runs: Vec<LockedJob>,
        duration: u64,
    ) -> PyResult<()> {
        let running = Arc::clone(&self.running);
        let extended = async move {
            let runs: Vec<Run> = runs.into_iter().map(Run::from).collect();
            let life = Duration::from_millis(duration);
            running.worker.extend_locks(&runs, life).await
        };
        answer(port, ticket, extended, ids)
    }

    /// Answers once it is paused, or has ended, and all that it held is written.
    fn when_idle(&self, port: &Port, ticket: u64) -> PyResult<()> {
        let running = Arc::clone(&self.running);
        let idle = async move {
            running.worker.when_idle().await;
            Ok(())
        };
        answer(port, ticket, idle, |()| Item::None)
    }

    /// The runs, by id and token, of all jobs or of one that are held and whose outcome is not known.
    #[allow(clippy::needless_pass_by_value)] // As the interpreter gives it.
    fn held(&self, id: Option<String>) -> Vec<(String, String)> {
        self.running.worker.held(id.as_deref())
    }

    fn rate_limited(&self, id: String, token: String, duration: Option<u64>) {
        let outcome = JobOutcome::RateLimited { duration };
        self.running.worker.finish(id, token, outcome, None);
    }

    /// Whether one more thread must be started for it.
    fn set_concurrency(&self, concurrency: usize) -> bool {
        self.running.worker.set_concurrency(concurrency);
        self.running
            .pool
            .as_ref()
            .is_some_and(|pool| pool.set_most(concurrency))
    }

    fn set_paused(&self, paused: bool) {
        self.running.worker.set_paused(paused);
    }

    /// Ends it; `closed` is told through the port. With `force`, jobs that no thread has begun are handed back.
    fn close(&self, force: bool) {
        if force {
            self.running.force();
        } else {
            self.running.worker.close(Closing::Graceful);
        }
    }

    /// From now on what the engine still fetches is handed back unseen, and it ends when it holds no job any more.
    fn hand_back(&self) {
        self.running.worker.close(Closing::HandingBack);
        self.running.hand_back();
    }

    /// The program ends: threads that only wait for jobs are let go.
    fn end(&self) {
        if let Some(pool) = &self.running.pool {
            self.running.worker.set_paused(true);
            self.running.hand_back();
            pool.end();
        }
    }
}

/// A fetch by hand that is under way.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct NativeFetch {
    end: OfProcess<FetchEnd>,
    hand: OfProcess<Arc<ByHand>>,
}

/// Fetching and finishing without a worker's loop.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct NativeByHand {
    hand: OfProcess<Arc<ByHand>>,
    connection: ConnectionSettings,
}

#[pymethods]
impl NativeByHand {
    #[new]
    fn new(
        connection: &NativeConnection,
        prefix: &str,
        queue: &str,
        options: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let settings: WorkerSettings = options.extract::<Options>()?.into();
        let keys = QueueKeys::new(prefix, queue);
        let hand = ByHand::new(&connection.settings, keys, settings);
        Ok(Self {
            hand: OfProcess::new(Arc::new(hand)),
            connection: connection.settings.clone(),
        })
    }

    /// Looks for stalled jobs until `stop_checking`; what it finds is told through the port.
    fn check_stalled(&self, port: &Port, ticket: u64) -> PyResult<()> {
        let runtime = runtime::handle()?;
        let _entered = runtime.enter();
        let sink = Arc::new(PortSink {
            inbox: Arc::clone(&port.inbox),
            ticket,
            pool: None,
            in_threads: false,
            routes: HashMap::new(),
            ended: Arc::default(),
        });
        self.hand.check_stalled(&self.connection, sink);
        Ok(())
    }

    fn stop_checking(&self) {
        self.hand.stop_checking();
    }

    fn fetch(&self, port: &Port, ticket: u64, token: String, block: bool) -> PyResult<NativeFetch> {
        let hand = Arc::clone(&self.hand);
        let end = FetchEnd::default();
        let ended = end.clone();
        let fetched = async move { hand.fetch(&token, block, &ended).await };
        answer(port, ticket, fetched, |(job, reported)| {
            Item::Fetched(job, reported)
        })?;
        Ok(NativeFetch {
            end: OfProcess::new(end),
            hand: OfProcess::new(Arc::clone(&self.hand)),
        })
    }

    #[allow(clippy::too_many_arguments)]
    fn finish(
        &self,
        port: &Port,
        ticket: u64,
        run: JobRun,
        attempts_made: i64,
        fields: Vec<(String, Vec<u8>)>,
        returnvalue: Option<Vec<u8>>,
        reason: Option<String>,
        stack: Option<String>,
        unrecoverable: bool,
        delay: Option<f64>,
        trace: Option<String>,
    ) -> PyResult<()> {
        let JobRun(id, token, attempts_started) = run;
        let record = JobRecord {
            id,
            token,
            fields,
            attempts_started,
            attempts_made,
            ..JobRecord::default()
        };
        let outcome = match returnvalue {
            Some(returnvalue) => JobOutcome::Completed {
                returnvalue,
                watched: false,
            },
            None => JobOutcome::Failed {
                reason,
                stack,
                unrecoverable,
                delay,
                trace,
            },
        };
        let hand = Arc::clone(&self.hand);
        let finished = async move { hand.finish(record, outcome).await };
        answer(port, ticket, finished, |finished_on| {
            finished_on.map_or(Item::None, Item::Number)
        })
    }
}

#[pymethods]
impl NativeFetch {
    /// Nobody waits for the job any more.
    fn cancel(&self) -> PyResult<()> {
        if self.end.is_ours()
            && let Some(job) = self.end.end()
        {
            let hand = Arc::clone(&self.hand);
            // Should Redis stay away, its lock runs out.
            runtime::handle()?.spawn(async move { hand.finish(job, JobOutcome::Wait).await });
        }
        Ok(())
    }
}
