"""Write the plan for 10⁹ images into docs/scaling.md, from benchmarks/results/batch.csv.

python -m benchmarks.planning          write it into the page
python -m benchmarks.planning check    fail if the page is not up to date
"""

from __future__ import annotations

import sys

from benchmarks.common import OURS
from benchmarks.tables import DOCS, Row, machine, read, spread
from wildcat.prediction.predictor import DECODING_THREADS

PAGE = DOCS / "scaling.md"
BEGIN, END = "<!-- plan: begin -->", "<!-- plan: end -->"
WORKERS = 2  # of the measured batch
PER_SECOND = "images/s"
NEEDED = "of a worker: "  # the parts of an image's time
IMAGES = 10**9
WEEK = 7 * 24 * 3600
PRICE = 0.05  # of a CPU core for an hour, in the reader's currency; an example

NOT_YET = "*Not measured yet: `python -m benchmarks.batch --full` fills this part.*"


def median(rows: list[Row], work: str) -> float:
    return float(next(row["median"] for row in rows if row["work"] == work and row["program"] == OURS))


def listed(lines: list[tuple[str, str, str]], head: tuple[str, str, str]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (head, ("---",) * 3, *lines)]


def bottleneck(network: float, reading: float, fetch: float) -> str:
    """The largest part of an image's time on a worker, in words; all in milliseconds."""
    parts = {
        "the network's arithmetic": network,
        "reading and decoding": reading,
        "fetching": fetch,
    }
    name = max(parts, key=lambda part: parts[part])
    share = parts[name] / sum(parts.values())
    return f"**The bottleneck is {name}**: {parts[name]:.1f} of {sum(parts.values()):.1f} ms an image ({share:.0%})"


def plan(rows: list[Row]) -> list[str]:
    """The measured numbers and the numbers derived from them."""
    whole = next(row for row in rows if row["unit"] == PER_SECOND)
    rate = float(whole["median"]) / WORKERS
    row_size, file_size = median(rows, "a row of the results"), median(rows, "an image's file")
    network = median(rows, f"{NEEDED}network")
    files = median(rows, f"{NEEDED}files: read and decode")
    web = median(rows, f"{NEEDED}web server of this machine: read")
    hours = IMAGES / 3600 / rate
    workers = IMAGES / WEEK / rate
    wire = IMAGES * file_size / WEEK  # bytes per second
    measured = [(row["work"], spread(row), row["note"]) for row in rows]
    derived = [
        ("images per second of a worker, *r*", f"{whole['median']} / {WORKERS}", f"{rate:.1f}"),
        ("worker-hours", "10⁹ / 3600 r", f"{hours:,.0f}"),
        ("workers for one week", "10⁹ / 604,800 r", f"{workers:,.1f}"),
        (f"cost at {PRICE} per core-hour, an example", f"worker-hours × {PRICE}", f"{hours * PRICE:,.0f}"),
        ("read from the store by all workers of the week", "10⁹ p / 604,800 s", f"{wire / 1e6:,.0f} MB/s"),
        ("requests to the store, one image each", "10⁹ / 604,800 s", f"{IMAGES / WEEK:,.0f}/s"),
        ("size of the inputs", "10⁹ p", f"{IMAGES * file_size / 1e12:,.1f} TB"),
        ("size of the results", "10⁹ q", f"{IMAGES * row_size / 1e12:,.2f} TB"),
        ("result files of 1,000 images each", "10⁹ / 1,000", f"{IMAGES // 1000:,}"),
    ]
    delay = DECODING_THREADS * 1000 * WORKERS / float(whole["median"])
    return [
        machine(rows[0]),
        "",
        *listed(measured, ("measured", "median (quartiles)", "")),
        "",
        *listed(derived, ("for 10⁹ images", "formula", "value")),
        "",
        f"{bottleneck(network, files, web)}, so the cost is worker-hours on cores, and throughput "
        f"is proportional to the number of cores. A worker reads {rate * file_size / 1e6:.1f} MB/s from the store. It "
        f"fetches {DECODING_THREADS} images at a time in advance, so it waits only for an image that arrives later "
        f"than {delay:.0f} ms after the request. A link of {8 * wire / 1e9:.1f} Gbit/s carries the week's images."
        if network > files + web
        else f"{bottleneck(network, files, web)}: store images near the inference size, in shards.",
    ]


def page() -> str:
    """The content of docs/scaling.md."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    rows = read("batch")
    lines = plan(rows) if rows else [NOT_YET]
    return "\n".join([before + BEGIN, *lines, END + after])


def main(arguments: list[str]) -> int:
    if arguments == ["check"]:
        if PAGE.read_text(encoding="utf-8") != page():
            print(f"{PAGE.name} is not up to date: run python -m benchmarks.planning", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
