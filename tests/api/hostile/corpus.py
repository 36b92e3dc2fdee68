"""All hostile requests."""

from api.hostile.bodies import bodies
from api.hostile.forms import forms
from api.hostile.framing import framing
from api.hostile.headers import headers
from api.hostile.targets import targets

CORPUS = [*bodies(), *targets(), *headers(), *framing(), *forms()]
