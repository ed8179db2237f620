//! What a worker tells, counted on its way.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{Failed, Sink};
use crate::{clock::wall_ms, error::Error, job::JobRecord, telemetry::Activity};

/// Counts what it passes on.
pub(super) struct CountingSink {
    pub(super) activity: Arc<Activity>,
    pub(super) inner: Arc<dyn Sink>,
}

impl Sink for CountingSink {
    fn ready(&self) {
        self.inner.ready();
    }
    fn jobs(&self, jobs: Vec<Arc<JobRecord>>) {
        let now = wall_ms();
        for job in &jobs {
            note_start(&self.activity, job, now);
        }
        self.inner.jobs(jobs);
    }
    fn completed(&self, id: &str, token: &str, finished_on: i64) {
        self.inner.completed(id, token, finished_on);
    }
    fn failed(&self, job: Arc<JobRecord>, failed: Failed) {
        self.inner.failed(job, failed);
    }
    fn lock_lost(&self, job: Arc<JobRecord>) -> bool {
        Activity::count(&self.activity.locks_lost, 1);
        self.inner.lock_lost(job)
    }
    fn locks_renewed(&self, ids: Vec<String>) {
        self.inner.locks_renewed(ids);
    }
    fn lock_renewal_failed(&self, ids: Vec<String>) {
        self.inner.lock_renewal_failed(ids);
    }
    fn dropped(&self, id: &str, token: &str) {
        self.inner.dropped(id, token);
    }
    fn stalled(&self, id: &str) {
        Activity::count(&self.activity.stalled, 1);
        self.inner.stalled(id);
    }
    fn drained(&self) {
        self.inner.drained();
    }
    fn error(&self, error: Error) {
        self.inner.error(error);
    }
    fn closed(&self) {
        self.inner.closed();
    }
}

/// A job that a worker has since `now`.
pub(super) fn note_start(activity: &Activity, record: &JobRecord, now: i64) {
    Activity::count(&activity.started, 1);
    // When a job became ready for another run is not stored anywhere.
    if record.attempts_started != 1 {
        return;
    }
    let stored = record.field("timestamp").map(str::from_utf8);
    let Some(Ok(Ok(added))) = stored.map(|text| text.map(str::parse::<i64>)) else {
        return;
    };
    if added == 0 {
        // Nobody's clock said so.
        return;
    }
    let delay = first_delay(record);
    let waited = now - added - delay;
    if delay > 0 && waited < 0 {
        // Promoted before it was due.
        return;
    }
    // Below 0 where its producer's clock is ahead of ours.
    let waited = Duration::from_millis(u64::try_from(waited).unwrap_or(0));
    activity.wait.observe(waited);
    if delay > 0 {
        activity.lateness.observe(waited);
    }
}

/// The delay that a job was added with. Its own field is none any more once it was promoted.
fn first_delay(record: &JobRecord) -> i64 {
    // Most jobs have none; don't read the options for that.
    let opts = record.field("opts").unwrap_or_default();
    if memchr::memmem::find(opts, b"\"delay\"").is_none() {
        return 0;
    }
    let delay = record.options().get("delay").and_then(Value::as_f64);
    // Milliseconds far below 2^63; what is cut off is the fraction.
    #[allow(clippy::cast_possible_truncation)]
    delay.map_or(0, |delay| delay.max(0.0) as i64)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn job(opts: &str, started: i64, age: i64) -> JobRecord {
        let timestamp = (wall_ms() - age).to_string();
        JobRecord {
            fields: vec![
                ("opts".to_owned(), opts.into()),
                ("timestamp".to_owned(), timestamp.into_bytes()),
            ],
            attempts_started: started,
            ..JobRecord::default()
        }
    }

    #[test]
    fn a_wait_begins_when_a_job_is_due() {
        // Options, starts, age in ms; how many waits and latenesses, and the least they sum up to in ms.
        let cases = [
            ("{}", 1, 5_000, 1, 0, 5_000),
            (r#"{"delay":4000}"#, 1, 5_000, 1, 1, 1_000),
            (r#"{"delay":4000}"#, 1, 3_000, 0, 0, 0),
            (
                r#"{"backoff":{"type":"fixed","delay":4000}}"#,
                1,
                5_000,
                1,
                0,
                5_000,
            ),
            (r#"{"delay":0}"#, 1, 5_000, 1, 0, 5_000),
            ("{}", 2, 5_000, 0, 0, 0),
            ("{}", 1, -5_000, 1, 0, 0),
            ("no JSON", 1, 5_000, 1, 0, 5_000),
        ];
        for (opts, started, age, waits, late, least) in cases {
            let activity = Activity::new();
            note_start(&activity, &job(opts, started, age), wall_ms());
            let (wait, lateness) = (activity.wait.read(), activity.lateness.read());
            assert_eq!(
                wait.classes.iter().sum::<u64>(),
                waits,
                "{opts} {started} {age}"
            );
            assert_eq!(lateness.classes.iter().sum::<u64>(), late, "{opts}");
            assert!(wait.micros >= least * 1_000, "{opts}: {wait:?}");
            assert!(wait.micros < (least + 60_000) * 1_000, "{opts}: {wait:?}");
            assert_eq!(activity.started.load(Relaxed), 1);
        }
    }
}
