"""A Django project in one file."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY=os.environ.get("SECRET_KEY", "only for trying"),
)


def hello(request):
    return HttpResponse(
        f"hello from generation {os.environ.get('SERVER_STARTER_GENERATION', 'none')}\n"
    )


urlpatterns = [path("", hello)]
app = get_wsgi_application()
