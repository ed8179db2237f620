"""A wall clock that is wrong in one process: a small library, compiled where the tests run, loaded before all others.

Only the time of day is shifted. What measures time that passes is not, as on a machine whose clock was set wrongly.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void) {
  static long seconds;
  static int known;
  if (!known) {
    const char *text = getenv("SHIFTED_CLOCK_SECONDS");
    seconds = text ? atol(text) : 0;
    known = 1;
  }
  return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int failed = (int)syscall(SYS_clock_gettime, clock, time);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += shift();
  return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  (void)zone;
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
"""


def build(folder: Path) -> Path:
    """Compiles the library into a folder and returns it."""
    source, library = folder / "shifted_clock.c", folder / "shifted_clock.so"
    source.write_text(_SOURCE, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
    return library


def environment(library: Path, seconds: int) -> dict[str, str]:
    """The environment of a process whose clock is so many seconds ahead."""
    return {**os.environ, "LD_PRELOAD": str(library), "SHIFTED_CLOCK_SECONDS": str(seconds)}
