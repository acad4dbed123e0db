"""Opening, decoding, scaling, the single walk and exact frames: on odd files made on the spot."""

from __future__ import annotations

import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from manifests.films.film import write
from manifests.media.container import Limits, decode, open_film
from manifests.media.cut import cut
from manifests.media.pixels import Picture, fit
from manifests.media.read import read_frames
from manifests.media.scan import Pieces, Scan, Span, TimedBoundary
from manifests.types import EVERY_FRAME, Boundary, Image, MediaError, Sampling
from tests.media_files import number_of, numbered, rotate, write_video

ALL = Sampling(EVERY_FRAME, 96)


def walk(path: Path) -> tuple[list[int], list[int]]:
    """Numbers drawn on the frames, and their times."""
    with open_film(str(path)) as film:
        seen = [(number_of(Picture(d.frame, film.rotation, film.sar).sample(ALL)), d.time) for d in decode(film)]
    return [n for n, _ in seen], [t for _, t in seen]


# -- decoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", {}),
        ("matroska.mkv", {}),
        ("transport.ts", {}),
        ("vp9.webm", {"codec": "libvpx-vp9"}),
        ("mpeg4.avi", {"codec": "mpeg4"}),
        ("ten_bit.mp4", {"codec": "libx265", "pixel_format": "yuv420p10le"}),
        ("full_chroma.mp4", {"pixel_format": "yuv444p"}),
        ("odd.mp4", {"size": (163, 97), "pixel_format": "yuv444p"}),
        ("late.mp4", {"start": 7.5}),
    ],
)
def test_every_frame_once_and_in_order(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    numbers, times = walk(write_video(tmp_path / name, **options))  # type: ignore[arg-type]
    assert numbers == list(range(30))
    gaps = np.diff(times)
    assert (gaps > 0).all() and abs(gaps.mean() - 100_000) < 1_500


def test_start_time_is_the_containers(tmp_path: Path) -> None:
    _, times = walk(write_video(tmp_path / "late.mkv", start=7.5))
    assert abs(times[0] - 7_500_000) < 2_000


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    wanted = [0.0, 0.04, 0.5, 0.52, 2.0, 2.9, 3.0]
    numbers, times = walk(write_video(tmp_path / "vfr.mp4", frames=7, times=wanted))
    assert numbers == list(range(7))
    assert np.allclose(np.array(times) / 1e6, wanted, atol=0.001)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, degrees: int) -> None:
    upright = numbered(0b00000111)
    path = rotate(write_video(tmp_path / "turned.mp4", frames=9), degrees)
    with open_film(str(path)) as film:
        picture = [Picture(d.frame, film.rotation, film.sar).sample(ALL) for d in decode(film)][7]
        assert (film.width, film.height) == ((96, 160) if degrees != 180 else (160, 96))
    turns = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
    expected = cv2.cvtColor(np.asarray(cv2.rotate(upright, turns[degrees])), cv2.COLOR_BGR2GRAY)
    assert picture.shape == expected.shape
    assert np.corrcoef(picture.ravel(), expected.ravel())[0, 1] > 0.98


