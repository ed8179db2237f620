//! Producing: concurrent adds share a round trip; a repeated add is recognised by its reserved id.

use std::{
    borrow::Cow,
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{
    FutureExt as _,
    stream::{FuturesUnordered, StreamExt as _},
};
use redis::Value;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{Deduplication, FIRST_PAUSE, LONGEST_PAUSE, Queue};
use crate::{
    error::{Error, Outcome, Result},
    keys::QueueKeys,
    link::{Call, Link, integer, items, text},
    packed::{Packed, unpacked},
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

// Holds Redis for a few milliseconds.
const BATCH: usize = 250;
/// So many jobs are worth a call of their own while another one is under way: Redis has something to do while its caller
/// goes on, and a call shared by so many costs each of them little.
const WORTH_A_CALL: usize = 20;
/// How many calls that carry single adds may be under way.
const CALLS: usize = 4;
/// Fewest id numbers in reserve of a producer in steady use.
const RESERVE: i64 = 64;

/// Takes what became of the jobs of one call of [`Queue::submit`].
pub type Reply = Box<dyn FnOnce(Result<Vec<Result<Added>>>) + Send>;

pub(super) struct Request {
    jobs: Vec<NewJob>,
    reply: Reply,
    deadline: Instant,
}

/// What goes in one call, or in several where it is a long bulk.
pub struct Batch {
    requests: Vec<Request>,
    is_long: bool,
}

impl Queue {
    /// Adds jobs; gives what became of each, in the order given. One that is refused stops no other.
    ///
    /// What is added while another call is under way goes together in the next one. Must be called within a Tokio
    /// runtime, which drives it.
    ///
    /// # Errors
    ///
    /// [`Error::Connection`] when Redis stays away for the whole command timeout.
    pub async fn add(&self, jobs: Vec<NewJob>) -> Result<Vec<Result<Added>>> {
        let (reply, answer) = oneshot::channel();
        let reply = Box::new(|answer| {
            // A caller who went away needs no answer; its jobs are stored.
            let _ = reply.send(answer);
        });
        if self.submit(jobs, reply) {
            tokio::spawn(self.lead());
        }
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Hands jobs to the producer. Where it answers true nobody drives it: the caller must, by [`Queue::lead`].
    #[must_use]
    pub fn submit(&self, jobs: Vec<NewJob>, reply: Reply) -> bool {
        self.producer.submit(self.request(jobs, reply))
    }

    /// The same for a caller who can wait for a call: gives the one that is worth making now, for [`Queue::carry`].
    /// Without one others are under way, who see to what was handed in.
    #[must_use]
    pub fn submit_and_take(&self, jobs: Vec<NewJob>, reply: Reply) -> Option<Batch> {
        self.producer.submit_and_take(self.request(jobs, reply))
    }

    /// Says that an answer lies ready, whose caller will take it when its turn comes.
    pub fn lies_ready(&self) {
        self.producer.desk().untaken += 1;
    }

    /// Says that its turn has come. Where this answers true nobody drives the producer: the caller must, by
    /// [`Queue::lead`].
    #[must_use]
    pub fn is_taken(&self) -> bool {
        let mut desk = self.producer.desk();
        desk.untaken -= 1;
        // As long as there are others, one of them sees to it.
        desk.untaken == 0 && self.producer.is_unled(&mut desk)
    }

    fn request(&self, jobs: Vec<NewJob>, reply: Reply) -> Request {
        Request {
            jobs,
            reply,
            deadline: Instant::now() + self.timeout,
        }
    }

    /// Drives the producer until nothing is left that could be sent.
    pub fn lead(&self) -> impl Future<Output = ()> + Send + 'static {
        Arc::clone(&self.producer).lead(Arc::clone(&self.link))
    }

    /// Makes one call, over `link`. True when others wait and nobody drives them: somebody must, by [`Queue::lead`].
    pub fn carry(
        &self,
        link: Arc<Link>,
        batch: Batch,
    ) -> impl Future<Output = bool> + Send + 'static {
        let producer = Arc::clone(&self.producer);
        async move {
            producer.carry(&link, batch.requests).await;
            producer.landed(batch.is_long);
            producer.must_be_led()
        }
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

/// What several callers hand in is added by one of them, the leader.
pub(super) struct Producer {
    keys: QueueKeys,
    /// Those of the script.
    call_keys: Arc<[String]>,
    version: String,
    max_events: String,
    activity: Arc<Activity>,
    desk: Mutex<Desk>,
    /// Another call may be worth it.
    more: Notify,
    /// Held while numbers are asked for that somebody waits for.
    reserving: tokio::sync::Mutex<()>,
}

struct Desk {
    waiting: VecDeque<Request>,
    /// How many jobs those are.
    jobs: usize,
    led: bool,
    /// The calls that are under way: those of a bulk that takes several, and others.
    long: usize,
    short: usize,
    /// How many answers lie ready for callers that take them one after the other.
    untaken: usize,
    numbers: Numbers,
    /// The last event we know of.
    event: Seen,
}

/// The id numbers that are ours.
#[derive(Debug, Default)]
struct Numbers {
    /// Blocks that are not used up: the next one, and the last.
    free: VecDeque<(i64, i64)>,
    /// How many have been asked for.
    asked: i64,
    /// How many have been used: nobody reserves more than that, so that little is left over at the end.
    used: i64,
}

impl Numbers {
    fn stock(&self) -> i64 {
        self.free.iter().map(|(next, last)| last - next + 1).sum()
    }

    fn take(&mut self, count: i64) -> Option<Vec<i64>> {
        if self.stock() < count {
            return None;
        }
        let mut taken = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
        let mut left = count;
        while let Some((next, last)) = self.free.front_mut().filter(|_| left > 0) {
            let some = left.min(*last - *next + 1);
            taken.extend(*next..*next + some);
            *next += some;
            left -= some;
            if next > last {
                self.free.pop_front();
            }
        }
        self.used += count;
        Some(taken)
    }

    /// How many more to ask for along with a call for `count` jobs, so that a steady producer seldom has to ask: enough
    /// for all calls that may be under way, whose numbers come with their answers, and for one more.
    fn wanted(&self, count: i64) -> i64 {
        let stock = self.stock() + self.asked;
        let calls = i64::try_from(CALLS).unwrap_or(1);
        let most = RESERVE.max((calls + 1) * count).min(self.used);
        if stock < count.max(most / 2).max((calls * count).min(most)) {
            (most - stock).max(count)
        } else {
            0
        }
    }

    fn got(&mut self, last: i64, count: i64) {
        self.asked -= count;
        let first = last - count + 1;
        match self.free.back_mut() {
            Some((_, end)) if *end + 1 == first => *end = last,
            _ => self.free.push_back((first, last)),
        }
    }
}

impl Desk {
    /// Whether the first of those who wait may go: with many others only, where a call is under way; and where many callers
    /// have yet to take their answers, who are likely to come with more, with as many others as there are of those. They
    /// come before it in any case, and small calls would lead to small ones. A bulk that takes several calls waits for the
    /// bulk before it and for nobody else.
    fn may_go(&self) -> bool {
        match self.waiting.front() {
            None => false,
            Some(first) if first.jobs.len() > BATCH => self.long == 0,
            Some(_) if self.short == 0 => {
                self.jobs >= WORTH_A_CALL.min(self.untaken)
                    || self.jobs + self.untaken < WORTH_A_CALL
            }
            Some(_) => self.short < CALLS && self.jobs >= WORTH_A_CALL,
        }
    }

    fn push(&mut self, request: Request) {
        self.jobs += request.jobs.len();
        self.waiting.push_back(request);
    }

    /// What is to be sent now; it counts as under way from here on.
    fn next_batch(&mut self) -> Option<Batch> {
        if !self.may_go() {
            return None;
        }
        let mut count = 0;
        let mut requests = Vec::new();
        while let Some(request) = self.waiting.front()
            && (count == 0 || count + request.jobs.len() <= BATCH)
        {
            count += request.jobs.len();
            requests.extend(self.waiting.pop_front());
        }
        self.jobs -= count;
        let is_long = count > BATCH;
        *self.flying(is_long) += 1;
        Some(Batch { requests, is_long })
    }

    fn flying(&mut self, is_long: bool) -> &mut usize {
        if is_long {
            &mut self.long
        } else {
            &mut self.short
        }
    }
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
    pub(super) fn new(keys: QueueKeys, version: String, max_events: Option<u64>) -> Self {
        let max_events = max_events.map_or_else(String::new, |length| length.to_string());
        Self::make(telemetry::of(&keys), keys, version, max_events)
    }

    /// One that knows nothing of what this one does.
    pub(super) fn another(&self) -> Self {
        Self::make(
            Arc::clone(&self.activity),
            self.keys.clone(),
            self.version.clone(),
            self.max_events.clone(),
        )
    }

    fn make(activity: Arc<Activity>, keys: QueueKeys, version: String, max_events: String) -> Self {
        let desk = Desk {
            waiting: VecDeque::new(),
            jobs: 0,
            led: false,
            long: 0,
            short: 0,
            untaken: 0,
            numbers: Numbers::default(),
            event: Seen {
                id: String::new(),
                at: Instant::now(),
            },
        };
        Self {
            call_keys: Call::keys_of(&scripts::ADD_JOBS, &keys),
            keys,
            version,
            max_events,
            activity,
            desk: Mutex::new(desk),
            more: Notify::new(),
            reserving: tokio::sync::Mutex::default(),
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the caller must lead.
    fn submit(&self, request: Request) -> bool {
        let mut desk = self.desk();
        desk.push(request);
        self.is_unled(&mut desk)
    }

    /// What the caller must send.
    fn submit_and_take(&self, request: Request) -> Option<Batch> {
        let mut desk = self.desk();
        desk.push(request);
        desk.next_batch()
    }

    /// Whether somebody must begin to lead.
    fn must_be_led(&self) -> bool {
        self.is_unled(&mut self.desk())
    }

    fn is_unled(&self, desk: &mut Desk) -> bool {
        if !desk.may_go() {
            return false;
        }
        if std::mem::replace(&mut desk.led, true) {
            self.more.notify_one();
            return false;
        }
        true
    }

    /// Leaves the lead where nothing can be sent. Who carries something looks again when it has landed.
    fn rests(&self) -> bool {
        let mut desk = self.desk();
        desk.led = desk.may_go();
        !desk.led
    }

    async fn lead(self: Arc<Self>, link: Arc<Link>) {
        let mut flights = FuturesUnordered::new();
        loop {
            while let Some(batch) = self.next_batch() {
                let flight = self.carry(&link, batch.requests);
                flights.push(flight.map(move |()| batch.is_long));
            }
            tokio::select! {
                landed = flights.next() => match landed {
                    Some(is_long) => self.landed(is_long),
                    None if self.rests() => return,
                    None => {}
                },
                () = self.more.notified(), if !flights.is_empty() => {}
            }
        }
    }

    fn next_batch(&self) -> Option<Batch> {
        self.desk().next_batch()
    }

    fn landed(&self, is_long: bool) {
        *self.desk().flying(is_long) -= 1;
    }

    /// Adds all of these, and tells their callers.
    async fn carry(&self, link: &Link, batch: Vec<Request>) {
        let deadline = batch
            .iter()
            .map(|request| request.deadline)
            .min()
            .unwrap_or_else(Instant::now);
        let jobs: Vec<&NewJob> = batch.iter().flat_map(|request| &request.jobs).collect();
        let (added, error) = self.add_all(link, &jobs, deadline).await;
        let new = added.iter().flatten().filter(|added| !added.duplicate);
        Activity::count(&self.activity.added, new.count());
        let mut added = added.into_iter();
        for request in batch {
            let own: Vec<_> = added.by_ref().take(request.jobs.len()).collect();
            (request.reply)(match &error {
                Some(error) if own.len() < request.jobs.len() => {
                    Err(partly(error, own.len(), request.jobs.len()))
                }
                _ => Ok(own),
            });
        }
    }

    /// What became of the jobs, and what stopped the rest.
    async fn add_all(
        &self,
        link: &Link,
        jobs: &[&NewJob],
        deadline: Instant,
    ) -> (Vec<Result<Added>>, Option<Error>) {
        let mut added = Vec::with_capacity(jobs.len());
        for batch in jobs.chunks(BATCH) {
            match self.add_batch(link, batch, jobs.len(), deadline).await {
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
        &self,
        link: &Link,
        batch: &[&NewJob],
        wanted: usize,
        deadline: Instant,
    ) -> Result<Vec<Result<Added>>> {
        let size = i64::try_from(batch.len()).unwrap_or(i64::MAX);
        let mut numbers = Vec::new();
        let mut again = false;
        let mut since = String::new();
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = async {
                if numbers.is_empty() {
                    let wanted = i64::try_from(wanted).unwrap_or(size);
                    numbers = self.reserve(link, size, wanted).await?;
                    since = self.desk().event.before(Instant::now());
                }
                let reserve = self.ask(size);
                let mut call = self.call(reserve, &since, *numbers.iter().max().unwrap_or(&0));
                let mut jobs = Packed::default();
                for (number, job) in numbers.iter().zip(batch) {
                    job.put(&mut jobs, *number, again);
                }
                jobs.put(&mut call);
                match link.call(&call).await {
                    Ok(reply) => Ok((reply, reserve)),
                    Err(error) => {
                        self.desk().numbers.asked -= reserve;
                        Err(error)
                    }
                }
            };
            match attempt.await {
                Ok((Value::Int(_), reserve)) => {
                    // The counter was set back; numbers from before belong to nobody.
                    {
                        let mut desk = self.desk();
                        desk.numbers.asked -= reserve;
                        desk.numbers.free.clear();
                    }
                    if Instant::now() > deadline {
                        return Err(Error::Broken(format!(
                            "{} holds no usable counter of ids; delete it, or set it above every id in use",
                            self.keys.of("id")
                        )));
                    }
                    (numbers, again) = (Vec::new(), false);
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
                            again |= *outcome == Outcome::Unknown && !numbers.is_empty();
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
        let mut call = Call::shared(&scripts::ADD_JOBS, Arc::clone(&self.call_keys));
        call.arg(self.keys.base())
            .number(reserve)
            .arg(&self.max_events)
            .arg(&self.version)
            .arg(since)
            .number(highest);
        call
    }

    /// Takes what a reply says of numbers and events; leaves what it says of the jobs.
    pub(super) fn note(&self, reply: Value, reserved: i64) -> impl Iterator<Item = Value> + use<> {
        let mut reply = items(reply).into_iter();
        let last = reply.next().as_ref().map_or(0, integer);
        let id = reply.next().as_ref().map_or_else(String::new, text);
        let mut desk = self.desk();
        if reserved > 0 {
            desk.numbers.got(last, reserved);
        }
        if !id.is_empty() {
            let at = Instant::now();
            desk.event = Seen { id, at };
        }
        unpacked(Value::Array(reply.collect())).into_iter()
    }

    /// How many numbers to reserve along with a call for so many jobs.
    fn ask(&self, count: i64) -> i64 {
        let mut desk = self.desk();
        let more = desk.numbers.wanted(count);
        desk.numbers.asked += more;
        more
    }

    /// `size` id numbers that are ours alone. Where none are left, one call asks for those of all `wanted` jobs.
    async fn reserve(&self, link: &Link, size: i64, wanted: i64) -> Result<Vec<i64>> {
        loop {
            if let Some(numbers) = self.desk().numbers.take(size) {
                return Ok(numbers);
            }
            let _turn = self.reserving.lock().await;
            let count = {
                let mut desk = self.desk();
                let count = wanted.max(size) - desk.numbers.stock();
                if count <= 0 {
                    continue;
                }
                desk.numbers.asked += count;
                count
            };
            match link.call(&self.call(count, "", 0)).await {
                Ok(reply) => drop(self.note(reply, count)),
                Err(error) => {
                    self.desk().numbers.asked -= count;
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_call_waits_for_as_many_as_have_yet_to_take_their_answers() {
        let producer = Producer::new(QueueKeys::new("bull", "q"), String::new(), None);
        let hand_in = || {
            producer.submit_and_take(Request {
                jobs: vec![NewJob::default()],
                reply: Box::new(drop),
                deadline: Instant::now(),
            })
        };
        producer.desk().untaken = 12;
        for _ in 1..8 {
            // Too few for a call worth it to come of them: they wait for nobody.
            assert!(hand_in().is_some());
            producer.landed(false);
        }
        producer.desk().untaken = 30;
        for _ in 1..WORTH_A_CALL {
            assert!(hand_in().is_none());
        }
        assert_eq!(
            hand_in().map(|batch| batch.requests.len()),
            Some(WORTH_A_CALL)
        );
        producer.landed(false);
        producer.desk().untaken = 25;
        for _ in 0..10 {
            assert!(hand_in().is_none());
        }
        producer.desk().untaken = 10;
        assert!(producer.must_be_led());
        assert_eq!(
            producer.next_batch().map(|batch| batch.requests.len()),
            Some(10)
        );
    }

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

    #[test]
    fn numbers_are_given_out_once_across_blocks_that_came_in_any_order() {
        let mut numbers = Numbers {
            asked: 12,
            ..Numbers::default()
        };
        assert_eq!(numbers.take(1), None);
        numbers.got(10, 4);
        numbers.got(16, 6);
        numbers.got(18, 2);
        assert_eq!((numbers.stock(), numbers.asked), (12, 0));
        assert_eq!(numbers.take(5), Some(vec![7, 8, 9, 10, 11]));
        assert_eq!(numbers.take(8), None);
        assert_eq!(numbers.take(7), Some((12..=18).collect()));
        assert_eq!(numbers.stock(), 0);
    }

    #[test]
    fn nobody_reserves_more_numbers_than_it_has_used() {
        let mut numbers = Numbers::default();
        let mut reserved = 0;
        for used in 1..1000 {
            let more = numbers.wanted(1);
            numbers.asked += more;
            reserved += more;
            numbers.got(reserved, more);
            assert!(numbers.take(1).is_some());
            let left_over = reserved - used;
            assert!(left_over < used.max(2), "{left_over} of {used}");
            assert!(left_over <= RESERVE);
        }
    }
}
