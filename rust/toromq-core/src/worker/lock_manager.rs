//! Locks: renewed for every job in flight by one script, whatever the processors do.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{
    Run, Shared,
    moves::{BATCH, try_to_extend_locks},
};
use crate::{
    error::{Error, Outcome},
    job::JobRecord,
    scripts::Code,
};

pub(super) async fn renew_locks(shared: Arc<Shared>) {
    let age = Duration::from_millis((shared.settings.lock_renew_time / 2).max(1));
    // Half of what a lock has left when it is looked at at the latest.
    let left = shared.settings.lock_duration - shared.settings.lock_renew_time;
    let patience = Duration::from_millis((left / 2).max(1));
    let life = Duration::from_millis(shared.settings.lock_duration);
    let mut pause = age;
    loop {
        sleep(pause).await;
        pause = age;
        let (aged, lost) = look(&shared, age);
        shared.lose(lost);
        for batch in aged.chunks(BATCH) {
            let sent = Instant::now();
            let renewal = try_to_extend_locks(&shared.upkeep, &shared.keys, batch, life);
            // One answer that never comes must leave time for another try before the locks run out.
            match timeout(patience, renewal).await {
                Ok(Ok(lost)) => note_renewal(&shared, batch, &lost, sent, life),
                Ok(Err(error)) => shared.sink.error(error),
                Err(_) => {
                    shared.upkeep.reset().await;
                    shared.sink.error(unanswered(patience));
                    pause = Duration::ZERO;
                }
            }
        }
    }
}

/// The locks of that age, and those that have run out unnoticed.
pub(super) fn look(shared: &Shared, age: Duration) -> (Vec<Run>, Vec<Arc<JobRecord>>) {
    let mut aged = Vec::new();
    let mut lost = Vec::new();
    for job in shared.held().values_mut().filter(|job| !job.lost) {
        if job.expires <= Instant::now() && !job.finishing {
            job.lost = true;
            lost.push(Arc::clone(&job.record));
        } else if job.renewed.elapsed() >= age && !shared.settings.skip_lock_renewal {
            aged.push(Run::of(&job.record));
        }
    }
    (aged, lost)
}

fn unanswered(patience: Duration) -> Error {
    Error::Connection {
        message: format!(
            "the renewal of locks got no answer within {} ms; it is tried again on a new connection",
            patience.as_millis()
        ),
        outcome: Outcome::Unknown,
    }
}

pub(super) fn note_renewal(
    shared: &Shared,
    batch: &[Run],
    lost: &[(String, Code)],
    sent: Instant,
    life: Duration,
) {
    let mut gone = Vec::new();
    let mut renewed = Vec::new();
    let mut held = shared.held();
    for run in batch {
        let Some(job) = held
            .get_mut(&run.id)
            .filter(|job| job.record.token == run.token)
        else {
            continue;
        };
        if !lost.iter().any(|(id, _)| *id == run.id) {
            job.renewed = sent;
            job.expires = sent + life;
            renewed.push(run.id.clone());
        } else if !job.finishing && !job.lost {
            // While its finish is under way a missing lock is what success looks like.
            job.lost = true;
            gone.push(Arc::clone(&job.record));
        }
    }
    drop(held);
    if !renewed.is_empty() {
        shared.sink.locks_renewed(renewed);
    }
    if !gone.is_empty() {
        let ids = gone.iter().map(|record| record.id.clone()).collect();
        shared.sink.lock_renewal_failed(ids);
    }
    shared.lose(gone);
}
