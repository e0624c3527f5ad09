"""Sequences with NVIDIA's own client, unmodified: tritonclient[http] against models like those of its examples.

Interface, for whoever starts the mesh:

  environment  MESH_URL     the inference door, e.g. 127.0.0.1:8000 (a leading http:// is fine)
               MESH_KEY     an API key of the tenant that owns the models
               MESH_OTHER   an API key of another tenant to whom the models are granted
               models       simple_sequence (direct; START and READY), simple_dyna_sequence (oldest; a UINT64 CORRID) and
                            simple_string_dyna_sequence (oldest; a STRING CORRID), each INPUT INT32 [1] -> OUTPUT INT32 [1]
  exit status  0 when everything holds; otherwise a traceback that names what does not
  last line    "conformance: all <n> checks hold"
"""

import os
import uuid

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

URL = os.environ["MESH_URL"].removeprefix("http://").rstrip("/")
KEYS = [os.environ["MESH_KEY"], os.environ["MESH_OTHER"]]
VALUES = [11, 7, 5, 3, 2, 0, 1]
checks = 0


def check(holds, what):
    global checks
    checks += 1
    if not holds:
        raise AssertionError(what)


def send(client, model, sequence, value, start=False, end=False, key=KEYS[0], rows=1):
    tensor = triton.InferInput("INPUT", [rows, 1], "INT32")
    tensor.set_data_from_numpy(np.full([rows, 1], value, dtype=np.int32))
    result = client.infer(
        model,
        [tensor],
        outputs=[triton.InferRequestedOutput("OUTPUT")],
        sequence_id=sequence,
        sequence_start=start,
        sequence_end=end,
        headers={"authorization": "Bearer " + key},
    )
    return int(result.as_numpy("OUTPUT")[0][0])


def whole(client, model, sequence, values, key=KEYS[0]):
    last = len(values) - 1
    return [send(client, model, sequence, value, at == 0, at == last, key) for at, value in enumerate(values)]


def expect(got, wanted, what):
    check(got == wanted, f"{what}: {got} instead of {wanted}")


def refused(text, call):
    try:
        call()
    except InferenceServerException as error:
        check(text in error.message(), f"'{text}' is not in '{error.message()}'")
        check("400" in str(error.status()), f"status {error.status()}")
        return
    raise AssertionError(f"a call that must fail with '{text}' went through")


def like_the_examples(client):
    """What the client's own sequence examples send, and expect."""
    up, down = [0] + VALUES, [100] + [-value for value in VALUES]
    expect(whole(client, "simple_sequence", 1000, up), [1] + VALUES, "simple_sequence, a number")
    expect(whole(client, "simple_sequence", 1001, down), [101] + down[1:], "simple_sequence, another number")
    name = str(uuid.uuid4())
    expect(whole(client, "simple_sequence", name, [20] + down[1:]), [21] + down[1:], "simple_sequence, a text")
    dyna = whole(client, "simple_dyna_sequence", 1000, up)
    expect(dyna, [1] + VALUES[:-1] + [VALUES[-1] + 1000], "simple_dyna_sequence")
    sums = np.cumsum([20] + down[1:]).tolist()
    sums[-1] += 1002
    texts = whole(client, "simple_string_dyna_sequence", "1002", [20] + down[1:])
    expect(texts, sums, "simple_string_dyna_sequence")


def interleaved(client):
    """Sequences of two tenants with the same ids, a request of each at a time."""
    names = [(key, sequence) for key in KEYS for sequence in ("1", "2", "3")]
    sums = dict.fromkeys(names, 0)
    for round in range(5):
        for at, (key, sequence) in enumerate(names):
            value = 10 * round + at
            sums[key, sequence] += value
            # The id is added to the last answer.
            wanted = sums[key, sequence] + (int(sequence) if round == 4 else 0)
            flags = dict(start=round == 0, end=round == 4)
            got = send(client, "simple_string_dyna_sequence", sequence, value, key=key, **flags)
            expect(got, wanted, f"sequence {sequence} of tenant {KEYS.index(key)} in round {round}")


def refusals(client):
    model = "simple_sequence"
    start = f"inference request for sequence 77 to model '{model}' must specify the START flag on the first request"
    refused(start, lambda: send(client, model, 77, 1))
    correlation = f"inference request to model '{model}' must specify a non-zero or non-empty correlation ID"
    refused(correlation, lambda: send(client, model, 0, 1, start=True))
    refused("must specify batch-size 1", lambda: send(client, model, 5, 1, start=True, rows=2))
    whole(client, model, 77, [1, 2])
    refused(start, lambda: send(client, model, 77, 3))
    refused("UINT64", lambda: send(client, "simple_dyna_sequence", "no number", 1, start=True))


def main():
    client = triton.InferenceServerClient(URL)
    like_the_examples(client)
    interleaved(client)
    refusals(client)
    client.close()
    print(f"conformance: all {checks} checks hold")


main()
