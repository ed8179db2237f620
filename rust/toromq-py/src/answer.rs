//! What a coroutine awaits: it goes on in the very turn of the event loop that brings the answer. An `asyncio.Future` has it
//! called in the turn after that, which costs a tenth of a single add.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyRuntimeError, PyStopIteration},
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::PyDict,
};

use crate::runtime;

/// Who gets what arrives under a ticket.
pub(crate) enum Addressee {
    /// The first of it.
    Answer(Py<Answer>),
    /// All of it.
    Receiver(Py<PyAny>),
}

/// Those of one event loop. Locked only while the interpreter is held, so a fork can't catch it.
pub(crate) type Addressees = Mutex<HashMap<u64, Addressee>>;

/// What asyncio's tasks take for a future, as much of it as they need.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct Answer {
    state: Mutex<State>,
    /// Whether a task has yet to take notice that it waits.
    blocking: AtomicBool,
}

#[derive(Default)]
struct State {
    outcome: Option<PyResult<Py<PyAny>>>,
    is_done: bool,
    is_awaited: bool,
    /// What the task that waits wants called, and in which context.
    then: Option<(Py<PyAny>, Option<Py<PyAny>>)>,
    event_loop: Option<Py<PyAny>>,
    /// Where it is expected.
    place: Option<(Weak<Addressees>, u64)>,
    /// What is to be ended with it.
    started: Option<Py<PyAny>>,
}

fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static FOUND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    FOUND.import(py, "asyncio", "get_running_loop")?.call0()
}

/// Whether a task is being run, within which no other one can go on.
pub(crate) fn is_within_task(py: Python<'_>) -> PyResult<bool> {
    static FOUND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let task = FOUND.import(py, "asyncio", "current_task")?.call0()?;
    Ok(!task.is_none())
}

impl Answer {
    /// One that is expected at a place.
    pub(crate) fn at(addressees: &Arc<Addressees>, ticket: u64) -> Self {
        let answer = Self::new();
        answer.state().place = Some((Arc::downgrade(addressees), ticket));
        answer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its end ends.
    pub(crate) fn ends(&self, started: Py<PyAny>) {
        self.state().started = Some(started);
    }

    /// Gives it, and lets the task go on that waits: now, or in the loop's next turn where one is being run.
    pub(crate) fn settle(
        slf: &Bound<'_, Self>,
        outcome: PyResult<Py<PyAny>>,
        within_task: bool,
    ) -> PyResult<()> {
        let py = slf.py();
        let then = {
            let mut state = slf.get().state();
            if state.is_done {
                // Whoever waited was cancelled.
                return Ok(());
            }
            state.is_done = true;
            state.outcome = Some(outcome);
            state.then.take()
        };
        let Some((then, context)) = then else {
            return Ok(());
        };
        match context {
            Some(context) if !within_task => context
                .bind(py)
                .call_method1(intern!(py, "run"), (then, slf))
                .map(drop),
            context => call_soon(&running_loop(py)?, then, slf, context),
        }
    }

    /// Nobody waits any more.
    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        let (place, started) = {
            let mut state = self.state();
            state.is_done = true;
            (state.place.take(), state.started.take())
        };
        if let Some((addressees, ticket)) = place
            && let Some(addressees) = addressees.upgrade()
        {
            let removed = addressees
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&ticket);
            drop(removed);
        }
        if let Some(started) = started {
            started.call_method0(py, intern!(py, "cancel"))?;
        }
        Ok(())
    }
}

fn call_soon(
    event_loop: &Bound<'_, PyAny>,
    then: Py<PyAny>,
    answer: &Bound<'_, Answer>,
    context: Option<Py<PyAny>>,
) -> PyResult<()> {
    let py = answer.py();
    let options = PyDict::new(py);
    options.set_item(intern!(py, "context"), context)?;
    event_loop
        .call_method(intern!(py, "call_soon"), (then, answer), Some(&options))
        .map(drop)
}

#[pymethods]
impl Answer {
    #[new]
    fn new() -> Self {
        Self {
            state: Mutex::default(),
            blocking: AtomicBool::new(false),
        }
    }

