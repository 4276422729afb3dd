"""Pages of the console over a record of years: how long each takes, and how long Flower's loop is kept from others meanwhile."""