def test_a_stream_that_starts_between_key_frames(tmp_path: Path) -> None:
    """Cut inside the first group of pictures, past its key frame and its parameter sets."""
    data = write_video(tmp_path / "whole.ts", gop=15).read_bytes()
    packets = [data[k : k + 188] for k in range(0, len(data), 188)]
    tables = packets[:3]
    (tmp_path / "cut.ts").write_bytes(b"".join(tables + packets[len(packets) // 4 :]))
    with open_film(str(tmp_path / "cut.ts")) as film:
        count = sum(1 for _ in decode(film))
    assert 0 < count < 30


def test_broken_off_file_gives_what_there_is(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", frames=60)
    (tmp_path / "half.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    numbers, _ = walk(tmp_path / "half.mkv")
    assert numbers == list(range(len(numbers))) and 5 < len(numbers) < 60


def test_sample_aspect_ratio_makes_square_pixels(tmp_path: Path) -> None:
    path = tmp_path / "wide.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for k in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(k), format="bgr24")))
        container.mux(stream.encode(None))
    with open_film(str(path)) as film:
        shapes = {Picture(d.frame, film.rotation, film.sar).sample(Sampling(1, 48)).shape for d in decode(film)}
        assert film.sar == 2 and (film.width, film.height) == (160, 96)
    assert shapes == {(48, 160)}


# -- what is refused --------------------------------------------------------------------------------------------------


def refusal(path: Path, **limits: float) -> str:
    with pytest.raises(MediaError) as caught, open_film(str(path), Limits(**limits)) as film:  # type: ignore[arg-type]
        list(decode(film, Limits(**limits)))  # type: ignore[arg-type]
    text = str(caught.value)
    assert text.startswith(path.name) and text.endswith(".") and "\n" not in text
    return text


def test_scripts_under_a_videos_name_read_nothing_else(tmp_path: Path) -> None:
    real = write_video(tmp_path / "real.ts")
    (tmp_path / "playlist.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{real}\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{real}'\n")
    dash = '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet/></Period></MPD>'
    (tmp_path / "dash.mp4").write_text(dash)
    (tmp_path / "sdp.mp4").write_text("v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n")
    for name in ("playlist", "concat", "dash", "sdp"):
        assert "not a video that can be read" in refusal(tmp_path / f"{name}.mp4")


def test_files_that_are_no_video(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(50_000))
    cv2.imwrite(str(tmp_path / "still.jpg"), numbered(1))
    (tmp_path / "still.jpg").rename(tmp_path / "photo.mp4")
    assert "the file is empty" in refusal(tmp_path / "empty.mp4")
    assert "not a video" in refusal(tmp_path / "noise.mp4")
    assert "not a video" in refusal(tmp_path / "photo.mp4")
    assert "there is no such file" in refusal(tmp_path / "absent.mp4")


def test_sound_without_picture(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44_100)
        for k in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44_100, k * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert "has no video stream" in refusal(tmp_path / "sound.mp4")


def test_limits_on_pixels_and_length(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=30)
    assert "exceed 1000 pixels" in refusal(path, pixels=1000)
    assert "lasts" in refusal(path, seconds=2.0)


def test_damage_is_counted_and_bounded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", frames=60, gop=60)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    for at in rng.integers(len(data) // 3, len(data) - 10, 12):
        data[at] ^= 0xFF
    path.write_bytes(data)
    with open_film(str(path)) as film:
        frames = list(decode(film))
        assert film.frames == len(frames) > 10
        assert film.corrupt == sum(f.corrupt for f in frames)
        assert film.corrupt + film.errors > 0
        errors = film.errors
    if errors:
        assert "packets cannot be decoded" in refusal(path, error_share=0.0)


def test_odd_names(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "v.mp4", frames=5)
    for name in ("-dash.mp4", "concat:x.mp4", "http:x.mp4", "per%20cent #1.mp4", "mit Ümlaut.mp4"):
        os.link(plain, tmp_path / name)
        assert walk(tmp_path / name)[0] == list(range(5))


# -- scaling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "short", "expected"),
    [
        ((1280, 720), 180, (320, 180)),
        ((720, 1280), 180, (180, 320)),
        ((100, 60), 180, (100, 60)),
        ((4000, 100), 180, (720, 18)),
    ],
)
def test_fit(size: tuple[int, int], short: int, expected: tuple[int, int]) -> None:
    assert fit(*size, short) == expected


def test_halving_equals_one_area_step_within_rounding() -> None:
    rng = np.random.default_rng(0)
    luma = np.asarray(cv2.GaussianBlur(rng.integers(0, 256, (720, 1280), dtype=np.uint8), (0, 0), 3))
    frame = av.VideoFrame.from_ndarray(cv2.cvtColor(luma, cv2.COLOR_GRAY2BGR), format="bgr24").reformat(
        format="yuv420p"
    )
    picture = Picture(frame)
    direct = cv2.resize(frame.to_ndarray()[:720], (320, 180), interpolation=cv2.INTER_AREA)
    assert np.abs(picture.sample(Sampling(1, 180)).astype(int) - direct).max() <= 1


def test_colors_survive() -> None:
    for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (20, 130, 240)):
        image = np.full((72, 128, 3), color, np.uint8)
        for pixel_format in ("yuv420p", "yuv444p", "yuvj420p", "yuv420p10le"):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format=pixel_format)
            got = Picture(frame).sample(Sampling(1, 36, color=True)).reshape(-1, 3).mean(axis=0)
            assert np.abs(got - color).max() < 6, (color, pixel_format, got)


def test_samples_are_read_only_shared_and_free_of_the_decoder() -> None:
    frame = av.VideoFrame.from_ndarray(numbered(5), format="bgr24").reformat(format="yuv420p")
    picture = Picture(frame)
    a, b = picture.sample(Sampling(1, 96)), picture.sample(Sampling(30, 96, cap=4))
    assert a is b and not a.flags.writeable and a.base is None


# -- the walk ---------------------------------------------------------------------------------------------------------


class At:
    """A splitter that reports given boundaries `lag` frames late."""

    wants = Sampling(EVERY_FRAME, 32)

    def __init__(self, *boundaries: Boundary, lag: int = 0):
        self.left, self.lag, self.index = list(boundaries), lag, -1

    @property
    def settled(self) -> int:
        return self.index - self.lag

    def push(self, index: int, image: Image) -> list[Boundary]:
        self.index = index
        ready = [b for b in self.left if b.end <= index - self.lag]
        self.left = [b for b in self.left if b not in ready]
        return ready

    def flush(self) -> list[Boundary]:
        return self.left


def spans(path: Path, splitter: At, pieces: Pieces = Pieces(), wants: tuple[Sampling, ...] = (ALL,)) -> list[Span]:
    with open_film(str(path)) as film:
        return [s for s in Scan(film, splitter, wants, pieces) if isinstance(s, Span)]


@pytest.mark.parametrize("lag", [0, 5, 40])
def test_clips_hold_exactly_their_frames(tmp_path: Path, lag: int) -> None:
    path = write_video(tmp_path / "v.mp4", frames=60)
    found = spans(path, At(Boundary("cut", 12, 12, 1.0), Boundary("fade", 30, 35, 1.0), lag=lag))
    assert [(s.start_frame, s.end_frame) for s in found] == [(0, 12), (12, 30), (36, 60)]
    for span in found:
        frames = span.frames[ALL]
        assert [number_of(i) for i in frames.images] == list(range(span.start_frame, span.end_frame))
        assert list(frames.indices) == list(range(span.start_frame, span.end_frame))
        assert span.start == frames.times[0]
    assert found[0].end == found[1].start == 1_200_000
    assert found[2].end == 6_000_000


def test_long_shots_are_cut_in_pieces_that_leave_no_crumb(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=70)
    found = spans(path, At(), Pieces(longest=2.0, shortest=0.5))
    assert [(s.start_frame, s.end_frame) for s in found] == [(0, 20), (20, 40), (40, 60), (60, 70)]
    found = spans(write_video(tmp_path / "w.mp4", frames=63), At(), Pieces(longest=2.0, shortest=0.5))
    assert [(s.start_frame, s.end_frame) for s in found] == [(0, 20), (20, 40), (40, 51), (51, 63)]


def test_pieces_are_bounded_in_frames_too(tmp_path: Path) -> None:
    found = spans(write_video(tmp_path / "v.mp4", frames=200), At(), Pieces(longest=100.0, frames=50))
    assert max(s.end_frame - s.start_frame for s in found) <= 50
    assert [s.start_frame for s in found[1:]] == [s.end_frame for s in found[:-1]]


def test_no_piece_reaches_past_what_the_splitter_has_settled(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=60)
    found = spans(path, At(Boundary("cut", 21, 21, 1.0), lag=25), Pieces(longest=2.0, shortest=0.5))
    assert [(s.start_frame, s.end_frame) for s in found][:2] == [(0, 10), (10, 21)]


def test_the_end_of_every_shot_is_trimmed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=40)
    cuts = At(Boundary("cut", 4, 4, 1.0), Boundary("fade", 25, 27, 1.0))
    found = spans(path, cuts, Pieces(trim_end=0.5))
    assert [(s.start_frame, s.end_frame) for s in found] == [(0, 4), (4, 20), (28, 35)], "a shorter shot stays whole"


def test_the_start_of_the_film_is_trimmed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=40)
    cuts = At(Boundary("cut", 5, 5, 1.0), Boundary("cut", 25, 25, 1.0))
    found = spans(path, cuts, Pieces(trim_start=1.0))
    assert [(s.start_frame, s.end_frame) for s in found] == [(0, 5), (10, 25), (25, 40)]


