//! Many results, one wake-up of the event loop. Engine threads only fill a list and write a byte: they never touch the
//! interpreter, so they can neither wait for it nor crash at its end.

use std::{
    io::{Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    sync::{Arc, Mutex, PoisonError},
};

use pyo3::{
    IntoPyObjectExt as _,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyTuple},
};
use toromq_core::{error::Error, job::JobRecord};

use crate::errors::to_python;

pub(crate) enum Item {
    None,
    Bool(bool),
    Number(i64),
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<i64>),
    Job(Option<JobRecord>),
    Jobs(Vec<JobRecord>),
    Logs(Vec<String>, i64),
    Failed(Error),
    Event(&'static str, Box<Item>),
    JobFailed(JobRecord, String, bool),
}

pub(crate) fn record(py: Python<'_>, job: &JobRecord) -> PyResult<Py<PyAny>> {
    let fields = PyDict::new(py);
    for (name, value) in &job.fields {
        fields.set_item(name, PyBytes::new(py, value))?;
    }
    (
        &job.id,
        &job.token,
        job.attempts_started,
        job.attempts_made,
        fields,
    )
        .into_py_any(py)
}

impl Item {
    fn to_python(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self {
            Self::None => Ok(py.None()),
            Self::Bool(value) => value.into_py_any(py),
            Self::Number(value) => value.into_py_any(py),
            Self::Text(value) => value.into_py_any(py),
            Self::Texts(values) => values.into_py_any(py),
            Self::Numbers(values) => values.into_py_any(py),
            Self::Job(job) => job
                .as_ref()
                .map_or_else(|| Ok(py.None()), |job| record(py, job)),
            Self::Jobs(jobs) => {
                let list = PyList::empty(py);
                for job in jobs {
                    list.append(record(py, job)?)?;
                }
                list.into_py_any(py)
            }
            Self::Logs(lines, count) => (lines, count).into_py_any(py),
            Self::Failed(error) => to_python(error).into_value(py).into_py_any(py),
            Self::Event(name, item) => (name, item.to_python(py)?).into_py_any(py),
            Self::JobFailed(job, reason, last) => (record(py, job)?, reason, last).into_py_any(py),
        }
    }
}

pub(crate) struct Inbox {
    items: Mutex<Vec<(u64, Item)>>,
    signal: UnixStream,
}

impl Inbox {
    pub(crate) fn put(&self, ticket: u64, item: Item) {
        let first = {
            let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
            items.push((ticket, item));
            items.len() == 1
        };
        if first {
            // A full pipe holds a wake-up already.
            let _ = (&self.signal).write(&[1]);
        }
    }
}

/// Where results arrive for one event loop.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct Port {
    pub(crate) inbox: Arc<Inbox>,
    woken: UnixStream,
}

#[pymethods]
impl Port {
    #[new]
    fn new() -> PyResult<Self> {
        let (woken, signal) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        signal.set_nonblocking(true)?;
        Ok(Self {
            inbox: Arc::new(Inbox {
                items: Mutex::default(),
                signal,
            }),
            woken,
        })
    }

    /// What becomes readable when there is something to drain.
    fn fileno(&self) -> i32 {
        self.woken.as_raw_fd()
    }

    /// Everything that has arrived: (ticket, value) each; a value that is an exception is to be raised.
    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut bytes = [0; 64];
        while (&self.woken)
            .read(&mut bytes)
            .is_ok_and(|read| read == bytes.len())
        {}
        let items = std::mem::take(
            &mut *self
                .inbox
                .items
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let list = PyList::empty(py);
        for (ticket, item) in items {
            list.append(PyTuple::new(
                py,
                [ticket.into_py_any(py)?, item.to_python(py)?],
            )?)?;
        }
        Ok(list)
    }
}
