//! The connection: options taken apart once, and the socket that the queues of one process share.

use std::{path::PathBuf, sync::Arc, time::Duration};

use pyo3::prelude::*;
use toromq_core::{
    connection::{Address, ConnectionOptions, ConnectionSettings, Tls},
    link::Link,
};

use crate::{
    drive::{Drive, SharedDrive},
    errors::to_python,
    runtime::OfProcess,
};

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Options {
    host: String,
    port: u16,
    path: Option<PathBuf>,
    db: i64,
    username: Option<String>,
    password: Option<String>,
    tls: bool,
    ca: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    client_name: Option<String>,
    connect_timeout: u64,
    command_timeout: u64,
}

/// Where Redis is.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct NativeConnection {
    pub(crate) settings: ConnectionSettings,
    drive: SharedDrive,
}

impl NativeConnection {
    pub(crate) fn link(&self) -> Arc<Link> {
        Arc::clone(&self.drive.link)
    }

    pub(crate) fn drive(&self) -> SharedDrive {
        OfProcess::new(Arc::clone(&self.drive))
    }
}

#[pymethods]
impl NativeConnection {
    #[new]
    fn new(options: &Bound<'_, PyAny>) -> PyResult<Self> {
        let options: Options = options.extract()?;
        let address = match options.path {
            Some(path) => Address::Unix(path),
            None => {
                let tls = options.tls.then(|| Tls {
                    ca: options.ca,
                    client: options.certificate.zip(options.key),
                });
                Address::Tcp(options.host, options.port, tls)
            }
        };
        let settings = ConnectionSettings::new(ConnectionOptions {
            address,
            db: options.db,
            username: options.username,
            password: options.password,
            client_name: options.client_name,
            connect_timeout: Duration::from_millis(options.connect_timeout),
            command_timeout: Duration::from_millis(options.command_timeout),
        })
        .map_err(|error| to_python(&error))?;
        Ok(Self {
            drive: OfProcess::new(Arc::new(Drive::new(settings.clone()))),
            settings,
        })
    }
}
