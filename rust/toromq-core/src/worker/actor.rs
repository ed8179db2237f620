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
    exchange::{entry, exchange, recover},
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

    let mut pending: Vec<Entry> = Vec::new();
    let mut ready = false;
    let mut work_likely = true;
    let mut paused = false;
    let mut had_jobs = false;
    let mut due: Option<i64> = None;
    let mut limited_until: Option<Instant> = None;
    let mut backoff = Backoff::new(shared.settings.run_retry_delay);
    let mut away_since: Option<Instant> = None;

    loop {
        // Read before the outcomes: whatever was said before the close must be seen with it.
        let level = *shared.closing.borrow();
        while let Ok((id, token, outcome)) = outcomes.try_recv() {
            pending.extend(entry(&shared, &id, &token, outcome));
        }
        if level >= Closing::HandingBack {
            pending.extend(schedulers::withdraw(&shared));
        }
        let held = shared.busy();
        let done = held == 0 || level == Closing::Now;
        if level > Closing::No && pending.is_empty() && done {
            break;
        }
        if limited_until.is_some_and(|until| until <= Instant::now()) {
            limited_until = None;
            work_likely = true;
        }
        if due.is_some_and(|due| due <= wall_ms()) {
            due = None;
            work_likely = true;
        }
        if std::mem::replace(&mut paused, shared.paused.load(Ordering::Relaxed)) != paused && paused
        {
            // It may have taken a marker for what it was about to fetch, now or after a rate limit.
            marker::restore(&shared).await;
        }
        // By the same word as what follows: whoever waits for a pause must not be told while a fetch goes out.
        let idle = paused && held == 0 && pending.is_empty();
        shared
            .idle
            .send_if_modified(|was| std::mem::replace(was, idle) != idle);
        let may_fetch = level == Closing::No && !paused && limited_until.is_none();
        let batch: Vec<Entry> = pending.drain(..pending.len().min(BATCH)).collect();
        // Whatever limit a job ran into, the next one would run into as well, so nothing is fetched along with it.
        let bounced = batch.iter().any(|entry| entry.limited);
        let free = (shared.concurrency.load(Ordering::Relaxed) + batch.len()).saturating_sub(held);
        let want = if may_fetch && !bounced && (work_likely || !batch.is_empty()) {
            free.min(BATCH)
        } else {
            0
        };

        if want > 0 || !batch.is_empty() {
            let (now, sent) = (wall_ms(), Instant::now());
            match exchange(&shared, &batch, want, now, false).await {
                Ok(fetched) => {
                    backoff.reset();
                    away_since = None;
                    if !std::mem::replace(&mut ready, true) {
                        shared.sink.ready();
                    }
                    if want > 0 {
                        work_likely = fetched.count == want;
                        due = (fetched.due > 0).then_some(fetched.due);
                        if fetched.count > 0 {
                            had_jobs = true;
                        } else if had_jobs && fetched.limited == 0 && !fetched.blocked {
                            had_jobs = false;
                            shared.sink.drained();
                        }
                    }
                    let limited = match fetched.limited {
                        0 if bounced => UNSET_LIMIT,
                        limited => limited,
                    };
                    if limited > 0 {
                        let pause = limited.min(shared.settings.maximum_rate_limit_delay).max(1);
                        // The next try travels as long as this one did, and so arrives when the limit has ended; if too
                        // early, it is told so. But who knows of no maximum would not be told.
                        let since = if bounced { Instant::now() } else { sent };
                        limited_until = Some(since + Duration::from_millis(pause));
                    }
                    pending.extend(fetched.again);
                }
                Err(error) => {
                    shared.sink.error(error);
                    let since = *away_since.get_or_insert_with(Instant::now);
                    if level > Closing::No && since.elapsed() > LAST_TRY {
                        break;
                    }
                    backoff.pause().await;
                    recover(&shared, batch, now, &mut pending, &mut backoff).await;
                    work_likely = true;
                }
            }
            continue;
        }

        let idle = may_fetch && free > 0;
        let waiting = match limited_until {
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
        arm.send_if_modified(|now| std::mem::replace(now, waiting) != waiting);
        let due_at = due.map(|due| {
            Instant::now() + Duration::from_millis(u64::try_from(due - wall_ms()).unwrap_or(0))
        });
        let timer = [due_at, limited_until].into_iter().flatten().min();
        let mut closing = shared.closing.subscribe();
        tokio::select! {
            Some((id, token, outcome)) = outcomes.recv() => {
                pending.extend(entry(&shared, &id, &token, outcome));
            }
            Some((heard, taken)) = told.recv() => {
                arm.send_replace(Waiting::No);
                let _ = taken.send(());
                match heard {
                    // No score: the wait timed out, and an idle worker looks by itself.
                    Told::Mark(Some(at)) if at > wall_ms() => {
                        due = Some(due.map_or(at, |due| due.min(at)));
                    }
                    Told::Mark(_) | Told::LimitsChanged => work_likely = true,
                }
                if !idle {
                    if matches!(heard, Told::Mark(_)) {
                        // Taken while no slot was free, or under a limit: another worker must hear of it.
                        marker::restore(&shared).await;
                    }
                    // A marker may tell of the limit's end as well, where it was waited for since before.
                    limited_until = None;
                }
            }
            () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            () = shared.wake.notified() => work_likely = true,
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
