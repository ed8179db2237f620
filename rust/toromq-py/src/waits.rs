//! Waiting for jobs to end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pyo3::prelude::*;
use tokio::task::AbortHandle;
use toromq_core::{
    keys::QueueKeys,
    waits::{AllWaits, Ending, Waits},
};

use crate::{
    connection::NativeConnection,
    port::{Item, Port},
    runtime::{self, OfProcess},
};

// Never locked while the interpreter is let go, so a fork can't catch another thread holding it.
static ALL: Mutex<Option<OfProcess<AllWaits>>> = Mutex::new(None);

/// Waits on one queue, which share a reader with those of the same process on the same queue.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct NativeWaits {
    waits: OfProcess<Waits>,
}

/// One wait.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct NativeWait {
    task: OfProcess<AbortHandle>,
}

impl From<Ending> for Item {
    fn from(ending: Ending) -> Self {
        let (how, value) = match ending {
            Ending::Completed(value) => ("completed", value.map_or(Self::None, Self::Bytes)),
            Ending::Failed(reason) => ("failed", Self::Text(reason)),
            Ending::Removed => ("removed", Self::None),
            Ending::Missing => ("missing", Self::None),
            Ending::TimedOut => ("timed out", Self::None),
        };
        Self::Event(how, Box::new(value))
    }
}

#[pymethods]
impl NativeWaits {
    #[new]
    fn new(connection: &NativeConnection, prefix: &str, queue: &str) -> Self {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        if all.as_ref().is_none_or(|all| !all.is_ours()) {
            *all = Some(OfProcess::new(AllWaits::default()));
        }
        let all = all.as_mut().expect("made above");
        let keys = QueueKeys::new(prefix, queue);
        Self {
            waits: OfProcess::new(all.of(&connection.settings, connection.link(), keys)),
        }
    }

    /// Answers with how the job ended: completed and the JSON text, failed and the reason, or removed, missing or timed out
    /// and nothing. `timeout` in milliseconds.
    fn wait(
        &self,
        port: &Port,
        ticket: u64,
        job_id: String,
        timeout: Option<u64>,
    ) -> PyResult<NativeWait> {
        let inbox = Arc::clone(&port.inbox);
        let ending = self.waits.wait(job_id, timeout.map(Duration::from_millis));
        let task = runtime::handle()?.spawn(async move {
            inbox.put(ticket, ending.await.map_or_else(Item::Failed, Item::from));
        });
        Ok(NativeWait {
            task: OfProcess::new(task.abort_handle()),
        })
    }

    /// Ends all that were begun here with an error.
    fn close(&self) {
        if self.waits.is_ours() {
            self.waits.close();
        }
    }
}

#[pymethods]
impl NativeWait {
    /// Waits no more, and answers no more.
    fn cancel(&self) {
        if self.task.is_ours() {
            self.task.abort();
        }
    }
}
