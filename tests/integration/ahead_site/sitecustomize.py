"""Found by every Python process of a stack whose PYTHONPATH has this folder: its scripts read a clock that a test has moved."""

import ahead

ahead.install()
