//! The stalled check: jobs that are active without a lock are queued again, or failed when it happened too often.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::Shared;
use crate::{
    clock::wall_ms,
    error::Error,
    link::{Call, integer, items, text},
    scripts,
};

// How many jobs one call looks at, so that it holds Redis for a few milliseconds at most.
const SLICE: usize = 1000;

pub(super) async fn check_stalled(shared: Arc<Shared>) {
    loop {
        let mut call = Call::new(&scripts::MOVE_STALLED_JOBS_TO_WAIT, &shared.keys);
        call.arg(shared.keys.base())
            .number(wall_ms())
            .number(shared.settings.stalled_interval)
            .number(shared.settings.max_stalled_count)
            .number(SLICE);
        let mut pause = Duration::from_millis(shared.settings.stalled_interval);
        match shared.upkeep.call(&call).await {
            Ok(reply) => {
                let mut reply = items(reply).into_iter();
                if reply.next().is_some_and(|more| integer(&more) == 1) {
                    pause = Duration::ZERO;
                }
                for id in reply.next().map(items).unwrap_or_default() {
                    shared.sink.stalled(&text(&id));
                }
                for id in reply.next().map(items).unwrap_or_default() {
                    shared.sink.error(Error::Broken(format!(
                        "the key of active job {} holds no job; it was taken out",
                        text(&id)
                    )));
                }
            }
            Err(error) => {
                shared.sink.error(error);
                pause = pause.min(Duration::from_secs(5));
            }
        }
        sleep(pause).await;
    }
}
