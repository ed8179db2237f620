//! What a job scheduler's jobs say of the next one, and when that is: by the options of a job, or by the scheduler's own
//! record.

use std::collections::BTreeMap;

use serde_json::{Value, value::RawValue};

use crate::cron::{Cron, CronError};

/// A JSON object whose members stay as they were written: no digit is lost on the way from one job to the next.
type Members = BTreeMap<String, Box<RawValue>>;

/// Why there is no further job though there should be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// Neither an interval nor a pattern is to be found.
    Nothing,
    /// The pattern can't be understood.
    Pattern(String),
    /// Its zone can't be understood.
    Zone(String),
}

/// The options of one job of a scheduler, taken apart as far as the next job differs.
#[derive(Debug, Clone)]
pub struct JobOptions {
    members: Members,
    repeat: Members,
}

/// What the next job is stored with, but for what only the script knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Next {
    /// JSON object without `jobId`, `delay` and `prevMillis`.
    pub opts: Vec<u8>,
    /// When, where a pattern says so.
    pub due: Option<i64>,
    /// The interval in milliseconds, empty without one.
    pub every: String,
    /// Its phase, empty without one.
    pub offset: String,
    /// Priority of the job.
    pub priority: i64,
    /// Whether it runs before the standard jobs that wait.
    pub lifo: bool,
    /// Stored with the job; empty for none.
    pub deduplication_id: String,
}

fn parse(text: &[u8]) -> Option<Members> {
    serde_json::from_slice(text).ok()
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_default()
}

fn value(members: &Members, name: &str) -> Option<Value> {
    serde_json::from_str(members.get(name)?.get()).ok()
}

