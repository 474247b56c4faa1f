"""Makes fixture.tfevents with TensorBoard's own classes, for the test that ours has the same bytes.

    pip install tensorboard==2.21.0
    python make_fixture.py                 writes fixture.tfevents
    python make_fixture.py runs/digits     reads a run's event file with TensorBoard's reader and holds it against metrics.jsonl
"""

import json
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

HERE = pathlib.Path(__file__).parent


def make():
    png = bytes([0x89]) + b"PNG" + bytes([1, 2, 3])
    number = lambda tag, value: Summary.Value(tag=tag, simple_value=value)
    image = Summary.Image(height=28, width=200, colorspace=1, encoded_image_string=png)
    events = [
        Event(wall_time=1.5, file_version="brain.Event:2"),
        Event(wall_time=2.25, step=1, summary=Summary(value=[number("loss", 1.0), number("lr", 2e-5)])),
        Event(wall_time=3.5, step=300, summary=Summary(value=[number("heldout_loss", 0.03125)])),
        Event(wall_time=4.0, step=300, summary=Summary(value=[Summary.Value(tag="samples", image=image)])),
        Event(wall_time=5.0, step=70_000, summary=Summary(value=[number("loss", float("nan"))])),
    ]
    with open(HERE / "fixture.tfevents", "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()


def check(run):
    loaded = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0})
    loaded.Reload()
    tags = loaded.Tags()
    expected = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(line)
        step = line.pop("step")
        for tag, value in line.items():
            expected.setdefault(tag, []).append((step, value))
    assert set(tags["scalars"]) == set(expected), (tags["scalars"], sorted(expected))
    for tag, points in expected.items():
        read = [(event.step, event.value) for event in loaded.Scalars(tag)]
        assert [step for step, _ in read] == [step for step, _ in points], tag
        worst = max(abs(a - b) / max(abs(b), 1e-30) for (_, a), (_, b) in zip(read, points))
        assert worst < 1e-7, (tag, worst)
        print(f"{tag:<20} {len(read):>6} values, worst relative difference {worst:.1e}")
    for tag in tags["images"]:
        images = loaded.Images(tag)
        assert all(image.encoded_image_string.startswith(b"\x89PNG") for image in images)
        print(f"{tag:<20} {len(images):>6} pictures, {images[-1].width}x{images[-1].height}")


if __name__ == "__main__":
    check(pathlib.Path(sys.argv[1])) if len(sys.argv) > 1 else make()
