"""The truth about jobs (`ledger.sqlite`) and the losable live board (`live.sqlite`): the only importer of sqlite3."""

from toolkit.ledger.backup import Backup, Pace
from toolkit.ledger.database import impatient
from toolkit.ledger.entries import BatchFacts, Cell, Claim, Elsewhere, Key, NewBatch, NewJob, Outcome, Pause, ServerFacts, StaleEpoch
from toolkit.ledger.line import Line
from toolkit.ledger.live import LiveBoard, LiveJob, LiveServer
from toolkit.ledger.store import Ledger

__all__ = [
    "Backup", "BatchFacts", "Cell", "Claim", "Elsewhere", "Key", "Ledger", "Line", "LiveBoard", "LiveJob", "LiveServer", "NewBatch", "NewJob", "Outcome",
    "Pace", "Pause", "ServerFacts", "StaleEpoch", "impatient",
]  # fmt: skip
