//! The Tokio runtime: made at first use, dropped before the interpreter goes, made anew in a forked child.

use std::{
    process,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};

// Never locked while the interpreter is let go, so a fork can't catch another thread holding it.
static CURRENT: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);

pub(crate) fn handle() -> PyResult<Handle> {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    match current.take() {
        Some((pid, runtime)) if pid == process::id() => {
            let handle = runtime.handle().clone();
            *current = Some((pid, runtime));
            return Ok(handle);
        }
        // The parent's threads don't exist here; dropping their runtime would wait for them.
        Some((_, runtime)) => std::mem::forget(runtime),
        None => {}
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("toromq")
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    *current = Some((process::id(), runtime));
    Ok(handle)
}

/// Ends the runtime; called before the interpreter finalises.
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>) {
    let current = CURRENT
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    match current {
        Some((pid, runtime)) if pid == process::id() => {
            py.detach(|| runtime.shutdown_timeout(Duration::from_secs(1)));
        }
        Some((_, runtime)) => std::mem::forget(runtime),
        None => {}
    }
}
