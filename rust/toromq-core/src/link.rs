//! A connection that is made when needed and made anew after it broke. It never sends anything twice by itself: whether
//! an operation whose reply was lost may be repeated is for its caller to decide.

use std::time::Duration;

use redis::{
    Client, Cmd, ErrorKind, RedisError, ServerErrorKind, Value, aio::MultiplexedConnection,
};

use crate::{
    error::{Error, Outcome, Result},
    keys::QueueKeys,
    scripts::Script,
};

/// Where Redis is and how long to wait for it.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    client: Client,
    endpoint: String,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long a producer tries before it gives up, and how long any single reply may take.
    pub command_timeout: Duration,
}

impl ConnectionSettings {
    /// Reads a `redis://`, `rediss://` or `unix://` URL.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when the URL can't be understood; the message has no password in it.
    pub fn new(url: &str) -> Result<Self> {
        // The TLS library wants its provider chosen before the first handshake; a second choice is refused, and harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::open(url).map_err(|error| {
            Error::Config(format!(
                "connection: this is no Redis URL ({error}); expected redis://host:port/db, rediss://..., unix:///path"
            ))
        })?;
        let endpoint = client.get_connection_info().addr().to_string();
        Ok(Self {
            client,
            endpoint,
            connect_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_secs(5),
        })
    }
}

/// A script call: which script, on which queue, with what.
#[derive(Debug, Clone)]
pub struct Call {
    script: &'static Script,
    keys: Vec<String>,
    args: Vec<Vec<u8>>,
}

impl Call {
    /// A call of `script` whose keys are all structures of one queue.
    #[must_use]
    pub fn new(script: &'static Script, keys: &QueueKeys) -> Self {
        Self {
            script,
            keys: script.keys.iter().map(|name| keys.of(name)).collect(),
            args: Vec::new(),
        }
    }

    /// A call of `script` on these keys.
    #[must_use]
    pub fn on(script: &'static Script, keys: Vec<String>) -> Self {
        Self {
            script,
            keys,
            args: Vec::new(),
        }
    }

    /// Adds an argument.
    pub fn arg(&mut self, value: impl AsRef<[u8]>) -> &mut Self {
        self.args.push(value.as_ref().to_vec());
        self
    }

    /// Adds a number.
    pub fn number(&mut self, value: impl std::fmt::Display) -> &mut Self {
        self.args.push(value.to_string().into_bytes());
        self
    }

    fn command(&self, whole: bool) -> Cmd {
        let mut cmd = redis::cmd(if whole { "EVAL" } else { "EVALSHA" });
        cmd.arg(if whole {
            self.script.source
        } else {
            self.script.sha1
        })
        .arg(self.keys.len());
        for key in &self.keys {
            cmd.arg(key);
        }
        for arg in &self.args {
            cmd.arg(arg);
        }
        cmd
    }
}

/// A connection for one purpose.
#[derive(Debug)]
pub struct Link {
    settings: ConnectionSettings,
    response_timeout: Option<Duration>,
    client_name: Option<String>,
    // An async mutex: it is held while connecting, so that callers who come meanwhile share the new connection.
    current: tokio::sync::Mutex<Option<MultiplexedConnection>>,
}

impl Link {
    /// A connection for commands: every reply has a deadline.
    #[must_use]
    pub fn new(settings: &ConnectionSettings) -> Self {
        Self {
            response_timeout: Some(settings.command_timeout),
            settings: settings.clone(),
            client_name: None,
            current: tokio::sync::Mutex::default(),
        }
    }

    /// A connection for blocking commands, which its user guards with an own deadline.
    #[must_use]
    pub fn blocking(settings: &ConnectionSettings, client_name: String) -> Self {
        Self {
            response_timeout: None,
            settings: settings.clone(),
            client_name: Some(client_name),
            current: tokio::sync::Mutex::default(),
        }
    }

    /// The connection, made now if there is none.
    async fn connection(&self) -> Result<MultiplexedConnection> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &*current {
            return Ok(connection.clone());
        }
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.settings.connect_timeout))
            .set_response_timeout(self.response_timeout);
        let mut connection = self
            .settings
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| self.unreachable(&error))?;
        if let Some(name) = &self.client_name {
            // Some managed servers refuse this; the name only serves those who list workers.
            let _ = connection
                .send_packed_command(redis::cmd("CLIENT").arg("SETNAME").arg(name))
                .await;
        }
        *current = Some(connection.clone());
        Ok(connection)
    }

    /// Forgets the connection, which closes it; the next command makes a new one.
    pub async fn reset(&self) {
        *self.current.lock().await = None;
    }

    fn unreachable(&self, error: &RedisError) -> Error {
        Error::Connection {
            message: format!(
                "could not connect to Redis at {} ({error}); start one with `toromq server start` and use \
                 connection=\"embedded:.toromq\", or set TOROMQ_URL to the server you mean",
                self.settings.endpoint
            ),
            outcome: Outcome::NotDone,
        }
    }

    /// Sends one command.
    ///
    /// # Errors
    ///
    /// As [`Error`] says: not reachable, reply lost, or refused by the server.
    pub async fn send(&self, operation: &'static str, cmd: &Cmd) -> Result<Value> {
        let mut connection = self.connection().await?;
        match connection
            .send_packed_command(cmd)
            .await
            .and_then(Value::extract_error)
        {
            Ok(value) => Ok(value),
            Err(error) => Err(self.classify(operation, &error).await),
        }
    }

    async fn classify(&self, operation: &'static str, error: &RedisError) -> Error {
        match error.kind() {
            ErrorKind::Server(kind) => {
                let text = error.to_string();
                let transient = matches!(
                    kind,
                    ServerErrorKind::BusyLoading
                        | ServerErrorKind::TryAgain
                        | ServerErrorKind::ClusterDown
                        | ServerErrorKind::MasterDown
                        | ServerErrorKind::ReadOnly
                ) || text.contains("BUSY");
                if matches!(
                    kind,
                    ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown
                ) {
                    self.reset().await;
                }
                Error::Server {
                    operation,
                    message: text,
                    transient,
                }
            }
            ErrorKind::Extension => {
                let text = error.to_string();
                let transient =
                    text.contains("BUSY") || text.contains("UNBLOCKED") || text.contains("LOADING");
                Error::Server {
                    operation,
                    message: text,
                    transient,
                }
            }
            _ => {
                self.reset().await;
                Error::Connection {
                    message: format!(
                        "the connection to Redis at {} broke during {operation} ({error}); it is not known whether it \
                         was done",
                        self.settings.endpoint
                    ),
                    outcome: Outcome::Unknown,
                }
            }
        }
    }

    /// Calls a script, loading it where the server does not know it.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub async fn call(&self, call: &Call) -> Result<Value> {
        let name = call.script.name;
        match self.send(name, &call.command(false)).await {
            Err(Error::Server { message, .. })
                if message.to_ascii_uppercase().contains("NOSCRIPT") =>
            {
                self.send(name, &call.command(true)).await
            }
            other => other,
        }
    }
}

/// A reply's items; nothing for anything but an array.
#[must_use]
pub fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// A reply as text; Redis may hold bytes that are none, which are replaced.
#[must_use]
pub fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        _ => String::new(),
    }
}

/// A reply as a number, 0 for what is none.
#[must_use]
pub fn integer(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        // A finite float in range; what is cut off is the fraction.
        #[allow(clippy::cast_possible_truncation)]
        other => text(other).parse::<f64>().map_or(0, |number| number as i64),
    }
}
