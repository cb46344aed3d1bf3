"""What the API and its clients share: names, records, queries. Imports the standard library
alone."""
