"""A server that knows: it answers DSG-Video's questions by reading the caption it is sent and looking at the pixels of
the pictures it is sent, behind the same interface as a served model. Its world is coloured shapes on grey."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests.films.film import write
from manifests.types import Image

COLORS = {  # BGR
    "red": (40, 40, 220), "green": (60, 170, 40), "blue": (210, 80, 30), "yellow": (40, 220, 230),
    "purple": (160, 40, 130), "white": (245, 245, 245),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle")
GREY = 70
OBJECTS = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)
_OBJECT = re.compile(rf"\b({'|'.join(COLORS)}) ({'|'.join(SHAPES)})s?\b")


@dataclass(frozen=True)
class Placed:
    """An object, where its middle is (0..1 of width and height), and from which to which share of the film it is
    there."""

    name: str
    x: float
    y: float
    begins: float = 0.0
    ends: float = 1.0


def picture(placed: Sequence[Placed], moment: float = 0.0, width: int = 160, height: int = 90) -> Image:
    """BGR (H, W, 3) at a moment, 0..1; all that is in it drifts a little to the right."""
    image = np.full((height, width, 3), GREY, np.uint8)
    for one in placed:
        if not one.begins <= moment <= one.ends:
            continue
        color, shape = one.name.split()
        x, y, r = int((one.x + 0.04 * moment) * width), int(one.y * height), height // 9
        if shape == "circle":
            cv2.circle(image, (x, y), r, COLORS[color], -1)
        elif shape == "square":
            cv2.rectangle(image, (x - r, y - r), (x + r, y + r), COLORS[color], -1)
        else:
            cv2.fillPoly(image, [np.array([(x, y - r), (x - r, y + r), (x + r, y + r)])], COLORS[color])
    return image


def film(path: Path, placed: Sequence[Placed], seconds: float = 2.0, fps: float = 24.0) -> None:
    count = round(seconds * fps)
    write(path, (picture(placed, k / (count - 1), 320, 180) for k in range(count)), fps)


def jpeg(image: Image) -> bytes:
    return cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 88))[1].tobytes()


def looked_at(image: Image) -> dict[str, tuple[float, float]]:
    """Objects in a picture, by its pixels alone, and where their middles are."""
    image = np.asarray(cv2.resize(image, (160, 90), interpolation=cv2.INTER_AREA), np.uint8)
    palette = np.array([(GREY,) * 3, *COLORS.values()], np.int32)
    nearest = ((image[:, :, None].astype(np.int32) - palette) ** 2).sum(axis=3).argmin(axis=2)
    found = {}
    for k, color in enumerate(COLORS, 1):
        mask = cv2.morphologyEx((nearest == k).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        for left, top, width, height, area in cv2.connectedComponentsWithStats(mask)[2][1:].tolist():
            if area < 60:
                continue
            filled = area / (width * height)
            shape = "square" if filled > 0.88 else "circle" if filled > 0.65 else "triangle"
            found[f"{color} {shape}"] = (left + width / 2, top + height / 2)
    return found


def true_of(question: str, image: Image) -> bool:
    """Whether a question is to be answered with yes: is something there, or is it above, below or beside another."""
    there, named = looked_at(image), [" ".join(match) for match in _OBJECT.findall(question)]
    if not named or not set(named) <= there.keys():
        return False
    if len(named) == 1:
        return True
    (x, y), (other_x, other_y) = there[named[0]], there[named[1]]
    return {"above": y < other_y, "below": y > other_y, "left": x < other_x, "right": x > other_x}[
        next(word for word in ("above", "below", "left", "right") if word in question)
    ]


def says(*names: str) -> str:
    """A sentence that names these objects."""
    named = [f"a {name}" for name in names]
    return f"There is {', '.join(named[:-1])} and {named[-1]}." if len(named) > 1 else f"There is {named[0]}."


def _material(content: list[dict[str, Any]]) -> Any:
    """What stands in the fence."""
    return json.loads(content[0]["text"].partition("<material>")[2].rpartition("</material>")[0])


def _read(content: list[dict[str, Any]]) -> dict[str, Any]:
    parts = _material(content)["sentences"]
    objects: dict[str, list[int]] = {}
    claims = []
    for number, part in parts.items():
        named = [" ".join(match) for match in _OBJECT.findall(part)]
        for name in named:
            objects.setdefault(name, []).append(int(number))
        if " is above " in part or " is below " in part:
            claims.append(
                {"about": named, "question": "Is " + part[:1].lower() + part[1:-1].replace(" is ", " ") + "?"}
            )
    said = [
        {"name": name, "sentences": sorted(set(where)), "question": f"Is there a {name} in this frame?"}
        for name, where in objects.items()
    ]
    return {"objects": said, "claims": claims}


def _rewrite(content: list[dict[str, Any]]) -> dict[str, Any]:
    asked = _material(content)
    kept = []
    for part in re.findall(r"[^.]+\.", asked["caption"]):
        named = [" ".join(match) for match in _OBJECT.findall(part)]
        left = [name for name in named if name not in asked["remove"]]
        if left == named:
            kept.append(part.strip())
        elif left and part.strip().startswith("There is"):
            kept.append(says(*left))
    return {"caption": " ".join(kept)}


@dataclass
class Oracle:
    """requests: what was asked, in order, as (form, words, number of pictures). model: its name. most_images: more
    are refused. lists: whether it can answer for several pictures. most_readings: it is down after so many captions.
    spoil: answers by the form that they are for, to be given in place of true ones, one after another."""

    url: str = ""
    model: str = "oracle"
    most_images: int = 16
    lists: bool = True
    most_readings: int | None = None
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    spoil: dict[str, list[Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def asked(self) -> Counter[str]:
        """How often there was a question of each form."""
        return Counter(form for form, _, _ in self.requests)

    def answer(self, request: dict[str, Any]) -> tuple[int, Any]:
        """Status, and the answer's text or the error's message."""
        if request["model"] != self.model:
            return 404, f"The model `{request['model']}` does not exist."
        form = request.get("response_format", {}).get("json_schema", {}).get("name", "")
        content = request["messages"][-1]["content"]
        images = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        words = [part["text"] for part in content if part["type"] == "text"]
        with self.lock:
            self.requests.append((form, words[-1], len(images)))
            if self.most_readings is not None and self.asked["Reading"] > self.most_readings:
                return 503, "going down"
            if self.spoil.get(form):
                spoilt = self.spoil[form].pop(0)
                if spoilt is not None:
                    return spoilt if isinstance(spoilt, tuple) else (200, spoilt)
        if len(images) > self.most_images:
            return 400, f"At most {self.most_images} image(s) may be provided in one prompt."
        if form == "Reading":
            return 200, json.dumps(_read(content))
        if form == "Rewritten":
            return 200, json.dumps(_rewrite(content))
        if form != "Seen":
            return 200, "a picture"
        question = words[-1].splitlines()[1]
        if len(images) > 1 and not self.lists:
            return 200, "I see no list."
        shown = [cv2.imdecode(np.frombuffer(base64.b64decode(url.split(",")[1]), np.uint8), 1) for url in images]
        return 200, json.dumps({f"frame_{k + 1}": "yes" if true_of(question, i) else "no" for k, i in enumerate(shown)})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    oracle: Oracle

    def do_GET(self) -> None:
        served = {"id": self.oracle.model, "object": "model", "owned_by": "tests"}
        self._send(200, {"object": "list", "data": [served]})

    def do_POST(self) -> None:
        status, said = self.oracle.answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        if status != 200:
            self._send(status, {"error": {"message": said, "code": status}})
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        self._send(200, {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})

    def _send(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def serve() -> Iterator[Oracle]:
    """A fixture's body."""
    oracle = Oracle()
    handler = type("Handler", (_Handler,), {"oracle": oracle})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    oracle.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield oracle
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
