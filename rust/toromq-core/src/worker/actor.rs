//! The loop of a worker: everything that ended goes in one script call, which also fetches for the slots that are free.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use redis::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Closing, Shared,
    exchange::{Brought, Fetched, entry, recover, take_reply},
    flight::{Flight, Sent},
    lock_manager,
    marker::{self, WORTH_LISTENING, Waiting},
    outcome::Entry,
    schedulers, stalled_checker,
    told::{self, Told},
};
pub(super) use crate::link::Backoff;
use crate::{clock::wall_ms, error::Result, link::Link};

// Twice this is what Redis does in about a millisecond.
pub(super) const BATCH: usize = 64;
/// How long a worker begins nothing after a job that ran into a limit which nobody has set: such a job is the next to run,
/// and would be run again and again as fast as Redis can.
const UNSET_LIMIT: u64 = 50;
/// How long a closing worker tries to write what has ended while Redis is away.
pub(super) const LAST_TRY: Duration = Duration::from_secs(5);

pub(super) async fn run(shared: Arc<Shared>, blocking: Link) {
    let stop = CancellationToken::new();
    let (arm, armed) = watch::channel(Waiting::No);
    let (telling, told) = told::channel();
    let mut upkeep = vec![tokio::spawn(
        stop.clone()
            .run_until_cancelled_owned(lock_manager::renew_locks(Arc::clone(&shared))),
    )];
    let waiting = marker::begin(&shared, blocking, armed, telling, stop.clone());
    if !shared.settings.skip_stalled_check {
        let shared = Arc::clone(&shared);
        let check = async move {
            let (link, sink) = (&shared.upkeep, &*shared.sink);
            stalled_checker::check_stalled(link, &shared.keys, &shared.settings, sink).await;
        };
        upkeep.push(tokio::spawn(stop.clone().run_until_cancelled_owned(check)));
    }

    let mut actor = Actor {
        pending: Vec::new(),
        flight: Flight::default(),
        brought: None,
        ready: false,
        work_likely: true,
        had_jobs: false,
        due: None,
        limited_until: None,
        away_since: None,
        backoff: Backoff::new(shared.settings.run_retry_delay),
        shared: Arc::clone(&shared),
    };
    let mut paused = false;

    loop {
        // Read before the outcomes: whatever was said before the close must be seen with it.
        let level = *shared.closing.borrow();
        for (id, token, outcome) in shared.ended.take(level == Closing::No) {
            actor.pending.extend(entry(&shared, &id, &token, outcome));
        }
        if level >= Closing::HandingBack {
            actor.pending.extend(schedulers::withdraw(&shared));
        }
        if actor
            .limited_until
            .is_some_and(|until| until <= Instant::now())
        {
            actor.limited_until = None;
            actor.work_likely = true;
        }
        // A call that is under way promotes what is due, and tells what is due then.
        let at_rest = actor.flight.is_empty();
        let is_due = at_rest && actor.due.is_some_and(|due| due <= wall_ms());
        if is_due {
            actor.due = None;
            actor.work_likely = true;
        }
        let is_paused = shared.paused.load(Ordering::Relaxed);
        let concurrency = shared.concurrency.load(Ordering::Relaxed);
        let held = shared.busy() + actor.brought.as_ref().map_or(0, Brought::count);
        let may_fetch = level == Closing::No && !is_paused && actor.limited_until.is_none();
        // No other fetch follows for as long, and what has been said applies to them.
        if !may_fetch && actor.open() {
            continue;
        }
        if shared.armed.take_back() {
            arm.send_replace(Waiting::No);
        }
        let aside = shared.armed.slots();
        if at_rest && (!may_fetch || held + aside > concurrency) && shared.armed.call_off() {
            // What it has brought all the same is held then.
            let Some((heard, taken)) = told.hear().await else {
                break;
            };
            arm.send_replace(Waiting::No);
            let _ = taken.send(());
            // Who closes puts the marker back at the end.
            actor.hear(heard, level > Closing::No).await;
            continue;
        }
        let pending = actor.pending.len();
        if at_rest && level > Closing::No && pending == 0 && (held == 0 || level == Closing::Now) {
            break;
        }
        if std::mem::replace(&mut paused, is_paused) != paused && paused {
            // It may have taken a marker for what it was about to fetch, now or after a rate limit.
            marker::restore(&shared).await;
        }
        // By the same word as what follows: whoever waits for a pause must not be told while a fetch goes out.
        let is_idle = paused && held == 0 && pending == 0 && at_rest;
        shared
            .idle
            .send_if_modified(|was| std::mem::replace(was, is_idle) != is_idle);
        // As it will be when all calls under way are done.
        let (more, fewer) = actor.flight.slots();
        let free =
            |ending: usize| (concurrency + fewer + ending).saturating_sub(held + aside + more);
        let could_use = may_fetch && free(0) > 0;
        if at_rest && let Some((heard, taken)) = told.try_hear() {
            arm.send_replace(Waiting::No);
            let _ = taken.send(());
            actor.hear(heard, could_use).await;
            continue;
        }

        // What was told is listened to when no call is under way.
        let enough = actor
            .flight
            .enough(concurrency)
            .filter(|_| at_rest || (may_fetch && told.is_empty()));
        if at_rest || enough.is_some_and(|enough| pending >= enough) {
            let batch: Vec<Entry> = actor.pending.drain(..pending.min(BATCH)).collect();
            // Whatever limit a job ran into, the next one would run into as well, so nothing is fetched along with it.
            let bounced = batch.iter().any(|entry| entry.limited);
            let want = if may_fetch && !bounced && (actor.work_likely || !batch.is_empty()) {
                free(batch.len()).min(BATCH)
            } else {
                0
            };
            // The armed fetch has all the slots: it is woken by the marker of what a call that fetches nothing promotes.
            let promotes = is_due && may_fetch && free(batch.len()) == 0 && aside > 0;
            if want > 0 || !batch.is_empty() || promotes {
                // Before what was brought is opened: Redis would have nothing to do meanwhile.
                actor.flight.send(&shared, batch, want).await;
                continue;
            }
        }
        if actor.open() {
            continue;
        }
        if !at_rest {
            let more = enough.map(|enough| enough.saturating_sub(pending));
            tokio::select! {
                biased;
                Some((sent, answer)) = actor.flight.next() => {
                    if !actor.answered(sent, answer, level).await {
                        break;
                    }
                }
                () = shared.ended.reach(more.unwrap_or_default()), if more.is_some() => {}
            }
            continue;
        }

        let waiting = match actor.limited_until {
            _ if could_use => Waiting::Marker,
            Some(until) if level == Closing::No && !paused && free(0) > 0 => {
                let is_long = until.saturating_duration_since(Instant::now()) >= WORTH_LISTENING;
                if is_long {
                    Waiting::Limit(until)
                } else {
                    Waiting::No
                }
            }
            _ => Waiting::No,
        };
        // One that is out waits as long as it does, whatever is wanted meanwhile.
        if *arm.borrow() != waiting && (waiting != Waiting::Marker || shared.armed.order(free(0))) {
            arm.send_replace(waiting);
        }
        let due_at = actor.due.map(|due| {
            Instant::now() + Duration::from_millis(u64::try_from(due - wall_ms()).unwrap_or(0))
        });
        let timer = [due_at, actor.limited_until].into_iter().flatten().min();
        let mut closing = shared.closing.subscribe();
        tokio::select! {
            () = shared.ended.reach(1) => {}
            Some((heard, taken)) = told.hear() => {
                arm.send_replace(Waiting::No);
                let _ = taken.send(());
                actor.hear(heard, could_use).await;
            }
            () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            () = shared.wake.notified() => actor.work_likely = true,
            _ = closing.changed() => {}
        }
    }

    stop.cancel();
    for task in upkeep {
        let _ = task.await;
    }
    let _ = waiting.await;
    marker::restore(&shared).await;
    // Whoever keeps the worker's handle keeps no sockets.
    shared.commands.reset().await;
    shared.upkeep.reset().await;
    shared.idle.send_replace(true);
    shared.sink.closed();
}

