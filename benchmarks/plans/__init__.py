"""Plans of random graphs and real workflows, held against an exact solver; see __main__."""
