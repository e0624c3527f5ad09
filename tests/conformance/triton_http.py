"""Talks to a running mesh with NVIDIA's own client, unmodified: tritonclient[http].

Interface, for whoever starts the mesh:

  environment  MESH_URL     the inference door, e.g. 127.0.0.1:8000 (a leading http:// is fine)
               MESH_KEY     an API key of the tenant that owns the model
               MESH_MODEL   the name of an endpoint or model with at least one FP32 or INT32 input (default "digits")
  exit status  0 when everything holds; otherwise a traceback that names what does not
  last line    "conformance: all <n> checks hold"

The model's metadata says what to send: every input gets numbers of its own datatype, -1 in a shape becomes 1 (the batch) or
3. Nothing is assumed about what the model computes, only that JSON and binary requests for the same input agree.
"""

import asyncio
import os
import sys

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

URL = os.environ["MESH_URL"].removeprefix("http://").rstrip("/")
MODEL = os.environ.get("MESH_MODEL", "digits")
KEY = os.environ["MESH_KEY"]
checks = 0


def auth():
    """Headers for one call: new each time, because the client adds its own to the dictionary it is given."""
    return {"authorization": "Bearer " + KEY}


def check(holds, what):
    global checks
    checks += 1
    if not holds:
        raise AssertionError(what)


def refused(status, call, *texts):
    """The call must fail with this status, and its message hold the texts."""
    try:
        call()
    except InferenceServerException as error:
        check(str(status) in str(error.status()), f"status {error.status()} instead of {status}: {error}")
        for text in texts:
            check(text in error.message(), f"'{text}' is not in '{error.message()}'")
        return
    raise AssertionError(f"a call that must fail with {status} went through")


def data_for(spec, batching_rows, width=3):
    """Numbers for one input, the same at each run."""
    shape = [int(extent) for extent in spec["shape"]]
    shape = [extent if extent > 0 else (batching_rows if at == 0 else width) for at, extent in enumerate(shape)]
    kind = triton_to_np_dtype(spec["datatype"])
    count = int(np.prod(shape))
    if spec["datatype"] == "BYTES":
        return np.array([f"text {at}".encode() for at in range(count)], dtype=object).reshape(shape)
    return (np.arange(count) % 17).astype(kind).reshape(shape)


def inputs_for(metadata, binary, rows=1, width=3):
    inputs = []
    for spec in metadata["inputs"]:
        data = data_for(spec, rows, width)
        tensor = triton.InferInput(spec["name"], list(data.shape), spec["datatype"])
        tensor.set_data_from_numpy(data, binary_data=binary)
        inputs.append(tensor)
    return inputs


def health_and_metadata(client):
    check(client.is_server_live(), "the server is not live")
    check(client.is_server_ready(), "the server is not ready")
    server = client.get_server_metadata()
    check(server["name"] == "mesh", f"server name {server['name']}")
    check("binary_tensor_data" in server["extensions"], f"extensions {server['extensions']}")
    client.get_server_metadata(query_params={"ignored": "yes"})
    check(client.is_model_ready(MODEL, headers=auth()), f"model {MODEL} is not ready")
    metadata = client.get_model_metadata(MODEL, headers=auth())
    check(metadata["name"] == MODEL, f"model name {metadata['name']}")
    for field in ("versions", "platform", "inputs", "outputs"):
        check(metadata[field], f"metadata without {field}: {metadata}")
    version = metadata["versions"][-1]
    check(client.is_model_ready(MODEL, version, headers=auth()), f"version {version} is not ready")
    return metadata


def predictions(client, metadata):
    """JSON and binary, in and out, in every combination, give one and the same answer."""
    answers = []
    outputs = [spec["name"] for spec in metadata["outputs"]]
    for binary_in in (False, True):
        for binary_out in (False, True):
            wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in outputs]
            result = client.infer(
                MODEL, inputs_for(metadata, binary_in), outputs=wanted, request_id="id-7", headers=auth()
            )
            response = result.get_response()
            check(response["id"] == "id-7", f"the id came back as {response.get('id')}")
            check(response["model_name"] == MODEL, f"model_name {response['model_name']}")
            check(response["model_version"].isdigit(), f"model_version {response['model_version']}")
            answers.append({name: result.as_numpy(name) for name in outputs})
    for answer in answers[1:]:
        for name in outputs:
            check(np.array_equal(answers[0][name], answer[name]), f"JSON and binary disagree on {name}")
    # Without a list of outputs the client asks for all of them as binary data.
    everything = client.infer(MODEL, inputs_for(metadata, True), headers=auth())
    for name in outputs:
        check(np.array_equal(everything.as_numpy(name), answers[0][name]), f"{name} differs when all are asked for")
    # Compressed requests, and a concurrent one through the client's own pool.
    for algorithm in ("gzip", "deflate"):
        packed = client.infer(
            MODEL, inputs_for(metadata, True), request_compression_algorithm=algorithm, headers=auth()
        )
        check(np.array_equal(packed.as_numpy(outputs[0]), answers[0][outputs[0]]), f"{algorithm} differs")
    large = client.infer(MODEL, inputs_for(metadata, True, width=4096), headers=auth()).as_numpy(outputs[0])
    for algorithm in ("gzip", "deflate"):
        wanted = [triton.InferRequestedOutput(name, binary_data=algorithm == "gzip") for name in outputs]
        packed = client.infer(
            MODEL,
            inputs_for(metadata, True, width=4096),
            outputs=wanted,
            response_compression_algorithm=algorithm,
            headers=auth(),
        )
        check(np.array_equal(packed.as_numpy(outputs[0]), large), f"an answer packed with {algorithm} differs")
    pending = [client.async_infer(MODEL, inputs_for(metadata, True), headers=auth()) for _ in range(16)]
    for request in pending:
        got = request.get_result().as_numpy(outputs[0])
        check(np.array_equal(got, answers[0][outputs[0]]), "a concurrent request got another answer")


