//! Reading: jobs, states, counts, logs.

use super::Queue;
use crate::{
    error::Result,
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
}
