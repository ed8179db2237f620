//! Locks: renewed for every job in flight by one script, whatever the processors do.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::Shared;
use crate::{
    link::{Call, items, text},
    scripts,
};

// Holds Redis for about a millisecond.
const BATCH: usize = 500;

pub(super) async fn renew_locks(shared: Arc<Shared>) {
    let age = Duration::from_millis((shared.settings.lock_renew_time / 2).max(1));
    let life = Duration::from_millis(shared.settings.lock_duration);
    loop {
        sleep(age).await;
        let mut aged: Vec<(String, String)> = Vec::new();
        let mut lost = Vec::new();
        for (id, job) in shared.held().iter_mut().filter(|(_, job)| !job.lost) {
            if job.renewed.elapsed() >= life && !job.finishing {
                job.lost = true;
                lost.push(Arc::clone(&job.record));
            } else if job.renewed.elapsed() >= age {
                aged.push((id.clone(), job.record.token.clone()));
            }
        }
        shared.lose(lost);
        for batch in aged.chunks(BATCH) {
            let sent = Instant::now();
            let mut call = Call::new(&scripts::EXTEND_LOCKS, &shared.keys);
            call.arg(shared.keys.base())
                .number(shared.settings.lock_duration);
            for (id, token) in batch {
                call.arg(id).arg(token);
            }
            match shared.upkeep.call(&call).await {
                Ok(reply) => {
                    let lost: Vec<String> = items(reply).iter().map(text).collect();
                    note_renewal(&shared, batch, &lost, sent);
                }
                Err(error) => shared.sink.error(error),
            }
        }
    }
}

fn note_renewal(shared: &Shared, batch: &[(String, String)], lost: &[String], sent: Instant) {
    let mut gone = Vec::new();
    let mut held = shared.held();
    for (id, token) in batch {
        let Some(job) = held.get_mut(id).filter(|job| job.record.token == *token) else {
            continue;
        };
        if !lost.contains(id) {
            job.renewed = sent;
        } else if !job.finishing && !job.lost {
            // While its finish is under way a missing lock is what success looks like.
            job.lost = true;
            gone.push(Arc::clone(&job.record));
        }
    }
    drop(held);
    shared.lose(gone);
}
