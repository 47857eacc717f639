"""A 1080p H.264 file to scores: gst-launch with our plugin against the naive Python way (naive.py).

Both see every 4th frame, 8 to a window, disjoint windows of 32 source frames, and neither one's loading
counts. Of ours the time to the first window is measured with a file that has only one, and taken off.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
RATE, STEP, FRAMES = 30, 4, 8
WINDOW = STEP * FRAMES / RATE
LABELS = "; ".join(f"label {i}" for i in range(10))


def video(xclipd, folder, windows):
    """A drawn scene in 1080p with `windows` whole windows and half of one more."""
    path = folder / f"scene-{windows}.mp4"
    if not path.exists():
        print(f"drawing {path}", flush=True)
        partial = folder / "partial.mp4"
        subprocess.run([xclipd, "scene", "--out", partial, "--size", "1080", "--rate", str(RATE), "--seed", "1",
                        "--duration", str((windows + 0.5) * WINDOW)], check=True)
        partial.rename(path)
    return path


def plugins(xclipd, folder):
    """GStreamer's search path with nothing in it but our plugin."""
    plugin = xclipd.parent / "libgstxclip.so"
    to = folder / "plugins"
    to.mkdir(exist_ok=True)
    shutil.copy2(plugin, to)
    return dict(os.environ, GST_PLUGIN_PATH=str(to), GST_REGISTRY=str(folder / "registry.bin"))


def launch(line, environment):
    """Seconds of a whole gst-launch, and what it printed."""
    start = time.perf_counter()
    ran = subprocess.run(["gst-launch-1.0", "-m", *line.split(" ")], env=environment, text=True,
                         capture_output=True)
    seconds = time.perf_counter() - start
    if ran.returncode != 0 or "ERROR" in ran.stderr:
        sys.exit(f"error: gst-launch-1.0 {line}\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    return seconds, ran.stdout


def measure(xclipd, folder, model, threads, precisions, rounds, windows):
    environment = plugins(xclipd, folder)
    long, short = video(xclipd, folder, windows), video(xclipd, folder, 1)
    decode = "filesrc location={} ! qtdemux ! h264parse ! avdec_h264 ! queue max-size-buffers=8"
    launch(f"{decode.format(short)} ! fakesink", environment)  # fills the registry

    def ours(path, precision, environment=environment):
        detect = (f"xclipdetect model={model} precision={precision} threads={threads} sync=true "
                  f"sample-rate={RATE}/{STEP} hop={FRAMES} labels={LABELS.replace(' ', '')}")
        return launch(f"{decode.format(path)} ! {detect} ! fakesink", environment)[0]

    def scored(path, precision):
        """Windows that the element says it scored, in a run that is not timed."""
        log = folder / "windows.log"
        ours(path, precision, dict(environment, GST_DEBUG="xclipdetect:6", GST_DEBUG_FILE=str(log),
                                   GST_DEBUG_NO_COLOR="1"))
        return len(re.findall(r" window [0-9.]+ to [0-9.]+: ", log.read_text()))

    for precision in precisions:
        for path, expected in ((short, 1), (long, windows)):
            if (found := scored(path, precision)) != expected:
                sys.exit(f"error: xclipdetect at {precision} scored {found} windows of {path}; expected {expected}")

    naive, own = [], {p: dict(seconds=[], decode=[]) for p in precisions}
    for _ in range(rounds):
        said = subprocess.run([sys.executable, HERE / "naive.py", long, model, str(threads)], check=True, text=True,
                              capture_output=True, env=dict(os.environ, OMP_NUM_THREADS=str(threads))).stdout
        naive.append(json.loads(said))
        for precision, times in own.items():
            one = ours(short, precision)
            times["seconds"].append(ours(long, precision) - one)
            one = launch(f"{decode.format(short)} ! fakesink", environment)[0]
            times["decode"].append(launch(f"{decode.format(long)} ! fakesink", environment)[0] - one)
    # The one window of the short file is taken off with everything else that it costs.
    return {
        "windows": windows,
        "naive": {
            "windows": naive[0]["windows"],
            "seconds": [n["seconds"] for n in naive],
            "decode": [n["decode"] for n in naive],
            "processor": [n["processor"] for n in naive],
            "model": [n["model"] for n in naive],
        },
        "ours": {p: {"windows": windows - 1, **times} for p, times in own.items()},
    }
