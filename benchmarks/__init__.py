"""What is measured of Headgate: speed, and what is left of its promises when processes are killed."""
