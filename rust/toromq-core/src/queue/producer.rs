//! Producing: concurrent adds share a round trip; a repeated add is recognised by its reserved id.

use std::{borrow::Cow, sync::Arc};

use redis::Value;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{Deduplication, FIRST_PAUSE, LONGEST_PAUSE, Queue};
use crate::{
    error::{Error, Outcome, Result},
    keys::QueueKeys,
    link::{Call, Link, integer, items, text},
    packed::Packed,
    scripts::{self, Code},
    telemetry::{self, Activity},
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
    /// What it says of other jobs with the same deduplication id.
    pub deduplication: Option<Deduplication>,
    /// Whose child it is.
    pub parent: Option<Parent>,
}

/// The parent of a job to add.
#[derive(Debug, Clone, Default)]
pub struct Parent {
    /// The parent's full key.
    pub key: String,
    /// JSON text, stored with the child: the parent's id and queue, and what the child's failure means for it.
    pub stored: Vec<u8>,
}

/// What became of a job that was added.
#[derive(Debug, Clone)]
pub struct Added {
    /// Its id, or that of the job that stands for it.
    pub id: String,
    /// Whether another job stands for it.
    pub duplicate: bool,
}

impl NewJob {
    /// The job as the script takes it.
    pub(super) fn put(&self, jobs: &mut Packed, number: i64, again: bool) {
        jobs.number(number);
        self.put_content(jobs);
        let mut more = self.more();
        if !self.id.is_empty() {
            more.push(("job_id", self.id.as_bytes().into()));
        }
        if again {
            more.push(("again", b"1".into()));
        }
        jobs.named(&more).end_group(6);
    }

    /// What every job has.
    pub(crate) fn put_content(&self, jobs: &mut Packed) {
        jobs.text(&self.name)
            .text(&self.data)
            .text(&self.opts)
            .number(self.timestamp);
    }

    /// What few jobs have.
    pub(crate) fn more(&self) -> Vec<(&'static str, Cow<'_, [u8]>)> {
        let mut more: Vec<(&str, Cow<'_, [u8]>)> = Vec::new();
        for (name, number) in [("delay", self.delay), ("priority", self.priority)] {
            if number != 0 {
                more.push((name, number.to_string().into_bytes().into()));
            }
        }
        if self.lifo {
            more.push(("lifo", b"1".into()));
        }
        if let Some(parent) = &self.parent {
            more.push(("parent_key", parent.key.as_bytes().into()));
            more.push(("parent", parent.stored.as_slice().into()));
        }
        let pairs = self.deduplication.iter().flat_map(Deduplication::pairs);
        more.extend(pairs.map(|(name, value)| (name, value.into_bytes().into())));
        more
    }

    /// What the script said of it.
    pub(super) fn outcome(&self, said: Value) -> Result<Added> {
        let code = match &said {
            Value::Int(code) => *code,
            Value::Array(owner) => {
                return Ok(Added {
                    id: owner.first().map_or_else(String::new, text),
                    duplicate: true,
                });
            }
            id => {
                return Ok(Added {
                    id: text(id),
                    duplicate: false,
                });
            }
        };
        let own_id = (!self.id.is_empty()).then(|| self.id.clone());
        let mut what = own_id
            .as_ref()
            .map_or_else(|| format!("job {:?}", self.name), |id| format!("job {id}"));
        if let Some(parent) = &self.parent {
            what = format!("{what}, to be a child of {},", parent.key);
        }
        Err(match Code::from_value(code) {
            Some(code) => Error::NotAdded {
                what,
                code,
                job_id: own_id,
            },
            None => Error::Broken(format!("{what}: the script answered {code}")),
        })
    }
}

// Holds Redis for about a millisecond.
const BATCH: usize = 250;
pub(super) struct Request {
    jobs: Vec<NewJob>,
    reply: oneshot::Sender<Result<Vec<Result<Added>>>>,
    deadline: Instant,
}

impl Queue {
    /// Adds jobs; gives what became of each, in the order given. One that is refused stops no other.
    ///
    /// What is added while another call is under way goes together in the next one.
    ///
    /// # Errors
    ///
    /// [`Error::Connection`] when Redis stays away for the whole command timeout.
    pub async fn add(&self, jobs: Vec<NewJob>) -> Result<Vec<Result<Added>>> {
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
    /// The last event we know of.
    event: Seen,
    activity: Arc<Activity>,
}

/// An event, and when we had heard of it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    id: String,
    at: Instant,
}

// How far the server's clock may have been set back, and how much slower than ours it may run (one part in a thousand).
const CLOCK_SLACK_MS: u128 = 500;
const CLOCK_DRIFT: u128 = 1000;

impl Seen {
    pub(crate) fn new(id: String, at: Instant) -> Self {
        Self { id, at }
    }

