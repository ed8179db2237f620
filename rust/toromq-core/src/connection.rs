//! Where Redis is, who we are there, and how long to wait for it.

#[cfg(unix)]
use std::io;
use std::{
    fmt,
    hash::{Hash, Hasher},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    TlsCertificates,
    io::tcp::{
        TcpSettings,
        socket2::{self, TcpKeepalive},
    },
};

use crate::error::{Error, Result};
#[cfg(unix)]
use crate::lane::Stream;

/// Certificates beyond those that every system trusts, in PEM form.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Who may sign the server's certificate; `None` for the usual authorities.
    pub ca: Option<Vec<u8>>,
    /// Our own certificate and its key.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

/// How to reach the server.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// Host and port, with or without TLS.
    Tcp(String, u16, Option<Tls>),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port, None) => write!(f, "{host}:{port}"),
            Self::Tcp(host, port, Some(_)) => write!(f, "{host}:{port} with TLS"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Everything there is to say about a connection.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ConnectionOptions {
    /// How to reach the server.
    pub address: Address,
    /// The number of the database.
    pub db: i64,
    /// User; `None` for the default one.
    pub username: Option<String>,
    /// Password, if the server wants one.
    pub password: Option<String>,
    /// What the server's list of clients calls it.
    pub client_name: Option<String>,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long a producer tries before it gives up, and how long any single reply may take.
    pub command_timeout: Duration,
}

/// A host that vanished without a word is found by its silence.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
}

/// Options that were found good.
#[derive(Clone)]
pub struct ConnectionSettings {
    pub(crate) client: Client,
    pub(crate) endpoint: String,
    pub(crate) client_name: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) command_timeout: Duration,
    options: Arc<ConnectionOptions>,
}

/// The same where all that was asked for is.
impl PartialEq for ConnectionSettings {
    fn eq(&self, other: &Self) -> bool {
        self.options == other.options
    }
}

impl Eq for ConnectionSettings {}

impl Hash for ConnectionSettings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.options.hash(state);
    }
}

impl fmt::Debug for ConnectionSettings {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionSettings({})", self.endpoint)
    }
}

impl ConnectionSettings {
    /// Checks the options. Nothing is sent.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when a certificate or key can't be read.
    pub fn new(options: ConnectionOptions) -> Result<Self> {
        // The TLS library wants its provider chosen before the first handshake; a second choice is refused, and harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let endpoint = options.address.to_string();
        let asked = Arc::new(options.clone());
        let refused = |error: redis::RedisError| Error::Config(format!("connection: {error}"));
        let mut redis = RedisConnectionInfo::default()
            .set_db(options.db)
            .set_lib_name("toromq", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &options.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &options.password {
            redis = redis.set_password(password);
        }
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive());
        let (address, tls) = match options.address {
            Address::Unix(path) => (ConnectionAddr::Unix(path), None),
            Address::Tcp(host, port, None) => (ConnectionAddr::Tcp(host, port), None),
            Address::Tcp(host, port, Some(tls)) => {
                let address = ConnectionAddr::TcpTls {
                    host,
                    port,
                    insecure: false,
                    tls_params: None,
                };
                (address, Some(tls))
            }
        };
        let info = address
            .into_connection_info()
            .map_err(refused)?
            .set_redis_settings(redis)
            .set_tcp_settings(tcp);
        let client = match tls {
            Some(Tls { ca, client }) if ca.is_some() || client.is_some() => {
                let certificates = TlsCertificates {
                    client_tls: client.map(|(client_cert, client_key)| ClientTlsConfig {
                        client_cert,
                        client_key,
                    }),
                    root_cert: ca,
                };
                Client::build_with_tls(info, certificates)
            }
            _ => Client::open(info),
        };
        Ok(Self {
            client: client.map_err(refused)?,
            endpoint,
            client_name: options.client_name,
            connect_timeout: options.connect_timeout,
            command_timeout: options.command_timeout,
            options: asked,
        })
    }

    /// Whether everything goes through TLS.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        matches!(self.options.address, Address::Tcp(_, _, Some(_)))
    }

    /// A new socket to the server, for who watches it himself.
    #[cfg(unix)]
    pub(crate) async fn open(&self) -> io::Result<Stream> {
        match &self.options.address {
            Address::Tcp(host, port, _) => {
                let stream = tokio::net::TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
                Ok(Stream::Tcp(stream.into_std()?))
            }
            Address::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(path).await?;
                Ok(Stream::Unix(stream.into_std()?))
            }
        }
    }
}
