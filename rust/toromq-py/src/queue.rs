//! The queue: arguments taken apart, the engine called, the answer sent to the port.

use std::{future::Future, sync::Arc};

use pyo3::prelude::*;
use toromq_core::{
    error::Result,
    keys::QueueKeys,
    queue::{NewJob, Queue},
};

use crate::{
    connection::NativeConnection,
    port::{Item, Port},
    runtime::{self, OfProcess},
};

type Added = (String, String, Vec<u8>, Vec<u8>, i64, i64, i64, bool);

/// One queue of the engine.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct NativeQueue {
    queue: OfProcess<Arc<Queue>>,
}

impl NativeQueue {
    fn start<T, F>(port: &Port, ticket: u64, future: F, item: fn(T) -> Item) -> PyResult<()>
    where
        T: 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let inbox = Arc::clone(&port.inbox);
        runtime::handle()?.spawn(async move {
            inbox.put(ticket, future.await.map_or_else(Item::Failed, item));
        });
        Ok(())
    }
}

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
        let runtime = runtime::handle()?;
        let _entered = runtime.enter();
        let keys = QueueKeys::new(prefix, name);
        let queue = Queue::new(connection.link(), keys, version, max_events);
        Ok(Self {
            queue: OfProcess::new(Arc::new(queue)),
        })
    }

    fn add(&self, port: &Port, ticket: u64, jobs: Vec<Added>) -> PyResult<()> {
        let jobs = jobs
            .into_iter()
            .map(
                |(id, name, data, opts, timestamp, delay, priority, lifo)| NewJob {
                    id,
                    name,
                    data,
                    opts,
                    timestamp,
                    delay,
                    priority,
                    lifo,
                },
            )
            .collect();
        let queue = Arc::clone(&self.queue);
        Self::start(
            port,
            ticket,
            async move { queue.add(jobs).await },
            Item::Texts,
        )
    }

    fn get_job(&self, port: &Port, ticket: u64, id: String) -> PyResult<()> {
        let queue = Arc::clone(&self.queue);
        Self::start(
            port,
            ticket,
            async move { queue.get_job(&id).await },
            Item::Job,
        )
    }

    fn get_jobs(
        &self,
        port: &Port,
        ticket: u64,
        states: Vec<String>,
        start: i64,
        last: i64,
        asc: bool,
    ) -> PyResult<()> {
        let queue = Arc::clone(&self.queue);
        Self::start(
            port,
            ticket,
            async move { queue.get_jobs(&states, start, last, asc).await },
            Item::Jobs,
        )
    }

    fn get_counts(&self, port: &Port, ticket: u64, states: Vec<String>) -> PyResult<()> {
        let queue = Arc::clone(&self.queue);
        Self::start(
            port,
            ticket,
            async move { queue.get_counts(&states).await },
            Item::Numbers,
        )
    }

    fn get_state(&self, port: &Port, ticket: u64, id: String) -> PyResult<()> {
        let queue = Arc::clone(&self.queue);
        Self::start(
            port,
            ticket,
            async move { queue.get_state(&id).await },
            Item::Text,
        )
    }

    fn get_logs(
        &self,
        port: &Port,
        ticket: u64,
        id: String,
        start: i64,
        last: i64,
        asc: bool,
    ) -> PyResult<()> {
        let queue = Arc::clone(&self.queue);
        let logs = async move { queue.get_logs(&id, start, last, asc).await };
        Self::start(port, ticket, logs, |(lines, count)| {
            Item::Logs(lines, count)
        })
    }

    fn update_data(&self, port: &Port, ticket: u64, id: String, data: Vec<u8>) -> PyResult<()> {
        let queue = Arc::clone(&self.queue);
        Self::start(
            port,
            ticket,
            async move { queue.update_data(&id, &data).await },
            |()| Item::None,
        )
    }

    fn update_progress(
        &self,
        port: &Port,
        ticket: u64,
        id: String,
        progress: Vec<u8>,
    ) -> PyResult<()> {
        let queue = Arc::clone(&self.queue);
        Self::start(
            port,
            ticket,
            async move { queue.update_progress(&id, &progress).await },
            |()| Item::None,
        )
    }

    fn add_log(
        &self,
        port: &Port,
        ticket: u64,
        id: String,
        line: String,
        keep: i64,
    ) -> PyResult<()> {
        let queue = Arc::clone(&self.queue);
        Self::start(
            port,
            ticket,
            async move { queue.add_log(&id, &line, keep).await },
            Item::Number,
        )
    }
}
