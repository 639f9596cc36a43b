"""Results of runs: metrics, comparisons, pages and pictures.

Inputs: runs, weights, predictions files, scenes and videos.
Outputs: tables and `metrics.json` (`evaluate`), an HTML page (`report`), videos, images and
filmstrips (`render`), and forecasts of videos without annotation (`live`, `predict_video`).
"""
