//! One exchange with Redis: outcomes out, jobs in; and what to do when its reply was lost.

use std::{collections::hash_map::Entry::Occupied, fmt::Display, sync::Arc, time::Duration};

use redis::Value;
use tokio::time::Instant;

use super::{
    Failed, Held, JobOutcome, Shared, WorkerSettings,
    actor::{Backoff, LAST_TRY},
    outcome::{Entry, describe},
    schedulers::{advance, scheduler_of},
};
use crate::{
    error::{Error, Result},
    job::JobRecord,
    keys::QueueKeys,
    link::{Call, integer, items, text},
    packed::{self, Packed, unpacked},
    scripts::{self, Code},
    telemetry::Activity,
};

/// What a fetch brought, beyond the jobs themselves.
pub(super) struct Fetched {
    /// How many jobs.
    pub(super) count: usize,
    /// Milliseconds until a rate limit ends, 0 without one.
    pub(super) limited: u64,
    /// When the next delayed job is due, 0 without one.
    pub(super) due: i64,
    /// Whether the queue is paused, or at its own concurrency.
    pub(super) blocked: bool,
    /// What must be written for jobs whose outcome was refused.
    pub(super) again: Vec<Entry>,
}

/// Jobs of a reply that are not held yet, and nobody was told of. Each takes a slot.
pub(super) struct Brought {
    /// As they came.
    jobs: Value,
    count: usize,
    token: String,
    sent: Instant,
}

impl Brought {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Holds them and hands them on; gives what to write for those that must not be run.
    pub(super) fn open(self, shared: &Arc<Shared>) -> Vec<Entry> {
        let jobs = fetched_jobs(self.jobs, &self.token, &shared.settings);
        accept(shared, jobs.into_iter(), self.sent)
    }
}

/// What to write for a job that ended; nothing where its lock was lost.
pub(super) fn entry(shared: &Shared, id: &str, token: &str, outcome: JobOutcome) -> Option<Entry> {
    let mut held = shared.held();
    let job = held.get_mut(id).filter(|job| job.record.token == token)?;
    if job.lost {
        held.remove(id);
        return None;
    }
    job.finishing = true;
    Some(describe(&job.record, &shared.settings, outcome))
}

/// The call that writes a batch of outcomes and fetches up to `want` jobs under `token`. With `again`, the script looks
/// first whether an outcome stands already. `now` is as the script takes it.
pub(super) fn prepare(
    keys: &QueueKeys,
    settings: &WorkerSettings,
    token: &str,
    batch: &[Entry],
    want: usize,
    now: impl Display,
    again: bool,
) -> Call {
    let mut call = Call::new(&scripts::FINISH_AND_FETCH, keys);
    call.arg(keys.base())
        .number(now)
        .number(want)
        .arg(token)
        .number(settings.lock_duration)
        .arg(&settings.name);
    match settings.limiter {
        Some((max, duration)) => call.number(max).number(duration),
        None => call.arg("").arg(""),
    };
    match settings.metrics {
        Some(points) => call.number(points),
        None => call.arg(""),
    };
    let mut ends = Packed::default();
    for entry in batch {
        describe_end(&mut ends, entry, again);
    }
    ends.put(&mut call);
    call
}

/// One group of the script's arguments.
pub(super) fn describe_end(ends: &mut Packed, entry: &Entry, again: bool) {
    ends.text(&entry.id)
        .text(&entry.token)
        .text(entry.outcome)
        .text(&entry.value)
        .count(entry.plain_fields.filter(|_| !again));
    let before = if again {
        entry.before.to_string()
    } else {
        String::new()
    };
    let more = [
        ("stacktrace", entry.stack.as_str()),
        ("trace", &entry.trace),
        ("keep", &entry.keep),
        ("number", &entry.number),
        ("flag", entry.flag),
        ("before", &before),
    ];
    if more.iter().all(|(_, value)| value.is_empty()) {
        ends.flag(false);
    } else {
        let given = more.into_iter().filter(|(_, value)| !value.is_empty());
        ends.named(&given.collect::<Vec<_>>());
    }
    ends.end_group(6);
}

