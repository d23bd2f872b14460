"""x"""
from pathlib import Path
def write_report(results, failures, folder: Path) -> Path:
    return folder / "report.html"
