"""A new process: imports a library, adds one job, and says when each was done. Arguments: peer, URL, queue."""

import sys
import time
from typing import Any

_begun = time.perf_counter()


def main() -> None:
    """Do it, with as little as possible imported before."""
    peer, url, queue = sys.argv[1:]
    data = {"user": 123456}
    if peer == "toromq":
        # The class, as for the others: `import toromq` by itself loads next to nothing.
        from toromq import Queue

        imported, threads = time.perf_counter() - _begun, _threads()

        async def add() -> None:
            async with Queue[Any, Any](queue, connection=url) as opened:
                await opened.add("job", data)
                print_at(imported, threads)
    else:
        from bullmq import Queue as TheirQueue  # type: ignore[import-untyped]

        imported, threads = time.perf_counter() - _begun, _threads()

        async def add() -> None:
            opened = TheirQueue(queue, {"connection": url})
            await opened.add("job", data)
            print_at(imported, threads)
            await opened.close()

    import asyncio

    asyncio.run(add())


def print_at(imported: float, threads: int) -> None:
    """Say it."""
    added = time.perf_counter() - _begun
    print(f'{{"import": {imported}, "added": {added}, "threads": {threads}}}')


def _threads() -> int:
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))
    except OSError:
        return 1


main()
