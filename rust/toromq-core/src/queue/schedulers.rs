//! Job schedulers: setting them up, reading and removing them. What keeps them going is the worker's business.

use redis::Value;
use serde_json::{Map, json};
use tokio::time::Instant;

use super::{FIRST_PAUSE, LONGEST_PAUSE, Queue};
use crate::{
    clock::wall_ms,
    error::{Error, Outcome, Result},
    job::JobRecord,
    link::{Call, integer, items, text},
    repeat::{self, Unknown},
    scripts::{self, Code},
};

/// How many times of a pattern that are taken are passed over, as many as slots of an interval.
const TRIES: usize = 32;

/// When a job scheduler makes its jobs.
#[derive(Debug, Clone)]
pub enum When {
    /// Each so many milliseconds.
    Every {
        /// The interval.
        interval: i64,
        /// Its phase, where one was given.
        offset: Option<i64>,
    },
    /// By a cron pattern.
    Pattern {
        /// The pattern.
        pattern: String,
        /// The zone it is meant in.
        tz: String,
        /// What makes the choice of an `H` in the pattern the same each time.
        hash_seed: Option<String>,
        /// Whether the first job is due at once.
        immediately: bool,
    },
}

/// A job scheduler to set up. Everything but the pattern was checked by the caller.
#[derive(Debug, Clone)]
pub struct NewScheduler {
    /// Its id.
    pub id: String,
    /// When it makes jobs.
    pub when: When,
    /// Not before, in milliseconds since the epoch.
    pub start_date: Option<i64>,
    /// Not after.
    pub end_date: Option<i64>,
    /// How many jobs.
    pub limit: Option<i64>,
    /// Name of the jobs.
    pub name: String,
    /// Their data (JSON text).
    pub data: Vec<u8>,
    /// Their options (JSON object, by their stored names).
    pub opts: Vec<u8>,
    /// Their priority.
    pub priority: i64,
    /// Whether they run before the standard jobs that wait.
    pub lifo: bool,
}

/// A scheduler's id, when its newest job is due, and its record.
pub type Scheduler = (String, i64, Vec<(String, Vec<u8>)>);

impl NewScheduler {
    fn is_immediate(&self) -> bool {
        matches!(
            &self.when,
            When::Pattern {
                immediately: true,
                ..
            }
        )
    }

    /// What is stored of it for all clients, but for what only the script knows.
    fn fields(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut fields = vec![("name", self.name.clone().into_bytes())];
        match &self.when {
            When::Every { interval, .. } => {
                fields.push(("every", interval.to_string().into_bytes()))
            }
            When::Pattern { pattern, tz, .. } => {
                fields.push(("pattern", pattern.clone().into_bytes()));
                fields.push(("tz", tz.clone().into_bytes()));
            }
        }
        let numbers = [
            ("limit", self.limit),
            ("startDate", self.start_date),
            ("endDate", self.end_date),
        ];
        for (name, number) in numbers {
            fields.extend(number.map(|number| (name, number.to_string().into_bytes())));
        }
        for (name, json) in [("data", &self.data), ("opts", &self.opts)] {
            if json != b"{}" {
                fields.push((name, json.clone()));
            }
        }
        fields
    }

    /// The same for the options of its first job.
    fn repeat(&self) -> Map<String, serde_json::Value> {
        let mut repeat = Map::new();
        repeat.insert("count".to_owned(), json!(1));
        match &self.when {
            When::Every { interval, offset } => {
                repeat.insert("every".to_owned(), json!(interval));
                repeat.extend(offset.map(|offset| ("offset".to_owned(), json!(offset))));
            }
            When::Pattern {
                pattern,
                tz,
                hash_seed,
                ..
            } => {
                repeat.insert("pattern".to_owned(), json!(pattern));
                repeat.insert("tz".to_owned(), json!(tz));
                repeat.extend(
                    hash_seed
                        .as_ref()
                        .map(|seed| ("hashSeed".to_owned(), json!(seed))),
                );
            }
        }
        let numbers = [
            ("limit", self.limit),
            ("startDate", self.start_date),
            ("endDate", self.end_date),
        ];
        for (name, number) in numbers {
            repeat.extend(number.map(|number| (name.to_owned(), json!(number))));
        }
        repeat
    }

    /// The job that was made, from what the script said of it.
    fn job(&self, reply: Value, now: i64) -> JobRecord {
        let mut reply = items(reply).into_iter();
        let mut part = || reply.next().map_or_else(String::new, |part| text(&part));
        let id = part();
        let fields = [
            ("name", self.name.clone().into_bytes()),
            ("data", self.data.clone()),
            ("timestamp", now.to_string().into_bytes()),
            ("delay", part().into_bytes()),
            ("opts", part().into_bytes()),
            ("priority", self.priority.to_string().into_bytes()),
            ("rjk", self.id.clone().into_bytes()),
        ];
        JobRecord {
            id,
            fields: fields.map(|(name, value)| (name.to_owned(), value)).into(),
            ..JobRecord::default()
        }
    }

    /// The first time after `base`, where a pattern says it; `None` where there is none before its end.
    fn due(&self, first: i64, base: i64) -> Result<Option<Option<i64>>> {
        let When::Pattern {
            pattern,
            tz,
            hash_seed,
            immediately,
        } = &self.when
        else {
            return Ok(Some(None));
        };
        let base = base.max(self.start_date.unwrap_or(0));
        let found =
            repeat::after(pattern, Some(tz), hash_seed.as_deref(), base).map_err(|unknown| {
                Error::Config(match unknown {
                    Unknown::Pattern(why) => format!("pattern: {why}"),
                    Unknown::Zone(why) => format!("tz: {why}"),
                    Unknown::Nothing => format!("pattern: got {pattern:?}, which never comes"),
                })
            })?;
        let due = if *immediately { Some(first) } else { found };
        let due = due.filter(|due| self.end_date.is_none_or(|end| *due <= end));
        Ok(due.map(Some))
    }
}

