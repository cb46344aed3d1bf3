"""In the API process: ``/v1/diagnose``, findings from facts that the engine process reports."""
