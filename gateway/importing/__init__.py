"""Azure's JSON to a configuration: ARM templates and the output of az.

A layer beside the core: it imports the model only, reads files, and gives back data; the command
prints. Files become an inventory of resources (``templates``, ``cli_output``), an inventory
becomes a configuration (``assembling``), and what is lost on the way is a note.
"""

from gateway.importing.build import Settings
from gateway.importing.conversion import Imported, NothingImportedError, import_files
from gateway.importing.read_json import InputError
from gateway.importing.templates import Parameters, read_parameters

__all__ = [
    "Imported",
    "InputError",
    "NothingImportedError",
    "Parameters",
    "Settings",
    "import_files",
    "read_parameters",
]
