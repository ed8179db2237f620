"""Sandboxed processors: functions in child processes, which may crash, leak or hang without hurting the worker.

A worker's thread that has a job takes a child from the `Pool`, sends it the job, does for it what the job's methods
ask for, and goes on with what the child says at the end (`process.py`). The child (`child.py`) is a fresh interpreter,
never a fork. The two speak in frames of JSON (`frames.py`) over a socket of their own, so prints go where they always
go.

    worker to child                           child to worker
    {"run": 7, "queue": [...], "job": [...]}  {"is": "begun"}
    {"run": 7, "cancel": reason}              {"is": "call", "call": 1, "method": ..., "arguments": "..."}
    {"reply": 1, "value": "..."}              {"is": "done", "value": "..."}
    {"reply": 1, "error": {...}}              {"is": "failed", "error": {...}}
                                              {"is": "unusable", "error": {...}}, once, if the import failed
"""
