"""The text of an exception's traceback: what `traceback.format_exception` gives, in a tenth of the time.

A job that fails is seldom alone, and the others fail in the same places. Nearly all that the standard library does for
a traceback is to find the lines of its places and to mark what failed in them, which depends on nothing but the place
and the file: so the text of a place is kept. What is more than an exception with a message is left to the library.
"""

from __future__ import annotations

import linecache
import sys
import traceback
from types import CodeType, TracebackType
from typing import Final

_HEADER: Final = "Traceback (most recent call last):\n"
_CAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"
# The library tells more of them than their message: what they hold, where they are, what may have been meant.
_TELL_MORE: Final = (AttributeError, BaseExceptionGroup, ImportError, NameError, SyntaxError)
_MOST_PLACES: Final = 1000
# By the code, the instruction in it, and the line: the code itself, so that its number is no other's meanwhile; what
# was known of its file; the text.
_places: dict[tuple[int, int, int], tuple[CodeType, object, str]] = {}


def traceback_text(error: BaseException) -> str:
    """What Python itself would print of an exception."""
    parts: list[str] = []
    seen: set[int] = set()
    shown: BaseException | None = error
    while shown is not None:
        last, places = _last_line(shown), _stack(shown.__traceback__)
        if last is None or places is None or id(shown) in seen:
            return "".join(traceback.format_exception(error))
        seen.add(id(shown))
        # From its end to its beginning, as the chain is followed.
        parts.append(last)
        parts.extend(reversed(places))
        parts.append(_HEADER)
        if shown.__cause__ is not None:
            parts.append(_CAUSE)
            shown = shown.__cause__
        elif shown.__context__ is not None and not shown.__suppress_context__:
            parts.append(_CONTEXT)
            shown = shown.__context__
        else:
            shown = None
    return "".join(reversed(parts))


def _last_line(error: BaseException) -> str | None:
    """What an exception is and says; None where that is for the library to tell."""
    if isinstance(error, _TELL_MORE) or hasattr(error, "__notes__"):
        return None
    kind = type(error)
    module, name = kind.__module__, kind.__qualname__
    try:
        # One that is false has no chain, for the library.
        message = str(error) if error else None
    except Exception:
        return None
    if message is None or not isinstance(module, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        return None
    full_name = name if module in ("builtins", "__main__") else f"{module}.{name}"
    return f"{full_name}: {message}\n" if message else f"{full_name}\n"


def _stack(stack: TracebackType | None) -> list[str] | None:
    """The text of each place, the outermost first; None where that is for the library to tell."""
    if stack is None or hasattr(sys, "tracebacklimit"):
        return None
    texts: list[str] = []
    files: dict[str, object] = {}
    previous: tuple[str, int, str] | None = None
    place: TracebackType | None = stack
    while place is not None:
        code = place.tb_frame.f_code
        file = code.co_filename
        here = (file, place.tb_lineno, code.co_name)
        if here == previous:
            # Many in a row are told in one line.
            return None
        previous = here
        if file not in files:
            # As the library does: the file may have changed since.
            linecache.checkcache(file)
            files[file] = linecache.cache.get(file)
        key = (id(code), place.tb_lasti, place.tb_lineno)
        known = _places.get(key)
        if known is not None and known[0] is code and known[1] is files[file]:
            texts.append(known[2])
        else:
            text = "".join(traceback.format_tb(place, 1))
            texts.append(text)
            found: object = linecache.cache.get(file)
            files[file] = found
            # Nothing is known of what is no file, nor would its change be noticed.
            if found is not None:
                if len(_places) >= _MOST_PLACES:
                    _places.clear()
                _places[key] = (code, found, text)
        place = place.tb_next
    return texts
