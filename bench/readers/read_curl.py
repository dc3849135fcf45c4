"""curl itself: `connections` transfers at once, parts of `part_bytes`, thrown away. The limit."""

import pathlib
import subprocess

import s3_harness


def read(spec, first):
    config = pathlib.Path(spec["scratch"]) / "curl.conf"
    with open(config, "w", encoding="utf-8") as file:
        for number, (key, start, end) in enumerate(s3_harness.parts(spec)):
            if number > 0:
                file.write("next\n")  # other options from here on
            file.write(f'url = "{s3_harness.url(spec, key)}"\nrange = {start}-{end}\n')
            if spec["ca_file"]:
                file.write(f'cacert = "{spec["ca_file"]}"\n')
            file.write('output = "/dev/null"\n')
    command = ["curl", "-sS", "--fail-early", "-Z", "--parallel-immediate"]
    command += ["--parallel-max", str(spec["connections"]), "-K", str(config)]
    subprocess.run(command, check=True)
    return sum(size for _, size in spec["objects"])


if __name__ == "__main__":
    s3_harness.main(read)
