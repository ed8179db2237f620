//! What to write for a job that ended: pure functions of the job, the worker's settings and what its processor said.

use serde_json::{Map, Value};

use super::{JobOutcome, WorkerSettings};
use crate::{backoff, clock::wall_ms, job::JobRecord, telemetry::Activity};

/// One job of a batch, as the script takes it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) token: String,
    pub(super) outcome: &'static str,
    pub(super) value: Vec<u8>,
    pub(super) stack: String,
    /// What the job keeps of the trace it failed in, or empty.
    pub(super) trace: String,
    pub(super) keep: String,
    pub(super) number: String,
    pub(super) flag: &'static str,
    /// By which the script recognises what stands already: attempts made, or attempts started for an end that is none.
    pub(super) before: i64,
    /// As [`JobRecord::plain_fields`].
    pub(super) plain_fields: Option<u8>,
    pub(super) watched: bool,
    pub(super) limited: bool,
}

impl Entry {
    /// A job that is put somewhere else, which is no attempt.
    pub(super) fn put_back(
        id: &str,
        token: &str,
        attempts_started: i64,
        delay: Option<i64>,
    ) -> Self {
        Self {
            id: id.to_owned(),
            token: token.to_owned(),
            outcome: if delay.is_some() { "delay" } else { "wait" },
            value: Vec::new(),
            stack: String::new(),
            trace: String::new(),
            keep: String::new(),
            number: delay.map(|delay| delay.to_string()).unwrap_or_default(),
            flag: "",
            before: attempts_started,
            plain_fields: None,
            watched: true,
            limited: false,
        }
    }

    /// Counts what was written.
    pub(super) fn note_end(&self, activity: &Activity) {
        let count = match self.outcome {
            "completed" => &activity.completed,
            "failed" => &activity.failed,
            "retry" => &activity.retried,
            "delay" if !self.flag.is_empty() => &activity.retried,
            _ => &activity.put_back,
        };
        Activity::count(count, 1);
    }
}

pub(super) fn describe(
    record: &JobRecord,
    settings: &WorkerSettings,
    outcome: JobOutcome,
) -> Entry {
    let mut entry = Entry::put_back(&record.id, &record.token, record.attempts_started, None);
    match outcome {
        JobOutcome::Wait => {}
        JobOutcome::Delay { due } => {
            entry.outcome = "delay";
            entry.number = (due - wall_ms()).max(0).to_string();
        }
        JobOutcome::RateLimited { duration } => {
            entry.number = duration.map_or_else(String::new, |duration| duration.to_string());
            entry.limited = true;
        }
        JobOutcome::Completed {
            returnvalue,
            watched,
        } => {
            entry.before = record.attempts_made;
            entry.plain_fields = record.plain_fields;
            entry.outcome = "completed";
            entry.value = returnvalue;
            entry.keep = keep(record, "removeOnComplete", &settings.remove_on_complete);
            entry.watched = watched;
        }
        JobOutcome::Failed {
            reason,
            stack,
            unrecoverable,
            delay,
            trace,
        } => {
            entry.before = record.attempts_made;
            entry.trace = trace.unwrap_or_default();
            let options = record.options();
            let attempts = options
                .get("attempts")
                .and_then(Value::as_f64)
                .unwrap_or(0.0);
            // Counts far below 2^52.
            #[allow(clippy::cast_precision_loss)]
            let tries_left = ((record.attempts_made + 1) as f64) < attempts;
            let delay = delay
                .or_else(|| {
                    backoff::delay_ms(
                        options.get("backoff"),
                        record.attempts_made + 1,
                        rand::random(),
                    )
                })
                .unwrap_or(0.0);
            entry.stack = stacktrace(record, stack, options.get("stackTraceLimit"));
            let starts_left = settings
                .max_started_attempts
                .is_none_or(|most| record.attempts_started < most);
            if unrecoverable || !tries_left || !starts_left || delay < 0.0 {
                entry.outcome = "failed";
                entry.plain_fields = record.plain_fields;
                entry.value = reason.unwrap_or_else(|| "null".to_owned()).into_bytes();
                entry.number = attempts.to_string();
                entry.keep = keep(record, "removeOnFail", &settings.remove_on_fail);
            } else {
                entry.value = reason.unwrap_or_default().into_bytes();
                if delay > 0.0 {
                    entry.outcome = "delay";
                    entry.number = format!("{}", delay.round());
                    entry.flag = "1";
                } else {
                    entry.outcome = "retry";
                    let lifo = options.get("lifo").and_then(Value::as_bool);
                    entry.flag = if lifo == Some(true) { "1" } else { "" };
                }
            }
        }
    }
    entry
}

