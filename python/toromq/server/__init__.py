"""A Redis-compatible server that starts with the first process that needs it: ``embedded:PATH``.

``PATH`` is a data directory (``.toromq`` in the current directory by default). The first process that connects starts a
server there, later ones join it over a unix socket, and the last one to leave shuts it down. The data stays in an
append-only file and is there again at the next start.

What the directory holds:

==================  ===================================================================================
``v.sock``          the server's unix socket (elsewhere when the path is too long for one)
``appendonlydir``   the data; flushed to disk every second, so that a power cut can take the last one
``server.log``      the server's own log; ``server.log.old`` is the one before it
``server.pid``      process id and socket path; the *server* holds an exclusive lock on this file
``start.lock``      held by whoever starts or stops the server, for as long as that takes
``users.lock``      every process that uses the server holds a shared lock on it while it lives
``keep-alive``      exists after ``toromq server start``: the last user leaves the server running
==================  ===================================================================================

All locks are ``flock`` locks, which the kernel drops with the process: a process ended by ``kill -9`` leaves nothing
behind that would have to be cleaned up.

The server is for one machine. It has no password: whoever can open the directory can use it, and so can every local
user if a TCP port was asked for. Only processes that connect through this package count as users; for a dashboard or a
Node process, keep the server alive with ``toromq server start``.
"""

from toromq.server.control import ServerStatus, start, status, stop
from toromq.server.embedded import EmbeddedServer, connect
from toromq.server.files import DEFAULT_PATH
from toromq.server.launcher import find_server_binary
from toromq.server.watcher import watch

__all__ = [
    "DEFAULT_PATH",
    "EmbeddedServer",
    "ServerStatus",
    "connect",
    "find_server_binary",
    "start",
    "status",
    "stop",
    "watch",
]
