"""From raw video to tracked instances.

A segmenter finds instances with masks and appearance features, a tracker links them over time.

Inputs: video files or camera frames.
Outputs: one Arrow file per video, written by `prepare`; `store` reads these files, alone or joined
with the annotations of a `Scene`.
"""
