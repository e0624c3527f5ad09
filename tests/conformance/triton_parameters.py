"""Talks to a running mesh with NVIDIA's own client, unmodified: custom parameters and forwarded headers, as they reach a model.

Interface, for whoever starts the mesh:

  environment  MESH_HTTP    the HTTP door, e.g. 127.0.0.1:8000
               MESH_GRPC    the gRPC door, e.g. 127.0.0.1:8001
               MESH_KEY     an API key of the tenant that owns the models; headers x-tag are forwarded
               models       echo, x [1] of FP32 -> said [1] of BYTES, the parameters as a JSON object of texts;
                            scaling, x [2] -> y [2] of FP32, which multiplies by the parameter scale
  exit status  0 when everything holds; otherwise a traceback that names what does not
  last line    "conformance: all <n> checks hold"
"""

import asyncio
import json
import os
import queue

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as over_grpc_aio
import tritonclient.http as over_http
import tritonclient.http.aio as over_http_aio
from tritonclient.utils import InferenceServerException

GRPC = os.environ["MESH_GRPC"]
HTTP = os.environ["MESH_HTTP"]
AUTH = {"authorization": "Bearer " + os.environ["MESH_KEY"]}
SAID = {"text": "a \"b\" é", "whole": 42, "below": -7, "true": True, "false": False}
HEARD = {"text": "a \"b\" é", "whole": "42", "below": "-7", "true": "true", "false": "false"}
checks = 0


def check(holds, what):
    global checks
    checks += 1
    if not holds:
        raise AssertionError(what)


def x(wire, values):
    one = wire.InferInput("x", [1, len(values)], "FP32")
    one.set_data_from_numpy(np.array([values], np.float32))
    return [one]


def heard(result):
    return json.loads(result.as_numpy("said").reshape(-1)[0])


def both(http, grpc):
    for wire, client in ((over_http, http), (over_grpc, grpc)):
        name = wire.__name__
        result = client.infer("echo", x(wire, [1]), parameters=SAID, headers=dict(AUTH))
        check(heard(result) == HEARD, f"{name}: {heard(result)}")
        result = client.infer("echo", x(wire, [1]), headers=dict(AUTH))
        check(heard(result) == {}, f"{name}: {heard(result)}")
        # What the client itself has a word for is no custom parameter.
        result = client.infer("echo", x(wire, [1]), parameters={"a": "b"}, priority=1, timeout=10_000_000, headers=dict(AUTH))
        check(heard(result) == {"a": "b"}, f"{name}: {heard(result)}")
        result = client.infer("echo", x(wire, [1]), parameters={"a": "b"}, headers={**AUTH, "x-tag": "seen"})
        check(heard(result) == {"a": "b", "x-tag": "seen"}, f"{name}: {heard(result)}")
        for scale in (3, 0.5):
            result = client.infer("scaling", x(wire, [1, 2]), parameters={"scale": str(scale)}, headers=dict(AUTH))
            check(np.array_equal(result.as_numpy("y"), [[scale, 2 * scale]]), f"{name}: {result.as_numpy('y')}")
        try:
            client.infer("echo", x(wire, [1]), parameters={"long": "v" * 5_000}, headers=dict(AUTH))
            check(False, f"{name}: more bytes than a model is given")
        except InferenceServerException as error:
            check("5004 bytes" in str(error), f"{name}: {error}")
            check(error.status() in ("400", "StatusCode.INVALID_ARGUMENT"), f"{name}: {error.status()}")


def over_a_stream(client):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=AUTH)
    for number in range(4):
        client.async_stream_infer("echo", x(over_grpc, [1]), request_id=str(number), parameters={"number": number})
    for number in range(4):
        result, error = answers.get(timeout=60)
        check(error is None and heard(result) == {"number": str(number)}, f"{number}: {error}")
    client.stop_stream()


async def over_asyncio():
    async with over_http_aio.InferenceServerClient(HTTP) as http, over_grpc_aio.InferenceServerClient(GRPC) as grpc:
        for wire, client in ((over_http, http), (over_grpc, grpc)):
            asked = [
                client.infer("echo", x(wire, [1]), parameters={"number": number}, headers=dict(AUTH)) for number in range(8)
            ]
            for number, result in enumerate(await asyncio.gather(*asked)):
                check(heard(result) == {"number": str(number)}, f"{wire.__name__} {number}: {heard(result)}")


http = over_http.InferenceServerClient(HTTP)
grpc = over_grpc.InferenceServerClient(GRPC)
both(http, grpc)
over_a_stream(grpc)
http.close()
grpc.close()
asyncio.run(over_asyncio())
print(f"conformance: all {checks} checks hold")
