"""`carjax serve`: the page, and the same jobs over HTTP.

`app` answers requests; `jobs` keeps the queue; `process` talks to child processes, in which `tasks`
decode and score. The server itself never opens a video, and imports neither JAX nor FFmpeg.
"""
