//! The queue: arguments taken apart, the engine called, the answer sent to the port.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use pyo3::prelude::*;
use toromq_core::{
    error::Result,
    keys::QueueKeys,
    lane::Lane,
    queue::{Deduplication, NewJob, NewScheduler, Parent, Queue, RetryOptions, Series, When},
    worker::Run,
};

use crate::{
    connection::NativeConnection,
    drive::SharedDrive,
    port::{Item, Port},
    runtime::{self, OfProcess},
    worker::{Destination, JobRun, LockedJob, ids},
};

/// One queue of the engine.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct NativeQueue {
    queue: OfProcess<Arc<Queue>>,
    drive: SharedDrive,
    apart: OfProcess<Mutex<Vec<Apart>>>,
}

/// The same queue for an event loop that uses it.
type Apart = (Lane, Arc<Queue>);

impl NativeQueue {
    fn start<T, F>(
        &self,
        py: Python<'_>,
        port: &Port,
        ticket: u64,
        operation: impl FnOnce(Queue) -> F,
        item: fn(T) -> Item,
    ) -> PyResult<()>
    where
        T: 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let inbox = Arc::clone(&port.inbox);
        // A connection lasts as long as somebody has it: that of a loop as long as the queue.
        let _kept = self.drive.lane(port).map(|lane| self.on(lane));
        self.drive.start(py, port, |link| {
            let answer = operation(self.queue.over(link));
            async move { inbox.put(ticket, answer.await.map_or_else(Item::Failed, item)) }
        })
    }

    /// The queue as an event loop uses it.
    fn on(&self, lane: &Lane) -> Arc<Queue> {
        let mut apart = self.apart.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, queue)) = apart.iter().find(|(known, _)| known.is(lane)) {
            return Arc::clone(queue);
        }
        apart.retain(|(lane, _)| !lane.is_closed());
        let queue = Arc::new(self.queue.apart(self.drive.link_on(lane)));
        apart.push((lane.clone(), Arc::clone(&queue)));
        queue
    }

    fn add_jobs(
        &self,
        py: Python<'_>,
        port: &Port,
        ticket: u64,
        jobs: Vec<NewJob>,
    ) -> PyResult<()> {
        let inbox = Arc::clone(&port.inbox);
        let (turns, engine) = (Arc::clone(&self.drive.turns), runtime::handle()?);
        let (queue, driver) = (Arc::clone(&self.queue), engine.clone());
        let reply = Box::new(move |added: Result<_>| {
            let item = added.map_or_else(Item::Failed, Item::Added);
            inbox.put_in_turn(ticket, item, &turns, queue, driver);
        });
        if let Some(lane) = self.drive.lane(port) {
            let queue = self.on(lane);
            lane.within(|| {
                if queue.submit(jobs, reply) {
                    lane.spawn(queue.lead());
                }
            });
        } else if port.is_blocking() {
            let queue = if port.is_within() {
                // The call that others wait for may be the one that this thread goes on with later.
                Arc::new(self.queue.apart(Arc::clone(&self.drive.link)))
            } else {
                Arc::clone(&self.queue)
            };
            if let Some(batch) = queue.submit_and_take(jobs, reply) {
                // The thread that makes a call worth it takes that to Redis itself. What nobody carries then goes on
                // without it.
                return self.drive.start(py, port, move |link| async move {
                    if queue.carry(link, batch).await {
                        engine.spawn(queue.lead());
                    }
                });
            }
            port.inbox.is_carried();
        } else if self.queue.submit(jobs, reply) {
            engine.spawn(self.queue.lead());
        }
        Ok(())
    }
}

fn series(series: Series) -> Item {
    let totals = [
        series.count,
        series.previous_time,
        series.previous_count,
        series.length,
    ];
    Item::Numbers(totals.into_iter().chain(series.points).collect())
}

fn nothing((): ()) -> Item {
    Item::None
}

/// Every operation of the engine's queue as a method: its name and arguments, the call, and what its answer becomes.
macro_rules! operations {
    ($($name:ident($($arg:ident: $kind:ty),*) = |$queue:ident| $call:expr => $item:expr;)*) => {
        #[pymethods]
        impl NativeQueue {
            #[new]
            fn new(
                connection: &NativeConnection,
                prefix: &str,
                name: &str,
                version: String,
                max_events: Option<u64>,
            ) -> PyResult<Self> {
                runtime::handle()?;
                let keys = QueueKeys::new(prefix, name);
                let queue = Queue::new(connection.link(), keys, version, max_events);
                Ok(Self {
                    queue: OfProcess::new(Arc::new(queue)),
                    drive: connection.drive(),
                    apart: OfProcess::new(Mutex::default()),
                })
            }

            fn add(&self, py: Python<'_>, port: &Port, ticket: u64, jobs: Vec<ToAdd>) -> PyResult<()> {
                self.add_jobs(py, port, ticket, jobs.into_iter().map(NewJob::from).collect())
            }

            $(
                #[allow(clippy::too_many_arguments)]
                fn $name(&self, py: Python<'_>, port: &Port, ticket: u64, $($arg: $kind),*) -> PyResult<()> {
                    self.start(py, port, ticket, |$queue| async move { $call.await }, $item)
                }
            )*
        }
    };
}

