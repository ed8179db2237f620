//! The marker: what idle workers of every client block on, and what wakes them. Those that sleep until a rate limit ends
//! must leave it to others, who may not be limited; they listen for a change of the limits instead.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Value};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    actor::Backoff,
    armed::{self, Sprung},
    told::{Teller, Told},
};
use crate::{
    error::{Error, Result},
    keys::QueueKeys,
    link::{Call, Link, integer, items, text},
    scripts,
};

/// One blocking wait of at most `seconds`. Gives the marker's score, which is when something is due (0 for now), or
/// `None` when there was none.
pub(super) async fn wait(link: &Link, keys: &QueueKeys, seconds: f64) -> Result<Option<i64>> {
    let (cmd, deadline) = pop(keys, seconds);
    match tokio::time::timeout(deadline, link.wait(WAIT, &cmd)).await {
        Ok(reply) => Ok(score(reply?)),
        Err(_) => {
            // The server stopped answering without closing: only a new connection helps.
            link.reset().await;
            Ok(None)
        }
    }
}

/// What that is called in errors.
pub(super) const WAIT: &str = "wait for marker";

/// The command that waits, and how long its answer may take.
pub(super) fn pop(keys: &QueueKeys, seconds: f64) -> (Cmd, Duration) {
    let mut cmd = redis::cmd("BZPOPMIN");
    cmd.arg(keys.of("marker")).arg(seconds);
    (cmd, Duration::from_secs_f64(seconds + 1.0))
}

/// The score of the marker that was taken.
pub(super) fn score(reply: Value) -> Option<i64> {
    items(reply).get(2).map(integer)
}

/// What a worker waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// It has enough to do.
    No,
    /// Jobs.
    Marker,
    /// The end of a rate limit, at the latest then.
    Limit(Instant),
}

/// Shorter sleeps than this are not worth a command.
pub(super) const WORTH_LISTENING: Duration = Duration::from_millis(250);

/// One wait, of at most `life`, for a change of the limits after the one that was `seen`.
async fn wait_for_change(
    link: &Link,
    keys: &QueueKeys,
    life: Duration,
    seen: &mut String,
) -> Result<bool> {
    let mut cmd = redis::cmd("XREAD");
    cmd.arg("BLOCK").arg(life.as_millis().max(1).to_string());
    cmd.arg("STREAMS").arg(keys.of("limiter_wake")).arg(&*seen);
    let deadline = life + Duration::from_secs(1);
    let sent = link.wait("wait for a change of limits", &cmd);
    let Ok(reply) = tokio::time::timeout(deadline, sent).await else {
        link.reset().await;
        return Ok(false);
    };
    // Streams, each with its name and its entries, each with its id and its fields.
    let stream = items(reply?).into_iter().next().map(items);
    let entries = stream
        .and_then(|stream| stream.into_iter().nth(1))
        .map(items);
    let newest = entries
        .and_then(|entries| entries.into_iter().last())
        .map(items);
    let Some(id) = newest.and_then(|entry| entry.into_iter().next()) else {
        return Ok(false);
    };
    *seen = text(&id);
    Ok(true)
}

/// Begins to wait for what the actor has no time to wait for, until `stop`.
pub(super) fn begin(
    shared: &Arc<Shared>,
    link: Link,
    armed: watch::Receiver<Waiting>,
    told: Teller,
    stop: CancellationToken,
) -> JoinHandle<()> {
    // What lies unread may be jobs, whose locks nobody renews yet, and which were sent for some time ago. Other work of
    // this task does not wait for the loop.
    let lock = Duration::from_millis(shared.settings.lock_duration);
    let pause = (lock / 10).clamp(Duration::from_millis(1), LONGEST_UNREAD);
    let link = Arc::new(link);
    let watching = watch(Arc::clone(shared), Arc::clone(&link), armed, told);
    link.begin(pause, async move {
        stop.run_until_cancelled_owned(watching).await;
    })
}

/// How long an answer may lie there where an event loop should read it and does not.
const LONGEST_UNREAD: Duration = Duration::from_secs(1);

