"""Talks to a running mesh with NVIDIA's own client, unmodified: tritonclient[grpc], its asyncio form included.

Interface, for whoever starts the mesh:

  environment  MESH_URL     the HTTP door, e.g. 127.0.0.1:8000 (a leading http:// is fine)
               MESH_GRPC    the gRPC door, e.g. 127.0.0.1:8001
               MESH_KEY     an API key of the tenant that owns the models
               MESH_OTHER   an API key of another tenant, to whom nothing is granted
               MESH_DESCRIPTORS  a file with the mesh's own FileDescriptorSet
               models       identity_<datatype>, one for each of tritonclient's datatypes in lower case, x [-1] -> y [-1], batching;
                            slow, which does the same with FP32 and takes 300 ms, and simple_sequence and
                            simple_dyna_sequence as in triton_sequences.py
  exit status  0 when everything holds; otherwise a traceback that names what does not
  last line    "conformance: all <n> checks hold"
"""

import asyncio
import os
import queue

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.http as triton_http
from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

URL = os.environ["MESH_GRPC"]
HTTP = os.environ["MESH_URL"].removeprefix("http://").rstrip("/")
AUTH = {"authorization": "Bearer " + os.environ["MESH_KEY"]}
OTHER = {"authorization": "Bearer " + os.environ["MESH_OTHER"]}
DATATYPES = {
    "BOOL": np.array([[True, False, True]]),
    "INT8": np.array([[1, -2, -128]], np.int8),
    "INT16": np.array([[1, -2, 32767]], np.int16),
    "INT32": np.array([[1, -2, 2**31 - 1]], np.int32),
    "INT64": np.array([[1, -2, -(2**63)]], np.int64),
    "UINT8": np.array([[1, 2, 255]], np.uint8),
    "UINT16": np.array([[1, 2, 65535]], np.uint16),
    "UINT32": np.array([[1, 2, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[1, 2, 2**64 - 1]], np.uint64),
    "FP16": np.array([[1.5, -2, 0]], np.float16),
    "FP32": np.array([[1.5, -2.25, np.inf]], np.float32),
    "FP64": np.array([[1.5, -2.25, 1e300]], np.float64),
    "BYTES": np.array([["a", "ä", ""]], dtype=object),
    "BF16": np.array([[1.5, -2, 0]], ml_dtypes.bfloat16),
}
checks = 0


def check(holds, what):
    global checks
    checks += 1
    if not holds:
        raise AssertionError(what)


def refused(code, call, *texts):
    """The call must fail with this code, and its message hold the texts."""
    try:
        call()
    except InferenceServerException as error:
        check(code in str(error.status()), f"status {error.status()} instead of {code}: {error}")
        for text in texts:
            check(text in error.message(), f"'{text}' is not in '{error.message()}'")
        return
    raise AssertionError(f"a call that must fail with {code} went through")


def model_of(datatype):
    return "identity_" + datatype.lower()


def same(got, wanted):
    if wanted.dtype == object:
        texts = [text.decode() if isinstance(text, bytes) else text for text in got.flatten()]
        return texts == list(wanted.flatten())
    if wanted.dtype == ml_dtypes.bfloat16:
        return np.array_equal(got.astype(np.float32), wanted.astype(np.float32))
    return np.array_equal(got, wanted)


def tensor(datatype, kind=triton):
    data = DATATYPES[datatype]
    one = kind.InferInput("x", list(data.shape), datatype)
    one.set_data_from_numpy(data)
    return one


def server_and_metadata(client):
    check(client.is_server_live(), "the server is not live")
    check(client.is_server_ready(), "the server is not ready")
    server = client.get_server_metadata()
    check(server.name == "mesh", f"server name {server.name}")
    check("statistics" in server.extensions, f"extensions {server.extensions}")
    model = model_of("FP32")
    check(client.is_model_ready(model, headers=AUTH), f"{model} is not ready")
    metadata = client.get_model_metadata(model, headers=AUTH)
    check(metadata.name == model and list(metadata.versions) == ["1"], f"metadata {metadata}")
    check(list(metadata.inputs[0].shape) == [-1, -1], f"shape {metadata.inputs[0].shape}")
    config = client.get_model_config(model, "1", headers=AUTH).config
    check(config.max_batch_size == 8 and config.input[0].data_type == model_config_pb2.TYPE_FP32, f"config {config}")
    as_json = client.get_model_config(model, headers=AUTH, as_json=True)
    check(as_json["config"]["name"] == model, f"config {as_json}")
    over_http = triton_http.InferenceServerClient(HTTP)
    plain = over_http.get_model_config(model, headers=dict(AUTH))
    check(plain["input"][0]["data_type"] == "TYPE_FP32" and plain["max_batch_size"] == 8, f"config {plain}")
    sequence = client.get_model_config("simple_dyna_sequence", headers=AUTH).config
    check(sequence.sequence_batching.oldest.max_candidate_sequences == 1024, f"config {sequence}")
    over_http.close()


def every_datatype(client):
    for datatype, data in DATATYPES.items():
        for compression in (None, "gzip", "deflate"):
            result = client.infer(
                model_of(datatype),
                [tensor(datatype)],
                outputs=[triton.InferRequestedOutput("y")],
                request_id="id-7",
                headers=AUTH,
                compression_algorithm=compression,
            )
            check(same(result.as_numpy("y"), data), f"{datatype}: {result.as_numpy('y')}")
            response = result.get_response()
            check((response.id, response.model_version) == ("id-7", "1"), f"response {response}")
        over_http = triton_http.InferenceServerClient(HTTP)
        plain = over_http.infer(model_of(datatype), [tensor(datatype, triton_http)], headers=dict(AUTH))
        check(same(plain.as_numpy("y"), data), f"{datatype} over HTTP: {plain.as_numpy('y')}")
        over_http.close()
    answers = queue.Queue()
    for _ in range(16):
        client.async_infer(
            model_of("FP32"), [tensor("FP32")], lambda result, error: answers.put((result, error)), headers=AUTH
        )
    for _ in range(16):
        result, error = answers.get(timeout=60)
        check(error is None and same(result.as_numpy("y"), DATATYPES["FP32"]), f"async: {error}")


def streams(client):
    """Answers come in the order of their requests, errors among them, and each says that it is the last of its request."""
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=AUTH)
    for at in range(50):
        model = "no-such-model" if at == 20 else model_of("FP32")
        client.async_stream_infer(model, [tensor("FP32")], request_id=str(at), enable_empty_final_response=True)
    for at in range(50):
        result, error = answers.get(timeout=60)
        if at == 20:
            check("Request for unknown model" in str(error), f"error {error}")
            continue
        check(error is None, f"answer {at}: {error}")
        response = result.get_response()
        check(response.id == str(at), f"answer {response.id} instead of {at}")
        check(response.parameters["triton_final_response"].bool_param, "an answer is not its request's last")
    client.stop_stream()