operations! {
    get_deduplication_owner(id: String) = |queue| queue.deduplication_owner(&id) => Item::Text;
    remove_deduplication_key(id: String, job_id: String)
        = |queue| queue.remove_deduplication_key(&id, &job_id) => Item::Flag;

    get_job(id: String) = |queue| queue.get_job(&id) => Item::Job;
    get_jobs(states: Vec<String>, start: i64, last: i64, asc: bool)
        = |queue| queue.get_jobs(&states, start, last, asc) => Item::Jobs;
    get_counts(states: Vec<String>) = |queue| queue.get_counts(&states) => Item::Numbers;
    get_state(id: String) = |queue| queue.get_state(&id) => Item::Text;
    get_logs(id: String, start: i64, last: i64, asc: bool)
        = |queue| queue.get_logs(&id, start, last, asc) => |(lines, count)| Item::Logs(lines, count);
    get_workers() = |queue| queue.get_workers() => Item::Workers;
    trim_events(max_length: i64) = |queue| queue.trim_events(max_length) => Item::Number;
    publish_event(name: String, fields: Vec<(String, String)>, max_length: Option<u64>)
        = |queue| queue.publish_event(&name, &fields, max_length) => Item::Text;

    get_ranges(states: Vec<String>, start: i64, last: i64, asc: bool)
        = |queue| queue.get_ranges(&states, start, last, asc) => Item::Texts;
    get_jobs_by_id(ids: Vec<String>) = |queue| queue.get_jobs_by_id(&ids) => Item::Jobs;
    get_counts_per_priority(priorities: Vec<i64>)
        = |queue| queue.get_counts_per_priority(&priorities) => Item::Numbers;
    get_delayed_count(due: i64) = |queue| queue.get_delayed_count(due) => Item::Number;
    get_meta() = |queue| queue.get_meta() => Item::Pairs;
    get_children(id: String, outcome: String) = |queue| queue.get_children(&id, &outcome) => Item::Fields;
    get_dependencies_count(id: String) = |queue| queue.get_dependencies_count(&id) => Item::Numbers;
    scan_dependencies(id: String, outcome: String, cursor: u64, count: u64)
        = |queue| queue.scan_dependencies(&id, &outcome, cursor, count) => |(next, found)| Item::Page(next, found);

    wait_until_ready() = |queue| queue.wait_until_ready() => nothing;
    pause() = |queue| queue.pause() => nothing;
    resume() = |queue| queue.resume() => nothing;
    drain(delayed: bool) = |queue| queue.drain(delayed) => nothing;
    clean(state: String, grace: i64, limit: Option<usize>)
        = |queue| queue.clean(&state, grace, limit) => Item::Texts;
    obliterate(force: bool, slice: usize) = |queue| queue.obliterate(force, slice) => nothing;
    retry_jobs(state: String, count: i64, cutoff: Option<i64>)
        = |queue| queue.retry_jobs(&state, count, cutoff) => nothing;
    remove(id: String, children: bool) = |queue| queue.remove(&id, children) => Item::Flag;
    remove_orphaned_jobs(count: usize, limit: Option<usize>)
        = |queue| queue.remove_orphaned_jobs(count, limit) => Item::Number;
    remove_deprecated_priority_key() = |queue| queue.remove_deprecated_priority_key() => Item::Flag;

    clear_logs(id: String, keep: i64) = |queue| queue.clear_logs(&id, keep) => nothing;
    retry_job(id: String, state: String, lifo: bool, reset_attempts_made: bool, reset_attempts_started: bool)
        = |queue| queue.retry_job(&id, &state, RetryOptions { lifo, reset_attempts_made, reset_attempts_started })
        => nothing;
    promote_job(id: String) = |queue| queue.promote_job(&id) => nothing;
    change_delay(id: String, delay: i64) = |queue| queue.change_delay(&id, delay) => nothing;
    change_priority(id: String, priority: i64, lifo: bool)
        = |queue| queue.change_priority(&id, priority, lifo) => nothing;
    remove_unprocessed_children(id: String) = |queue| queue.remove_unprocessed_children(&id) => Item::Number;
    remove_child_dependency(id: String) = |queue| queue.remove_child_dependency(&id) => Item::Flag;
    update_data(id: String, data: Vec<u8>) = |queue| queue.update_data(&id, &data) => nothing;
    update_progress(id: String, progress: Vec<u8>) = |queue| queue.update_progress(&id, &progress) => nothing;
    add_log(id: String, line: String, keep: i64) = |queue| queue.add_log(&id, &line, keep) => Item::Number;
    move_job(run: JobRun, to: Destination) = |queue| queue.move_job(&run.into(), &to.into()) => Item::Flag;
    extend_lock(run: JobRun, duration: u64) = |queue| queue.extend_lock(&run.into(), duration) => nothing;
    extend_locks(runs: Vec<LockedJob>, duration: u64)
        = |queue| queue.extend_locks(&runs.into_iter().map(Run::from).collect::<Vec<_>>(), duration) => ids;

    upsert_job_scheduler(scheduler: ToUpsert)
        = |queue| queue.upsert_job_scheduler(&scheduler.into()) => Item::Job;
    get_job_scheduler(id: String)
        = |queue| queue.get_job_scheduler(&id) => |found| Item::Schedulers(found.into_iter().collect());
    get_job_schedulers(start: i64, last: i64, asc: bool)
        = |queue| queue.get_job_schedulers(start, last, asc) => Item::Schedulers;
    get_job_schedulers_count() = |queue| queue.get_job_schedulers_count() => Item::Number;
    remove_job_scheduler(id: String) = |queue| queue.remove_job_scheduler(&id) => Item::Flag;

    set_global_concurrency(concurrency: Option<u64>) = |queue| queue.set_global_concurrency(concurrency) => nothing;
    get_global_concurrency() = |queue| queue.get_global_concurrency() => |most| Item::Numbers(most.into_iter().collect());
    is_maxed() = |queue| queue.is_maxed() => Item::Flag;
    set_global_rate_limit(limit: Option<(u64, u64)>) = |queue| queue.set_global_rate_limit(limit) => nothing;
    get_global_rate_limit() = |queue| queue.get_global_rate_limit()
        => |limit| Item::Numbers(limit.into_iter().flat_map(|(max, duration)| [max, duration]).collect());
    set_rate_limit(duration: Option<u64>) = |queue| queue.set_rate_limit(duration) => Item::Flag;
    get_rate_limit_ttl(max: Option<i64>) = |queue| queue.get_rate_limit_ttl(max) => Item::Number;

    get_metrics(target: String, start: i64, last: i64) = |queue| queue.get_metrics(&target, start, last) => series;
}