def test_sampling_follows_time_and_cap(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=80, fps=20)
    slow, few = Sampling(4.0, 32), Sampling(EVERY_FRAME, 32, cap=4)
    (span,) = spans(path, At(), Pieces(), (slow, few))
    assert list(span.frames[slow].indices) == list(range(0, 80, 5))
    assert list(span.frames[few].indices) == [10, 30, 50, 70]


def test_boundaries_carry_their_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=20)
    with open_film(str(path)) as film:
        walked = list(Scan(film, At(Boundary("fade", 8, 11, 1.0)), (ALL,), Pieces()))
    assert [(b.start, b.end) for b in walked if isinstance(b, TimedBoundary)] == [(800_000, 1_100_000)]


# -- exact frames and export ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts", "v.avi"])
def test_exact_frames_equal_those_of_the_walk(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, frames=90, codec="mpeg4" if name.endswith("avi") else "libx264", gop=30)
    _, times = walk(path)
    for first, last in ((0, 5), (41, 47), (60, 75), (88, 90)):
        end = times[last] if last < 90 else times[-1] + 100_000
        read = read_frames(str(path), times[first], end, short=96)
        assert [number_of(f) for f in read] == list(range(first, last)), (first, last)


def test_moments_show_the_frame_on_screen(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=40)
    asked = [1_000_000, 1_050_000, 1_099_999, 1_100_000, 1_950_000]
    read = read_frames(str(path), 1_000_000, 2_000_000, times=asked, short=96)
    assert [number_of(f) for f in read] == [10, 10, 10, 11, 19]
    assert read.shape == (5, 96, 160, 3)


