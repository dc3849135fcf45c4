"""boto3 with threads: ranged GETs of `part_bytes`, `connections` at once."""

import concurrent.futures

import boto3
import botocore.config
import s3_harness


def read(spec, first):
    client = boto3.client(
        "s3",
        config=botocore.config.Config(
            max_pool_connections=spec["connections"],
            s3={"addressing_style": "path"},
            response_checksum_validation="when_required",
        ),
    )

    def one(part):
        key, start, end = part
        answer = client.get_object(Bucket=spec["bucket"], Key=key, Range=f"bytes={start}-{end}")
        data = answer["Body"].read()
        first()
        return len(data)

    with concurrent.futures.ThreadPoolExecutor(spec["connections"]) as pool:
        return sum(pool.map(one, s3_harness.parts(spec)))


if __name__ == "__main__":
    s3_harness.main(read)
