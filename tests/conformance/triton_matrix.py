"""Has every way of NVIDIA's own client, unmodified, do everything that it can: tritonclient over HTTP and gRPC, each waiting and with
asyncio, and over gRPC's streams.

Interface, for whoever starts the mesh, with --compat triton, --model-control-mode explicit, --allow-client-shm and on this machine:

  environment  MESH_HTTP    the HTTP door, e.g. 127.0.0.1:8000
               MESH_GRPC    the gRPC door, e.g. 127.0.0.1:8001
               models       loaded: identity_<datatype>, one for each of tritonclient's datatypes in lower case, x [-1] -> y [-1], batching;
                            simple_sequence, as in Triton's examples, with INPUT and OUTPUT of INT32 [1];
                            not loaded: chain, an ensemble of one step, the model step, both FP32 x [-1] -> y [-1], batching
  exit status  0 when everything holds; otherwise a traceback that names what does not
  output       a line for each thing that was done, with a mark for each way in which it was: what is there is what was called and held
  last line    "conformance: all <n> checks hold"
"""

import json
import os
import urllib.request

import aiohttp
import ml_dtypes
import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as over_grpc_aio
import tritonclient.http as over_http
import tritonclient.http.aio as over_http_aio
import tritonclient.utils.shared_memory as memory
from tritonclient.utils import InferenceServerException
from waited import Stream, Waited, WaitedStream

HTTP, GRPC = os.environ["MESH_HTTP"], os.environ["MESH_GRPC"]
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
    "BYTES": np.array([["a", "ä", "", "nul \0 nul"]], dtype=object),
    "BF16": np.array([[1.5, -2, 0]], ml_dtypes.bfloat16),
}
checks = 0


def check(holds, what):
    global checks
    checks += 1
    if not holds:
        raise AssertionError(what)


def told(answer, *path):
    """What an answer has at this path: over HTTP they are dictionaries, over gRPC messages."""
    for part in path:
        answer = answer[part] if isinstance(answer, (dict, list)) or isinstance(part, int) else getattr(answer, part)
    return answer


def same(got, wanted):
    if wanted.dtype == object:
        return [text.decode() if isinstance(text, bytes) else text for text in got.flatten()] == list(wanted.flatten())
    if wanted.dtype == ml_dtypes.bfloat16:
        return np.array_equal(got.astype(np.float32), wanted.astype(np.float32))
    return got.dtype == wanted.dtype and np.array_equal(got, wanted)


def tensor(wire, datatype, name="x", data=None):
    data = DATATYPES[datatype] if data is None else data
    one = wire.InferInput(name, list(data.shape), datatype)
    one.set_data_from_numpy(data)
    return one


def identity(wire, client, datatype, **named):
    return client.infer("identity_" + datatype.lower(), [tensor(wire, datatype)], **named).as_numpy("y")


def infer(wire, client, way):
    wanted = [wire.InferRequestedOutput("y")]
    result = client.infer("identity_fp32", [tensor(wire, "FP32")], outputs=wanted, request_id="id-7", model_version="1")
    response = result.get_response()
    check(same(result.as_numpy("y"), DATATYPES["FP32"]), f"{way}: {result.as_numpy('y')}")
    check((told(response, "id"), told(response, "model_version")) == ("id-7", "1"), f"{way}: {response}")
    try:
        client.infer("no-such-model", [tensor(wire, "FP32")])
        check(False, f"{way}: a model that is not there answers")
    except InferenceServerException as error:
        check("Request for unknown model" in error.message(), f"{way}: {error}")


def string_tensors(wire, client, way):
    got = identity(wire, client, "BYTES")
    check(same(got, DATATYPES["BYTES"]), f"{way}: {got}")


def all_datatypes(wire, client, way):
    for datatype, data in DATATYPES.items():
        got = identity(wire, client, datatype)
        check(same(got, data), f"{way}: {datatype}: {got}")


def shared_memory(wire, client, way):
    data = np.arange(16, dtype=np.int32).reshape([1, 16])
    names = [f"{way}-{part}" for part in ("in", "out")]
    regions = [memory.create_shared_memory_region(name, f"/matrix-{os.getpid()}-{name}", data.nbytes) for name in names]
    try:
        memory.set_shared_memory_region(regions[0], [data])
        for name in names:
            client.register_system_shared_memory(name, f"/matrix-{os.getpid()}-{name}", data.nbytes)
        status = client.get_system_shared_memory_status()
        known = [region["name"] for region in status] if isinstance(status, list) else list(status.regions)
        check(sorted(known) == sorted(names), f"{way}: regions {known}")
        one, wanted = wire.InferInput("x", [1, 16], "INT32"), wire.InferRequestedOutput("y")
        one.set_shared_memory(names[0], data.nbytes)
        wanted.set_shared_memory(names[1], data.nbytes)
        client.infer("identity_int32", [one], outputs=[wanted])
        got = memory.get_contents_as_numpy(regions[1], np.int32, [1, 16])
        check(np.array_equal(got, data), f"{way}: {got}")
        for name in names:
            client.unregister_system_shared_memory(name)
    finally:
        for region in regions:
            memory.destroy_shared_memory_region(region)


