"""`lightglue web`: the page and the REST service."""

from __future__ import annotations

import webbrowser
from threading import Thread

from lightglue.cli.printing import echo
from lightglue.web.options import WebOptions

__all__ = ["web"]


def web(options: WebOptions) -> None:
    """Match images in the browser, and for other programs by REST.

    Nothing leaves this machine, and nothing is written to its disk.
    """
    from lightglue.web.serve import Address, serve

    def started(address: Address) -> None:
        echo(f"{address.url}   (Ctrl-C ends it)")
        if options.browser and options.behind_proxy is None:
            Thread(target=webbrowser.open, args=(address.url,), daemon=True).start()

    serve(options, started)