def sequences(client):
    """What the client's own sequence example sends, over one stream: two sequences, one after the other."""
    values = [11, 7, 5, 3, 2, 0, 1]
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=AUTH)
    up, down = [0] + values, [100] + [-value for value in values]
    for sequence, sent in ((1000, up), (1001, down)):
        for at, value in enumerate(sent):
            one = triton.InferInput("INPUT", [1, 1], "INT32")
            one.set_data_from_numpy(np.full([1, 1], value, np.int32))
            client.async_stream_infer(
                "simple_sequence",
                [one],
                request_id=f"{sequence}_{at}",
                sequence_id=sequence,
                sequence_start=at == 0,
                sequence_end=at == len(sent) - 1,
            )
    got = []
    for _ in range(len(up) + len(down)):
        result, error = answers.get(timeout=60)
        check(error is None, f"sequence: {error}")
        got.append(int(result.as_numpy("OUTPUT")[0][0]))
    client.stop_stream()
    wanted = [1] + values + [101] + down[1:]
    check(got == wanted, f"sequences: {got} instead of {wanted}")
    one = triton.InferInput("INPUT", [1, 1], "INT32")
    one.set_data_from_numpy(np.full([1, 1], 1, np.int32))
    refused(
        "INVALID_ARGUMENT",
        lambda: client.infer("simple_sequence", [one], sequence_id=77, headers=AUTH),
        "must specify the START flag",
    )


