//! What is done to a whole queue.

use std::collections::HashSet;

use super::{Queue, repeat};
use crate::{
    clock::wall_ms,
    error::{Error, Outcome, Result},
    link::{Call, integer, items, text},
    scripts::{self, Code},
};

/// Jobs looked at in one call, so that it holds Redis for a few milliseconds at most.
const SLICE: usize = 500;
/// The most arguments of one call, below what Lua can take apart.
const ARGUMENTS: usize = 5000;
/// Where jobs are, in the order in which they are obliterated.
const STRUCTURES: [&str; 8] = [
    "active",
    "delayed",
    "completed",
    "wait",
    "paused",
    "prioritized",
    "failed",
    "waiting-children",
];

/// Which jobs a cleaning deletes.
#[derive(Debug, Clone, Copy)]
struct Cleaning {
    /// Spare those younger than this moment.
    cutoff: Option<i64>,
    /// What happens to jobs that workers run, and their locks.
    locked: &'static str,
    /// Whether the next iterations of job schedulers go as well.
    scheduled: bool,
    /// How many went before, where the stream of events is told how many go.
    announced: Option<usize>,
    /// How many go at most.
    limit: Option<usize>,
}

/// The fields that tell how old a job of this structure is, the best first; none where its score does.
fn stamps(structure: &str) -> &'static str {
    match structure {
        "wait" | "paused" | "active" => "finishedOn,processedOn,timestamp",
        "delayed" => "processedOn,timestamp",
        "prioritized" => "timestamp",
        _ => "",
    }
}

