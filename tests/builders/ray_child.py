"""A real Ray cluster of two nodes on this machine, and what the ray engine does when things die.

    python ray_child.py ROOT

ROOT has a recipe.yaml. Prints a line of JSON: what each play came to. A process of its own,
because Ray starts threads and leaves sockets to the interpreter's end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster

from stylear.curate import run as runner
from stylear.curate.engine import Engine
from stylear.curate.recipe import load_recipe
from stylear.errors import CorpusError, StylearError

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
RAISES, DIES = -1, -2  # numbers that no square is made of


def square(log: Path) -> Callable[[int], tuple[int, str]]:
    """Built once an actor: notes the process that built it."""
    with log.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return partial(_square, log.parent)


def _square(folder: Path, number: int) -> tuple[int, str]:
    import ray

    with (folder / f"tries-{number}").open("a") as file:
        file.write("x")
    time.sleep(0.05)
    if number == DIES:
        os._exit(1)
    if number == RAISES:
        raise CorpusError("a bad number", hint="take another")
    return number * number, ray.get_runtime_context().get_node_id()


def tries(root: Path, number: int) -> int:
    return len((root / f"tries-{number}").read_text())


def node_dies_between_units(cluster: Any, root: Path) -> dict[str, Any]:
    """Units on two nodes, one of which is killed at the tenth result; 20 more once it is gone."""
    import ray

    victim = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    engine, log = Engine("ray", cluster.address), root / "units.log"
    values, nodes = [], []

    def units() -> Iterator[int]:
        number = rest = 0
        while rest < 20 and number < 1000:
            yield number
            number += 1
            alive = sum(node["Alive"] for node in ray.nodes())
            rest += alive == 1

    for value, node in engine.map_units(partial(square, log), units(), 1000):
        values.append(value)
        nodes.append(node)
        if len(values) == 10:
            cluster.remove_node(victim, allow_graceful=False)
    built = log.read_text().split()
    return {
        "right": values == [number * number for number in range(len(values))],
        "enough": 30 <= len(values) < 1000,
        "nodes": len(set(nodes)),
        "at the end": len(set(nodes[-10:])),
        "built": len(built),
        "processes": len(set(built)),
        "tries": max(tries(root, number) for number in range(len(values))),
    }


def units_fail(cluster: Any, root: Path) -> dict[str, Any]:
    """A unit that raises, and one that takes its worker with it each time."""
    report: dict[str, Any] = {}
    for name, number in (("raises", RAISES), ("dies", DIES)):
        try:
            list(
                Engine("ray", cluster.address).map_units(
                    partial(square, root / "fails.log"), iter([1, number, 2]), 3
                )
            )
        except StylearError as error:
            report[name] = [type(error).__name__, error.message, error.hint]
    report["tries"] = tries(root, DIES)
    return report


def node_dies_in_a_run(cluster: Any, root: Path) -> dict[str, Any]:
    """A whole corpus on two nodes, one of which is killed once the first stylized shard is committed."""
    victim = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    corpus, report = root / "on-ray", {"killed": False}

    def kill() -> None:
        entry = corpus / "ledger" / "synthesize" / "00000.json"
        while not entry.exists():
            time.sleep(0.005)
        cluster.remove_node(victim, allow_graceful=False)
        report["killed"] = not (corpus / "manifest.json").exists()

    killer = Thread(target=kill)
    killer.start()
    engine = Engine("ray", cluster.address)
    done = runner.run(load_recipe(root / "recipe.yaml"), corpus, workers=2, engine=engine)
    killer.join()
    return {**report, "made": {result.stage: result.new for result in done.results}}


def no_cluster_answers() -> list[str]:
    """The address of nothing."""
    try:
        list(Engine("ray", "127.0.0.1:9").map_units(square, iter([1]), 1))
    except StylearError as error:
        return [type(error).__name__, error.message.partition(": ")[0]]
    return []


def main() -> None:
    root = Path(sys.argv[1])
    nobody = no_cluster_answers()
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        report = {
            "nobody": nobody,
            "units": node_dies_between_units(cluster, root),
            "fails": units_fail(cluster, root),
            "run": node_dies_in_a_run(cluster, root),
        }
    finally:
        cluster.shutdown()
    print("\n" + json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
