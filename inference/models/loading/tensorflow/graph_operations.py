"""Operations of a SavedModel that reach outside of the model: files, the network, Python.

The check runs on the file, before TensorFlow loads it: loading runs some of its functions. Every SavedModel has functions that
save and restore weights, so that their operations are refused only in the function that classifies images.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from inference.errors import ConfigurationError, shown

#: TensorFlow's names of operations (tensorflow/core/ops): reading, writing, datasets of files, summaries, Python, other hosts.
_OUTSIDE = re.compile(
    r"(ReadFile|WriteFile|Matching|FileSystem\w*|\w*Reader(V2)?|"
    r"(TextLine|TFRecord|FixedLengthRecord|Sql|LMDB|CSV|MatchingFiles|Cache|Snapshot|Save|Load|DataService|Generator)\w*Dataset\w*|"
    r"MatchingFiles|\w*Summary(File|Db)?Writer\w*|Write\w*Summary|Import(Event|Summary)\w*|DebugIdentity\w*|DebugNanCount|"
    r"DebugNumericSummary\w*|(Eager)?PyFunc(Stateless)?|RemoteCall|Rpc\w*|DistributedSave\w*|RegisterDataset\w*|Collective\w*)"
)
_WEIGHTS = re.compile(r"(Save|SaveV2|SaveSlices|Restore|RestoreV2|RestoreSlice|MergeV2Checkpoints)")
#: Operations whose first or second input names a file: allowed only for an asset, which comes from outside of the function.
_OF_ASSETS = {"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"}
_PRINT = "PrintV2"


def check_saved_model(model: Any) -> None:
    """Raise ConfigurationError if an operation reaches outside.

    Args:
        model: the message `SavedModel`.
    """
    for graph in model.meta_graphs:
        assets = {asset.tensor_info.name.partition(":")[0] for asset in graph.asset_file_def}
        _check_nodes(graph.graph_def.node, assets)
        for function in graph.graph_def.library.function:
            _check_nodes(function.node_def, {argument.name for argument in function.signature.input_arg})


def check_function(function: Any) -> None:
    """Raise ConfigurationError if a function, or one that it calls, saves or restores weights.

    Args:
        function: a concrete function of TensorFlow.
    """
    graph = function.graph.as_graph_def()
    for node in _all_nodes(graph):
        if _WEIGHTS.fullmatch(node.op):
            raise _refusal(node.op)


def _all_nodes(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _check_nodes(nodes: Collection[Any], given: Collection[str]) -> None:
    """Check the operations of one graph or function; `given` are the names of its assets or arguments."""
    for node in nodes:
        if _OUTSIDE.fullmatch(node.op):
            raise _refusal(node.op)
        if node.op == _PRINT and node.attr["output_stream"].s.startswith(b"file:"):
            raise _refusal(node.op)
        if node.op in _OF_ASSETS and node.input[1].lstrip("^").partition(":")[0] not in given:
            raise _refusal(node.op)


def _refusal(operation: str) -> ConfigurationError:
    return ConfigurationError(f"has an operation that reaches files, other hosts or Python, which is refused: {shown(operation)}")
