"""Has NVIDIA's perf_analyzer, unmodified, measure a running mesh in the place of Triton's server, over both wires.

What it says that the server has counted must be what the server has counted: requests, executions, and where the time went.

Interface, for whoever starts the mesh (with --compat triton):

  environment  MESH_HTTP     the HTTP door, e.g. 127.0.0.1:8000
               MESH_GRPC     the gRPC door, e.g. 127.0.0.1:8001
               MESH_FOLDER   where the program is kept between runs
               models        simple, INPUT0, INPUT1 [16] -> OUTPUT0, OUTPUT1 [16] of INT32
  exit status  0 when everything holds, or where the program cannot run here; otherwise a traceback that names what does not
  last line    "conformance: all <n> checks hold", or "conformance: skipped: <why>"

Its wheel wants glibc 2.38. Where there is an older one, a newer one is taken from Debian's next release, by the machine's own apt and
into a folder of its own, and the program started by that one's loader: nothing is installed.
"""

import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

VERSION = "2.60.0"
WHEEL = "manylinux_2_38_x86_64"
GLIBC = (2, 38)
# The release of Debian whose C library is new enough, and what the program is linked with.
NEWER = "trixie"
LIBRARIES = ["libc6", "libgcc-s1", "libstdc++6", "libssl3t64", "libzstd1", "zlib1g"]
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
REQUESTS = 400
# How often a measurement is made that does not agree.
TRIES = 3

DOORS = {"http": os.environ["MESH_HTTP"], "grpc": os.environ["MESH_GRPC"]}
FOLDER = Path(os.environ["MESH_FOLDER"]) / f"perf-analyzer-{VERSION}"
checks = 0


class Skipped(Exception):
    """It cannot run here."""


def check(holds, what):
    global checks
    checks += 1
    if not holds:
        raise AssertionError(what)


def run(command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{command} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def program():
    """The program out of its wheel."""
    binary = FOLDER / "perf_analyzer/bin/perf_analyzer"
    if not binary.exists():
        download = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
        try:
            run([sys.executable, *download, "--platform", WHEEL, "--dest", FOLDER, f"perf-analyzer=={VERSION}"])
        except RuntimeError as error:
            raise Skipped(f"perf_analyzer {VERSION} is not to be had: {error}") from error
        for wheel in FOLDER.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(FOLDER / "new")
        (FOLDER / "new/perf_analyzer/bin/perf_analyzer").chmod(0o755)
        (FOLDER / "new/perf_analyzer").rename(FOLDER / "perf_analyzer")
    return binary


def loader():
    """How to start it: with nothing where the C library is new enough, else by another one's loader."""
    name, version = platform.libc_ver()
    have = tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else (0, 0)
    if have >= GLIBC:
        return []
    why = f"perf_analyzer wants glibc {GLIBC[0]}.{GLIBC[1]}, here is {name} {version}"
    root = FOLDER / "root"
    libraries = root / "usr/lib/x86_64-linux-gnu"
    if not root.exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb") and KEYRING.exists()):
            raise Skipped(f"{why}, and none newer is to be had but on Debian")
        try:
            unpack(root)
        except RuntimeError as error:
            raise Skipped(f"{why}, and Debian's packages are not to be had: {error}") from error
    return [libraries / "ld-linux-x86-64.so.2", "--library-path", libraries]


def unpack(root):
    """The libraries of Debian's next release, from where this machine has its own packages."""
    lines = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]).splitlines()
    mirrors = [line.split()[0] for line in lines if not line.split()[-1].endswith(("-security", "-updates", "-backports"))]
    mirrors = [mirror for mirror in mirrors if "debian" in mirror]
    if not mirrors:
        raise RuntimeError("no archive of Debian is set up")
    apt = FOLDER / "apt"
    shutil.rmtree(apt, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial", "sources", "packages"):
        (apt / folder).mkdir(parents=True)
    source = f"Types: deb\nURIs: {mirrors[0]}\nSuites: {NEWER}\nComponents: main\nSigned-By: {KEYRING}\n"
    (apt / "sources/newer.sources").write_text(source)
    settings = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": apt / "sources",
        "Dir::State::lists": apt / "lists",
        "Dir::Cache": apt / "cache",
        # The folders are the caller's own.
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    run(["apt-get", *options, "--quiet", "update"])
    run(["apt-get", *options, "--quiet", "download", *LIBRARIES], cwd=apt / "packages")
    for package in (apt / "packages").glob("*.deb"):
        run(["dpkg-deb", "--extract", package, FOLDER / "unpacked"])
    (FOLDER / "unpacked").rename(root)
    shutil.rmtree(apt, ignore_errors=True)


def statistics():
    with urllib.request.urlopen(f"http://{DOORS['http']}/v2/models/simple/stats") as answer:
        return json.load(answer)["model_stats"][0]


def number(text, name):
    found = re.search(rf"{name}: ([0-9.]+)", text)
    check(found is not None, f"'{name}' is not in:\n{text}")
    return float(found[1])


def measure(command, wire, concurrency):
    """One run of so many requests, beside what the server counts meanwhile."""
    before = statistics()
    options = ["-m", "simple", "-i", wire, "-u", DOORS[wire], "--request-count", REQUESTS, "--concurrency-range", concurrency]
    told = run([*command, *options], timeout=300)
    after = statistics()
    name = f"{wire} at {concurrency}"
    client, server = told.split("Server:", 1)
    check(number(client, "Request count") == REQUESTS, f"{name}: not all requests were answered:\n{told}")
    check("Failed" not in told and "error" not in told.lower(), f"{name}: {told}")

    def grown(*path):
        values = []
        for stats in (before, after):
            for part in path:
                stats = stats[part]
            values.append(int(stats))
        return values[1] - values[0]

    for line, path in (
        ("Inference count", ("inference_count",)),
        ("Execution count", ("execution_count",)),
        ("Successful request count", ("inference_stats", "success", "count")),
    ):
        check(number(server, line) == grown(*path), f"{name}: {line} {grown(*path)} in:\n{told}")
    check(grown("inference_stats", "success", "count") == REQUESTS, f"{name}: {REQUESTS} requests")
    # Times are means in whole microseconds, cut off.
    count = grown("inference_stats", "success", "count")
    for stage in ("queue", "compute_input", "compute_infer", "compute_output"):
        part = stage.replace("_", " ")
        said = float(re.search(rf"{part} ([0-9]+) usec", server)[1])
        mean = grown("inference_stats", stage, "ns") / count / 1_000
        check(abs(said - mean) <= 1, f"{name}: {part} {said} where the server has {mean}:\n{told}")


def agreed(command, wire, concurrency):
    """The server counts a request just after it has answered it, so who asks at once may miss the last: then it is measured again."""
    for _ in range(TRIES - 1):
        try:
            return measure(command, wire, concurrency)
        except AssertionError as error:
            print(f"again: {error}", file=sys.stderr)
    return measure(command, wire, concurrency)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    # Another test, in a process of its own, may be about to fetch it as well.
    with open(FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if platform.machine() != "x86_64":
            raise Skipped(f"perf_analyzer is made for x86_64, this is {platform.machine()}")
        command = [*loader(), program()]
    for wire in DOORS:
        for concurrency in (1, 4):
            agreed(command, wire, concurrency)


try:
    main()
    print(f"conformance: all {checks} checks hold")
except Skipped as reason:
    # On one line, whatever the programs that failed have said.
    print(f"conformance: skipped: {' '.join(str(reason).split())}")
