//! Consuming: one actor per worker that finishes and fetches in batches, and keeps the locks of what it holds.
//!
//! Nothing here waits for a processor: lock renewal, the stalled check and every timer run on Tokio alone.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::Value;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    backoff,
    clock::wall_ms,
    error::{Error, Result},
    job::JobRecord,
    keys::QueueKeys,
    link::{Call, ConnectionSettings, Link, integer, items, text},
    scripts::{self, Code},
};

/// What a worker is told at its start. Durations in milliseconds but for `drain_delay_s`.
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
    /// Time between two stalled checks, over all workers of the queue.
    pub stalled_interval: u64,
    /// How often a job may stall before it is failed.
    pub max_stalled_count: i64,
    /// Seconds an idle worker waits for a marker before it looks by itself.
    pub drain_delay_s: f64,
    /// Own rate limit: jobs and milliseconds.
    pub limiter: Option<(u64, u64)>,
    /// Longest sleep under a rate limit.
    pub maximum_rate_limit_delay: u64,
    /// JSON text of the keep policy for completed jobs that have none, or empty.
    pub remove_on_complete: String,
    /// The same for failed jobs.
    pub remove_on_fail: String,
}

/// What became of a job.
#[derive(Debug, Clone)]
pub enum JobOutcome {
    /// The processor returned this JSON text.
    Completed(Vec<u8>),
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
    },
    /// Back to where it waited, next to run: rate limited, or handed back by a closing worker.
    Wait,
}

/// What a worker tells whoever runs the processors. Called on engine threads: it must not block.
pub trait Sink: Send + Sync + 'static {
    /// Jobs to run now.
    fn jobs(&self, jobs: Vec<JobRecord>);
    /// A job was written down as completed.
    fn completed(&self, id: &str);
    /// A job's attempt was written down as failed; `last` when it will not be tried again.
    fn failed(&self, job: JobRecord, reason: &str, last: bool);
    /// The lock is gone: the result will not be written.
    fn lock_lost(&self, id: &str);
    /// Jobs whose worker died were queued again.
    fn stalled(&self, id: &str);
    /// Nothing waits any more.
    fn drained(&self);
    /// Something went wrong that no caller waits for.
    fn error(&self, message: &str);
    /// Everything has ended.
    fn closed(&self);
}

/// A job this worker has made active.
struct Held {
    record: JobRecord,
    /// When the lock was last known to be set; measured from before the command was sent.
    renewed: Instant,
    lost: bool,
    finishing: bool,
}

#[derive(Clone)]
struct Entry {
    id: String,
    token: String,
    outcome: &'static str,
    value: Vec<u8>,
    stack: String,
    keep: String,
    number: String,
    flag: &'static str,
    made: i64,
    last: bool,
}

struct Shared {
    settings: WorkerSettings,
    keys: QueueKeys,
    commands: Link,
    leases: Link,
    held: Mutex<HashMap<String, Held>>,
    concurrency: AtomicUsize,
    paused: AtomicBool,
    /// 0 running, 1 closing, 2 closing without waiting for processors.
    closing: watch::Sender<u8>,
    wake: Notify,
    sink: Arc<dyn Sink>,
    token: String,
}

/// A running worker.
pub struct Worker {
    shared: Arc<Shared>,
    finished: mpsc::UnboundedSender<(String, JobOutcome)>,
}

// Twice this is what Redis does in about a millisecond.
const BATCH: usize = 64;
const IN_FLIGHT_RENEWALS: usize = 500;

impl Worker {
    /// Starts a worker. Must be called within a Tokio runtime.
    #[must_use]
    pub fn start(
        connection: &ConnectionSettings,
        keys: QueueKeys,
        settings: WorkerSettings,
        sink: Arc<dyn Sink>,
    ) -> Self {
        let (finished, outcomes) = mpsc::unbounded_channel();
        let blocking = Link::blocking(connection, keys.worker_client_name(&settings.name));
        let shared = Arc::new(Shared {
            commands: Link::new(connection),
            leases: Link::new(connection),
            held: Mutex::default(),
            concurrency: AtomicUsize::new(settings.concurrency),
            paused: AtomicBool::new(false),
            closing: watch::Sender::new(0),
            wake: Notify::new(),
            sink,
            token: uuid::Uuid::new_v4().to_string(),
            settings,
            keys,
        });
        tokio::spawn(run(Arc::clone(&shared), outcomes, blocking));
        Self { shared, finished }
    }

