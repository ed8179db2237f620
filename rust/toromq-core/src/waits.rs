//! Waiting for jobs to end: all who wait on a queue share one reader of its events.
//!
//! Whoever waits is entered first, then it is asked once whether the job has ended already, and from then on its events
//! decide. The answer tells how far the events had come, so an event from before it (of an earlier run of a job that was
//! retried since) decides nothing. It is asked again, for all at once, whenever events may have gone unread, and now and
//! then in any case, because some ways to remove jobs make no event.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use redis::Value;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::ConnectionSettings,
    error::{Error, Outcome, Result},
    events::{EntryId, Event, EventReader, News, Start},
    keys::QueueKeys,
    link::{Backoff, Call, Link, integer, items, text},
    scripts::{self, Code},
};

// How many jobs one call asks for: about a millisecond of Redis.
const BATCH: usize = 500;
// How long the reader stays when nobody waits any more: callers who wait for one job after the other share one.
const LINGER: Duration = Duration::from_secs(5);
// How soon it is seen that a job was drained, which makes no event.
const ASK_AGAIN: Duration = Duration::from_secs(10);

// Between tries to read or to ask while Redis is away: milliseconds, as workers pause.
const LONGEST_PAUSE: u64 = 1000;

/// What became of a job that was waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It returned this (JSON text), or nothing was stored.
    Completed(Option<Vec<u8>>),
    /// It failed for good, with this reason.
    Failed(String),
    /// It was removed meanwhile.
    Removed,
    /// There is no such job, and was none when the wait began.
    Missing,
    /// The time is up; the job goes on.
    TimedOut,
}

/// All queues of a process that jobs are waited for on.
#[derive(Debug, Default)]
pub struct AllWaits {
    queues: HashMap<(ConnectionSettings, String), Weak<Shared>>,
}

impl AllWaits {
    /// Waits on a queue; whoever has the same connection shares their reader. `link` is for questions.
    pub fn of(
        &mut self,
        connection: &ConnectionSettings,
        link: Arc<Link>,
        keys: QueueKeys,
    ) -> Waits {
        self.queues.retain(|_, shared| shared.strong_count() > 0);
        let key = (connection.clone(), keys.base().to_owned());
        let shared = self.queues.get(&key).and_then(Weak::upgrade);
        let shared = shared.unwrap_or_else(|| {
            let shared = Arc::new(Shared {
                connection: connection.clone(),
                keys,
                link,
                table: Mutex::default(),
                ask: Notify::new(),
                left: Notify::new(),
            });
            self.queues.insert(key, Arc::downgrade(&shared));
            shared
        });
        shared.table().users += 1;
        Waits {
            shared,
            closed: CancellationToken::new(),
        }
    }
}

/// Waits on a queue, by one of its users. When it is closed or dropped, its waits end.
#[derive(Debug)]
pub struct Waits {
    shared: Arc<Shared>,
    closed: CancellationToken,
}

impl Waits {
    /// Waits until a job has ended. Without a limit, as long as that takes, whatever becomes of Redis meanwhile; a limit of
    /// 0 only looks. Dropping the future ends the wait and leaves nothing behind. Must be polled within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Connection`] when Redis stays away for the command timeout at the beginning; what Redis refuses; and
    /// [`Error::Abandoned`] when the user of the queue closes it.
    pub fn wait(
        &self,
        job_id: String,
        limit: Option<Duration>,
    ) -> impl Future<Output = Result<Ending>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        let closed = self.closed.clone();
        async move {
            let abandoned = Error::Abandoned(job_id.clone());
            tokio::select! {
                biased;
                ending = shared.wait(job_id, limit) => ending,
                () = closed.cancelled() => Err(abandoned),
            }
        }
    }

    /// Ends all of its waits with an error.
    pub fn close(&self) {
        {
            let mut table = self.shared.table();
            if self.closed.is_cancelled() {
                return;
            }
            self.closed.cancel();
            table.users -= 1;
        }
        self.shared.left.notify_one();
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.close();
    }
}