    /// Gives it to the task that waits.
    fn give(slf: &Bound<'_, Self>, value: Py<PyAny>) -> PyResult<()> {
        let _using = runtime::using_with(slf.py());
        let within_task = is_within_task(slf.py())?;
        Self::settle(slf, Ok(value), within_task)
    }

    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(slf: Py<Self>, py: Python<'_>) -> PyResult<Py<Self>> {
        let answer = slf.get();
        let (outcome, is_over) = {
            let mut state = answer.state();
            let is_awaited = mem::replace(&mut state.is_awaited, true);
            (state.outcome.take(), is_awaited || state.is_done)
        };
        match outcome {
            Some(Ok(value)) => Err(PyStopIteration::new_err((value,))),
            Some(Err(error)) => Err(error),
            None if is_over => Err(PyRuntimeError::new_err("an answer is awaited once")),
            None => {
                answer.blocking.store(true, Ordering::Relaxed);
                Ok(slf.clone_ref(py))
            }
        }
    }

    /// The coroutine that waits is ended from outside.
    #[pyo3(signature = (kind, value = None, traceback = None))]
    fn throw(
        &self,
        py: Python<'_>,
        kind: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.abandon(py)?;
        let error = match value {
            Some(value) => PyErr::from_value(value),
            None => PyErr::from_value(kind),
        };
        if let Some(traceback) = traceback.filter(|traceback| !traceback.is_none()) {
            error.set_traceback(py, Some(traceback.cast_into()?));
        }
        Err(error)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.abandon(py)
    }

    #[getter(_asyncio_future_blocking)]
    fn blocking(&self) -> bool {
        self.blocking.load(Ordering::Relaxed)
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, blocking: bool) {
        self.blocking.store(blocking, Ordering::Relaxed);
    }

    fn get_loop(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let event_loop = running_loop(py)?.unbind();
        let before = self.state().event_loop.replace(event_loop.clone_ref(py));
        drop(before);
        Ok(event_loop)
    }

    #[pyo3(signature = (then, *, context = None))]
    fn add_done_callback(&self, then: Py<PyAny>, context: Option<Py<PyAny>>) {
        let before = self.state().then.replace((then, context));
        drop(before);
    }

    /// Has the task that waits go on with a `CancelledError`.
    #[pyo3(signature = (msg = None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> PyResult<bool> {
        static FOUND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = slf.py();
        let answer = slf.get();
        let kind = FOUND.import(py, "asyncio", "CancelledError")?;
        let error = match msg {
            Some(msg) => kind.call1((msg,))?,
            None => kind.call0()?,
        };
        let (then, event_loop) = {
            let mut state = answer.state();
            if state.is_done {
                return Ok(false);
            }
            (state.then.take(), state.event_loop.take())
        };
        answer.abandon(py)?;
        answer.state().outcome = Some(Err(PyErr::from_value(error)));
        if let (Some((then, context)), Some(event_loop)) = (then, event_loop) {
            // Tasks are cancelled while their loop stands still, too.
            call_soon(event_loop.bind(py), then, slf, context)?;
        }
        Ok(true)
    }

    fn done(&self) -> bool {
        self.state().is_done
    }

    /// For a task that goes on: raises what it was cancelled with. Its value it gets from `__next__`.
    fn result(&self) -> PyResult<()> {
        let mut state = self.state();
        let is_error = matches!(state.outcome, Some(Err(_)));
        let error = if is_error { state.outcome.take() } else { None };
        drop(state);
        match error {
            Some(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Where it is locked it is in use, and what it holds is not collected.
        let Ok(state) = self.state.try_lock() else {
            return Ok(());
        };
        if let Some((then, context)) = &state.then {
            visit.call(then)?;
            visit.call(context)?;
        }
        if let Some(Ok(value)) = &state.outcome {
            visit.call(value)?;
        }
        visit.call(&state.event_loop)?;
        visit.call(&state.started)
    }

    fn __clear__(&self) {
        let state = mem::take(&mut *self.state());
        drop(state);
    }
}