    /// The id of an event from before `moment`, and little before it.
    ///
    /// Ids begin with the server's time in milliseconds. As much time as has passed for us since we heard of this event
    /// has passed for the server at least.
    pub(crate) fn before(&self, moment: Instant) -> String {
        let passed = moment.saturating_duration_since(self.at).as_millis();
        let passed = passed.saturating_sub(CLOCK_SLACK_MS + passed / CLOCK_DRIFT);
        let time = self
            .id
            .split('-')
            .next()
            .and_then(|ms| ms.parse::<u128>().ok());
        match time {
            Some(time) if passed > 0 => format!("{}-0", time + passed),
            _ => self.id.clone(),
        }
    }
}

impl Producer {
    pub(super) fn new(
        keys: QueueKeys,
        link: Arc<Link>,
        version: String,
        max_events: Option<u64>,
    ) -> Self {
        Self {
            activity: telemetry::of(&keys),
            keys,
            link,
            version,
            max_events: max_events.map_or_else(String::new, |length| length.to_string()),
            next: 1,
            last: 0,
            event: Seen {
                id: String::new(),
                at: Instant::now(),
            },
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
            let (added, error) = self.add_all(&jobs, deadline).await;
            let new = added.iter().flatten().filter(|added| !added.duplicate);
            Activity::count(&self.activity.added, new.count());
            let mut added = added.into_iter();
            for request in gathered {
                let own: Vec<_> = added.by_ref().take(request.jobs.len()).collect();
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

    /// What became of the jobs, and what stopped the rest.
    async fn add_all(
        &mut self,
        jobs: &[&NewJob],
        deadline: Instant,
    ) -> (Vec<Result<Added>>, Option<Error>) {
        let mut added = Vec::with_capacity(jobs.len());
        for batch in jobs.chunks(BATCH) {
            match self.add_batch(batch, jobs.len(), deadline).await {
                Ok(done) => added.extend(done),
                Err(error) => return (added, Some(error)),
            }
        }
        (added, None)
    }

    /// One batch, repeated until it is known to be stored or the deadline has passed.
    ///
    /// Each job's id is known before it is sent, so a repetition can tell what an earlier try has stored.
    async fn add_batch(
        &mut self,
        batch: &[&NewJob],
        wanted: usize,
        deadline: Instant,
    ) -> Result<Vec<Result<Added>>> {
        let size = i64::try_from(batch.len()).unwrap_or(i64::MAX);
        let mut first = 0;
        let mut again = false;
        let mut since = String::new();
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = async {
                if first == 0 {
                    first = self
                        .reserve(size, i64::try_from(wanted).unwrap_or(size))
                        .await?;
                    since = self.event.before(Instant::now());
                }
                // Reserve for the next call what this one used, so that a steady producer asks Redis once a batch.
                let reserve = if self.last - self.next + 1 < size {
                    size
                } else {
                    0
                };
                let mut call = self.call(reserve, &since, first + size - 1);
                let mut jobs = Packed::default();
                for (number, job) in (first..).zip(batch) {
                    job.put(&mut jobs, number, again);
                }
                jobs.put(&mut call);
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
                    let said = self.note(reply, reserve);
                    return Ok(batch
                        .iter()
                        .zip(said)
                        .map(|(job, said)| job.outcome(said))
                        .collect());
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

    /// A call that reserves numbers, to which jobs are added, whose own numbers go up to `highest`.
    pub(super) fn call(&self, reserve: i64, since: &str, highest: i64) -> Call {
        let mut call = Call::new(&scripts::ADD_JOBS, &self.keys);
        call.arg(self.keys.base())
            .number(reserve)
            .arg(&self.max_events)
            .arg(&self.version)
            .arg(since)
            .number(highest);
        call
    }

    /// Takes what a reply says of numbers and events; leaves what it says of the jobs.
    pub(super) fn note(
        &mut self,
        reply: Value,
        reserved: i64,
    ) -> impl Iterator<Item = Value> + use<> {
        let mut reply = items(reply).into_iter();
        let last = reply.next().as_ref().map_or(0, integer);
        if reserved > 0 && self.last < self.next {
            self.last = last;
            self.next = last - reserved + 1;
        }
        let id = reply.next().as_ref().map_or_else(String::new, text);
        if !id.is_empty() {
            let at = Instant::now();
            self.event = Seen { id, at };
        }
        reply
    }

    /// The first of `size` id numbers that are ours alone.
    async fn reserve(&mut self, size: i64, wanted: i64) -> Result<i64> {
        if self.last - self.next + 1 < size {
            let count = wanted.max(size);
            let reply = self.link.call(&self.call(count, "", 0)).await?;
            // What is left of an earlier block is too little; gaps are allowed.
            (self.next, self.last) = (1, 0);
            let _ = self.note(reply, count);
        }
        let first = self.next;
        self.next += size;
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_happened_while_a_producer_rested_is_from_before_it_sent_again() {
        let at = Instant::now();
        let seen = |id: &str| Seen {
            id: id.to_owned(),
            at,
        };
        let after = |seconds| at + Duration::from_secs(seconds);
        assert_eq!(seen("1000000-3").before(at), "1000000-3");
        assert_eq!(
            seen("1000000-3").before(at + Duration::from_millis(500)),
            "1000000-3"
        );
        assert_eq!(seen("1000000-3").before(after(1)), "1000499-0");
        assert_eq!(seen("1000000-3").before(after(1000)), "1998500-0");
        assert_eq!(seen("").before(after(1000)), "");
    }
}
