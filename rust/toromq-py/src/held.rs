//! A job that a worker holds: Python takes its fields when it looks at them, and most processors look at few.

use std::sync::Arc;

use pyo3::{
    IntoPyObjectExt as _,
    prelude::*,
    types::{PyBytes, PyDict},
};
use toromq_core::job::JobRecord;

use crate::port::dict_of_bytes;

/// What is stored of a job.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct NativeFields {
    job: Arc<JobRecord>,
}

#[pymethods]
impl NativeFields {
    /// One field, as a dict gives it.
    fn get<'py>(&self, py: Python<'py>, name: &str) -> Option<Bound<'py, PyBytes>> {
        self.job.field(name).map(|value| PyBytes::new(py, value))
    }

    /// All of them.
    fn all<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dict_of_bytes(py, &self.job.fields)
    }
}

/// The job for Python: id, token, how often it was begun, how often it ended, fields.
pub(crate) fn record(py: Python<'_>, job: &Arc<JobRecord>) -> PyResult<Py<PyAny>> {
    let fields = NativeFields {
        job: Arc::clone(job),
    };
    (
        &job.id,
        &job.token,
        job.attempts_started,
        job.attempts_made,
        fields,
    )
        .into_py_any(py)
}
