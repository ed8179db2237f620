//! A queue without a worker: producing, looking, controlling.

mod control;
mod deduplication;
mod getters;
mod jobs;
mod limits;
#[doc(hidden)]
pub mod measured;
mod metrics;
mod producer;
mod schedulers;
mod stream;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, Value};
use tokio::time::Instant;

pub use deduplication::Deduplication;
pub use jobs::RetryOptions;
pub use metrics::Series;
pub(crate) use producer::Seen;
pub use producer::{Added, Batch, NewJob, Parent, Reply};
pub use schedulers::{NewScheduler, Scheduler, When};

use crate::{
    error::{Error, Outcome, Result},
    keys::QueueKeys,
    link::{Call, Link, integer},
    scripts::Code,
};

use producer::Producer;

// Between tries: short enough for a server that only restarts, long enough not to burden one that struggles.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(20);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// One queue, for producing and looking.
#[derive(Clone)]
pub struct Queue {
    keys: QueueKeys,
    link: Arc<Link>,
    producer: Arc<Producer>,
    timeout: Duration,
    /// What to write into the queue's settings: our version, and how many events to keep; either may be empty.
    settings: (String, String),
}

impl Queue {
    /// A queue on a connection that others may use as well. Nothing is sent until it is used.
    #[must_use]
    pub fn new(link: Arc<Link>, keys: QueueKeys, version: String, max_events: Option<u64>) -> Self {
        let length = max_events.map_or_else(String::new, |length| length.to_string());
        let settings = (version.clone(), length);
        Self {
            producer: Arc::new(Producer::new(keys.clone(), version, max_events)),
            keys,
            timeout: link.command_timeout(),
            link,
            settings,
        }
    }

    /// The same queue over another connection to the same server.
    #[must_use]
    pub fn over(&self, link: Arc<Link>) -> Self {
        Self {
            link,
            ..self.clone()
        }
    }

    /// The same queue for callers of another event loop, over its connection: what they add does not wait for the others.
    #[must_use]
    pub fn apart(&self, link: Arc<Link>) -> Self {
        Self {
            link,
            producer: Arc::new(self.producer.another()),
            ..self.clone()
        }
    }

    /// Sends what does no harm when it is done twice, until it is answered or the timeout has passed.
    async fn send(&self, operation: &'static str, cmd: &Cmd) -> Result<Value> {
        repeat(self.timeout, Outcome::Unknown, || {
            self.link.send(operation, cmd)
        })
        .await
    }

    /// The same for a script.
    async fn call(&self, call: &Call) -> Result<Value> {
        repeat(self.timeout, Outcome::Unknown, || self.link.call(call)).await
    }

    async fn checked(&self, operation: &'static str, id: &str, call: &Call) -> Result<i64> {
        Self::check(operation, id, self.call(call).await?)
    }

    /// For what can't be done twice: after a lost answer a refusal may be the echo of our own success, so the truth is
    /// that nobody knows.
    async fn checked_once(&self, operation: &'static str, id: &str, call: &Call) -> Result<i64> {
        let lost = AtomicBool::new(false);
        let reply = repeat(self.timeout, Outcome::Unknown, || async {
            let reply = self.link.call(call).await;
            if let Err(Error::Connection {
                outcome: Outcome::Unknown,
                ..
            }) = &reply
            {
                lost.store(true, Ordering::Relaxed);
            }
            reply
        })
        .await?;
        match Self::check(operation, id, reply) {
            Err(error @ Error::Script { .. }) if lost.load(Ordering::Relaxed) => {
                Err(Error::Connection {
                    message: format!(
                        "the answer to {operation} of job {id} was lost; sent again, it was refused ({error}), so it was \
                         done by the first try or by somebody else: look at the job"
                    ),
                    outcome: Outcome::Unknown,
                })
            }
            answer => answer,
        }
    }

    fn check(operation: &'static str, id: &str, reply: Value) -> Result<i64> {
        let reply = integer(&reply);
        match Code::from_value(reply) {
            Some(code) => Err(Error::Script {
                operation,
                code,
                job_id: id.to_owned(),
            }),
            None => Ok(reply),
        }
    }
}

/// Tries again while Redis can't be reached, until the timeout has passed. With `worst` not done, only what is known not
/// to have been done is tried again.
pub(crate) async fn repeat<F: Future<Output = Result<Value>>>(
    timeout: Duration,
    worst: Outcome,
    once: impl Fn() -> F,
) -> Result<Value> {
    let deadline = Instant::now() + timeout;
    let mut pause = FIRST_PAUSE;
    loop {
        match once().await {
            Err(Error::Connection { outcome, .. })
                if (outcome == Outcome::NotDone || worst == Outcome::Unknown)
                    && Instant::now() + pause < deadline => {}
            Err(Error::Server {
                transient: true, ..
            }) if Instant::now() + pause < deadline => {}
            answer => return answer,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
