"""Talks to a running mesh with an unmodified client of TensorFlow Serving over gRPC: min-tfs-client, and its own messages.

Interface, for whoever starts the mesh:

  environment  MESH_GRPC    the gRPC door, e.g. 127.0.0.1:8001
               MESH_KEY     an API key of a tenant with models that give back what they get: identity_<datatype> in lower case, x [-1]
                            -> y [-1], batching; `classes`, FP32 [3], whose outputs are labelled cat, dog and owl; `number`, FP32 [1]
               MESH_DESCRIPTORS  a file with the mesh's own FileDescriptorSet of these calls
  exit status  0 when everything holds; otherwise a traceback that names what does not
  last line    "conformance: all <n> checks hold"
"""

import os
import sys

import grpc
import numpy as np
from google.protobuf import descriptor_pb2
from min_tfs_client.requests import TensorServingClient
from min_tfs_client.tensors import tensor_proto_to_ndarray
from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import error_codes_pb2, meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from tensorflow_serving.util import status_pb2

HOST, PORT = os.environ["MESH_GRPC"].rsplit(":", 1)
KEY = os.environ["MESH_KEY"]
TIMEOUT = 30
ARRAYS = {
    "bool": np.array([[True, False, True]]),
    "int8": np.array([[1, -2, -128]], np.int8),
    "int16": np.array([[1, -2, 32767]], np.int16),
    "int32": np.array([[1, -2, 2**31 - 1]], np.int32),
    "int64": np.array([[1, -2, -(2**63)]], np.int64),
    "uint8": np.array([[1, 2, 255]], np.uint8),
    "uint16": np.array([[1, 2, 65535]], np.uint16),
    "uint32": np.array([[1, 2, 2**32 - 1]], np.uint32),
    "uint64": np.array([[1, 2, 2**64 - 1]], np.uint64),
    "fp32": np.array([[1.5, -0.0, np.inf], [1e-7, 3.0, -2.25]], np.float32),
    "fp64": np.array([[1.5, -0.0, 1e300]], np.float64),
    "bytes": np.array([["a", "\u00e4", ""]]),
}
checks = 0


def check(holds, what):
    global checks
    checks += 1
    if not holds:
        raise AssertionError(what)


def refused(code, call, text):
    try:
        call()
    except grpc.RpcError as error:
        check(error.code() == code, f"{error.code()} instead of {code}: {error.details()}")
        check(text in error.details(), f"'{text}' is not in '{error.details()}'")
        return
    raise AssertionError(f"a call that must fail with {code} went through")


class WithKey(grpc.UnaryUnaryClientInterceptor):
    """Adds the key to every call: the client has no place for it."""

    def intercept_unary_unary(self, continuation, details, request):
        metadata = list(details.metadata or []) + [("authorization", "Bearer " + KEY)]
        return continuation(details._replace(metadata=metadata), request)


def predictions(client):
    for name, array in ARRAYS.items():
        answer = client.predict_request(f"identity_{name}", {"x": array}, timeout=TIMEOUT)
        output = answer.outputs["y"]
        if name == "bytes":  # The client takes texts for ASCII.
            check(list(output.string_val) == [text.encode() for text in array[0]], f"{output} comes back")
        else:
            got = tensor_proto_to_ndarray(output)
            check(got.shape == array.shape and np.array_equal(got, array), f"{name}: {got} comes back")
        check(answer.model_spec.name == f"identity_{name}" and answer.model_spec.version.value == 1, f"{answer.model_spec}")
    answer = client.predict_request("identity_fp32", {"x": ARRAYS["fp32"]}, timeout=TIMEOUT, model_version=1)
    check(np.array_equal(tensor_proto_to_ndarray(answer.outputs["y"]), ARRAYS["fp32"]), "another answer of version 1")


def other_forms(stub):
    """Bytes in place of elements, the last element in place of all, and fractions of 16 bits by their bits."""

    def ask(model, **tensor):
        shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in (1, 3)])
        request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name=model, signature_name="serving_default"))
        request.inputs["x"].CopyFrom(tensor_pb2.TensorProto(tensor_shape=shape, **tensor))
        request.output_filter.append("y")
        return stub.Predict(request, timeout=TIMEOUT).outputs["y"]

    raw = np.array([1.5, 2.5, 3.5], np.float32)
    check(ask("identity_fp32", dtype=types_pb2.DT_FLOAT, tensor_content=raw.tobytes()).float_val == raw.tolist(), "bytes")
    check(ask("identity_int64", dtype=types_pb2.DT_INT64, int64_val=[7]).int64_val == [7, 7, 7], "one for all")
    bits = [0x3C00, 0x8000, 0x7BFF]
    for model, dtype in [("identity_fp16", types_pb2.DT_HALF), ("identity_bf16", types_pb2.DT_BFLOAT16)]:
        check(ask(model, dtype=dtype, half_val=bits).half_val == bits, f"the bits of {model}")