/// What the loop knows.
struct Actor {
    shared: Arc<Shared>,
    /// What is to be written.
    pending: Vec<Entry>,
    flight: Flight,
    /// Jobs that the last reply brought.
    brought: Option<Brought>,
    /// Whether Redis has answered yet.
    ready: bool,
    /// Whether a look is worth it that nothing else asks for.
    work_likely: bool,
    /// Whether there were jobs since nothing was left the last time.
    had_jobs: bool,
    /// When the next delayed job is due.
    due: Option<i64>,
    limited_until: Option<Instant>,
    /// Since when there has been no answer.
    away_since: Option<Instant>,
    backoff: Backoff,
}

impl Actor {
    /// Hands on what the last reply brought; whether there was something.
    fn open(&mut self) -> bool {
        let Some(brought) = self.brought.take() else {
            return false;
        };
        self.pending.extend(brought.open(&self.shared));
        true
    }

    /// Takes what came of the call that was sent first. False where a worker that closes has waited long enough.
    async fn answered(&mut self, sent: Sent, answer: Result<Value>, level: Closing) -> bool {
        let error = match answer {
            Ok(reply) => {
                self.take(sent, reply);
                return true;
            }
            Err(error) => error,
        };
        self.shared.sink.error(error);
        let mut lost = vec![(sent.batch, sent.now)];
        // What was sent after it may have been done, and what that brought is not lost.
        while let Some((sent, answer)) = self.flight.next().await {
            match answer {
                Ok(reply) => self.take(sent, reply),
                Err(_) => lost.push((sent.batch, sent.now)),
            }
        }
        let since = *self.away_since.get_or_insert_with(Instant::now);
        if level > Closing::No && since.elapsed() > LAST_TRY {
            return false;
        }
        self.backoff.pause().await;
        self.recover(lost).await;
        true
    }

