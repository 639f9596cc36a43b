"""From raw video to tracked instances.

Input are video files or camera frames; a segmenter finds instances with masks and appearance
features, a tracker links them over time. `prepare` writes the result as one Arrow file per video,
and `store` reads these files, alone or joined with the annotations of a `Scene`.
"""
