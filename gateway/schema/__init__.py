"""What the API and its faces share: names, records, queries. Imports the standard library alone."""
