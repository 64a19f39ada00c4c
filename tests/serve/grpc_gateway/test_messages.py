"""The table of messages is that of Triton's service, field by field as on the wire."""

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from serve.grpc_gateway.messages import messages

theirs: Any = pytest.importorskip("tritonclient.grpc.service_pb2", reason="tritonclient[grpc] is not installed")


def found(descriptors: Any) -> dict[str, Any]:
    """Messages by name, those inside others too; the entries of all maps are alike."""
    by_name: dict[str, Any] = {}
    for name, descriptor in descriptors.items():
        by_name[name] = descriptor
        by_name |= found(descriptor.nested_types_by_name)
    return by_name


def test_fields_have_their_numbers_and_types():
    from tritonclient.grpc import model_config_pb2

    known = found(theirs.DESCRIPTOR.message_types_by_name) | found(model_config_pb2.DESCRIPTOR.message_types_by_name)
    for name, kind in messages().items():
        for field in kind.DESCRIPTOR.fields:
            other = known[name].fields_by_name[field.name]
            assert (field.number, field.is_repeated) == (other.number, other.is_repeated), f"{name}.{field.name}"
            same = field.type == other.type or other.type == FieldDescriptor.TYPE_ENUM
            assert same, f"{name}.{field.name}"
