"""Clients of tritonclient in one form: every call is waited for, whichever of its ways it goes.

Owns no call of its own: what is asked for is asked of the unmodified client, over asyncio too, or of its streams.
"""

import asyncio
import inspect
import queue

PATIENCE_SECONDS = 60


class Waited:
    """A client of asyncio, whose calls are waited for."""

    def __init__(self, module, address):
        self._loop = asyncio.new_event_loop()

        async def made():
            return module.InferenceServerClient(address)

        self._client = self._loop.run_until_complete(made())

    def wait(self, call, *values, **named):
        async def waited():
            told = call(*values, **named)
            return await told if inspect.isawaitable(told) else told

        return self._loop.run_until_complete(waited())

    def __getattr__(self, name):
        call = getattr(self._client, name)
        return lambda *values, **named: self.wait(call, *values, **named)

    def close(self):
        self.wait(self._client.close)
        self._loop.close()


class Stream:
    """Infers over one stream, an answer for each request, with the client that waits."""

    def __init__(self, client):
        self._client, self._answers = client, queue.Queue()
        client.start_stream(lambda result, error: self._answers.put((result, error)))

    def infer(self, *values, **named):
        self._client.async_stream_infer(*values, **named)
        result, error = self._answers.get(timeout=PATIENCE_SECONDS)
        if error:
            raise error
        return result

    def __getattr__(self, name):
        return getattr(self._client, name)

    def close(self):
        self._client.stop_stream()
        self._client.close()


class WaitedStream(Waited):
    """The same with the client of asyncio."""

    def __init__(self, module, address):
        super().__init__(module, address)
        self._asked = asyncio.Queue()

        async def asked():
            while (one := await self._asked.get()) is not None:
                yield one

        async def opened():
            return self._client.stream_infer(asked())

        self._answers = self._loop.run_until_complete(opened())

    def infer(self, model_name, inputs, **named):
        async def answered():
            await self._asked.put({"model_name": model_name, "inputs": inputs, **named})
            return await asyncio.wait_for(anext(aiter(self._answers)), PATIENCE_SECONDS)

        result, error = self._loop.run_until_complete(answered())
        if error:
            raise error
        return result

    def close(self):
        async def ended():
            await self._asked.put(None)
            async for _ in self._answers:
                pass

        self._loop.run_until_complete(ended())
        super().close()
