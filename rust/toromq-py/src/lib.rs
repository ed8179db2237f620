//! The module `toromq._native`: its table of contents.

mod answer;
mod bell;
mod connection;
mod cron;
mod drive;
mod errors;
mod feed;
mod flow;
mod held;
mod json;
mod json_reader;
mod pool;
mod port;
mod queue;
mod runtime;
mod telemetry;
mod turns;
mod waits;
mod worker;

use pyo3::{prelude::*, types::PyBytes};

#[pyfunction]
#[pyo3(signature = (value, root = "data"))]
fn to_json<'py>(value: &Bound<'py, PyAny>, root: &str) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(
        value.py(),
        &json::to_json(value.py(), value, root)?,
    ))
}

#[pyfunction]
fn from_json<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    json::from_json(py, text)
}

/// An id that no other job has.
#[pyfunction]
fn new_id() -> String {
    toromq_core::job::new_id()
}

/// Every Lua command: name, text, names of its keys, names of its arguments. For tests.
#[pyfunction]
fn scripts() -> Vec<(
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
)> {
    toromq_core::scripts::ALL
        .iter()
        .map(|script| (script.name, script.source, script.keys, script.args))
        .collect()
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    errors::import(module.py());
    module.add("version", env!("CARGO_PKG_VERSION"))?;
    module.add("debug_build", cfg!(debug_assertions))?;
    module.add_class::<answer::Answer>()?;
    module.add_class::<port::Port>()?;
    module.add_class::<connection::NativeConnection>()?;
    module.add_class::<queue::NativeQueue>()?;
    module.add_class::<feed::NativeFeed>()?;
    module.add_class::<feed::NativeCatchUp>()?;
    module.add_class::<worker::NativeFetch>()?;
    module.add_class::<held::NativeFields>()?;
    module.add_class::<flow::NativeFlows>()?;
    module.add_class::<waits::NativeWaits>()?;
    module.add_class::<waits::NativeWait>()?;
    module.add_class::<worker::NativeWorker>()?;
    module.add_class::<worker::NativeByHand>()?;
    module.add_function(wrap_pyfunction!(to_json, module)?)?;
    module.add_function(wrap_pyfunction!(new_id, module)?)?;
    module.add_function(wrap_pyfunction!(from_json, module)?)?;
    module.add_function(wrap_pyfunction!(cron::cron_next, module)?)?;
    module.add_function(wrap_pyfunction!(scripts, module)?)?;
    module.add_function(wrap_pyfunction!(telemetry::telemetry, module)?)?;
    module.add_function(wrap_pyfunction!(runtime::shutdown, module)?)?;
    Ok(())
}
