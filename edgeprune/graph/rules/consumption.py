"""What a layer's weight consumes of a value."""

from typing import TYPE_CHECKING

from torch import Tensor

from edgeprune.graph.labels import frozen_labels
from edgeprune.graph.planes import Plane, Planes

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling


def consumed_and_passing(
    c: "Coupling", x: Planes, dim: int, may_pass: bool = True
) -> tuple[Tensor, list[Plane]]:
    """Labels of the features along ``dim``, of shape (features,), and the planes that pass.

    Features are computed with alike at all positions, so their labels are tied over those. A
    plane that varies along other dimensions alone passes if it may.
    """
    dim %= len(x.shape)
    passing, consumed = [], []
    for part in x.parts:
        dims = c.varying(part.labels)
        if not dims or dim in dims:
            consumed.append(part)
        elif may_pass:
            passing.append(part)
        else:
            c.freeze(part.labels, "positions are computed with together")
    consumed.sort(key=lambda part: -c.count(part.labels))
    for part in consumed[1:]:
        c.freeze(part.labels, "shares the features of a layer with another structure")
    if not consumed:
        return frozen_labels((x.shape[dim],)), passing
    others = [d for d in range(len(x.shape)) if d != dim]
    return c.tie(consumed[0].labels, others).reshape(-1).expand(x.shape[dim]), passing
