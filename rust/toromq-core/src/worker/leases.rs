//! Locks: renewed for every job in flight by one script, whatever the processors do; and the check for jobs whose worker
//! died.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::Shared;
use crate::{
    clock::wall_ms,
    error::Error,
    link::{Call, integer, items, text},
    scripts,
};

const RENEWALS: usize = 500;

pub(super) async fn renew_locks(shared: Arc<Shared>) {
    let age = Duration::from_millis((shared.settings.lock_renew_time / 2).max(1));
    let life = Duration::from_millis(shared.settings.lock_duration);
    loop {
        sleep(age).await;
        let mut aged: Vec<(String, String)> = Vec::new();
        for (id, job) in shared.held().iter_mut().filter(|(_, job)| !job.lost) {
            if job.renewed.elapsed() >= life {
                job.lost = true;
                shared.sink.lock_lost(Arc::clone(&job.record));
            } else if job.renewed.elapsed() >= age {
                aged.push((id.clone(), job.record.token.clone()));
            }
        }
        for batch in aged.chunks(RENEWALS) {
            let sent = Instant::now();
            let mut call = Call::new(&scripts::EXTEND_LOCKS, &shared.keys);
            call.arg(shared.keys.base())
                .number(shared.settings.lock_duration);
            for (id, token) in batch {
                call.arg(id).arg(token);
            }
            match shared.leases.call(&call).await {
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
    let mut held = shared.held();
    for (id, _) in batch {
        let Some(job) = held.get_mut(id) else {
            continue;
        };
        if !lost.contains(id) {
            job.renewed = sent;
        } else if !job.finishing && !job.lost {
            // While its finish is under way a missing lock is what success looks like.
            job.lost = true;
            shared.sink.lock_lost(Arc::clone(&job.record));
        }
    }
}

pub(super) async fn check_stalled(shared: Arc<Shared>) {
    loop {
        let mut call = Call::new(&scripts::MOVE_STALLED_JOBS_TO_WAIT, &shared.keys);
        call.arg(shared.keys.base())
            .number(wall_ms())
            .number(shared.settings.stalled_interval)
            .number(shared.settings.max_stalled_count)
            .number(1000);
        let mut pause = Duration::from_millis(shared.settings.stalled_interval);
        match shared.leases.call(&call).await {
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
