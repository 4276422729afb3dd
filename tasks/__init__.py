"""Tasks enter: the task families that Headgate ships."""
