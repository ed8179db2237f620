"""Random cron patterns: mostly such as people write, some odd, some wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

_FIELDS: Final = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_MONTHS: Final = ("jan", "FEB", "Mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "NOV", "dec")
_DAYS: Final = ("sun", "MON", "Tue", "wed", "thu", "fri", "SAT")
_NAMED: Final = (
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@hourly",
    "@minutely",
    "@weekdays",
    "@weekends",
)
_ODD: Final = "0123456789*?,-/LH#()Wjanfrisu. +"


def pattern(random: Random) -> str:
    """One pattern."""
    if random.random() < 0.02:
        return random.choice(_NAMED)
    count = random.choices((6, 5, 4, 3, 7), (30, 60, 4, 4, 1))[0]
    first = max(0, 6 - count)
    fields = [_field(random, index) for index in range(first, 6)] + ["*"] * max(0, count - 6)
    text = random.choice((" ", " ", " ", "  ")).join(fields)
    # Beside such a range cron-parser takes any character at all, and reads numbers out of the rubble.
    if "H(" not in text and random.random() < 0.06:
        at = random.randrange(len(text) + 1)
        text = text[:at] + random.choice(_ODD) + text[at + random.randrange(2) :]
    return text


def by_the_hour(random: Random) -> str:
    """A pattern that is right, and fires at some hours of most days: what a change of the clocks is about."""
    kind = random.random()
    if kind < 0.15:
        hours = "*"
    elif kind < 0.3:
        hours = f"*/{random.randint(1, 6)}"
    elif kind < 0.5:
        first = random.randint(0, 5)
        hours = f"{first}-{random.randint(first, 23)}"
    else:
        hours = ",".join(str(hour) for hour in sorted(random.sample((0, 1, 2, 3, 4, 12, 22, 23), random.randint(1, 4))))
    minutes = random.choice(("*", f"*/{random.choice((5, 7, 15, 20, 30))}", str(random.randint(0, 59)), "14,41"))
    days = random.choice(("* * *", "* * *", "*/2 * *", "* * 0", "* * 1-5", "L * *", "* * 0L", "* * 0#1"))
    return f"{random.choice(('', '', '*/30 ', '59 '))}{minutes} {hours} {days}"


def _field(random: Random, index: int) -> str:
    if random.random() < (0.35, 0.1, 0.25, 0.5, 0.6, 0.5)[index]:
        return random.choice(("*", "*", "*", "?"))
    if index == 5 and random.random() < 0.15:
        return f"{_value(random, index)}#{random.choice((1, 2, 3, 4, 5, 5, 6))}"
    items = [_item(random, index) for _ in range(random.choices((1, 2, 3), (12, 2, 1))[0])]
    return ",".join(items)


def _item(random: Random, index: int) -> str:
    low, high = _FIELDS[index]
    kind = random.random()
    if index == 3 and kind < 0.15:
        return "L"
    if index == 5 and kind < 0.15:
        return f"{_value(random, index)}L"
    if kind < 0.5:
        return _value(random, index)
    if kind < 0.55:
        return random.choice(("H", f"H/{random.randint(1, 9)}", f"H({low}-{random.randint(low, high)})", "H(2-5)/2"))
    step = random.choice((1, 2, 3, 5, 10, 15, 40, 0)) if random.random() < 0.5 else None
    if kind < 0.7:
        return f"*/{2 if step is None else step}"
    if kind < 0.8:
        return f"{_value(random, index)}/{3 if step is None else step}"
    first, last = random.randint(low, high), random.randint(low, high)
    if random.random() < 0.9:
        first, last = sorted((first, last))
    return f"{first}-{last}" + ("" if step is None else f"/{step}")


def _value(random: Random, index: int) -> str:
    low, high = _FIELDS[index]
    if index == 4 and random.random() < 0.3:
        return random.choice(_MONTHS)
    if index == 5 and random.random() < 0.3:
        return random.choice(_DAYS)
    return str(random.randint(low, high + (random.random() < 0.02)))