def examples(stub):
    def example(values):
        feature = feature_pb2.Feature(float_list=feature_pb2.FloatList(value=values))
        return example_pb2.Example(features=feature_pb2.Features(feature={"x": feature}))

    def of(*rows):
        return input_pb2.Input(example_list=input_pb2.ExampleList(examples=[example(row) for row in rows]))

    request = classification_pb2.ClassificationRequest(input=of([0.5, 0.25, 1.0], [1.0, 2.0, 3.0]))
    request.model_spec.name = "classes"
    result = stub.Classify(request, timeout=TIMEOUT).result
    told = [[(one.label, one.score) for one in row.classes] for row in result.classifications]
    check(told[0] == [("cat", 0.5), ("dog", 0.25), ("owl", 1.0)] and len(told) == 2, f"classes {told}")
    request = regression_pb2.RegressionRequest(input=of([1.5], [-2.0]))
    request.model_spec.name = "number"
    values = [one.value for one in stub.Regress(request, timeout=TIMEOUT).result.regressions]
    check(values == [1.5, -2.0], f"numbers {values}")
    request.model_spec.name = "classes"
    refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: stub.Regress(request, timeout=TIMEOUT), "'x'")
    multi = inference_pb2.MultiInferenceRequest(input=of([1.5]))
    refused(grpc.StatusCode.UNIMPLEMENTED, lambda: stub.MultiInference(multi, timeout=TIMEOUT), "not offered")


def about(stub, channel):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "identity_int32"
    answer = stub.GetModelMetadata(request, timeout=TIMEOUT)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    check(answer.metadata["signature_def"].Unpack(signatures), "the metadata hold something else")
    tensor = signatures.signature_def["serving_default"].inputs["x"]
    check(tensor.dtype == types_pb2.DT_INT32 and [dim.size for dim in tensor.tensor_shape.dim] == [-1, -1], f"{tensor}")
    status = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "identity_int32"
    [version] = status.GetModelStatus(request, timeout=TIMEOUT).model_version_status
    check(version.version == 1 and version.state == version.AVAILABLE and version.status.error_code == 0, f"{version}")
    request.model_spec.version_label = "none"
    ask = lambda: status.GetModelStatus(request, timeout=TIMEOUT)  # noqa: E731
    refused(grpc.StatusCode.INVALID_ARGUMENT, ask, "Unrecognized servable version label: none")


def errors(client):
    array = {"x": ARRAYS["fp32"]}
    ask = client.predict_request
    refused(grpc.StatusCode.NOT_FOUND, lambda: ask("none", array), "Servable not found for request: Latest(none)")
    missing = lambda: ask("identity_fp32", array, model_version=9)  # noqa: E731
    refused(grpc.StatusCode.NOT_FOUND, missing, "Servable not found for request: Specific(identity_fp32, 9)")
    refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: ask("identity_int8", array), "data-type is 'FP32'")
    stranger = TensorServingClient(HOST, int(PORT))
    refused(grpc.StatusCode.UNAUTHENTICATED, lambda: stranger.predict_request("identity_fp32", array), "")


def the_protocols_names_and_numbers():
    """Every call, message and field that the mesh declares is TensorFlow's, by its name, number and type."""
    with open(os.environ["MESH_DESCRIPTORS"], "rb") as file:
        ours = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    known, mine = {}, {}
    modules = (
        classification_pb2, error_codes_pb2, example_pb2, feature_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2,
        input_pb2, meta_graph_pb2, model_pb2, model_service_pb2, predict_pb2, prediction_service_pb2, regression_pb2, status_pb2,
        tensor_pb2, tensor_shape_pb2, types_pb2,
    )
    for module in modules:
        theirs = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(theirs)
        gather(theirs, known)
    for file in ours.file:
        if file.package.startswith("tensorflow"):
            gather(file, mine)
    check(len(mine) > 100, f"only {len(mine)} names are declared")
    for name, what in mine.items():
        check(known.get(name) == what, f"{name} is {what}, and {known.get(name)} in TensorFlow's")


def gather(file, names):
    """Calls, fields and values by their full names, with their numbers and types."""

    def message(prefix, one):
        name = f"{prefix}.{one.name}"
        for field in one.field:
            names[f"{name}.{field.name}"] = (field.number, field.type, field.label, field.type_name)
        for nested in one.nested_type:
            message(name, nested)
        enumerations(name, one.enum_type)

    def enumerations(prefix, enums):
        for enum in enums:
            for value in enum.value:
                names[f"{prefix}.{enum.name}.{value.name}"] = value.number

    for one in file.message_type:
        message(file.package, one)
    enumerations(file.package, file.enum_type)
    for service in file.service:
        for call in service.method:
            names[f"{file.package}.{service.name}.{call.name}"] = (call.input_type, call.output_type)


def main():
    client = TensorServingClient(HOST, int(PORT))
    client._channel = grpc.intercept_channel(client._channel, WithKey())
    stub = prediction_service_pb2_grpc.PredictionServiceStub(client._channel)
    predictions(client)
    other_forms(stub)
    examples(stub)
    about(stub, client._channel)
    errors(client)
    the_protocols_names_and_numbers()
    print(f"conformance: all {checks} checks hold")


if __name__ == "__main__":
    sys.exit(main())