/// One blocking command at a time.
async fn watch(
    shared: Arc<Shared>,
    link: Arc<Link>,
    mut armed: watch::Receiver<Waiting>,
    told: Teller,
) {
    let first = shared.settings.drain_delay.max(0.01);
    let longest = shared.settings.longest_drain_delay.max(first);
    let mut seconds = first;
    let mut backoff = Backoff::new(shared.settings.run_retry_delay);
    // A worker is known by this connection, also one that has no time to wait. What stands in the way is told by the
    // first wait.
    let _ = link.open().await;
    // From the beginning: a change may come between the fetch that met a limit and the wait for its end.
    let mut seen = "0-0".to_owned();
    let mut listens = true;
    let mut known = None;
    loop {
        let mut failed = false;
        let waits = armed.wait_for(|armed| match armed {
            Waiting::No => false,
            Waiting::Marker => true,
            Waiting::Limit(until) => listens && *until > Instant::now(),
        });
        let Ok(waiting) = waits.await.map(|waiting| *waiting) else {
            return;
        };
        let heard = match waiting {
            Waiting::Limit(until) => {
                // No longer than for a marker: should the limit end in a way that nobody tells, jobs are waited for again.
                let life = until
                    .saturating_duration_since(Instant::now())
                    .min(Duration::from_secs_f64(seconds));
                let changed = wait_for_change(&link, &shared.keys, life, &mut seen).await;
                changed.map(|changed| changed.then_some(Told::LimitsChanged))
            }
            _ => {
                let way = if armed::is_wanted(&shared.settings, seconds) {
                    armed::way(&link, &mut known).await
                } else {
                    Ok(None)
                };
                let token = shared.next_token();
                let begun = matches!(way, Ok(Some(_))).then(|| token.clone());
                // Nothing where the actor has other plans for the slots by now.
                let Some(slots) = shared.armed.begin(begun) else {
                    continue;
                };
                match way {
                    Err(error) => Err(error),
                    Ok(None) => wait(&link, &shared.keys, seconds)
                        .await
                        .map(|mark| Some(Told::Mark(mark))),
                    Ok(Some(way)) => {
                        let order = (token.as_str(), slots);
                        let sprung = armed::wait_and_fetch(&shared, &link, seconds, way, order);
                        match sprung.await {
                            (Sprung::Unsent, Some(error)) => Err(error),
                            (sprung, error) => {
                                failed = error.is_some();
                                if let Some(error) = error {
                                    shared.sink.error(error);
                                }
                                Ok(Some(match sprung {
                                    Sprung::Fetched(mark, fetched) => {
                                        Told::Fetched(mark, fetched, slots)
                                    }
                                    Sprung::Unknown(mark) => Told::Mark(mark),
                                    Sprung::Lost => Told::Lost,
                                    Sprung::Unsent => Told::Mark(None),
                                }))
                            }
                        }
                    }
                }
            }
        };
        let heard = match heard {
            Ok(heard) => {
                if !failed {
                    backoff.reset();
                }
                heard
            }
            // Not allowed to this user, or a job has that key: then the limit is waited for by the clock alone.
            Err(Error::Server {
                transient: false, ..
            }) if waiting != Waiting::Marker => {
                listens = false;
                None
            }
            Err(error) => {
                shared.sink.error(error);
                backoff.pause().await;
                // A marker may have been popped into the void, so look without one.
                (waiting == Waiting::Marker).then_some(Told::Mark(None))
            }
        };
        // Waits get longer as long as they bring nothing, but not so long that they can't be armed any more.
        let is_quiet = match &heard {
            Some(Told::Fetched(None, fetched, _)) => fetched.count == 0,
            Some(Told::Mark(None)) => true,
            _ => false,
        };
        let can_grow = armed::is_wanted(&shared.settings, longest)
            || !armed::is_wanted(&shared.settings, first);
        seconds = if is_quiet && can_grow { longest } else { first };
        if let Some(heard) = heard {
            let is_taken = told.lay(heard);
            // Jobs that came with it begin first, unless the actor waits for this alone.
            tokio::select! {
                () = link.until_used() => {}
                () = shared.armed.when_called_off() => {}
            }
            told.ring();
            // What to wait for next is only known when the actor has looked.
            let _ = is_taken.await;
        }
        if failed {
            // Only now: slots are set aside until the actor has heard.
            backoff.pause().await;
        }
    }
}

/// Puts back a marker that was taken by somebody who can't use it.
pub(super) async fn restore(shared: &Shared) {
    // Only latency is lost when this fails: every idle worker also looks by itself.
    let _ = shared
        .commands
        .call(&Call::new(&scripts::RESTORE_MARKER, &shared.keys))
        .await;
}
