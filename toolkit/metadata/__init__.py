"""What a picture or clip says of itself: read, written and taken out again.

Owns the places where ComfyUI, A1111 and this toolkit keep text in PNG, WebP, JPEG, MP4 and WebM files. Pure but for the files it is given: knows
no job, no request's fields and no server. Headers are walked by hand, a bounded number of steps, so that no picture is ever decoded and a hostile
file costs nothing; PyAV copies clips, packet by packet. pieces.py and boxes.py cut files up, embedded.py understands what is in them, notes.py has
what we write, clips.py and clean.py make the copies.
"""

from toolkit.metadata.clean import strip
from toolkit.metadata.embedded import Embedded, is_media, read
from toolkit.metadata.notes import annotate, in_png, notes_of

__all__ = ["Embedded", "annotate", "in_png", "is_media", "notes_of", "read", "strip"]