def statistics_and_index(client):
    model = model_of("FP64")
    before = client.get_inference_statistics(model, headers=AUTH).model_stats[0]
    for _ in range(5):
        client.infer(model, [tensor("FP64")], headers=AUTH)
    for _ in range(200):
        after = client.get_inference_statistics(model, headers=AUTH).model_stats[0]
        if after.inference_count == before.inference_count + 5:
            break
    check(after.inference_count == before.inference_count + 5, f"statistics {after}")
    check((after.name, after.version) == (model, "1"), f"statistics {after}")
    check(after.inference_stats.success.ns > 0 and after.inference_stats.compute_infer.count > 0, f"statistics {after}")
    check(sum(batch.compute_infer.count for batch in after.batch_stats) == after.execution_count, f"statistics {after}")
    over_http = triton_http.InferenceServerClient(HTTP)
    plain = over_http.get_inference_statistics(model, "1", headers=dict(AUTH))["model_stats"][0]
    check(plain["inference_stats"]["success"]["count"] == after.inference_stats.success.count, f"statistics {plain}")
    everything = over_http.get_inference_statistics(headers=dict(AUTH))["model_stats"]
    check(len(everything) == len(DATATYPES) + 3, f"{len(everything)} models have statistics")
    index = over_http.get_model_repository_index(headers=dict(AUTH))
    over_http.close()
    models = client.get_model_repository_index(headers=AUTH).models
    check([entry.name for entry in models] == [entry["name"] for entry in index], f"index {index}")
    check(len(models) == len(DATATYPES) + 3 and all(entry.state == "READY" for entry in models), f"index {models}")
    check(not client.get_model_repository_index(headers=OTHER).models, "another tenant sees models")
    for name in (model, "no-such-model"):
        refused("PERMISSION_DENIED", lambda: client.load_model(name, headers=AUTH), "explicit model load")
        refused("PERMISSION_DENIED", lambda: client.unload_model(name, headers=AUTH), "explicit model load")


def classes(client):
    """The highest values instead of all, as texts."""
    ranked = [triton.InferRequestedOutput("y", class_count=2)]
    for datatype, wanted in (("FP32", [b"inf:2", b"1.500000:0"]), ("INT16", [b"32767:2", b"1:0"]), ("FP16", [b"1.500000:0", b"0.000000:2"])):
        got = client.infer(model_of(datatype), [tensor(datatype)], outputs=ranked, headers=AUTH).as_numpy("y")
        check(got.tolist() == [wanted], f"classes of {datatype}: {got}")
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=AUTH)
    client.async_stream_infer(model_of("FP32"), [tensor("FP32")], outputs=ranked)
    result, error = answers.get(timeout=60)
    check(error is None and result.as_numpy("y").tolist() == [[b"inf:2", b"1.500000:0"]], f"classes on a stream: {error}")
    client.stop_stream()


def settings(client):
    """What is traced and logged is told alike by both doors, and is not for every caller to change."""
    over_http = triton_http.InferenceServerClient(HTTP)
    for model in (None, model_of("FP32")):
        traced = client.get_trace_settings(model_name=model, headers=AUTH).settings
        plain = over_http.get_trace_settings(model_name=model, headers=dict(AUTH))
        check(plain["trace_mode"] == "opentelemetry" and plain["trace_level"] == ["OFF"], f"trace settings {plain}")
        same_texts = {name: list(setting.value) for name, setting in traced.items()}
        wanted = {name: value if isinstance(value, list) else [value] for name, value in plain.items()}
        check(same_texts == wanted, f"trace settings {same_texts} and {wanted}")
        change = {"trace_rate": "1", "trace_level": ["TIMESTAMPS"], "trace_count": None}
        change_it = lambda: client.update_trace_settings(model_name=model, settings=change, headers=AUTH)
        refused("PERMISSION_DENIED", change_it, "--allow-client-settings")
        change_it = lambda: over_http.update_trace_settings(model_name=model, settings=change, headers=dict(AUTH))
        refused("403", change_it, "--allow-client-settings")
    refused("NOT_FOUND", lambda: client.get_trace_settings(model_name="no-such-model", headers=AUTH), "unknown model")
    logged = client.get_log_settings(headers=AUTH, as_json=True)["settings"]
    plain = over_http.get_log_settings(headers=dict(AUTH))
    check(set(logged) == set(plain) and "log_verbose_level" in plain, f"log settings {logged} and {plain}")
    refused("PERMISSION_DENIED", lambda: client.update_log_settings({"log_info": True}, headers=AUTH), "log settings")
    refused("403", lambda: over_http.update_log_settings({"log_info": True}, headers=dict(AUTH)), "log settings")
    over_http.close()