def sequences(wire, client, way):
    """What Triton's sequence example sends, by a number and by a text."""
    values = [11, 7, 5, 3, 2, 0, 1]
    for name in (1 + WAYS.index(way), f"sequence of {way}"):
        got = []
        for at, value in enumerate([0] + values):
            result = client.infer(
                "simple_sequence",
                [tensor(wire, "INT32", "INPUT", np.full([1, 1], value, np.int32))],
                sequence_id=name,
                sequence_start=at == 0,
                sequence_end=at == len(values),
            )
            got.append(int(result.as_numpy("OUTPUT")[0][0]))
        check(got == [1] + values, f"{way}: {name}: {got}")


def model_control(wire, client, way):
    extensions = told(client.get_server_metadata(), "extensions")
    check("model_repository(unload_dependents)" in list(extensions), f"{way}: {extensions}")
    ready = lambda: (client.is_model_ready("chain"), client.is_model_ready("step"))
    x = np.array([[1, 2, 3]], np.float32)
    check(ready() == (False, False), f"{way}: loaded at the start")
    client.load_model("step", config=json.dumps({"max_batch_size": "4"}))
    config = client.get_model_config("step")
    config = config if isinstance(config, dict) else config.config
    check(told(config, "max_batch_size") == 4, f"{way}: {config}")
    client.unload_model("step")
    check(ready() == (False, False), f"{way}: step is unloaded")
    client.load_model("chain")
    check(ready() == (True, True), f"{way}: an ensemble brings its step")
    check(np.array_equal(client.infer("chain", [tensor(wire, "FP32", data=x)]).as_numpy("y"), x), f"{way}: chain")
    client.unload_model("chain")
    check(ready() == (False, True), f"{way}: only the ensemble goes")
    client.load_model("chain")
    client.unload_model("chain", unload_dependents=True)
    check(ready() == (False, False), f"{way}: with its step")
    index = client.get_model_repository_index()
    names = [told(entry, "name") for entry in (index if isinstance(index, list) else index.models)]
    check({"chain", "step", "identity_fp32"} <= set(names), f"{way}: {names}")


def statistics(wire, client, way):
    of = lambda: told(client.get_inference_statistics("identity_fp64"), "model_stats", 0)
    count = lambda: int(told(of(), "inference_count"))
    before = count()
    for _ in range(3):
        identity(wire, client, "FP64")
    # A request is counted just after it is answered.
    for _ in range(1_000):
        if count() == before + 3:
            break
    check(count() == before + 3, f"{way}: {before} and then {of()}")
    check(int(told(of(), "inference_stats", "success", "ns")) > 0, f"{way}: {of()}")
    check(len(told(client.get_inference_statistics(), "model_stats")) > len(DATATYPES), f"{way}: of all models")


def classification(wire, client, way):
    got = identity(wire, client, "FP32", outputs=[wire.InferRequestedOutput("y", class_count=2)])
    check(got.tolist() == [[b"inf:2", b"1.500000:0"]], f"{way}: {got}")


def generate(wire, client, way):
    """The client has no call for it: its own library of that way posts it."""
    for call, begin in (("generate", ""), ("generate_stream", "data: ")):
        url, sent = f"http://{HTTP}/v2/models/identity_bytes/{call}", json.dumps({"x": ["a", "ä"]})
        if isinstance(client, Waited):

            async def posted():
                async with aiohttp.ClientSession() as session, session.post(url, data=sent) as answer:
                    check(answer.status == 200, f"{way}: {answer.status}")
                    return await answer.text()

            text = client.wait(posted)
        else:
            with urllib.request.urlopen(url, sent.encode()) as answer:
                text = answer.read().decode()
        check(text.startswith(begin) and json.loads(text.removeprefix(begin))["y"] == ["a", "ä"], f"{way}: {text}")


FEATURES = (
    infer,
    string_tensors,
    all_datatypes,
    shared_memory,
    sequences,
    model_control,
    statistics,
    classification,
    generate,
)
# What is no call of a stream's, and none of gRPC's.
NOT_STREAMED, NOT_GRPC = (model_control, statistics, generate), (generate,)
CLIENTS = {
    "http": (over_http, lambda: over_http.InferenceServerClient(HTTP), ()),
    "http.aio": (over_http_aio, lambda: Waited(over_http_aio, HTTP), ()),
    "grpc": (over_grpc, lambda: over_grpc.InferenceServerClient(GRPC), NOT_GRPC),
    "grpc.aio": (over_grpc_aio, lambda: Waited(over_grpc_aio, GRPC), NOT_GRPC),
    "stream": (over_grpc, lambda: Stream(over_grpc.InferenceServerClient(GRPC)), NOT_STREAMED),
    "stream.aio": (over_grpc_aio, lambda: WaitedStream(over_grpc_aio, GRPC), NOT_STREAMED),
}
WAYS = list(CLIENTS)


def main():
    done = {feature: [] for feature in FEATURES}
    for way, (wire, made, without) in CLIENTS.items():
        client = made()
        for feature in FEATURES:
            if feature in without:
                continue
            before = checks
            feature(wire, client, way)
            check(checks > before, f"{way}: {feature.__name__} checks nothing")
            done[feature].append(way)
        client.close()
    print(" ".join([f"{'':16}"] + [f"{way:10}" for way in WAYS]).rstrip())
    for feature, ways in done.items():
        marks = [f"{'yes' if way in ways else '-':10}" for way in WAYS]
        print(" ".join([f"{feature.__name__:16}"] + marks).rstrip())
    print(f"conformance: all {checks} checks hold")


main()
