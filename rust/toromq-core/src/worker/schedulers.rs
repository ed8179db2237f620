//! Before a job of a job scheduler runs, the next one is made: else the series would end with it.

use std::sync::Arc;

use super::{
    Closing, JobOutcome, Shared,
    actor::Backoff,
    exchange::{begins_too_often, entry},
    outcome::Entry,
};
use crate::{
    clock::wall_ms,
    error::{Error, Result},
    job::JobRecord,
    keys::QueueKeys,
    link::{Call, Link, integer, items},
    repeat::{JobOptions, Next, Unknown},
    scripts::{self, Code},
};

// How many times of a pattern are passed over because they have their jobs already.
const TRIES: usize = 1000;

/// The scheduler that made a job; `None` for any other job.
pub(super) fn scheduler_of(record: &JobRecord) -> Option<String> {
    record
        .field("rjk")
        .filter(|scheduler| !scheduler.is_empty())
        .map(|scheduler| String::from_utf8_lossy(scheduler).into_owned())
}

/// Makes the next jobs, and hands these on to be run. Tries for as long as their locks live.
pub(super) async fn advance(shared: Arc<Shared>, jobs: Vec<Arc<JobRecord>>) {
    let mut backoff = Backoff::new(shared.settings.run_retry_delay);
    let mut closing = shared.closing.subscribe();
    let mut batches = vec![jobs];
    while let Some(mut batch) = batches.pop() {
        {
            let held = shared.held();
            batch.retain(|record| {
                let job = held.get(&record.id);
                job.is_some_and(|job| job.waits && !job.lost && job.record.token == record.token)
            });
        }
        if batch.is_empty() {
            continue;
        }
        let mut reported = Vec::new();
        let done = iterate(&shared.commands, &shared.keys, &batch, &mut reported).await;
        match done {
            // What Redis refuses for good concerns one of them.
            Err(error) if !error.may_pass() && batch.len() > 1 => {
                batches.extend(batch.into_iter().map(|record| vec![record]));
                continue;
            }
            Err(error) if !error.may_pass() => {
                reported.push(not_made(&batch[0], &error));
                deliver(&shared, batch);
            }
            Ok(()) => deliver(&shared, batch),
            Err(error) => {
                reported = vec![error];
                if *closing.borrow_and_update() > Closing::No {
                    // Whoever runs it next makes the next one.
                    for record in batch {
                        shared.end(&record, JobOutcome::Wait);
                    }
                } else {
                    batches.push(batch);
                    tokio::select! {
                        () = backoff.pause() => {}
                        _ = closing.changed() => {}
                    }
                }
            }
        }
        for error in reported {
            shared.sink.error(error);
        }
    }
}

fn deliver(shared: &Shared, batch: Vec<Arc<JobRecord>>) {
    let mut runnable = Vec::new();
    let mut refused = Vec::new();
    {
        let mut held = shared.held();
        for record in batch {
            let Some(job) = held.get_mut(&record.id) else {
                continue;
            };
            if job.record.token != record.token || job.lost || !job.waits {
                continue;
            }
            job.waits = false;
            match record
                .refusal()
                .or_else(|| begins_too_often(shared, &record))
            {
                None => runnable.push(record),
                Some(reason) => refused.push((record, reason)),
            }
        }
    }
    // What is handed back last runs first.
    for record in shared.hand_out(runnable).into_iter().rev() {
        shared.end(&record, JobOutcome::Wait);
    }
    for (record, reason) in refused {
        let outcome = JobOutcome::Failed {
            reason: Some(reason),
            stack: None,
            unrecoverable: true,
            delay: None,
            trace: None,
        };
        shared.end(&record, outcome);
    }
}

/// What to write for the jobs that nobody has begun because the one after them is not made yet.
pub(super) fn withdraw(shared: &Shared) -> Vec<Entry> {
    let mut waiting = Vec::new();
    for job in shared
        .held()
        .values_mut()
        .filter(|job| job.waits && !job.lost)
    {
        job.waits = false;
        waiting.push(Arc::clone(&job.record));
    }
    waiting
        .iter()
        .filter_map(|record| entry(shared, &record.id, &record.token, JobOutcome::Wait))
        .collect()
}

pub(super) fn not_made(record: &JobRecord, error: &Error) -> Error {
    Error::Broken(format!(
        "the job after {} can't be made ({error}); that one runs all the same",
        record.id
    ))
}

