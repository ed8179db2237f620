//! Engine errors as Python exceptions; the only such place.

use pyo3::{import_exception, prelude::*};
use toromq_core::{error::Error, scripts::Code};

import_exception!(toromq.errors, ConfigurationError);
import_exception!(toromq.errors, FailedChildrenError);
import_exception!(toromq.errors, JobNotFoundError);
import_exception!(toromq.errors, JobNotInStateError);
import_exception!(toromq.errors, LockMismatchError);
import_exception!(toromq.errors, LockMissingError);
import_exception!(toromq.errors, ParentConflictError);
import_exception!(toromq.errors, ParentNotFoundError);
import_exception!(toromq.errors, PendingChildrenError);
import_exception!(toromq.errors, RedisConnectionError);
import_exception!(toromq.errors, SchedulerConflictError);
import_exception!(toromq.errors, ScriptError);
import_exception!(toromq.errors, ToroError);

/// Imports all of them now, so that no thread is in the middle of it when the process forks.
pub(crate) fn import(py: Python<'_>) {
    let _ = (
        py.get_type::<ConfigurationError>(),
        py.get_type::<FailedChildrenError>(),
        py.get_type::<JobNotFoundError>(),
        py.get_type::<JobNotInStateError>(),
        py.get_type::<LockMismatchError>(),
        py.get_type::<LockMissingError>(),
        py.get_type::<ParentConflictError>(),
        py.get_type::<ParentNotFoundError>(),
        py.get_type::<PendingChildrenError>(),
        py.get_type::<RedisConnectionError>(),
        py.get_type::<SchedulerConflictError>(),
        py.get_type::<ScriptError>(),
        py.get_type::<ToroError>(),
    );
}

pub(crate) fn to_python(error: &Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Config(_) => ConfigurationError::new_err(message),
        Error::Connection { .. } => RedisConnectionError::new_err(message),
        Error::Server { .. } | Error::Broken(_) | Error::Closed | Error::Abandoned(_) => {
            ToroError::new_err(message)
        }
        Error::Script { code, job_id, .. } => {
            let job_id = Some(job_id.clone()).filter(|id| !id.is_empty());
            of_code(message, *code, job_id)
        }
        Error::Scheduler { code, .. } => of_code(message, *code, None),
        Error::NotAdded { code, job_id, .. } => of_code(message, *code, job_id.clone()),
        Error::FlowRefused { code, job_id, .. } => of_code(message, *code, Some(job_id.clone())),
    }
}

fn of_code(message: String, code: Code, job_id: Option<String>) -> PyErr {
    let args = (message, code as i64, job_id);
    match code {
        Code::JobMissing => JobNotFoundError::new_err(args),
        Code::LockMissing => LockMissingError::new_err(args),
        Code::LockMismatch => LockMismatchError::new_err(args),
        Code::JobNotInState => JobNotInStateError::new_err(args),
        Code::PendingChildren => PendingChildrenError::new_err(args),
        Code::ParentMissing => ParentNotFoundError::new_err(args),
        Code::OtherParent | Code::OwnAncestor => ParentConflictError::new_err(args),
        Code::FailedChildren => FailedChildrenError::new_err(args),
        Code::JobScheduled | Code::SchedulerCollision | Code::SchedulerBusy => {
            SchedulerConflictError::new_err(args)
        }
        Code::IdsVoid
        | Code::JobCorrupt
        | Code::QueueNotPaused
        | Code::ActiveJobs
        | Code::KeyCorrupt
        | Code::SchedulerLegacy => ScriptError::new_err(args),
    }
}
