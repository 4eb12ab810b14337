"""The bundled task: models, images, and a bench."""

from pathlib import Path

FOLDER = Path(__file__).parent
