"""Columns of the manifest. Each field carries its unit, range, direction and meaning as Arrow field metadata.

Signals bring their own columns (`Signal.schema`); what no signal owns is listed here. Null means not measured; a
column that ends in `_error` says why.
"""

from __future__ import annotations

import pyarrow as pa

FORMAT = 1
"""Version of the layout of an output folder; a folder of another version is refused, not guessed at."""

STRINGS = pa.list_(pa.string())


def column(
    name: str,
    kind: pa.DataType,
    doc: str,
    *,
    unit: str = "",
    range: str = "",
    better: str = "",
    internal: bool = False,
    null: str = "",
) -> pa.Field:
    """A field whose metadata says what the number means. `better` is higher, lower or empty (neither); an internal
    column stays in the stages' parts and is left out of clips.parquet. `null` says what null means where it is an
    answer; elsewhere it means not measured, and `measure_error` says why."""
    said = {"doc": doc, "unit": unit, "range": range, "better": better, "null": null}
    said["internal"] = "yes" if internal else ""
    return pa.field(name, kind, metadata={k: v for k, v in said.items() if v})


IDENTITY = pa.schema(
    [
        column("clip_id", pa.string(), "video id and span; the key of every column family"),
        column("video_id", pa.string(), "hash of the video's content"),
        column("uri", pa.string(), "where the video was read"),
        column("start_us", pa.int64(), "presentation time of the first frame", unit="microsecond"),
        column("end_us", pa.int64(), "presentation time after the last frame (half open)", unit="microsecond"),
        column("start_frame", pa.int64(), "number of the first frame in presentation order", unit="frame"),
        column("end_frame", pa.int64(), "number after the last frame (half open)", unit="frame"),
        column("fps", pa.float64(), "nominal frame rate of the video", unit="frame/second"),
        column("duration_s", pa.float64(), "end_us - start_us", unit="second"),
        column("width", pa.int32(), "coded width after rotation", unit="pixel"),
        column("height", pa.int32(), "coded height after rotation", unit="pixel"),
        column("short_side", pa.int32(), "the smaller of width and height", unit="pixel"),
        column("sample_aspect_ratio", pa.float64(), "width of one pixel over its height, after rotation", unit="ratio"),
        column("aspect", pa.float64(), "width over height as shown", unit="ratio"),
        column("has_audio", pa.bool_(), "the file has an audio stream"),
        column("bitrate", pa.float64(), "of the file, sound included", unit="bit/second", null="length unknown"),
        column("film_duration_s", pa.float64(), "of the whole film, as its container states it; 0 where it does not"),
        column("film_offset_s", pa.float64(), "from the film's first frame to the clip's", unit="second", range=">= 0"),
        column(
            "corrupt_frames", pa.int32(), "frames that the decoder flagged as damaged", unit="frame", better="lower"
        ),
        column("shot", pa.int32(), "number of the shot within the film; pieces of one long shot share it"),
        column("pack", pa.string(), "frame pack of this clip, a Parquet part below the output folder"),
    ]
)

SHOTS = pa.schema(
    [
        column("uri", pa.string(), "where the video was read"),
        column("video_id", pa.string(), "hash of the video's content"),
        column("kind", pa.string(), "cut, fade, dissolve, wipe, or gradual where that cannot be told"),
        column("start_frame", pa.int64(), "cut: first frame of the new shot; else first frame that is not clean"),
        column("end_frame", pa.int64(), "cut: the same frame; else last frame that is not clean"),
        column("start_us", pa.int64(), "presentation time of start_frame", unit="microsecond"),
        column("end_us", pa.int64(), "presentation time of end_frame", unit="microsecond"),
        column("score", pa.float64(), "strength of the evidence in the detector's own unit"),
    ]
)

VIDEOS = pa.schema(
    [
        column("uri", pa.string(), "where the video was read"),
        column("video_id", pa.string(), "hash of the video's content; null if it could not be read at all"),
        column("status", pa.string(), "ok, quarantined, or duplicate (of an earlier input, byte for byte)"),
        column("error", pa.string(), "why it was quarantined, or the uri it duplicates"),
        column("bytes", pa.int64(), "size of the file", unit="byte"),
        column("container", pa.string(), "demuxer that read it"),
        column("codec", pa.string(), "video codec"),
        column("pixel_format", pa.string(), "as coded"),
        column("width", pa.int32(), "coded width after rotation", unit="pixel"),
        column("height", pa.int32(), "coded height after rotation", unit="pixel"),
        column("rotation", pa.int32(), "degrees counter-clockwise that the display matrix asks for", unit="degree"),
        column("fps", pa.float64(), "nominal frame rate", unit="frame/second"),
        column("duration_s", pa.float64(), "from the first frame to the end of the last", unit="second"),
        column("frames", pa.int64(), "frames decoded", unit="frame"),
        column("decode_errors", pa.int64(), "packets after the first good frame that did not decode", unit="packet"),
        column("corrupt_frames", pa.int64(), "frames that the decoder flagged as damaged", unit="frame"),
        column("has_audio", pa.bool_(), "the file has an audio stream"),
        column("clips", pa.int64(), "rows of this video in clips.parquet"),
    ]
)

DECISION = pa.schema(
    [
        column("copy_of", pa.string(), "clip_id of the kept copy; null for originals"),
        column("copy_similarity", pa.float64(), "agreement with the kept copy", range="0..1"),
        column("copy_group", pa.string(), "shared by all copies of one another; null where there is none"),
        column("concept", pa.int32(), "number of the concept cluster"),
        column("concept_size", pa.int64(), "kept clips in that cluster", unit="clip"),
        column("sample_probability", pa.float64(), "chance of being sampled", range="0..1"),
        column("sampled", pa.bool_(), "drawn for training; implies kept"),
        column("failed_rules", STRINGS, "every rule this clip failed, `copy` included"),
        column("kept", pa.bool_(), "no rule failed, not a copy"),
        column("subsets", STRINGS, "training subsets this clip belongs to"),
        column("bucket", pa.string(), "aspect and duration bucket for training"),
    ]
)

