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
                let runtime = runtime::handle()?;
                let _entered = runtime.enter();
                let keys = QueueKeys::new(prefix, name);
                let queue = Queue::new(connection.link(), keys, version, max_events);
                Ok(Self {
                    queue: OfProcess::new(Arc::new(queue)),
                })
            }

            $(
                #[allow(clippy::too_many_arguments)]
                fn $name(&self, port: &Port, ticket: u64, $($arg: $kind),*) -> PyResult<()> {
                    let $queue = Arc::clone(&self.queue);
                    Self::start(port, ticket, async move { $call.await }, $item)
                }
            )*
        }
    };
}

operations! {
    add(jobs: Vec<Added>) = |queue| queue.add(jobs.into_iter().map(NewJob::from).collect()) => Item::Texts;

    get_job(id: String) = |queue| queue.get_job(&id) => Item::Job;
    get_jobs(states: Vec<String>, start: i64, last: i64, asc: bool)
        = |queue| queue.get_jobs(&states, start, last, asc) => Item::Jobs;
    get_counts(states: Vec<String>) = |queue| queue.get_counts(&states) => Item::Numbers;
    get_state(id: String) = |queue| queue.get_state(&id) => Item::Text;
    get_logs(id: String, start: i64, last: i64, asc: bool)
        = |queue| queue.get_logs(&id, start, last, asc) => |(lines, count)| Item::Logs(lines, count);

    update_data(id: String, data: Vec<u8>) = |queue| queue.update_data(&id, &data) => nothing;
    update_progress(id: String, progress: Vec<u8>) = |queue| queue.update_progress(&id, &progress) => nothing;
    add_log(id: String, line: String, keep: i64) = |queue| queue.add_log(&id, &line, keep) => Item::Number;
}

/// A job to add, as Python gives it.
#[derive(FromPyObject)]
struct Added(String, String, Vec<u8>, Vec<u8>, i64, i64, i64, bool);

impl From<Added> for NewJob {
    fn from(Added(id, name, data, opts, timestamp, delay, priority, lifo): Added) -> Self {
        Self {
            id,
            name,
            data,
            opts,
            timestamp,
            delay,
            priority,
            lifo,
        }
    }
}
