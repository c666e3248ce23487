"""One thing of Linux in each module. They do not import each other, but for the exceptions named in
pyproject.toml.
"""
