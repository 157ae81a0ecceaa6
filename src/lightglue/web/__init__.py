"""A page and a REST service: match images in a browser, or from another program.

`create_app` needs the extra `web`; `lightglue.web.client` needs nothing but this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightglue.support.lazy import lazy_names

if TYPE_CHECKING:
    from lightglue.web.app import create_app
    from lightglue.web.client import Client
    from lightglue.web.options import Limits, WebOptions
    from lightglue.web.serve import serve

__all__ = ["Client", "Limits", "WebOptions", "create_app", "serve"]

_OWNERS = {
    "Client": "client",
    "Limits": "options",
    "WebOptions": "options",
    "create_app": "app",
    "serve": "serve",
}


__getattr__ = lazy_names(__name__, _OWNERS)
