//! The only place that spells a Redis key.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The keys of one queue.
#[derive(Debug, Clone)]
pub struct QueueKeys {
    base: String,
    client_name: String,
}

impl QueueKeys {
    /// The keys of queue `name` under `prefix`.
    #[must_use]
    pub fn new(prefix: &str, name: &str) -> Self {
        Self {
            base: format!("{prefix}:{name}:"),
            client_name: format!("{prefix}:{}", STANDARD.encode(name)),
        }
    }

    /// The qualified queue name with a trailing colon: what every key begins with.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A structure of the queue, such as `wait`; a script's name for a key works too (`metrics_completed`).
    #[must_use]
    pub fn of(&self, structure: &str) -> String {
        let tail = match structure {
            "waiting_children" => "waiting-children",
            "stalled_check" => "stalled-check",
            "metrics_completed" => "metrics:completed",
            "metrics_failed" => "metrics:failed",
            "limiter_wake" => "limiter:wake",
            other => other,
        };
        [self.base.as_str(), tail].concat()
    }

    /// A job's hash.
    #[must_use]
    pub fn job(&self, id: &str) -> String {
        format!("{}{id}", self.base)
    }

    /// The record of a job scheduler.
    #[must_use]
    pub fn scheduler(&self, id: &str) -> String {
        format!("{}repeat:{id}", self.base)
    }

    /// Who owns a deduplication id.
    #[must_use]
    pub fn deduplication(&self, id: &str) -> String {
        format!("{}de:{id}", self.base)
    }

    /// The name by which other clients recognise a worker's blocking connection.
    #[must_use]
    pub fn worker_client_name(&self, worker_name: &str) -> String {
        if worker_name.is_empty() {
            self.client_name.clone()
        } else {
            format!("{}:w:{worker_name}", self.client_name)
        }
    }

    /// Whether a connection of this name is a worker's, and if so that worker's own name, which may be empty.
    #[must_use]
    pub fn worker_of_client(&self, client_name: &str) -> Option<String> {
        let rest = client_name.strip_prefix(&self.client_name)?;
        if rest.is_empty() {
            return Some(String::new());
        }
        rest.strip_prefix(":w:").map(str::to_owned)
    }

    /// The name of a connection that reads the queue's events.
    #[must_use]
    pub fn events_client_name(&self) -> String {
        format!("{}:qe", self.client_name)
    }
}

/// Words that name a structure of a queue, and so can't be a job's id.
pub const RESERVED_IDS: &[&str] = &[
    "wait",
    "paused",
    "active",
    "prioritized",
    "delayed",
    "waiting-children",
    "completed",
    "failed",
    "stalled",
    "stalled-check",
    "limiter",
    "meta",
    "marker",
    "events",
    "id",
    "pc",
    "repeat",
    "de",
    "dn",
    "metrics",
    "priority",
    "delay",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spelled_as_every_other_client_spells_them() {
        let keys = QueueKeys::new("bull", "w");
        assert_eq!(keys.of("wait"), "bull:w:wait");
        assert_eq!(keys.of("metrics_failed"), "bull:w:metrics:failed");
        assert_eq!(keys.job("7"), "bull:w:7");
        assert_eq!(keys.deduplication("d"), "bull:w:de:d");
        assert_eq!(keys.scheduler("a:b"), "bull:w:repeat:a:b");
        assert_eq!(keys.worker_client_name("w-1"), "bull:dw==:w:w-1");
        assert_eq!(keys.events_client_name(), "bull:dw==:qe");
    }

    #[test]
    fn workers_are_known_by_their_connections() {
        let keys = QueueKeys::new("bull", "w");
        for name in ["", "w-1", "a:w:b"] {
            let client = keys.worker_client_name(name);
            assert_eq!(keys.worker_of_client(&client).as_deref(), Some(name));
        }
        for other in [
            "",
            "bull:dw==:qe",
            "bull:dw==:w",
            "bull:dw==x",
            "bull:dng=",
            "web",
        ] {
            assert_eq!(keys.worker_of_client(other), None);
        }
    }
}
