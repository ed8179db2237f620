//! A connection that is made when needed and made anew after it broke. It never sends anything twice by itself: whether
//! an operation whose reply was lost may be repeated is for its caller to decide.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, aio::MultiplexedConnection,
};
use tokio::task::JoinHandle;

#[cfg(unix)]
use crate::lane::{Expecting, Lane};
use crate::{
    connection::ConnectionSettings,
    error::{Error, Outcome, Result},
    keys::QueueKeys,
    peer::Peer,
    scripts::Script,
    telemetry,
};

/// Words in a refusal that says "not now": nothing was done, and the same may work later.
const PASSING: &[&str] = &[
    "BUSY",
    "LOADING",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "UNBLOCKED",
];

/// What a server says that wants a password to a long command of somebody who gave none.
const UNAUTHENTICATED: &str = "unauthenticated";

/// What helps against a refusal.
const CURES: &[(&str, &str)] = &[
    (
        "OOM",
        "give the server more memory, or let it keep fewer finished jobs (remove_on_complete, remove_on_fail)",
    ),
    (
        "read only replica",
        "this is a replica; connect to the master",
    ),
    (
        "MISCONF",
        "the server can't write to its disk; its log says why",
    ),
    (
        "permissions to",
        "let the connection's user do that, or connect as another one",
    ),
    (
        "WRONGTYPE",
        "something else has written a key of the queue; delete that, or use another prefix",
    ),
];

/// A script call: which script, on which queue, with what.
#[derive(Debug, Clone)]
pub struct Call {
    script: &'static Script,
    keys: Arc<[String]>,
    args: Vec<Vec<u8>>,
}

impl Call {
    /// A call of `script` whose keys are all structures of one queue.
    #[must_use]
    pub fn new(script: &'static Script, keys: &QueueKeys) -> Self {
        Self::shared(script, Self::keys_of(script, keys))
    }

    /// The keys of a script that are all structures of one queue, for calls that are made again and again.
    pub(crate) fn keys_of(script: &Script, keys: &QueueKeys) -> Arc<[String]> {
        script.keys.iter().map(|name| keys.of(name)).collect()
    }

    /// A call of `script` on keys that other calls have as well.
    pub(crate) fn shared(script: &'static Script, keys: Arc<[String]>) -> Self {
        Self {
            script,
            keys,
            args: Vec::new(),
        }
    }

    /// A call of `script` on these keys.
    #[must_use]
    pub fn on(script: &'static Script, keys: Vec<String>) -> Self {
        Self::shared(script, keys.into())
    }

    /// Adds an argument.
    pub fn arg(&mut self, value: impl AsRef<[u8]>) -> &mut Self {
        self.args.push(value.as_ref().to_vec());
        self
    }

    /// Adds an argument that is handed over.
    pub(crate) fn owned(&mut self, value: Vec<u8>) -> &mut Self {
        self.args.push(value);
        self
    }

    /// Adds a number.
    pub fn number(&mut self, value: impl std::fmt::Display) -> &mut Self {
        self.args.push(value.to_string().into_bytes());
        self
    }

    /// What is sent of it where the server knows the script.
    #[doc(hidden)]
    #[must_use]
    pub fn packed(&self) -> Vec<u8> {
        self.command(false).get_packed_command()
    }

    fn command(&self, whole: bool) -> Cmd {
        let (name, script) = if whole {
            ("EVAL", self.script.source)
        } else {
            ("EVALSHA", self.script.sha1)
        };
        // In one piece: it grows to what it needs only once.
        let lengths = self.keys.iter().map(String::len);
        let size: usize = lengths.chain(self.args.iter().map(Vec::len)).sum();
        let count = self.keys.len() + self.args.len() + 3;
        let mut cmd = Cmd::with_capacity(count, name.len() + script.len() + 8 + size);
        cmd.arg(name).arg(script).arg(self.keys.len());
        for key in &*self.keys {
            cmd.arg(key);
        }
        for arg in &self.args {
            cmd.arg(arg);
        }
        cmd
    }
}

/// What went wrong, and what helps, where a server is there but does not take us.
fn advice(error: &RedisError) -> Option<(&'static str, &'static str)> {
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if error.kind() == ErrorKind::AuthenticationFailed
        || says(&["WRONGPASS", "NOAUTH", "AUTH", "NOPERM", UNAUTHENTICATED])
    {
        Some((
            "refused the login",
            "check the username and password of the connection",
        ))
    } else if says(&["DB index"]) {
        Some((
            "has no such database",
            "choose another db, or give the server more of them",
        ))
    } else if says(&[
        "certificate",
        "Certificate",
        "CaUsedAsEndEntity",
        "UnknownIssuer",
    ]) {
        Some((
            "could not agree with us on certificates",
            "check the server's certificate, ca_file if an authority of your own signed it, and cert_file and key_file \
             if the server wants to see ours",
        ))
    } else {
        None
    }
}

