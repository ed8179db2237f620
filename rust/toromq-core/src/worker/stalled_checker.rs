//! The stalled check: jobs that are active without a lock are queued again, or failed when it happened too often.

use std::time::Duration;

use tokio::time::sleep;

use super::{Sink, WorkerSettings};
use crate::{
    clock::wall_ms,
    error::Error,
    keys::QueueKeys,
    link::{Call, Link, integer, items, text},
    scripts,
};

// How many jobs one call looks at, so that it holds Redis for a few milliseconds at most.
const SLICE: usize = 1000;

/// Checks now and after each interval, for as long as it is polled.
pub(super) async fn check_stalled(
    link: &Link,
    keys: &QueueKeys,
    settings: &WorkerSettings,
    sink: &dyn Sink,
) {
    loop {
        let mut call = Call::new(&scripts::MOVE_STALLED_JOBS_TO_WAIT, keys);
        call.arg(keys.base())
            .number(wall_ms())
            .number(settings.stalled_interval)
            .number(settings.max_stalled_count)
            .number(SLICE);
        let mut pause = Duration::from_millis(settings.stalled_interval);
        match link.call(&call).await {
            Ok(reply) => {
                let mut reply = items(reply).into_iter();
                if reply.next().is_some_and(|more| integer(&more) == 1) {
                    pause = Duration::ZERO;
                }
                for id in reply.next().map(items).unwrap_or_default() {
                    sink.stalled(&text(&id));
                }
                for id in reply.next().map(items).unwrap_or_default() {
                    sink.error(Error::Broken(format!(
                        "the key of active job {} holds no job; it was taken out",
                        text(&id)
                    )));
                }
            }
            Err(error) => {
                sink.error(error);
                pause = pause.min(Duration::from_secs(5));
            }
        }
        sleep(pause).await;
    }
}