/// A job to add, as Python gives it.
#[derive(FromPyObject)]
pub(crate) struct ToAdd(
    String,
    String,
    Vec<u8>,
    Vec<u8>,
    i64,
    i64,
    i64,
    bool,
    Option<Rule>,
    Option<(String, Vec<u8>)>,
);

/// Its deduplication: id, ttl, extend, replace, reschedule, keep last.
#[derive(FromPyObject)]
pub(crate) struct Rule(String, i64, bool, bool, bool, bool);

/// A job scheduler, as Python gives it: id, when, start date, end date, limit; name, data, options, priority and lifo of
/// its jobs.
#[derive(FromPyObject)]
struct ToUpsert(
    String,
    Timing,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    String,
    Vec<u8>,
    Vec<u8>,
    i64,
    bool,
);

/// Interval and offset; or pattern, zone, hash seed and whether it begins at once.
#[derive(FromPyObject)]
enum Timing {
    Every(i64, Option<i64>),
    Pattern(String, String, Option<String>, bool),
}

impl From<ToUpsert> for NewScheduler {
    fn from(
        ToUpsert(id, when, start_date, end_date, limit, name, data, opts, priority, lifo): ToUpsert,
    ) -> Self {
        let when = match when {
            Timing::Every(interval, offset) => When::Every { interval, offset },
            Timing::Pattern(pattern, tz, hash_seed, immediately) => When::Pattern {
                pattern,
                tz,
                hash_seed,
                immediately,
            },
        };
        Self {
            id,
            when,
            start_date,
            end_date,
            limit,
            name,
            data,
            opts,
            priority,
            lifo,
        }
    }
}

impl From<Rule> for Deduplication {
    fn from(Rule(id, ttl, extend, replace, reschedule, keep_last): Rule) -> Self {
        Self {
            id,
            ttl,
            extend,
            replace,
            reschedule,
            keep_last,
        }
    }
}

impl From<ToAdd> for NewJob {
    fn from(
        ToAdd(id, name, data, opts, timestamp, delay, priority, lifo, rule, parent): ToAdd,
    ) -> Self {
        Self {
            id,
            name,
            data,
            opts,
            timestamp,
            delay,
            priority,
            lifo,
            deduplication: rule.map(Deduplication::from),
            parent: parent.map(|(key, stored)| Parent { key, stored }),
        }
    }
}
