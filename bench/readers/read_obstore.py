"""obstore: ranged GETs of `part_bytes`, `connections` at once; small objects whole."""

import asyncio

import obstore
import s3_harness
from obstore.store import S3Store


def _store(spec):
    return S3Store(
        spec["bucket"],
        endpoint=spec["endpoint"],
        region="us-east-1",
        skip_signature=True,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


async def _read(spec, first):
    store, total = _store(spec), 0
    turns = asyncio.Semaphore(spec["connections"])

    async def one(key, start, end):
        nonlocal total
        async with turns:
            if spec["kind"] == "small":
                answer = await obstore.get_async(store, key)
                data = await answer.bytes_async()
            else:
                data = await obstore.get_range_async(store, key, start=start, end=end + 1)
        total += len(data)
        first()

    await asyncio.gather(*[one(*part) for part in s3_harness.parts(spec)])
    return total


def read(spec, first):
    return asyncio.run(_read(spec, first))


if __name__ == "__main__":
    s3_harness.main(read)
