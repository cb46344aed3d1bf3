"""The reader: a process that reads and resolves the file for a reload, so that packets wait for
neither."""
