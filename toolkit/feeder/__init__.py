"""The process that feeds one server from one home: `python -m toolkit.feeder`.

feeder.py holds the line and the lock, link.py the connection, run.py the way of one attempt, look.py what the server said of itself.
"""