    /// Says what became of a job; written together with whatever else has ended by then.
    pub fn finish(&self, id: String, outcome: JobOutcome) {
        // Nobody listens after the close; the job's lock runs out and another worker takes it.
        let _ = self.finished.send((id, outcome));
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

    /// Ends the worker: takes no more jobs, waits for those held unless `force`, then reports `closed`.
    pub fn close(&self, force: bool) {
        let level = if force { 2 } else { 1 };
        self.shared.closing.send_if_modified(|now| {
            let more = level > *now;
            *now = level.max(*now);
            more
        });
        self.shared.wake.notify_one();
    }
}

struct Backoff(u32);

impl Backoff {
    /// Doubles up to a second, with jitter so that a fleet does not come back at once.
    async fn pause(&mut self) {
        self.0 = (self.0 + 1).min(6);
        let longest = (20u64 << self.0).min(1000);
        sleep(Duration::from_millis(rand::random_range(
            longest / 2..=longest,
        )))
        .await;
    }
}

async fn run(
    shared: Arc<Shared>,
    mut outcomes: mpsc::UnboundedReceiver<(String, JobOutcome)>,
    blocking: Link,
) {
    let stop = tokio_util::sync::CancellationToken::new();
    let upkeep = [
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(renew_locks(Arc::clone(&shared))),
        ),
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(check_stalled(Arc::clone(&shared))),
        ),
    ];
    let (arm, armed) = watch::channel(false);
    let (marks, mut marked) = mpsc::channel(1);
    let waiter = tokio::spawn(stop.clone().run_until_cancelled_owned(wait_for_marker(
        Arc::clone(&shared),
        blocking,
        armed,
        marks,
    )));

    let mut pending: Vec<Entry> = Vec::new();
    let mut work_likely = true;
    let mut had_jobs = false;
    let mut due: Option<i64> = None;
    let mut limited_until: Option<Instant> = None;
    let mut backoff = Backoff(0);
    let mut gone_deadline: Option<Instant> = None;

    loop {
        // Read before the outcomes: whatever was said before the close must be seen with it.
        let level = *shared.closing.borrow();
        while let Ok((id, outcome)) = outcomes.try_recv() {
            pending.extend(entry(&shared, &id, outcome));
        }
        let held = shared.held.lock().expect("no panic while held").len();
        if level > 0 && pending.is_empty() && (held == 0 || level > 1) {
            break;
        }
        if limited_until.is_some_and(|until| until <= Instant::now()) {
            limited_until = None;
            work_likely = true;
        }
        if due.is_some_and(|due| due <= wall_ms()) {
            due = None;
            work_likely = true;
        }
        let may_fetch =
            level == 0 && !shared.paused.load(Ordering::Relaxed) && limited_until.is_none();
        let batch: Vec<Entry> = pending.drain(..pending.len().min(BATCH)).collect();
        let free = (shared.concurrency.load(Ordering::Relaxed) + batch.len()).saturating_sub(held);
        let want = if may_fetch && (work_likely || !batch.is_empty()) {
            free.min(BATCH)
        } else {
            0
        };

        if want > 0 || !batch.is_empty() {
            let now = wall_ms();
            match finish_and_fetch(&shared, &batch, want, now).await {
                Ok(fetched) => {
                    backoff.0 = 0;
                    gone_deadline = None;
                    if want > 0 {
                        work_likely = fetched.count == want;
                        due = (fetched.due > 0).then_some(fetched.due);
                        if fetched.limited > 0 {
                            let pause = fetched
                                .limited
                                .min(shared.settings.maximum_rate_limit_delay);
                            limited_until = Some(Instant::now() + Duration::from_millis(pause));
                        }
                        if fetched.count > 0 {
                            had_jobs = true;
                        } else if had_jobs && fetched.limited == 0 {
                            had_jobs = false;
                            shared.sink.drained();
                        }
                    }
                    pending.extend(fetched.again);
                }
                Err(error) => {
                    shared.sink.error(&error.to_string());
                    // Redis is away while closing: what has ended can't be written for ever.
                    let deadline = *gone_deadline
                        .get_or_insert_with(|| Instant::now() + Duration::from_secs(5));
                    if level > 0 && Instant::now() > deadline {
                        break;
                    }
                    backoff.pause().await;
                    recover(&shared, batch, now, &mut pending, &mut backoff).await;
                    work_likely = true;
                }
            }
            continue;
        }

        let idle = may_fetch && free > 0;
        arm.send_if_modified(|now| std::mem::replace(now, idle) != idle);
        let due_at = due.map(|due| {
            Instant::now() + Duration::from_millis(u64::try_from(due - wall_ms()).unwrap_or(0))
        });
        let timer = [due_at, limited_until].into_iter().flatten().min();
        let mut closing = shared.closing.subscribe();
        tokio::select! {
            Some((id, outcome)) = outcomes.recv() => pending.extend(entry(&shared, &id, outcome)),
            Some(score) = marked.recv() => {
                // No score: the wait timed out, and an idle worker looks by itself.
                match score {
                    Some(at) if at > wall_ms() => due = Some(due.map_or(at, |due| due.min(at))),
                    _ => work_likely = true,
                }
                if !idle {
                    // Taken while no slot was free: another worker must hear of it.
                    restore_marker(&shared).await;
                }
            }
            () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            () = shared.wake.notified() => work_likely = true,
            _ = closing.changed() => {}
        }
    }

    stop.cancel();
    for task in upkeep {
        let _ = task.await;
    }
    let _ = waiter.await;
    restore_marker(&shared).await;
    shared.sink.closed();
}

