//! The marker: what idle workers of every client block on, and what wakes them.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};

use super::{Shared, actor::Backoff};
use crate::{
    error::Result,
    keys::QueueKeys,
    link::{Call, Link, integer, items},
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

/// Waits on the marker whenever the actor has nothing to do, one blocking command at a time.
pub(super) async fn watch(
    shared: Arc<Shared>,
    link: Link,
    mut armed: watch::Receiver<bool>,
    marks: mpsc::Sender<Option<i64>>,
) {
    let seconds = shared.settings.drain_delay.max(0.01);
    let mut backoff = Backoff::new(shared.settings.run_retry_delay);
    // A worker is known by this connection, also one that has no time to wait. What stands in the way is told by the
    // first wait.
    let _ = link.open().await;
    loop {
        if armed.wait_for(|armed| *armed).await.is_err() {
            return;
        }
        match wait(&link, &shared.keys, seconds).await {
            Ok(mark) => {
                backoff.reset();
                if marks.send(mark).await.is_err() {
                    return;
                }
                // Let the actor look before the next wait.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                shared.sink.error(error);
                // A marker may have been popped into the void, so look without one.
                let _ = marks.send(None).await;
                backoff.pause().await;
            }
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