impl Queue {
    /// Lets no more jobs start.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn pause(&self) -> Result<()> {
        self.call(&Call::new(&scripts::PAUSE, &self.keys))
            .await
            .map(|_| ())
    }

    /// Lets jobs start again, those included that an old client put aside.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn resume(&self) -> Result<()> {
        let mut again = "";
        loop {
            let mut call = Call::new(&scripts::RESUME, &self.keys);
            call.number(ARGUMENTS).arg(again);
            if integer(&self.call(&call).await?) == 0 {
                return Ok(());
            }
            again = "1";
        }
    }

    /// Deletes all jobs that wait, and with `delayed` those that are delayed. The next iterations of job schedulers stay.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn drain(&self, delayed: bool) -> Result<()> {
        let cleaning = Cleaning {
            cutoff: None,
            locked: "ignore",
            scheduled: false,
            announced: None,
            limit: None,
        };
        for structure in ["wait", "paused", "prioritized", "delayed"] {
            if structure != "delayed" || delayed {
                self.clear(structure, cleaning, SLICE).await?;
            }
        }
        Ok(())
    }

    /// Deletes at most `limit` jobs of a state that are older than `grace` milliseconds; gives their ids.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn clean(
        &self,
        state: &str,
        grace: i64,
        limit: Option<usize>,
    ) -> Result<Vec<String>> {
        let mut cleaning = Cleaning {
            cutoff: Some(wall_ms() - grace),
            locked: if state == "active" { "spare" } else { "ignore" },
            scheduled: false,
            announced: None,
            limit,
        };
        let mut deleted = Vec::new();
        if state == "waiting" {
            deleted = self.clear("wait", cleaning, SLICE).await?;
            cleaning.limit = limit.map(|limit| limit - deleted.len());
        }
        cleaning.announced = Some(deleted.len());
        let structure = if state == "waiting" { "paused" } else { state };
        deleted.extend(self.clear(structure, cleaning, SLICE).await?);
        Ok(deleted)
    }

    async fn clear(
        &self,
        structure: &str,
        cleaning: Cleaning,
        slice: usize,
    ) -> Result<Vec<String>> {
        let limit = cleaning.limit.unwrap_or(usize::MAX);
        // What was done by a call whose answer was lost doesn't count, so a limit would not hold.
        let worst = match cleaning.limit {
            Some(_) => Outcome::NotDone,
            None => Outcome::Unknown,
        };
        let mut deleted: Vec<String> = Vec::new();
        let mut passed = 0;
        loop {
            let keys = vec![self.keys.of(structure), self.keys.of("events")];
            let mut call = Call::on(&scripts::CLEAN_JOBS, keys);
            call.arg(self.keys.base())
                .number(slice)
                .number(limit - deleted.len())
                .number(passed);
            match cleaning.cutoff {
                Some(cutoff) => call.number(cutoff),
                None => call.arg(""),
            };
            call.arg(stamps(structure))
                .arg(cleaning.locked)
                .arg(if cleaning.scheduled { "1" } else { "" });
            match cleaning.announced {
                Some(before) => call.number(before + deleted.len()),
                None => call.arg(""),
            };
            let reply = repeat(self.timeout, worst, || self.link.call(&call)).await?;
            let [more, passed_over, ids] = &items(reply)[..] else {
                return Err(Error::Broken("cleaning got a reply of another form".into()));
            };
            passed = integer(passed_over);
            deleted.extend(items(ids.clone()).iter().map(text));
            if integer(more) == 0 {
                return Ok(deleted);
            }
        }
    }

    /// Deletes the queue: its jobs in every state, its job schedulers, settings and whatever else it has. It is paused
    /// first, and no longer once it is gone. A call deletes `slice` jobs.
    ///
    /// # Errors
    ///
    /// [`Error::Script`] when jobs are active and it is not forced; then it stays paused.
    pub async fn obliterate(&self, force: bool, slice: usize) -> Result<()> {
        let ask = |check: bool, more: &[String]| {
            let mut call = Call::new(&scripts::OBLITERATE, &self.keys);
            call.arg(self.keys.base())
                .arg(if check { "1" } else { "" })
                .arg(if force { "1" } else { "" });
            for key in more {
                call.arg(key);
            }
            call
        };
        loop {
            self.pause().await?;
            self.checked("obliterate", "", &ask(true, &[])).await?;
            let cleaning = Cleaning {
                cutoff: None,
                locked: "delete",
                scheduled: true,
                announced: None,
                limit: None,
            };
            for structure in STRUCTURES {
                self.clear(structure, cleaning, slice).await?;
            }
            let mut windows = self.scan("d[en]:*").await?;
            let rest = windows.split_off(windows.len().saturating_sub(ARGUMENTS));
            for keys in windows.chunks(ARGUMENTS) {
                self.send("obliterate", redis::cmd("DEL").arg(keys)).await?;
            }
            match self
                .call(&ask(false, &rest))
                .await
                .map(|reply| integer(&reply))
            {
                // Jobs came after they had been cleared.
                Ok(1) => {}
                // Another process obliterated it, or an earlier try of ours did whose answer was lost.
                Ok(code) if Code::from_value(code) == Some(Code::QueueNotPaused) => return Ok(()),
                Ok(code) => {
                    return Self::check("obliterate", "", redis::Value::Int(code)).map(|_| ());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The queue's keys that match a pattern.
    pub(super) async fn scan(&self, pattern: &str) -> Result<Vec<String>> {
        let base: String = self
            .keys
            .base()
            .chars()
            .flat_map(|letter| {
                let escape = matches!(letter, '*' | '?' | '[' | ']' | '\\').then_some('\\');
                escape.into_iter().chain([letter])
            })
            .collect();
        let mut found = Vec::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut cmd = redis::cmd("SCAN");
            cmd.arg(&cursor)
                .arg("MATCH")
                .arg(format!("{base}{pattern}"))
                .arg("COUNT")
                .arg(1000);
            let mut reply = items(self.send("scan", &cmd).await?).into_iter();
            cursor = reply.next().map_or_else(String::new, |next| text(&next));
            found.extend(reply.next().map(items).unwrap_or_default().iter().map(text));
            if cursor == "0" || cursor.is_empty() {
                break;
            }
        }
        // A scan may give a key more than once.
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Queues jobs of one state again: at most `count` in a call, until none that finished by `cutoff` is left.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn retry_jobs(&self, state: &str, count: i64, cutoff: Option<i64>) -> Result<()> {
        loop {
            let keys = [state, "wait", "active", "marker", "meta", "events"];
            let keys = keys.iter().map(|name| self.keys.of(name)).collect();
            let mut call = Call::on(&scripts::RETRY_JOBS, keys);
            call.arg(self.keys.base()).arg(state).number(count);
            match cutoff {
                Some(cutoff) => call.number(cutoff),
                None => call.arg(""),
            };
            if integer(&self.call(&call).await?) < count {
                return Ok(());
            }
        }
    }

    /// Deletes jobs that are in no state, at most `limit`; gives how many.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::call`].
    pub async fn remove_orphaned_jobs(&self, count: usize, limit: Option<usize>) -> Result<i64> {
        let base = self.keys.base().len();
        let mut suspects = self.scan("*").await?;
        // To look for each id in long lists would hold Redis for seconds, so it is asked only about those that stood
        // nowhere when they were looked for here; jobs may have moved meanwhile.
        let standing = self.standing().await?;
        suspects.retain(|key| !standing.contains(&key[base..]));
        let mut left = limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let mut removed = 0;
        for batch in suspects.chunks(count.clamp(1, ARGUMENTS)) {
            if left == 0 {
                break;
            }
            let mut call = Call::new(&scripts::REMOVE_ORPHANS, &self.keys);
            call.arg(self.keys.base()).number(left);
            for key in batch {
                call.arg(&key[base..]);
            }
            let worst = match limit {
                Some(_) => Outcome::NotDone,
                None => Outcome::Unknown,
            };
            let gone = integer(&repeat(self.timeout, worst, || self.link.call(&call)).await?);
            removed += gone;
            left -= gone;
        }
        Ok(removed)
    }

    /// The ids of all jobs that are in a state, read page by page.
    async fn standing(&self) -> Result<HashSet<String>> {
        let mut standing = HashSet::new();
        for structure in STRUCTURES {
            let command = match structure {
                "wait" | "paused" | "active" => "LRANGE",
                _ => "ZRANGE",
            };
            let mut first = 0;
            loop {
                let mut cmd = redis::cmd(command);
                cmd.arg(self.keys.of(structure))
                    .arg(first)
                    .arg(first + ARGUMENTS - 1);
                let page = items(self.send("remove orphaned jobs", &cmd).await?);
                standing.extend(page.iter().map(text));
                if page.len() < ARGUMENTS {
                    break;
                }
                first += ARGUMENTS;
            }
        }
        Ok(standing)
    }

    /// Deletes a job, wherever it is, and with `children` all jobs below it. False when a worker has one of them.
    ///
    /// # Errors
    ///
    /// [`Error::Script`] for the next iteration of a job scheduler.
    pub async fn remove(&self, id: &str, children: bool) -> Result<bool> {
        let mut call = Call::on(&scripts::REMOVE_JOB, vec![self.keys.job(id)]);
        call.arg(self.keys.base())
            .arg(id)
            .arg(if children { "1" } else { "" });
        Ok(self.checked("remove", id, &call).await? == 1)
    }

    /// Answers once Redis does.
    ///
    /// # Errors
    ///
    /// [`Error::Connection`] when Redis stays away for the whole command timeout.
    pub async fn wait_until_ready(&self) -> Result<()> {
        self.send("ping", &redis::cmd("PING")).await.map(|_| ())
    }

    /// Deletes a key that very old clients wrote.
    ///
    /// # Errors
    ///
    /// As [`crate::link::Link::send`].
    pub async fn remove_deprecated_priority_key(&self) -> Result<bool> {
        let cmd = redis::cmd("DEL").arg(self.keys.of("priority")).clone();
        Ok(integer(&self.send("remove the priority key", &cmd).await?) == 1)
    }
}
