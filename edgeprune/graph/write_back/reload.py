"""Give a freshly built dense module the sizes and weights of a finished run."""

from pathlib import Path

from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.graph.parametrizations import bake_parametrizations
from edgeprune.graph.weights import read_tensors, read_weights_of
from edgeprune.graph.write_back.attention import free_heads
from edgeprune.graph.write_back.check import Answers
from edgeprune.graph.write_back.sizes import Sizes, load_sizes
from edgeprune.graph.write_back.state import Snapshot, find_tensor, set_attributes, set_tensors

SIZES = "sizes.json"
WEIGHTS = "module.safetensors"
CHECK = "check.safetensors"


def resize(model: nn.Module, sizes: Sizes | Path | str) -> nn.Module:
    """Give a dense module the sizes of a shrunk one, in place; any state dict of those then fits.

    Tensors keep their leading entries until weights are loaded. Weights that parametrizations
    compute become plain parameters.

    Args:
        model: Built as it was for the run.
        sizes: Or the path of a ``sizes.json``.

    Returns:
        The same module.

    Raises:
        InputError: The file cannot be read, or the sizes are not of this module, which is then as
            it was.
    """
    sizes = sizes if isinstance(sizes, Sizes) else load_sizes(sizes)
    snapshot = Snapshot(model)
    try:
        _resize(model, sizes)
    except BaseException:
        snapshot.restore()
        raise
    return model


def load_shrunk(model: nn.Module, folder: Path | str) -> nn.Module:
    """Make a freshly built dense module the shrunk one of a target's folder, in place.

    Its outputs are compared with those that were stored with the weights.

    Args:
        model: Built as it was for the run; its weights do not matter.
        folder: Such as ``RUN_DIR/2x``.

    Returns:
        The same module, in the mode it was in.

    Raises:
        InputError: A file is missing or damaged, or does not fit this module; the module is then
            as it was.
    """
    folder = Path(folder)
    if not (folder / SIZES).is_file():
        raise InputError(
            f"{folder} has no {SIZES}: either it is no target's folder, or the model's own module "
            "cannot take the sizes; edgeprune report RUN_DIR says why"
        )
    sizes = load_sizes(folder / SIZES)
    answers = Answers.from_tensors(read_tensors(folder / CHECK), folder / CHECK)
    snapshot = Snapshot(model)
    try:
        _resize(model, sizes)
        set_tensors(model, read_weights_of(model, folder / WEIGHTS))
        if complaint := answers.complaint(model):
            raise InputError(
                f"{type(model).__name__} with the weights of {folder} {complaint}; "
                "is it built as it was for the run?"
            )
    except BaseException:
        snapshot.restore()
        raise
    return model


def _resize(model: nn.Module, sizes: Sizes) -> None:
    bake_parametrizations(model)
    set_tensors(model, {name: _cut(model, name, shape) for name, shape in sizes.tensors.items()})
    for attributes in (sizes.modules, sizes.own):
        try:
            free_heads(model, attributes)
            set_attributes(model, attributes)
        except AttributeError as error:
            raise InputError(f"the sizes are of another model: {error}") from error


def _cut(model: nn.Module, name: str, shape: tuple[int, ...]) -> Tensor:
    """The leading entries of a tensor."""
    tensor = find_tensor(model, name)
    if tensor is None:
        raise InputError(f"the sizes are of another model: this one has no tensor '{name}'")
    if tensor.dim() != len(shape) or any(a < b for a, b in zip(tensor.shape, shape, strict=True)):
        raise InputError(
            f"the sizes are of another model: '{name}' is {list(tensor.shape)} and shall become "
            f"{list(shape)}"
        )
    return tensor[tuple(slice(size) for size in shape)]
