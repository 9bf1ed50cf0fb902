"""A sweep or a study as one page to hand on, as HTML and as Markdown.

Must not decide what is significant: results/compare does. Start with write.py: `write_report`.
"""
