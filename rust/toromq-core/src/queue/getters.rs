//! Reading: jobs, states, counts, logs.

use redis::Value;

use super::Queue;
use crate::{
    error::{Error, Result},
    job::JobRecord,
    link::{Call, integer, items, text},
    scripts,
};

impl Queue {
    /// A job by its id.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub async fn get_job(&self, id: &str) -> Result<Option<JobRecord>> {
        let stored = self
            .send("get_job", redis::cmd("HGETALL").arg(self.keys.job(id)))
            .await?;
        let record = JobRecord::new(id.to_owned(), String::new(), stored);
        Ok(if record.fields.is_empty() {
            None
        } else {
            Some(record)
        })
    }

    /// Jobs by state.
    ///
    /// # Errors
    ///
    /// As [`Link::call`].
    pub async fn get_jobs(
        &self,
        states: &[String],
        start: i64,
        last: i64,
        asc: bool,
    ) -> Result<Vec<JobRecord>> {
        let mut call = Call::new(&scripts::GET_JOBS, &self.keys);
        call.arg(self.keys.base())
            .number(start)
            .number(last)
            .arg(if asc { "1" } else { "" });
        for state in states {
            call.arg(state);
        }
        let found = items(self.call(&call).await?);
        Ok(found
            .into_iter()
            .filter_map(|pair| {
                let mut pair = items(pair).into_iter();
                let id = text(&pair.next()?);
                Some(JobRecord::new(id, String::new(), pair.next()?))
            })
            .collect())
    }

    /// Counts by state, in the order asked.
    ///
    /// # Errors
    ///
    /// As [`Link::call`].
    pub async fn get_counts(&self, states: &[String]) -> Result<Vec<i64>> {
        let mut call = Call::new(&scripts::GET_COUNTS, &self.keys);
        for state in states {
            call.arg(state);
        }
        Ok(items(self.call(&call).await?).iter().map(integer).collect())
    }

    /// The state a job is in.
    ///
    /// # Errors
    ///
    /// As [`Link::call`].
    pub async fn get_state(&self, id: &str) -> Result<String> {
        let mut call = Call::new(&scripts::GET_STATE, &self.keys);
        call.arg(id);
        Ok(text(&self.call(&call).await?))
    }

    /// Lines of a job's log, and how many there are.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub async fn get_logs(
        &self,
        id: &str,
        start: i64,
        last: i64,
        asc: bool,
    ) -> Result<(Vec<String>, i64)> {
        let key = format!("{}:logs", self.keys.job(id));
        let (from, to) = if asc {
            (start, last)
        } else {
            (-(last + 1), -(start + 1))
        };
        let lines = self
            .send("get_logs", redis::cmd("LRANGE").arg(&key).arg(from).arg(to))
            .await?;
        let count = self.send("get_logs", redis::cmd("LLEN").arg(&key)).await?;
        let mut lines: Vec<String> = items(lines).iter().map(text).collect();
        if !asc {
            lines.reverse();
        }
        Ok((lines, integer(&count)))
    }

    /// Ids of jobs by state.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn get_ranges(
        &self,
        states: &[String],
        start: i64,
        last: i64,
        asc: bool,
    ) -> Result<Vec<String>> {
        let mut call = Call::new(&scripts::GET_RANGES, &self.keys);
        call.number(start)
            .number(last)
            .arg(if asc { "1" } else { "" });
        for state in states {
            call.arg(state);
        }
        Ok(items(self.call(&call).await?).iter().map(text).collect())
    }

    /// Several jobs by their ids, in that order; those that don't exist are left out.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn get_jobs_by_id(&self, ids: &[String]) -> Result<Vec<JobRecord>> {
        let mut call = Call::on(&scripts::GET_JOBS_BY_ID, vec![self.keys.of("meta")]);
        call.arg(self.keys.base());
        for id in ids {
            call.arg(id);
        }
        let found = items(self.call(&call).await?);
        let records = ids
            .iter()
            .zip(found)
            .map(|(id, stored)| JobRecord::new(id.clone(), String::new(), stored));
        Ok(records.filter(|record| !record.fields.is_empty()).collect())
    }

    /// How many waiting jobs there are of each priority asked for.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn get_counts_per_priority(&self, priorities: &[i64]) -> Result<Vec<i64>> {
        let mut call = Call::new(&scripts::GET_COUNTS_PER_PRIORITY, &self.keys);
        for priority in priorities {
            call.number(priority);
        }
        Ok(items(self.call(&call).await?).iter().map(integer).collect())
    }

    /// How many delayed jobs are due before a moment.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::send`].
    pub async fn get_delayed_count(&self, due: i64) -> Result<i64> {
        let mut cmd = redis::cmd("ZCOUNT");
        // A millisecond has 4096 slots.
        cmd.arg(self.keys.of("delayed"))
            .arg("-inf")
            .arg(format!("({}", i128::from(due) * 4096));
        Ok(integer(&self.send("get_delayed_count", &cmd).await?))
    }

    /// The queue's settings as they are stored.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::send`].
    pub async fn get_meta(&self) -> Result<Vec<(String, String)>> {
        let cmd = redis::cmd("HGETALL").arg(self.keys.of("meta")).clone();
        let stored = items(self.send("get_meta", &cmd).await?);
        Ok(pairs(&stored))
    }

    /// What a parent's children left behind: key of the child, and its result (JSON) or reason (text).
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::send`].
    pub async fn get_children(&self, id: &str, outcome: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let key = format!("{}:{outcome}", self.keys.job(id));
        let stored = items(
            self.send("get_children", &redis::cmd("HGETALL").arg(key).clone())
                .await?,
        );
        Ok(JobRecord::new(String::new(), String::new(), Value::Array(stored)).fields)
    }

    /// How many children of a job there are: processed, unprocessed, ignored, failed.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn get_dependencies_count(&self, id: &str) -> Result<Vec<i64>> {
        let call = Call::on(&scripts::GET_DEPENDENCIES_COUNT, self.keys_of_children(id));
        Ok(items(self.call(&call).await?).iter().map(integer).collect())
    }

    /// One page of a job's children of one outcome, from a cursor on: the next cursor (0 at the end), and keys of
    /// children, each followed by its result or reason where there is one.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::send`].
    pub async fn scan_dependencies(
        &self,
        id: &str,
        outcome: &str,
        cursor: u64,
        count: u64,
    ) -> Result<(u64, Vec<Vec<u8>>)> {
        let (command, structure) = match outcome {
            "processed" => ("HSCAN", "processed"),
            "ignored" => ("HSCAN", "failed"),
            "failed" => ("ZSCAN", "unsuccessful"),
            _ => ("SSCAN", "dependencies"),
        };
        let mut cmd = redis::cmd(command);
        cmd.arg(format!("{}:{structure}", self.keys.job(id)))
            .arg(cursor)
            .arg("COUNT")
            .arg(count);
        let mut reply = items(self.send("get_dependencies", &cmd).await?).into_iter();
        let next = reply
            .next()
            .map_or(0, |next| text(&next).parse().unwrap_or(0));
        let found = reply.next().map(items).unwrap_or_default();
        let mut found: Vec<Vec<u8>> = found
            .into_iter()
            .map(|value| match value {
                Value::BulkString(bytes) => bytes,
                other => text(&other).into_bytes(),
            })
            .collect();
        if command == "ZSCAN" {
            // The times at which they failed are nobody's question.
            found = found.into_iter().step_by(2).collect();
        }
        Ok((next, found))
    }

    fn keys_of_children(&self, id: &str) -> Vec<String> {
        let job = self.keys.job(id);
        ["processed", "dependencies", "failed", "unsuccessful"]
            .iter()
            .map(|structure| format!("{job}:{structure}"))
            .collect()
    }

    /// The workers of the queue that are connected, of every client that names its connection as all do: each worker's own
    /// name and what the server tells of its connection.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::send`]; some managed servers refuse to list clients.
    pub async fn get_workers(&self) -> Result<Vec<(String, Vec<(String, String)>)>> {
        let listed = self
            .send("CLIENT LIST", redis::cmd("CLIENT").arg("LIST"))
            .await;
        let listed = match listed {
            Err(Error::Server {
                operation,
                message,
                transient: false,
            }) => {
                return Err(Error::Server {
                    operation,
                    message: format!(
                        "{message}; workers are found by it, so this server can't tell who they are"
                    ),
                    transient: false,
                });
            }
            other => text(&other?),
        };
        let workers = listed.lines().filter_map(|line| {
            let fields = line.split(' ').filter_map(|field| field.split_once('='));
            let fields: Vec<(String, String)> = fields
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let (_, client) = fields.iter().find(|(field, _)| field == "name")?;
            Some((self.keys.worker_of_client(client)?, fields))
        });
        Ok(workers.collect())
    }
}

fn pairs(flat: &[Value]) -> Vec<(String, String)> {
    let (pairs, _) = flat.as_chunks::<2>();
    pairs
        .iter()
        .map(|[name, value]| (text(name), text(value)))
        .collect()
}
