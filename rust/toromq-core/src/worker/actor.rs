//! The loop of a worker: everything that ended goes in one script call, which also fetches for the slots that are free.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Closing, Finished, Shared,
    exchange::{Brought, Fetched, entry, exchange, recover},
    lock_manager,
    marker::{self, Told, WORTH_LISTENING, Waiting},
    outcome::Entry,
    schedulers, stalled_checker,
};
pub(super) use crate::link::Backoff;
use crate::{clock::wall_ms, link::Link};

// Twice this is what Redis does in about a millisecond.
const BATCH: usize = 64;
/// How long a worker begins nothing after a job that ran into a limit which nobody has set: such a job is the next to run,
/// and would be run again and again as fast as Redis can.
const UNSET_LIMIT: u64 = 50;
/// How long a closing worker tries to write what has ended while Redis is away.
pub(super) const LAST_TRY: Duration = Duration::from_secs(5);

pub(super) async fn run(
    shared: Arc<Shared>,
    mut outcomes: mpsc::UnboundedReceiver<Finished>,
    blocking: Link,
) {
    let stop = CancellationToken::new();
    let (arm, armed) = watch::channel(Waiting::No);
    let (telling, mut told) = mpsc::channel(1);
    let mut upkeep = vec![
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(lock_manager::renew_locks(Arc::clone(&shared))),
        ),
        tokio::spawn(stop.clone().run_until_cancelled_owned(marker::watch(
            Arc::clone(&shared),
            blocking,
            armed,
            telling,
        ))),
    ];
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
        brought: None,
        ready: false,
        work_likely: true,
        had_jobs: false,
        due: None,
        limited_until: None,
        backoff: Backoff::new(shared.settings.run_retry_delay),
        shared: Arc::clone(&shared),
    };
    let mut paused = false;
    let mut away_since: Option<Instant> = None;

    loop {
        // Read before the outcomes: whatever was said before the close must be seen with it.
        let level = *shared.closing.borrow();
        while let Ok((id, token, outcome)) = outcomes.try_recv() {
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
        let is_due = actor.due.is_some_and(|due| due <= wall_ms());
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
        if (!may_fetch || held + aside > concurrency) && shared.armed.call_off() {
            // What it has brought all the same is held then.
            let Some((heard, taken)) = told.recv().await else {
                break;
            };
            arm.send_replace(Waiting::No);
            let _ = taken.send(());
            // Who closes puts the marker back at the end.
            actor.hear(heard, level > Closing::No).await;
            continue;
        }
        let pending = actor.pending.len();
        if level > Closing::No && pending == 0 && (held == 0 || level == Closing::Now) {
            break;
        }
        if std::mem::replace(&mut paused, is_paused) != paused && paused {
            // It may have taken a marker for what it was about to fetch, now or after a rate limit.
            marker::restore(&shared).await;
        }
        // By the same word as what follows: whoever waits for a pause must not be told while a fetch goes out.
        let idle = paused && held == 0 && pending == 0;
        shared
            .idle
            .send_if_modified(|was| std::mem::replace(was, idle) != idle);
        let batch: Vec<Entry> = actor.pending.drain(..pending.min(BATCH)).collect();
        // Whatever limit a job ran into, the next one would run into as well, so nothing is fetched along with it.
        let bounced = batch.iter().any(|entry| entry.limited);
        let free = (concurrency + batch.len()).saturating_sub(held + aside);
        let want = if may_fetch && !bounced && (actor.work_likely || !batch.is_empty()) {
            free.min(BATCH)
        } else {
            0
        };

        // The armed fetch has all the slots: it is woken by the marker of what a call that fetches nothing promotes.
        let promotes = is_due && may_fetch && free == 0 && aside > 0;
        if want > 0 || !batch.is_empty() || promotes {
            let (now, sent) = (wall_ms(), Instant::now());
            let earlier = actor.brought.take();
            let (answer, unrun) = exchange(&shared, &batch, want, now, earlier).await;
            actor.pending.extend(unrun);
            match answer {
                Ok((mut fetched, brought)) => {
                    actor.brought = (brought.count() > 0).then_some(brought);
                    actor.backoff.reset();
                    away_since = None;
                    if want > 0 {
                        actor.work_likely = false;
                    } else if promotes {
                        actor.due = (fetched.due > 0).then_some(fetched.due);
                    }
                    // The next try travels as long as this one did, and so arrives when the limit has ended; if too early,
                    // it is told so. But who knows of no maximum would not be told.
                    let mut since = sent;
                    if bounced {
                        since = Instant::now();
                        if fetched.limited == 0 {
                            fetched.limited = UNSET_LIMIT;
                        }
                    }
                    actor.note(fetched, want, since);
                }
                Err(error) => {
                    shared.sink.error(error);
                    let since = *away_since.get_or_insert_with(Instant::now);
                    if level > Closing::No && since.elapsed() > LAST_TRY {
                        break;
                    }
                    actor.backoff.pause().await;
                    actor.recover(batch, now).await;
                }
            }
            continue;
        }
        if actor.open() {
            continue;
        }

        let idle = may_fetch && free > 0;
        let waiting = match actor.limited_until {
            _ if idle => Waiting::Marker,
            Some(until) if level == Closing::No && !paused && free > 0 => {
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
        if *arm.borrow() != waiting && (waiting != Waiting::Marker || shared.armed.order(free)) {
            arm.send_replace(waiting);
        }
        let due_at = actor.due.map(|due| {
            Instant::now() + Duration::from_millis(u64::try_from(due - wall_ms()).unwrap_or(0))
        });
        let timer = [due_at, actor.limited_until].into_iter().flatten().min();
        let mut closing = shared.closing.subscribe();
        tokio::select! {
            Some((id, token, outcome)) = outcomes.recv() => {
                actor.pending.extend(entry(&shared, &id, &token, outcome));
            }
            Some((heard, taken)) = told.recv() => {
                arm.send_replace(Waiting::No);
                let _ = taken.send(());
                actor.hear(heard, idle).await;
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

    /// After a reply that was lost, to a call that wrote this batch.
    async fn recover(&mut self, batch: Vec<Entry>, now: i64) {
        let (pending, backoff) = (&mut self.pending, &mut self.backoff);
        recover(&self.shared, batch, now, pending, backoff).await;
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
                self.recover(Vec::new(), 0).await;
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
