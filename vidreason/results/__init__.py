"""Results of runs: metrics, comparisons, pages and pictures.

In come runs, weights, predictions files, scenes and videos. Out go tables and `metrics.json`
(`evaluate`), an HTML page (`report`), videos, images and filmstrips (`render`), and forecasts of
videos without annotation (`live`, `predict_video`).
"""
