//! The marker: what idle workers of every client block on, and what wakes them. Those that sleep until a rate limit ends
//! must leave it to others, who may not be limited; they listen for a change of the limits instead.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{Shared, actor::Backoff};
use crate::{
    error::{Error, Result},
    keys::QueueKeys,
    link::{Call, Link, integer, items, text},
    scripts,
};

/// One blocking wait of at most `seconds`. Gives the marker's score, which is when something is due (0 for now), or
/// `None` when there was none.
pub(super) async fn wait(link: &Link, keys: &QueueKeys, seconds: f64) -> Result<Option<i64>> {
    let mut cmd = redis::cmd("BZPOPMIN");
    cmd.arg(keys.of("marker")).arg(seconds);
    let deadline = Duration::from_secs_f64(seconds + 1.0);
    match tokio::time::timeout(deadline, link.send("wait for marker", &cmd)).await {
        Ok(reply) => Ok(items(reply?).get(2).map(integer)),
        Err(_) => {
            // The server stopped answering without closing: only a new connection helps.
            link.reset().await;
            Ok(None)
        }
    }
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

/// What it was told meanwhile.
pub(super) enum Told {
    /// The score of the marker it took, or that there was none for so long.
    Mark(Option<i64>),
    /// Limits of the queue were removed or changed.
    LimitsChanged,
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
    let sent = link.send("wait for a change of limits", &cmd);
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

/// Waits for what the actor has no time to wait for, one blocking command at a time.
pub(super) async fn watch(
    shared: Arc<Shared>,
    link: Link,
    mut armed: watch::Receiver<Waiting>,
    told: mpsc::Sender<(Told, oneshot::Sender<()>)>,
) {
    let seconds = shared.settings.drain_delay.max(0.01);
    let mut backoff = Backoff::new(shared.settings.run_retry_delay);
    // A worker is known by this connection, also one that has no time to wait. What stands in the way is told by the
    // first wait.
    let _ = link.open().await;
    // From the beginning: a change may come between the fetch that met a limit and the wait for its end.
    let mut seen = "0-0".to_owned();
    let mut listens = true;
    loop {
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
            _ => wait(&link, &shared.keys, seconds)
                .await
                .map(|mark| Some(Told::Mark(mark))),
        };
        let heard = match heard {
            Ok(heard) => {
                backoff.reset();
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
        if let Some(heard) = heard {
            let (taken, is_taken) = oneshot::channel();
            if told.send((heard, taken)).await.is_err() {
                return;
            }
            // What to wait for next is only known when the actor has looked.
            let _ = is_taken.await;
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
