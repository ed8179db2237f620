//! What can go wrong, by what the caller may do about it.

use crate::scripts::Code;

/// Whether an operation that failed may have been done all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was done.
    NotDone,
    /// The reply was lost: it may be done or not.
    Unknown,
}

/// Every failure of the engine.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// An argument or option is not allowed.
    #[error("{0}")]
    Config(String),
    /// Redis could not be reached, or the connection broke.
    #[error("{message}")]
    Connection {
        /// What was tried, where, and how to mend it.
        message: String,
        /// Whether the operation may have been done.
        outcome: Outcome,
    },
    /// Redis answered with an error.
    #[error("Redis refused {operation}: {message}")]
    Server {
        /// What was asked.
        operation: &'static str,
        /// The server's words.
        message: String,
        /// Whether the same may work a little later without anybody's help.
        transient: bool,
    },
    /// A script answered with a code.
    #[error("{operation}{}: {}", of_job(job_id), code.meaning())]
    Script {
        /// What was asked.
        operation: &'static str,
        /// The code.
        code: Code,
        /// The job; empty where it is the queue's affair.
        job_id: String,
    },
    /// A job was not added, though others that were added with it may be.
    #[error("{what} was not added: {}", code.meaning())]
    NotAdded {
        /// The job, and whose child it was to be.
        what: String,
        /// The code.
        code: Code,
        /// The job's own id, if it had one.
        job_id: Option<String>,
    },
    /// A flow was not added, because of one of its jobs.
    #[error("{message}")]
    FlowRefused {
        /// Which job, and why.
        message: String,
        /// The code.
        code: Code,
        /// That job's id.
        job_id: String,
    },
    /// A job scheduler could not be set up, or not go on.
    #[error("{operation} of job scheduler {scheduler}: {}", code.meaning())]
    Scheduler {
        /// What was asked.
        operation: &'static str,
        /// Its id.
        scheduler: String,
        /// The code.
        code: Code,
    },
    /// Something stored is not what it must be.
    #[error("{0}")]
    Broken(String),
    /// The worker was closed.
    #[error("the worker is closed; make a new one")]
    Closed,
    /// The queue was closed while this job was waited for.
    #[error("the queue was closed while job {0} was waited for; the job goes on")]
    Abandoned(String),
}

impl Error {
    /// Whether the same may work a little later without anybody's help.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Connection { .. }
                | Self::Server {
                    transient: true,
                    ..
                }
        )
    }
}

fn of_job(id: &str) -> String {
    if id.is_empty() {
        String::new()
    } else {
        format!(" of job {id}")
    }
}

/// The engine's result.
pub type Result<T> = std::result::Result<T, Error>;