/// A connection for one purpose.
#[derive(Debug)]
pub struct Link {
    settings: ConnectionSettings,
    response_timeout: Option<Duration>,
    client_name: Option<String>,
    /// Whether to ask what the server knows it by.
    meets: bool,
    // An async mutex: it is held while connecting, so that callers who come meanwhile share the new connection.
    current: tokio::sync::Mutex<Current>,
    reconnects: Arc<AtomicU64>,
    /// Whose event loop watches the socket; without one the Tokio runtime does that it is first used in.
    #[cfg(unix)]
    lane: Option<Lane>,
}

/// One connection of a link. What is sent over it is done in the order in which it was sent, or not at all.
#[derive(Clone)]
pub(crate) struct Session {
    connection: MultiplexedConnection,
    number: u64,
}

#[derive(Debug, Default)]
struct Current {
    connection: Option<MultiplexedConnection>,
    peer: Option<Peer>,
    /// Which connection this is, so that a late error of an old one doesn't end its successor.
    number: u64,
    /// When the last try to connect failed, and why: for those who waited for it.
    failed: Option<(Instant, Error)>,
}

impl Link {
    /// A connection for commands: every reply has a deadline.
    #[must_use]
    pub fn new(settings: &ConnectionSettings) -> Self {
        Self {
            response_timeout: Some(settings.command_timeout),
            settings: settings.clone(),
            client_name: settings.client_name.clone(),
            meets: false,
            current: tokio::sync::Mutex::default(),
            reconnects: telemetry::reconnects(),
            #[cfg(unix)]
            lane: None,
        }
    }

    /// A connection for commands whose socket the event loop of `lane` watches; it must be used there only.
    #[cfg(unix)]
    #[must_use]
    pub fn on_lane(settings: &ConnectionSettings, lane: &Lane) -> Self {
        Self::new(settings).on(lane)
    }

    /// A connection for blocking commands, which its user guards with an own deadline.
    #[must_use]
    pub fn blocking(settings: &ConnectionSettings, client_name: String) -> Self {
        Self {
            response_timeout: None,
            settings: settings.clone(),
            client_name: Some(client_name),
            meets: false,
            current: tokio::sync::Mutex::default(),
            reconnects: telemetry::reconnects(),
            #[cfg(unix)]
            lane: None,
        }
    }

    /// The same, of which it is known how the server can be told to end it.
    pub(crate) fn met(self) -> Self {
        Self {
            meets: true,
            ..self
        }
    }

    /// The same with a socket that the event loop of `lane` watches; it must be used there only.
    #[cfg(unix)]
    pub(crate) fn on(self, lane: &Lane) -> Self {
        Self {
            lane: Some(lane.clone()),
            ..self
        }
    }

    /// Begins work that uses it, where it must be used. On a lane, the engine looks that often for what the loop leaves
    /// undone. The task ends when the work has.
    pub(crate) fn begin(
        &self,
        pause: Duration,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        #[cfg(unix)]
        if let Some(lane) = &self.lane {
            return tokio::spawn(lane.clone().host(pause, work));
        }
        let _ = pause;
        tokio::spawn(work)
    }

    /// Returns when whoever drives it has made use of what a reply brought.
    pub(crate) async fn until_used(&self) {
        #[cfg(unix)]
        if let Some(lane) = &self.lane {
            lane.until_used().await;
        }
    }

    /// How long whoever uses it should try.
    #[must_use]
    pub fn command_timeout(&self) -> Duration {
        self.settings.command_timeout
    }

    /// Nobody waits for a connection longer than for what it is needed for.
    fn connect_timeout(&self) -> Duration {
        self.settings
            .connect_timeout
            .min(self.settings.command_timeout)
    }

