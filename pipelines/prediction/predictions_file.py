"""The Parquet file of a test's predictions: one row an image, in the order of the split."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from resnet.evaluation.error_summary import Ranked

if TYPE_CHECKING:
    import pyarrow as pa

PREDICTIONS = "predictions.parquet"  # in a run's folder, of the finished network


def predictions_table(
    keys: Sequence[str],
    ranked: Ranked,
    precision: Literal["float32", "float64"],
    metadata: Mapping[str, str] | None = None,
) -> pa.Table:
    """Columns key, label, top (the best class first), score, score_of_label; label and top are outputs of the network.

    precision: of the scores; metadata: of the file.
    """
    import pyarrow as pa

    number = pa.float32() if precision == "float32" else pa.float64()
    columns = {
        "key": pa.array(keys, pa.string()),
        "label": pa.array(ranked.labels, pa.int32()),
        "top": pa.array(list(ranked.top.astype(np.int32)), pa.list_(pa.int32())),
        "score": pa.array(list(ranked.scores.astype(precision)), pa.list_(number)),
        "score_of_label": pa.array(ranked.of_label.astype(precision), number),
    }
    return pa.table(columns, metadata=dict(metadata) if metadata else None)


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as the content of a Parquet file."""
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(table, stream, compression="zstd")
    return stream.getvalue()
