"""Runs an application over the real bullmq, or over ours under its name: SIDE FILE HOST PORT PREFIX.

What the application says is printed, a line of JSON each.
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import sys


def run(side: str, file: str, host: str, port: str, prefix: str) -> None:
    """One application."""
    if side == "ours":
        import toromq.compat.bullmq

        sys.modules["bullmq"] = toromq.compat.bullmq
    main = runpy.run_path(file)["main"]
    # Without the limit that redis-py 8 sets by itself, and over which bullmq trips.
    connection = {"host": host, "port": int(port), "socket_timeout": None}

    def say(what: str, value: object) -> None:
        print(json.dumps([what, value]), flush=True)

    asyncio.run(main(connection, prefix, say))


if __name__ == "__main__":
    run(*sys.argv[1:])
    if sys.argv[1] == "theirs":
        # Its clients complain of a closed event loop when they are collected.
        os._exit(0)