async fn restore_marker(shared: &Shared) {
    // Only latency is lost when this fails: every idle worker also looks by itself.
    let _ = shared
        .commands
        .call(&Call::new(&scripts::RESTORE_MARKER, &shared.keys))
        .await;
}

/// Waits on the marker whenever the actor has nothing to do, one blocking command at a time.
async fn wait_for_marker(
    shared: Arc<Shared>,
    link: Link,
    mut armed: watch::Receiver<bool>,
    marks: mpsc::Sender<Option<i64>>,
) {
    let seconds = shared.settings.drain_delay_s.max(0.01);
    let mut backoff = Backoff(0);
    loop {
        if armed.wait_for(|armed| *armed).await.is_err() {
            return;
        }
        let mut cmd = redis::cmd("BZPOPMIN");
        cmd.arg(shared.keys.of("marker")).arg(seconds);
        let deadline = Duration::from_secs_f64(seconds + 1.0);
        match tokio::time::timeout(deadline, link.send("wait for marker", &cmd)).await {
            Ok(Ok(reply)) => {
                backoff.0 = 0;
                let popped = items(reply);
                if marks.send(popped.get(2).map(integer)).await.is_err() {
                    return;
                }
                // Let the actor look before the next wait.
                tokio::task::yield_now().await;
            }
            Ok(Err(error)) => {
                shared.sink.error(&error.to_string());
                // A marker may have been popped into the void, so look without one.
                let _ = marks.send(None).await;
                backoff.pause().await;
            }
            Err(_) => {
                // The server stopped answering without closing: only a new connection helps.
                link.reset().await;
                let _ = marks.send(None).await;
            }
        }
    }
}

async fn renew_locks(shared: Arc<Shared>) {
    let age = Duration::from_millis((shared.settings.lock_renew_time / 2).max(1));
    let life = Duration::from_millis(shared.settings.lock_duration);
    loop {
        sleep(age).await;
        let mut aged: Vec<(String, String)> = Vec::new();
        {
            let mut held = shared.held.lock().expect("no panic while held");
            for (id, job) in held.iter_mut().filter(|(_, job)| !job.lost) {
                if job.renewed.elapsed() >= life {
                    job.lost = true;
                    shared.sink.lock_lost(id);
                } else if job.renewed.elapsed() >= age {
                    aged.push((id.clone(), job.record.token.clone()));
                }
            }
        }
        for batch in aged.chunks(IN_FLIGHT_RENEWALS) {
            let sent = Instant::now();
            let mut call = Call::new(&scripts::EXTEND_LOCKS, &shared.keys);
            call.arg(shared.keys.base())
                .number(shared.settings.lock_duration);
            for (id, token) in batch {
                call.arg(id).arg(token);
            }
            match shared.leases.call(&call).await {
                Ok(reply) => {
                    let lost: Vec<String> = items(reply).iter().map(text).collect();
                    let mut held = shared.held.lock().expect("no panic while held");
                    for (id, _) in batch {
                        let Some(job) = held.get_mut(id) else {
                            continue;
                        };
                        if !lost.contains(id) {
                            job.renewed = sent;
                        } else if !job.finishing && !job.lost {
                            // While its finish is under way a missing lock is what success looks like.
                            job.lost = true;
                            shared.sink.lock_lost(id);
                        }
                    }
                }
                Err(error) => shared
                    .sink
                    .error(&format!("locks were not renewed: {error}")),
            }
        }
    }
}

