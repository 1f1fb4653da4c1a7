"""To which part a layer of a profile belongs when its name does not say it."""

from typing import Any

from small_network import layer, small_network

from edgeprune.graph.sites import find_sites
from edgeprune.latency.attribution import Attribution


def dense_profile() -> list[dict[str, Any]]:
    """As the dense network runs: an addition and its activation inside of a convolution."""
    layers = [layer("/stem/Conv", original=["/stem/Conv", "/relu/Relu"])]
    for i in range(3):
        first, second = f"/blocks_{i}_first/Conv", f"/blocks_{i}_second/Conv"
        layers.append(layer(first, original=[first, f"/blocks_{i}_relu/Relu"]))
        added = [f"/blocks_{i}_add/Add", f"/blocks_{i}_relu_1/Relu"]
        layers.append(layer(second, original=[second, *added]))
    return [*layers, layer("/mean/ReduceMean"), layer("output_0", 0.5, [])]


def attribution() -> Attribution:
    network = small_network()
    return Attribution(network, dense_profile(), find_sites(network.captured.module))


def test_what_bears_an_outputs_name_stays_where_the_dense_model_has_it() -> None:
    found = attribution()
    dense = found.time_by_bucket(dense_profile())
    fused = [entry for entry in dense_profile() if entry["name"] != "/mean/ReduceMean"]
    without_mean = found.time_by_bucket(fused)
    last = next(bucket for bucket in dense if bucket[1] == "blocks_2_second@format")
    assert dense[last] == without_mean[last] == 1.0
    assert sum(without_mean.values()) == sum(dense.values()) - 1.0


def test_leftovers_of_an_emptied_block_are_seen_in_the_layer_before() -> None:
    found = attribution()
    assert found.structures_fused(dense_profile()) == {}
    emptied = [entry for entry in dense_profile() if "blocks_1" not in entry["name"]]
    emptied[2]["original"] += ["/blocks_1_add/Add", "/blocks_1_relu_1/Relu"]
    ((bucket, names),) = found.structures_fused(emptied).items()
    assert bucket[1] == "blocks_0_second@format"
    assert len(names) == 1
    assert names[0].startswith("blocks.1")
