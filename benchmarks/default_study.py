"""What ``elision study`` takes with no argument: seconds, processor seconds, memory.

The command runs in a process of its own and a new folder. On a machine that is busy
with something else the processor seconds say more than those on the clock.

    python benchmarks/default_study.py [--out FOLDER] [ARGUMENTS OF STUDY ...]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from elision.common.files import write_json
from elision.study.folder import environment


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path)
    arguments, study = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "elision", "study", *study]
        began = time.monotonic()
        subprocess.run([*command, "--out", f"{folder}/run"], check=True)
        seconds = time.monotonic() - began
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
        size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    facts = {
        "arguments": study,
        "wall_seconds": seconds,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "peak_memory_mib": used.ru_maxrss / 1024,  # Linux counts in KiB
        "run_folder_mib": size / 2**20,
        "test_accuracy": {
            recipe: found["test_accuracy"]
            for recipe, found in summary["recipes"].items()
        },
        "machine": environment(),
    }
    print({name: value for name, value in facts.items() if name != "machine"})
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out / "default-study.json", facts)


if __name__ == "__main__":
    main()
