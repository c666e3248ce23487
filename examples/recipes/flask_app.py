"""A Flask application."""

import os

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    return f"hello from generation {os.environ.get('SERVER_STARTER_GENERATION', 'none')}\n"