async fn check_stalled(shared: Arc<Shared>) {
    loop {
        let mut call = Call::new(&scripts::MOVE_STALLED_JOBS_TO_WAIT, &shared.keys);
        call.arg(shared.keys.base())
            .number(wall_ms())
            .number(shared.settings.stalled_interval)
            .number(shared.settings.max_stalled_count)
            .number(1000);
        let mut pause = Duration::from_millis(shared.settings.stalled_interval);
        match shared.leases.call(&call).await {
            Ok(reply) => {
                let mut reply = items(reply).into_iter();
                if reply.next().is_some_and(|more| integer(&more) == 1) {
                    pause = Duration::ZERO;
                }
                for id in reply.next().map(items).unwrap_or_default() {
                    shared.sink.stalled(&text(&id));
                }
                for id in reply.next().map(items).unwrap_or_default() {
                    shared.sink.error(&format!(
                        "the key of active job {} holds no job; it was taken out",
                        text(&id)
                    ));
                }
            }
            Err(error) => {
                shared
                    .sink
                    .error(&format!("the stalled check did not run: {error}"));
                pause = pause.min(Duration::from_secs(5));
            }
        }
        sleep(pause).await;
    }
}

/// What to write for a job that ended; nothing where its lock was lost.
fn entry(shared: &Shared, id: &str, outcome: JobOutcome) -> Option<Entry> {
    let mut held = shared.held.lock().expect("no panic while held");
    let job = held.get_mut(id)?;
    if job.lost {
        held.remove(id);
        return None;
    }
    job.finishing = true;
    Some(describe(&job.record, &shared.settings, outcome))
}

fn describe(record: &JobRecord, settings: &WorkerSettings, outcome: JobOutcome) -> Entry {
    let mut entry = Entry {
        id: record.id.clone(),
        token: record.token.clone(),
        outcome: "wait",
        value: Vec::new(),
        stack: String::new(),
        keep: String::new(),
        number: String::new(),
        flag: "",
        made: record.attempts_made,
        last: false,
    };
    match outcome {
        JobOutcome::Wait => {}
        JobOutcome::Completed(value) => {
            entry.outcome = "completed";
            entry.value = value;
            entry.keep = keep(record, "removeOnComplete", &settings.remove_on_complete);
        }
        JobOutcome::Failed {
            reason,
            stack,
            unrecoverable,
            delay,
        } => {
            let options = record.options();
            let attempts = options
                .get("attempts")
                .and_then(serde_json::Value::as_f64)
                .unwrap_or(0.0);
            // Counts far below 2^52.
            #[allow(clippy::cast_precision_loss)]
            let tries_left = ((record.attempts_made + 1) as f64) < attempts;
            let delay = delay
                .or_else(|| {
                    backoff::delay_ms(
                        options.get("backoff"),
                        record.attempts_made + 1,
                        rand::random(),
                    )
                })
                .unwrap_or(0.0);
            entry.stack = stacktrace(record, stack, options.get("stackTraceLimit"));
            if unrecoverable || !tries_left || delay < 0.0 {
                entry.outcome = "failed";
                entry.value = reason.unwrap_or_else(|| "null".to_owned()).into_bytes();
                entry.number = attempts.to_string();
                entry.keep = keep(record, "removeOnFail", &settings.remove_on_fail);
                entry.last = true;
            } else {
                entry.value = reason.unwrap_or_default().into_bytes();
                if delay > 0.0 {
                    entry.outcome = "delay";
                    entry.number = format!("{}", delay.round());
                    entry.flag = "1";
                } else {
                    entry.outcome = "retry";
                    let lifo = options
                        .get("lifo")
                        .and_then(serde_json::Value::as_bool)
                        .unwrap_or(false);
                    entry.flag = if lifo { "1" } else { "" };
                }
            }
        }
    }
    entry
}

