"""Labels as sources write them, numbers or names, become ids of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipelines.preparation.listing import Listing, classes_by_keys, classes_of, in_order, read_class_list, some
from pipelines.shards.manifest import SplitName
from pipelines.storage import Folder
from resnet.image_class import ImageClass

pc: Any = pyarrow.compute  # its functions are made at import, a type checker sees none
TEXTS = pa.schema(
    [("key", pa.string()), ("text", pa.string()), ("path", pa.string()), ("offset", pa.int64()), ("size", pa.int64())]
)
NUMBER = r"^-?\d+$"


def with_ids(
    kind: str,
    source: Folder,
    tables: dict[SplitName, pa.Table],
    class_list: str | None,
    named: bool | None = None,
    number_names: Sequence[str] | None = None,
) -> Listing:
    """The listing of tables that have `text` for `label`.

    named: whether texts are names; None: told by the texts. number_names: names of numbers that have no class list.
    Names get the ids of their place in `class_list` (as id or as name), else of their sorted order in train; numbers
    are ids. ValueError: numbers beside names, or a name that train, or the list, does not have.
    """
    ids, names = read_class_list(class_list) if class_list else ([], [])
    if not (_are_names(tables) if named is None else named):
        numbered: dict[SplitName, pa.Table] = {
            split: _labelled(table, pc.cast(table["text"], pa.int32())) for split, table in tables.items()
        }
        return Listing(kind, source, classes_by_keys(numbered["train"], names or number_names), numbered)
    found = sorted(pc.unique(tables["train"]["text"]).to_pylist())
    order = _order(found, ids, names)
    labelled: dict[SplitName, pa.Table] = {
        split: _by_order(table, order, split, bool(ids)) for split, table in tables.items()
    }
    return Listing(kind, source, _classes(order, ids, names), labelled)


def _are_names(tables: dict[SplitName, pa.Table]) -> bool:
    """True if labels are names. ValueError: some are numbers, others not."""
    numbers, others = [], []
    for table in tables.values():
        is_number = pc.match_substring_regex(table["text"], NUMBER)
        numbers += table.filter(is_number).slice(0, 1).to_pylist()
        others += table.filter(pc.invert(is_number)).slice(0, 1).to_pylist()
    if numbers and others:
        one, other = numbers[0], others[0]
        raise ValueError(
            f"labels must be all numbers or all names, {one['key']} in {one['path']} has {one['text']!r} and "
            f"{other['key']} in {other['path']} has {other['text']!r}"
        )
    return bool(others)


def _order(found: Sequence[str], ids: Sequence[str], names: Sequence[str]) -> list[str]:
    """The texts in the order of ids: that of the list, by its ids or its names, else sorted."""
    if not ids:
        return list(found)
    return next((list(column) for column in (ids, names) if set(found) <= set(column)), list(ids))


def _by_order(table: pa.Table, order: Sequence[str], split: SplitName, by_list: bool) -> pa.Table:
    index = pc.index_in(table["text"], value_set=pa.array(order, pa.string()))
    if index.null_count:
        missing = some(pc.unique(table.filter(pc.is_null(index))["text"]).to_pylist())
        where = "source.classes" if by_list else "train too"
        raise ValueError(f"every class in {split} must be in {where}, {missing} is not")
    return _labelled(table, index)


def _labelled(table: pa.Table, labels: Any) -> pa.Table:
    return in_order([table.set_column(1, "label", pc.cast(labels, pa.int32()))])


def _classes(order: Sequence[str], ids: Sequence[str], names: Sequence[str]) -> tuple[ImageClass, ...]:
    return classes_of(list(ids), list(names)) if ids else classes_of(order)
