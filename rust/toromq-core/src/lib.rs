//! The engine of toromq: queues and workers on Redis that speak BullMQ's wire protocol. It knows nothing of Python.

pub mod backoff;
pub mod clock;
pub mod connection;
pub mod cron;
pub mod error;
pub mod events;
pub mod feed;
pub mod flow;
pub mod job;
pub mod json;
pub mod keys;
#[cfg(unix)]
pub mod lane;
pub mod link;
mod packed;
mod peer;
pub mod queue;
pub mod repeat;
pub mod scripts;
pub mod telemetry;
pub mod waits;
pub mod worker;
