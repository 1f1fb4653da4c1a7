"""Run a module as at inference, and tell where in its author's code it failed."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Folders, not their names: a user's code may well lie in a folder called torch.
_NOT_THE_USERS = (os.path.dirname(torch.__file__) + os.sep, str(Path(__file__).parents[1]) + os.sep)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """All modules in eval mode; afterwards in the mode they were in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without torch's logs and warnings about what is raised anyway."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """All tensors that a module returns, in order; it gets copies of its inputs."""
    with torch.no_grad(), evaluating(model):
        return [y.detach() for y in flat_tensors(model(*(x.clone() for x in inputs)))]


def flat_tensors(value: Any) -> list[Tensor]:
    """All tensors of a result, in order."""
    leaves = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says anything."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def line_in_users_code(error: BaseException) -> str:
    """The last line of the user's code that was running, as ``/path/file.py:12``, or nothing."""
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(("<", *_NOT_THE_USERS)):
            place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
