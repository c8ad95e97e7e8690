"""Self-contained HTML pages: one file each, no script, nothing fetched, readable in light and dark and on a phone."""

from carousel.reports.captions import PhotoResult, Sentence, write_caption_report
from carousel.reports.training import write_training_report

__all__ = ["PhotoResult", "Sentence", "write_caption_report", "write_training_report"]