/// Writes a batch whose reply was lost; gives what must be written for jobs whose outcome was refused.
async fn write_again(shared: &Arc<Shared>, batch: &[Entry], now: i64) -> Result<Vec<Entry>> {
    let token = shared.next_token();
    let (keys, settings) = (&shared.keys, &shared.settings);
    let call = prepare(keys, settings, &token, batch, 0, now, true);
    let reply = shared.commands.call(&call).await?;
    let (done, _) = take_reply(shared, batch, token, reply, Instant::now(), now);
    Ok(done.again)
}

/// Of a fetched job: its id, the count of its starts, and what is stored of it.
const VALUES: usize = 3;

/// The jobs of a reply, which this worker has begun under `token`.
pub(super) fn fetched_jobs(
    packed: Value,
    token: &str,
    settings: &WorkerSettings,
) -> Vec<JobRecord> {
    let written: &[&str] = if settings.name.is_empty() {
        &["processedOn", "ats"]
    } else {
        &["processedOn", "ats", "pb"]
    };
    let mut values = unpacked(packed).into_iter();
    let mut jobs = Vec::new();
    while let (Some(id), Some(started), Some(stored)) =
        (values.next(), values.next(), values.next())
    {
        let (id, started) = (text(&id), integer(&started));
        let job = JobRecord::begun(id, token.to_owned(), started, stored, written);
        jobs.push(job);
    }
    jobs
}

/// Takes note of what was written, and of what the fetch said.
pub(super) fn take_reply(
    shared: &Arc<Shared>,
    batch: &[Entry],
    token: String,
    reply: Value,
    sent: Instant,
    now: i64,
) -> (Fetched, Brought) {
    let mut reply = items(reply).into_iter();
    let codes = reply.next().map(items).unwrap_or_default();
    let mut fetched = reply.next().map(items).unwrap_or_default().into_iter();
    let _drained = reply.next();
    // A rate window is open for most jobs that are put back; only who ran into a limit waits for its end.
    let bounced = match reply.next() {
        Some(limited) if batch.iter().any(|entry| entry.limited) => integer(&limited),
        _ => 0,
    };

    let mut again = Vec::new();
    // Where none was refused there are no codes.
    let codes = codes.iter().map(integer).chain(std::iter::repeat(0));
    for (entry, code) in batch.iter().zip(codes) {
        again.extend(settle(shared, entry, code, now));
    }

    let jobs = fetched.next().unwrap_or(Value::Nil);
    let count = packed::count(&jobs) / VALUES;
    let limited = fetched
        .next()
        .map_or(0, |limited| integer(&limited))
        .max(bounced);
    let due = fetched.next().map_or(0, |due| integer(&due));
    for taken in fetched.next().map(items).unwrap_or_default() {
        let parts: Vec<String> = items(taken).iter().map(text).collect();
        shared.sink.error(Error::Broken(format!(
            "the key of waiting job {} holds no job; it was taken out",
            parts.join(": ")
        )));
    }
    let blocked = fetched.next().is_some_and(|blocked| integer(&blocked) == 1);
    let fetched = Fetched {
        count,
        limited: u64::try_from(limited).unwrap_or(0),
        due,
        blocked,
        again,
    };
    let brought = Brought {
        jobs,
        count,
        token,
        sent,
    };
    (fetched, brought)
}