def test_reading_outside_the_film_is_one_sentence(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=10)
    with pytest.raises(MediaError, match=r"no frame between 50\.000 s and 51\.000 s"):
        read_frames(str(path), 50_000_000, 51_000_000)
    with pytest.raises(MediaError, match=r"ends at \d\.\d+ s, before 30\.000 s; was the file changed"):
        read_frames(str(path), 1_000_000, 60_000_000, times=[1_500_000, 30_000_000])


def test_cut_keeps_frames_and_times(tmp_path: Path) -> None:
    wanted = [0.0, 0.1, 0.2, 0.5, 0.6, 0.9, 1.0, 1.2]
    path = rotate(write_video(tmp_path / "v.mp4", frames=8, times=wanted), 180)
    assert cut(str(path), 200_000, 1_000_000, tmp_path / "c.mp4") == 4
    with open_film(str(tmp_path / "c.mp4")) as film:
        got = [(number_of(Picture(d.frame).sample(ALL)[:, ::-1]), d.time) for d in decode(film)]
    assert [n for n, _ in got] == [2, 3, 4, 5]
    assert np.allclose([t / 1e6 for _, t in got], [0.0, 0.3, 0.4, 0.7], atol=0.002)


def test_cut_takes_a_part_of_the_picture(tmp_path: Path) -> None:
    """A bright picture inside black borders comes out without them, scaled or not."""
    image = np.zeros((120, 200, 3), np.uint8)
    image[20:100, 30:180] = 200
    write(tmp_path / "v.mp4", [image] * 5, 25.0)
    for short, shape in ((0, (80, 150)), (40, (40, 74))):
        cut(str(tmp_path / "v.mp4"), 0, 200_000, tmp_path / "c.mp4", short, crop=(30, 20, 150, 80))
        with open_film(str(tmp_path / "c.mp4")) as film:
            shown = next(decode(film))
            luma = Picture(shown.frame).sample(ALL)
        assert luma.shape[:2] == shape and luma.min() > 150


# -- motion vectors ---------------------------------------------------------------------------------------------------


def test_motion_vectors_are_those_of_the_motion(tmp_path: Path) -> None:
    """A picture that moves by 3 and 4 pixels a frame; the first frame is coded by itself and has no vectors."""
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8), (480, 480), interpolation=cv2.INTER_CUBIC)
    write(tmp_path / "v.mp4", [scene[4 * k : 4 * k + 192, 3 * k : 3 * k + 256] for k in range(40)], 25.0)
    wants = (Sampling(EVERY_FRAME, 0, coded="vectors"),)
    (span,) = spans(tmp_path / "v.mp4", At(), wants=wants)
    lengths = span.frames[wants[0]].images
    assert len(lengths) == 40 and len(lengths[0]) == 0
    # Vectors of bidirectional frames may span several frames; none is shorter than the motion.
    middle = np.median(np.concatenate(lengths))
    assert 4.5 <= middle <= 12
    assert spans(tmp_path / "v.mp4", At())[0].frames  # without the wish, none are exported


def test_codecs_without_motion_vectors_give_none(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.webm", codec="libvpx-vp9")
    wants = (Sampling(EVERY_FRAME, 0, coded="vectors"),)
    (span,) = spans(path, At(), wants=wants)
    assert all(len(length) == 0 for length in span.frames[wants[0]].images)


def test_quantizers_are_those_that_the_encoder_was_told(tmp_path: Path) -> None:
    """x264 at a constant quantiser codes frames that others are predicted from two to three steps finer."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (128, 192, 3), dtype=np.uint8) for _ in range(8)]
    wants = (Sampling(EVERY_FRAME, 0, coded="quantizer"),)
    for told in (20, 46):
        with av.open(str(tmp_path / f"{told}.mp4"), "w") as file:
            stream = file.add_stream("libx264", rate=25, options={"qp": str(told)})
            stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv420p"
            for image in noise:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
            file.mux(stream.encode())
        (span,) = spans(tmp_path / f"{told}.mp4", At(), wants=wants)
        means = np.concatenate(span.frames[wants[0]].images)
        assert len(means) == 8 and np.all(np.abs(means - told) <= 3), means
    (span,) = spans(write_video(tmp_path / "v.webm", codec="libvpx-vp9"), At(), wants=wants)
    assert all(len(mean) == 0 for mean in span.frames[wants[0]].images), "VP9 counts in other steps"