#[derive(Debug)]
struct Shared {
    connection: ConnectionSettings,
    keys: QueueKeys,
    link: Arc<Link>,
    table: Mutex<Table>,
    /// Somebody is to be asked for.
    ask: Notify,
    /// Somebody waits no more.
    left: Notify,
}

#[derive(Debug, Default)]
struct Table {
    waiters: HashMap<u64, Waiter>,
    by_job: HashMap<String, Vec<u64>>,
    number: u64,
    /// Those whose jobs are to be asked for.
    to_ask: VecDeque<u64>,
    /// Those whose jobs were not there; they may still hear that they had ended before.
    missing: Vec<u64>,
    /// How far the events were read; `None` until the reader has its place.
    position: Option<EntryId>,
    /// Why there was no answer.
    trouble: Option<Error>,
    users: usize,
    running: bool,
}

#[derive(Debug)]
struct Waiter {
    job_id: String,
    /// Whether it only wants to know how things are.
    only_looks: bool,
    ended: oneshot::Sender<Result<Ending>>,
    /// Whether it is among those to ask for.
    to_ask: bool,
    /// Later events than this decide; `None` until it was asked for.
    since: Option<EntryId>,
    /// What was heard before it was known what it is worth.
    heard: Vec<(EntryId, Ending)>,
    /// Whether the job was there at some time.
    found: bool,
    /// How far the events had come when the job was not there.
    missing: Option<EntryId>,
}

/// Takes the waiter out, however its wait ends.
struct Entered<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.shared.table().remove(self.number);
        self.shared.left.notify_one();
    }
}

impl Table {
    fn enter(
        &mut self,
        job_id: String,
        only_looks: bool,
    ) -> (u64, oneshot::Receiver<Result<Ending>>) {
        let (ended, ending) = oneshot::channel();
        self.number += 1;
        let waiter = Waiter {
            job_id: job_id.clone(),
            only_looks,
            ended,
            to_ask: true,
            since: None,
            heard: Vec::new(),
            found: false,
            missing: None,
        };
        self.waiters.insert(self.number, waiter);
        self.by_job.entry(job_id).or_default().push(self.number);
        self.to_ask.push_back(self.number);
        (self.number, ending)
    }

