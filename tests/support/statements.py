"""All statements of the product: a module declares its own when it is imported."""

import importlib
import pkgutil

import routines_core.db
from routines_core.db.statements import Statement

for module in pkgutil.iter_modules(routines_core.db.__path__):
    importlib.import_module(f"routines_core.db.{module.name}")

DECLARED = Statement.declared
