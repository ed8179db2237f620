//! Producing and looking: jobs added in batches, jobs and counts read.

use std::{future::Future, sync::Arc, time::Duration};

use redis::{Cmd, Value};
use tokio::{sync::mpsc, sync::oneshot, time::Instant};

use crate::{
    error::{Error, Outcome, Result},
    job::JobRecord,
    keys::QueueKeys,
    link::{Call, Link, integer, items, text},
    scripts::{self, Code},
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
// Between tries: short enough for a server that only restarts, long enough not to burden one that struggles.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

struct Request {
    jobs: Vec<NewJob>,
    reply: oneshot::Sender<Result<Vec<String>>>,
    deadline: Instant,
}

/// One queue, for producing and looking.
#[derive(Debug)]
pub struct Queue {
    keys: QueueKeys,
    link: Arc<Link>,
    requests: mpsc::UnboundedSender<Request>,
    timeout: Duration,
}

impl Queue {
    /// A queue on a connection that others may use as well. Nothing is sent until it is used. Must be called within a
    /// Tokio runtime.
    #[must_use]
    pub fn new(link: Arc<Link>, keys: QueueKeys, version: String, max_events: Option<u64>) -> Self {
        let (requests, incoming) = mpsc::unbounded_channel();
        let producer = Producer {
            keys: keys.clone(),
            link: Arc::clone(&link),
            version,
            max_events: max_events.map_or_else(String::new, |length| length.to_string()),
            next: 1,
            last: 0,
        };
        tokio::spawn(producer.run(incoming));
        Self {
            keys,
            timeout: link.command_timeout(),
            link,
            requests,
        }
    }

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

    /// A job by its id.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub async fn get_job(&self, id: &str) -> Result<Option<JobRecord>> {
        let stored = self
            .send("get_job", redis::cmd("HGETALL").arg(self.keys.job(id)))
            .await?;
        let record = JobRecord::new(id.to_owned(), String::new(), stored);
        Ok(if record.fields.is_empty() {
            None
        } else {
            Some(record)
        })
    }

    /// Jobs by state.
    ///
    /// # Errors
    ///
    /// As [`Link::call`].
    pub async fn get_jobs(
        &self,
        states: &[String],
        start: i64,
        last: i64,
        asc: bool,
    ) -> Result<Vec<JobRecord>> {
        let mut call = Call::new(&scripts::GET_JOBS, &self.keys);
        call.arg(self.keys.base())
            .number(start)
            .number(last)
            .arg(if asc { "1" } else { "" });
        for state in states {
            call.arg(state);
        }
        let found = items(self.call(&call).await?);
        Ok(found
            .into_iter()
            .filter_map(|pair| {
                let mut pair = items(pair).into_iter();
                let id = text(&pair.next()?);
                Some(JobRecord::new(id, String::new(), pair.next()?))
            })
            .collect())
    }

    /// Counts by state, in the order asked.
    ///
    /// # Errors
    ///
    /// As [`Link::call`].
    pub async fn get_counts(&self, states: &[String]) -> Result<Vec<i64>> {
        let mut call = Call::new(&scripts::GET_COUNTS, &self.keys);
        for state in states {
            call.arg(state);
        }
        Ok(items(self.call(&call).await?).iter().map(integer).collect())
    }

    /// The state a job is in.
    ///
    /// # Errors
    ///
    /// As [`Link::call`].
    pub async fn get_state(&self, id: &str) -> Result<String> {
        let mut call = Call::new(&scripts::GET_STATE, &self.keys);
        call.arg(id);
        Ok(text(&self.call(&call).await?))
    }

    /// Lines of a job's log, and how many there are.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub async fn get_logs(
        &self,
        id: &str,
        start: i64,
        last: i64,
        asc: bool,
    ) -> Result<(Vec<String>, i64)> {
        let key = format!("{}:logs", self.keys.job(id));
        let (from, to) = if asc {
            (start, last)
        } else {
            (-(last + 1), -(start + 1))
        };
        let lines = self
            .send("get_logs", redis::cmd("LRANGE").arg(&key).arg(from).arg(to))
            .await?;
        let count = self.send("get_logs", redis::cmd("LLEN").arg(&key)).await?;
        let mut lines: Vec<String> = items(lines).iter().map(text).collect();
        if !asc {
            lines.reverse();
        }
        Ok((lines, integer(&count)))
    }

    /// Replaces a job's data (JSON text).
    ///
    /// # Errors
    ///
    /// [`Error::Script`] when there is no such job.
    pub async fn update_data(&self, id: &str, data: &[u8]) -> Result<()> {
        let mut call = Call::on(&scripts::UPDATE_DATA, vec![self.keys.job(id)]);
        call.arg(data);
        self.checked("update_data", id, &call).await.map(|_| ())
    }

    /// Stores and publishes a job's progress (JSON text).
    ///
    /// # Errors
    ///
    /// [`Error::Script`] when there is no such job.
    pub async fn update_progress(&self, id: &str, progress: &[u8]) -> Result<()> {
        let keys = vec![
            self.keys.job(id),
            self.keys.of("meta"),
            self.keys.of("events"),
        ];
        let mut call = Call::on(&scripts::UPDATE_PROGRESS, keys);
        call.arg(id).arg(progress);
        self.checked("update_progress", id, &call).await.map(|_| ())
    }

    /// Appends a line to a job's log and keeps the newest `keep`, all for 0; gives how many there are.
    ///
    /// # Errors
    ///
    /// [`Error::Script`] when there is no such job.
    pub async fn add_log(&self, id: &str, line: &str, keep: i64) -> Result<i64> {
        let key = self.keys.job(id);
        let logs = format!("{key}:logs");
        let mut call = Call::on(&scripts::ADD_LOG, vec![key, logs]);
        call.arg(line).number(keep);
        // A line whose answer was lost may stand already, and a second one would be a lie.
        let reply = repeat(self.timeout, Outcome::NotDone, || self.link.call(&call)).await?;
        Self::check("log", id, reply)
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
async fn repeat<F: Future<Output = Result<Value>>>(
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

struct Producer {
    keys: QueueKeys,
    link: Arc<Link>,
    version: String,
    max_events: String,
    /// The reserved id numbers that are not given out yet.
    next: i64,
    last: i64,
}

impl Producer {
    async fn run(mut self, mut incoming: mpsc::UnboundedReceiver<Request>) {
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
