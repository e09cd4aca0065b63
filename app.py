"""The program, for `python app.py`."""

from toolkit.app import main

if __name__ == "__main__":
    raise SystemExit(main())
