import io

import numpy as np
import pytest
from pyarrow import parquet

from pipelines.prediction.predictions_file import parquet_bytes, predictions_table
from resnet.evaluation.error_summary import Ranked


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_file_holds_what_it_was_given(precision: str) -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]])
    ranked = Ranked.of(scores, np.array([2, 0]))
    table = predictions_table(["b", "a"], ranked, precision, {"test": "x"})  # pyright: ignore[reportArgumentType]
    back = parquet.read_table(io.BytesIO(parquet_bytes(table)))
    assert back.schema.metadata[b"test"] == b"x"
    assert back.schema.field("score").type.value_type == back.schema.field("score_of_label").type
    assert back["score_of_label"].to_numpy().dtype == precision
    rows = back.to_pydict()
    assert rows["key"] == ["b", "a"]
    assert rows["label"] == [2, 0]
    assert [top[0] for top in rows["top"]] == [1, 0]
    np.testing.assert_allclose(rows["score"], -np.sort(-scores, axis=1), atol=1e-7)
    np.testing.assert_allclose(rows["score_of_label"], [0.2, 0.5], atol=1e-7)
