"""The service under load: many clients at once, and one for long.

    python scripts/web_load.py [--requests 200] [--clients 20] [--matches 2000] [--keypoints 512] \\
        [--features aliked] [--resize 480]

Starts `lightglue web` with a queue of 8. First `--clients` threads send `--requests` requests, each with a number of
keypoints of its own, and each answer is compared with what the same request gave alone: nothing may be lost, nothing
mixed up. Then one client matches `--matches` pairs, and the memory of the processes is looked at on the way. Prints all
as JSON. On two cores the second part takes half an hour; `--matches 200` gives an idea, and
`--features xfeat --resize 320` a fifth of it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightglue.web.client import Client, ServiceError

ASKED = ("keypoints0", "keypoints1", "matches", "scores")
DIFFERENT = 8  # numbers of keypoints
MB = 1e6
PHOTOGRAPH = Path(__file__).parents[1] / "src" / "lightglue" / "parity" / "photographs" / "montmartre_far.jpg"


@contextmanager
def service(queue: int) -> Iterator[tuple[str, int]]:
    """A running service: its address and process."""
    code = "from lightglue.cli import main; main()"
    words = ["web", "--no-browser", "--port", "0", "--device", "cpu", "--queue", str(queue)]
    words += ["--images-mb", "4", "--results-mb", "4"]  # so that what is kept is full early
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.match(r"(http://\S+?)/ ", process.stdout.readline())
    if found is None:
        raise SystemExit("the service does not start")
    try:
        yield found[1], process.pid
    finally:
        process.terminate()
        process.wait(30)


def memory(pid: int) -> dict[str, float]:
    """MB that the service and its workers hold, by what they are."""
    found = {"server": resident(pid)}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            is_worker = b"spawn_main" in (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and is_worker:
            has_torch = b"libtorch" in (entry / "maps").read_bytes()
            found["models" if has_torch else "images"] = resident(int(entry.name))
    return found


def resident(pid: int) -> float:
    """MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / MB, 1)


def asked(number: int, keypoints: int, **options: Any) -> dict[str, Any]:
    """A request, of `DIFFERENT` ones."""
    wanted = {"max_keypoints": keypoints - 8 * (number % DIFFERENT), **options}
    return {"image0": f"example-{number % 2}", "image1": f"example-{1 - number % 2}", "options": wanted}


def result(client: Client, request: Mapping[str, Any]) -> dict[str, Any]:
    """What comes of it."""
    job = client.submit("match", request)
    return client.result(client.wait(job["id"])["result"])


def many_clients(url: str, requests: int, clients: int, keypoints: int) -> dict[str, Any]:
    """`requests` requests from `clients` threads; what was lost, refused or not that of the request."""

    def quick(number: int) -> dict[str, Any]:
        return asked(number, keypoints, features="xfeat", resize=320)

    alone = [result(Client(url), quick(number)) for number in range(DIFFERENT)]
    refused: Counter[str] = Counter()
    lock = threading.Lock()

    def one(number: int) -> str:
        client = Client(url, patience=0)  # so that refusals are seen here
        while True:
            try:
                found = result(client, quick(number))
                break
            except ServiceError as error:
                if error.status != 429:
                    return f"{error.status} {error.code}"
                with lock:
                    refused["429"] += 1
                    refused["without Retry-After"] += error.retry_after is None
                time.sleep(0.2)
        expected = alone[number % DIFFERENT]
        return "right" if all(found[name] == expected[name] for name in ASKED) else "mixed up"

    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        outcomes = Counter(pool.map(one, range(requests)))
    return {
        "requests": requests,
        "clients": clients,
        "outcomes": dict(outcomes),
        "refused and asked again": dict(refused),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def for_long(
    url: str, matches: int, keypoints: int, look: Callable[[], dict[str, float]], **others: Any
) -> dict[str, Any]:
    """Memory of the processes after each tenth of `matches` pairs, MB; the store is full long before the end."""
    client, seen = Client(url), []
    photograph = PHOTOGRAPH.read_bytes()
    begin = time.perf_counter()
    for number in range(matches):
        request = asked(number, keypoints, **others)
        if number % 4 == 0:  # a new image, which must go again
            request["image0"] = client.send(photograph)["id"]
        result(client, request)
        if (number + 1) % max(1, matches // 10) == 0:
            seen.append({"matches": number + 1, **look()})
            print(json.dumps(seen[-1]), file=sys.stderr, flush=True)
    return {"keypoints": keypoints, **others, "memory, MB": seen, "seconds": round(time.perf_counter() - begin, 1)}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--matches", type=int, default=2000)
    parser.add_argument("--keypoints", type=int, default=512)
    parser.add_argument("--features", default="aliked")
    parser.add_argument("--resize", type=int, default=480)
    options = parser.parse_args()
    others = {"features": options.features, "resize": options.resize}
    with service(queue=8) as (url, pid):
        found = {"load": many_clients(url, options.requests, options.clients, min(options.keypoints, 128))}
        print(json.dumps(found, indent=1), flush=True)
        print(json.dumps({"before": memory(pid)}), flush=True)
        found = {"long": for_long(url, options.matches, options.keypoints, lambda: memory(pid), **others)}
        print(json.dumps(found, indent=1))
        print(json.dumps(Client(url).health()))


if __name__ == "__main__":
    main()