/// Holds jobs and hands them on; gives what to write for those that must not be run.
fn accept(
    shared: &Arc<Shared>,
    jobs: impl Iterator<Item = JobRecord>,
    sent: Instant,
) -> Vec<Entry> {
    let mut runnable = Vec::new();
    let mut refused = Vec::new();
    let mut scheduled = Vec::new();
    let mut lost = Vec::new();
    // Nobody will run what a call under way at the close still brings.
    let hand_back = shared.hands_back();
    let now = Instant::now();
    {
        let mut held = shared.held();
        let mut given_up = shared.given_up();
        for record in jobs {
            given_up.remove(&record.id);
            let record = Arc::new(record);
            let waits = !hand_back && scheduler_of(&record).is_some();
            let job = Held {
                record: Arc::clone(&record),
                since: now,
                renewed: sent,
                expires: sent + Duration::from_millis(shared.settings.lock_duration),
                lost: false,
                finishing: false,
                waits,
            };
            if let Some(earlier) = held.insert(record.id.clone(), job)
                && !earlier.finishing
                && !earlier.waits
            {
                // Its lock ran out unnoticed, and its processor is still at it, in a slot of its own.
                shared.leave(&earlier.record);
                if !earlier.lost {
                    lost.push(earlier.record);
                }
            }
            if waits {
                scheduled.push(record);
                continue;
            }
            match record
                .refusal()
                .or_else(|| begins_too_often(shared, &record))
            {
                _ if hand_back => refused.push((record, None)),
                None => runnable.push(record),
                reason => refused.push((record, reason)),
            }
        }
    }
    shared.lose(lost);
    let unrun = shared.hand_out(runnable);
    refused.extend(unrun.into_iter().map(|record| (record, None)));
    if !scheduled.is_empty() {
        // Beside the loop, so that no other job waits for it.
        tokio::spawn(advance(Arc::clone(shared), scheduled));
    }
    refused
        .into_iter()
        // What is handed back last runs first.
        .rev()
        .filter_map(|(record, reason)| match reason {
            Some(reason) => fail(shared, &record.id, &record.token, reason, None, true),
            None => entry(shared, &record.id, &record.token, JobOutcome::Wait),
        })
        .collect()
}

pub(super) fn begins_too_often(shared: &Shared, record: &JobRecord) -> Option<String> {
    let most = shared.settings.max_started_attempts?;
    // The words of every client of this wire.
    (record.attempts_started > most).then(|| "job started more than allowable limit".to_owned())
}

fn fail(
    shared: &Shared,
    id: &str,
    token: &str,
    reason: String,
    stack: Option<String>,
    unrecoverable: bool,
) -> Option<Entry> {
    let outcome = JobOutcome::Failed {
        reason: Some(reason),
        stack,
        unrecoverable,
        delay: None,
        trace: None,
    };
    entry(shared, id, token, outcome)
}

/// Takes out the run that an entry speaks of, and no later run of its job.
fn remove(shared: &Shared, entry: &Entry) -> Option<Held> {
    let mut held = shared.held();
    match held.entry(entry.id.clone()) {
        Occupied(job) if job.get().record.token == entry.token => Some(job.remove()),
        _ => None,
    }
}

/// Takes note of what the script said about one job whose outcome was written at `now`.
fn settle(shared: &Shared, entry: &Entry, code: i64, now: i64) -> Option<Entry> {
    match Code::from_value(code) {
        None => {
            entry.note_end(&shared.activity);
            let held = remove(shared, entry);
            match entry.outcome {
                "completed" if entry.watched => {
                    shared.sink.completed(&entry.id, &entry.token, now);
                }
                "completed" | "wait" => {}
                "delay" if entry.flag.is_empty() => {}
                _ => {
                    if let Some(held) = held {
                        shared.sink.failed(
                            held.record,
                            Failed {
                                reason: String::from_utf8_lossy(&entry.value).into_owned(),
                                stacktrace: entry.stack.clone(),
                                finished_on: (entry.outcome == "failed").then_some(now),
                            },
                        );
                    }
                }
            }
            None
        }
        // What every client of this wire makes of a parent that ends too early: a failed attempt.
        Some(Code::PendingChildren) => {
            let reason = format!("Job {} has pending dependencies. moveToFinished", entry.id);
            fail(
                shared,
                &entry.id,
                &entry.token,
                reason.clone(),
                Some(reason),
                false,
            )
        }
        Some(Code::FailedChildren) => {
            let reason = format!(
                "Cannot complete job {} because it has at least one failed child. moveToFinished",
                entry.id
            );
            fail(
                shared,
                &entry.id,
                &entry.token,
                reason.clone(),
                Some(reason),
                true,
            )
        }
        Some(code) => {
            Activity::count(&shared.activity.refused, 1);
            if let Some(held) = remove(shared, entry).filter(|held| !held.lost) {
                shared.lose(vec![held.record]);
            }
            shared.sink.error(Error::Script {
                operation: "writing the outcome",
                code,
                job_id: entry.id.clone(),
            });
            // A later run of the job may stand in its place.
            shared.sink.dropped(&entry.id, &entry.token);
            None
        }
    }
}