impl Queue {
    /// Makes or replaces a job scheduler, and its next job, which it gives; nothing where it would never make one.
    ///
    /// Sent again after a lost reply it replaces what the first try made.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when its pattern can't be understood, and nothing was sent; [`Error::Scheduler`] when no time is
    /// free for its next job; [`Error::Connection`] when Redis stays away for the command timeout.
    pub async fn upsert_job_scheduler(&self, wanted: &NewScheduler) -> Result<Option<JobRecord>> {
        if wanted.limit.is_some_and(|limit| limit < 1) {
            return Ok(None);
        }
        let first = wall_ms();
        let deadline = Instant::now() + self.timeout;
        let mut pause = FIRST_PAUSE;
        let mut again = false;
        let mut passed = None;
        let mut tries = 0;
        loop {
            let now = wall_ms();
            let Some(due) = wanted.due(first, passed.unwrap_or(now).max(now))? else {
                return Ok(None);
            };
            let call = self.upsert_call(wanted, now, due, again);
            let error = match self.link.call(&call).await {
                Ok(Value::Int(code)) => {
                    let Some(code) = Code::from_value(code) else {
                        return Err(Error::Broken(format!("the script answered {code}")));
                    };
                    tries += 1;
                    if code == Code::SchedulerCollision && !wanted.is_immediate() && tries < TRIES {
                        passed = due;
                        continue;
                    }
                    return Err(Error::Scheduler {
                        operation: "upsert",
                        scheduler: wanted.id.clone(),
                        code,
                    });
                }
                Ok(reply) => {
                    return Ok(Some(wanted.job(reply, now)));
                }
                Err(error) => error,
            };
            again |= matches!(
                &error,
                Error::Connection {
                    outcome: Outcome::Unknown,
                    ..
                }
            );
            if !error.may_pass() || Instant::now() + pause > deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn upsert_call(&self, wanted: &NewScheduler, now: i64, due: Option<i64>, again: bool) -> Call {
        let repeat = wanted.repeat().into();
        let opts = repeat::first_options(&wanted.id, &wanted.opts, &repeat, now);
        let offset = match &wanted.when {
            When::Every { offset, .. } => *offset,
            When::Pattern { .. } => None,
        };
        let number =
            |number: Option<i64>| number.map_or_else(String::new, |number| number.to_string());
        let flag = |flag| if flag { "1" } else { "" };
        let (version, max_events) = &self.settings;
        let mut call = Call::new(&scripts::UPSERT_JOB_SCHEDULER, &self.keys);
        call.arg(self.keys.base())
            .number(now)
            .arg(max_events)
            .arg(version)
            .arg(&wanted.id)
            .arg(opts)
            .arg(&wanted.data)
            .arg(number(due))
            .arg(number(offset))
            .number(wanted.priority)
            .arg(flag(wanted.lifo))
            .arg(flag(wanted.is_immediate()))
            .arg(flag(again))
            .arg(match &wanted.when {
                When::Pattern { hash_seed, .. } => hash_seed.as_deref().unwrap_or_default(),
                When::Every { .. } => "",
            });
        for (name, value) in wanted.fields() {
            call.arg(name).arg(value);
        }
        call
    }

    /// The scheduler with this id.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`], like all methods here that follow.
    pub async fn get_job_scheduler(&self, id: &str) -> Result<Option<Scheduler>> {
        Ok(self
            .list_schedulers(id, 0, -1, true)
            .await?
            .into_iter()
            .next())
    }

    /// Those from place `start` to place `last` (-1 for the end), by the time of their newest job, the last one first
    /// unless `asc`.
    ///
    /// # Errors
    ///
    /// As [`Queue::get_job_scheduler`].
    pub async fn get_job_schedulers(
        &self,
        start: i64,
        last: i64,
        asc: bool,
    ) -> Result<Vec<Scheduler>> {
        self.list_schedulers("", start, last, asc).await
    }

    async fn list_schedulers(
        &self,
        id: &str,
        start: i64,
        last: i64,
        asc: bool,
    ) -> Result<Vec<Scheduler>> {
        let mut call = Call::new(&scripts::GET_JOB_SCHEDULERS, &self.keys);
        call.arg(self.keys.base())
            .arg(id)
            .number(start)
            .number(last)
            .arg(if asc { "1" } else { "" });
        let found = items(self.call(&call).await?).into_iter();
        Ok(found
            .filter_map(|scheduler| {
                let mut parts = items(scheduler).into_iter();
                let (id, due, record) = (parts.next()?, parts.next()?, parts.next()?);
                let record = JobRecord::new(text(&id), String::new(), record);
                Some((record.id, integer(&due), record.fields))
            })
            .collect())
    }

    /// How many there are.
    ///
    /// # Errors
    ///
    /// As [`Queue::get_job_scheduler`].
    pub async fn get_job_schedulers_count(&self) -> Result<i64> {
        let mut cmd = redis::cmd("ZCARD");
        cmd.arg(self.keys.of("repeat"));
        Ok(integer(&self.send("get_job_schedulers_count", &cmd).await?))
    }

    /// Deletes a scheduler and its next job, if that is delayed; whether there was one.
    ///
    /// # Errors
    ///
    /// As [`Queue::get_job_scheduler`].
    pub async fn remove_job_scheduler(&self, id: &str) -> Result<bool> {
        let mut call = Call::new(&scripts::REMOVE_JOB_SCHEDULER, &self.keys);
        call.arg(self.keys.base()).arg(id);
        Ok(integer(&self.call(&call).await?) == 1)
    }
}