    fn remove(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&number)?;
        if let Some(of_job) = self.by_job.get_mut(&waiter.job_id) {
            of_job.retain(|other| *other != number);
            if of_job.is_empty() {
                self.by_job.remove(&waiter.job_id);
            }
        }
        Some(waiter)
    }

    fn end(&mut self, number: u64, ending: Result<Ending>) {
        if let Some(waiter) = self.remove(number) {
            // Whoever went away needs no answer.
            let _ = waiter.ended.send(ending);
        }
    }

    fn end_all(&mut self, error: &Error) {
        for (_, waiter) in self.waiters.drain() {
            let _ = waiter.ended.send(Err(error.clone()));
        }
        self.by_job.clear();
    }

    fn ask_again(&mut self, number: u64) {
        if let Some(waiter) = self.waiters.get_mut(&number)
            && !std::mem::replace(&mut waiter.to_ask, true)
        {
            self.to_ask.push_back(number);
        }
    }

    fn ask_for_all(&mut self) {
        let numbers: Vec<u64> = self.waiters.keys().copied().collect();
        for number in numbers {
            self.ask_again(number);
        }
    }

    /// Whom to ask for next; nobody before the reader has its place, so that nothing happens unheard after the answer.
    fn next_batch(&mut self) -> Vec<(u64, String)> {
        let mut batch = Vec::new();
        if self.position.is_none() {
            return batch;
        }
        while batch.len() < BATCH
            && let Some(number) = self.to_ask.pop_front()
        {
            if let Some(waiter) = self.waiters.get_mut(&number) {
                waiter.to_ask = false;
                batch.push((number, waiter.job_id.clone()));
            }
        }
        batch
    }

    fn tell(&mut self, event: &Event) {
        let ending = match event.name.as_str() {
            "completed" => Ending::Completed(event.field("returnvalue").map(<[u8]>::to_vec)),
            "failed" => Ending::Failed(event.text("failedReason")),
            "removed" => Ending::Removed,
            // Jobs are gone, but which ones is not said.
            "cleaned" => return self.ask_for_all(),
            _ => return,
        };
        let numbers = self.by_job.get(&event.text("jobId")).cloned();
        for number in numbers.unwrap_or_default() {
            match self.waiters.get_mut(&number) {
                Some(waiter) if waiter.since.is_none() => {
                    waiter.heard.push((event.id, ending.clone()));
                }
                Some(waiter) if waiter.since < Some(event.id) => {
                    self.end(number, Ok(ending.clone()));
                }
                _ => {}
            }
        }
    }

    /// What Redis said of a waiter's job when the events had come to `now`.
    fn answered(&mut self, number: u64, now: EntryId, code: i64, said: Value) {
        let Some(waiter) = self.waiters.get_mut(&number) else {
            return;
        };
        let ending = match (code, Code::from_value(code)) {
            (1, _) => Ok(Ending::Completed(match said {
                Value::BulkString(value) => Some(value),
                _ => None,
            })),
            (2, _) => Ok(Ending::Failed(text(&said))),
            (_, Some(Code::JobMissing)) => match waiter.heard.pop() {
                Some((_, ending)) => Ok(ending),
                None => {
                    waiter.missing = Some(now);
                    // Removed when it ended: that is among the events, maybe of those not read yet.
                    waiter.since.get_or_insert_default();
                    self.missing.push(number);
                    return self.end_missing();
                }
            },
            (_, Some(code)) => Err(Error::Script {
                operation: "wait until finished",
                code,
                job_id: waiter.job_id.clone(),
            }),
            (_, None) => {
                let since = waiter.heard.drain(..).find(|(id, _)| *id > now);
                (waiter.since, waiter.missing, waiter.found) = (Some(now), None, true);
                match since {
                    Some((_, ending)) => Ok(ending),
                    None if waiter.only_looks => Ok(Ending::TimedOut),
                    None => return,
                }
            }
        };
        self.end(number, ending);
    }

    /// Ends the waits for jobs that are gone, of which no event that was still to be read told anything better.
    fn end_missing(&mut self) {
        let position = self.position;
        for number in std::mem::take(&mut self.missing) {
            match self
                .waiters
                .get(&number)
                .map(|waiter| (waiter.missing, waiter.found))
            {
                Some((Some(missing), found)) if Some(missing) <= position => {
                    let ending = if found {
                        Ending::Removed
                    } else {
                        Ending::Missing
                    };
                    self.end(number, Ok(ending));
                }
                Some((Some(_), _)) => self.missing.push(number),
                _ => {}
            }
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait(self: &Arc<Self>, job_id: String, limit: Option<Duration>) -> Result<Ending> {
        let patience = Instant::now() + self.link.command_timeout();
        let only_looks = limit.is_some_and(|limit| limit.is_zero());
        let limit = limit
            .filter(|_| !only_looks)
            .map(|limit| Instant::now() + limit);
        let (entered, mut ending) = {
            let mut table = self.table();
            let (number, ending) = table.enter(job_id, only_looks);
            if !std::mem::replace(&mut table.running, true) {
                tokio::spawn(Arc::clone(self).run());
            }
            let entered = Entered {
                shared: self,
                number,
            };
            (entered, ending)
        };
        self.ask.notify_one();
        let first = limit.map_or(patience, |limit| limit.min(patience));
        if let Ok(ending) = timeout_at(first, &mut ending).await {
            return ending.unwrap_or_else(|_| Err(self.silent()));
        }
        if limit.is_some_and(|limit| limit <= patience) {
            return Ok(Ending::TimedOut);
        }
        {
            let table = self.table();
            if let Some(waiter) = table.waiters.get(&entered.number)
                && waiter.since.is_none()
            {
                let trouble = table.trouble.clone();
                return Err(trouble.unwrap_or_else(|| self.silent()));
            }
        }
        let ending = match limit {
            Some(limit) => timeout_at(limit, ending).await,
            None => Ok(ending.await),
        };
        ending.map_or(Ok(Ending::TimedOut), |ending| {
            ending.unwrap_or_else(|_| Err(self.silent()))
        })
    }

    fn silent(&self) -> Error {
        Error::Connection {
            message: format!(
                "Redis at {} did not answer within {:?}",
                self.connection.endpoint,
                self.link.command_timeout()
            ),
            outcome: Outcome::NotDone,
        }
    }

    async fn run(self: Arc<Self>) {
        tokio::select! {
            () = self.follow() => {}
            () = self.ask() => {}
            () = self.until_unused() => {}
        }
    }

    async fn until_unused(&self) {
        let mut lingered = false;
        loop {
            let waited_for = {
                let mut table = self.table();
                let waited_for = !table.waiters.is_empty();
                if !waited_for && (lingered || table.users == 0) {
                    // Whoever comes now starts it anew.
                    table.running = false;
                    table.position = None;
                    table.to_ask.clear();
                    table.missing.clear();
                    return;
                }
                waited_for
            };
            if waited_for {
                self.left.notified().await;
                lingered = false;
            } else {
                lingered = timeout(LINGER, self.left.notified()).await.is_err();
            }
        }
    }

    /// Reads the events, whatever becomes of Redis.
    async fn follow(&self) {
        let mut reader = EventReader::new(&self.connection, self.keys.clone(), Start::Now);
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        loop {
            match reader.read().await {
                Ok(news) => {
                    backoff.reset();
                    self.heard(&news);
                }
                Err(error) => {
                    self.troubled(error);
                    backoff.pause().await;
                }
            }
        }
    }

    fn heard(&self, news: &News) {
        let mut table = self.table();
        table.trouble = None;
        // After an outage in any case: a server may come back without jobs that it had.
        if news.connected || news.lost {
            table.ask_for_all();
        }
        for event in &news.events {
            table.tell(event);
        }
        table.position = Some(news.place.position);
        table.end_missing();
        if !table.to_ask.is_empty() {
            self.ask.notify_one();
        }
    }

    /// Whoever waits is told what will not pass by itself.
    fn troubled(&self, error: Error) -> bool {
        let passes = matches!(
            error,
            Error::Connection { .. }
                | Error::Server {
                    transient: true,
                    ..
                }
        );
        let mut table = self.table();
        if passes {
            table.trouble = Some(error);
        } else {
            table.end_all(&error);
        }
        passes
    }

    /// Asks for those who just came, for all at once when one call is under way; and for all of them now and then.
    async fn ask(&self) {
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        let mut again = Instant::now() + ASK_AGAIN;
        loop {
            tokio::select! {
                () = self.ask.notified() => {}
                () = sleep_until(again) => {
                    again = Instant::now() + ASK_AGAIN;
                    self.table().ask_for_all();
                }
            }
            loop {
                let batch = self.table().next_batch();
                if batch.is_empty() {
                    break;
                }
                match self.are_finished(&batch).await {
                    Ok(reply) => {
                        backoff.reset();
                        self.answered(&batch, reply);
                    }
                    Err(error) => {
                        if self.troubled(error) {
                            let mut table = self.table();
                            batch
                                .iter()
                                .for_each(|(number, _)| table.ask_again(*number));
                        }
                        backoff.pause().await;
                    }
                }
            }
        }
    }

    async fn are_finished(&self, batch: &[(u64, String)]) -> Result<Value> {
        let mut call = Call::new(&scripts::IS_FINISHED, &self.keys);
        call.arg(self.keys.base());
        for (_, job_id) in batch {
            call.arg(job_id);
        }
        self.link.call(&call).await
    }

    fn answered(&self, batch: &[(u64, String)], reply: Value) {
        let mut reply = items(reply).into_iter();
        let now = reply.next().and_then(|id| EntryId::parse(&text(&id)));
        let mut table = self.table();
        for ((number, _), answer) in batch.iter().zip(reply) {
            let mut answer = items(answer).into_iter();
            let code = answer.next().map_or(0, |code| integer(&code));
            let said = answer.next().unwrap_or(Value::Nil);
            table.answered(*number, now.unwrap_or_default(), code, said);
        }
    }
}