/// After lost replies: writes the batches again, looking first at what already stands, then adopts what the lost calls
/// may have fetched. Tries for ever unless the worker closes. Nothing else may be under way.
pub(super) async fn recover(
    shared: &Arc<Shared>,
    // With the times when they were first sent: by those a finish that went through is recognised.
    mut batches: Vec<(Vec<Entry>, i64)>,
    pending: &mut Vec<Entry>,
    backoff: &mut Backoff,
) {
    let mut closing_since = None;
    // Taken from the end: what was sent first is written first.
    batches.reverse();
    loop {
        let attempt = match batches.last() {
            Some((batch, _)) if batch.is_empty() => Ok(()),
            Some((batch, now)) => write_again(shared, batch, *now)
                .await
                .map(|refused| pending.extend(refused)),
            None => adopt(shared).await.map(|refused| pending.extend(refused)),
        };
        let Err(error) = attempt else {
            if batches.pop().is_none() {
                return;
            }
            continue;
        };
        if shared.is_closing()
            && closing_since.get_or_insert_with(Instant::now).elapsed() > LAST_TRY
        {
            pending.extend(batches.into_iter().flat_map(|(batch, _)| batch));
            shared.sink.error(error);
            return;
        }
        let for_good = matches!(
            error,
            Error::Server {
                transient: false,
                ..
            }
        );
        match batches.pop() {
            // One of them is what Redis refuses: find out which, and keep the others.
            Some((batch, now)) if for_good && batch.len() > 1 => {
                batches.extend(batch.into_iter().rev().map(|entry| (vec![entry], now)));
            }
            Some((batch, _)) if for_good => {
                for entry in batch {
                    remove(shared, &entry);
                    shared.given_up().insert(entry.id.clone());
                    shared.sink.error(Error::Broken(format!(
                        "the outcome of job {} can't be written ({error}); when its lock runs out it is tried again",
                        entry.id
                    )));
                    shared.sink.dropped(&entry.id, &entry.token);
                }
            }
            kept => {
                batches.extend(kept);
                shared.sink.error(error);
                backoff.pause().await;
            }
        }
    }
}

/// Holds the jobs that a lost call may have made active for us.
async fn adopt(shared: &Arc<Shared>) -> Result<Vec<Entry>> {
    shared.armed.make_safe(&shared.commands).await?;
    // Its jobs come with its own answer.
    let armed = shared.armed.token();
    let sent = Instant::now();
    let mut call = Call::new(&scripts::ADOPT_JOBS, &shared.keys);
    call.arg(shared.keys.base())
        .arg(&shared.token)
        .number(shared.settings.lock_duration);
    for id in shared.held().keys() {
        call.arg(id);
    }
    for id in shared.given_up().iter() {
        call.arg(id);
    }
    let adopted = items(shared.commands.call(&call).await?);
    let jobs = adopted.into_iter().filter_map(|job| {
        let mut job = items(job).into_iter();
        let (id, token, stored) = (job.next()?, text(&job.next()?), job.next()?);
        (armed.as_ref() != Some(&token)).then(|| JobRecord::new(text(&id), token, stored))
    });
    Ok(accept(shared, jobs, sent))
}
