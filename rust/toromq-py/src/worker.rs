//! The worker: jobs go out through the port, outcomes come back in batches.

use std::sync::Arc;

use pyo3::prelude::*;
use toromq_core::{
    job::JobRecord,
    keys::QueueKeys,
    link::ConnectionSettings,
    worker::{ByHand, JobOutcome, Sink, Worker, WorkerSettings},
};

use crate::{
    errors::to_python,
    port::{Inbox, Item, Port},
    runtime,
};

struct PortSink {
    inbox: Arc<Inbox>,
    ticket: u64,
}

impl PortSink {
    fn event(&self, name: &'static str, item: Item) {
        self.inbox
            .put(self.ticket, Item::Event(name, Box::new(item)));
    }
}

impl Sink for PortSink {
    fn jobs(&self, jobs: Vec<JobRecord>) {
        self.event("jobs", Item::Jobs(jobs));
    }
    fn completed(&self, id: &str) {
        self.event("completed", Item::Text(id.to_owned()));
    }
    fn failed(&self, job: JobRecord, reason: &str, last: bool) {
        self.event("failed", Item::JobFailed(job, reason.to_owned(), last));
    }
    fn lock_lost(&self, id: &str) {
        self.event("lock_lost", Item::Text(id.to_owned()));
    }
    fn stalled(&self, id: &str) {
        self.event("stalled", Item::Text(id.to_owned()));
    }
    fn drained(&self) {
        self.event("drained", Item::Bool(true));
    }
    fn error(&self, message: &str) {
        self.event("error", Item::Text(message.to_owned()));
    }
    fn closed(&self) {
        self.event("closed", Item::None);
    }
}

/// One worker of the engine.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct NativeWorker {
    worker: Worker,
}

#[pymethods]
impl NativeWorker {
    #[new]
    #[allow(clippy::too_many_arguments)]
    fn new(
        port: &Port,
        ticket: u64,
        url: &str,
        prefix: &str,
        queue: &str,
        name: String,
        concurrency: usize,
        lock_duration: u64,
        lock_renew_time: u64,
        stalled_interval: u64,
        max_stalled_count: i64,
        drain_delay_s: f64,
        limiter: Option<(u64, u64)>,
        maximum_rate_limit_delay: u64,
        remove_on_complete: String,
        remove_on_fail: String,
    ) -> PyResult<Self> {
        let connection = ConnectionSettings::new(url).map_err(|error| to_python(&error))?;
        let settings = WorkerSettings {
            name,
            concurrency,
            lock_duration,
            lock_renew_time,
            stalled_interval,
            max_stalled_count,
            drain_delay_s,
            limiter,
            maximum_rate_limit_delay,
            remove_on_complete,
            remove_on_fail,
        };
        let runtime = runtime::handle()?;
        let _entered = runtime.enter();
        let sink = Arc::new(PortSink {
            inbox: Arc::clone(&port.inbox),
            ticket,
        });
        Ok(Self {
            worker: Worker::start(&connection, QueueKeys::new(prefix, queue), settings, sink),
        })
    }

    fn complete(&self, id: String, returnvalue: Vec<u8>) {
        self.worker.finish(id, JobOutcome::Completed(returnvalue));
    }

    fn fail(
        &self,
        id: String,
        reason: Option<String>,
        stack: Option<String>,
        unrecoverable: bool,
        delay: Option<f64>,
    ) {
        self.worker.finish(
            id,
            JobOutcome::Failed {
                reason,
                stack,
                unrecoverable,
                delay,
            },
        );
    }

    fn wait(&self, id: String) {
        self.worker.finish(id, JobOutcome::Wait);
    }

    fn set_concurrency(&self, concurrency: usize) {
        self.worker.set_concurrency(concurrency);
    }

    fn set_paused(&self, paused: bool) {
        self.worker.set_paused(paused);
    }

    fn close(&self, force: bool) {
        self.worker.close(force);
    }
}

/// Fetching and finishing without a worker's loop.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct NativeByHand {
    hand: Arc<ByHand>,
}

#[pymethods]
impl NativeByHand {
    #[new]
    #[allow(clippy::too_many_arguments)]
    fn new(
        url: &str,
        prefix: &str,
        queue: &str,
        name: String,
        lock_duration: u64,
        drain_delay_s: f64,
        limiter: Option<(u64, u64)>,
        remove_on_complete: String,
        remove_on_fail: String,
    ) -> PyResult<Self> {
        let connection = ConnectionSettings::new(url).map_err(|error| to_python(&error))?;
        let settings = WorkerSettings {
            name,
            concurrency: 1,
            lock_duration,
            lock_renew_time: lock_duration / 2,
            stalled_interval: lock_duration,
            max_stalled_count: 1,
            drain_delay_s,
            limiter,
            maximum_rate_limit_delay: 0,
            remove_on_complete,
            remove_on_fail,
        };
        Ok(Self {
            hand: Arc::new(ByHand::new(
                &connection,
                QueueKeys::new(prefix, queue),
                settings,
            )),
        })
    }

    fn fetch(&self, port: &Port, ticket: u64, token: String, block: bool) -> PyResult<()> {
        let (hand, inbox) = (Arc::clone(&self.hand), Arc::clone(&port.inbox));
        runtime::handle()?.spawn(async move {
            inbox.put(
                ticket,
                hand.fetch(&token, block)
                    .await
                    .map_or_else(Item::Failed, Item::Job),
            );
        });
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn finish(
        &self,
        port: &Port,
        ticket: u64,
        id: String,
        token: String,
        attempts_made: i64,
        fields: Vec<(String, Vec<u8>)>,
        returnvalue: Option<Vec<u8>>,
        reason: Option<String>,
        stack: Option<String>,
        unrecoverable: bool,
    ) -> PyResult<()> {
        let record = JobRecord {
            id,
            token,
            fields,
            attempts_started: 0,
            attempts_made,
        };
        let outcome = match returnvalue {
            Some(value) => JobOutcome::Completed(value),
            None => JobOutcome::Failed {
                reason,
                stack,
                unrecoverable,
                delay: None,
            },
        };
        let (hand, inbox) = (Arc::clone(&self.hand), Arc::clone(&port.inbox));
        runtime::handle()?.spawn(async move {
            inbox.put(
                ticket,
                hand.finish(record, outcome)
                    .await
                    .map_or_else(Item::Failed, |()| Item::None),
            );
        });
        Ok(())
    }
}