/// Makes the next jobs of the schedulers that made these. What no other try would mend is `reported`.
///
/// Done twice it does nothing more: only the newest job of a scheduler brings forth another.
///
/// # Errors
///
/// As [`Link::call`].
pub(super) async fn iterate(
    link: &Link,
    keys: &QueueKeys,
    jobs: &[Arc<JobRecord>],
    reported: &mut Vec<Error>,
) -> Result<()> {
    if jobs.iter().all(|record| scheduler_of(record).is_none()) {
        return Ok(());
    }
    let now = agreed_ms(link).await?;
    let mut wanted = Vec::new();
    for record in jobs {
        let Some(scheduler) = scheduler_of(record) else {
            continue;
        };
        let options = match record.field("opts").and_then(JobOptions::of_job) {
            Some(options) => options,
            None => {
                reported.push(Error::Broken(format!(
                    "the stored opts of job {} don't say when the next job of scheduler {scheduler} is due; it is made \
                     by the scheduler's record",
                    record.id
                )));
                match record_of(link, keys, &scheduler).await? {
                    Some(stored) => JobOptions::of_record(&stored),
                    None => continue,
                }
            }
        };
        wanted.push((scheduler, record.id.as_str(), options, 0));
    }
    for tries in 1.. {
        let mut call = Call::new(&scripts::ITERATE_SCHEDULERS, keys);
        call.arg(keys.base()).number(now);
        let mut sent = Vec::new();
        for (scheduler, id, options, passed) in wanted {
            match options.clone().next(&scheduler, now, passed) {
                Ok(Some(next)) => {
                    put(&mut call, &scheduler, id, &next);
                    sent.push((scheduler, id, options, next.due));
                }
                Ok(None) => {}
                Err(unknown) => reported.push(Error::Broken(format!(
                    "job scheduler {scheduler} makes no further job: {}; job {id} runs all the same",
                    match unknown {
                        Unknown::Nothing =>
                            "neither its job nor its record has an interval or a pattern".to_owned(),
                        Unknown::Pattern(why) | Unknown::Zone(why) => why,
                    },
                ))),
            }
        }
        if sent.is_empty() {
            break;
        }
        wanted = Vec::new();
        let made = items(link.call(&call).await?);
        for ((scheduler, id, options, due), made) in sent.into_iter().zip(&made) {
            match (Code::from_value(integer(made)), due) {
                (None, _) => {}
                (Some(Code::SchedulerCollision), Some(due)) if tries < TRIES => {
                    wanted.push((scheduler, id, options, due));
                }
                (Some(code), _) => reported.push(Error::Scheduler {
                    operation: "making its next job",
                    scheduler,
                    code,
                }),
            }
        }
    }
    Ok(())
}

/// The earlier of this machine's time and the server's. A time of a scheduler is left out only if it is over, and a clock that
/// is ahead of the others must not decide that alone: nobody would run what is still to come.
async fn agreed_ms(link: &Link) -> Result<i64> {
    let answer = match link.send("TIME", &redis::cmd("TIME")).await {
        Ok(answer) => items(answer),
        Err(error) if error.may_pass() => return Err(error),
        // A user who may not ask.
        Err(_) => Vec::new(),
    };
    let here = wall_ms();
    Ok(match answer.as_slice() {
        [seconds, micros] => here.min(integer(seconds) * 1000 + integer(micros) / 1000),
        _ => here,
    })
}

fn put(call: &mut Call, scheduler: &str, job_id: &str, next: &Next) {
    call.arg(scheduler)
        .arg(job_id)
        .arg(&next.opts)
        .arg(next.due.map_or_else(String::new, |due| due.to_string()))
        .arg(&next.every)
        .arg(&next.offset)
        .number(next.priority)
        .arg(if next.lifo { "1" } else { "" })
        .arg(&next.deduplication_id);
}

/// What is stored of a scheduler.
async fn record_of(
    link: &Link,
    keys: &QueueKeys,
    scheduler: &str,
) -> Result<Option<Vec<(String, Vec<u8>)>>> {
    let mut cmd = redis::cmd("HGETALL");
    cmd.arg(keys.scheduler(scheduler));
    let stored = link.send("get_job_scheduler", &cmd).await?;
    let fields = JobRecord::new(String::new(), String::new(), stored).fields;
    Ok((!fields.is_empty()).then_some(fields))
}
