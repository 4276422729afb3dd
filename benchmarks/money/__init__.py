"""Random operations on money, with faults, in blocks that can be resumed; see __main__."""