    fn take(&mut self, sent: Sent, reply: Value) {
        self.open();
        self.backoff.reset();
        self.away_since = None;
        let bounced = sent.is_bounced();
        let Sent {
            batch,
            want,
            now,
            at,
            token,
        } = sent;
        let (mut fetched, brought) = take_reply(&self.shared, &batch, token, reply, at, now);
        self.brought = (brought.count() > 0).then_some(brought);
        if want > 0 {
            self.work_likely = false;
        } else if batch.is_empty() {
            // It was sent for what it promotes.
            self.due = (fetched.due > 0).then_some(fetched.due);
        }
        // The next try travels as long as this one did, and so arrives when the limit has ended; if too early, it is told
        // so. But who knows of no maximum would not be told.
        let mut since = at;
        if bounced {
            since = Instant::now();
            if fetched.limited == 0 {
                fetched.limited = UNSET_LIMIT;
            }
        }
        self.note(fetched, want, since);
    }

    /// Takes note of what a fetch for `want` jobs brought. A limit counts from `since`.
    fn note(&mut self, fetched: Fetched, want: usize, since: Instant) {
        if !std::mem::replace(&mut self.ready, true) {
            self.shared.sink.ready();
        }
        if want > 0 {
            self.work_likely |= fetched.count == want;
            self.due = (fetched.due > 0).then_some(fetched.due);
            if fetched.count > 0 {
                self.had_jobs = true;
            } else if self.had_jobs && fetched.limited == 0 && !fetched.blocked {
                self.had_jobs = false;
                self.shared.sink.drained();
            }
        }
        if fetched.limited > 0 {
            let longest = self.shared.settings.maximum_rate_limit_delay;
            let pause = fetched.limited.min(longest).max(1);
            self.limited_until = Some(since + Duration::from_millis(pause));
        }
        self.pending.extend(fetched.again);
    }

    /// After replies that were lost, to calls that wrote these batches.
    async fn recover(&mut self, lost: Vec<(Vec<Entry>, i64)>) {
        // Else what was brought but is not held would be adopted as well.
        self.open();
        let (pending, backoff) = (&mut self.pending, &mut self.backoff);
        recover(&self.shared, lost, pending, backoff).await;
        self.work_likely = true;
    }

    /// What came of waiting. `could_use` says whether a marker was of use when it came.
    async fn hear(&mut self, heard: Told, could_use: bool) {
        let (is_mark, is_armed) = match heard {
            // No score: the wait timed out, and an idle worker looks by itself.
            Told::Mark(Some(at)) if at > wall_ms() => {
                self.due = Some(self.due.map_or(at, |due| due.min(at)));
                (true, false)
            }
            Told::Mark(_) => {
                self.work_likely = true;
                (true, false)
            }
            Told::LimitsChanged => {
                self.work_likely = true;
                (false, false)
            }
            Told::Fetched(mark, fetched, slots) => {
                let brought = fetched.count;
                self.note(fetched, slots, Instant::now());
                self.shared.armed.settle();
                (mark.is_some() && brought == 0, true)
            }
            Told::Lost => {
                self.recover(Vec::new()).await;
                self.shared.armed.settle();
                (true, true)
            }
        };
        if could_use {
            return;
        }
        if is_mark {
            // Taken while no slot was free, or under a limit: another worker must hear of it.
            marker::restore(&self.shared).await;
        }
        if !is_armed {
            // A marker may tell of the limit's end as well, where it was waited for since before.
            self.limited_until = None;
        }
    }
}