/// A keep policy as the script takes it: the job's own, else the worker's, else empty for "keep all".
fn keep(record: &JobRecord, option: &str, default: &str) -> String {
    // Most jobs have none; don't read the options for that.
    let own = record
        .field("opts")
        .filter(|opts| memchr::memmem::find(opts, option.as_bytes()).is_some());
    let policy = own
        .and_then(|_| record.options().get(option).cloned())
        .or_else(|| serde_json::from_str(default).ok());
    let part = |policy: &Map<String, Value>, name: &str| {
        policy
            .get(name)
            .and_then(Value::as_f64)
            // As the script reads numbers: digits, and a point at most.
            .map(|number| format!("{}", number.clamp(0.0, 1e15)))
            .unwrap_or_default()
    };
    match policy {
        Some(Value::Bool(true)) => "0::".to_owned(),
        Some(Value::Number(count)) if count.as_i64().is_some_and(|count| count >= 0) => {
            format!("{count}::")
        }
        Some(Value::Object(policy)) => {
            format!(
                "{}:{}:{}",
                part(&policy, "count"),
                part(&policy, "age"),
                part(&policy, "limit")
            )
        }
        _ => String::new(),
    }
}

/// The stored traces with this one behind them, at most as many as the job wants.
fn stacktrace(record: &JobRecord, stack: Option<String>, limit: Option<&Value>) -> String {
    let mut traces: Vec<String> = record
        .field("stacktrace")
        .and_then(|stored| serde_json::from_slice(stored).ok())
        .unwrap_or_default();
    traces.extend(stack);
    if let Some(limit) = limit.and_then(Value::as_u64) {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        traces.drain(..traces.len().saturating_sub(limit));
    }
    serde_json::to_string(&traces).unwrap_or_else(|_| "[]".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(opts: &str, made: i64) -> JobRecord {
        JobRecord {
            id: "7".to_owned(),
            fields: vec![
                ("opts".to_owned(), opts.into()),
                ("stacktrace".to_owned(), br#"["one","two"]"#.to_vec()),
            ],
            attempts_made: made,
            ..JobRecord::default()
        }
    }

    fn settings() -> WorkerSettings {
        WorkerSettings {
            name: String::new(),
            concurrency: 1,
            lock_duration: 1,
            lock_renew_time: 1,
            skip_lock_renewal: false,
            stalled_interval: 1,
            max_stalled_count: 1,
            skip_stalled_check: false,
            max_started_attempts: Some(4),
            drain_delay: 1.0,
            longest_drain_delay: 1.0,
            limiter: None,
            maximum_rate_limit_delay: 1,
            run_retry_delay: 1,
            metrics: None,
            paused: false,
            remove_on_complete: r#"{"age":60,"count":5}"#.to_owned(),
            remove_on_fail: String::new(),
        }
    }

    fn failed(opts: &str, made: i64, unrecoverable: bool, delay: Option<f64>) -> Entry {
        let outcome = JobOutcome::Failed {
            reason: Some("why".to_owned()),
            stack: Some("three".to_owned()),
            unrecoverable,
            delay,
            trace: None,
        };
        describe(&job(opts, made), &settings(), outcome)
    }

    #[test]
    fn a_failure_is_retried_delayed_or_final() {
        let cases = [
            (r#"{"attempts":3}"#, 1, false, None, "retry"),
            (r#"{"attempts":3}"#, 2, false, None, "failed"),
            (r#"{"attempts":3}"#, 0, true, None, "failed"),
            (r#"{"attempts":3}"#, 0, false, Some(-1.0), "failed"),
            (r#"{"attempts":3}"#, 0, false, Some(20.0), "delay"),
            (r#"{"attempts":3,"backoff":50}"#, 0, false, None, "delay"),
            ("{}", 0, false, None, "failed"),
            ("no JSON", 0, false, None, "failed"),
        ];
        for (opts, made, unrecoverable, delay, expected) in cases {
            let entry = failed(opts, made, unrecoverable, delay);
            assert_eq!(entry.outcome, expected, "{opts} after {made} attempts");
        }
    }

    #[test]
    fn a_failure_is_final_when_the_job_may_not_begin_again() {
        for (started, expected) in [(3, "retry"), (4, "failed"), (5, "failed")] {
            let record = JobRecord {
                attempts_started: started,
                ..job(r#"{"attempts":9}"#, 0)
            };
            let outcome = JobOutcome::Failed {
                reason: None,
                stack: None,
                unrecoverable: false,
                delay: None,
                trace: None,
            };
            let entry = describe(&record, &settings(), outcome);
            assert_eq!(entry.outcome, expected, "begun {started} times");
        }
    }

    #[test]
    fn the_newest_traces_are_kept() {
        assert_eq!(
            failed("{}", 0, false, None).stack,
            r#"["one","two","three"]"#
        );
        let limited = failed(r#"{"stackTraceLimit":2}"#, 0, false, None);
        assert_eq!(limited.stack, r#"["two","three"]"#);
    }

    #[test]
    fn a_jobs_own_keep_policy_wins_over_the_workers() {
        let cases = [
            ("{}", "5:60:"),
            (r#"{"removeOnComplete":true}"#, "0::"),
            (r#"{"removeOnComplete":false}"#, ""),
            (r#"{"removeOnComplete":3}"#, "3::"),
            (r#"{"removeOnComplete":{"age":1,"limit":9}}"#, ":1:9"),
        ];
        for (opts, expected) in cases {
            let outcome = JobOutcome::Completed {
                returnvalue: b"1".to_vec(),
                watched: false,
            };
            assert_eq!(
                describe(&job(opts, 0), &settings(), outcome).keep,
                expected,
                "{opts}"
            );
        }
    }
}
