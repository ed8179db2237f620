//! The steps of adding jobs, one by one and without a connection: for the benches and the guard of instruction counts.

use redis::Value;

use super::{Added, NewJob, Producer};
use crate::{error::Result, keys::QueueKeys, packed::Packed};

/// A producer that nobody drives.
pub struct Adding(Producer);

impl Adding {
    /// Of one queue.
    #[must_use]
    pub fn new(keys: QueueKeys) -> Self {
        Self(Producer::new(keys, "measured".to_owned(), None))
    }

    /// The bytes of the call that adds a batch, whose ids begin with `first`.
    #[must_use]
    pub fn encode(&self, first: i64, batch: &[NewJob]) -> Vec<u8> {
        let reserve = i64::try_from(batch.len()).unwrap_or(i64::MAX);
        let mut call = self.0.call(reserve, "", first + reserve - 1);
        let mut jobs = Packed::default();
        for (number, job) in (first..).zip(batch) {
            job.put(&mut jobs, number, false);
        }
        jobs.put(&mut call);
        call.packed()
    }

    /// What became of each job of a batch.
    pub fn decode(&self, batch: &[NewJob], reply: Value) -> Vec<Result<Added>> {
        let reserved = i64::try_from(batch.len()).unwrap_or(i64::MAX);
        let said = self.0.note(reply, reserved);
        let outcomes = batch.iter().zip(said);
        outcomes.map(|(job, said)| job.outcome(said)).collect()
    }
}
