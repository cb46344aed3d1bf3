"""In the API process: ``/v1/capture``, packets of the engine process as pcapng streams."""
