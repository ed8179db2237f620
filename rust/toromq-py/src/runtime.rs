//! The Tokio runtime: made at first use, dropped before the interpreter goes, made anew in a forked child.

use std::{
    cell::Cell,
    mem,
    ops::{Deref, DerefMut},
    process,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::errors::ToroError;

// Never locked while the interpreter is let go, so a fork can't catch another thread holding it.
static CURRENT: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);
// What must end before the interpreter does, each with the process it belongs to.
static ENDINGS: Mutex<Vec<(u32, Weak<dyn End>)>> = Mutex::new(Vec::new());
static FINALISING: AtomicBool = AtomicBool::new(false);
// The thread that has ended the engine, and goes on with what else is to be done at the program's end.
static ENDED_BY: OnceLock<ThreadId> = OnceLock::new();
// How many threads are about something that needs the runtime.
static USERS: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    // The same of the calling thread.
    static USES: Cell<usize> = const { Cell::new(0) };
}
// How long the interpreter's exit waits for workers to write what has ended.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Something that outlives the last line of a program, unless it is told that the program ends.
pub(crate) trait End: Send + Sync {
    /// All threads have ended: nothing more can be done for what still runs.
    fn force(&self);
    /// Whether everything is written.
    fn has_ended(&self) -> bool;
}

/// Remembers what must be told when the program ends.
pub(crate) fn register(ending: &Arc<impl End + 'static>) {
    let mut all = ENDINGS.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|(_, weak)| weak.strong_count() > 0);
    let weak: Weak<dyn End> = Arc::<_>::downgrade(ending) as Weak<dyn End>;
    all.push((process::id(), weak));
}

fn endings() -> Vec<Arc<dyn End>> {
    let all = ENDINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let ours = all.iter().filter(|(pid, _)| *pid == process::id());
    ours.filter_map(|(_, weak)| weak.upgrade()).collect()
}

/// Where a thread is left that must not ask for the interpreter any more: before Python 3.14 it would be unwound, through
/// frames that can't be.
pub(crate) fn stay() -> ! {
    USERS.fetch_sub(USES.take(), Ordering::SeqCst);
    loop {
        thread::park();
    }
}

/// Whether the interpreter is about to go.
pub(crate) fn is_finalising() -> bool {
    FINALISING.load(Ordering::SeqCst)
}

/// Refuses what is asked for by the thread that has ended the engine: it would wait for an answer for ever, and the program
/// with it.
pub(crate) fn refuse_at_end() -> PyResult<()> {
    if is_finalising() && !is_left() {
        return Err(ToroError::new_err(
            "the program ends, and toromq has ended already; import toromq before you register with atexit what uses it",
        ));
    }
    Ok(())
}

/// Whether it goes without the calling thread.
fn is_left() -> bool {
    is_finalising() && ENDED_BY.get() != Some(&thread::current().id())
}

/// For a thread that has let the interpreter go, and is about to ask for it again.
pub(crate) fn stay_if_left() {
    if is_left() {
        stay();
    }
}

/// The same for one that has it.
pub(crate) fn stay_with(py: Python<'_>) {
    if is_left() {
        py.detach(|| stay());
    }
}

/// As long as this is kept, the runtime stays, and the interpreter.
pub(crate) struct Using;

impl Using {
    fn begin() -> Self {
        USERS.fetch_add(1, Ordering::SeqCst);
        USES.set(USES.get() + 1);
        Self
    }
}

/// For a thread that is about to do something which needs the runtime, and is none of the engine's.
pub(crate) fn using() -> Using {
    let using = Using::begin();
    stay_if_left();
    using
}

/// The same for one that has the interpreter, and calls what Python does.
pub(crate) fn using_with(py: Python<'_>) -> Using {
    let using = Using::begin();
    stay_with(py);
    using
}

impl Drop for Using {
    fn drop(&mut self) {
        USES.set(USES.get().saturating_sub(1));
        USERS.fetch_sub(1, Ordering::SeqCst);
    }
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

impl<T> OfProcess<T> {
    pub(crate) fn is_ours(&self) -> bool {
        self.pid == process::id()
    }
}

impl<T> DerefMut for OfProcess<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("taken by drop alone")
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
    refuse_at_end()?;
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    match current.take() {
        Some((pid, runtime)) if pid == process::id() => {
            let handle = runtime.handle().clone();
            *current = Some((pid, runtime));
            return Ok(handle);
        }
        // The parent's threads don't exist here; dropping their runtime would wait for them.
        Some((_, runtime)) => {
            mem::forget(runtime);
            USERS.store(USES.get(), Ordering::SeqCst);
        }
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

/// Ends the runtime; called before the interpreter finalises, when its threads have ended.
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>) {
    let endings = endings();
    py.detach(|| {
        endings.iter().for_each(|ending| ending.force());
        let deadline = Instant::now() + LAST_WRITES;
        while Instant::now() < deadline && !endings.iter().all(|ending| ending.has_ended()) {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let _ = ENDED_BY.set(thread::current().id());
    FINALISING.store(true, Ordering::SeqCst);
    let current = CURRENT
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    match current {
        Some((pid, runtime)) if pid == process::id() => {
            py.detach(|| {
                let deadline = Instant::now() + Duration::from_secs(1);
                while USERS.load(Ordering::SeqCst) > USES.get() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(1));
                }
                runtime.shutdown_timeout(Duration::from_secs(1));
            });
        }
        Some((_, runtime)) => mem::forget(runtime),
        None => {}
    }
}
