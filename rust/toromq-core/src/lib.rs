//! The engine of toromq: queues and workers on Redis that speak BullMQ's wire protocol. It knows nothing of Python.

pub mod scripts;
