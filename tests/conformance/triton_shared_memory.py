"""Talks to a running mesh with NVIDIA's own client, unmodified, and has its tensors in system shared memory: over HTTP and gRPC.

Interface, for whoever starts the mesh, with --allow-client-shm and on this machine:

  environment  MESH_URL     the HTTP door, e.g. 127.0.0.1:8000 (a leading http:// is fine)
               MESH_GRPC    the gRPC door, e.g. 127.0.0.1:8001
               MESH_KEY     an API key of the tenant that owns the models
               MESH_OTHER   an API key of another tenant, to whom both are granted
               models       calculus, INT32 a [-1] and b [-1] -> sum [-1] and difference [-1], and text, BYTES x [-1] -> y [-1],
                            both batching
  exit status  0 when everything holds; otherwise a traceback that names what does not
  last line    "conformance: all <n> checks hold"
"""

import os

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

HTTP = os.environ["MESH_URL"].removeprefix("http://").rstrip("/")
GRPC = os.environ["MESH_GRPC"]
MARK = f"conformance-{os.getpid()}"
BYTES = 16 * 4
checks = 0


def auth(key="MESH_KEY"):
    """Headers for one call: new each time, because a client may add its own to the dictionary it is given."""
    return {"authorization": "Bearer " + os.environ[key]}


def check(holds, what):
    global checks
    checks += 1
    if not holds:
        raise AssertionError(what)


def refused(statuses, call, *texts):
    """The call must fail with one of these, and its message hold the texts."""
    try:
        call()
    except InferenceServerException as error:
        check(any(status in str(error.status()) for status in statuses), f"status {error.status()}: {error}")
        for text in texts:
            check(text in error.message(), f"'{text}' is not in '{error.message()}'")
        return
    raise AssertionError(f"a call that must fail with {statuses} went through")


def regions_of(client, key="MESH_KEY"):
    """The names of the regions that are registered."""
    status = client.get_system_shared_memory_status(headers=auth(key))
    return sorted(region["name"] for region in status) if isinstance(status, list) else sorted(status.regions)


def numbers(kind, client, wire):
    """Inputs and outputs in regions give what carried ones give."""
    a, b = np.arange(16, dtype=np.int32).reshape([1, 16]), np.full([1, 16], 3, np.int32)
    source = shm.create_shared_memory_region("in", f"/{MARK}-{wire}-in", 2 * BYTES)
    target = shm.create_shared_memory_region("out", f"/{MARK}-{wire}-out", 2 * BYTES)
    shm.set_shared_memory_region(source, [a, b])
    client.unregister_system_shared_memory(headers=auth())
    client.unregister_cuda_shared_memory(headers=auth())
    client.register_system_shared_memory("in", f"/{MARK}-{wire}-in", 2 * BYTES, headers=auth())
    client.register_system_shared_memory("out", f"/{MARK}-{wire}-out", 2 * BYTES, headers=auth())
    check(regions_of(client) == ["in", "out"], f"regions {regions_of(client)}")
    check(regions_of(client, "MESH_OTHER") == [], "another tenant sees regions")
    one = client.get_system_shared_memory_status("in", headers=auth())
    one = one[0] if isinstance(one, list) else one.regions["in"]
    size = one["byte_size"] if isinstance(one, dict) else one.byte_size
    check(size == 2 * BYTES, f"status {one}")

    inputs = [kind.InferInput("a", [1, 16], "INT32"), kind.InferInput("b", [1, 16], "INT32")]
    inputs[0].set_shared_memory("in", BYTES)
    inputs[1].set_shared_memory("in", BYTES, offset=BYTES)
    outputs = [kind.InferRequestedOutput("sum"), kind.InferRequestedOutput("difference")]
    outputs[0].set_shared_memory("out", BYTES)
    outputs[1].set_shared_memory("out", BYTES, offset=BYTES)
    ask = lambda key="MESH_KEY": client.infer("calculus", inputs, outputs=outputs, headers=auth(key))
    result = ask()
    told = result.get_output("difference")
    shape = told["shape"] if isinstance(told, dict) else list(told.shape)
    check(list(shape) == [1, 16], f"output {told}")
    got = [shm.get_contents_as_numpy(target, np.int32, [1, 16], offset=at) for at in (0, BYTES)]
    check(np.array_equal(got[0], a + b) and np.array_equal(got[1], a - b), f"numbers {got}")

    # One of each kind, in and out.
    inputs[0].set_data_from_numpy(b)
    outputs[1].unset_shared_memory()
    shm.set_shared_memory_region(target, [np.zeros([2, 16], np.int32)])
    result = ask()
    check(np.array_equal(result.as_numpy("difference"), b - b), "a carried output beside one in a region")
    check(np.array_equal(shm.get_contents_as_numpy(target, np.int32, [1, 16]), b + b), "an output beside a carried one")

    refused(("404", "NOT_FOUND"), lambda: ask("MESH_OTHER"), "Unable to find shared memory region: '")
    outputs[0].set_shared_memory("out", BYTES - 4)
    text = f"shared memory size specified with the request for output 'sum' ({BYTES - 4} bytes)"
    refused(("500", "INTERNAL"), ask, text, f"should be at least {BYTES} bytes to hold the results")
    outputs[0].set_shared_memory("out", BYTES)
    # A new one: the client keeps an offset of before.
    inputs[1] = kind.InferInput("b", [1, 16], "INT32")
    inputs[1].set_shared_memory("in", 2 * BYTES)
    refused(
        ("400", "INVALID_ARGUMENT"),
        ask,
        f"input byte size mismatch for input 'b' for model 'calculus'. Expected {BYTES}, got {2 * BYTES}",
    )
    inputs[1].set_shared_memory("in", BYTES, offset=2 * BYTES - 4)
    refused(("400", "INVALID_ARGUMENT"), ask, "Invalid offset + byte size for shared memory region: 'in'")
    register = lambda *what: client.register_system_shared_memory(*what, headers=auth())
    refused(("400", "INVALID_ARGUMENT"), lambda: register("in", f"/{MARK}-{wire}-in", 4), "already in manager")
    too_much = lambda: register("more", f"/{MARK}-{wire}-in", 2 * BYTES + 1)
    refused(("400", "INVALID_ARGUMENT"), too_much, "failed to register shared memory region 'more': invalid args")
    refused(("400", "INVALID_ARGUMENT"), lambda: register("more", f"/{MARK}-none", 4), "Unable to open shared memory region")
    client.unregister_system_shared_memory("in", headers=auth())
    check(regions_of(client) == ["out"], f"regions {regions_of(client)}")
    refused(("404", "NOT_FOUND"), ask, "Unable to find shared memory region: 'in'")
    client.unregister_system_shared_memory(headers=auth())
    check(regions_of(client) == [], f"regions {regions_of(client)}")
    for handle in (source, target):
        shm.destroy_shared_memory_region(handle)


