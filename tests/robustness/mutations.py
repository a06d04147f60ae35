"""Random changes of good inputs, for fuzzing without atheris: of bytes, of words, and of the values of a JSON."""

import copy
import json
import random
import re
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from wildcat.errors import WildcatError

LONGEST = 20_000  # bytes of an input
MOST_KEPT = 600  # inputs that are changed further
VALUES: list[Any] = [None, True, 0, -1, 2**63, 10**40, 0.5, 1e308, float("nan"), float("inf"), "", "nan", "1", "../x"]
VALUES += ["a" * 300, "\0", "\ud800", [], {}, [[]], [None], [1, 2, 3, 4], {"a": 1}]


def mutated(content: bytes, pool: Sequence[bytes], words: Sequence[bytes], generator: random.Random) -> bytes:
    """An input of which a few parts are others, gone, repeated, or taken from other inputs."""
    with suppress(ValueError, RecursionError):
        values = json.loads(content)
        if isinstance(values, dict | list) and generator.random() < 0.7:
            return json.dumps(_other_values(values, generator)).encode(errors="surrogatepass")
    changed = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 3, 6])):
        at = generator.randint(0, len(changed))
        part = changed[at : at + generator.randint(0, 80)]
        other = generator.choice(pool)
        start = generator.randint(0, len(other))
        gone, new = generator.choice(
            [
                (generator.choice([0, 1, 2, 5]), generator.choice(words)),
                (generator.choice([1, 2, 8, 64]), b""),
                (1, generator.randbytes(1)),
                (0, generator.randbytes(generator.choice([1, 2, 4, 8]))),
                (0, bytes(part) * generator.choice([1, 2, 20])),
                (generator.choice([0, 20]), other[start : start + 60]),
            ]
        )
        changed[at : at + gone] = new
    return bytes(changed[:LONGEST])


def _other_values(values: Any, generator: random.Random) -> Any:
    """A JSON of which some values are others, gone or repeated."""
    values = copy.deepcopy(values)
    for _ in range(generator.choice([1, 1, 1, 2, 3])):
        places = [(inside, key) for inside in _containers(values) for key in _keys(inside)]
        if not places:
            return copy.deepcopy(generator.choice(VALUES))
        inside, key = generator.choice(places)
        change = generator.random()
        if change < 0.6:
            inside[key] = copy.deepcopy(generator.choice(VALUES))
        elif change < 0.75:
            del inside[key]
        elif isinstance(inside, list):
            inside.append(copy.deepcopy(inside[key]))
        else:
            inside[generator.choice([*inside, ""])] = copy.deepcopy(inside[key])
    return values


def _containers(value: Any) -> list[Any]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value] if isinstance(value, dict | list) else []
    return own + [each for part in inside for each in _containers(part)]


def _keys(value: Any) -> list[Any]:
    return list(value) if isinstance(value, dict) else list(range(len(value)))


def fuzz_at_random(
    name: str, read: Callable[[bytes], None], good: Sequence[bytes], words: Sequence[bytes], seconds: float
) -> int:
    """Feed a reader with changed inputs; those that lead to a message of a new form are changed further.

    Args:
        name: of the reader, for the file of an input that it does not stand.
        read: may raise short WildcatErrors, and nothing else.
        good: the first inputs.
        words: that random changes rarely produce.
        seconds: of time.

    Returns:
        The exit code: 1 if the reader failed.
    """
    generator, pool, forms, count = random.Random(0), list(good), set[str](), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        content = mutated(generator.choice(pool), pool, words, generator)
        count += 1
        form = ""
        try:
            read(content)
        except WildcatError as error:
            form = re.sub(r"\d+|'[^']*'", "", str(error))[:160]
            failure = "" if 0 < len(str(error)) < 5000 else f"a message of {len(str(error))} characters"
        except Exception:
            failure = traceback.format_exc()
        else:
            failure = ""
        if failure:
            file = Path(f"{name}-crash")
            file.write_bytes(content)
            print(f"{failure}\n{name} failed at input {count}, which is in {file}")
            return 1
        if form not in forms and len(pool) < MOST_KEPT:
            forms.add(form)
            pool.append(content)
    print(f"{name}: {count} inputs, {len(forms)} forms of messages")
    return 0
