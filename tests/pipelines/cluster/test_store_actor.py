"""The store that stands in for Ray's own; ray_internals has it tried as an actor."""

from pipelines.cluster.store_actor import Store


def test_a_store_keeps_the_last_value_and_the_first_where_it_is_told_so() -> None:
    store = Store()
    store.put("a", b"1", overwrite=True)
    store.put("a", b"2", overwrite=False)
    assert store.get("a") == b"1"
    store.put("a", b"3", overwrite=True)
    assert (store.get("a"), store.get("b")) == (b"3", None)
    assert (store.list("a"), store.list("b")) == ([b"a"], [])
    store.remove("a")
    store.remove("a")
    assert store.get("a") is None
