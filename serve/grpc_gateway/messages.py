"""Messages of the Open Inference Protocol's gRPC service, from a table of their fields.

No generated code: that of tritonclient and of KServe registers the same names in protobuf's common pool, and two of
them do not fit into one process. Ours lie in a pool of their own. On the wire neither the place of a message's
definition nor its name counts, so nested messages stand beside the others, a map is a list of its entries, and an enum
a number.

Source: KServe's open_inference_grpc.proto and Triton's grpc_service.proto and model_config.proto.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
# message: fields as `name number type`; [] for a list, a capital for another message of the table
TABLE = """
ServerLiveRequest:
ServerLiveResponse: live 1 bool
ServerReadyRequest:
ServerReadyResponse: ready 1 bool
ModelReadyRequest: name 1 string, version 2 string
ModelReadyResponse: ready 1 bool
ServerMetadataRequest:
ServerMetadataResponse: name 1 string, version 2 string, extensions 3 string[]
ModelMetadataRequest: name 1 string, version 2 string
TensorMetadata: name 1 string, datatype 2 string, shape 3 int64[]
ModelMetadataResponse: name 1 string, versions 2 string[], platform 3 string, inputs 4 TensorMetadata[],\
 outputs 5 TensorMetadata[]
InferParameter: bool_param 1 bool, int64_param 2 int64, string_param 3 string, double_param 4 double,\
 uint64_param 5 uint64
ParametersEntry: key 1 string, value 2 InferParameter
InferTensorContents: bool_contents 1 bool[], int_contents 2 int32[], int64_contents 3 int64[],\
 uint_contents 4 uint32[], uint64_contents 5 uint64[],\
 fp32_contents 6 float[], fp64_contents 7 double[], bytes_contents 8 bytes[]
InferInputTensor: name 1 string, datatype 2 string, shape 3 int64[], parameters 4 ParametersEntry[],\
 contents 5 InferTensorContents
InferRequestedOutputTensor: name 1 string, parameters 2 ParametersEntry[]
ModelInferRequest: model_name 1 string, model_version 2 string, id 3 string, parameters 4 ParametersEntry[],\
 inputs 5 InferInputTensor[], outputs 6 InferRequestedOutputTensor[], raw_input_contents 7 bytes[]
InferOutputTensor: name 1 string, datatype 2 string, shape 3 int64[]
ModelInferResponse: model_name 1 string, model_version 2 string, id 3 string, outputs 5 InferOutputTensor[],\
 raw_output_contents 6 bytes[]
ModelConfigRequest: name 1 string, version 2 string
ModelInput: name 1 string, data_type 2 int32, dims 4 int64[], optional 8 bool
ModelOutput: name 1 string, data_type 2 int32, dims 3 int64[]
ModelConfig: name 1 string, platform 2 string, max_batch_size 4 int32, input 5 ModelInput[], output 6 ModelOutput[]
ModelConfigResponse: config 1 ModelConfig
StatisticDuration: count 1 uint64, ns 2 uint64
InferStatistics: success 1 StatisticDuration, fail 2 StatisticDuration, queue 3 StatisticDuration,\
 compute_input 4 StatisticDuration, compute_infer 5 StatisticDuration, compute_output 6 StatisticDuration,\
 cache_hit 7 StatisticDuration, cache_miss 8 StatisticDuration
ModelStatistics: name 1 string, version 2 string, inference_count 4 uint64, execution_count 5 uint64,\
 inference_stats 6 InferStatistics
ModelStatisticsRequest: name 1 string, version 2 string
ModelStatisticsResponse: model_stats 1 ModelStatistics[]
RepositoryIndexRequest: repository_name 1 string, ready 2 bool
ModelIndex: name 1 string, version 2 string, state 3 string, reason 4 string
RepositoryIndexResponse: models 1 ModelIndex[]
"""
METHODS = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
)


@cache
def messages() -> dict[str, Any]:
    """The classes of the table, by name."""
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package="inference", syntax="proto3")
    for line in TABLE.strip().splitlines():
        name, _, fields = line.partition(":")
        message = file.message_type.add(name=name)
        for field in fields.split(","):
            if words := field.split():
                _add_field(message, *words)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # pyright: ignore[reportAttributeAccessIssue]  not in the stubs
    found = pool.FindFileByName(file.name).message_types_by_name
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}


def _add_field(message: Any, name: str, number: str, kind: str) -> None:
    field = descriptor_pb2.FieldDescriptorProto
    several, plain = kind.endswith("[]"), kind.removesuffix("[]")
    label = field.LABEL_REPEATED if several else field.LABEL_OPTIONAL
    added = message.field.add(name=name, number=int(number), label=label)
    if plain[0].isupper():
        added.type, added.type_name = field.TYPE_MESSAGE, f".inference.{plain}"
    else:
        added.type = getattr(field, f"TYPE_{plain.upper()}")
