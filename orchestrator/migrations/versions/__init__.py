"""One file for each revision of the record; what is there is never changed, because databases were made by it."""
