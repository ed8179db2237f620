use crate::error::Error;

/// Why a pattern or a zone was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// One field of the pattern.
    #[error("cron pattern {pattern:?}: the {field} field is {given:?}: {reason}")]
    Field {
        /// The whole pattern.
        pattern: String,
        /// Its name: `minute`.
        field: &'static str,
        /// The text of the field.
        given: String,
        /// What is wrong with it, and what is allowed.
        reason: String,
    },
    /// The pattern as a whole.
    #[error("cron pattern {pattern:?}: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it, and what is allowed.
        reason: String,
    },
    /// The time zone.
    #[error("time zone {given:?} is not known: {allowed}{hint}")]
    Zone {
        /// What was given.
        given: String,
        /// What is allowed.
        allowed: &'static str,
        /// A zone that is spelled almost like it, in words; or nothing.
        hint: String,
    },
}

impl From<CronError> for Error {
    fn from(error: CronError) -> Self {
        Self::Config(error.to_string())
    }
}