CAPTIONS = pa.schema(
    [
        column("caption", pa.string(), "final training text, camera prefix and FPS token included"),
        column("caption_raw", pa.string(), "what the captioner said"),
        column("caption_short", pa.string(), "one short sentence"),
        column("caption_model", pa.string(), "who wrote it"),
        column("caption_prompt", pa.string(), "fingerprint of what it was asked"),
        column("caption_category", pa.string(), "category of the content"),
        column("caption_error", pa.string(), "why there is no caption"),
    ]
)

_NOT_CHECKED, _NOT_REPAIRED = "not checked", "not repaired"
HALLUCINATION = pa.schema(
    [
        column("dsg_objects", STRINGS, "objects that the caption names", null=_NOT_CHECKED),
        column("dsg_hallucinated", STRINGS, "of these, the ones seen in no frame", better="lower", null=_NOT_CHECKED),
        column("dsg_sentences", pa.int32(), "sentences of the caption", null=_NOT_CHECKED),
        column("dsg_false_sentences", pa.int32(), "of these, the ones with a hallucinated object", null=_NOT_CHECKED),
        column("dsg_video_i", pa.float64(), "hallucinated objects over all objects", range="0..1", better="lower"),
        column("dsg_video_s", pa.float64(), "sentences with such an object over all", range="0..1", better="lower"),
        column("dsg_claims", pa.int32(), "attributes and actions of real objects that were asked about", null="none"),
        column("dsg_false_claims", STRINGS, "of these, the ones true of no frame", better="lower", null="none"),
        column("dsg_caption", pa.string(), "the text that was checked", null=_NOT_CHECKED),
        column("dsg_frames", pa.int32(), "frames that were looked at", unit="frame", null=_NOT_CHECKED),
        column("dsg_tokens", pa.int64(), "of questions and answers, repair included", unit="token", null=_NOT_CHECKED),
        column("dsg_seconds", pa.float64(), "that the answers took, added up", unit="second", null=_NOT_CHECKED),
        column("dsg_model", pa.string(), "who verified"),
        column("dsg_error", pa.string(), "why it was not verified"),
        column("caption_repaired", pa.string(), "dsg_caption without hallucinated objects", null=_NOT_REPAIRED),
        column("dsg_repair_error", pa.string(), "why the caption could not be repaired", null="no need, or repaired"),
        column("dsg_final_objects", STRINGS, "objects of the caption after repair, if any", null=_NOT_CHECKED),
        column("dsg_final_hallucinated", STRINGS, "of these, the ones seen in no frame", null=_NOT_CHECKED),
        column("dsg_final_sentences", pa.int32(), "sentences after repair, if any", null=_NOT_CHECKED),
        column("dsg_final_false_sentences", pa.int32(), "of these, the ones with such an object", null=_NOT_CHECKED),
        column("dsg_final_i", pa.float64(), "dsg_video_i after repair, if any", range="0..1", better="lower"),
        column("dsg_final_s", pa.float64(), "dsg_video_s after repair, if any", range="0..1", better="lower"),
    ]
)

REVIEW = pa.schema(
    [
        column("review", pa.string(), "what a person decided: keep or reject", null="nobody looked at it"),
        column(
            "review_start_s",
            pa.float64(),
            "where the part worth keeping begins, from the clip's first frame",
            unit="second",
            null="at the first frame",
        ),
        column("review_end_s", pa.float64(), "where it ends, likewise", unit="second", null="at the clip's end"),
        column("review_caption", pa.string(), "caption as a person corrected it", null="not corrected"),
        column("review_by", pa.string(), "who decided", null="not said"),
        column("review_at", pa.string(), "when, in UTC (ISO 8601)", null="nobody looked at it"),
    ]
)
RETRIEVAL = pa.schema(
    [
        column("retrieved_for", STRINGS, "entries of a taxonomy that found this clip, nearest first", null="none did"),
        column("retrieved_as", pa.string(), "the entry that it stands for in the balanced set", null="not taken"),
        column("retrieved_similarity", pa.float64(), "to the nearest of them", range="-1..1", null="none did"),
    ]
)

TAG_NAMES = (
    "editing",
    "no_motion_connectivity",
    "low_quality",
    "lecture",
    "text_dominated",
    "noisy_screenshot",
)
TAGS = pa.schema(
    [
        *(
            column(f"tag_{name}", pa.float64(), f"negative tag {name}", range="0..1", better="lower")
            for name in TAG_NAMES
        ),
        column("tags", STRINGS, "names of the tags over their threshold"),
        column("tags_error", pa.string(), "why the tags were not measured"),
    ]
)


def is_internal(field: pa.Field) -> bool:
    return bool((field.metadata or {}).get(b"internal"))


def may_be_null(field: pa.Field) -> bool:
    """Whether null is one of the answers of this column."""
    return bool((field.metadata or {}).get(b"null"))


def merge(*schemas: pa.Schema) -> pa.Schema:
    """All fields in order; a name that two schemas give must mean the same."""
    fields: dict[str, pa.Field] = {}
    for schema in schemas:
        for field in schema:
            assert fields.get(field.name, field).equals(field, check_metadata=True), f"two meanings of {field.name}"
            fields[field.name] = field
    return pa.schema(list(fields.values()))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with exactly these columns in this order; columns it lacks are null."""
    columns = [
        table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type) for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