/// A keep policy as the script takes it: the job's own, else the worker's, else empty for "keep all".
fn keep(record: &JobRecord, option: &str, default: &str) -> String {
    use serde_json::Value;
    // Most jobs have none; don't read the options for that.
    let own = record
        .field("opts")
        .filter(|opts| memchr::memmem::find(opts, option.as_bytes()).is_some());
    let policy = own
        .and_then(|_| record.options().get(option).cloned())
        .or_else(|| serde_json::from_str(default).ok());
    let part = |policy: &serde_json::Map<String, Value>, name: &str| {
        policy
            .get(name)
            .filter(|value| value.is_number())
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    match policy {
        Some(Value::Bool(true)) => "0::".to_owned(),
        Some(Value::Number(count)) if count.as_i64().is_some_and(|count| count >= 0) => {
            format!("{count}::")
        }
        Some(Value::Object(policy)) => {
            format!(
                "{}:{}:{}",
                part(&policy, "count"),
                part(&policy, "age"),
                part(&policy, "limit")
            )
        }
        _ => String::new(),
    }
}

/// The stored traces with this one behind them, at most as many as the job wants.
fn stacktrace(
    record: &JobRecord,
    stack: Option<String>,
    limit: Option<&serde_json::Value>,
) -> String {
    let mut traces: Vec<String> = record
        .field("stacktrace")
        .and_then(|stored| serde_json::from_slice(stored).ok())
        .unwrap_or_default();
    traces.extend(stack);
    if let Some(limit) = limit.and_then(serde_json::Value::as_u64) {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        traces.drain(..traces.len().saturating_sub(limit));
    }
    serde_json::to_string(&traces).unwrap_or_else(|_| "[]".to_owned())
}

struct Fetched {
    count: usize,
    limited: u64,
    due: i64,
    again: Vec<Entry>,
}

fn prepare(
    keys: &QueueKeys,
    settings: &WorkerSettings,
    token: &str,
    batch: &[Entry],
    want: usize,
    now: i64,
    again: bool,
) -> Call {
    let mut call = Call::new(&scripts::FINISH_AND_FETCH, keys);
    call.arg(keys.base())
        .number(now)
        .number(want)
        .arg(token)
        .number(settings.lock_duration)
        .arg(&settings.name);
    match settings.limiter {
        Some((max, duration)) => call.number(max).number(duration),
        None => call.arg("").arg(""),
    };
    call.arg("");
    for entry in batch {
        call.arg(&entry.id)
            .arg(&entry.token)
            .arg(entry.outcome)
            .arg(&entry.value)
            .arg(&entry.stack)
            .arg(&entry.keep)
            .arg(&entry.number)
            .arg(entry.flag)
            .arg(if again {
                entry.made.to_string()
            } else {
                String::new()
            });
    }
    call
}

async fn finish_and_fetch(
    shared: &Shared,
    batch: &[Entry],
    want: usize,
    now: i64,
) -> Result<Fetched> {
    let sent = Instant::now();
    let reply = shared
        .commands
        .call(&prepare(
            &shared.keys,
            &shared.settings,
            &shared.token,
            batch,
            want,
            now,
            false,
        ))
        .await?;
    Ok(take_reply(shared, batch, reply, sent))
}

fn take_reply(shared: &Shared, batch: &[Entry], reply: Value, sent: Instant) -> Fetched {
    let mut reply = items(reply).into_iter();
    let codes = reply.next().map(items).unwrap_or_default();
    let mut fetched = reply.next().map(items).unwrap_or_default().into_iter();
    let _drained = reply.next();
    let bounced = reply.next().map_or(0, |limited| integer(&limited));

    let mut again = Vec::new();
    for (entry, code) in batch.iter().zip(&codes) {
        again.extend(settle(shared, entry, integer(code)));
    }

    let mut runnable = Vec::new();
    let jobs = fetched.next().map(items).unwrap_or_default();
    let limited = fetched
        .next()
        .map_or(0, |limited| integer(&limited))
        .max(bounced);
    let due = fetched.next().map_or(0, |due| integer(&due));
    for taken in fetched.next().map(items).unwrap_or_default() {
        let parts: Vec<String> = items(taken).iter().map(text).collect();
        shared.sink.error(&format!(
            "the key of waiting job {} holds no job; it was taken out",
            parts.join(": ")
        ));
    }
    let count = jobs.len();
    for job in jobs {
        let mut job = items(job).into_iter();
        let (Some(id), Some(started), Some(stored)) = (job.next(), job.next(), job.next()) else {
            continue;
        };
        let mut record = JobRecord::new(text(&id), shared.token.clone(), stored);
        record.attempts_started = integer(&started);
        again.extend(accept(shared, record, sent, &mut runnable));
    }
    if !runnable.is_empty() {
        shared.sink.jobs(runnable);
    }
    Fetched {
        count,
        limited: u64::try_from(limited).unwrap_or(0),
        due,
        again,
    }
}

/// Holds a job; gives what to write for one that must not be run.
fn accept(
    shared: &Shared,
    record: JobRecord,
    sent: Instant,
    runnable: &mut Vec<JobRecord>,
) -> Option<Entry> {
    let id = record.id.clone();
    let refused = if record.field("name").is_none() {
        Some(format!(
            "job {id} was queued but its hash was missing or had no name (removed by another client, or evicted); \
             there is nothing to run"
        ))
    } else {
        record.text("defa")
    };
    let held = Held {
        record: record.clone(),
        renewed: sent,
        lost: false,
        finishing: false,
    };
    shared
        .held
        .lock()
        .expect("no panic while held")
        .insert(id.clone(), held);
    match refused {
        None => {
            runnable.push(record);
            None
        }
        Some(reason) => entry(
            shared,
            &id,
            JobOutcome::Failed {
                reason: Some(reason),
                stack: None,
                unrecoverable: true,
                delay: None,
            },
        ),
    }
}

/// Takes note of what the script said about one job.
fn settle(shared: &Shared, entry: &Entry, code: i64) -> Option<Entry> {
    let refusal = match Code::from_value(code) {
        None => {
            let held = shared
                .held
                .lock()
                .expect("no panic while held")
                .remove(&entry.id);
            match entry.outcome {
                "completed" => shared.sink.completed(&entry.id),
                "wait" => {}
                _ => {
                    if let Some(held) = held {
                        shared.sink.failed(
                            held.record,
                            &String::from_utf8_lossy(&entry.value),
                            entry.last,
                        );
                    }
                }
            }
            return None;
        }
        // What every client of this wire makes of a parent that ends too early: a failed attempt.
        Some(Code::PendingChildren) => (
            format!("Job {} has pending dependencies. moveToFinished", entry.id),
            false,
        ),
        Some(Code::FailedChildren) => (
            format!(
                "Cannot complete job {} because it has at least one failed child. moveToFinished",
                entry.id
            ),
            true,
        ),
        Some(code) => {
            shared
                .held
                .lock()
                .expect("no panic while held")
                .remove(&entry.id);
            shared.sink.lock_lost(&entry.id);
            shared.sink.error(&format!(
                "the outcome of job {} was not written: {}",
                entry.id,
                code.meaning()
            ));
            return None;
        }
    };
    let (reason, unrecoverable) = refusal;
    self::entry(
        shared,
        &entry.id,
        JobOutcome::Failed {
            stack: Some(reason.clone()),
            reason: Some(reason),
            unrecoverable,
            delay: None,
        },
    )
}

/// After a lost reply: writes the batch again, looking first at what already stands, then adopts what the lost call
/// may have fetched. Tries for ever unless the worker closes.
async fn recover(
    shared: &Shared,
    batch: Vec<Entry>,
    // When the batch was first sent: by that time a finish that went through is recognised.
    now: i64,
    pending: &mut Vec<Entry>,
    backoff: &mut Backoff,
) {
    let started = Instant::now();
    loop {
        let result = async {
            if !batch.is_empty() {
                let sent = Instant::now();
                let reply = shared
                    .commands
                    .call(&prepare(
                        &shared.keys,
                        &shared.settings,
                        &shared.token,
                        &batch,
                        0,
                        now,
                        true,
                    ))
                    .await?;
                pending.extend(take_reply(shared, &batch, reply, sent).again);
            }
            let sent = Instant::now();
            let mut call = Call::new(&scripts::ADOPT_JOBS, &shared.keys);
            call.arg(shared.keys.base())
                .arg(&shared.token)
                .number(shared.settings.lock_duration);
            for id in shared.held.lock().expect("no panic while held").keys() {
                call.arg(id);
            }
            let adopted = items(shared.commands.call(&call).await?);
            let mut runnable = Vec::new();
            for job in adopted {
                let mut job = items(job).into_iter();
                let (Some(id), Some(token), Some(stored)) = (job.next(), job.next(), job.next())
                else {
                    continue;
                };
                let record = JobRecord::new(text(&id), text(&token), stored);
                pending.extend(accept(shared, record, sent, &mut runnable));
            }
            if !runnable.is_empty() {
                shared.sink.jobs(runnable);
            }
            Ok::<(), Error>(())
        };
        match result.await {
            Ok(()) => return,
            Err(error) => {
                if *shared.closing.borrow() > 0 && started.elapsed() > Duration::from_secs(5) {
                    return;
                }
                shared.sink.error(&error.to_string());
                backoff.pause().await;
            }
        }
    }
}

/// Takes and finishes jobs one by one for a user who runs them without a worker's loop. Locks are not renewed.
#[derive(Debug)]
pub struct ByHand {
    keys: QueueKeys,
    link: Link,
    blocking: Link,
    settings: WorkerSettings,
}

impl ByHand {
    /// Nothing is sent until it is used.
    #[must_use]
    pub fn new(connection: &ConnectionSettings, keys: QueueKeys, settings: WorkerSettings) -> Self {
        let blocking = Link::blocking(connection, keys.worker_client_name(&settings.name));
        Self {
            link: Link::new(connection),
            blocking,
            keys,
            settings,
        }
    }

    /// Makes one job active under `token`; with `block`, waits up to the drain delay for one.
    ///
    /// # Errors
    ///
    /// As [`Link::call`].
    pub async fn fetch(&self, token: &str, block: bool) -> Result<Option<JobRecord>> {
        let found = self.fetch_now(token).await?;
        if found.is_some() || !block {
            return Ok(found);
        }
        let mut cmd = redis::cmd("BZPOPMIN");
        cmd.arg(self.keys.of("marker"))
            .arg(self.settings.drain_delay_s);
        let deadline = Duration::from_secs_f64(self.settings.drain_delay_s + 1.0);
        match tokio::time::timeout(deadline, self.blocking.send("wait for marker", &cmd)).await {
            Ok(answer) => drop(answer?),
            // The server stopped answering without closing: only a new connection helps.
            Err(_) => self.blocking.reset().await,
        }
        self.fetch_now(token).await
    }

    async fn fetch_now(&self, token: &str) -> Result<Option<JobRecord>> {
        let call = prepare(&self.keys, &self.settings, token, &[], 1, wall_ms(), false);
        let mut fetched = items(self.link.call(&call).await?)
            .into_iter()
            .nth(1)
            .map(items)
            .unwrap_or_default();
        if fetched.is_empty() {
            return Ok(None);
        }
        let Some(job) = items(fetched.swap_remove(0)).into_iter().next() else {
            return Ok(None);
        };
        let mut job = items(job).into_iter();
        let (Some(id), Some(started), Some(stored)) = (job.next(), job.next(), job.next()) else {
            return Ok(None);
        };
        let mut record = JobRecord::new(text(&id), token.to_owned(), stored);
        record.attempts_started = integer(&started);
        Ok(Some(record))
    }

    /// Writes down what became of a job that is locked under `record.token`.
    ///
    /// # Errors
    ///
    /// [`Error::Script`] when it is refused; then nothing was changed.
    pub async fn finish(&self, record: JobRecord, outcome: JobOutcome) -> Result<()> {
        let entry = describe(&record, &self.settings, outcome);
        let call = prepare(
            &self.keys,
            &self.settings,
            "",
            std::slice::from_ref(&entry),
            0,
            wall_ms(),
            false,
        );
        let reply = items(self.link.call(&call).await?)
            .into_iter()
            .next()
            .map(items)
            .unwrap_or_default();
        match reply.first().map(integer).and_then(Code::from_value) {
            Some(code) => Err(Error::Script {
                operation: "finish",
                code,
                job_id: record.id,
            }),
            None => Ok(()),
        }
    }
}
