"""From print to structured logging: what ``foundry-fastlog migrate`` does.

    from foundry_fastlog.migrate import Options, migrate_source

    report = migrate_source('print(f"Loaded {len(rows)} rows")', Options())
    print(report.result)

Needs the extra ``migrate`` (LibCST).
"""

from __future__ import annotations

from foundry_fastlog.migrate.model import FileReport, Finding, Options
from foundry_fastlog.migrate.notebook import migrate_notebook
from foundry_fastlog.migrate.source import migrate_source

__all__ = ["FileReport", "Finding", "Options", "migrate_notebook", "migrate_source"]
