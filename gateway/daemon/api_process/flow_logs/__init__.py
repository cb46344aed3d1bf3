"""In the API process: flow logs on disk in Azure's formats."""