def texts(kind, client, wire):
    """Texts, whose regions are as long as what they hold, and may be longer for what comes back."""
    data = np.array([["a", "ä", "", "longer"]], dtype=object)
    packed = serialize_byte_tensor(data)
    size = len(packed.item())
    source = shm.create_shared_memory_region("texts", f"/{MARK}-{wire}-texts", size)
    target = shm.create_shared_memory_region("answers", f"/{MARK}-{wire}-answers", 2 * size)
    shm.set_shared_memory_region(source, [packed])
    client.register_system_shared_memory("texts", f"/{MARK}-{wire}-texts", size, headers=auth())
    client.register_system_shared_memory("answers", f"/{MARK}-{wire}-answers", 2 * size, headers=auth())
    one = kind.InferInput("x", [1, 4], "BYTES")
    one.set_shared_memory("texts", size)
    wanted = kind.InferRequestedOutput("y")
    wanted.set_shared_memory("answers", 2 * size)
    client.infer("text", [one], outputs=[wanted], headers=auth())
    got = shm.get_contents_as_numpy(target, np.object_, [1, 4])
    check([text.decode() for text in got.flatten()] == list(data.flatten()), f"texts {got}")
    wanted.set_shared_memory("answers", size - 1)
    ask = lambda: client.infer("text", [one], outputs=[wanted], headers=auth())
    refused(("500", "INTERNAL"), ask, f"should be at least {size} bytes to hold the results")
    one.set_shared_memory("texts", size - 1)
    refused(("400", "INVALID_ARGUMENT"), ask, "input 'x' of datatype BYTES")
    client.unregister_system_shared_memory(headers=auth())
    for handle in (source, target):
        shm.destroy_shared_memory_region(handle)


def cuda(client):
    """There is none, and whoever looks is told so."""
    status = client.get_cuda_shared_memory_status(headers=auth())
    check(status == [] if isinstance(status, list) else not status.regions, f"CUDA regions {status}")
    register = lambda: client.register_cuda_shared_memory("r", b"AAAA", 0, 64, headers=auth())
    refused(("501", "UNIMPLEMENTED"), register, "CUDA shared memory is not supported")


def main():
    for kind, url, wire in ((triton_http, HTTP, "http"), (triton_grpc, GRPC, "grpc")):
        client = kind.InferenceServerClient(url)
        try:
            server = client.get_server_metadata()
            extensions = server["extensions"] if isinstance(server, dict) else server.extensions
            check("system_shared_memory" in extensions, f"extensions {extensions}")
            numbers(kind, client, wire)
            texts(kind, client, wire)
            cuda(client)
        finally:
            client.close()
    print(f"conformance: all {checks} checks hold")


main()
