"""Answers: named questions of the log, each with its table, its SQL and a chart.

Owns the questions (questions.sql, read and narrowed by questions.py), what an answer is and how it shows itself (answer.py), a log in a file that is
asked as a home is (logs.py), and charts
(charts.py, the only importer of matplotlib, loaded by the first plot). Must not know who runs jobs, nor any face. Neither DuckDB, pandas nor
matplotlib is loaded by importing this package.
"""

from toolkit.analysis.answer import Answer, ask, outputs_where
from toolkit.analysis.explain import explain
from toolkit.analysis.logs import Log

__all__ = ["Answer", "Log", "ask", "explain", "outputs_where"]
