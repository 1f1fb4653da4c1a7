"""Kill recovery with SIGKILL at random times, resume, compare with an unbroken run.

Forks of one process, so that only the first pays for importing torch. Prints how many runs were
killed after their first checkpoint and before their end.
"""

import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import small_networks
import torch
from safetensors.torch import load_file, save_file
from torch import fx

from edgeprune.formats import Format
from edgeprune.recipe import LossRecipe, RecoveryRecipe
from edgeprune.recovery.distil import recover

Network = tuple[fx.GraphModule, fx.GraphModule, small_networks.Batches]
FORMATS: dict[str, Format] = {}
RECIPE = RecoveryRecipe(
    steps=240, precision="f32", checkpoint_s=0.02, evaluations=12, learning_rate=3e-3
)
# Without features the dense network's answers are computed once, which a resumed run must honour.
OUTPUTS_ONLY = replace(RECIPE, loss=LossRecipe(features=0.0))


def in_fork(network: Network, recipe: RecoveryRecipe, folder: Path, result: Path) -> int:
    """Start a recovery in a fork that ends by writing its weights; returns its process id."""
    child = os.fork()
    if child:
        return child
    recovered = recover(*network, recipe, minutes=1, folder=folder, formats=FORMATS)
    # A result that exists must be whole: the kill may fall into its writing too.
    save_file(recovered.module.state_dict(), partial := result.with_suffix(".partial"))
    partial.rename(result)
    os._exit(0)


def main(name: str, folder: Path) -> None:
    torch.set_num_threads(1)
    whole, broken = folder / "whole.safetensors", folder / "broken.safetensors"
    name, _, formats = name.partition("-")
    network: Network = getattr(small_networks, name)()
    if formats:
        FORMATS.update(small_networks.store_in_formats(network[0]))
    recipe = OUTPUTS_ONLY if name == "lookup" else RECIPE
    began = time.monotonic()
    _, status = os.waitpid(in_fork(network, recipe, folder / "unbroken", whole), 0)
    assert status == 0, "the unbroken run failed"
    took = time.monotonic() - began
    chance, midway = random.Random(name), 0
    for _ in range(12):
        child = in_fork(network, recipe, folder / "killed", broken)
        time.sleep(chance.uniform(0.15, 0.45) * took)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if broken.exists():
            break
        midway += (folder / "killed" / "checkpoint.safetensors").exists()
    else:
        os.waitpid(in_fork(network, recipe, folder / "killed", broken), 0)
    first, second = load_file(whole), load_file(broken)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first), "the results differ"
    print(midway)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
