//! Producing: concurrent adds share a round trip; a repeated add is recognised by its reserved id.

use std::sync::Arc;

use redis::Value;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{FIRST_PAUSE, LONGEST_PAUSE, Queue};
use crate::{
    error::{Error, Outcome, Result},
    keys::QueueKeys,
    link::{Call, Link, integer, items, text},
    scripts,
};

/// A job to add. Everything was checked by the caller.
#[derive(Debug, Clone, Default)]
pub struct NewJob {
    /// Own id, or empty for a number.
    pub id: String,
    /// Name.
    pub name: String,
    /// JSON text.
    pub data: Vec<u8>,
    /// JSON text of the options, by their stored names.
    pub opts: Vec<u8>,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Milliseconds.
    pub delay: i64,
    /// 0 for a standard job.
    pub priority: i64,
    /// Whether it runs before the standard jobs that wait.
    pub lifo: bool,
}

// Holds Redis for about a millisecond.
const BATCH: usize = 250;
pub(super) struct Request {
    jobs: Vec<NewJob>,
    reply: oneshot::Sender<Result<Vec<String>>>,
    deadline: Instant,
}

impl Queue {
    /// Adds jobs; gives their ids in the order given.
    ///
    /// What is added while another call is under way goes together in the next one.
    ///
    /// # Errors
    ///
    /// [`Error::Connection`] when Redis stays away for the whole command timeout.
    pub async fn add(&self, jobs: Vec<NewJob>) -> Result<Vec<String>> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            jobs,
            reply,
            deadline: Instant::now() + self.timeout,
        };
        self.requests.send(request).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

/// Why the rest of a bulk was not added, and how many of it were.
fn partly(error: &Error, stored: usize, wanted: usize) -> Error {
    if stored == 0 {
        return error.clone();
    }
    Error::Connection {
        message: format!("the first {stored} of {wanted} jobs were added, then: {error}"),
        outcome: Outcome::Unknown,
    }
}

pub(super) struct Producer {
    keys: QueueKeys,
    link: Arc<Link>,
    version: String,
    max_events: String,
    /// The reserved id numbers that are not given out yet.
    next: i64,
    last: i64,
}

impl Producer {
    pub(super) fn new(
        keys: QueueKeys,
        link: Arc<Link>,
        version: String,
        max_events: Option<u64>,
    ) -> Self {
        Self {
            keys,
            link,
            version,
            max_events: max_events.map_or_else(String::new, |length| length.to_string()),
            next: 1,
            last: 0,
        }
    }

    pub(super) async fn run(mut self, mut incoming: mpsc::UnboundedReceiver<Request>) {
        while let Some(first) = incoming.recv().await {
            let mut gathered = vec![first];
            let mut count = gathered[0].jobs.len();
            while count < BATCH {
                let Ok(request) = incoming.try_recv() else {
                    break;
                };
                count += request.jobs.len();
                gathered.push(request);
            }
            let deadline = gathered
                .iter()
                .map(|request| request.deadline)
                .min()
                .unwrap_or_else(Instant::now);
            let jobs: Vec<&NewJob> = gathered.iter().flat_map(|request| &request.jobs).collect();
            let (ids, error) = self.add_all(&jobs, deadline).await;
            let mut ids = ids.into_iter();
            for request in gathered {
                let own: Vec<String> = ids.by_ref().take(request.jobs.len()).collect();
                let answer = match &error {
                    Some(error) if own.len() < request.jobs.len() => {
                        Err(partly(error, own.len(), request.jobs.len()))
                    }
                    _ => Ok(own),
                };
                // A caller who went away needs no answer; its jobs are stored.
                let _ = request.reply.send(answer);
            }
        }
    }

    /// The ids of what is stored, and what stopped it.
    async fn add_all(
        &mut self,
        jobs: &[&NewJob],
        deadline: Instant,
    ) -> (Vec<String>, Option<Error>) {
        let mut ids = Vec::with_capacity(jobs.len());
        for batch in jobs.chunks(BATCH) {
            match self.add_batch(batch, jobs.len(), deadline).await {
                Ok(stored) => ids.extend(stored),
                Err(error) => return (ids, Some(error)),
            }
        }
        (ids, None)
    }

    /// One batch, repeated until it is known to be stored or the deadline has passed.
    ///
    /// Each job's id is known before it is sent, so a repetition can tell what an earlier try has stored.
    async fn add_batch(
        &mut self,
        batch: &[&NewJob],
        wanted: usize,
        deadline: Instant,
    ) -> Result<Vec<String>> {
        let size = i64::try_from(batch.len()).unwrap_or(i64::MAX);
        let mut first = 0;
        let mut again = false;
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = async {
                if first == 0 {
                    first = self
                        .reserve(size, i64::try_from(wanted).unwrap_or(size))
                        .await?;
                }
                let mut call = Call::new(&scripts::ADD_JOBS, &self.keys);
                // Reserve for the next call what this one used, so that a steady producer asks Redis once a batch.
                let reserve = if self.last - self.next + 1 < size {
                    size
                } else {
                    0
                };
                call.arg(self.keys.base())
                    .number(reserve)
                    .arg(&self.max_events)
                    .arg(&self.version);
                for (number, job) in (first..).zip(batch) {
                    call.number(number)
                        .arg(&job.id)
                        .arg(&job.name)
                        .arg(&job.data)
                        .arg(&job.opts)
                        .number(job.timestamp)
                        .number(job.delay)
                        .number(job.priority)
                        .arg(if job.lifo { "1" } else { "" })
                        .arg(if again { "1" } else { "" });
                }
                self.link.call(&call).await.map(|reply| (reply, reserve))
            };
            match attempt.await {
                Ok((Value::Int(_), _)) => {
                    if Instant::now() > deadline {
                        return Err(Error::Broken(format!(
                            "{} holds no usable counter of ids; delete it, or set it above every id in use",
                            self.keys.of("id")
                        )));
                    }
                    // The counter was set back; numbers from before belong to nobody.
                    (self.next, self.last, first, again) = (1, 0, 0, false);
                }
                Ok((reply, reserve)) => {
                    let reply = items(reply);
                    if reserve > 0 && self.last < self.next {
                        self.last = reply.first().map_or(0, integer);
                        self.next = self.last - reserve + 1;
                    }
                    return Ok(reply.iter().skip(1).map(text).collect());
                }
                Err(error) => {
                    let retry = match &error {
                        Error::Connection { outcome, .. } => {
                            again |= *outcome == Outcome::Unknown && first != 0;
                            true
                        }
                        Error::Server { transient, .. } => *transient,
                        _ => false,
                    };
                    if !retry || Instant::now() + pause > deadline {
                        return Err(if again {
                            // An earlier try was sent, and may have been done whatever became of this one.
                            Error::Connection {
                                message: format!(
                                    "{error}; an earlier try got no answer, so it is not known whether the jobs were \
                                     added"
                                ),
                                outcome: Outcome::Unknown,
                            }
                        } else {
                            error
                        });
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The first of `size` id numbers that are ours alone.
    async fn reserve(&mut self, size: i64, wanted: i64) -> Result<i64> {
        if self.last - self.next + 1 < size {
            let count = wanted.max(size);
            let counter = self.keys.of("id");
            let last = self
                .link
                .send("reserve ids", redis::cmd("INCRBY").arg(counter).arg(count))
                .await?;
            self.last = integer(&last);
            self.next = self.last - count + 1;
        }
        let first = self.next;
        self.next += size;
        Ok(first)
    }
}