/// A number, also one that was written as text; the fraction is cut off.
fn number(members: &Members, name: &str) -> Option<i64> {
    let number = match value(members, name)? {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    // Times and counts far below 2^53; others become the nearest that there is.
    #[allow(clippy::cast_possible_truncation)]
    Some(number as i64)
}

fn text(members: &Members, name: &str) -> Option<String> {
    match value(members, name)? {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// A number as a script reads it.
fn plain(members: &Members, name: &str) -> String {
    match value(members, name) {
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) if text.parse::<f64>().is_ok() => text,
        _ => String::new(),
    }
}

impl JobOptions {
    /// From a job's stored options; `None` where they don't say how to go on.
    #[must_use]
    pub fn of_job(opts: &[u8]) -> Option<Self> {
        let members = parse(opts)?;
        let repeat = parse(members.get("repeat")?.get().as_bytes())?;
        Some(Self { members, repeat })
    }

    /// From a scheduler's record, for a job whose own options are lost.
    #[must_use]
    pub fn of_record(record: &[(String, Vec<u8>)]) -> Self {
        let field = |name: &str| {
            let found = record.iter().find(|(field, _)| field == name);
            found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        let mut repeat = Members::new();
        for name in ["every", "offset", "limit", "startDate", "endDate"] {
            if let Some(number) =
                field(name).and_then(|text| text.parse::<serde_json::Number>().ok())
            {
                repeat.insert(name.to_owned(), raw(&Value::Number(number)));
            }
        }
        for name in ["pattern", "tz"] {
            if let Some(text) = field(name) {
                repeat.insert(name.to_owned(), raw(&Value::String(text)));
            }
        }
        let made = field("ic").and_then(|count| count.parse::<i64>().ok());
        repeat.insert("count".to_owned(), raw(&made.unwrap_or(1).into()));
        let members = field("opts").and_then(|opts| parse(opts.as_bytes()));
        Self {
            members: members.unwrap_or_default(),
            repeat,
        }
    }

    /// The job after this one, made at `now`; nothing where the series has come to its end. By a pattern it is later than
    /// `passed`.
    ///
    /// # Errors
    ///
    /// Where nobody can say when it is.
    pub fn next(mut self, scheduler: &str, now: i64, passed: i64) -> Result<Option<Next>, Unknown> {
        let count = number(&self.repeat, "count").unwrap_or(0).saturating_add(1);
        let end = number(&self.repeat, "endDate");
        if number(&self.repeat, "limit").is_some_and(|limit| count > limit)
            || end.is_some_and(|end| now > end)
        {
            return Ok(None);
        }
        let every = plain(&self.repeat, "every");
        let pattern = text(&self.repeat, "pattern");
        let due = match &pattern {
            _ if !every.is_empty() => None,
            None => return Err(Unknown::Nothing),
            Some(pattern) => {
                let before = number(&self.members, "prevMillis").unwrap_or(0);
                let start = number(&self.repeat, "startDate").unwrap_or(0);
                let seed = text(&self.repeat, "hashSeed");
                // The names that Node has for the zone of the machine.
                let tz = text(&self.repeat, "tz")
                    .filter(|tz| !["local", "system", "default"].contains(&tz.as_str()));
                let base = now.max(before).max(start).max(passed);
                let due = after(pattern, tz.as_deref(), seed.as_deref(), base)?;
                match due.filter(|due| end.is_none_or(|end| *due <= end)) {
                    Some(due) => Some(due.max(now)),
                    None => return Ok(None),
                }
            }
        };
        for gone in ["jobId", "delay", "prevMillis"] {
            self.members.remove(gone);
        }
        self.repeat.insert("count".to_owned(), raw(&count.into()));
        let attempts = self.members.get("attempts");
        if attempts.is_none_or(|attempts| attempts.get() == "null") {
            self.members.insert("attempts".to_owned(), raw(&0.into()));
        }
        if let Some(delay @ Value::Number(_)) = value(&self.members, "backoff") {
            let backoff = serde_json::json!({"type": "fixed", "delay": delay});
            self.members.insert("backoff".to_owned(), raw(&backoff));
        }
        let deduplication = value(&self.members, "de");
        let deduplication_id = deduplication.as_ref().and_then(|rule| rule["id"].as_str());
        Ok(Some(Next {
            due,
            every,
            offset: plain(&self.repeat, "offset"),
            priority: number(&self.members, "priority").unwrap_or(0).max(0),
            lifo: value(&self.members, "lifo") == Some(Value::Bool(true)),
            deduplication_id: deduplication_id.unwrap_or_default().to_owned(),
            opts: self.compose(scheduler, now),
        }))
    }

    /// The options of a job of `scheduler`, made at `now`.
    fn compose(mut self, scheduler: &str, now: i64) -> Vec<u8> {
        let repeat = serde_json::value::to_raw_value(&self.repeat).unwrap_or_default();
        self.members.insert("repeat".to_owned(), repeat);
        self.members
            .insert("timestamp".to_owned(), raw(&now.into()));
        let key = raw(&Value::String(scheduler.to_owned()));
        self.members.insert("repeatJobKey".to_owned(), key);
        serde_json::to_vec(&self.members).unwrap_or_default()
    }
}

/// The options of the first job of `scheduler`: a template (JSON object, or empty) and what it says of time.
#[must_use]
pub fn first_options(scheduler: &str, template: &[u8], repeat: &Value, now: i64) -> Vec<u8> {
    let repeat = parse(repeat.to_string().as_bytes()).unwrap_or_default();
    let members = parse(template).unwrap_or_default();
    JobOptions { members, repeat }.compose(scheduler, now)
}

/// The first time of a pattern after `base`, in milliseconds. Without a zone it is meant in that of this machine, as other
/// clients of this wire mean it.
///
/// # Errors
///
/// Where the pattern or the zone can't be understood.
pub fn after(
    pattern: &str,
    tz: Option<&str>,
    hash_seed: Option<&str>,
    base: i64,
) -> Result<Option<i64>, Unknown> {
    let local;
    let zone = if let Some(tz) = tz {
        tz
    } else {
        local = local_zone();
        &local
    };
    let cron = Cron::parse(pattern, zone, hash_seed);
    cron.map(|cron| cron.next_after(base))
        .map_err(|error| match error {
            CronError::Zone { .. } => Unknown::Zone(error.to_string()),
            _ => Unknown::Pattern(error.to_string()),
        })
}

/// The name of the zone that this machine's clock shows, `UTC` where nobody says.
fn local_zone() -> String {
    let of_path = |path: &str| {
        path.split_once("zoneinfo/")
            .map(|(_, name)| name.to_owned())
    };
    let of_variable = std::env::var("TZ").ok().and_then(|tz| {
        let tz = tz.trim_start_matches(':').to_owned();
        of_path(&tz).or_else(|| (!tz.is_empty()).then_some(tz))
    });
    let of_machine = || {
        let path = std::fs::read_link("/etc/localtime").ok()?;
        of_path(path.to_str()?)
    };
    of_variable
        .or_else(of_machine)
        .filter(|zone| Cron::parse("* * * * *", zone, None).is_ok())
        .unwrap_or_else(|| "UTC".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn next(opts: &str) -> Result<Option<Next>, Unknown> {
        JobOptions::of_job(opts.as_bytes())
            .unwrap()
            .next("s", NOW, 0)
    }

    #[test]
    fn what_a_user_gave_goes_from_job_to_job_as_it_was_written() {
        let opts = r#"{"custom":{"list":[],"n":12345678901234567.10,"odd":"\ud800"},"priority":3,"lifo":true,
            "repeat":{"every":200,"count":1,"limit":3,"more":[]},"jobId":"repeat:s:1","delay":7,"timestamp":5,
            "prevMillis":9,"repeatJobKey":"s","backoff":50,"de":{"id":"d"}}"#;
        let next = next(opts).unwrap().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&next.opts),
            concat!(
                r#"{"attempts":0,"backoff":{"delay":50,"type":"fixed"},"#,
                r#""custom":{"list":[],"n":12345678901234567.10,"odd":"\ud800"},"de":{"id":"d"},"lifo":true,"#,
                r#""priority":3,"repeat":{"count":2,"every":200,"limit":3,"more":[]},"repeatJobKey":"s","#,
                r#""timestamp":1700000000000}"#
            )
        );
        assert_eq!((next.every.as_str(), next.offset.as_str()), ("200", ""));
        assert_eq!((next.priority, next.lifo), (3, true));
        assert_eq!(next.deduplication_id, "d");
    }

    #[test]
    fn a_series_ends_with_its_limit_and_its_date() {
        let cases = [
            (r#"{"every":5,"count":2,"limit":3}"#.to_owned(), true),
            (r#"{"every":5,"count":3,"limit":3}"#.to_owned(), false),
            (format!(r#"{{"every":5,"count":1,"endDate":{NOW}}}"#), true),
            (
                format!(r#"{{"every":5,"count":1,"endDate":{}}}"#, NOW - 1),
                false,
            ),
        ];
        for (repeat, goes_on) in cases {
            let found = next(&format!(r#"{{"repeat":{repeat}}}"#)).unwrap();
            assert_eq!(found.is_some(), goes_on, "{repeat}");
        }
    }

    #[test]
    fn options_that_say_nothing_are_not_taken_for_an_end() {
        assert!(JobOptions::of_job(b"{}").is_none());
        assert!(JobOptions::of_job(b"{").is_none());
        assert!(JobOptions::of_job(br#"{"repeat":null}"#).is_none());
        assert_eq!(next(r#"{"repeat":{"count":1}}"#), Err(Unknown::Nothing));
    }

    #[test]
    fn a_record_says_as_much_as_a_job() {
        let fields = |fields: &[(&str, &str)]| -> Vec<(String, Vec<u8>)> {
            let owned =
                |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
            fields.iter().map(owned).collect()
        };
        let record = fields(&[
            ("name", "n"),
            ("ic", "4"),
            ("every", "500"),
            ("offset", "7"),
            ("limit", "5"),
            ("opts", r#"{"backoff":100}"#),
        ]);
        let next = JobOptions::of_record(&record)
            .next("s", NOW, 0)
            .unwrap()
            .unwrap();
        assert_eq!((next.every.as_str(), next.offset.as_str()), ("500", "7"));
        assert_eq!(
            String::from_utf8_lossy(&next.opts),
            concat!(
                r#"{"attempts":0,"backoff":{"delay":100,"type":"fixed"},"#,
                r#""repeat":{"count":5,"every":500,"limit":5,"offset":7},"repeatJobKey":"s","timestamp":1700000000000}"#
            )
        );
        let ended = fields(&[("ic", "5"), ("every", "500"), ("limit", "5")]);
        assert_eq!(JobOptions::of_record(&ended).next("s", NOW, 0), Ok(None));
    }
}
