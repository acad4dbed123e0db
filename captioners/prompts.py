"""What models are asked when a clip is captioned, in our words; sources are named where a rule comes from one."""

from __future__ import annotations

from captioners.quoting import RULE

SYSTEM = (
    "You write captions for short video clips. A generator of videos will be trained on them, so they must say what is "
    f"to be seen and nothing else. {RULE}"
)

_STYLE = (
    "Write plain English sentences. Begin with the content itself, for example: A man sits on a chair, then stands up "
    "and walks into the kitchen. Do not write that the video, the clip or the frames show something, and do not speak "
    "of yourself. Leave out opinions, guesses and whatever cannot be seen."
)

_FRAMES = "These are frames of one clip in the order of time, each after its second."

DIRECT = (
    f"{_FRAMES} Describe the clip.\n"
    "short: one sentence of at most 20 words, the main subject and what it does.\n"
    "dense: the subjects and how they look, what they do and how that changes in the order of time, the background, "
    f"the light, the style, and how the camera moves; at most {{words}} words.\n{_STYLE}"
)
"""Asks a model that sees. What a caption must hold follows EasyAnimate's and Movie Gen's accounts of theirs."""

DIRECT_FILM = DIRECT.replace(_FRAMES, "This is a clip.")

FRAME = (
    "Describe this picture in one to three sentences: the objects, people and animals in it and how they look, what "
    f"they do, the scene and the light. {_STYLE}"
)
"""Asks a model that sees about one frame of several."""

SUMMARY = (
    "Frames were taken out of one clip, and each was described without regard to the others. Here are the "
    "descriptions, by the second of the frame:\n{material}\n"
    "Describe the clip as a whole, in as much detail as these allow: objects, scenery, animals, people and how the "
    "camera moves, what happens and how it changes, in the order of time.\n"
    "short: one sentence of at most 20 words, the main subject and what it does.\n"
    "dense: the whole description, at most {words} words, in one paragraph.\n"
    f"{_STYLE} Where descriptions contradict each other, leave the matter out."
)
"""Asks a language model for a caption out of captions of frames, as CogVideoX's pipeline asks GPT-4."""

HINTS = (
    "A draft of this clip's caption, and what instruments measured of the clip:\n{material}\n"
    "Look at the frames again and correct the draft. Measurements may be wrong; trust your eyes about subjects and the "
    "instruments about the camera's motion. Say how the camera moves only if frames and measurements agree. Keep what "
    "was right."
)
"""The second pass; goes after the frames and before DIRECT's wishes."""

REWRITE = (
    "Rewrite this caption of a video clip:\n{material}\n"
    "1. Take out lead-ins and any mention of the video, the clip, frames or the description itself.\n"
    "2. Take out opinions, moods that are not to be seen, guesses, and what is said not to be there.\n"
    "3. Keep the subjects and what they do.\n"
    "4. Keep the background and the place.\n"
    "5. Keep how the camera moves.\n"
    "6. Keep the style and the light.\n"
    "7. Add nothing, repeat nothing, and keep the order of time."
)
"""Asks a language model to put a caption in order, after the rules by which EasyAnimate has its captions rewritten."""

CATEGORY = (
    "The caption of a video clip:\n{material}\nWhich of these categories fits what the clip mainly shows? {names}."
)
"""STIV classifies captions by a language model; neither its list nor its prompt was published."""

UPSAMPLE = (
    "Someone wants a video and wrote:\n{material}\n"
    "Write the caption that such a video would have.\n"
    "camera: how the camera moves, if they said or clearly meant it; else none.\n"
    "dense: the subject and how it looks, what it does, the background, the light and the style, in simple words, at "
    "most {words} words. Keep everything they asked for. Add likely details of look and place, but little about "
    f"motion: too much of it makes generated videos break. {_STYLE}"
)
"""Brings a user's few words into the form of training captions, as CogVideoX and Movie Gen do; that motion should not
be spelt out is Movie Gen's finding."""