    #[cfg(unix)]
    fn expect_reply(&self) -> Option<Expecting<'_>> {
        self.lane.as_ref().map(Lane::expect_reply)
    }

    /// Nobody else drives a connection here.
    #[cfg(not(unix))]
    fn expect_reply(&self) {}

    /// The connection and its number, made now if there is none.
    async fn connection(&self) -> Result<(MultiplexedConnection, u64)> {
        let asked = Instant::now();
        let mut current = self.current.lock().await;
        if let Some(connection) = &current.connection {
            return Ok((connection.clone(), current.number));
        }
        if let Some((when, error)) = &current.failed
            && *when >= asked
        {
            return Err(error.clone());
        }
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout()))
            .set_response_timeout(self.response_timeout);
        let mut connection = match self.connect(&config).await {
            Ok(connection) => connection,
            Err(error) => {
                let error = self.unreachable(&error);
                current.failed = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        };
        current.peer = None;
        if self.meets {
            let _expecting = self.expect_reply();
            // Before it has the name by which others see that it is there.
            let met = tokio::time::timeout(self.connect_timeout(), Peer::meet(&mut connection));
            current.peer = met.await.ok().flatten();
        }
        if let Some(name) = &self.client_name {
            // Some managed servers refuse this; the name only serves those who list clients.
            let _expecting = self.expect_reply();
            let mut naming = redis::cmd("CLIENT");
            naming.arg("SETNAME").arg(name);
            let named = connection.send_packed_command(&naming);
            if tokio::time::timeout(self.connect_timeout(), named)
                .await
                .is_err()
            {
                // Whoever blocks on a connection sets its own deadline, but only for what it sends itself.
                let error = self.unreachable(&io::Error::from(io::ErrorKind::TimedOut).into());
                current.failed = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        }
        current.connection = Some(connection.clone());
        if current.number > 0 {
            self.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        current.number += 1;
        Ok((connection, current.number))
    }

    async fn connect(
        &self,
        config: &redis::AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        #[cfg(unix)]
        if let Some(lane) = &self.lane
            && !self.settings.uses_tls()
        {
            let connected = tokio::time::timeout(
                self.connect_timeout(),
                self.connect_on(lane, config.clone()),
            );
            return connected
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        }
        self.settings
            .client
            .get_multiplexed_async_connection_with_config(config)
            .await
    }

    #[cfg(unix)]
    async fn connect_on(
        &self,
        lane: &Lane,
        config: redis::AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let settings = self.settings.clone();
        let connected = lane.runtime().spawn(async move { settings.open().await });
        let stream = connected.await.map_err(io::Error::other)??;
        let info = self.settings.client.get_connection_info().redis_settings();
        let _expecting = lane.expect_reply();
        let (connection, driver) =
            MultiplexedConnection::new_with_config(info, lane.adopt(stream)?, config).await?;
        lane.spawn_driver(driver);
        Ok(connection)
    }

    /// Makes the connection now, if there is none, for those who look who is connected.
    ///
    /// # Errors
    ///
    /// [`Error::Connection`] when that can't be done; the next command tries again.
    pub async fn open(&self) -> Result<()> {
        self.connection().await.map(|_| ())
    }

    /// Forgets the connection, which closes it; the next command makes a new one.
    pub async fn reset(&self) {
        self.current.lock().await.connection = None;
    }

    async fn forget(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current.number == number {
            current.connection = None;
        }
    }

    fn unreachable(&self, error: &RedisError) -> Error {
        let endpoint = &self.settings.endpoint;
        Error::Connection {
            message: match advice(error) {
                Some((what, advice)) => format!("Redis at {endpoint} {what} ({error}); {advice}"),
                None => format!(
                    "could not connect to Redis at {endpoint} ({error}); start one with `toromq server start` and use \
                     connection=\"embedded:.toromq\", or set TOROMQ_URL to the server you mean"
                ),
            },
            outcome: Outcome::NotDone,
        }
    }

    /// Sends one command.
    ///
    /// # Errors
    ///
    /// As [`Error`] says: not reachable, reply lost, or refused by the server.
    pub async fn send(&self, operation: &'static str, cmd: &Cmd) -> Result<Value> {
        let session = self.session().await?;
        self.send_over(&session, operation, cmd).await
    }

    /// The same for a command that blocks: nobody is told that its reply is on its way.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub(crate) async fn wait(&self, operation: &'static str, cmd: &Cmd) -> Result<Value> {
        let session = self.session().await?;
        let sent = session.connection.clone().send_packed_command(cmd).await;
        self.answer(operation, sent, session.number).await
    }

    /// The connection as it is now, made if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Connection`] when that can't be done.
    pub(crate) async fn session(&self) -> Result<Session> {
        let (connection, number) = self.connection().await?;
        Ok(Session { connection, number })
    }

    async fn send_over(
        &self,
        session: &Session,
        operation: &'static str,
        cmd: &Cmd,
    ) -> Result<Value> {
        let sent = {
            let _expecting = self.expect_reply();
            session.connection.clone().send_packed_command(cmd).await
        };
        self.answer(operation, sent, session.number).await
    }

    async fn answer(
        &self,
        operation: &'static str,
        sent: RedisResult<Value>,
        number: u64,
    ) -> Result<Value> {
        match sent.and_then(Value::extract_error) {
            Ok(value) => Ok(value),
            Err(error) => Err(self.classify(operation, &error, number).await),
        }
    }

    /// The connection's number, and what the server knows it by. It is made now if there is none.
    pub(crate) async fn peer(&self) -> Result<(u64, Option<Peer>)> {
        let number = self.connection().await?.1;
        let current = self.current.lock().await;
        let peer = current.peer.clone().filter(|_| current.number == number);
        Ok((number, peer))
    }

    /// Sends a blocking command, and in one piece with it a script call that the server runs as soon as that has ended.
    /// Gives the answers to both. Nothing is sent when `number` is not the connection's any more.
    pub(crate) async fn call_behind(
        &self,
        number: u64,
        operation: &'static str,
        blocking: Cmd,
        call: &Call,
    ) -> Result<(Result<Value>, Result<Value>)> {
        let (mut connection, current) = self.connection().await?;
        if current != number {
            return Err(Error::Connection {
                message: format!(
                    "the connection to Redis at {} is another one",
                    self.settings.endpoint
                ),
                outcome: Outcome::NotDone,
            });
        }
        let mut both = redis::pipe();
        both.add_command(blocking).add_command(call.command(false));
        let answers = match connection.send_packed_commands(&both, 0, 2).await {
            Ok(answers) => answers,
            Err(error) => return Err(self.classify(operation, &error, number).await),
        };
        let mut classified = Vec::with_capacity(2);
        for (operation, answer) in [operation, call.script.name].into_iter().zip(answers) {
            classified.push(match answer.extract_error() {
                Ok(answer) => Ok(answer),
                Err(error) => Err(self.classify(operation, &error, number).await),
            });
        }
        let mut classified = classified.into_iter();
        match (classified.next(), classified.next()) {
            (Some(first), Some(second)) => Ok((first, second)),
            _ => Err(Error::Broken(format!("{operation} got no two answers"))),
        }
    }

    async fn classify(&self, operation: &'static str, error: &RedisError, number: u64) -> Error {
        let said = error.to_string();
        if said.contains("NOAUTH") || said.contains(UNAUTHENTICATED) {
            // No password was given, so the connection stood before anybody asked for one.
            self.forget(number).await;
            return self.unreachable(error);
        }
        if !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
            self.forget(number).await;
            return Error::Connection {
                message: format!(
                    "the connection to Redis at {} broke during {operation} ({error}); it is not known whether it \
                     was done",
                    self.settings.endpoint
                ),
                outcome: Outcome::Unknown,
            };
        }
        let mut message = error.to_string();
        for (word, advice) in CURES {
            if message.contains(word) {
                message = format!("{message}; {advice} ({})", self.settings.endpoint);
            }
        }
        let moved = matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        );
        if moved {
            // What we are connected to is no master any more.
            self.forget(number).await;
        }
        Error::Server {
            operation,
            transient: moved
                || matches!(
                    error.kind(),
                    ErrorKind::Server(
                        ServerErrorKind::BusyLoading
                            | ServerErrorKind::TryAgain
                            | ServerErrorKind::ClusterDown
                    )
                )
                || PASSING.iter().any(|word| message.contains(word)),
            message,
        }
    }

    /// Calls a script, loading it where the server does not know it.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub async fn call(&self, call: &Call) -> Result<Value> {
        let session = self.session().await?;
        self.call_over(&session, call).await
    }

    /// The same over that connection or none.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub(crate) async fn call_over(&self, session: &Session, call: &Call) -> Result<Value> {
        let name = call.script.name;
        match self.send_over(session, name, &call.command(false)).await {
            Err(Error::Server { message, .. })
                if message.to_ascii_uppercase().contains("NOSCRIPT") =>
            {
                self.send_over(session, name, &call.command(true)).await
            }
            other => other,
        }
    }
}

/// Growing pauses between tries.
pub(crate) struct Backoff {
    tries: u32,
    longest: u64,
}

impl Backoff {
    /// None of them longer than `longest` milliseconds.
    pub(crate) fn new(longest: u64) -> Self {
        Self { tries: 0, longest }
    }

    /// Doubles up to the longest, with jitter so that a fleet does not come back at once.
    pub(crate) async fn pause(&mut self) {
        self.tries = (self.tries + 1).min(32);
        let longest = (20u64 << self.tries).min(self.longest);
        tokio::time::sleep(Duration::from_millis(rand::random_range(
            longest / 2..=longest,
        )))
        .await;
    }

    pub(crate) fn reset(&mut self) {
        self.tries = 0;
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
