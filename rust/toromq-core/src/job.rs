//! A job as it is stored.

use redis::Value;

use crate::{json, link::items};

/// A job's hash, decoded leniently: a foreign or half-written hash gives defaults, never an error.
#[derive(Debug, Clone, Default)]
pub struct JobRecord {
    /// The job's id.
    pub id: String,
    /// The token under which it is locked for this worker, else empty.
    pub token: String,
    /// All stored fields, as text that may be no UTF-8.
    pub fields: Vec<(String, Vec<u8>)>,
    /// How often it was begun, this time included.
    pub attempts_started: i64,
    /// How often it ended.
    pub attempts_made: i64,
    /// How many fields its hash has, where it is known to have nothing that its first end must heed.
    pub plain_fields: Option<u8>,
    /// Whether it is known already that nothing keeps it from being run.
    pub is_sound: bool,
}

/// An id that no other job has, for one that is made known before it is added.
#[must_use]
pub fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl JobRecord {
    /// From an id and the flat list of fields and values that HGETALL gives.
    #[must_use]
    pub fn new(id: String, token: String, stored: Value) -> Self {
        let mut fields = Vec::new();
        let mut values = items(stored).into_iter();
        while let (Some(Value::BulkString(field)), Some(Value::BulkString(value))) =
            (values.next(), values.next())
        {
            fields.push((String::from_utf8_lossy(&field).into_owned(), value));
        }
        let mut record = Self {
            id,
            token,
            fields,
            attempts_started: 0,
            attempts_made: 0,
            plain_fields: None,
            is_sound: false,
        };
        record.attempts_started = record.number("ats");
        // Written by old clients only, and preferred where it stands.
        record.attempts_made = if record.field("attemptsMade").is_some() {
            record.number("attemptsMade")
        } else {
            record.number("atm")
        };
        record
    }

    /// A job that a fetch has begun: from its hash as it was before, and the fields that beginning it wrote.
    pub(crate) fn begun(
        id: String,
        token: String,
        started: i64,
        stored: Value,
        written: &[&str],
    ) -> Self {
        let mut record = Self::new(id, token, stored);
        record.attempts_started = started;
        let heeded = ["parentKey", "deid", "defa", "atm", "attemptsMade"];
        let is_plain = |(field, _): &(String, _)| !heeded.contains(&field.as_str());
        if !record.fields.is_empty() && record.fields.iter().all(is_plain) {
            let new = written.iter().filter(|name| record.field(name).is_none());
            record.plain_fields = u8::try_from(record.fields.len() + new.count()).ok();
        }
        // Now, for whoever asks holds locks that those who end jobs wait for; and much data takes long to look at.
        record.is_sound = record.refusal().is_none();
        record
    }

    /// A stored field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_slice())
    }

    /// A stored field as text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.field(name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// A stored field as a whole number, 0 where it is missing or none.
    #[must_use]
    pub fn number(&self, name: &str) -> i64 {
        // Numbers that passed through Lua may carry a fraction, which is cut off.
        #[allow(clippy::cast_possible_truncation)]
        self.text(name)
            .and_then(|text| text.trim().parse::<f64>().ok())
            .map_or(0, |number| number as i64)
    }

    /// Why it must not be run, if so: what was decided while it waited, or what is wrong with what is stored.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        if self.is_sound {
            return None;
        }
        if self.field("name").is_none() {
            return Some(format!(
                "job {} was queued but its hash was missing or had no name (removed by another client, or evicted); \
                 there is nothing to run",
                self.id
            ));
        }
        if let Some(reason) = self.text("defa") {
            return Some(reason);
        }
        ["data", "opts"].into_iter().find_map(|name| {
            let stored = self.field(name)?;
            let broken = match std::str::from_utf8(stored) {
                Ok(text) if json::is_surely_json(text) => None,
                // Its content is none of our business, and a lone surrogate of Node is one for the reader of it.
                Ok(text) => serde_json::from_str::<serde::de::IgnoredAny>(text)
                    .err()
                    .map(|error| error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            broken.map(|error| {
                format!(
                    "the stored {name} of job {} is no JSON ({error}); it was not run",
                    self.id
                )
            })
        })
    }

    /// The job's options; empty where they are missing or broken.
    #[must_use]
    pub fn options(&self) -> serde_json::Map<String, serde_json::Value> {
        self.field("opts")
            .and_then(|opts| serde_json::from_slice(opts).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(fields: &[(&str, &str)]) -> JobRecord {
        let values = fields.iter().flat_map(|(field, value)| [field, value]);
        let values = values.map(|text| Value::BulkString(text.as_bytes().to_vec()));
        let stored = Value::Array(values.collect());
        JobRecord::begun("7".to_owned(), "token".to_owned(), 1, stored, &[])
    }

    #[test]
    fn what_was_found_sound_when_it_began_is_not_refused() {
        let job = begun(&[
            ("name", "n"),
            ("data", r#"{"a":["\ud800"]}"#),
            ("opts", "{}"),
        ]);
        assert!(job.is_sound);
        assert_eq!(job.refusal(), None);
    }

    #[test]
    fn what_must_not_be_run_is_refused_with_the_reason() {
        let deep = "[".repeat(1000);
        let no_json = "the stored data of job 7 is no JSON (";
        for (fields, reason) in [
            (vec![], "job 7 was queued but its hash was missing"),
            (vec![("data", "{}")], "job 7 was queued but"),
            (
                vec![("name", "n"), ("defa", "a child failed")],
                "a child failed",
            ),
            (vec![("name", "n"), ("data", "{")], no_json),
            (vec![("name", "n"), ("data", "NaN")], no_json),
            (vec![("name", "n"), ("data", &deep)], no_json),
            (
                vec![("name", "n"), ("data", "1"), ("opts", "x")],
                "the stored opts of job 7 is no JSON (",
            ),
        ] {
            let job = begun(&fields);
            assert!(!job.is_sound);
            let refusal = job.refusal().unwrap_or_default();
            assert!(refusal.starts_with(reason), "{refusal}");
        }
    }

    #[test]
    fn deep_data_is_no_reason() {
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        assert!(begun(&[("name", "n"), ("data", &deep)]).is_sound);
    }
}
