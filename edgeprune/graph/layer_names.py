"""What a person calls a layer: the path of the module that owns its weight."""

_USUAL = {"weight", "bias", "running_mean", "running_var"}


def layer_name(tensor: str) -> str:
    """The module path of a parameter or buffer; its whole name where the leaf tells more.

    ``encoder.0.linear`` for ``encoder.0.linear.weight``, and ``attn.in_proj_weight`` as it is.
    """
    path, _, leaf = tensor.rpartition(".")
    return path if path and leaf in _USUAL else tensor
