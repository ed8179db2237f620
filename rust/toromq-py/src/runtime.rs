//! The Tokio runtime: made at first use, dropped before the interpreter goes, made anew in a forked child.

use std::{
    mem,
    ops::Deref,
    process,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};

// Never locked while the interpreter is let go, so a fork can't catch another thread holding it.
static CURRENT: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);
// Those on whom threads of Python wait.
static WAITED_ON: Mutex<Vec<Weak<dyn End>>> = Mutex::new(Vec::new());

/// Something that threads of Python wait on without the interpreter.
pub(crate) trait End: Send + Sync {
    /// Lets all of them go, for good.
    fn end(&self);
}

/// Remembers that threads wait on this, so that they are let go before the interpreter ends.
pub(crate) fn register(waited_on: &Arc<impl End + 'static>) {
    let mut all = WAITED_ON.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|weak| weak.strong_count() > 0);
    let weak: Weak<dyn End> = Arc::<_>::downgrade(waited_on) as Weak<dyn End>;
    all.push(weak);
}

/// A value that a forked child leaves alone: its locks may be held by threads that exist in the parent only.
pub(crate) struct OfProcess<T> {
    pid: u32,
    value: Option<T>,
}

impl<T> OfProcess<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            pid: process::id(),
            value: Some(value),
        }
    }
}

impl<T> Deref for OfProcess<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("taken by drop alone")
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if self.pid != process::id() {
            mem::forget(self.value.take());
        }
    }
}

pub(crate) fn handle() -> PyResult<Handle> {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    match current.take() {
        Some((pid, runtime)) if pid == process::id() => {
            let handle = runtime.handle().clone();
            *current = Some((pid, runtime));
            return Ok(handle);
        }
        // The parent's threads don't exist here; dropping their runtime would wait for them.
        Some((_, runtime)) => mem::forget(runtime),
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
    let waited_on = mem::take(&mut *WAITED_ON.lock().unwrap_or_else(PoisonError::into_inner));
    for end in waited_on.iter().filter_map(Weak::upgrade) {
        end.end();
    }
    let current = CURRENT
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    match current {
        Some((pid, runtime)) if pid == process::id() => {
            py.detach(|| runtime.shutdown_timeout(Duration::from_secs(1)));
        }
        Some((_, runtime)) => mem::forget(runtime),
        None => {}
    }
}