def errors(client):
    model, good = model_of("FP32"), lambda: [tensor("FP32")]
    refused("NOT_FOUND", lambda: client.infer("no-such-model", good(), headers=AUTH), "Request for unknown model")
    refused("NOT_FOUND", lambda: client.infer(model, good(), headers=OTHER), "Request for unknown model")
    refused("NOT_FOUND", lambda: client.get_inference_statistics("no-such-model", headers=AUTH))
    refused("UNAUTHENTICATED", lambda: client.infer(model, good()))
    wrong = triton.InferInput("x", [1, 1], "INT8")
    wrong.set_data_from_numpy(np.zeros([1, 1], np.int8))
    refused("INVALID_ARGUMENT", lambda: client.infer(model, [wrong], headers=AUTH), "data-type is 'INT8'")
    many = triton.InferInput("x", [9, 1], "FP32")
    many.set_data_from_numpy(np.zeros([9, 1], np.float32))
    refused("INVALID_ARGUMENT", lambda: client.infer(model, [many], headers=AUTH), "batch-size must be <= 8")
    unknown = [triton.InferRequestedOutput("none")]
    refused("INVALID_ARGUMENT", lambda: client.infer(model, good(), outputs=unknown, headers=AUTH), "unexpected inference output")
    texts, ranked = [tensor("BYTES")], [triton.InferRequestedOutput("y", class_count=2)]
    refused("INVALID_ARGUMENT", lambda: client.infer(model_of("BYTES"), texts, outputs=ranked, headers=AUTH), "no classes")
    refused("UNIMPLEMENTED", lambda: client.get_system_shared_memory_status(headers=AUTH), "shared memory")
    refused("UNIMPLEMENTED", lambda: client.get_cuda_shared_memory_status(headers=AUTH), "shared memory")
    refused("DEADLINE_EXCEEDED", lambda: client.infer("slow", good(), headers=AUTH, client_timeout=0.05))
    hurried = {**AUTH, "x-request-timeout-ms": "50"}
    refused("DEADLINE_EXCEEDED", lambda: client.infer("slow", good(), headers=hurried), "deadline exceeded")
    check(same(client.infer(model, good(), headers=AUTH).as_numpy("y"), DATATYPES["FP32"]), "no answer after all that")


async def asyncio_client():
    client = triton_aio.InferenceServerClient(URL)
    check(await client.is_server_live(), "asyncio: not live")
    asked = [client.infer(model_of("BYTES"), [tensor("BYTES", triton_aio)], headers=AUTH) for _ in range(8)]
    for result in await asyncio.gather(*asked):
        check(same(result.as_numpy("y"), DATATYPES["BYTES"]), "asyncio: another answer")

    ranked = [triton_aio.InferRequestedOutput("y", class_count=1)]
    result = await client.infer(model_of("UINT8"), [tensor("UINT8", triton_aio)], outputs=ranked, headers=AUTH)
    check(result.as_numpy("y").tolist() == [[b"255:2"]], f"asyncio: classes {result.as_numpy('y')}")

    async def requests():
        for at in range(10):
            yield {
                "model_name": model_of("INT64"),
                "inputs": [tensor("INT64", triton_aio)],
                "request_id": str(at),
            }

    at = 0
    async for result, error in client.stream_infer(requests(), headers=AUTH):
        check(error is None and result.get_response().id == str(at), f"asyncio stream: {error}")
        at += 1
    check(at == 10, f"asyncio stream: {at} answers")
    await client.close()


def the_protocols_names_and_numbers():
    """Every call, message and field that the mesh declares is Triton's, by its name, number and type."""
    with open(os.environ["MESH_DESCRIPTORS"], "rb") as file:
        ours = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    known, calls = {}, {}
    for module in (service_pb2, model_config_pb2):
        theirs = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(theirs)
        gather(theirs, known, calls)
    mine, my_calls = {}, {}
    for file in ours.file:
        gather(file, mine, my_calls)
    check(my_calls == calls, f"calls {set(my_calls.items()) ^ set(calls.items())}")
    check(len(mine) > 250, f"only {len(mine)} names are declared")
    for name, what in mine.items():
        check(known.get(name) == what, f"{name} is {what}, and {known.get(name)} in Triton's")


def gather(file, names, calls):
    """Fields and values by their full names, with their numbers and types."""

    def enumeration(prefix, enum):
        for value in enum.value:
            names[f"{prefix}.{enum.name}.{value.name}"] = value.number

    def message(prefix, one):
        name = f"{prefix}.{one.name}"
        for field in one.field:
            choice = one.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
            names[f"{name}.{field.name}"] = (field.number, field.type, field.label, field.type_name, choice)
        for nested in one.nested_type:
            message(name, nested)
        for enum in one.enum_type:
            enumeration(name, enum)

    for one in file.message_type:
        message(file.package, one)
    for enum in file.enum_type:
        enumeration(file.package, enum)
    for service in file.service:
        for call in service.method:
            streams = (call.client_streaming, call.server_streaming)
            calls[call.name] = (call.input_type, call.output_type, streams)


def main():
    with triton.InferenceServerClient(URL) as client:
        server_and_metadata(client)
        every_datatype(client)
        streams(client)
        sequences(client)
        statistics_and_index(client)
        classes(client)
        settings(client)
        errors(client)
    asyncio.run(asyncio_client())
    the_protocols_names_and_numbers()
    print(f"conformance: all {checks} checks hold")


main()