def ranked(values, count, kind):
    """What a row's classes are: the highest values, equal ones by their index."""
    order = sorted(range(len(values)), key=lambda at: (-values[at], at))[:count]
    return [(f"{values[at]:.6f}:{at}" if kind in ("FP32", "FP64") else f"{values[at]}:{at}").encode() for at in order]


def classes(client, metadata):
    """The highest values instead of all, as texts; only of the output that is asked for them."""
    outputs = [(spec["name"], spec["datatype"]) for spec in metadata["outputs"]]
    name, kind = outputs[0]
    plain = client.infer(MODEL, inputs_for(metadata, True, rows=2), headers=auth())
    for binary in (False, True):
        for count in (1, 2, 1000):
            wanted = [triton.InferRequestedOutput(name, binary_data=binary, class_count=count)]
            wanted += [triton.InferRequestedOutput(other, binary_data=binary) for other, _ in outputs[1:]]
            result = client.infer(MODEL, inputs_for(metadata, True, rows=2), outputs=wanted, headers=auth())
            right = [ranked(row.tolist(), count, kind) for row in plain.as_numpy(name)]
            got = [[text if isinstance(text, bytes) else text.encode() for text in row] for row in result.as_numpy(name)]
            check(got == right, f"classes {got} instead of {right}")
            for other, _ in outputs[1:]:
                check(np.array_equal(result.as_numpy(other), plain.as_numpy(other)), f"{other} has changed")
    refused(400, lambda: client.infer(MODEL, inputs_for(metadata, True), outputs=[negative(name)], headers=auth()), "classification")


def negative(name):
    """No number of classes that there could be."""
    output = triton.InferRequestedOutput(name, class_count=1)
    output._parameters["classification"] = -1
    return output


async def asyncio_client(metadata):
    client = triton_aio.InferenceServerClient(URL)
    name, kind = metadata["outputs"][0]["name"], metadata["outputs"][0]["datatype"]
    plain = await client.infer(MODEL, inputs_for(metadata, True), headers=auth())
    wanted = [triton_aio.InferRequestedOutput(name, class_count=2)]
    result = await client.infer(MODEL, inputs_for(metadata, True), outputs=wanted, headers=auth())
    right = ranked(plain.as_numpy(name)[0].tolist(), 2, kind)
    check(result.as_numpy(name)[0].tolist() == right, f"asyncio: classes {result.as_numpy(name)} instead of {right}")
    await client.close()


def errors(client, metadata):
    good = lambda: inputs_for(metadata, True)
    refused(404, lambda: client.infer("no-such-model", good(), headers=auth()), "Request for unknown model")
    refused(404, lambda: client.get_model_metadata("no-such-model", headers=auth()), "Request for unknown model")
    refused(401, lambda: client.infer(MODEL, good()))
    refused(401, lambda: client.infer(MODEL, good(), headers={"authorization": "Bearer mesh_live_none_0_00000000"}))
    wrong_name = triton.InferInput("no such input", [1, 1], "FP32")
    wrong_name.set_data_from_numpy(np.zeros([1, 1], np.float32))
    refused(400, lambda: client.infer(MODEL, [wrong_name], headers=auth()), "unexpected inference input")
    first = metadata["inputs"][0]
    other = "FP64" if first["datatype"] != "FP64" else "INT8"
    data = data_for(first, 1)
    wrong_type = triton.InferInput(first["name"], list(data.shape), other)
    wrong_type.set_data_from_numpy(np.zeros(data.shape, triton_to_np_dtype(other)))
    rest = inputs_for(metadata, True)[1:]
    refused(400, lambda: client.infer(MODEL, [wrong_type, *rest], headers=auth()), f"data-type is '{other}'")
    wrong_output = [triton.InferRequestedOutput("no such output")]
    refused(
        400,
        lambda: client.infer(MODEL, good(), outputs=wrong_output, headers=auth()),
        "unexpected inference output",
    )
    # After all that the same client still gets its answer.
    check(client.infer(MODEL, good(), headers=auth()).as_numpy(metadata["outputs"][0]["name"]) is not None, "no answer")


def main():
    client = triton.InferenceServerClient(URL, concurrency=4, network_timeout=60.0, connection_timeout=60.0)
    try:
        metadata = health_and_metadata(client)
        predictions(client, metadata)
        classes(client, metadata)
        asyncio.run(asyncio_client(metadata))
        errors(client, metadata)
    finally:
        client.close()
    print(f"conformance: all {checks} checks hold")


if __name__ == "__main__":
    sys.exit(main())
